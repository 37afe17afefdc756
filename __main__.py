"""``python -m layerdiff`` is the ``compare`` command."""

from .compare.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
