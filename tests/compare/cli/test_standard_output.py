"""Standard output: for what was asked for alone, and where it cannot be written, that is told."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import numpy as np
import onnx
import pytest

from support.models import parsed

MINE = """
import os
print("imported")
def good(feed):
    print("run")
    os.system("echo started")
    return {"y": feed["x"]}
def metric(outputs, labels):
    print("measured")
    return 1.0
def load_data():
    print("loaded")
    import numpy as np
    yield {"x": np.ones((2, 4), np.float32)}
"""
RUN = [sys.executable, "-m", "layerdiff"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(parsed("g (float[2,4] x) => (float[2,4] y) { y = Relu(x) }"), "m.onnx")
    np.savez("d.npz", x=np.ones((2, 4), np.float32))
    (tmp_path / "mine_prints.py").write_text(MINE)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--onnxrt", "--data", "mine_prints.py"], {"loaded"}),
        (["--onnxrt", "--data", "d.npz", "--metric", "mine_prints:metric"], {"imported", "measured"}),
        (["--runner", "mine_prints:good", "--data", "d.npz", "--isolate", "off"], {"imported", "run", "started"}),
    ],
)
def test_what_the_code_of_others_prints_goes_to_standard_error(folder, words, printed):
    done = subprocess.run([*RUN, "m.onnx", "--onnxrt", *words, "--json", "-"], capture_output=True, text=True)
    assert json.loads(done.stdout)["verdict"] == "pass", done.stderr
    assert printed <= set(done.stderr.splitlines())


def test_inspect_writes_json_alone(folder):
    words = ["inspect", "m.onnx", "--data", "mine_prints.py", "--json", "-"]
    done = subprocess.run([*RUN, *words], capture_output=True, text=True)
    assert json.loads(done.stdout)["source"] == "m.onnx", done.stderr
    assert "loaded" in done.stderr


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_the_verdict_is_told_where_standard_output_cannot_be_written(folder, quiet):
    words = ["m.onnx", "--onnxrt", "--onnxrt", "--data", "d.npz", *quiet]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([*RUN, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "compare: standard output cannot be written: No space left on device." in done.stderr
    assert "\npass: " in f"\n{done.stderr}"


@pytest.mark.parametrize("words", [["--suite", "s.toml"], ["inspect", "m.onnx"], ["plan", "--help"]])
def test_other_commands_do_not_succeed_where_nothing_can_be_shown(folder, words):
    (folder / "s.toml").write_text('[[check]]\nmodel = "m.onnx"\ndata = "d.npz"\nrunners = ["onnxrt", "onnxrt"]\n')
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([*RUN, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == (0 if "--help" in words else 2), done.stderr
    assert "standard output cannot be written" in done.stderr or "--help" in words


@pytest.mark.parametrize("words", [[], ["-q"]])
def test_a_report_on_standard_output_that_is_closed_is_refused(folder, words):
    command = [*RUN, "m.onnx", "--onnxrt", "--onnxrt", "--data", "d.npz", "--json", "-", *words]
    done = subprocess.run(f"{shlex.join(command)} >&-", shell=True, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("compare: --json -: standard output is closed.\n")
    done = subprocess.run(f"{shlex.join(command)} >/dev/null", shell=True, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
