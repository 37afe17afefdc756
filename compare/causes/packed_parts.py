"""One of the projections that a fused attention has packed into one constant: the queries' bias, the values' weights.

Looks at: the parts of the constants that one side packs, held against those that the other side has apart. Proves:
where the candidate makes what the reference does with the reference's values of a part, that these alone are wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...graph.contrib_ops import settings
from ...graph.operators import domain_of
from ...graph.pairing.constants import constant_value
from ...graph.pairing.normal_form import slots
from ...graph.pairing.weight_changes import WeightChange, weight_change
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .undoing import with_constants

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex

PROJECTIONS = ("queries", "keys", "values")
"""What an attention packs into one constant, in this order."""
MOST = 3
"""Most parts that are wrong together."""
TRIED = 32
"""Most sets of them that are tried."""


@dataclass(frozen=True)
class PackedPart:
    """Values of one projection that differ, of which one side has packed those of all.

    Attributes:
        node: Operator and name of the node that reads the packed constant.
        slot: What the operator calls it.
        packed, plain: Its name, and the name of the constant that the other side has of this projection.
        place: Which of the projections it is: the first, second or third.
        change: How the candidate's values differ from the reference's.
        in_candidate: Whether it is the candidate that packs them.
    """

    node: str
    slot: str
    packed: str
    plain: str
    place: int
    change: WeightChange
    in_candidate: bool

    @property
    def text(self) -> str:
        """See `Fact`."""
        packed = f"the {PROJECTIONS[self.place]}' part of {self.slot} of {self.node}"
        if self.in_candidate:
            told = f"{packed} holds other values than '{self.plain}' of the first file"
        else:
            told = f"'{self.plain}' holds other values than {packed} in the first file"
        return f"{told}: {self.change}; with those of the first file it makes what the first file does"

    @property
    def remedy(self) -> str:
        """What to do."""
        third = f"the {('first', 'middle', 'last')[self.place]} third of '{self.packed}'"
        if self.in_candidate:
            return f"put '{self.plain}' of the first file into {third} in the second"
        return f"put {third} of the first file into '{self.plain}' of the second"


@dataclass(frozen=True)
class _Part:
    """A projection whose values differ.

    Attributes:
        fact: What differs.
        right: What the candidate has to have of it, in the shape of the constant, or of the part of it.
        node: The node that is to blame, by its position in the reference's graph.
    """

    fact: PackedPart
    right: np.ndarray
    node: int


def find(case: LayerCase) -> Diagnosis | None:
    """The projections whose values are wrong in the candidate."""
    if case.graphs[0] is case.graphs[1] or case.formats.quantized:
        return None
    parts = [part for side in (1, 0) for part in _parts(case, side)]
    sets = (chosen for count in range(1, MOST + 1) for chosen in itertools.combinations(parts, count))
    for chosen in itertools.islice(sets, TRIED):
        if case.right_with(partial(with_constants, others=_constants(case, chosen))):
            return Diagnosis(Cause.WEIGHTS, tuple(part.fact for part in chosen), chosen[0].node)
    return None


def _constants(case: LayerCase, chosen: Sequence[_Part]) -> Mapping[str, np.ndarray]:
    """The candidate's constants with the reference's values of some projections."""
    found: dict[str, np.ndarray] = {}
    for fact, right in ((part.fact, part.right) for part in chosen):
        if not fact.in_candidate:
            found[fact.plain] = right
            continue
        known = found.get(fact.packed)
        known = constant_value(case.graphs[1], fact.packed) if known is None else known
        assert known is not None
        thirds = np.split(known, len(PROJECTIONS), axis=-1)
        thirds[fact.place] = right
        found[fact.packed] = np.concatenate(thirds, axis=-1)
    return found


def _parts(case: LayerCase, side: int) -> Iterator[_Part]:
    """The projections that one side has packed, and the other one has other values of."""
    index, nodes = case.graphs[side], (case.pair.reference, case.pair.candidate)[side].nodes
    apart = dict(_apart(case.graphs[1 - side], (case.pair.candidate, case.pair.reference)[side].nodes))
    for position in nodes:
        node = index.nodes[position]
        for slot, name, value in packed_constants(index, node):
            thirds = np.split(value, len(PROJECTIONS), axis=-1)
            shapes = thirds[0].shape, thirds[0].shape[::-1]
            alike = [n for n, (other, _) in apart.items() if other.shape in shapes]
            changes = {n: [_change(third, apart[n][0], side) for third in thirds] for n in alike}
            left = [n for n, found in changes.items() if None not in found]
            open_ones = [p for p in range(len(thirds)) if all(found[p] is not None for found in changes.values())]
            if not open_ones or len(left) != len(open_ones):
                continue
            told = f"{node.op_type} {index.names[position]}"
            for place, plain in zip(open_ones, _nearest([thirds[p] for p in open_ones], left, apart), strict=True):
                other, reader = apart[plain]
                change = changes[plain][place]
                assert change is not None
                change = replace(change, noun="weights" if value.ndim > 1 else "biases")
                fact = PackedPart(told, slot, name, plain, place, change, bool(side))
                right = _laid(other, thirds[place]) if side else _laid(thirds[place], other)
                yield _Part(fact, right.astype(value.dtype if side else other.dtype), reader if side else position)


def _nearest(
    thirds: Sequence[np.ndarray], names: Sequence[str], apart: Mapping[str, tuple[np.ndarray, int]]
) -> tuple[str, ...]:
    """The constants that stand for some parts: those that are nearest to them together."""

    def off(order: tuple[str, ...]) -> float:
        return sum(_distance(third, apart[name][0]) for third, name in zip(thirds, order, strict=True))

    return min(itertools.permutations(names), key=off)


def _distance(value: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(value.astype(np.float64) - _laid(other, value).astype(np.float64)))


def _laid(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Values laid as another array is, which may be transposed."""
    return value if value.shape == like.shape else value.T


def _change(third: np.ndarray, other: np.ndarray, side: int) -> WeightChange | None:
    """How a part differs from what the other side has; None where that is no more than rounding."""
    other = _laid(other, third)
    change = weight_change(other, third) if side else weight_change(third, other)
    return None if change is None or change.rounded_to else change


def _apart(index: GraphIndex, nodes: Sequence[int]) -> Iterator[tuple[str, tuple[np.ndarray, int]]]:
    """The floating constants that some nodes read, each with the first of them that does."""
    for position in reversed(nodes):
        for name in filter(None, index.nodes[position].input):
            value = constant_value(index, name)
            if value is not None and is_float(value.dtype) and value.ndim in (1, 2):
                yield name, (value, position)


def packed_constants(index: GraphIndex, node: onnx.NodeProto) -> Iterator[tuple[str, str, np.ndarray]]:
    """The constants of a node that queries, keys and values are packed into: slot, name and value.

    Args:
        index: The node's graph.
        node: The node.
    """
    if not settings(node, 1).get("num_heads", 0):
        return
    for slot, name in zip(slots(node, index.opset.get(domain_of(node), 1)), node.input, strict=True):
        value = constant_value(index, name) if name else None
        if value is not None and value.ndim in (1, 2) and value.shape[-1] and value.shape[-1] % len(PROJECTIONS) == 0:
            yield slot, name, value
