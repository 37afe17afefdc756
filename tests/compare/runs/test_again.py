"""An emulation's walk is its second run; a reference is run again only where something is blamed for a difference."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import onnxruntime
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
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


def test_what_is_no_emulation_is_run_twice_at_once():
    other = parsed("g (float[8, 16] x) => (float[8, 16] y) { y = Relu(x) }")
    report = Comparator(
        MODEL, [OnnxrtRunner(threads=1)], candidate_model=other, data_loader=[{"x": normal(8, 16)}], layers="guilty"
    ).compare()
    assert repeats(report) == [True, True]


def test_second_runs_are_kept_by_the_name_of_the_runner():
    log = RunLog("a", ("b",), (RunnerLog("a"), RunnerLog("b", postponed=0)))
    found = log.repeating({"b": Repeat(True)})
    assert found.of("b") == replace(log.of("b"), repeat=Repeat(True))
    assert found.of("a").repeat is None
