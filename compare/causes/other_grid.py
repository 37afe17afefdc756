"""A layer that reads scaled integers which stand for other numbers in the candidate: who writes them has another scale
or zero point there.

Looks at: the quantizers at the layer's border that change nothing in the candidate, and the numbers that the
reference's tensors hold there. Proves: that what the layer is given is none of the numbers that the candidate has for
it, so that its error is that of the layer before, where the graphs say of nothing else that it differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.operators import STRETCHES, operator
from ...graph.quantized.idle import Numbers, idle_quantizers, numbers_held, numbers_of
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ...graph.index import GraphIndex


@dataclass(frozen=True)
class HeldOtherwise:
    """A tensor that the candidate holds in other integers than the reference.

    Attributes:
        tensor: Its name in the reference.
        numbers: What these stand for in the reference, and in the candidate.
    """

    tensor: str
    numbers: tuple[Numbers, Numbers]

    @property
    def text(self) -> str:
        """See `Fact`."""
        mine, theirs = (
            f"steps of {step:.6g} from {step * low:.6g} to {step * high:.6g}" for step, low, high in self.numbers
        )
        return f"'{self.tensor}' is held in {mine} against {theirs}"


def find(case: LayerCase) -> Diagnosis | None:
    """The first such tensor, whose maker is to blame."""
    index, other = case.graphs
    if index is other or case.differences:
        return None
    idle, held = idle_quantizers(other), numbers_held(index)
    for position in case.pair.candidate.nodes:
        numbers = numbers_of(other, position) if position in idle else None
        for name in _given(case, other, position) if numbers is not None else ():
            if name in held and held[name] != numbers:
                assert numbers is not None
                return Diagnosis(Cause.QUANTIZATION, (HeldOtherwise(name, (held[name], numbers)),), producer=name)
    return None


def _given(case: LayerCase, other: GraphIndex, position: int) -> Iterator[str]:
    """The reference's tensor that a node of the candidate's layer reads, moved perhaps, where that is given to it."""
    name = other.nodes[position].input[0]
    while name not in case.pair.candidate.inputs:
        before = other.producer.get(name, -1)
        if before not in case.pair.candidate.nodes or operator(other.nodes[before]) not in STRETCHES:
            return
        name = other.nodes[before].input[0]
    if (source := case.origins.get(name)) in case.pair.reference.inputs:
        yield source
