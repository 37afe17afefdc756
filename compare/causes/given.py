"""Overflow and underflow made elsewhere: the layer is given what the candidate's format cannot hold.

Looks at: the layer's inputs in the reference. Proves: that no layer which reads this tensor in the candidate's format
can be right, so that whoever makes the tensor is to blame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph.formats import BY_DTYPE, FP32, NumberFormat
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .evidence import count_text
from .ranges import Holder, format_loss, lost_values


@dataclass(frozen=True)
class InfiniteByType:
    """A tensor that is infinite in the type that the graph gives it, and past which the reference is finite again.

    Attributes:
        tensor: Its name.
        format: Its type.
        count, size: How many values of how many are infinite.
    """

    tensor: str
    format: NumberFormat
    count: int
    size: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"'{self.tensor}': {count_text(self.count, self.size)} are above {self.format}'s greatest, "
            f"{self.format.max:g}, and infinite in the graph's own type, past which the reference carries wider values"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """Blames the producer of an input that the candidate's format, or the graph's own type, cannot hold."""
    if case.judgement.reason == "finite" and np.isfinite(case.y).all():
        for name in case.pair.reference.inputs:
            array = case.values[name]
            fmt = BY_DTYPE.get(array.dtype.name)
            infinite = int(np.count_nonzero(np.isinf(array))) if fmt is not None and fmt.u > FP32.u else 0
            if fmt is not None and infinite:
                return Diagnosis(Cause.OVERFLOW, (InfiniteByType(name, fmt, infinite, array.size),), producer=name)
    computing = case.formats.candidate
    if computing.is_integer or computing.u <= FP32.u:
        return None
    for name in case.pair.reference.inputs:
        loss = format_loss(case.values[name], computing)
        if loss is not None:
            fact = lost_values(case.values[name], computing, loss, Holder("input", name), case.entry)
            return Diagnosis(Cause(loss), (fact,), producer=name)
    return None
