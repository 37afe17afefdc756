"""How the command ends, whatever comes in between: nothing is lost, nothing is left, nothing is obeyed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff.compare.cli.command import main
from layerdiff.compare.report.formats import formats
from layerdiff.compare.report.load import load_report
from layerdiff.graph.printable import printable

from support.models import parsed

RELU = "g (float[4] x) => (float[4] y) { y = Relu(x) }"
COMMAND = [sys.executable, "-m", "layerdiff"]
EVIL = "y\x1b[2J\npass: all agree\u202e"

MODULE = """
import os, time
import numpy as np

def waits(feed):
    open("begun", "a").write("x")
    while len(open("begun").read()) > 1: time.sleep(0.01)
    return {"y": np.maximum(feed["x"], 0)}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    onnx.save(parsed(RELU), tmp_path / "m.onnx")
    (tmp_path / "slow.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "lines", "shown"),
    [
        ("conv1/weights:0 é 重", False, "conv1/weights:0 é 重"),
        ("a\x1b[31mb", False, r"a\x1b[31mb"),
        ("a\nb\tc\r", False, r"a\nb\tc\r"),
        ("a\x9bb\x07\x7f", False, r"a\x9bb\x07\x7f"),
        ("a\u202eb\u2028c", False, r"a\u202eb\u2028c"),
        ("a\udcffb", False, r"a\udcffb"),
        ("a\npass: all\x1b", True, "a\n  pass: all\\x1b"),
    ],
)
def test_what_is_printed_of_a_text(text, lines, shown):
    assert printable(text, lines=lines) == shown


def test_no_format_obeys_a_name(folder):
    model = parsed(RELU)
    model.graph.node[0].output[0] = model.graph.output[0].name = EVIL
    onnx.save(model, "evil.onnx")
    assert main(["evil.onnx", "--onnxrt", "--emulate", "fp16", "--layers", "--json", "r.json"]) in (0, 1)
    report = load_report("r.json")
    assert report.outputs[0].tensor == EVIL
    for flag, one in formats().items():
        if flag in ("--json", "--csv", "--model-explorer"):  # for programs, to which a name is a name
            continue
        text = str(one.render(report))
        assert not [c for c in ("\x1b", "\u202e") if c in text], flag
        assert "\npass: all agree" not in text, flag


@pytest.mark.parametrize(
    "words",
    [
        "--json m.onnx",
        "--json hard.onnx",
        "--json link.onnx",
        "--save-inputs m.onnx",
        "--fixed-model m.onnx --fix p.json",
        "--data data --json data/0.npz",
    ],
)
def test_an_input_is_never_an_output(words, folder, capsys):
    os.link("m.onnx", "hard.onnx")
    os.symlink("m.onnx", "link.onnx")
    Path("data").mkdir()
    np.savez("data/0.npz", x=np.zeros(4, np.float32))
    before = Path("m.onnx").read_bytes()
    assert main(["m.onnx", "--onnxrt", "--onnxrt", *words.split()]) == 2
    assert "input of the comparison" in capsys.readouterr().err
    assert Path("m.onnx").read_bytes() == before


@pytest.mark.parametrize("words", ["--json none/r.json", "--html none/r.html", "--save-worst m.onnx/worst"])
def test_what_cannot_be_written_is_refused_before_anything_runs(words, folder, capsys):
    assert main(["m.onnx", "--onnxrt", "--onnxrt", *words.split()]) == 2
    err = capsys.readouterr().err
    assert "cannot be written" in err
    assert "running" not in err


