"""A change that some layers take back and others do not.

A rewriting moves something from one layer into those that read it: a scale, a gain, a rotation. Where one reader with
other weights comes to the reference's values again, the change is meant, and a reader that does not is where the
rewriting is not finished, though it may be the very layer of the reference. So is a product that adds the reference's
values to changed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.operators import PRODUCTS, QUANTIZERS, operator
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import op_names
from ...graph.quantized.layouts import integers_read, ranges_of
from ...graph.specs import is_float
from ..causes.diagnosis import Diagnosis
from ..causes.folded_padding import in_bias
from ..causes.rewritten_weights import NotTakenBack
from ..report.model import Cause

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex
    from .healing import Healing
    from .observation import LayerObservation


LEFT = 0.25
"""Relative error that is left of integers at most where they are what takes a change back: 12 dB."""
TAKEN = 0.4
"""A layer that errs on the reference's values, and by less than this share of it on the candidate's own, takes back by
what these have changed: no two faults do so by chance."""


@dataclass(frozen=True)
class TakenBack:
    """Who takes a layer's change back and who does not.

    Attributes:
        change: The layer that is changed.
        takers: Layers with other weights behind it, which give the reference's values again.
        lacking: Layers with weights behind it, or beside what adds up there, which do not; or the layer itself, where
            it changes more than that.
        beside: Those of them that are beside it, or spoil it.
    """

    change: int
    takers: tuple[int, ...]
    lacking: tuple[int, ...]
    beside: frozenset[int] = frozenset()

    def told(
        self,
        layer: LayerObservation,
        layers: Mapping[int, LayerObservation],
        index: GraphIndex,
        theirs: GraphIndex,
    ) -> Diagnosis:
        """Why one of those that lack it is to blame.

        Args:
            layer: That layer.
            layers: All of them, by number.
            index: The reference's graph.
            theirs: The candidate's.
        """
        places = (layer.pair.main, *(layers[number].pair.main for number in (self.change, *self.takers)))
        name, change, *takers = op_names(index, places)
        kind = "changed" if layer.exceeds_noise else "same"
        if layer.number == self.change:
            kind = "itself" if layer.exceeds_noise else "none"
        elif layer.number in self.beside:
            kind = "otherwise" if layer.exceeds_noise else "adds"
        if kind == "otherwise" and layer.diagnosis is not None and not constants(layer.pair.reference.nodes, index):
            return layer.diagnosis  # a number: what is wrong of it is told
        if kind == "itself" and layer.diagnosis is not None and len(self.takers) == 1:
            taker = layers[self.takers[0]].pair
            padded = in_bias((index, theirs), (taker.main, taker.candidate.nodes), layer.diagnosis)
            if padded is not None:
                return padded
        fact = NotTakenBack(name, change, tuple(takers), kind, shared(layer.pair.candidate.nodes, theirs))
        if layer.exceeds_noise and layer.diagnosis is not None:
            return layer.diagnosis.adding(fact)
        return Diagnosis(Cause.WEIGHTS, (fact,), layer.pair.main)


def taken_back(
    s: LayerObservation, healing: Healing, graphs: tuple[GraphIndex, GraphIndex], known: Collection[int] = ()
) -> TakenBack | None:
    """Who takes back what a layer changes, and who does not; None where nobody does, or where it reaches an output.

    A layer of scaled integers that takes back what is changed before it is meant itself.

    Products with other weights on the way may change it further. Where all of it is taken back in the end, they do, and
    so do those that make a multiple of the reference's values; each other one is where it ends.

    Args:
        s: The layer.
        healing: What the candidate's own run showed.
        graphs: The reference's graph and the candidate's.
        known: Layers that do not take back what others change: where nothing but these is reached, it is meant, too.
    """
    if (
        operator(graphs[0].nodes[s.pair.main]) in QUANTIZERS
    ):  # integers are read with their own scale, which proves nothing
        return None
    if not _rewritten(s, graphs, _of_integers(s, healing)):  # nothing of it can have been moved into other layers
        return None
    if _brings_back(s, healing):
        return TakenBack(s.number, (s.number,), ())
    whole = _Change(s, healing, graphs, lambda layer: layer.exceeds_noise).traced(known)
    if whole is not None and not whole.lacking:
        return whole
    scaled = _Change(s, healing, graphs, lambda layer: layer.exceeds_noise and healing.multiple(layer)).traced(known)
    return scaled or _Change(s, healing, graphs, lambda layer: False).traced(known)


class _Change:
    """Follows what a layer changes to where it is taken back.

    Args:
        s, healing: See `taken_back`.
        graphs: The reference's graph and the candidate's.
        passes: Whether a product with weights of its own may change it further.
    """

    def __init__(
        self,
        s: LayerObservation,
        healing: Healing,
        graphs: tuple[GraphIndex, GraphIndex],
        passes: Callable[[LayerObservation], bool],
    ) -> None:
        self.s, self.healing, self.passes = s, healing, passes
        self.index, self.theirs = graphs
        self.changed = set(s.pair.reference.outputs)
        self.way = [s.number]
        self._ranges = _of_integers(s, healing)
        self._known_fine: dict[int, bool] = {}
        self.takers: set[int] = set()
        self.behind: set[int] = set()
        self.beside: set[int] = set()

    def traced(self, known: Collection[int]) -> TakenBack | None:
        """See `taken_back`."""
        outputs = set(self.index.outputs)
        waiting = [self.s]
        while waiting:
            here = waiting.pop()
            if not outputs.isdisjoint(here.pair.reference.outputs):
                return None
            for layer in self.healing.reading(here):
                if self.changed.isdisjoint(layer.pair.reference.outputs) and self._hands_on(layer):
                    self.changed.update(layer.pair.reference.outputs)
                    self.way.append(layer.number)
                    waiting.append(layer)
        self._lead_back()
        if self.behind and not self.takers and not self.beside and all(map(self._most, self.behind)):
            return self._left_over()
        firsts = {number: self._origin(self.healing.layers[number]) for number in self.behind}
        self.behind = {number for number, s in firsts.items() if s.number == number or not s.exceeds_noise}
        self.beside |= {s.number for number, s in firsts.items() if number not in self.behind}
        lacking = self.behind | self.beside
        if not self.takers and not (lacking and lacking.issubset(known)):
            return None
        return TakenBack(
            self.s.number, tuple(sorted(self.takers)), tuple(sorted(lacking)), frozenset(self.beside - self.behind)
        )

    def _hands_on(self, layer: LayerObservation) -> bool:
        """Whether a layer that reads what is changed makes something that is changed, too, and meant to be."""
        near = bool(layer.cumulative) and self.healing.near(layer) and not self.healing.hides(layer, self.s)
        if near or _brings_back(layer, self.healing):
            self.takers.update({layer.number} if _takes(layer) and self._rewritten(layer) else ())
            return False
        for blamed in (self._spoiling(layer), self._adding(layer)):
            if blamed is not None:
                self.beside.add(blamed)
                return False
        if self._multiplies(layer) and not self.passes(layer):
            self.behind.add(layer.number)
            return False
        return True

    def _rewritten(self, layer: LayerObservation) -> bool:
        return _rewritten(layer, (self.index, self.theirs), self._ranges)

    def _most(self, number: int) -> bool:
        """Whether a layer takes back most of what is changed, if not all."""
        return _takes(self.healing.layers[number])

    def _left_over(self) -> TakenBack | None:
        """Who is to blame where most of a change is taken back, and not all: what makes it, if that is more than the
        reference's values turned, or with factors of channels; else whoever takes it, or what went wrong between."""
        carried = self.healing.carried(self.s)
        if carried is None:
            return None
        if carried:
            first = {self._origin(self.healing.layers[number]).number for number in self.behind}
            taking = tuple(sorted(self.behind - first))
            return TakenBack(self.s.number, taking, tuple(sorted(first)), frozenset(first - self.behind))
        return TakenBack(self.s.number, tuple(sorted(self.behind)), (self.s.number,))

    def _lead_back(self) -> None:
        """Where all that read what one layer on the way makes have other weights and do not take it back, while others
        do, that layer is to blame in their place."""
        for number in sorted(self.way[1:]):
            found = self._ends(number)
            off = found & self.behind
            s = self.healing.layers[number]
            if len(off) < 2 or found & self.takers or not s.exceeds_noise or self.healing.turns(s):
                continue
            if all(self.healing.layers[n].exceeds_noise for n in off):
                self.behind -= off
                self.beside.add(number)

    def _ends(self, number: int) -> set[int]:
        """Where what a layer on the way makes is taken back, or is not."""
        known = self.takers | self.behind | self.beside
        found: set[int] = set()
        waiting, seen = [number], {number}
        while waiting:
            for s in self.healing.reading(self.healing.layers[waiting.pop()]):
                if s.number in known:
                    found.add(s.number)
                elif s.number in self.way and s.number not in seen:
                    seen.add(s.number)
                    waiting.append(s.number)
        return found

    def _multiplies(self, layer: LayerObservation) -> bool:
        """Whether weights of a layer are multiplied by changed values, which it may move before."""
        products = list(_products(layer, self.index))
        made = {name for node in products for name in node.output}
        inside = {name for p in layer.pair.reference.nodes for name in self.index.nodes[p].output} - made
        reads = {name for node in products for name in node.input}
        return not reads.isdisjoint(self.changed | inside)

    def _spoiling(self, layer: LayerObservation) -> int | None:
        """Who is to blame where something is added to values that come in turned, and the sum is not: the layer that
        adds a constant, or the first of those that make what is added."""
        if not self._turns_in(layer) or self._multiplies(layer) or self.healing.turns(layer):
            return None
        sums = [node.input for node in map(self.index.nodes.__getitem__, layer.pair.reference.nodes) if _is_sum(node)]
        weights = [self.index.weight(name) for inputs in sums for name in inputs]
        if len(sums) == len(layer.pair.reference.nodes) and any(w is not None and w.size > 1 for w in weights):
            return layer.number
        if not any(all(self.index.weight(name) is None for name in inputs) for inputs in sums):
            return None
        first = self._origin(layer)
        return first.number if first.exceeds_noise else None

    def _origin(self, s: LayerObservation) -> LayerObservation:
        """The first layer that went wrong, of one that did and those that make what it reads: each reads nothing else
        that is wrong. Of a product and what is made for it alone, both with other weights, either may be wrong: the
        product is told."""
        while wrong := [maker for maker in self.healing.makers(s) if not self._fine(maker)]:
            before, both = wrong[0], s.exceeds_noise and wrong[0].exceeds_noise
            if both and weighted(s, self.index) and len(self.healing.reading(before)) == 1:
                return s
            s = before
        return s

    def _fine(self, s: LayerObservation) -> bool:
        """Whether what a layer makes is right, or changed as it is meant to be: turned, taken back by one of those that
        read it, or a product that gives channels factors of their own."""
        if s.number not in self._known_fine:
            self._known_fine[s.number] = self._is_fine(s)
        return self._known_fine[s.number]

    def _is_fine(self, s: LayerObservation) -> bool:
        if s is self.s or self.healing.turns(s) or (self.healing.near(s) and not self.healing.hides(s, self.s)):
            return True
        if any(self.healing.near(reader) and _takes(reader) for reader in self.healing.reading(s)):
            return True
        return (
            weighted(s, self.index) and bool(self.healing.carried(s)) and all(map(self._fine, self.healing.makers(s)))
        )

    def _turns_in(self, layer: LayerObservation) -> bool:
        """Whether all that a layer reads of what is changed is turned."""
        read = [n for n in layer.pair.reference.inputs if n in self.changed]
        return all(self.healing.turns(self.healing.layers[self.healing.maker[n]]) for n in read)

    def _adding(self, layer: LayerObservation) -> int | None:
        """The product whose values a sum adds to changed ones and that gives the reference's own: the layer itself, or
        one before it."""
        if not any(operator(self.index.nodes[p]) == "Add" for p in layer.pair.reference.nodes):
            return None
        if weighted(layer, self.index):
            return None if layer.exceeds_noise or self._multiplies(layer) else layer.number
        for name in layer.pair.reference.inputs:
            maker = self.healing.layers.get(self.healing.maker.get(name, -1))
            if name in self.changed or maker is None or not maker.cumulative or not self.healing.near(maker):
                continue
            if weighted(maker, self.index) and not maker.exceeds_noise:
                return maker.number
        return None


