"""Overflow and underflow made elsewhere: the layer is given what the candidate's format cannot hold.

Looks at: the layer's inputs in the reference. Proves: that no layer which reads this tensor in the candidate's format
can be right, so that whoever makes the tensor is to blame.
"""

from __future__ import annotations

from ...graph.formats import FP32
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .ranges import Holder, format_loss, lost_values


def find(case: LayerCase) -> Diagnosis | None:
    """Blames the producer of an input that the candidate's format cannot hold."""
    fmt = case.formats.candidate
    if fmt.is_integer or fmt.u <= FP32.u:
        return None
    for name in case.pair.reference.inputs:
        loss = format_loss(case.values[name], fmt)
        if loss is not None:
            fact = lost_values(case.values[name], fmt, loss, Holder("input", name), case.entry)
            return Diagnosis(Cause(loss), (fact,), producer=name)
    return None
