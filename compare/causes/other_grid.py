"""A layer that reads scaled integers which stand for other numbers in the candidate: who writes them has another scale
or zero point there.

Looks at: the quantizers at the layer's border that change nothing in the candidate, and the numbers that the
reference's tensors hold there. Proves: that what the layer is given is none of the numbers that the candidate has for
it, so that its error is that of the layer before, where the graphs say of nothing else that it differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.operators import QUANTIZERS, operator
from ...graph.pairing.weight_changes import WeightChange
from ...graph.quantized.idle import Numbers, idle_quantizers, keeps, numbers_held, numbers_of
from ...graph.quantized.scales import moved
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer
from .saturation import BeyondCalibration, CalibratedBehind, PiledUp

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..report.model import Fact


LEVELS = 255
"""How many steps a range of integers of 8 bits has."""


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


def is_held_otherwise(found: Diagnosis) -> bool:
    """Whether what is told of a layer is that what it reads is held in other integers."""
    return any(isinstance(fact, HeldOtherwise) for fact in found.facts)


def range_change(facts: Sequence[Fact]) -> float | None:
    """By how much a range is another one, as a share of it, where that is all that some facts tell; None where they
    tell of something else."""
    found = [_change_of(fact) for fact in facts if not isinstance(fact, CalibratedBehind)]
    return None if not found or None in found else max(change for change in found if change is not None)


def _change_of(fact: Fact) -> float | None:
    if isinstance(fact, HeldOtherwise):
        (mine, low, high), (theirs, least, most) = fact.numbers
        ends = abs(low * mine - least * theirs), abs(high * mine - most * theirs)
        return float(max(ends) / ((high - low) * mine))
    if isinstance(fact, PiledUp):
        return abs(fact.reference / fact.end - 1.0) if fact.quantizer else None
    if isinstance(fact, BeyondCalibration):
        beyond = max(fact.reach - fact.high, fact.low - fact.reach)
        return None if fact.given else beyond / (fact.high - fact.low)
    change = fact.difference.change if isinstance(fact, GraphsDiffer) else None
    if not isinstance(change, WeightChange) or change.values is None:
        return None
    mine, theirs = map(float, change.values)
    if change.quantized:
        return 0.0
    if change.of_one == "scale" and mine:
        return abs(theirs / mine - 1.0)
    return abs(theirs - mine) / LEVELS if change.of_one == "zero point" else None


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
                fact = HeldOtherwise(name, (held[name], numbers))
                return Diagnosis(Cause.QUANTIZATION, (fact,), producer=_written(case, name))
    return None


def _written(case: LayerCase, name: str) -> str:
    """The first tensor of the reference that both sides have of those that hold the numbers of one: who makes it rounds
    to them, and what is behind only moves them."""
    index, found, known = case.graphs[0], name, set(case.origins.values())
    while (position := index.producer.get(name)) is not None:
        node = index.nodes[position]
        if not (keeps(node) or position in idle_quantizers(index)) or not node.input:
            break
        name = moved(node)[0] if keeps(node) else node.input[0]
        found = name if name in known else found
    return found


def _given(case: LayerCase, other: GraphIndex, position: int) -> Iterator[str]:
    """The reference's tensors that a node of the candidate's layer reads, where they are given to it: as they are, or
    behind nodes that only move what they get, or choose among it."""
    waiting = [other.nodes[position].input[0]]
    while waiting:
        name = waiting.pop()
        before = other.producer.get(name, -1)
        if name in case.pair.candidate.inputs:
            source = case.origins.get(name)
            yield from [source] if source in case.pair.reference.inputs else []
        elif before in case.pair.candidate.nodes:
            node = other.nodes[before]
            waiting.extend(moved(node) if keeps(node) else node.input[:1] if operator(node) in QUANTIZERS else ())