@pytest.mark.parametrize(
    ("package", "words", "status"),
    [
        ("jinja2", "m.onnx --onnxrt --onnxrt --html r.html", 2),
        ("plotly", "m.onnx --onnxrt --onnxrt --html r.html", 2),
        ("jinja2", "--suite checks.toml", 2),
        ("ray", "m.onnx --onnxrt --onnxrt --ray=local", 3),
    ],
)
def test_a_package_that_is_missing_is_told_before_anything_runs(package, words, status, folder, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.partition(".")[0] == package or n.endswith(("html.page", "html.charts"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    Path("checks.toml").write_text(
        '[[check]]\nname = "one"\nmodel = "m.onnx"\nrunners = ["onnxrt", "onnxrt"]\nhtml = "r.html"\n'
    )
    assert main(words.split()) == status
    told = capsys.readouterr()
    assert f"pip install 'layerdiff[{'ray' if package == 'ray' else 'html'}]'" in told.err
    assert "running" not in told.err
    assert not told.out


def test_links_and_modes_of_reports_stay(folder):
    Path("real.json").write_text("{}")
    Path("real.json").chmod(0o640)
    os.symlink("real.json", "r.json")
    words = "m.onnx --onnxrt --onnxrt --json r.json --markdown m.md"
    Path("m.md").write_text("")
    Path("m.md").chmod(0o604)
    assert main(words.split()) == 0
    assert Path("r.json").is_symlink()
    assert json.loads(Path("real.json").read_text())["verdict"] == "pass"
    assert stat.S_IMODE(Path("m.md").stat().st_mode) in (0o604, 0o644)  # a report of before is discarded


def run(words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words.split()], env={**os.environ, **environment}, capture_output=True, text=True)


def test_an_ascii_terminal_is_told_everything(folder):
    model = parsed(RELU)
    model.graph.node[0].output[0] = model.graph.output[0].name = "größe"
    onnx.save(model, "m.onnx")
    done = run("m.onnx --onnxrt --onnxrt", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0
    assert "gr\\xf6\\xdfe" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
@pytest.mark.parametrize("stream", ["stderr", "closed stderr"])
def test_a_standard_error_that_is_gone_changes_no_verdict(stream, folder):
    words = [*COMMAND, "m.onnx", "--onnxrt", "--onnxrt"]
    if stream == "stderr":
        with open("/dev/full", "w") as full:
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=full, text=True)
    else:
        done = subprocess.run(["bash", "-c", f"{' '.join(words)} 2>&-"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("pass: ")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("isolate", ["auto", "off"])
def test_an_interrupted_run_tells_what_it_found_and_leaves_nothing(number, status, isolate, folder):
    """The second sample waits until the run is interrupted; the first was compared."""
    Path("tmp").mkdir()
    Path("r.json").write_text('{"verdict": "pass"}')
    words = f"m.onnx --onnxrt --runner slow:waits --samples 3 --isolate {isolate} --json r.json"
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    with subprocess.Popen([*COMMAND, *words.split()], env=environment, stdout=subprocess.PIPE, text=True) as child:
        while not os.path.exists("begun") or len(Path("begun").read_text()) < 2:
            time.sleep(0.01)
        assert not Path("r.json").exists()
        child.send_signal(number)
        out, _ = child.communicate(timeout=100)
    assert child.returncode == status
    found = json.loads(Path("r.json").read_text())
    assert found["verdict"] == "error"
    assert {r["error"] for r in found["runners"]} <= {f"interrupted after {n} of 3 samples" for n in (1, 2)}
    (output,) = found["outputs"]
    assert output["metrics"]["count"] == 4
    assert "interrupted" in [n["code"] for n in found["notices"]]
    said = out.splitlines()[-1]
    assert said.startswith("error: the run was interrupted; ")
    assert "failed" not in said
    assert "on 1 of 3 random samples" in said
    assert found["data"].startswith("1 of 3 random samples")
    assert os.listdir("tmp") == []


def test_the_signals_of_the_program_around_it_stay(folder):
    main(["m.onnx", "--onnxrt", "--onnxrt", "-q"])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_shows_a_network_obeys_no_name_either(tmp_path, capsys):
    model = parsed(RELU)
    model.graph.node[0].name, model.graph.node[0].output[0], model.graph.output[0].name = EVIL, EVIL, EVIL
    onnx.save(model, tmp_path / "evil.onnx")
    for more in ([], ["--nodes"]):
        assert main(["inspect", str(tmp_path / "evil.onnx"), *more]) == 0
        out = capsys.readouterr().out
        assert not [c for c in ("\x1b", "\u202e") if c in out]
        assert not [line for line in out.splitlines() if line.startswith("pass")]
