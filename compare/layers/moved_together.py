"""One movement of data that is written as several layers, or stands in several places, is one fault: a roll along two
axes, of Slices and Concats; keys and values that are repeated another way; a number of heads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...graph.cutting.fusion import static_tensors
from ...graph.operators import MOVEMENT, operator
from ...graph.pairing.changes import AttributeChange
from ...graph.pairing.differences import op_names
from ...graph.pairing.weight_changes import WeightChange
from ...graph.printable import few
from ..causes.differences import GraphsDiffer
from ..causes.heads import Heads, attends
from ..causes.refused import Refused, RefusedToo
from ..causes.shape import Shapes

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..report.model import Fact
    from .observation import LayerObservation
    from .verdicts import Verdicts

NAMED = 5
"""Most places that are named."""
POWERS = (-0.5, -0.25, 0.5, 0.25, -1.0, 1.0)
"""Powers of a size that a network multiplies by: the scale of an attention is one of them."""


@dataclass(frozen=True)
class SameAt:
    """Other layers in which the same differs.

    Attributes:
        nodes: Operator and name of each.
        twins: Their positions in the candidate's graph.
    """

    nodes: tuple[str, ...]
    twins: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the same at {few(self.nodes, NAMED)}"


@dataclass(frozen=True)
class GoesWithSize:
    """Numbers that are powers of a size, which is another one, too.

    Attributes:
        nodes: Operator and name of those that multiply by them.
        numbers: The reference's and the candidate's.
        sizes: The sizes.
        power: Which power.
    """

    nodes: tuple[str, ...]
    numbers: tuple[float, float]
    sizes: tuple[int, int]
    power: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        (x, y), (a, b), p = self.numbers, self.sizes, f"{self.power:g}"
        return f"{x:.6g} against {y:.6g} at {few(self.nodes, NAMED)} goes with it: {a}^{p} and {b}^{p}"


def joined(given: Verdicts, index: GraphIndex) -> Verdicts:
    """The verdicts with culprits that only move data as one fault at the first of them, which tells of all: those right
    behind one another in which the same differs, or of which the first gives another shape; and those of another shape
    in which the same differs elsewhere, with the numbers that follow from a size.

    Args:
        given: The verdicts.
        index: The reference's graph.
    """
    groups: list[list[LayerObservation]] = []
    for s in (s for s in given.culprits() if _moves(s, index)):
        home = next((group for group in groups if _continues(s, group[-1])), None)
        if home is None:
            groups.append([s])
        else:
            home.append(s)
    for (first, *others), *elsewhere in _in_places(groups, index):
        facts: list[Fact] = [fact for s in others for fact in _facts(s, index)]
        same = [group[0] for group in elsewhere]
        facts += _same_at(first, same, index)
        follows = dict(_following(first, given, index)) if same else {}
        facts += [*_heads([first, *same], index), *_by_number(follows)]
        if facts and first.diagnosis is not None:
            others = [*others, *(s for group in elsewhere for s in group)]
            shares = [s.contribution for s in (first, *others) if s.contribution is not None]
            told = first.diagnosis.adding(*facts)
            first = replace(first, diagnosis=told, contribution=None if same else max(shares, default=None))
            given = given.knowing([first]).inherited([*(s.number for s in others), *follows])
    return given


def _in_places(groups: Sequence[list[LayerObservation]], index: GraphIndex) -> list[list[list[LayerObservation]]]:
    """Groups, those together of which the first give another shape, and in which the same differs, or the same sizes
    are others."""
    found: list[list[list[LayerObservation]]] = []
    for group in groups:
        s = group[0]
        home = next((place for place in found if _same_shape(place[0][0], s, index)), None)
        if home is None:
            found.append([group])
        else:
            home.append(group)
    return found


def _same_shape(s: LayerObservation, other: LayerObservation, index: GraphIndex) -> bool:
    if not _reshaped(s) or not _reshaped(other):
        return False
    if index.nodes[s.pair.main].op_type != index.nodes[other.pair.main].op_type:
        return False
    return _changes(s) == _changes(other) or not {*_pairs(s)}.isdisjoint(_pairs(other))


def _same_at(first: LayerObservation, same: Sequence[LayerObservation], index: GraphIndex) -> list[Fact]:
    """What is told of other places: that it is the same there, or the change itself."""
    alike = [s for s in same if _changes(s) == _changes(first)]
    twins = tuple(_told(s)[0].difference.candidate_node for s in alike)
    facts: list[Fact] = [SameAt(tuple(_name(s, index) for s in alike), twins)] if alike else []
    rest = [s for s in same if s not in alike]
    firsts = {tuple(_changes(s)): s for s in reversed(rest)}
    return [*facts, *(fact for s in reversed(firsts.values()) for fact in _facts(s, index))]


def _moves(s: LayerObservation, index: GraphIndex) -> bool:
    """Whether a layer only moves data, and all that is told of it is what the graphs say, and what shape it gives."""
    static = static_tensors(index)
    nodes = [p for p in s.pair.reference.nodes if not static.issuperset(filter(None, index.nodes[p].output))]
    told = s.diagnosis is not None and all(isinstance(f, (GraphsDiffer, *_OF_SHAPES)) for f in s.diagnosis.facts)
    moves = all(operator(index.nodes[p]) in MOVEMENT | {"Expand", "Tile"} for p in nodes)
    return told and bool(_told(s)) and not s.inside.culprits and moves


_OF_SHAPES = (Shapes, Refused, RefusedToo)


def _reshaped(s: LayerObservation) -> bool:
    """Whether a layer gives another shape, by a setting of its own."""
    facts = () if s.diagnosis is None else s.diagnosis.facts
    settings = all(isinstance(fact.difference.change, AttributeChange) for fact in _told(s))
    return settings and any(isinstance(fact, Shapes) for fact in facts)


def _continues(s: LayerObservation, before: LayerObservation) -> bool:
    """Whether a layer reads what another one makes, and nothing else, and the same differs in it, or what differs are
    settings for axes that this one has laid otherwise."""
    if not set(s.pair.reference.inputs) <= set(before.pair.reference.outputs):
        return False
    return _changes(s) == _changes(before) or (_reshaped(before) and _settings(s))


def _settings(s: LayerObservation) -> bool:
    return all(isinstance(fact.difference.change, AttributeChange) for fact in _told(s))


def _told(s: LayerObservation) -> Sequence[GraphsDiffer]:
    return [fact for fact in (s.diagnosis.facts if s.diagnosis else ()) if isinstance(fact, GraphsDiffer)]


def _changes(s: LayerObservation) -> list[str]:
    """What differs in a layer, wherever that is."""
    return sorted(fact.difference.detail for fact in _told(s))


def _name(s: LayerObservation, index: GraphIndex) -> str:
    return " ".join(op_names(index, (_told(s)[0].difference.node,))[0])


def _facts(s: LayerObservation, index: GraphIndex) -> Sequence[GraphsDiffer]:
    """What differs in a layer, each with its node."""
    named = (" ".join(op_names(index, (fact.difference.node,))[0]) for fact in _told(s))
    return [replace(fact, node=name) for fact, name in zip(_told(s), named, strict=True)]


# -- sizes


def _sizes(s: LayerObservation) -> tuple[list[int], list[int]] | None:
    """The shapes that a Reshape gives on both sides."""
    change = _told(s)[0].difference.change
    whole = isinstance(change, AttributeChange) and change.name == "output shape"
    return (change.reference, change.candidate) if isinstance(change, AttributeChange) and whole else None


def _pairs(s: LayerObservation) -> list[tuple[int, int]]:
    """The sizes of axes that are others where a Reshape of as many axes gives them."""
    sizes = _sizes(s)
    if sizes is None or len(sizes[0]) != len(sizes[1]):
        return []
    return [(a, b) for a, b in zip(*sizes, strict=True) if a != b and min(a, b) > 1]


def _following(
    s: LayerObservation, given: Verdicts, index: GraphIndex
) -> Iterator[tuple[int, tuple[str, GoesWithSize]]]:
    """Culprits that multiply by another number, which is the same power of a size on both sides, by their numbers."""
    for other in given.culprits():
        told = _told(other)
        values = _numbers(told[0].difference.change) if len(told) == 1 else None
        if values is None:
            continue
        x, y = values
        for (a, b), p in ((pair, p) for pair in _pairs(s) for p in POWERS):
            if math.isclose(x, a**p, rel_tol=1e-5) and math.isclose(y, b**p, rel_tol=1e-5):
                yield other.number, (_name(other, index), GoesWithSize((), (x, y), (a, b), p))
                break


def _numbers(change: object) -> tuple[float, float] | None:
    """Both numbers, where one number is another one."""
    if isinstance(change, WeightChange) and change.meant and change.values is not None:
        x, y = change.values
        return float(x), float(y)
    if isinstance(change, AttributeChange) and isinstance(change.reference, float):
        return (change.reference, change.candidate) if isinstance(change.candidate, float) else None
    return None


def _by_number(follows: dict[int, tuple[str, GoesWithSize]]) -> list[GoesWithSize]:
    """What is told of numbers that go with a size: each once, with all that multiply by it."""
    named: dict[GoesWithSize, list[str]] = {}
    for name, fact in follows.values():
        named.setdefault(fact, []).append(name)
    return [replace(fact, nodes=tuple(names)) for fact, names in named.items()]


def _heads(places: Sequence[LayerObservation], index: GraphIndex) -> list[Heads]:
    """The heads that a Reshape makes in one of several places, where a product of them goes into a Softmax."""
    for s in places if len(places) > 1 else ():
        sizes = _sizes(s)
        if sizes is None or len(sizes[0]) != 4 or len(_pairs(s)) != 2 or sizes[0][-1] == sizes[1][-1]:
            continue
        (count, other), (size, its) = _pairs(s)
        if count * size == other * its and attends(index, s.pair.reference.outputs):
            return [Heads((count, size), (other, its))]
    return []
