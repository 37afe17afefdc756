"""Undeclared format: a runner gives FP16 or BF16 where neither it nor the graph says so.

Looks at: the types of what both sides give, their arithmetic and their graphs' types. Proves: that a side rounds to a
format in which nothing was expected to round, where the error is no more than that format explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.formats import NumberFormat
from ..outputs.formats_in_play import undeclared
from ..report.model import Cause
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ..sides import Side
    from .case import LayerCase

ROUNDOFFS = 8
"""Unit roundoffs of the format up to which it explains the relative L2 error of one layer."""


@dataclass(frozen=True)
class GivenNarrow:
    """A type that a side gives and nobody declares.

    Attributes:
        side: The side's name.
        dtype: The type that it gives.
        format: Its format.
        declared: What its runner says that it computes in.
        relative: The relative L2 error.
    """

    side: str
    dtype: str
    format: NumberFormat
    declared: NumberFormat
    relative: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.side} gives {self.dtype} and counts as {self.declared}, since its `arithmetic` was not declared; "
            f"{self.format} explains the error (relative error {self.relative:.1e})"
        )


def find(case: LayerCase, reference: Side, candidate: Side) -> Diagnosis | None:
    """The cause, where the error is one of the type that one side gives.

    Args:
        case: The layer.
        reference, candidate: Who is compared.
    """
    other = case.twin
    relative = case.judgement.relative
    for side, name, array in ((candidate, other, case.made[other]), (reference, case.tensor, case.values[case.tensor])):
        fmt = undeclared(side, name, array.dtype)
        if fmt is not None and relative <= ROUNDOFFS * fmt.u:
            fact = GivenNarrow(side.name, array.dtype.name, fmt, side.runner.arithmetic, relative)
            return Diagnosis(Cause.UNDECLARED, (fact,))
    return None