def constants(nodes: Iterable[int], index: GraphIndex) -> list[str]:
    """The weights of more than one value that some nodes read."""
    names = dict.fromkeys(name for p in nodes for name in index.nodes[p].input if name)
    return [n for n in names if (w := index.weight(n)) is not None and w.size > 1 and is_float(w.dtype)]


def shared(nodes: Iterable[int], index: GraphIndex) -> tuple[str, int] | None:
    """A weight of some nodes that others read, too, and how many there are."""
    return next(((n, count) for n in constants(nodes, index) if (count := len(index.consumers.get(n, ()))) > 1), None)


def _is_sum(node: onnx.NodeProto) -> bool:
    return operator(node) == "Add"


def _takes(s: LayerObservation) -> bool:
    """Whether a layer errs on the reference's values, and hardly on the candidate's own."""
    return s.exceeds_noise and s.cumulative_error < TAKEN * s.local_error


def _brings_back(s: LayerObservation, healing: Healing) -> bool:
    """Whether that layer takes back what others change, as far as scaled integers let it: their errors add up."""
    return healing.quantized and _takes(s) and s.cumulative_error < LEFT


def _of_integers(s: LayerObservation, healing: Healing) -> bool:
    """Whether a layer makes integers, which their own scales may make the same floats of."""
    return not any(map(healing.rounds, s.pair.reference.outputs))


