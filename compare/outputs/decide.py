"""The verdict on an output: a chain of deciders over immutable evidence, of which the first that concludes is final.

A new decider is a function ``OutputEvidence -> Decision | None`` beside what collects its evidence, a field of
`OutputEvidence` for that evidence, and a place in `DECIDERS`. It declines (None) where it has nothing to say. Verdicts
are written nowhere else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..report.model import OutputResult, ToleranceUsed
from ..statistics.statistics import Statistics
from .by_expectation import SMALL, by_expectation, larger_than_the_signal
from .by_metric import by_metric, loses_too_much
from .by_tolerance import MISMATCHES, of_another, undecided
from .by_types import not_as_typed
from .evidence import Decider, Decision, OutputEvidence

FEW = 8
"""Elements of a sample up to which one value throughout is nothing strange: a count, a flag, a shape."""

DECIDERS: tuple[Decider, ...] = (*MISMATCHES, larger_than_the_signal, by_expectation, by_metric, undecided)
"""In the order in which they are asked. The last one always concludes. A pass stands unless one of `DOUBTS` speaks."""


def decide(evidence: OutputEvidence) -> OutputResult:
    """The verdict, with what the report shows beside it."""
    decision = next(found for decider in DECIDERS if (found := decider(evidence)) is not None)
    if decision.verdict == "pass":
        decision = next((found for doubt in DOUBTS if (found := doubt(evidence))), decision)
    told = None if decision.verdict == "pass" else of_another(evidence)
    result = OutputResult(
        evidence.candidate,
        evidence.tensor,
        decision.verdict,
        "; ".join(filter(None, (told, _drawn(evidence, decision), decision.reason))) or None,
        holds=evidence.holds if told else None,
        exchanged=evidence.exchanged and bool(told),
        decided_by=decision.decided_by,
        out_of_range=evidence.out_of_range if decision.verdict == "undecided" else None,
    )
    return result if evidence.absent or evidence.not_run else _with_statistics(result, evidence)


def _drawn(evidence: OutputEvidence, decision: Decision) -> str | None:
    """That an output that differs is made of random values, which differ from one run to the next."""
    if decision.verdict == "pass" or not evidence.random or not evidence.statistics.mismatched:
        return None
    if decision == by_chance(evidence):  # which says so itself
        return None
    return f"{evidence.random}, so that no two runs need agree"


def nothing(evidence: OutputEvidence) -> Decision | None:
    """An output that agrees because there was nothing to compare: it has no finite value, or, on random inputs, only
    zero, which is what a candidate gives that computes nothing, or one other value throughout, if it depends on them
    and is larger than a count or a flag. Of those, a tolerance says that they are right; of NaN on real inputs, the
    user who lets it equal NaN. Nor is there anything to compare where all inputs are zero or NaN."""
    seen = evidence.shown
    same = seen.one_value and not evidence.static and seen.count > FEW * seen.samples
    if evidence.generated and evidence.tolerance is None and (seen.zero or same):
        booleans = (seen.dtypes or ("",))[0] == "bool"
        value = f"{bool(seen.least)}" if booleans else "zero" if seen.zero else f"{seen.least:.6g}"
        what = f"all {seen.count:,} elements are {value} on both sides, which proves nothing on random inputs"
        right = f", or --tolerance {evidence.tensor}:0,0 lets it pass where {value} is right"
        return Decision("undecided", f"{what}: give real ones (--data){'' if booleans else right}")
    if evidence.blank and not evidence.static:
        return Decision("undecided", "all inputs are zero or NaN throughout, which shows nothing of the weights")
    allowed = seen.reading.equal_nan and any(seen.nan) and not evidence.generated
    if seen.finite or (seen.text and seen.count) or allowed:
        return None
    if not seen.count:
        return Decision("undecided", "it was empty in every sample, so that nothing was compared")
    what = f"all {seen.count:,} elements are infinite or NaN on both sides"
    return Decision("undecided", f"{what}, so that nothing was compared")


def by_chance(evidence: OutputEvidence) -> Decision | None:
    """An output that is made of random values: two runs that begin at the same seed draw the same ones."""
    if not evidence.random:
        return None
    return Decision("undecided", f"{evidence.random}; that both sides agree proves nothing")


def anything_goes(evidence: OutputEvidence) -> Decision | None:
    """A tolerance that lets zeros pass in the place of the reference, and with them everything that is wrong and small;
    unless the error is much smaller than the reference, which zeros have not."""
    rule, largest = evidence.tolerance, evidence.shown.magnitude
    if rule is None or evidence.shown.max_abs_at is None:
        return None
    what = f"rtol {rule.rtol:g}"
    if rule.rtol < 1:
        if not 0 < largest <= rule.allowed(largest) or evidence.relative <= SMALL:
            return None
        what = f"atol {rule.atol:g} and no element greater than {largest:.3g}"
    return Decision("undecided", f"with {what} zeros would pass as well, so that the agreement proves nothing")


def idle(evidence: OutputEvidence) -> Decision | None:
    """An output that agrees because there was nothing for a format to round, or nothing to be fed otherwise."""
    if not evidence.idle:
        return None
    return Decision("undecided", f"{evidence.idle}, so that the agreement proves nothing")


def by_calibration(evidence: OutputEvidence) -> Decision | None:
    """A float of INT8 or FP8 of which the user says nothing: a Sign of it may be equal to the last bit."""
    alone = evidence.tolerance is None and evidence.metric is None
    return undecided(evidence) if evidence.calibrated and alone else None


DOUBTS: tuple[Decider, ...] = (
    nothing,
    by_chance,
    anything_goes,
    idle,
    by_calibration,
    not_as_typed,
    loses_too_much,
)
"""Why agreement proves nothing: nothing was compared, values are random ones, the tolerance forbids nothing, nothing
was rounded to the format that is tried or fed otherwise, its error depends on a calibration, what ran is not what the
types of the graph say, or a binding metric fell."""


def _with_statistics(result: OutputResult, evidence: OutputEvidence) -> OutputResult:
    statistics, found = evidence.shown, evidence.expected
    metrics = statistics.metrics()
    ties = found.different if found is not None and found.explained else 0
    if not evidence.transposed and not evidence.clash and not statistics.shape_mismatch:
        # what is decided differently is explained, and is what keeps the output from passing all the same
        metrics["mismatched"] = max(evidence.mismatched, ties if result.verdict == "undecided" else 0)
    rule = evidence.tolerance
    use = statistics.use if rule is not None else None
    if evidence.by_formula is not None:
        use = evidence.by_formula.use
    elif rule is None and not statistics.mismatched:
        use = 0.0
    elif found is not None:
        use = found.use
    if evidence.clash or statistics.shape_mismatch:
        use = None
    return replace(
        result,
        transposed=evidence.axes if evidence.transposed else None,
        tolerance=None if rule is None else ToleranceUsed(rule.rtol, rule.atol),
        ties=ties,
        metrics=None if evidence.clash else metrics,
        worst_sample=statistics.worst_sample,
        use=use,
        values={} if evidence.clash else _values(statistics),
        expected=None if found is None else found.json(),
    )


def _values(statistics: Statistics) -> dict[str, Any]:
    """The elements behind the maxima, for the report."""
    places = {
        "max_abs": statistics.max_abs_at,
        "max_rel": statistics.max_rel_at,
        "worst": statistics.worst,
        "not_finite": statistics.broken_at,
    }
    found: dict[str, Any] = {
        key: {
            "value": place.value,
            "sample": place.sample,
            "index": place.index,
            "reference": place.reference,
            "candidate": place.candidate,
        }
        for key, place in places.items()
        if place is not None
    }
    if statistics.histogram:
        found["histogram"] = {str(key): statistics.histogram[key] for key in sorted(statistics.histogram)}
    return found
