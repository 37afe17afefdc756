"""Not finite, and no overflow explains it; or not a number on both sides.

Looks at: which elements are finite. Proves: that one side computed what has no value; why, it does not say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph.operators import DIVIDES
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import beyond_formats, stated
from .evidence import Elements, count_text


@dataclass(frozen=True)
class NotFiniteAlike(Elements):
    """Elements that are not finite on one side, and are something else on the other.

    Attributes:
        how: What they are.
    """

    how: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        e = self.first
        return f"{self.counted} are {self.how}, first at {e.where}: {e.reference:.6g} against {e.candidate:.6g}"


@dataclass(frozen=True)
class NotANumberOnBothSides:
    """A tensor in which NaN begins on both sides.

    Attributes:
        tensor: Its name.
        reference, candidate: How many there are.
    """

    tensor: str
    reference: int
    candidate: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.reference:,} values of {self.tensor!r} are NaN in the reference itself, "
            f"{self.candidate:,} in the candidate"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """The first element that is finite on one side only; else that is infinite on both and not the same."""
    if case.judgement.reason != "finite":
        return None
    kinds = {
        "finite on one side only": np.isfinite(case.y) != np.isfinite(case.c),
        "infinite on one side and NaN on the other": np.isnan(case.y) != np.isnan(case.c),
        "infinite on both sides with opposite signs": np.isinf(case.y) & np.isinf(case.c) & (case.y != case.c),
    }
    how = next((how for how, mask in kinds.items() if mask.any()), "")
    if not how:
        return None
    fact, told = NotFiniteAlike.of(case, kinds[how], how), stated(case.graphs[0], beyond_formats(case.differences))
    return Diagnosis(Cause.NAN, (fact,)) if told is None else told.adding(fact)


def on_both_sides(tensor: str, reference: int, candidate: int) -> Diagnosis:
    """NaN in the reference itself, which fails the outputs and is no fault of the candidate."""
    return Diagnosis(Cause.NAN, (NotANumberOnBothSides(tensor, reference, candidate),))


@dataclass(frozen=True)
class InfiniteInItsOwnRun:
    """A tensor that is not finite where the candidate computes what comes before, too, and is where it is given the
    reference's values.

    Attributes:
        tensor: Its name.
        count, size: How many values of how many.
        op: The operator that makes it.
    """

    tensor: str
    count: int
    size: int
    op: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{count_text(self.count, self.size)} of {self.tensor!r} are not finite in the candidate's own run, and "
            f"all are where the layer is given the reference's values: what {self.op} reads became zero, or too large"
        )


def in_its_own_run(fact: InfiniteInItsOwnRun) -> Diagnosis:
    """The first values that are not finite, in a run in which no layer by itself is beyond its noise."""
    return Diagnosis(Cause.UNDERFLOW if fact.op in DIVIDES else Cause.NAN, (fact,))
