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


USERS = """
import os, signal
for _ in range({times}): os.kill(os.getpid(), signal.{signal})
open("on", "w")
{then}
def load_data():
    yield {{"x": [1.0, 2.0]}}
def function(feed):
    return {{"y": feed["x"]}}
"""


def _users(tmp_path, words, **text):
    onnx.save(parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    (tmp_path / "mine.py").write_text(USERS.format(**text))
    code = (
        f"from layerdiff.compare.cli import main; raise SystemExit(main(['m.onnx', '--onnxrt', '--onnxrt', *{words}]))"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("words", [["--runner", "mine:function"], ["--data", "mine.py"]], ids=lambda words: words[0])
@pytest.mark.parametrize("then", ["pass", "raise ImportError('initialization failed')"], ids=["goes on", "fails"])
@pytest.mark.parametrize(("signal", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_the_imports_of_a_users_module_are_waited_for(words, then, signal, status, tmp_path):
    done = _users(tmp_path, words, times=1, signal=signal, then=then)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (status, "compare: interrupted.")
    assert "initialization failed" not in done.stderr
    assert (tmp_path / "on").exists()


@pytest.mark.parametrize(("signal", "status"), [("SIGTERM", -15), ("SIGINT", 130)])
def test_a_second_one_is_obeyed_at_once(signal, status, tmp_path):
    done = _users(tmp_path, ["--data", "mine.py"], times=2, signal=signal, then="pass")
    assert (done.returncode, (tmp_path / "on").exists()) == (status, False)


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
