"""Deciders that look at the two tensors and at what their difference is allowed to be."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence

from .by_expectation import SMALL, show, too_coarse
from .evidence import Decider, Decision, OutputEvidence


def not_run(evidence: OutputEvidence) -> Decision | None:
    """Outputs of a candidate that its runtime took and could not run."""
    return Decision("undecided", f"it was not run: {evidence.not_run}") if evidence.not_run else None


def absent(evidence: OutputEvidence) -> Decision | None:
    """Outputs that only one of the two has."""
    if evidence.absent is None:
        return None
    who = evidence.candidate if evidence.absent == "missing" else evidence.reference
    return Decision(evidence.absent, f"{who} has no output of this name")


def of_another(evidence: OutputEvidence) -> str | None:
    """What to say of an output that holds the values of another one; None of all others."""
    if evidence.holds is None:
        return None
    here, there = evidence.tensor, evidence.holds
    if evidence.absent == "missing":
        here, there = there, here
    near = f" (relative difference {evidence.apart:.2g})" if evidence.apart else ", value for value"
    told = f"{here!r} here is {there!r} there{near}"
    return f"the outputs are exchanged, {told}" if evidence.exchanged else told


def other_kind(evidence: OutputEvidence) -> Decision | None:
    """Tensors of which one holds strings, booleans, integers, floats or complex numbers and the other does not."""
    return None if evidence.clash is None else Decision("fail", evidence.clash)


def transposed(evidence: OutputEvidence) -> Decision | None:
    """A candidate that is the reference with its axes in another order."""
    if not evidence.transposed:
        return None
    axes = _list(evidence.axes)
    return Decision("fail", f"transposed: agrees with the reference when its axes are taken in the order {axes}")


def other_shape(evidence: OutputEvidence) -> Decision | None:
    """Tensors of different shapes, unless rounding is known to change the shape."""
    if evidence.statistics.shape_mismatch is None or (evidence.expected is not None and evidence.expected.explained):
        return None
    expected, got = evidence.statistics.shape_mismatch
    return Decision("fail", f"shape {_list(got)} where {_list(expected)} is expected")


def not_finite(evidence: OutputEvidence) -> Decision | None:
    """Elements that are NaN or infinite on one side, or NaN on both.

    The latter proves nothing where inputs were guessed, for which the network may have no result, and where they hold
    NaN themselves and all other elements agree.
    """
    statistics = evidence.statistics
    if not statistics.not_finite:
        return None
    place = statistics.broken_at
    share = f"{statistics.broken:,} of {statistics.count:,} elements are"
    both = statistics.nan[0] == statistics.nan[1] == statistics.broken
    if both:
        what = f"{share} NaN on both sides (--nan-equal lets them pass)"
    elif all(statistics.nan):
        what = f"{share} NaN or infinite on one side, or NaN on both"
    elif place is not None and not any(map(cmath.isfinite, (place.reference, place.candidate))):
        what = f"{share} NaN or infinite on one side or on both, and not the same"
    else:
        what = f"{share} NaN or infinite on one side"
    first = "" if place is None else f"; first at {_list(place.index)} of sample {place.sample}: {show(place)}"
    guess = _guess(evidence) if statistics.nan[0] == statistics.broken else ""
    if both and evidence.nan_given and not guess and _others_agree(evidence):
        guess = (
            f"; the data given for {' and '.join(map(repr, evidence.nan_given))} hold NaN themselves, and all other "
            "elements agree: these show nothing; give data without NaN"
        )
    return Decision("undecided" if both and guess else "fail", f"{what}{first}{guess}")


def _others_agree(evidence: OutputEvidence) -> bool:
    """Whether the elements that are finite on both sides differ by no more than is allowed or passes as rounding."""
    statistics = evidence.statistics
    if evidence.tolerance is not None:
        return statistics.mismatched == statistics.broken
    return statistics.sum_ee <= SMALL**2 * statistics.sum_rr


def _guess(evidence: OutputEvidence) -> str:
    """What was guessed of the inputs for which the reference gives NaN, and what to give; empty where nothing was."""
    asked = (("sizes", "--shape NAME:DIMS", evidence.guessed), ("ranges", "--range NAME:LO,HI", evidence.unranged))
    told = [(f"the {what} of {', '.join(map(repr, names))}", option) for what, option, names in asked if names]
    if not told:
        return ""
    what, options = (" and ".join(words) for words in zip(*told, strict=True))
    return (
        f"; {what} were guessed, for which the network may have no result: give {options}, or real inputs with --data"
    )


def within_tolerance(evidence: OutputEvidence) -> Decision | None:
    """The user's tolerance: nobody exceeds it and passes."""
    if evidence.tolerance is None:
        return None
    if not evidence.mismatched:
        return Decision("pass") if evidence.coverage.complete else None
    return Decision("fail", mismatch(evidence))


MISMATCHES: tuple[Decider, ...] = (not_run, absent, other_kind, transposed, other_shape, not_finite, within_tolerance)
"""In order: what makes the next question pointless comes first."""


def undecided(evidence: OutputEvidence) -> Decision:
    """What nothing else could decide."""
    if not evidence.coverage.complete and (evidence.expected is None or evidence.expected.explained):
        done, total = evidence.coverage.done, evidence.coverage.total
        if evidence.mismatched and evidence.expected is None:
            return Decision("undecided", f"{done} of {total} samples were run, and what rounding explains is not known")
        return Decision("undecided", f"agrees on {done} of {total} samples; the others were not run")
    reason = evidence.undecidable
    if evidence.expected is not None:
        reason = too_coarse(evidence, evidence.expected)
    elif not reason:
        reason = "the expected error was not measured"
    worst = evidence.statistics.max_abs_at
    enough = ""
    if worst is not None and float(worst.value) < evidence.statistics.magnitude:  # else zeros would pass as well
        enough = f" ({evidence.tensor}:0,{_enough(float(worst.value))} would pass)"
    name = f"--tolerance {evidence.tensor}:RTOL,ATOL{enough}, or with "
    floats = any("float" in dtype for dtype in evidence.statistics.dtypes or ())
    decided = evidence.expected is not None and evidence.expected.decides and not floats
    return Decision(
        "undecided", f"{reason}; say what is good enough with {'' if decided else name}--labels and --metric"
    )


def _enough(error: float) -> str:
    """The smallest absolute tolerance of two digits that an error fits in."""
    if not error or not math.isfinite(error):
        return f"{error:g}"
    step = 10.0 ** (math.floor(math.log10(error)) - 1)
    return f"{math.ceil(error / step * (1 - 1e-12)) * step:.2g}"


def mismatch(evidence: OutputEvidence) -> str:
    """What is wrong where elements differ by more than the user allows."""
    statistics = evidence.statistics
    share = f"{evidence.mismatched:,} of {statistics.count:,} elements"
    worst = statistics.worst
    if worst is None:
        return f"{share} differ"
    where = f"worst at {_list(worst.index)} of sample {worst.sample}: {show(worst)}"
    if statistics.use and math.isfinite(statistics.use) and statistics.use > 0:
        limit = abs(worst.candidate - worst.reference) / statistics.use
        return f"{share} differ by more than allowed; {where}, allowed ±{limit:.3g}"
    return f"{share} differ; {where}"


def _list(items: Sequence[int] | None) -> str:
    return "[" + ", ".join(str(i) for i in items or ()) + "]"
