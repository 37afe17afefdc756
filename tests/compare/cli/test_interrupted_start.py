"""Ctrl-C while the command starts: it waits for the import at hand, and is told in a line."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest

from support.models import parsed

PRESSED = """
import os, signal, sys

class Presses:
    # Ctrl-C when a module is looked for.
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Presses())
from layerdiff.compare.cli import main
status = main(["m.onnx", "--onnxrt", "--onnxrt"])
print(sys.argv[1] in sys.modules)
sys.exit(status)
"""


@pytest.mark.parametrize(
    "module",
    [
        "layerdiff.compare.cli.command",
        "layerdiff.graph.errors",
        "layerdiff.compare.cli.arguments",
        "layerdiff.runners.trt.runner",
        "layerdiff.compare.report.junit",
        "rich.console",
        "numpy",
        "numpy.random",
        "ml_dtypes",
        "onnx",
    ],
)
def test_it_waits_for_the_import_at_hand(module, tmp_path):
    onnx.save(parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    words = [sys.executable, "-c", PRESSED, module]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if not line.startswith(("loading", "onnxrt"))]
    assert (done.returncode, done.stdout, said) == (130, "True\n", ["compare: interrupted."])
