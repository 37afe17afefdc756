"""Which layer would take back what others change, were it changed with them: it reads the reference's values moved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.nodes import attribute_int, attribute_ints
from ...graph.operators import PRODUCTS, RESHAPES, WINDOWED, operator
from ...graph.pairing.constants import constant_value
from .taken_back import weighted
from .turning import ORDER

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from .healing import Healing
    from .observation import LayerObservation
    from .turning import Axes

CHANNELS = 1
"""The axis of channels that a convolution reads."""


@dataclass(frozen=True)
class Undoing:
    """A layer that reads the reference's values in another order, or turned.

    Attributes:
        layer: Its number.
        how: Which of these, in words.
        what: What of it would have to be changed: its weights, its indices.
    """

    layer: int
    how: str
    what: str


def undoing_layer(faults: Collection[int], healing: Healing, index: GraphIndex) -> Undoing | None:
    """The first layer behind all of some that reads the reference's values in another order, or turned, and could take
    that back: a product with weights along the axes that they are multiplied along, a Gather along its axis. Such
    values are as long as the reference's, and far away: none has that which makes it of other values.

    Args:
        faults: Those layers, by number.
        healing: What the candidate's own run showed.
        index: The reference's graph.
    """
    common = set.intersection(*(healing.behind((number,)) for number in faults)) - set(faults) if faults else set()
    for s in (healing.layers[number] for number in sorted(common)):
        product = weighted(s, index)
        if s.exceeds_noise:
            continue
        for name in s.pair.reference.inputs:
            among = _multiplied(name, s, index) if product else _picked(name, s, index)
            if not healing.turned(name, among=among):
                continue
            how = healing.layers[healing.maker[name]].turning[name].how
            if product or how == ORDER:
                return Undoing(s.number, how, "weights" if product else "indices")
    return None


def _picked(tensor: str, s: LayerObservation, index: GraphIndex) -> Collection[Axes]:
    """The axis of a tensor along which a layer picks places by constants: a Gather, a Slice along one axis."""
    node, rank = index.nodes[s.pair.main], index.rank(tensor) or 0
    if operator(node) not in ("Gather", "Slice") or node.input[0] != tensor or len(node.input) < 2 or not rank:
        return ()
    constants = [constant_value(index, name) for name in node.input[1:] if name]
    if any(value is None for value in constants):
        return ()
    if operator(node) == "Gather":
        return ((attribute_int(node, "axis", 0) % rank,),)
    axes = constants[2] if len(constants) > 2 else None
    return () if axes is None or axes.size != 1 else ((int(axes.item()) % rank,),)


def _multiplied(tensor: str, s: LayerObservation, index: GraphIndex) -> Collection[Axes] | None:
    """The axes of a tensor along which the weights of a layer are multiplied, behind a Transpose and a Reshape: what is
    done to places, they do not take back, nor what is only added to the product. None where it may be any."""
    order, merged, rank = None, False, index.rank(tensor) or 0
    for node in (index.nodes[p] for p in s.pair.reference.nodes):
        if tensor not in node.input:
            continue
        order = order or list(range(rank))
        if operator(node) in PRODUCTS:
            if not order or tensor != node.input[0] or (merged and operator(node) in WINDOWED):
                return None
            if operator(node) in WINDOWED:
                return ((order[CHANNELS],),)
            last = (order[-1],)
            return None if operator(node) != "MatMul" else (last, tuple(sorted(order[-2:]))) if merged else (last,)
        if operator(node) == "Transpose" and not merged:
            order = [order[axis] for axis in attribute_ints(node, "perm", list(range(rank))[::-1])]
        merged = merged or operator(node) in RESHAPES
        tensor = node.output[0]
    return ()
