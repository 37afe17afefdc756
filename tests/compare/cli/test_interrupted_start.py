"""Ctrl-C while the command starts: it waits for the import at hand, and is told in a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import layerdiff
import onnx
import pytest

from support.models import parsed

PRESSED = """
import os, signal, sys

class Presses:
    # Ctrl-C when a module is looked for.
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))

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
    _interrupted(module, "SIGINT", 130, tmp_path)


def test_sigterm_waits_for_it_too(tmp_path):
    done = _done("onnxruntime", "SIGTERM", tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (143, "True")
    assert "does not load" not in done.stdout
    assert done.stderr.splitlines()[-1] == "compare: interrupted."


def test_nothing_is_imported_before_interrupts_are_told():
    code = "import sys; before = set(sys.modules); import layerdiff.compare.cli; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=_env())
    assert {name for name in done.stdout.split() if not name.startswith("layerdiff")} <= {"__future__"}, done.stderr


def _env():
    return {"PYTHONPATH": str(Path(layerdiff.__file__).parent.parent), "PATH": ""}


def _done(module, signal, tmp_path):
    onnx.save(parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    words = [sys.executable, "-c", PRESSED, module, signal]
    return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)


def _interrupted(module, signal, status, tmp_path):
    done = _done(module, signal, tmp_path)
    said = [line for line in done.stderr.splitlines() if not line.startswith(("loading", "onnxrt"))]
    assert (done.returncode, done.stdout, said) == (status, "True\n", ["compare: interrupted."])
