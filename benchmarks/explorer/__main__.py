"""Writes node data for several models and asks Model Explorer's ONNX adapter for every key.

It needs a Python with ``ai-edge-model-explorer`` and ``model-explorer-onnx``: ``--explorer .explorer/bin/python``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
from layerdiff.compare.cli.command import main as compare

from benchmarks.corpus.models import DATA
from benchmarks.kit.networks import NETWORKS
from benchmarks.kit.pages import DOCS, table, write_section

ADAPTER = Path(__file__).with_name("adapter.py")
DIGITS = DOCS.parent / "examples" / "digits" / "digits.onnx"

BRANCH = """<ir_version: 8, opset_import: ["" : 17]>
g (float[4, 8] x) => (float[4, 8] y) {
  s = ReduceSum <keepdims=0> (x)
  zero = Constant <value_float=0.0> ()
  positive = Greater(s, zero)
  y = If (positive) <
    then_branch = then () => (float[4, 8] a) { e = Exp(x) a = Sqrt(e) },
    else_branch = other () => (float[4, 8] b) { n = Neg(x) b = Exp(n) }
  >
}"""
"""An If whose nodes have no names."""


def _file(path: Path) -> Callable[[], onnx.ModelProto]:
    return lambda: onnx.load(path)


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "digits": _file(DIGITS),
    "light_squeezenet": _file(DATA / "light" / "light_squeezenet.onnx"),
    "light_shufflenet": _file(DATA / "light" / "light_shufflenet.onnx"),
    "light_resnet50": _file(DATA / "light" / "light_resnet50.onnx"),
    "light_densenet121": _file(DATA / "light" / "light_densenet121.onnx"),
    "bert": lambda: NETWORKS["bert"]().proto,
    "looped": lambda: NETWORKS["looped"]().proto,
    "branch": lambda: onnx.parser.parse_model(BRANCH),
}
"""A trained network, networks of the onnx package whose nodes have no names, names of PyTorch, bodies."""


def asked(name: str, explorer: str) -> dict[str, Any]:
    """What the adapter finds of the node data of one model."""
    with tempfile.TemporaryDirectory() as folder:
        model, nodes = Path(folder) / "model.onnx", Path(folder) / "nodes"
        onnx.save(MODELS[name](), model)
        words = [str(model), "--onnxrt", "--emulate=fp16", "--samples=1", "--layers=all", "--rtol=0", "--atol=0"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
            status = compare([*words, "-q", "--model-explorer", str(nodes)])
        if status not in (0, 1):
            raise RuntimeError(f"{name}: {told.getvalue()}")
        copy = nodes / "model.onnx"
        shown = copy if copy.exists() else model
        done = subprocess.run([explorer, ADAPTER, shown, nodes], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        return {"copy": copy.exists(), **json.loads(done.stdout)}


def row(name: str, found: dict[str, Any]) -> tuple[object, ...]:
    """One line of the table."""
    keys = sum(one["keys"] for one in found["found"])
    missing = sum(len(one["missing"]) for one in found["found"])
    graphs = len(found["graphs"])
    return f"`{name}`", sum(found["graphs"].values()), graphs, "yes" if found["copy"] else "", keys, keys - missing


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer", description=__doc__)
    parser.add_argument("--explorer", default=sys.executable, metavar="PYTHON", help="a Python with Model Explorer")
    parser.add_argument("--model", action="append", choices=list(MODELS), help="only this model")
    parser.add_argument("--write", action="store_true", help="write the table to docs/report.md (complete runs do)")
    options = parser.parse_args(argv)
    results = {}
    for name in options.model or MODELS:
        results[name] = found = asked(name, options.explorer)
        print(*row(name, found), sep="\t", flush=True)
        for one in found["found"]:
            if one["missing"]:
                print(f"  {one['file']}, {one['graph']}: {', '.join(one['missing'][:5])}")
    head = ("model", "nodes in Model Explorer", "graphs", "named copy", "keys", "found")
    if options.write or not options.model:
        rows = (row(name, found) for name, found in results.items())
        write_section(DOCS / "report.md", table(head, rows, numbers=True), section="explorer")
    return int(any(one["missing"] for found in results.values() for one in found["found"]))


if __name__ == "__main__":
    sys.exit(main())