def _rewritten(s: LayerObservation, graphs: tuple[GraphIndex, GraphIndex], ranges: bool) -> bool:
    """Whether a layer reads other constants than its twin: one of the same is rewritten in no other way than by what
    it reads. ``ranges``: the scales of what is no constant are such constants, too."""
    mine, others = (
        _rewritable(part.nodes, index, ranges)
        for part, index in zip((s.pair.reference, s.pair.candidate), graphs, strict=True)
    )
    left = [*others]
    for value in mine:
        same = next((i for i, other in enumerate(left) if np.array_equal(value, other)), None)
        if same is None:
            return True
        del left[same]
    return bool(left)


def _rewritable(nodes: Iterable[int], index: GraphIndex, scales: bool) -> list[np.ndarray]:
    """The floating constants of some nodes, integers that stand for some, and the places that a Gather picks; axes and
    sizes are neither. ``scales``: whether those of what is no constant are."""
    nodes = tuple(nodes)
    picks = {index.nodes[p].input[1] for p in nodes if operator(index.nodes[p]) == "Gather"}
    ranges = set() if scales else {name for p in nodes for name in ranges_of(index.nodes[p], index)}
    picks |= {name for p in nodes for name in integers_read(index.nodes[p]) if name in index.initializers}
    names = dict.fromkeys(name for p in nodes for name in index.reads[p] if name not in ranges)
    found = ((name, constant_value(index, name)) for name in names)
    return [value for name, value in found if value is not None and (is_float(value.dtype) or name in picks)]


def weighted(s: LayerObservation, index: GraphIndex) -> bool:
    """Whether a layer is a product with weights."""
    return any(True for _ in _products(s, index))


def _products(s: LayerObservation, index: GraphIndex) -> Iterator[onnx.NodeProto]:
    """The products with weights of a layer."""
    nodes = (index.nodes[p] for p in s.pair.reference.nodes if operator(index.nodes[p]) in PRODUCTS)
    return (node for node in nodes if any(index.weight(name) is not None for name in node.input if name))
