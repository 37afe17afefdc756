"""The verdict on an output follows from the evidence alone: the first decider that concludes is final."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from layerdiff.compare.outputs import decide as decide_module
from layerdiff.compare.outputs.decide import DECIDERS, decide
from layerdiff.compare.outputs.evidence import Coverage, Decision, EmulatedSums, Measured, OutputEvidence
from layerdiff.compare.outputs.tolerance import EXACT, Tolerance
from layerdiff.compare.statistics.statistics import Statistics

ONES = np.ones((2, 3), np.float32)
ALL = Coverage(4, 4)
SOME = Coverage(3, 4)
LOOSE = Tolerance(0.1, 0.1)
UNKNOWN = Tolerance(0, 0, "auto", decidable=False, reason="INT8 tells nothing")
SUMS = Tolerance(0.1, 0.1, "auto", sums=4.0)
GOOD = Measured("top1", rows=100, value=0.9, reference=0.9, lost=0.0, allowed=0.01, guessing=0.5)
POOR = replace(GOOD, value=0.8, lost=10.0)


def seen(candidate, tolerance: Tolerance = LOOSE) -> Statistics:
    """Statistics of a candidate's tensor beside ones."""
    return Statistics().update(ONES, np.asarray(candidate), tolerance.allowed(ONES) if tolerance.decidable else None)


def evidence(candidate=ONES, tolerance: Tolerance = LOOSE, coverage: Coverage = ALL, **more) -> OutputEvidence:
    return OutputEvidence("b", "y", "a", coverage, statistics=seen(candidate, tolerance), tolerance=tolerance, **more)


FAR = 3 * ONES
BEYOND = 1.5 * ONES  # 2.5 times what is allowed


@pytest.mark.parametrize(
    ("found", "verdict", "reason", "by"),
    [
        (OutputEvidence("b", "y", "a", ALL, absent="missing"), "missing", "b has no output of this name", None),
        (OutputEvidence("b", "y", "a", ALL, absent="extra"), "extra", "a has no output of this name", None),
        (evidence(), "pass", None, None),
        (evidence(coverage=SOME), "undecided", "agrees on 3 of 4 samples", None),
        (evidence(FAR), "fail", "6 of 6 elements differ by more than allowed", None),
        (evidence(FAR, coverage=SOME), "fail", "differ by more than allowed", None),
        (evidence(FAR, EXACT), "fail", "6 of 6 elements differ", None),
        (evidence(FAR, EXACT, choices=True, ties=6), "pass", None, None),
        (evidence(FAR, EXACT, choices=True, ties=5), "fail", "1 of 6 elements differ", None),
        (evidence(FAR, clash="dtype string where float32 is expected"), "fail", "dtype string", None),
        (evidence(np.ones((3, 2))), "fail", r"shape \[3, 2\] where \[2, 3\] is expected", None),
        (evidence(np.full((2, 3), np.nan)), "fail", "6 of 6 elements are NaN or infinite on one side", None),
        (evidence(FAR, axes=(1, 0), turned=seen(ONES)), "fail", r"in the order \[1, 0\]", None),
        (evidence(FAR, axes=(1, 0), turned=seen(FAR)), "fail", "differ by more than allowed", None),
        (evidence(FAR, UNKNOWN), "undecided", "INT8 tells nothing; say what is good enough", None),
        (evidence(ONES, UNKNOWN), "pass", None, None),
        # what sums in FP16 may explain is left to the emulation
        (evidence(BEYOND, SUMS), "undecided", "2.50 times what is allowed, .* up to 4.00 times", None),
        (evidence(FAR, SUMS), "fail", "differ by more than allowed", None),
        (evidence(BEYOND, SUMS, emulated=EmulatedSums(2.0, 0.5)), "pass", None, "emulated sums in FP16"),
        (evidence(BEYOND, SUMS, emulated=EmulatedSums(1.0, 0.5)), "fail", "this by 2.50 times", None),
        (evidence(BEYOND, SUMS, emulated=EmulatedSums(2.0, 1.5)), "fail", "it is not the sums", None),
        (evidence(BEYOND, SUMS, emulated=EmulatedSums(math.inf, 0.5)), "undecided", "may explain", None),
        # the metric is asked last
        (evidence(FAR, UNKNOWN, measured=GOOD), "pass", None, "top1"),
        (evidence(FAR, UNKNOWN, measured=POOR), "fail", "0.1 under the reference's 0.9", "top1"),
        (evidence(FAR, UNKNOWN, measured=replace(GOOD, value=None)), "undecided", "could not be measured", None),
        (evidence(FAR, UNKNOWN, measured=replace(GOOD, guessing=0.9)), "undecided", "always answering the same", None),
        (evidence(FAR, UNKNOWN, SOME, measured=GOOD), "undecided", "INT8 tells nothing", None),
        (evidence(ONES, measured=POOR), "pass", None, None),
        (evidence(FAR, measured=GOOD), "fail", "differ by more than allowed", None),
    ],
)
def test_what_follows_from_the_evidence(found, verdict, reason, by):
    with np.errstate(all="ignore"):
        result = decide(found)
    assert (result.verdict, result.decided_by) == (verdict, by)
    if reason is None:
        assert result.reason is None
    else:
        assert re.search(reason, result.reason)


def test_a_new_decider_is_a_function_and_a_place_in_the_chain(monkeypatch):
    def whatever_is_far(found: OutputEvidence) -> Decision | None:
        return Decision("pass", decided_by="a whim") if found.mismatched else None

    monkeypatch.setattr(decide_module, "DECIDERS", (whatever_is_far, *DECIDERS))
    assert decide(evidence(FAR)).decided_by == "a whim"
    assert decide(evidence()).decided_by is None


def test_only_what_was_compared_has_statistics():
    missing = decide(OutputEvidence("b", "y", "a", ALL, absent="missing"))
    assert (missing.metrics, missing.tolerance) == (None, None)
    clashing = decide(evidence(clash="dtype string where float32 is expected"))
    assert (clashing.metrics, clashing.values) == (None, {})
