"""Weights that are others in the candidate's file, in a layer that seems to overflow.

Looks at: the output as the reference computes it with the candidate's weights. Proves: that these weights make the
error where the output is finite, that most of what the reference has beyond the format's greatest value is finite too,
and that nothing else reaches the outputs. A converter that clamps weights does this; an overflow proper ends infinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.pairing.differences import DifferenceKind
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import EXPLAINS, beyond_formats, explained, stated, weights_read


@dataclass(frozen=True)
class OverflowBeside:
    """Values that would overflow with the reference's weights, and those that do with the candidate's.

    Attributes:
        format: The format.
        beyond: How many values of the reference are above its greatest.
        infinite: How many of the candidate are not finite.
    """

    format: NumberFormat
    beyond: int
    infinite: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.beyond:,} values of the reference are above {self.format}'s greatest, {self.format.max:g}, and "
            f"{self.infinite:,} of the candidate are infinite with its weights"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """Other weights in the file, which explain what looks like an overflow."""
    fmt, y, c = case.formats.narrow, case.y, case.c
    if (
        fmt is None
        or not case.ends_finite
        or case.judgement.reason != "finite"
        or not is_float(y.dtype)
        or y.shape != c.shape
    ):
        return None
    differ = [(p, d) for p, d in beyond_formats(case.differences) if d.kind is DifferenceKind.WEIGHTS]
    found = stated(case.graphs[0], differ)
    beyond, infinite = int(np.count_nonzero(np.abs(y) > fmt.max)), int(np.count_nonzero(~np.isfinite(c)))
    if found is None or found.cause is not Cause.WEIGHTS or infinite > EXPLAINS * beyond:
        return None
    made = case.reweighted(weights_read(case.graphs, [d for _, d in case.differences]))
    if made is None or not explained(case, made):
        return None
    return found.adding(OverflowBeside(fmt, beyond, infinite))
