"""An emulation's walk is its second run, and that of two files has run both twice; a reference is run again only where
something is blamed for a difference."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import onnxruntime
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.layers.observation import LayerObservation
from layerdiff.compare.runs.repeatability import Repeat
from layerdiff.compare.runs.run import RunLog, RunnerLog

from support.models import normal, parsed

MODEL = parsed(
    """g (float[8, 16] x) => (float[8, 16] y) {
        [a] a = MatMul(x, w) [b] b = Relu(a) [c] c = MatMul(b, w) [y] y = Add(c, k)
    }""",
    w=normal(16, 16) / 4,
    k=normal(16, seed=1),
)


@pytest.fixture
def runs(monkeypatch) -> Counter[tuple[str, ...]]:
    """How often a session with these inputs and outputs ran."""
    counted: Counter[tuple[str, ...]] = Counter()
    run = onnxruntime.InferenceSession.run

    def counting(session, names, feed, *rest):
        counted[(*sorted(feed), *names)] += 1
        return run(session, names, feed, *rest)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", counting)
    return counted


def compare(candidate, **options):
    data = [{"x": normal(8, 16, seed=2)}]
    return Comparator(MODEL, [OnnxrtRunner(threads=1), candidate], data_loader=data, **options).compare()


def repeats(report) -> list[bool | None]:
    return [None if r.repeat is None else r.repeat["bit_identical"] for r in report.runners]


def test_nothing_is_run_twice_where_nothing_is_blamed(runs):
    report = compare(EmulateRunner(format="fp16", threads=1), layers="guilty")
    assert (report.verdict, report.culprits) == ("pass", ())
    assert repeats(report) == [None, True]
    # both whole; the walk, of one piece with other outputs, is what else runs
    assert runs["x", "y"] == 2


def test_both_are_run_twice_where_an_output_fails(runs):
    report = compare(EmulateRunner(format="fp16", threads=1), layers="guilty", rtol=1e-7, atol=0)
    assert report.verdict == "fail"
    assert repeats(report) == [True, True]
    # both whole, and the reference once more as it was
    assert runs["x", "y"] == 3


def test_the_ranges_of_an_emulation_are_measured_once(monkeypatch):
    measured = []
    calibrate = EmulateRunner.calibrated

    def calibrating(runner, *args, **options):
        measured.append(runner.ranges is None)
        return calibrate(runner, *args, **options)

    monkeypatch.setattr(EmulateRunner, "calibrated", calibrating)
    report = compare(EmulateRunner(format="int8", threads=1), layers="guilty")
    assert (report.verdict, repeats(report)) == ("undecided", [True, True])
    assert sum(measured) == 1


OTHER = parsed("g (float[8, 16] x) => (float[8, 16] y) { y = Relu(x) }")
CHANGED = parsed(
    """g (float[8, 16] x) => (float[8, 16] y) {
        [a] a = MatMul(x, w) [b] b = Relu(a) [c] c = MatMul(b, v) [y] y = Add(c, k)
    }""",
    w=normal(16, 16) / 4,
    v=normal(16, 16, seed=2) / 4,
    k=normal(16, seed=1),
)


def two_files(other, *runners):
    data = [{"x": normal(8, 16)}]
    return Comparator(
        MODEL, runners or [OnnxrtRunner(threads=1)], candidate_model=other, data_loader=data, layers="guilty"
    ).compare()


def test_the_layers_of_two_files_are_what_is_run_twice(runs):
    report = two_files(CHANGED)
    assert (report.verdict, len(report.culprits)) == ("fail", 1)
    assert repeats(report) == [None, None]
    assert runs["x", "y"] == 2


@pytest.mark.parametrize("doubt", ["the outputs", "a layer"])
def test_both_files_are_run_twice_where_the_layers_leave_a_doubt(doubt, monkeypatch):
    if doubt == "the outputs":
        monkeypatch.setattr(sys.modules["layerdiff.compare.layers.localize"], "as_deployed", lambda *args: False)
    else:
        monkeypatch.setattr(LayerObservation, "repeated", False)
    assert repeats(two_files(CHANGED)) == [True, True]


def test_what_is_run_otherwise_is_run_twice_at_once():
    report = two_files(OTHER, OnnxrtRunner(threads=1), OnnxrtRunner(threads=2))
    assert repeats(report) == [True] * len(report.runners)


def test_second_runs_are_kept_by_the_name_of_the_runner():
    log = RunLog("a", ("b",), (RunnerLog("a"), RunnerLog("b", postponed=0)))
    found = log.repeating({"b": Repeat(True)})
    assert found.of("b") == replace(log.of("b"), repeat=Repeat(True))
    assert found.of("a").repeat is None
