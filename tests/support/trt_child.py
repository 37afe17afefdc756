"""Builds or loads engines that are bound to fail, in a process of its own: a runtime that crashes takes it along.

Reads jobs as JSON from standard input, ``[[name, ONNX file, fields of TrtRunner], ...]``, and writes one line for each:
its name, and ``built`` or the error.
"""

import json
import sys

from layerdiff.graph.load import load
from layerdiff.runners.trt.runner import TrtRunner


def main() -> None:
    for name, path, options in json.load(sys.stdin):
        try:
            options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
            TrtRunner(**options).open(load(path)).close()
            found = "built"
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        print(json.dumps([name, found]), flush=True)


if __name__ == "__main__":
    main()
