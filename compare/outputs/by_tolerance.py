"""Deciders that look at the two tensors and at what their difference is allowed to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..statistics.statistics import Place
from .evidence import Decider, Decision, OutputEvidence


def absent(evidence: OutputEvidence) -> Decision | None:
    """Outputs that only one of the two has."""
    if evidence.absent is None:
        return None
    who = evidence.candidate if evidence.absent == "missing" else evidence.reference
    return Decision(evidence.absent, f"{who} has no output of this name")


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
    """Tensors of different shapes."""
    if evidence.statistics.shape_mismatch is None:
        return None
    expected, got = evidence.statistics.shape_mismatch
    return Decision("fail", f"shape {_list(got)} where {_list(expected)} is expected")


def not_finite(evidence: OutputEvidence) -> Decision | None:
    """Elements that are NaN or infinite on one side."""
    statistics = evidence.statistics
    if not statistics.broken or statistics.text:
        return None
    place = statistics.broken_at
    share = f"{statistics.broken:,} of {statistics.count:,} elements are"
    if statistics.nan[0] == statistics.nan[1] == statistics.broken:
        what = f"{share} NaN on both sides (--nan-equal lets them pass)"
    else:
        what = f"{share} NaN or infinite on one side"
    first = "" if place is None else f"; first at {_list(place.index)} of sample {place.sample}: {_show(place)}"
    return Decision("fail", f"{what}{first}")


def within_tolerance(evidence: OutputEvidence) -> Decision | None:
    """The allowed error: nobody exceeds it and passes, and nobody is failed by one that does not apply."""
    if not evidence.mismatched:
        return Decision("pass") if evidence.coverage.complete else None
    if not evidence.tolerance.decidable or maybe_fp16_sums(evidence):
        return None
    return Decision("fail", mismatch(evidence))


MISMATCHES: tuple[Decider, ...] = (absent, other_kind, transposed, other_shape, not_finite, within_tolerance)
"""In order: what makes the next question pointless comes first."""


def undecided(evidence: OutputEvidence) -> Decision:
    """What nothing else could decide."""
    if not evidence.mismatched:
        done, total = evidence.coverage.done, evidence.coverage.total
        return Decision("undecided", f"agrees on {done} of {total} samples; the others were not run")
    reason = evidence.tolerance.reason
    if evidence.tolerance.decidable:
        reason = f"{mismatch(evidence)}; {maybe_fp16_sums(evidence)}"
    name = f"--tolerance {evidence.tensor}:RTOL,ATOL"
    return Decision("undecided", f"{reason}; say what is good enough with {name}, or with --labels and --metric")


def maybe_fp16_sums(evidence: OutputEvidence) -> str:
    """What the candidate's sums in FP16 may explain, where that is all that is amiss; else empty."""
    if evidence.choices:
        alone = evidence.mismatched == evidence.ties_by_fp16_sums
        return "sums in FP16 may make them ties" if alone else ""
    if not evidence.maybe_fp16_sums:
        return ""
    use, sums = evidence.statistics.use or 0.0, evidence.tolerance.sums
    return f"that is {use:.2f} times what is allowed, and sums in FP16 may explain up to {sums:.2f} times"


def mismatch(evidence: OutputEvidence) -> str:
    """What is wrong where elements differ by more than allowed."""
    statistics = evidence.statistics
    share = f"{evidence.mismatched:,} of {statistics.count:,} elements"
    worst = statistics.worst
    if worst is None:
        return f"{share} differ"
    where = f"worst at {_list(worst.index)} of sample {worst.sample}: {_show(worst)}"
    if statistics.use and math.isfinite(statistics.use) and statistics.use > 0:
        limit = abs(worst.candidate - worst.reference) / statistics.use
        return f"{share} differ by more than allowed; {where}, allowed ±{limit:.3g}"
    return f"{share} differ; {where}" + (", exact expected" if evidence.tolerance.exact else "")


def _show(place: Place) -> str:
    return f"{_value(place.reference)} expected, {_value(place.candidate)} found"


def _value(x: Any) -> str:
    return f"{x:.7g}" if isinstance(x, float) else repr(x)


def _list(items: Sequence[int] | None) -> str:
    return "[" + ", ".join(str(i) for i in items or ()) + "]"
