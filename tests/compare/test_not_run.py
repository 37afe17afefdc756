"""A runtime that takes a network and cannot run it: its outputs are undecided, and nothing passes for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.cli.command import main
from layerdiff.compare.report.load import from_json
from layerdiff.runners.contract.session import SessionInfo

from support.models import parsed
from support.runners import FunctionRunner, FunctionSession

WHY = "there is no card to run it on"
FEEDS = [{"x": np.full(4, n, np.float32)} for n in range(3)]


class BuiltSession(FunctionSession):
    info = SessionInfo(not_run=WHY)


@dataclass(frozen=True)
class BuildingRunner(FunctionRunner):
    """Opens every network, and runs none."""

    label: str = "builder"

    @property
    def only_builds(self):
        return True

    def open(self, model, *, fetch=(), workload=None, progress=None):
        return BuiltSession(replace(self, function=never), model)


def never(feed):
    raise AssertionError("it was run")


def computing(label, rank=45, by=2.0):
    return FunctionRunner(function=lambda feed: {"y": feed["x"] * np.float32(by)}, label=label, rank=rank)


def model():
    return parsed("g (float[N] x) => (float[N] y) { y = Add(x, x) }")


def compared(*runners, **options):
    return Comparator(model(), runners, data_loader=FEEDS, **options).compare()


def test_a_candidate_that_is_not_run_is_undecided_and_no_failure():
    report = compared(computing("reference", 0), BuildingRunner())
    assert (report.verdict, report.exit_status, report.compared) == ("undecided", 1, False)
    (output,) = report.outputs
    assert (output.candidate, output.tensor, output.verdict) == ("builder", "y", "undecided")
    assert output.reason == f"it was not run: {WHY}"
    assert all(runner.error is None for runner in report.runners)


@pytest.mark.parametrize(("by", "verdict"), [(2.0, "undecided"), (3.0, "fail")])
def test_it_takes_no_verdict_from_the_others_and_gives_none_to_them(by, verdict):
    report = compared(computing("reference", 0), BuildingRunner(), computing("other", by=by))
    assert report.verdict == verdict
    assert {o.candidate: o.verdict for o in report.outputs} == {
        "builder": "undecided",
        "other": "pass" if by == 2.0 else "fail",
    }
    assert report.data.samples == 3


def test_a_failure_beside_it_is_still_an_error():
    broken = replace(computing("broken"), refuses=RuntimeError("no"))
    report = compared(computing("reference", 0), BuildingRunner(), broken)
    assert (report.verdict, report.exit_status) == ("error", 3)


def test_another_runner_stands_in_for_a_reference_that_is_not_run():
    report = compared(BuildingRunner(rank=0), computing("second", 10), computing("third"))
    assert (report.reference, report.verdict) == ("second", "undecided")
    assert {o.candidate: o.verdict for o in report.outputs} == {"builder": "undecided", "third": "pass"}
    assert [n.text for n in report.notices if n.code == "reference-not-run"] == [
        f"builder was not run: {WHY}; second is the reference instead."
    ]


def test_of_a_reference_that_was_chosen_and_is_not_run_that_is_said():
    report = compared(BuildingRunner(), computing("other"), reference="builder")
    assert (report.reference, report.verdict, report.outputs) == ("builder", "undecided", ())
    assert any(WHY in notice.text for notice in report.notices)


@pytest.mark.parametrize("options", [{"memory": 1}, {"layers": "guilty"}, {"latency": 2}, {"tolerance": (1e3, 1e3)}])
def test_no_option_runs_it_or_lets_it_pass(options):
    if "tolerance" in options:
        options = {"rtol": 1e3, "atol": 1e3}
    report = compared(computing("reference", 0), BuildingRunner(), computing("other"), **options)
    assert report.verdict == "undecided"
    assert {o.verdict for o in report.of("builder")} == {"undecided"}


def test_kept_outputs_are_judged_the_same():
    runners = [computing("reference", 0), BuildingRunner(), computing("other")]
    report = Comparator.compare_accuracy(Comparator.run(runners, FEEDS, model=model()))
    assert {o.candidate: o.verdict for o in report.outputs} == {"builder": "undecided", "other": "pass"}
    assert report.verdict == "undecided"


@pytest.mark.parametrize("name", ["text", "json", "html", "junit", "markdown"])
def test_every_format_says_why(name):
    if name == "html":
        pytest.importorskip("plotly")
    report = compared(computing("reference", 0), BuildingRunner())
    assert WHY in str(report.render(name))


def test_it_comes_back_from_json():
    report = compared(computing("reference", 0), BuildingRunner())
    again = from_json(json.loads(report.render("json")))
    assert (again.verdict, again.outputs) == (report.verdict, report.outputs)


PLUGIN = """
from layerdiff import Runner, Session
from layerdiff.runners.contract.session import SessionInfo


class Built(Session):
    info = SessionInfo(not_run="there is no card to run it on")

    def __init__(self, model):
        self.inputs, self.outputs = model.inputs, model.outputs

    def infer(self, feed, fetch=None):
        raise AssertionError("it was run")


class Builder(Runner):
    def open(self, model):
        return Built(model)
"""


@pytest.mark.parametrize("others", [[], ["--onnxrt=optimization=disable"]], ids=["alone", "beside another"])
def test_merged_shares_are_the_report_of_one_run(tmp_path, monkeypatch, others):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "building.py").write_text(PLUGIN)
    onnx.save(model(), tmp_path / "net.onnx")
    np.savez(tmp_path / "a.npz", x=np.ones(4, np.float32))
    words = ["net.onnx", "--onnxrt", "--runner", "building:Builder", *others, "--shape", "x:4", "--samples", "3"]
    assert main([*words, "--json", "whole.json"]) == 1
    for index in (1, 2):
        main([*words, "--shard", f"{index}/2", "--json", f"{index}.json"])
    assert main(["merge", "1.json", "2.json", "-o", "merged.json"]) == 1
    whole, merged = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "merged"))
    for report in (whole, merged):
        del report["date"], report["command"]
        for runner in report["runners"]:
            del runner["seconds"]
    assert merged == whole


def test_a_journal_does_not_keep_that_it_was_not_run(tmp_path):
    runners = OnnxrtRunner(), BuildingRunner()
    for _ in range(2):
        opened = runners[1].opened
        report = Comparator(model(), runners, data_loader=FEEDS, resume=str(tmp_path / "kept")).compare()
        assert report.verdict == "undecided"
    assert not opened
