"""Runs a program and counts what it asks of ONNX Runtime: ``python counted.py OUT.json PROGRAM [ARGUMENT ...]``.

A file of its own without imports from this package, as it runs wherever the program runs. What is counted: sessions
opened, calls of ``run``, and *products* run: nodes Conv, Gemm and MatMul of each session's model, each time it runs.
Divided by the products of a network they are passes over it, whole or in pieces; a pass over one entry of a batch
counts in full.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def count(program: list[str]) -> dict[str, int]:
    """Runs a Python program, a file or ``-m`` and a module, to its end, and returns the counts."""
    import onnx
    import onnxruntime

    found = {"sessions": 0, "runs": 0, "products": 0}
    plain = onnxruntime.InferenceSession

    class Session(plain):  # type: ignore[misc, valid-type]
        def __init__(self, source: Any, *args: Any, **options: Any) -> None:
            super().__init__(source, *args, **options)
            load = onnx.load_model_from_string if isinstance(source, bytes) else onnx.load
            nodes = load(source).graph.node
            self.products = sum(node.op_type in PRODUCTS for node in nodes)
            found["sessions"] += 1

        def run(self, *args: Any, **options: Any) -> Any:
            found["runs"] += 1
            found["products"] += self.products
            return super().run(*args, **options)

    onnxruntime.InferenceSession = Session
    module = program[0] == "-m"
    sys.argv = program[1:] if module else program
    try:
        if module:
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program[0], run_name="__main__")
    except SystemExit as end:
        found["status"] = int(end.code or 0)
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(count(sys.argv[2:])), encoding="utf-8")
