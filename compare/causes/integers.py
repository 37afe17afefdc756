"""Integers that differ: a quotient cut off instead of rounded down, a type that is too narrow, sums in FP32.

Looks at: the differences of integer outputs. Proves: that all of them have the form that this mistake gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .evidence import Element, count_text

WIDTHS = (32, 16, 8)
"""Bits of the integers that a wider one may be cut to."""
FP32_INTEGERS = 1 << 24
"""Up to here FP32 holds every integer."""


@dataclass(frozen=True)
class Differ:
    """Integers that differ in a way that names the mistake.

    Attributes:
        how: What the candidate does.
        count, size: How many of how many.
        first: The first of them.
    """

    how: str
    count: int
    size: int
    first: Element

    @property
    def text(self) -> str:
        """See `Fact`."""
        e = self.first
        values = f"{e.reference} against {e.candidate}"
        return f"{self.how}: {count_text(self.count, self.size)} differ, first at {e.where}: {values}"


def find(case: LayerCase) -> Diagnosis | None:
    """The mistake that gives exactly these differences; None where the output is no integer, or none does."""
    y, c = case.y, case.c
    if y.dtype.kind not in "iu" or c.dtype.kind not in "iuf" or y.shape != c.shape or not y.size:
        return None
    off = np.asarray(y != c)
    if not off.any():
        return None
    mine, theirs = y[off].astype(object), np.rint(c[off].astype(np.float64)).astype(np.int64).astype(object)
    if c.dtype.kind in "iu":
        theirs = c[off].astype(object)
    for cause, test in _MISTAKES:
        how = test(mine, theirs)
        if how:
            fact = Differ(how, int(np.count_nonzero(off)), y.size, Element.first(case, off))
            return Diagnosis(cause, (fact,))
    return None


def _cut_off(mine: np.ndarray, theirs: np.ndarray) -> str:
    if len(mine) and all(b - a == 1 for a, b in zip(mine, theirs, strict=True)) and all(a < 0 for a in mine):
        return "quotients are rounded toward zero where the reference rounds them down"
    if len(mine) and all(b - a == -1 for a, b in zip(mine, theirs, strict=True)) and all(b < 0 for b in theirs):
        return "quotients are rounded down where the reference rounds them toward zero"
    return ""


def _wrapped(mine: np.ndarray, theirs: np.ndarray) -> str:
    for bits in WIDTHS:
        if all((a - b) % (1 << bits) == 0 for a, b in zip(mine, theirs, strict=True)):
            return f"the candidate keeps the lowest {bits} bits"
    return ""


def _in_fp32(mine: np.ndarray, theirs: np.ndarray) -> str:
    """Values that FP32 does not hold, each within a few of its steps."""
    if not all(abs(a) >= FP32_INTEGERS or abs(b) >= FP32_INTEGERS - 1 for a, b in zip(mine, theirs, strict=True)):
        return ""
    if all(int(np.float32(int(b))) == b or abs(b) < FP32_INTEGERS for b in theirs):
        return f"the candidate computes in FP32, which does not hold every integer above {FP32_INTEGERS:,}"
    return ""


_MISTAKES: tuple[tuple[Cause, Callable[[np.ndarray, np.ndarray], str]], ...] = (
    (Cause.OVERFLOW, _wrapped),
    (Cause.NARROW_ACCUMULATOR, _in_fp32),
    (Cause.WRONG_OP, _cut_off),
)
