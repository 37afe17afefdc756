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
from .evidence import Elements

WIDTHS = (32, 16, 8)
"""Bits of the integers that a wider one may be cut to."""
FP32_INTEGERS = 1 << 24
"""Up to here FP32 holds every integer."""


@dataclass(frozen=True)
class Differ(Elements):
    """Integers that differ in a way that names the mistake.

    Attributes:
        how: What the candidate does.
    """

    how: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        e = self.first
        values = f"{e.reference} against {e.candidate}"
        return f"{self.how}: {self.counted} differ, first at {e.where}: {values}"


def find(case: LayerCase) -> Diagnosis | None:
    """The mistake that gives exactly these differences; None where the output is no integer, or none does."""
    y, c = case.y, case.c
    if y.dtype.kind not in "iu" or c.dtype.kind not in "iuf" or y.shape != c.shape or not y.size:
        return None
    off = np.asarray(y != c)
    if not off.any() or not np.isfinite(c).all():
        return None
    mine, theirs = ((a[off] if a.dtype.kind in "iu" else np.rint(a[off])).astype(np.int64) for a in (y, c))
    for cause, test in _MISTAKES:
        how = test(mine, theirs)
        if how:
            return Diagnosis(cause, (Differ.of(case, off, how),))
    return None


def _cut_off(mine: np.ndarray, theirs: np.ndarray) -> str:
    if np.all(theirs - mine == 1) and np.all(mine < 0):
        return "quotients are rounded toward zero where the reference rounds them down"
    if np.all(theirs - mine == -1) and np.all(theirs < 0):
        return "quotients are rounded down where the reference rounds them toward zero"
    return ""


def _wrapped(mine: np.ndarray, theirs: np.ndarray) -> str:
    for bits in WIDTHS:
        if not np.any((mine - theirs) % (1 << bits)):
            return f"the candidate keeps the lowest {bits} bits"
    return ""


def _in_fp32(mine: np.ndarray, theirs: np.ndarray) -> str:
    """Values that FP32 does not hold, each within a few of its steps."""
    if not np.all((np.abs(mine) >= FP32_INTEGERS) | (np.abs(theirs) >= FP32_INTEGERS - 1)):
        return ""
    if np.all((theirs.astype(np.float32).astype(np.int64) == theirs) | (np.abs(theirs) < FP32_INTEGERS)):
        return f"the candidate computes in FP32, which does not hold every integer above {FP32_INTEGERS:,}"
    return ""


_MISTAKES: tuple[tuple[Cause, Callable[[np.ndarray, np.ndarray], str]], ...] = (
    (Cause.OVERFLOW, _wrapped),
    (Cause.NARROW_ACCUMULATOR, _in_fp32),
    (Cause.WRONG_OP, _cut_off),
)
