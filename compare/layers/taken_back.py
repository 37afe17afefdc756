"""A change that some layers take back and others do not.

A rewriting moves something from one layer into those that read it: a scale, a gain, a rotation. Where one reader with
other weights comes to the reference's values again, the change is meant, and a reader that does not is where the
rewriting is not finished, though it may be the very layer of the reference. So is a product that adds the reference's
values to changed ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.operators import PRODUCTS, operator
from ..causes.diagnosis import Diagnosis
from ..causes.rewritten_weights import NotTakenBack
from ..report.model import Cause
from .healing import HEALED

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex
    from .healing import Healing
    from .observation import LayerObservation


@dataclass(frozen=True)
class TakenBack:
    """Who takes a layer's change back and who does not.

    Attributes:
        change: The layer that is changed.
        takers: Layers with other weights behind it, which give the reference's values again.
        lacking: Layers with weights behind it, or beside what adds up there, which do not.
        beside: Those of them that are beside it.
    """

    change: int
    takers: tuple[int, ...]
    lacking: tuple[int, ...]
    beside: frozenset[int] = frozenset()

    def told(self, layer: LayerObservation, mains: Mapping[int, int], index: GraphIndex) -> Diagnosis:
        """Why one of those that lack it is to blame.

        Args:
            layer: That layer.
            mains: The main node of each layer, by the layer's number.
            index: The reference's graph.
        """
        change, *takers = (_named(index, mains[number]) for number in (self.change, *self.takers))
        kind = "adds" if layer.number in self.beside else "changed" if layer.exceeds_noise else "same"
        fact = NotTakenBack(_named(index, layer.pair.main), change, tuple(takers), kind)
        if layer.exceeds_noise and layer.diagnosis is not None:
            return layer.diagnosis.adding(fact)
        return Diagnosis(Cause.WEIGHTS, (fact,), layer.pair.main)


def _named(index: GraphIndex, position: int) -> tuple[str, str]:
    return index.nodes[position].op_type, index.names[position]


def taken_back(s: LayerObservation, healing: Healing, index: GraphIndex) -> TakenBack | None:
    """Who takes back what a layer changes, and who does not; None where nobody does, or where it reaches an output.

    Args:
        s: The layer.
        healing: What the candidate's own run showed.
        index: The reference's graph.
    """
    takers: set[int] = set()
    behind: set[int] = set()
    beside: set[int] = set()
    outputs = set(index.outputs)
    waiting, changed = [s], set(s.pair.reference.outputs)
    while waiting:
        here = waiting.pop()
        if not outputs.isdisjoint(here.pair.reference.outputs):
            return None
        for layer in healing.reading(here):
            if not changed.isdisjoint(layer.pair.reference.outputs) or layer.number in behind:
                continue
            if layer.cumulative and healing.quiet(layer):
                plainly = layer.cumulative_error < HEALED * s.cumulative_error  # not by a rounding that hides it
                if plainly and layer.exceeds_noise and weighted(layer, index):
                    takers.add(layer.number)
                continue
            adds = _adding(layer, changed, healing, index)
            if adds is not None:
                beside.add(adds)
            elif _multiplies(layer, changed, index):
                behind.add(layer.number)
            else:
                changed.update(layer.pair.reference.outputs)
                waiting.append(layer)
    lacking = behind | beside
    if not takers:
        return None
    return TakenBack(s.number, tuple(sorted(takers)), tuple(sorted(lacking)), frozenset(beside))


def weighted(s: LayerObservation, index: GraphIndex) -> bool:
    """Whether a layer is a product with weights."""
    return any(True for _ in _products(s, index))


def _products(s: LayerObservation, index: GraphIndex) -> Iterator[onnx.NodeProto]:
    """The products with weights of a layer."""
    nodes = (index.nodes[p] for p in s.pair.reference.nodes if operator(index.nodes[p]) in PRODUCTS)
    return (node for node in nodes if any(index.weight(name) is not None for name in node.input if name))


def _multiplies(layer: LayerObservation, changed: Collection[str], index: GraphIndex) -> bool:
    """Whether weights of a layer are multiplied by changed values, which it may move before."""
    made = {name for node in _products(layer, index) for name in node.output}
    inside = {name for p in layer.pair.reference.nodes for name in index.nodes[p].output} - made
    reads = {name for node in _products(layer, index) for name in node.input}
    return not reads.isdisjoint(changed) or not reads.isdisjoint(inside)


def _adding(layer: LayerObservation, changed: Collection[str], healing: Healing, index: GraphIndex) -> int | None:
    """The product whose values a sum adds to changed ones and that gives the reference's own: the layer itself, or one
    before it."""
    if not any(operator(index.nodes[p]) == "Add" for p in layer.pair.reference.nodes):
        return None
    if weighted(layer, index):
        return None if layer.exceeds_noise or _multiplies(layer, changed, index) else layer.number
    for name in layer.pair.reference.inputs:
        maker = healing.layers.get(healing.maker.get(name, -1))
        if name in changed or maker is None or not maker.cumulative or not healing.quiet(maker):
            continue
        if weighted(maker, index) and not maker.exceeds_noise:
            return maker.number
    return None
