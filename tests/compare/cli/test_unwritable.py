"""Files that cannot be written cost no verdict: the report says so, and the command ends with status 2."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff.compare.cli.command import main
from layerdiff.compare.report.load import load_report

from support.models import parsed
from support.plan_networks import overflowing, samples

WIDE = "g (float[1, 4096] x) => (float[1, 4096] y) { h = Mul(x, w) y = Exp(h) }"
"""Overflows in FP16 where x is large; an output of 16 KiB."""
LIMIT = 12_000
"""Bytes that a file may have: enough for a report, too few for the outputs. As on a disk that fills up."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    onnx.save(parsed(WIDE, w=np.full(1, 12, np.float32)), tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def limited(words: str, size: int = LIMIT, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process whose files may have so many bytes, and which runs something before it."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does: writing fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    code = f"{before}\nimport sys\nfrom layerdiff.compare.cli.command import main\nsys.exit(main())"
    command = [sys.executable, "-B", "-c", code, *words.split()]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)


@pytest.mark.parametrize("flag", ["--save-outputs saved.json", "--save-outputs saved", "--save-worst saved"])
@pytest.mark.parametrize("quiet", ["", " -q"])
def test_a_disk_that_fills_up_costs_no_verdict(flag, quiet, folder):
    done = limited(f"m.onnx --onnxrt --emulate fp16 --samples 3 {flag} --json r.json{quiet}")
    assert done.returncode == 2
    assert load_report("r.json").verdict in ("pass", "fail", "undecided")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "cannot be written" in line]
    assert len(lines) == 1
    assert lines[0].startswith("compare: --save" if quiet else "warning: --save")
    assert any(line.startswith(load_report("r.json").verdict) for line in done.stdout.splitlines())
    assert [path.name for path in folder.rglob("*.partial")] == []
    for path in folder.rglob("*.npz"):
        np.load(path)


def test_outputs_after_one_that_could_not_be_written_are_not(folder):
    """A recording with gaps would be compared sample by sample with others."""
    limited("m.onnx --onnxrt --onnxrt --samples 3 --save-outputs saved.json --json r.json")
    assert not Path("saved.json").exists()


def test_a_plan_that_cannot_be_written_is_in_the_report(folder, monkeypatch):
    """The file is a folder by the time that the plan is written to it."""
    words = "m.onnx --onnxrt --emulate fp16 --fix plan.json --json r.json --range x:0.9,1"
    monkeypatch.setattr("layerdiff.compare.stages.check_writable", lambda path, flag, **more: Path(path).mkdir())
    assert main(words.split()) == 2
    report = load_report("r.json")
    assert report.verdict == "fail"
    assert [n.code for n in report.notices if "plan.json" in n.text] == ["not-written"]
    assert (report.plan.path, report.plan.status) == ("", "none")


SPLIT = "from layerdiff.compare.plans import fixed_model\nfixed_model.LARGEST = 0"
"""As of a network of more than 2 GiB, whose weights are written beside it."""


@pytest.mark.parametrize("before", ["", SPLIT], ids=["one file", "weights beside it"])
@pytest.mark.parametrize("flag", ["--fix plan.json --fixed-model", "--apply-remedy"])
def test_a_network_that_fills_the_disk_costs_no_verdict(flag, before, folder):
    """Its 17 weights take 8 KiB in FP16 at least, where files may have 8,000 bytes: enough for the plan."""
    onnx.save(overflowing(16), folder / "m.onnx")
    (folder / "data").mkdir()
    for number, sample in enumerate(samples()):
        np.savez(folder / "data" / f"{number}.npz", **sample)
    done = limited(f"m.onnx --onnxrt --emulate fp16 --data data {flag} made.onnx", 8_000, before)
    assert done.returncode == 2
    assert any(line.startswith("fail: ") for line in done.stdout.splitlines())
    assert (done.stdout + done.stderr).count("made.onnx: cannot be written: File too large") == 1
    assert "Traceback" not in done.stderr
    left = {path.name for path in folder.iterdir()} - {"m.onnx", "data"}
    assert left == ({"plan.json"} if "--fix" in flag else set())
    assert not left or json.loads(Path("plan.json").read_text())["schema"] == "layerdiff.plan/1"


