"""A constant that several layers read, or compute from, is one fault, told where it is stored: a table of rotary
positions, a bias that all blocks add."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import with_weights
from ...graph.errors import LayerdiffError
from ...graph.operators import CASTS, FLAT, operator
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import Difference, op_names
from ...graph.pairing.normal_form import inputs_alike, normal_form
from ...graph.pairing.origin import computed_by, parted, stored
from ...graph.pairing.weight_changes import WeightChange, weight_change
from ...graph.printable import few, listed
from ...graph.specs import is_float
from ..causes.diagnosis import Diagnosis
from ..causes.differences import GraphsDiffer
from ..report.model import Cause
from ..runs.memory import budget, weight_bytes
from ..runs.samples import numbered
from .contribution import share_of_error
from .portion import ratio, squares

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..report.model import Fact
    from .observation import LayerObservation
    from .prepare import Prepared
    from .verdicts import Verdicts
    from .walked import Walked

log = logging.getLogger(__name__)

NAMED = 2
"""Most nodes and constants that are named."""
ANGLES = 1e-4
"""How far the squares of a cosine and a sine of one angle may add up to another number than one."""


@dataclass(frozen=True)
class Made:
    """Constants that a file computes.

    Attributes:
        nodes: Operator and name of the nodes that do.
        sources: The constants that they are computed from.
    """

    nodes: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ReadBy:
    """Who reads constants, and who computes these.

    Attributes:
        readers: Operator and name of the nodes.
        several: Whether there are several constants.
        reference, candidate: How each file makes them; None where it stores them.
        of_it: The nodes that compute of a constant what the readers read; none where these read it themselves.
        constant: That constant's name in the reference.
    """

    readers: tuple[str, ...]
    several: bool = False
    reference: Made | None = None
    candidate: Made | None = None
    of_it: tuple[str, ...] = ()
    constant: str = ""

    @property
    def text(self) -> str:
        """See `Fact`."""
        read, them = few(self.readers, NAMED), "them" if self.several else "it"
        if self.of_it:
            computing = "computes" if len(self.of_it) == 1 else "compute"
            return f"{listed(self.of_it)} {computing} of '{self.constant}' what {read} read"
        if self.reference is None and self.candidate is None:
            return f"{read} read {them}"
        own, its = (self._told(made, them) for made in (self.reference, self.candidate))
        return f"{read} read {them}; the reference {own}, the candidate {its}"

    @staticmethod
    def _told(made: Made | None, them: str) -> str:
        if made is None:
            return f"stores {them}"
        sources = few([f"'{name}'" for name in made.sources], NAMED)
        return f"computes {them} at {listed(made.nodes)}" + (f" from {sources}" if sources else "")


@dataclass(frozen=True)
class _Table:
    """A constant that a node reads, on both sides.

    Attributes:
        name, other: Its names in both files.
        begun: The constants from which on both files compute it alike: these themselves, where they store it.
        values: Its values in both; None where one file has them laid out otherwise.
    """

    name: str
    other: str
    begun: tuple[str, str]
    values: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class _Place:
    """A culprit of which all that is told is that it reads other constants."""

    layer: LayerObservation
    differences: tuple[Difference, ...]
    tables: tuple[_Table, ...]


def joined(prepared: Prepared, given: Verdicts, walked: Walked) -> Verdicts:
    """The verdicts with culprits that read one constant, or what is computed from one, as one culprit: the first, which
    tells of the others.

    Args:
        prepared: Who was walked.
        given: The verdicts.
        walked: What the walk saw.
    """
    graphs = prepared.comparison.reference.model.index, prepared.candidate.model.index
    if prepared.same:
        return given
    places = [place for s in given.culprits() if (place := _place(s, graphs)) is not None]
    if len(places) < 2:
        return given
    for group in _groups(places, graphs):
        first, *others = group
        if len({d.node for place in group for d in place.differences}) < 2:  # of which several layers are made
            continue
        share = _share(prepared, walked, [table for place in group for table in place.tables])
        given = given.knowing([replace(first.layer, diagnosis=_told(group, graphs), contribution=share)])
        given = given.inherited(place.layer.number for place in others)
    return given


def _place(s: LayerObservation, graphs: tuple[GraphIndex, GraphIndex]) -> _Place | None:
    """A culprit of which all that is told is that its nodes read other constants of the same shape; else None."""
    facts = () if s.diagnosis is None or s.inside.culprits else s.diagnosis.facts
    differences = tuple(fact.difference for fact in facts if isinstance(fact, GraphsDiffer))
    if not facts or len(differences) < len(facts):
        return None
    tables = []
    for difference in differences:
        table = _table(difference, graphs)
        if table is None:
            return None
        tables.append(table)
    return _Place(s, differences, tuple(tables))


def _table(difference: Difference, graphs: tuple[GraphIndex, GraphIndex]) -> _Table | None:
    """The constants that differ at two nodes; None where they have no values in common places."""
    if not isinstance(difference.change, WeightChange) or min(difference.node, difference.candidate_node) < 0:
        return None
    pair = _pair(difference, graphs)
    if pair is None:
        return None
    begun = parted(graphs[0], pair[0], graphs[1], pair[1]) or pair
    x, y = (constant_value(index, name) for index, name in zip(graphs, pair, strict=True))
    change = None if x is None or y is None or x.size != y.size else weight_change(x, y)
    if x is None or y is None or change is None or change.count != difference.change.count:
        return _Table(*pair, begun)  # laid out otherwise
    return _Table(*pair, begun, (x, y.reshape(x.shape)))


def _pair(difference: Difference, graphs: tuple[GraphIndex, GraphIndex]) -> tuple[str, str] | None:
    """The names of the constants that differ at two nodes; of a node that fuses several, those in the same place."""
    nodes, slot = (difference.node, difference.candidate_node), difference.name
    weights = [normal_form(index, p).weights for index, p in zip(graphs, nodes, strict=True)]
    if all(slot in names for names in weights):
        return weights[0][slot], weights[1][slot]
    inputs = [[*index.nodes[p].input] for index, p in zip(graphs, nodes, strict=True)]
    name = weights[0].get(slot, slot)
    alike = dict(inputs_alike(graphs[0], nodes[0], graphs[1], nodes[1]) or zip(*inputs, strict=False))
    other = alike.get(name, "")
    return (name, other) if other and constant_value(graphs[1], other) is not None else None


# -- what is one fault


def _groups(places: Sequence[_Place], graphs: tuple[GraphIndex, GraphIndex]) -> list[list[_Place]]:
    """Culprits, those together whose constants are the same ones, or come of the same ones."""
    homes: list[set[object]] = []
    keys = {id(table): _keys(table, graphs) for place in places for table in place.tables}
    for mine in keys.values():
        near = [home for home in homes if home & mine]
        homes = [home for home in homes if not home & mine] + [mine.union(*near)]
    found: dict[frozenset[int], list[_Place]] = {}
    turning = _angles([table for place in places for table in place.tables], keys, homes)
    for place in places:
        at = {next(i for i, home in enumerate(homes) if home & keys[id(table)]) for table in place.tables}
        found.setdefault(frozenset(turning.get(i, i) for i in at), []).append(place)
    return [group for group in found.values() if len(group) > 1]


def _keys(table: _Table, graphs: tuple[GraphIndex, GraphIndex]) -> set[object]:
    """What tells that two constants that differ are one fault: that they are one in both files, are computed of the
    same ones in a file, or have the same values in both, which are not all one number."""
    found: set[object] = {("names", *table.begun)}
    for which, (index, name) in enumerate(zip(graphs, table.begun, strict=True)):
        sources = stored(index, name)
        if sources:
            found.add((which, sources))
    for value in table.values or ():
        if not is_float(value.dtype) or value.size < 2 or value.min() == value.max():
            return found
    flat = (np.ascontiguousarray(value).reshape(-1).view(np.uint8) for value in table.values or ())
    digests = tuple(hashlib.sha256(value.data).digest() for value in flat)
    return found | {("values", *digests)} if digests else found


def _angles(tables: Sequence[_Table], keys: Mapping[int, set[object]], homes: Sequence[set[object]]) -> dict[int, int]:
    """Cosines and sines of the same angles, on both sides: places among ``homes`` -> the first that goes with it."""
    found: dict[int, int] = {}
    place = {id(t): next(i for i, home in enumerate(homes) if home & keys[id(t)]) for t in tables}
    for n, one in enumerate(tables):
        for other in tables[n + 1 :]:
            a, b = place[id(one)], place[id(other)]
            if a != b and b not in found and _of_one_angle(one, other):
                found[b] = found.get(a, a)
    return found


def _of_one_angle(one: _Table, other: _Table) -> bool:
    if one.values is None or other.values is None:
        return False
    for c, s in zip(one.values, other.values, strict=True):
        if c.shape != s.shape or c.size < 2 or not is_float(c.dtype) or not is_float(s.dtype):
            return False
        if not float(np.abs(c.astype(np.float64) ** 2 + s.astype(np.float64) ** 2 - 1).max()) < ANGLES:
            return False
    return True


# -- what is told of it


def _told(group: Sequence[_Place], graphs: tuple[GraphIndex, GraphIndex]) -> Diagnosis:
    """What differs, at the node that first computes of it what culprits read, or at the first that reads it."""
    tables = [t for place in group for t in place.tables]
    differences = [d for place in group for d in place.differences]
    readers = _named(graphs[0], {d.node for d in differences})
    begun = {t.begun: (d, t) for d, t in reversed([*zip(differences, tables, strict=True)])}
    (first, table), *more = reversed(begun.values())
    makers = [computed_by(index, name) for index, name in zip(graphs, table.begun, strict=True)]
    if makers == [None, None] and not more:
        computed = _computed_from(table, tables, graphs, readers)
        if computed is not None:
            return computed
    names = (_named(graphs[0], (d.node,))[0] for d, _ in more)
    facts = [GraphsDiffer(d, node) for (d, _), node in zip(more, names, strict=True)]
    own, its = (_made(index, [b[side] for b in begun]) for side, index in enumerate(graphs))
    cause = Cause.WEIGHTS if group[0].layer.diagnosis is None else group[0].layer.diagnosis.cause
    told: tuple[Fact, ...] = (GraphsDiffer(first), *facts, ReadBy(readers, bool(more), own, its))
    alone = makers[1] if makers[0] is None else None
    return Diagnosis(cause, told, first.node if makers[0] is None else makers[0], candidate_node=alone)


def _computed_from(
    table: _Table, tables: Sequence[_Table], graphs: tuple[GraphIndex, GraphIndex], readers: tuple[str, ...]
) -> Diagnosis | None:
    """That another constant is stored, of which both files compute what is read; None where that is read itself."""
    ways = zip(graphs, table.begun, (table.name, table.other), strict=True)
    first, twin = (_reader(index, name, made) for index, name, made in ways)
    values = [constant_value(index, name) for index, name in zip(graphs, table.begun, strict=True)]
    change = None if values[0] is None or values[1] is None else weight_change(values[0], values[1])
    if first is None or twin is None or change is None:
        return None
    between = {p for t in tables if (p := _reader(graphs[0], table.begun[0], t.name)) is not None}
    told = Difference(first, twin, replace(change, noun="values"), table.begun[0])
    read = ReadBy(readers, of_it=_named(graphs[0], between), constant=table.begun[0])
    return Diagnosis(Cause.WEIGHTS, (GraphsDiffer(told), read), first)


def _named(index: GraphIndex, positions: Iterable[int]) -> tuple[str, ...]:
    return tuple(" ".join(name) for name in op_names(index, sorted(positions)))


def _made(index: GraphIndex, names: Iterable[str]) -> Made | None:
    """Who computes some constants, and of what; None where they are stored."""
    makers = {p: name for name in names if (p := computed_by(index, name)) is not None}
    sources = {source for name in makers.values() for source in stored(index, name)}
    return Made(_named(index, makers), tuple(sorted(sources))) if makers else None


def _reader(index: GraphIndex, name: str, table: str) -> int | None:
    """The first node on the way from one constant to another that does more than to give it another shape or type;
    None where there is none."""
    before, waiting = set[int](), [table]
    while waiting:
        position = index.producer.get(waiting.pop())
        if position is not None and position not in before:
            before.add(position)
            waiting.extend(index.reads[position])
    while (readers := [p for p in index.consumers.get(name, ()) if p in before]) and name != table:
        if operator(index.nodes[readers[0]]) not in FLAT | CASTS:
            return readers[0]
        name = index.nodes[readers[0]].output[0]
    return None


def _share(prepared: Prepared, walked: Walked, tables: Sequence[_Table]) -> float | None:
    """The share of the candidate's error at the outputs that the reference makes with the candidate's constants, on the
    first sample that shows one; None where that is not known."""
    reference, samples = prepared.comparison.reference, sorted({number for number, _ in walked.errors})
    room = budget(prepared.comparison.rules.memory)
    if not samples or not reference.runner.capabilities.any_model or weight_bytes((reference,)) > room:
        return None
    errors = {name: error for (number, name), error in walked.errors.items() if number == samples[0]}
    ((_, feed),) = numbered(prepared.comparison.samples, {samples[0]})
    values = {t.name: t.values[1].astype(t.values[0].dtype) for t in tables if t.values is not None}
    if len(values) < len({t.name for t in tables}):
        return None
    try:
        made = []
        for model in (reference.model, with_weights(reference.model, values)):
            with reference.runner.session(model) as session:
                made.append(session.infer(feed, list(errors)))
    except LayerdiffError:
        log.debug("the reference was not run with the candidate's constants", exc_info=True)
        return None
    alone = sum(ratio(squares(made[0][name], made[1][name])) for name in errors)
    return share_of_error(alone, sum(map(ratio, errors.values())))
