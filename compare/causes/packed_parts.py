"""One of the projections that a fused attention has packed into one constant: the queries' bias, the values' weights.

Looks at: the parts of the constants that one side packs, held against those that the other side has apart. Proves:
where the candidate makes what the reference does with the reference's values of a part, that these alone are wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...graph.contrib_ops import settings
from ...graph.nodes import attribute_int
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
MOST_APART = 6
"""Most constants that may be one of them."""
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
class ExchangedParts:
    """Constants of the candidate that hold each other's values, which the reference has packed into one.

    Attributes:
        node: Operator and name of the reference's node that reads the packed ones.
        pairs: Two names each: of the weights, of the biases.
    """

    node: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self._told} are exchanged, which {self.node} of the first file has packed into one: with each in the "
            "place of the other it makes what the first file does"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"exchange {self._told} in the second file"

    @property
    def _told(self) -> str:
        return ", and ".join(f"'{one}' and '{other}'" for one, other in self.pairs)


class _Plain(NamedTuple):
    """A constant that a side has of one projection.

    Attributes:
        value: Its values; weights with the axis that is added up first.
        reader: The node that reads it, by its position.
        turned: Whether the file has the axes the other way round.
    """

    value: np.ndarray
    reader: int
    turned: bool


class _Part(NamedTuple):
    """A projection whose values differ.

    Attributes:
        fact: What differs.
        right: The reference's values, laid as the candidate's are.
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
    return _exchanged(case)


def _exchanged(case: LayerCase) -> Diagnosis | None:
    """Two projections that have each other's constants in the candidate, of which the reference has all packed."""
    index = case.graphs[0]
    for position in case.pair.reference.nodes:
        node = index.nodes[position]
        packed = [value for _, _, value in packed_constants(index, node)]
        apart = _apart(case.graphs[1], case.pair.candidate.nodes) if packed else {}
        held = [names for value in packed if all(names := _holders(value, apart))]
        for one, other in itertools.combinations(range(len(PROJECTIONS)), 2):
            for chosen in (*([names] for names in held), *([held] if len(held) > 1 else [])):
                pairs = tuple((names[one], names[other]) for names in chosen)
                others = {a: _as_stored(apart[b].value, apart[a]) for p in pairs for a, b in (p, p[::-1])}
                if case.right_with(partial(with_constants, others=others)):
                    fact = ExchangedParts(f"{node.op_type} {index.names[position]}", pairs)
                    return Diagnosis(Cause.WEIGHTS, (fact,), position)
    return None


def _holders(value: np.ndarray, apart: Mapping[str, _Plain]) -> list[str]:
    """The candidate's constants that hold the parts of one that the reference has packed; empty of those it lacks."""
    found: list[str] = []
    for third in np.split(value, len(PROJECTIONS), axis=-1):
        alike = (n for n, one in apart.items() if n not in found and one.value.shape == third.shape)
        found.append(next((n for n in alike if _change(third, apart[n].value) is None), ""))
    return found


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
    nodes = case.pair.reference.nodes, case.pair.candidate.nodes
    index = case.graphs[side]
    for position in nodes[side]:
        node = index.nodes[position]
        told, packed = f"{node.op_type} {index.names[position]}", list(packed_constants(index, node))
        apart = _apart(case.graphs[1 - side], nodes[1 - side]) if packed else {}
        for slot, name, value in packed:
            for place, third, plain, change in _changed(value, apart, side):
                change = replace(change, noun="weights" if value.ndim > 1 else "biases")
                fact, own = PackedPart(told, slot, name, plain, place, change, bool(side)), apart[plain]
                right = own.value.astype(value.dtype) if side else _as_stored(third, own)
                yield _Part(fact, right, own.reader if side else position)


def _changed(
    packed: np.ndarray, apart: Mapping[str, _Plain], side: int
) -> Iterator[tuple[int, np.ndarray, str, WeightChange]]:
    """The parts of a packed constant that differ: place, values, the other side's constant and how they differ."""
    thirds = np.split(packed, len(PROJECTIONS), axis=-1)
    changes = {
        name: [_change(*((one.value, third) if side else (third, one.value))) for third in thirds]
        for name, one in apart.items()
        if one.value.shape == thirds[0].shape
    }
    left = [name for name, found in changes.items() if None not in found]
    places = [place for place in range(len(thirds)) if all(found[place] is not None for found in changes.values())]
    if not places or not len(places) <= len(left) <= MOST_APART:
        return
    for place, name in zip(places, _nearest([thirds[p] for p in places], left, apart), strict=True):
        change = changes[name][place]
        if change is not None:
            yield place, thirds[place], name, change


def _nearest(thirds: Sequence[np.ndarray], names: Sequence[str], apart: Mapping[str, _Plain]) -> tuple[str, ...]:
    """The constants that stand for some parts: those that are nearest to them together."""

    def off(order: tuple[str, ...]) -> float:
        pairs = zip(thirds, order, strict=True)
        return sum(float(np.linalg.norm(np.subtract(third, apart[n].value, dtype=np.float64))) for third, n in pairs)

    return min(itertools.permutations(names, len(thirds)), key=off)


def _as_stored(value: np.ndarray, plain: _Plain) -> np.ndarray:
    """Values of a projection as the file has them in place of those of a constant."""
    return (value.T if plain.turned else value).astype(plain.value.dtype)


def _change(mine: np.ndarray, theirs: np.ndarray) -> WeightChange | None:
    """How values of the candidate differ from the reference's; None where that is no more than rounding."""
    change = weight_change(mine, theirs)
    return None if change is None or change.rounded_to else change


def _apart(index: GraphIndex, nodes: Sequence[int]) -> dict[str, _Plain]:
    """The floating vectors and matrices that some nodes read, by name, in the nodes' order: mostly queries first."""
    found: dict[str, _Plain] = {}
    for position in nodes:
        node = index.nodes[position]
        turned = bool(attribute_int(node, "transB", 0))
        for place, name in enumerate(node.input):
            value = constant_value(index, name) if name else None
            if value is not None and is_float(value.dtype) and value.ndim in (1, 2):
                turns = turned and place == 1
                found.setdefault(name, _Plain(value.T if turns else value, position, turns))
    return found


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
