"""A file of checks: each verdict beside the one that is expected, one table, one status, one JUnit."""

from __future__ import annotations

import json
import re
import sys
from xml.etree import ElementTree as xml

import pytest
import xmlschema
from layerdiff import UsageError
from layerdiff.compare.cli.command import main
from layerdiff.compare.suites import running
from layerdiff.compare.suites.checks import read_checks
from layerdiff.graph.interrupts import Terminated

from support.paths import ROOT

XSD = xmlschema.XMLSchema(ROOT / "tests" / "support" / "junit.xsd")
RELU = "g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"
TWICE = "g (float[N, 3] x) => (float[N, 3] y) { y = Add(x, x) }"
DEFAULTS = '[defaults]\nrunners = ["onnxrt"]\nsamples = 1\n'
ALIKE = '[[check]]\nname = "alike"\nmodels = ["relu.onnx", "copy.onnx"]\n'
OTHER = '[[check]]\nname = "other"\nmodels = ["relu.onnx", "twice.onnx"]\n'
GONE = '[[check]]\nname = "gone"\nmodel = "missing.onnx"\nrunners = ["onnxrt", "onnxrt"]\n'
KNOWN = OTHER + 'expect = "fail"\n'


@pytest.fixture
def suite(onnx_file, tmp_path):
    for name, body in (("relu", RELU), ("copy", RELU), ("twice", TWICE)):
        onnx_file(body, f"{name}.onnx")

    def write(*checks: str, head: str = "") -> str:
        (tmp_path / "checks.toml").write_text(head + DEFAULTS + "".join(checks))
        return str(tmp_path / "checks.toml")

    return write


@pytest.mark.parametrize(
    ("checks", "status", "last"),
    [
        ([ALIKE], 0, "1 of 1 checks as expected"),
        ([ALIKE, KNOWN], 0, "2 of 2 checks as expected, 1 of them known failures"),
        ([OTHER, ALIKE], 1, "1 of 2 checks as expected"),
        ([ALIKE + 'expect = "fail"\n'], 1, "0 of 1 checks as expected"),
        ([ALIKE, GONE], 3, "1 of 2 checks as expected"),
        ([GONE + 'expect = "fail"\n'], 3, "0 of 1 checks as expected"),
    ],
)
def test_one_status_for_all(suite, checks, status, last, capsys):
    assert main(["--suite", suite(*checks)]) == status
    assert capsys.readouterr().out.splitlines()[-1] == last


@pytest.mark.parametrize(("stop", "ran"), [("false", 2), ("true", 1)])
def test_it_goes_on_or_stops(suite, stop, ran, tmp_path, capsys):
    path = suite(OTHER, ALIKE, head=f"stop = {stop}\n")
    assert main(["--suite", path, "--json", str(tmp_path / "all.json"), "-q"]) == 1
    found = json.loads((tmp_path / "all.json").read_text())
    assert [check["name"] for check in found["checks"]] == ["other", "alike"][:ran]
    assert found["checks"][0]["report"]["verdict"] == "fail"
    assert (found["total"], found["as_expected"]) == (2, False)


def test_one_junit_for_all(suite, tmp_path):
    path = suite(
        ALIKE, KNOWN, GONE, OTHER.replace('"other"', '"bad"'), ALIKE.replace('"alike"', '"wrong"') + 'expect = "fail"\n'
    )
    assert main([f"--suite={path}", "--junit", str(tmp_path / "all.xml"), "-q"]) == 3
    text = (tmp_path / "all.xml").read_text()
    XSD.validate(text)
    found = {}
    for of in xml.fromstring(text):
        (case,) = of
        found[of.get("name")] = next((child.tag for child in case), "passed")
    assert found == {
        "alike: onnxrt@copy.onnx": "passed",
        "other": "skipped",
        "gone": "error",
        "bad: onnxrt@twice.onnx": "failure",
        "wrong": "failure",
    }


NO_DATA = '[[check]]\nname = "no data"\nmodel = "relu.onnx"\nrunners = ["onnxrt", "onnxrt"]\ndata = "gone.npz"\n'
NO_NAME = ALIKE.replace('"alike"', '"no name"') + 'tolerance = "zz:1,1"\n'
PLANNED = '[[check]]\nname = "planned"\nmodel = "relu.onnx"\nrunners = ["onnxrt", "onnxrt"]\ndata = "made"\n'
MADE = ALIKE + 'save-inputs = "made"\n'


@pytest.mark.parametrize("check", [GONE, NO_DATA, NO_NAME], ids=["model", "data", "name"])
@pytest.mark.parametrize(("stop", "left"), [("false", []), ("true", ["alike"])])
def test_every_check_is_read_before_one_is_run(suite, check, stop, left, tmp_path, monkeypatch, capsys):
    begun = []
    real = running.compare

    def compare(request, progress):
        begun.append(len(prepared))
        return real(request, progress)

    prepared = []
    read = running.prepared
    monkeypatch.setattr(running, "compare", compare)
    monkeypatch.setattr(running, "prepared", lambda request: prepared.append(1) or read(request))
    path = suite(ALIKE, check, head=f"stop = {stop}\n")
    assert main(["--suite", path, "--json", str(tmp_path / "all.json"), "-q"]) == 3
    found = json.loads((tmp_path / "all.json").read_text())
    assert (found["not_run"], begun) == (left, [] if left else [2])


