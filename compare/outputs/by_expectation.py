"""Deciders that hold an output against the error that rounding is expected to make, and ask whether it is small."""

from __future__ import annotations

import math
from typing import Any

from ...graph.formats import FP32
from ...graph.printable import counted
from .evidence import Decision, OutputEvidence
from .expectation import Measured
from .explained import FLOORS

SMALL = 1 / 64
"""Largest relative L2 error of a sample that passes without a word from the user: 1.6 %, 36 dB below the signal."""
ROUNDOFFS = 32
"""The same in unit roundoffs of the coarsest format, where that is more: 1/8 in BF16."""


COARSE = 1 / 16
"""Expected relative L2 error from which on what becomes of an error is not proportional to it: a Softmax tips over."""
TIPPED = 4.0
"""Times its limit that the error of a slice or of an element may be there, which few draws have seen tip over."""


def larger_than_the_signal(evidence: OutputEvidence) -> Decision | None:
    """An error as large as the signal, whatever the format: nothing is left of the output."""
    measured = evidence.metric is not None and not evidence.metric.cache
    told = evidence.tolerance is not None or measured
    if told or evidence.relative < 1 or not evidence.statistics.mismatched:
        return None
    size = "infinite" if math.isinf(evidence.relative) else f"{evidence.relative:.3g} times"
    what = f"the error is {size} the signal" if size != "infinite" else "the reference is zero, the candidate is not"
    explained = evidence.expected is not None and evidence.expected.explained
    why = "; rounding alone does that here" if explained and not evidence.random else ""
    return Decision("fail", f"{what} (a signal-to-noise ratio of 0 dB or less){why}{_first(evidence)}")


def by_expectation(evidence: OutputEvidence) -> Decision | None:
    """Passes what rounding explains and is small; fails what rounding does not explain."""
    if evidence.tolerance is not None:
        return None
    if not evidence.statistics.mismatched and not (evidence.calibrated and evidence.metric is not None):
        return Decision("pass") if evidence.coverage.complete else None
    if evidence.undecidable:
        return None
    if evidence.by_formula is not None:
        if evidence.by_formula.mismatched:
            return Decision("fail", _by_formula(evidence))
        return Decision("pass") if evidence.coverage.complete else None
    found = evidence.expected
    if found is None:
        return None
    if not found.explained:
        return None if tips_over(found) else Decision("fail", unexplained(evidence, found))
    small = (found.relative or 0.0) <= _limit(found)
    if found.subnormals and not small:
        return Decision("fail", _underflow(evidence, found))
    if found.unseen or not small or decides_too_much(evidence, found):
        return None
    return Decision("pass") if evidence.coverage.complete else None


def decides_too_much(evidence: OutputEvidence, found: Measured) -> bool:
    """Whether more decisions are other ones than is small, though each may be, by the noise of what decides it.

    A single one of each sample may be, and of all samples, if it is less than half of all there are. Numbers that have
    jumped, and are together no further off than is small, are none.
    """
    limit, count = _limit(found), evidence.statistics.count
    few = found.share <= limit and found.different - 1 <= limit * count and 2 * found.different < count
    return found.different > 0 and not few and found.whole > limit


def _limit(found: Measured) -> float:
    return max(SMALL, ROUNDOFFS * found.u)


def tips_over(found: Measured) -> bool:
    """Whether an error that the draws do not explain is a slice or an element that went further than theirs and nothing
    else, in a network for which the format is far too coarse: nobody knows whether it is a fault."""
    few = found.statistic in ("slice", "element") and not found.unexplained
    coarse = (found.expected or 0.0) > COARSE and found.statistics.get("rms", math.inf) <= FLOORS["rms"]
    return few and coarse and found.use <= TIPPED


def unexplained(evidence: OutputEvidence, found: Measured) -> str:
    """Why rounding does not explain an error, with the numbers."""
    if found.statistic == "shape":
        return f"{_shapes(evidence)}, and rounding does not change the shape"
    if found.unexplained:
        text = f"{found.different:,} of {evidence.statistics.count:,} elements differ"
        if found.expected_different < 0.5:
            text += ", where rounding changes none"
        else:
            text += f", where rounding changes about {found.expected_different:,.0f}"
        return f"{text}{_first(evidence)}"
    size = "" if found.relative is None else f"; relative error {found.relative:.2g}, {found.expected:.2g} expected"
    return f"rounding does not explain the error: {_beyond(evidence, found)}{size}{_first(evidence)}"


