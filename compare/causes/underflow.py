"""Underflow: values among the subnormals of the candidate's format, or below them.

Looks at: the output, the weights, what became zero, and the tensors inside the layer as the reference computes them,
against the smallest normal number of the narrow format in play. Proves: that rounding them costs more than rounding in
the normal range does. Weights that are too large for the format are told here too: they are clamped, and nothing
becomes infinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph.formats import NumberFormat
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .evidence import Elements
from .ranges import Holder, Loss, format_loss, lossy_weights, lost_values

EXPLAINS = 0.1
"""Share of the error's power that the values which became zero must have to be its cause."""
_LOSSES: tuple[Loss, ...] = ("overflow", "underflow")


@dataclass(frozen=True)
class BecameZero(Elements):
    """Values of the output that are zero in the candidate alone."""

    @property
    def text(self) -> str:
        """See `Fact`."""
        e = self.first
        return f"{self.counted} became zero, first at {e.where}: {e.reference:.6g}"


def find(case: LayerCase) -> Diagnosis | None:
    """The first of output, weights, zeros, and what is inside that the format loses."""
    fmt = case.formats.narrow
    if fmt is None:
        return None
    if format_loss(case.y, fmt) == "underflow":
        fact = lost_values(case.y, fmt, "underflow", Holder("output", case.tensor))
        return Diagnosis(Cause.UNDERFLOW, (fact,))
    for loss in _LOSSES:
        weights = lossy_weights(case, fmt, loss)
        if weights is not None:
            return Diagnosis(Cause(loss), (weights[1],), weights[0])
    return _became_zero(case, fmt) or _inside(case, fmt)


def _became_zero(case: LayerCase, fmt: NumberFormat) -> Diagnosis | None:
    y, c = case.y, case.c
    lost = (y != 0) & (c == 0) & (np.abs(y.astype(np.float64)) < fmt.smallest_normal)
    if not lost.any():
        return None
    power = float(np.sum(np.square(y[lost], dtype=np.float64)))
    if power <= EXPLAINS * float(np.sum(np.square((c - y).astype(np.float64)))):
        return None
    return Diagnosis(Cause.UNDERFLOW, (BecameZero.of(case, lost),))


def _inside(case: LayerCase, fmt: NumberFormat) -> Diagnosis | None:
    index = case.graphs[0]
    for name, array in case.inner.items():
        if format_loss(array, fmt) == "underflow":
            holder = Holder("inside", index.names[index.producer[name]])
            return Diagnosis(Cause.UNDERFLOW, (lost_values(array, fmt, "underflow", holder),))
    return None
