"""``layerdiff report``: any format from a saved report, with the status of the comparison."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from layerdiff.compare.cli.command import main
from layerdiff.compare.report.json import render

from support.reports import full, output, report


@pytest.fixture
def saved(tmp_path):
    def write(found, name="report.json"):
        path = tmp_path / name
        path.write_text(render(found))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("found", "word", "status"),
    [
        (report(output()), "pass", 0),
        (report(output("fail")), "fail", 1),
        (report(output("undecided")), "undecided", 1),
        (report(errors={"onnxrt": "crashed"}), "error", 3),
    ],
)
def test_the_status_is_that_of_the_comparison(found, word, status, saved, capsys):
    assert main(["report", saved(found), "-q"]) == status
    assert capsys.readouterr().out.strip() == word


def test_every_format_of_a_saved_report_is_that_of_the_run(saved, tmp_path, capsys):
    written = [str(tmp_path / name) for name in ("a.json", "a.xml", "a.md", "a.csv", "a.txt", "b.md")]
    flags = ("--json", "--junit", "--markdown", "--csv", "--text", "--markdown")
    path = saved(full())
    assert main(["report", path, *(word for pair in zip(flags, written, strict=True) for word in pair), "-q"]) == 1
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads((tmp_path / "report.json").read_text())
    assert (tmp_path / "a.md").read_text() == (tmp_path / "b.md").read_text()
    assert (tmp_path / "a.csv").read_text().count("\n") == 3


def test_a_baseline(saved, capsys):
    before, after = saved(report(output()), "before.json"), saved(report(output("fail")), "after.json")
    assert main(["report", after, "--baseline", before]) == 1
    assert "worse: output y of emulate:fp16: pass -> fail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.json"], "missing.json: cannot be read: No such file or directory."),
        (["{}", "--json", "{}"], "that is an input of the comparison, and the report would replace it"),
        (["{}", "--model-explorer", "-"], "--model-explorer writes a folder, which standard output is not"),
    ],
)
def test_what_is_refused(words, message, saved, capsys):
    path = saved(full())
    assert main(["report", *(word.format(path) for word in words)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["-q"], ["-v"]], ids=str)
def test_a_terminal_that_goes_away_costs_no_verdict(words, saved):
    path = saved(report(*(output("undecided", tensor=f"y{i}") for i in range(2000))))
    line = [sys.executable, "-m", "layerdiff", "report", path, *words]
    with open("/dev/full", "w") as nowhere:
        done = subprocess.run(line, stdout=nowhere, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    lost, verdict = done.stderr.splitlines()
    assert lost == "layerdiff report: standard output cannot be written: No space left on device."
    assert verdict.startswith("undecided: ")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == ("", 1)


def test_a_report_that_does_not_reach_standard_output_is_no_pass(saved):
    line = [sys.executable, "-m", "layerdiff", "report", saved(report(output())), "--json", "-"]
    with open("/dev/full", "w") as nowhere:
        done = subprocess.run(line, stdout=nowhere, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "--json -: standard output cannot be written" in done.stderr