FLAGS = ["--json", "--save-outputs", "--save-inputs", "--save-worst", "--html", "--fix", "--apply-remedy"]


@pytest.mark.parametrize("flag", [*FLAGS, "--fix=plan.json --fixed-model"])
def test_a_folder_without_permission_is_refused_before_anything_runs(flag, folder, capsys):
    Path("locked").mkdir(mode=0o500)
    where = "locked"
    if os.geteuid() == 0:  # who may write everywhere, but for here
        where = "/proc"
    words = f"m.onnx --onnxrt --emulate fp16 {flag} {where}/x"
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.count("cannot be written") == 1
    assert "running" not in captured.err


def test_a_report_that_fills_the_disk_is_there_whole_or_not_at_all(folder):
    Path("r.html").write_text("before")
    done = limited("m.onnx --onnxrt --onnxrt --json r.json --html r.html")
    assert done.returncode == 2
    assert "\npass: " in done.stdout
    assert done.stderr.count("cannot be written") == 1
    assert json.loads(Path("r.json").read_text())["verdict"] == "pass"
    assert list(folder.glob("*.partial")) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
@pytest.mark.parametrize(
    ("words", "full"),
    [
        ("inspect m.onnx --nodes", 2),
        ("inspect m.onnx --json -", 2),
        ("plan plan.json", 2),
        ("completion bash", 2),
        ("extract m.onnx -o part.onnx", 0),  # what it is for is the file
        ("--suite checks.toml -q", 2),
    ],
)
def test_an_answer_that_gets_nowhere_is_told_and_one_that_nobody_reads_on_is_no_failure(words, full, folder):
    check = '[[check]]\nname = "a"\nmodel = "m.onnx"\nrunners = ["onnxrt", "onnxrt"]\n'
    Path("checks.toml").write_text(check)
    if words.startswith("plan"):
        np.savez("d.npz", x=np.full((1, 4096), 0.01, np.float32))
        main(["m.onnx", "--onnxrt", "--emulate=fp16", "--data", "d.npz", "--fix", "plan.json"])
    line = [sys.executable, "-m", "layerdiff", *words.split()]
    with open("/dev/full", "w") as nowhere:
        done = subprocess.run(line, stdout=nowhere, stderr=subprocess.PIPE, text=True)
    assert done.returncode == full
    told, *shown = done.stderr.splitlines()
    assert told.endswith("standard output cannot be written: No space left on device.")
    assert shown == (["pass"] if words.startswith("--suite") else [])
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == ("", 0)


FILES = ["--json", "--html", "--junit", "--markdown", "--text", "--fix", "--apply-remedy"]


@pytest.mark.parametrize("path", ["there", "there/", "new/", ""], ids=repr)
@pytest.mark.parametrize("flag", FILES)
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_runs(flag, path, folder, capsys):
    (folder / "there").mkdir()
    assert main(["m.onnx", "--onnxrt", "--emulate", "fp16", flag, path]) == 2
    told = capsys.readouterr()
    assert f"{flag} {path or repr(path)}: " in told.err
    assert "name a file in it" in told.err or "a file has a name" in told.err
    assert "running" not in told.err
    assert not told.out


@pytest.mark.parametrize("flag", ["--json", "--junit", "--markdown"])
def test_that_of_a_suite_too(flag, folder, capsys):
    (folder / "s.toml").write_text('[[check]]\nmodel = "m.onnx"\nrunners = ["onnxrt", "onnxrt"]\n')
    assert main(["--suite", "s.toml", flag, "."]) == 2
    assert f"{flag} .: that is a folder" in capsys.readouterr().err