def _beyond(evidence: OutputEvidence, found: Measured) -> str:
    """By how much a statistic is beyond its limit."""
    if found.statistic == "element":
        share = f"{found.beyond:,} of {evidence.statistics.count:,} elements are off"
        return f"{share} by more than {found.limit:.3g} times what rounding makes there, the worst by {found.value:.3g}"
    what = {
        "rms": "the whole output",
        "slice": "a slice",
        "magnitude": "elements of one magnitude",
    }[found.statistic]
    return f"the error of {what} is {found.value:.3g} times the expected one (limit {found.limit:.3g})"


def _underflow(evidence: OutputEvidence, found: Measured) -> str:
    """Why an error that subnormal numbers explain is a fault: another scale or a wider range does away with it."""
    return (
        f"relative error {found.relative:.2g}, since values on the way are too small for the candidate's format: "
        f"they become subnormal or zero{_first(evidence)}"
    )


def _first(evidence: OutputEvidence) -> str:
    worst = evidence.statistics.worst
    return "" if worst is None else f"; worst at {list(worst.index)} of sample {worst.sample}: {show(worst)}"


def _shapes(evidence: OutputEvidence) -> str:
    expected, got = evidence.statistics.shape_mismatch or ((), ())
    return f"shape {list(got)} where {list(expected)} is expected"


def _by_formula(evidence: OutputEvidence) -> str:
    found = evidence.by_formula
    assert found is not None
    share = f"{found.mismatched:,} of {evidence.statistics.count:,} elements differ by more than the formula allows"
    return f"{share} ({found.use:.3g} times; {found.why}){_first(evidence)}"


def too_coarse(evidence: OutputEvidence, found: Measured) -> str:
    """Why an error that rounding explains is not passed."""
    if found.statistic == "shape":
        return f"{_shapes(evidence)}; how many results there are depends on values that tie within rounding"
    if found.unseen or (found.explained and decides_too_much(evidence, found)):
        return _ties(evidence, found)
    if not found.explained:
        what = "a slice" if found.statistic == "slice" else "an element"
        alone = "other random values alone make" if evidence.random else "rounding alone makes"
        return (
            f"{alone} an error of {found.expected:.0%} in the worst sample, which is too coarse to tell "
            f"whether {what} that errs {found.use:.2g} times as much as is explained is at fault"
        )
    if evidence.random:
        return (
            f"other random values alone make an error as large as this one, {found.relative:.0%} in the worst sample, "
            "and hide what else may differ"
        )
    makes = f"rounding alone makes an error of {found.relative:.0%} in the worst sample"
    if 0 < found.u <= FP32.u:
        return (
            f"{makes}, in FP32: the least error decides values on the way (a Round, a comparison), or is enlarged "
            "there, and no layer need be broken"
        )
    return f"{makes}: the format is too coarse for this network, no layer need be broken"


def _ties(evidence: OutputEvidence, found: Measured) -> str:
    """How many decisions differ, of how many, and how many are expected to."""
    # of floats, a place where most draws decide otherwise has a noise that hides what it does
    least = "" if found.statistic == "decisions" else "at least "
    decided = (
        f"{least}{found.different:,} of {evidence.statistics.count:,} places are decided differently by values that"
    )
    if found.unseen and not found.expected_different:
        return f"{decided} are equal, and which of these is taken need not be the same"
    usual = f"{found.expected_different:,.{1 if found.expected_different < 1 else 0}f}"
    decided += f" tie within rounding, which alone changes about {usual}"
    if found.unseen:
        values = counted(found.unseen, "of them has a value", "of them have values")
        return f"{decided}; {values} that rounding was not seen to give"
    return f"{decided}: the format is too coarse for these decisions, no layer need be broken"


def show(place: Any) -> str:
    """The two values at a place, printed until they differ."""
    reference, candidate = place.reference, place.candidate
    if not isinstance(reference, float) or not isinstance(candidate, float):
        return f"{reference!r} expected, {candidate!r} found"
    for digits in (7, 9, 12, 17):
        one, other = f"{reference:.{digits}g}", f"{candidate:.{digits}g}"
        if one != other:
            break
    return f"{one} expected, {other} found"
