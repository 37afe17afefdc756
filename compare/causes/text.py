"""Strings that differ: no arithmetic explains them, only what the graphs say.

Looks at: layers that give strings. Proves: which differ; why, where an attribute or a constant of the graphs says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.pairing.weight_changes import WeightChange, weight_change
from ..report.model import Cause
from ..statistics.host import is_text
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import in_graphs


@dataclass(frozen=True)
class StringsDiffer:
    """Other strings than the reference's.

    Attributes:
        change: How they differ.
    """

    change: WeightChange

    @property
    def text(self) -> str:
        """See `Fact`."""
        return str(self.change)


def find(case: LayerCase) -> Diagnosis | None:
    """What the graphs say of strings that differ; else that they do. None where the layer gives numbers."""
    if not is_text(case.y.dtype) and not is_text(case.c.dtype):
        return None
    found = in_graphs(case)
    if found is not None:
        return found
    change = weight_change(case.y, case.c)
    return Diagnosis(Cause.UNKNOWN, () if change is None else (StringsDiffer(change),))
