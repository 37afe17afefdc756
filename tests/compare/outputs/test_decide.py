"""The verdict on an output follows from the evidence alone: the first decider that concludes is final."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from layerdiff.compare.outputs import decide as decide_module
from layerdiff.compare.outputs.by_expectation import ROUNDOFFS, SMALL
from layerdiff.compare.outputs.decide import DECIDERS, decide
from layerdiff.compare.outputs.evidence import (
    ByFormula,
    Coverage,
    Decision,
    Measured,
    MetricLoss,
    OutOfRange,
    OutputEvidence,
)
from layerdiff.compare.outputs.tolerance import EXACT, Tolerance
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.formats import BF16, FP16

ONES = np.ones((2, 3), np.float32)
ALL = Coverage(4, 4)
SOME = Coverage(3, 4)
LOOSE = Tolerance(0.1, 0.1)
GOOD = MetricLoss("top1", rows=100, value=0.9, reference=0.9, lost=0.0, allowed=0.01, guessing=0.5)
POOR = replace(GOOD, value=0.8, lost=10.0)
INT8 = "INT8 tells nothing"


def evidence(candidate=ONES, tolerance: Tolerance | None = None, coverage: Coverage = ALL, **more) -> OutputEvidence:
    statistics = Statistics().update(ONES, np.asarray(candidate), tolerance or EXACT)
    return OutputEvidence("b", "y", "a", coverage, statistics=statistics, tolerance=tolerance, **more)


def measured(use=0.5, relative=1e-3, **more) -> Measured:
    words = {"statistic": "slice", "value": 4 * use, "limit": 4.0, "expected": 1e-3, "draws": 4, **more}
    return Measured(use=use, relative=relative, sample=2, index=(1, 0), **words)


def nothing(both: np.ndarray, tolerance: Tolerance | None, **more) -> OutputEvidence:
    statistics = Statistics().update(both, both, tolerance or EXACT)
    return OutputEvidence("b", "y", "a", ALL, statistics=statistics, tolerance=tolerance, **more)


def between(reference: np.ndarray, candidate: np.ndarray, tolerance: Tolerance | None = None) -> OutputEvidence:
    statistics = Statistics().update(reference, candidate, tolerance or EXACT)
    return OutputEvidence("b", "y", "a", ALL, statistics=statistics, tolerance=tolerance)


HOLE = np.array([1.0, np.nan])
FAR = 3 * ONES
NEAR = 1.001 * ONES
TURNED = Statistics().update(ONES, ONES)
NARROW = replace(measured(), u=BF16.u)
LOST = OutOfRange("ort", sample=2, node="sum", value=71000.0)
IDLE = "nothing was rounded"


@pytest.mark.parametrize(
    ("found", "verdict", "reason", "by"),
    [
        (OutputEvidence("b", "y", "a", ALL, absent="missing"), "missing", "b has no output of this name", None),
        (OutputEvidence("b", "y", "a", ALL, absent="extra"), "extra", "a has no output of this name", None),
        (evidence(clash="dtype string where float32 is expected"), "fail", "dtype string", None),
        (evidence(np.ones((3, 2))), "fail", r"shape \[3, 2\] where \[2, 3\] is expected", None),
        (evidence(np.full((2, 3), np.nan)), "fail", "6 of 6 elements are NaN or infinite on one side", None),
        (evidence(FAR, axes=(1, 0), turned=TURNED), "fail", r"in the order \[1, 0\]", None),
        # the user's tolerance decides alone
        (evidence(tolerance=LOOSE), "pass", None, None),
        (evidence(NEAR, LOOSE), "pass", None, None),
        (evidence(NEAR, LOOSE, SOME), "undecided", "agrees on 3 of 4 samples", None),
        (evidence(FAR, LOOSE), "fail", "6 of 6 elements differ by more than allowed", None),
        (evidence(FAR, LOOSE, relative=2.0, expected=measured()), "fail", "differ by more than allowed", None),
        (
            evidence(FAR, Tolerance(0, 9), relative=2.0),
            "undecided",
            "with atol 9 and no element greater than 1 zeros",
            None,
        ),
        (evidence(FAR, Tolerance(0.5, 9), relative=2.0), "undecided", "with atol 9 .* zeros would pass as well", None),
        (evidence(NEAR, Tolerance(0, 9), relative=1e-3), "pass", None, None),
        (evidence(0.5 * ONES, Tolerance(0, 0.6), relative=0.5), "pass", None, None),
        (between(np.zeros(3), np.full(3, 1e-9), Tolerance(0, 1e-6)), "pass", None, None),
        (evidence(FAR, Tolerance(1e308, 0)), "undecided", r"with rtol 1e\+308 zeros would pass as well", None),
        (evidence(tolerance=Tolerance(1, 0)), "pass", None, None),
        # nothing was compared
        (nothing(np.zeros((2, 0)), LOOSE), "undecided", "it was empty in every sample", None),
        (nothing(np.full(3, np.inf), LOOSE), "undecided", "all 3 elements are infinite or NaN on both sides", None),
        (nothing(np.full(3, np.inf), None), "undecided", "so that nothing was compared", None),
        (nothing(np.array([np.inf, 1.0]), LOOSE), "pass", None, None),
        (nothing(np.zeros(3), None, generated=True), "undecided", "zero .* --tolerance y:0,0 lets it pass", None),
        (nothing(np.zeros(3), None), "pass", None, None),
        (nothing(np.zeros(3), LOOSE, generated=True), "pass", None, None),
        (nothing(np.zeros(3, int), None, generated=True), "pass", None, None),
        (nothing(np.zeros(9, bool), None, generated=True), "undecided", r"9 elements are False .*\(--data\)$", None),
        (nothing(np.full(9, 7), None, generated=True), "undecided", "are 7 on .* y:0,0 lets it pass where 7 is", None),
        (nothing(np.full(9, 0.5), None, generated=True), "undecided", "all 9 elements are 0.5 on both sides", None),
        (nothing(np.full(9, 0.5), LOOSE, generated=True), "pass", None, None),
        (nothing(np.full(9, 0.5), None, generated=True, static=True), "pass", None, None),
        (nothing(np.full(9, 0.5), None), "pass", None, None),
        (nothing(np.full(8, True), None, generated=True), "pass", None, None),
        (nothing(np.arange(9) > 7, None, generated=True), "pass", None, None),
        (nothing(np.array([0.0, 1e-40]), None), "pass", None, None),
        # the reference itself has no result
        (nothing(HOLE, None), "fail", r"1 of 2 elements are NaN on both sides .*nan found$", None),
        (
            nothing(HOLE, LOOSE, guessed=("x",)),
            "undecided",
            "the sizes of 'x' were guessed.*--shape NAME:DIMS, or",
            None,
        ),
        (
            nothing(HOLE, None, unranged=("x", "z")),
            "undecided",
            "ranges of 'x', 'z' were.* --range NAME:LO,HI, or",
            None,
        ),
        *(
            (
                between(np.array([1.0, np.inf]), np.array([1.0, other])),
                "fail",
                rf"^1 of 2 elements are NaN or infinite on one side or on both, and not .*: inf expected, {other}",
                None,
            )
            for other in (np.nan, -np.inf)
        ),
        (
            between(HOLE, np.array([np.inf, np.nan])),
            "fail",
            "2 of 2 elements .* on one side, or NaN on both; first",
            None,
        ),
        # nor has it one of inputs that hold NaN themselves, unless something else differs as well
        (nothing(HOLE, None, nan_given=("x",)), "undecided", "data given for 'x' hold NaN themselves, and all", None),
        (nothing(HOLE, LOOSE, nan_given=("x",)), "undecided", "data given for 'x' hold NaN themselves", None),
        (replace(between(HOLE, np.array([2.0, np.nan])), nan_given=("x",)), "fail", "NaN on both sides", None),
        (replace(between(HOLE, np.array([1.0, 1.0])), nan_given=("x",)), "fail", "on one side", None),
        (evidence(np.full((2, 3), np.nan), guessed=("x",)), "fail", "on one side; .*nan found$", None),
        (evidence(tolerance=LOOSE, random="n draws"), "undecided", "^n draws; that both sides agree pro", None),
        (evidence(FAR, random="n draws"), "undecided", "^n draws, so that no two runs need agree; ", None),
        (evidence(FAR, LOOSE, metric=GOOD), "fail", "differ by more than allowed", None),
        # without one, what rounding explains and is small passes
        (evidence(), "pass", None, None),
        (evidence(coverage=SOME), "undecided", "agrees on 3 of 4 samples", None),
        (evidence(NEAR, expected=measured()), "pass", None, None),
        (evidence(NEAR, coverage=SOME, expected=measured()), "undecided", "3 of 4 samples", None),
        (evidence(NEAR, expected=measured(use=1.5)), "fail", "the error of a slice is 6 times the expected", None),
        (evidence(NEAR, coverage=SOME, expected=measured(use=1.5)), "fail", "does not explain", None),
        (evidence(NEAR, expected=measured(use=1.5), metric=GOOD), "fail", "does not explain", None),
        (evidence(NEAR, expected=measured(unexplained=2, different=3)), "fail", "where rounding changes none", None),
        (evidence(NEAR, expected=measured(relative=2 * SMALL)), "undecided", "too coarse for this network", None),
        (evidence(NEAR, expected=measured(relative=2 * SMALL, u=2**-24)), "undecided", "in FP32: the least err", None),
        (
            evidence(FAR, random="Dropout d", expected=measured(relative=0.12)),
            "undecided",
            "agree; other random values alone make an error as large as this one, 12% in the worst sample, and hide",
            None,
        ),
        (evidence(NEAR, expected=measured(relative=2 * SMALL), metric=GOOD), "pass", None, "top1"),
        (evidence(NEAR, expected=replace(NARROW, relative=2 * SMALL)), "pass", None, None),
        (evidence(NEAR, expected=replace(NARROW, relative=0.2)), "undecided", "an error of 20%", None),
        (
            evidence(NEAR, expected=measured(unseen=1, different=1, expected_different=1.0)),
            "undecided",
            "was not seen to give",
            None,
        ),
        # nothing is left of the output
        (evidence(FAR, relative=2.0, expected=measured(relative=2.0)), "fail", "2 times the signal", None),
        (evidence(FAR, relative=2.0, undecidable=INT8), "fail", "0 dB or less", None),
        (evidence(FAR, relative=math.inf), "fail", "the reference is zero, the candidate is not", None),
        # what rounding says nothing about
        (evidence(1.5 * ONES, undecidable=INT8), "undecided", r"tells nothing; say .*\(y:0,0.5 would pass\)", None),
        (evidence(FAR, undecidable=INT8), "undecided", "tells nothing; say .*--tolerance y:RTOL,ATOL, or", None),
        (evidence(ONES, undecidable=INT8), "pass", None, None),
        (evidence(ONES, undecidable=INT8, calibrated=True), "undecided", "INT8 tells nothing; say", None),
        (evidence(ONES, LOOSE, calibrated=True), "pass", None, None),
        (evidence(ONES, undecidable=INT8, calibrated=True, metric=GOOD), "pass", None, "top1"),
        (evidence(FAR, undecidable=INT8, metric=GOOD), "pass", None, "top1"),
        (evidence(FAR, undecidable=INT8, metric=POOR), "fail", "0.1 under the reference's 0.9", "top1"),
        (evidence(FAR, undecidable=INT8, metric=replace(GOOD, value=None)), "undecided", "could not be measured", None),
        (evidence(FAR, undecidable=INT8, metric=replace(GOOD, guessing=0.9)), "undecided", "always answering", None),
        (evidence(FAR, undecidable=INT8, coverage=SOME, metric=GOOD), "undecided", "3 of 4 samples", None),
        # what ran was nothing of what was asked for, or not what the graph's types say
        (evidence(idle=IDLE), "undecided", "nothing was rounded, so that the agreement proves nothing", None),
        (evidence(NEAR, LOOSE, idle=IDLE), "undecided", "proves nothing", None),
        (evidence(FAR, LOOSE, idle=IDLE), "fail", "differ by more than allowed", None),
        (
            evidence(out_of_range=LOST),
            "undecided",
            r"sum overflows FP16 \(71000 > 65504\) in sample 2; ort",
            None,
        ),
        (evidence(out_of_range=replace(LOST, overflow=False, value=1e-9)), "undecided", "underflows FP16 .1e-09", None),
        (evidence(FAR, LOOSE, out_of_range=LOST), "fail", "differ by more than allowed", None),
        # what could not be measured
        (evidence(NEAR, by_formula=ByFormula(0, 0.5, "why")), "pass", None, None),
        (
            evidence(NEAR, by_formula=ByFormula(2, 3.0, "of custom operators")),
            "fail",
            "2 of 6 .*custom op",
            None,
        ),
        (evidence(NEAR), "undecided", "was not measured", None),
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


@pytest.mark.parametrize("found", [evidence(np.ones((3, 2))), evidence(clash="dtype string where float32 is expected")])
def test_what_was_not_measured_has_no_share_of_what_is_allowed(found):
    assert decide(found).use is None


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


def test_where_elements_are_not_finite_the_report_counts_those_that_decide():
    broken = NEAR.copy()
    broken[1, 2] = np.nan
    result = decide(evidence(broken))
    assert result.reason is not None
    assert result.reason.startswith("1 of 6 elements")
    assert (result.metrics or {})["mismatched"] == 1


@pytest.mark.parametrize(
    ("more", "verdict", "counted"),
    [({"unseen": 1}, "undecided", 2), ({"whole": 1e-9}, "pass", 0)],
    ids=["ties that keep it from passing", "ties that do not"],
)
def test_the_count_is_that_of_what_the_verdict_is_for(more, verdict, counted):
    result = decide(evidence(NEAR, expected=measured(different=2, expected_different=1.0, **more)))
    assert (result.verdict, result.ties, result.metrics["mismatched"]) == (verdict, 2, counted)


def test_small_is_an_eighth_in_bf16_and_36_db_in_fp16():
    assert ROUNDOFFS * BF16.u == 1 / 8
    assert max(SMALL, ROUNDOFFS * FP16.u) == 1 / 64


def test_of_samples_the_worst_one_counts_and_counts_add_up():
    good, bad = measured(use=0.2, relative=1e-5, different=2), measured(use=3.0, relative=1e-2, beyond=4)
    both = good.merge(bad)
    assert (both.use, both.relative, both.different, both.beyond) == (3.0, 1e-2, 2, 4)
    assert bad.merge(good) == both
    flipped = measured(use=0.1, unexplained=1)
    assert bad.merge(flipped).unexplained == 1
    assert not bad.merge(flipped).explained
