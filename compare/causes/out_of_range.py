"""Out of range: what the graph types FP16 and FP16 cannot hold, where the runtime carries FP32 past it.

Looks at: what was found when the network ran as its types say (`outputs.by_types`). Proves: that a device which takes
the types as law gives other outputs, and where that begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.formats import FP16
from ..report.model import Cause
from ..report.out_of_range import OutOfRange
from .diagnosis import Diagnosis


@dataclass(frozen=True)
class CarriedPast:
    """Values that a runtime carries past a tensor that cannot hold them.

    Attributes:
        found: What was found of them.
        alone: Whether nothing else tells which values they are.
    """

    found: OutOfRange
    alone: bool

    @property
    def text(self) -> str:
        """See `Fact`."""
        went_on = f"{self.found.runner} goes on in FP32, and an FP16 device does not"
        if not self.alone:
            return went_on
        if self.found.overflow:
            return f"its values reach {self.found.value:.6g}, above FP16's greatest, {FP16.max:g}: {went_on}"
        return f"values up to {self.found.value:.2g} become zero in FP16: {went_on}"


def diagnosis(found: OutOfRange, before: Diagnosis | None, node: int | None) -> Diagnosis:
    """The cause at the layer where the range of FP16 matters first.

    Args:
        found: What was found when the network ran as its types say.
        before: What else was found of the layer, if anything.
        node: The node that is to blame: its position in the reference's graph; None: the layer's main one.
    """
    if before is not None and before.cause in (Cause.OVERFLOW, Cause.UNDERFLOW) and before.producer is None:
        return before.adding(CarriedPast(found, alone=False))
    cause = Cause.OVERFLOW if found.overflow else Cause.UNDERFLOW
    return Diagnosis(cause, (CarriedPast(found, alone=True),), node)
