"""The command ``polygraphy``, which need not be installed beside the interpreter that runs it."""

import sys

from polygraphy.tools import main

if __name__ == "__main__":
    sys.exit(main())