def test_what_another_check_writes_need_not_be_there(suite, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--suite", suite(MADE, PLANNED), "-q"]) == 0


def test_a_runner_that_fails_is_an_error_whatever_is_expected(suite, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def fails(feed): raise ValueError('boom')")
    broken = '[[check]]\nname = "b"\nmodel = "relu.onnx"\nrunners = ["onnxrt", "runner=mine:fails"]\nexpect = "fail"\n'
    sys.path.append(str(tmp_path))
    try:
        assert main(["--suite", suite(broken), "--junit", str(tmp_path / "all.xml"), "-q"]) == 3
    finally:
        sys.path.remove(str(tmp_path))
    assert [child.tag for child in xml.parse(tmp_path / "all.xml").getroot()[0][0]] == ["error"]


def test_a_table_for_a_step_summary(suite, capsys):
    assert main(["--suite", suite(ALIKE, OTHER), "--markdown", "-"]) == 1
    out = capsys.readouterr().out
    assert "| alike | ✅ pass | pass |" in out
    assert "| other | ❌ fail | pass |" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no \\[\\[check\\]\\] in it, so nothing would be compared"),
        ("[[check]", "not TOML"),
        ("[[chek]]\n", "unknown key 'chek'"),
        (
            '[[check]]\nmodel = "a.onnx"\nrunners = ["onnxrt", "onnxrt"]\nexpect = "good"',
            "expect = 'good'; there are: pass",
        ),
        ('[[check]]\nrunners = ["onnxrt"]', "name a model, and runners as a list"),
        ('[[check]]\nmodel = "a.onnx"\nrunners = ["onnxrt", "onnxrt"]\nrtoll = 1', "check 1 .*unknown option --rtoll"),
        ('[[check]]\nmodel = "a.onnx"\nrunners = ["onnxrt"]\nrtol = {a = 1}', "rtol is an option of compare"),
        (ALIKE.replace("[[check]]", '[[check]]\nrunners = ["onnxrt"]') * 2, "2 checks are called 'alike'"),
        (ALIKE + 'runners = ["onnxrt"]\nversion = true\n', "check 1 .*version is no option of a check"),
        (ALIKE + 'runners = ["onnxrt"]\nhelp = true\n', "help is no option of a check"),
        (DEFAULTS + "suite = 'b'\n" + ALIKE, "suite is no option of a check"),
        (ALIKE + 'runners = ["onnxrt"]\nmodel = "relu.onnx"\n', "check 1 .*model and models"),
    ],
)
def test_what_cannot_be_understood_is_refused_before_anything_runs(text, message, tmp_path):
    (tmp_path / "checks.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_checks(tmp_path / "checks.toml")


def test_options_become_a_command_line(tmp_path):
    text = """
    [[check]]
    model = "m.onnx"
    runners = ["onnxrt", "emulate=fp16"]
    data = "d.npz"
    rtol = 0.5
    atol = 0
    nan_equal = true
    shape = ["x:1x3", "y:2"]
    """
    (tmp_path / "checks.toml").write_text(text)
    (check,) = read_checks(tmp_path / "checks.toml").checks
    assert check.name == "m.onnx onnxrt emulate=fp16"
    assert list(check.words) == [
        str(tmp_path / "m.onnx"), "--onnxrt", "--emulate=fp16", f"--data={tmp_path / 'd.npz'}",
        "--rtol=0.5", "--atol=0", "--nan-equal", "--shape=x:1x3", "--shape=y:2",
    ]  # fmt: skip


def test_the_model_of_a_check_replaces_the_default_ones(tmp_path):
    text = '[defaults]\nmodel = "a.onnx"\nrunners = ["onnxrt"]\n[[check]]\nmodels = ["b.onnx", "c.onnx"]\n'
    (tmp_path / "checks.toml").write_text(text)
    (check,) = read_checks(tmp_path / "checks.toml").checks
    assert list(check.words) == [str(tmp_path / "b.onnx"), str(tmp_path / "c.onnx"), "--onnxrt"]


def test_a_check_has_a_baseline_of_its_own(suite, tmp_path, capsys):
    models = [str(tmp_path / name) for name in ("relu.onnx", "copy.onnx")]
    assert main([*models, "--onnxrt", "--json", str(tmp_path / "before.json"), "-q"]) == 0
    path = suite(OTHER + 'baseline = "before.json"\njson = "other.json"\n')
    assert main(["--suite", path, "-q"]) == 1
    report = json.loads((tmp_path / "other.json").read_text())
    assert report["baseline"].endswith("before.json")
    assert [change["kind"] for change in report["changes"]] == ["new", "gone"], "of candidates of other names"
    capsys.readouterr()
    assert main(["--suite", suite(ALIKE + 'baseline = "gone.json"\n'), "-q"]) == 3
    assert main(["--suite", suite(ALIKE + 'baseline = "gone.json"\n')]) == 3
    assert "gone.json" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "status"), [("KeyboardInterrupt", 130), ("Terminated", 143)])
def test_an_interrupt_costs_nothing_that_was_found(name, status, suite, tmp_path, monkeypatch, capsys):
    error = {"KeyboardInterrupt": KeyboardInterrupt, "Terminated": Terminated}[name]
    ran = running.compare

    def compare(request, progress):
        if "copy.onnx" in str(request.models):
            raise error
        return ran(request, progress)

    monkeypatch.setattr(running, "compare", compare)
    reports = [f"--{kind}={tmp_path / kind}" for kind in ("json", "junit", "markdown")]
    assert main(["--suite", suite(OTHER, ALIKE, GONE), *reports]) == status
    found = json.loads((tmp_path / "json").read_text())
    assert [(c["name"], c["verdict"]) for c in found["checks"]] == [("other", "fail")]
    assert found["not_run"] == ["alike", "gone"]
    assert "| alike | not run | | |" in (tmp_path / "markdown").read_text()
    assert XSD.is_valid(tmp_path / "junit")
    taken = capsys.readouterr()
    assert "0 of 3 checks as expected; 2 not run" in taken.out
    assert taken.err.splitlines()[-1] == "compare: interrupted."
    assert main(["--suite", suite(ALIKE), *reports]) == status, "of nothing, nothing is told"


def test_a_check_has_reports_of_its_own(suite, tmp_path, capsys):
    path = suite(ALIKE + 'html = "alike.html"\njson = "alike.json"\n', OTHER)
    assert main(["--suite", path, "-q"]) == 1
    assert json.loads((tmp_path / "alike.json").read_text())["verdict"] == "pass"
    assert (tmp_path / "alike.html").is_file()


def test_a_report_that_cannot_be_written_costs_no_table_and_no_other_report(suite, tmp_path, monkeypatch, capsys):
    """The file is a folder by the time that the report is written to it."""
    gone, there = tmp_path / "all.xml", tmp_path / "all.json"
    monkeypatch.setattr("layerdiff.compare.suites.command.check_places", lambda reports: gone.mkdir())
    assert main(["--suite", suite(ALIKE), "--junit", str(gone), "--json", str(there)]) == 2
    captured = capsys.readouterr()
    assert "1 of 1 checks as expected" in captured.out
    assert f"--junit {gone}: cannot be written" in captured.err
    assert there.is_file()


# ---- layerdiff report -----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(suite, tmp_path, capsys):
    """The JSON of a suite with a failure, a known failure and a check that an earlier one kept from running."""
    path = str(tmp_path / "all.json")
    main(["--suite", suite(KNOWN, ALIKE, OTHER.replace("other", "bad"), head="stop = true\n"), "--json", path])
    return path, capsys.readouterr().out


@pytest.mark.parametrize(("flag", "name"), [("--json", "json"), ("--junit", "xml"), ("--markdown", "md")])
def test_every_format_of_a_suite_is_made_later(flag, name, suite, tmp_path, capsys):
    checks = suite(OTHER, ALIKE, GONE, head="stop = true\n")
    at_once, later = tmp_path / f"once.{name}", tmp_path / f"later.{name}"
    status = main(["--suite", checks, "--json", str(tmp_path / "all.json"), flag, str(at_once)])
    assert main(["report", str(tmp_path / "all.json"), flag, str(later)]) == status
    assert later.read_bytes() == at_once.read_bytes()


def test_a_saved_suite_is_shown_as_it_was(saved, capsys):
    path, shown = saved
    assert main(["report", path]) == 1
    assert capsys.readouterr().out == shown
    assert main(["report", path, "-q"]) == 1
    assert capsys.readouterr().out == "fail\n"


def test_one_check_of_a_suite_has_every_format(saved, tmp_path, capsys):
    path, _ = saved
    assert main(["report", path, "--check", "alike", "--text", str(tmp_path / "alike.txt")]) == 0
    assert "pass: onnxrt@copy.onnx agrees" in (tmp_path / "alike.txt").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html", "all.html"], "--html: .*all.json is the report of a suite, which has --json, --junit, --markdown"),
        (["--baseline", "before.json"], "--check NAME is one of it"),
        (["--check", "alikee"], "has no such check; did you mean 'alike'"),
    ],
)
def test_what_a_suite_has_not_is_refused(words, message, saved, capsys):
    assert main(["report", saved[0], *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("layerdiff report: ")
    assert re.search(message, told)


def test_a_report_on_standard_output_stands_there_alone(suite, capsys):
    assert main(["--suite", suite(ALIKE), "--json", "-", "-q"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["as_expected"] is True
    assert captured.err == "pass\n"


@pytest.mark.parametrize(("words", "last"), [([], "no check belongs to this share"), (["-q"], "fail")])
def test_a_share_without_a_check_is_no_pass(words, last, suite, tmp_path, capsys):
    path = tmp_path / "all.xml"
    assert main(["--suite", suite(ALIKE, KNOWN), "--shard", "3/3", "--junit", str(path), *words]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)
    XSD.validate(path)
    assert path.read_text().count("<failure") == 1
