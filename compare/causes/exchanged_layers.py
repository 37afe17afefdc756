"""Exchanged layers: each of some makes what another one is to make, or has its weights.

Looks at: the outputs of layers that exceed their noise, from the reference's inputs; the weights that differ in them.
Proves: that each output is another one's, up to rounding, or that the weights of each are another one's, so that all
of them compute what they should, in another place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.pairing.changes import OpName
from ...graph.pairing.differences import Difference, DifferenceKind
from ...graph.pairing.exchanged import cycles
from ...graph.pairing.weight_changes import WeightChange
from ...graph.pairing.weight_patterns import OfNode
from ..report.model import Cause
from .diagnosis import Diagnosis
from .differences import GraphsDiffer

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

SAME = 0.02
"""Distance from the other layer's output, relative to that between both, up to which it is that output."""


@dataclass(frozen=True)
class ExchangedWith:
    """Layers of which each makes what the next one makes in the other file, and the last one what the first does.

    Attributes:
        layers: Operator and name of the main node of each, the one that is told first.
    """

    layers: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        _, second, *more = self.layers
        if not more:
            return f"the candidate makes here what {second} makes in the reference, and the reverse: they are exchanged"
        behind = [f"at {one} what {other} makes" for one, other in _next(self.layers)[1:]]
        told = f"the candidate makes here what {second} makes in the reference, {', '.join(behind[:-1])}"
        return f"{told}, and {behind[-1]}: they are exchanged"


@dataclass(frozen=True)
class ExchangedWeights:
    """Layers of which each has the weights of the next one in the other file, and the last one those of the first.

    Attributes:
        layers: Operator and name of each.
    """

    layers: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        first, second, *more = self.layers
        if not more:
            return f"{first} and {second} have each other's weights: they are exchanged"
        told = [f"{one} has the weights of {other}" for one, other in _next(self.layers)]
        return f"{', '.join(told[:-1])}, and {told[-1]}: they are exchanged"


@dataclass(frozen=True)
class ExchangedReaders:
    """Nodes whose operands all have the weights of each other's operands.

    Attributes:
        nodes: Operator and name of each.
    """

    nodes: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"{' and '.join(self.nodes)} are exchanged, by all that they read"


@dataclass(frozen=True)
class CopiedWeights:
    """Layers, one behind the other, that have the weights of others which stand in the same order: of another block.

    Attributes:
        layers: Operators and names of the first and the last of them.
        others: Whose weights these have.
        count: How many layers it is.
    """

    layers: tuple[str, str]
    others: tuple[str, str]
    count: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.count} layers, {self.layers[0]} to {self.layers[1]}, have the weights of {self.others[0]} to "
            f"{self.others[1]}: those of another block"
        )


def _next(layers: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(layers, (*layers[1:], layers[0]), strict=True))


def groups(made: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[int, ...]]:
    """The groups of layers, by their places in a sequence, that have exchanged their outputs: what the candidate makes
    of each is what the reference makes of the next one.

    Args:
        made: What the reference and the candidate make of each layer from the reference's inputs.
    """
    sizes = [tuple(float(np.linalg.norm(x.astype(np.float64))) for x in one) for one in made]
    held: dict[int, int] = {}
    for here in range(len(made)):
        for other in range(len(made)):
            # of other sizes, they are farther apart than what is looked for: most are never compared
            near = abs(sizes[here][1] - sizes[other][0]) <= SAME * (sizes[here][0] + sizes[other][0])
            if here != other and near and _is(made[here], made[other][0]):
                held[here] = other
                break
    return cycles(held)


def _is(own: tuple[np.ndarray, np.ndarray], other: np.ndarray) -> bool:
    """Whether what the candidate makes of a layer is what the reference makes of another one."""
    if len({array.shape for array in (*own, other)}) > 1:
        return False
    meant, found, there = (x.astype(np.float64) for x in (*own, other))
    between = float(np.linalg.norm(meant - there))
    return 0 < between < np.inf and float(np.linalg.norm(found - there)) <= SAME * between


def diagnosis(layers: tuple[str, ...], node: int) -> Diagnosis:
    """Layers that have exchanged their outputs, told at the first.

    Args:
        layers: Operator and name of the main node of each.
        node: Position of the first's main node.
    """
    return Diagnosis(Cause.WRONG_OP, (ExchangedWith(layers),), node)


def holders(index: GraphIndex, found: Diagnosis | None) -> dict[OpName, OpName]:
    """The nodes of a layer that have the weights of other nodes, where a diagnosis tells weights before all else.

    Args:
        index: The reference's graph.
        found: What was found of the layer.
    """
    facts = () if found is None else found.facts
    if not facts or not isinstance(facts[0], GraphsDiffer) or facts[0].difference.kind is not DifferenceKind.WEIGHTS:
        return {}
    told = [fact.difference for fact in facts if isinstance(fact, GraphsDiffer)]
    return {_named(index, d): other for d in told if (other := _holder(d)) is not None}


def _holder(difference: Difference) -> OpName | None:
    change = difference.change
    patterns = change.patterns if isinstance(change, WeightChange) else ()
    return next(((p.op, p.name) for p in patterns if isinstance(p, OfNode)), None)


def _named(index: GraphIndex, difference: Difference) -> OpName:
    return index.nodes[difference.node].op_type, index.names[difference.node]


def of_weights(index: GraphIndex, found: Mapping[int, Diagnosis]) -> dict[int, Diagnosis | None]:
    """Layers that have exchanged their weights.

    Args:
        index: The reference's graph.
        found: What was found of the layers that are to blame, by number.

    Returns:
        What is to be told at the first of each group; None for those that it tells, too.
    """
    held: dict[OpName, OpName] = {}
    layer: dict[OpName, int] = {}
    for number, one in found.items():
        mine = holders(index, one)
        held.update(mine)
        layer.update(dict.fromkeys(mine, number))
    result: dict[int, Diagnosis | None] = {}
    told: dict[frozenset[str], int] = {}
    for group in cycles({node: other for node, other in held.items() if other in held}):
        start = min(range(len(group)), key=lambda place: layer[group[place]])
        group = (*group[start:], *group[:start])
        first = layer[group[0]]
        readers = _readers(index, group)
        if len(readers) == len(group) and told.get(readers, first) != first:  # both operands of each of these
            result.update(dict.fromkeys((layer[node] for node in group), None))
            before = result[told[readers]]
            if before is not None:
                result[told[readers]] = _leading(before, ExchangedReaders(tuple(sorted(readers))))
            continue
        told.setdefault(readers, first)
        fact = ExchangedWeights(tuple(f"{op} {name}" for op, name in group))
        if result.get(first, found[first]) is not None:
            result[first] = _told(index, result.get(first) or found[first], group[0], fact)
        result.update({layer[node]: None for node in group[1:] if layer[node] != first})
    return {**_copied(index, {n: o for n, o in held.items() if layer[n] not in result}, layer), **result}


def _readers(index: GraphIndex, group: Sequence[OpName]) -> frozenset[str]:
    """Operator and name of the nodes that read what some nodes make, if each is read by one alone; else nothing."""
    places = {(node.op_type, index.names[p]): p for p, node in enumerate(index.nodes)}
    found = [[p for o in index.nodes[places[node]].output for p in index.consumers.get(o, ())] for node in group]
    alone = all(len(positions) == 1 for positions in found)
    return frozenset(f"{index.nodes[p].op_type} {index.names[p]}" for (p,) in found) if alone else frozenset()


def _leading(found: Diagnosis, fact: ExchangedReaders) -> Diagnosis:
    """A diagnosis that tells exchanged readers before all else, once."""
    return found if fact in found.facts else replace(found, facts=(fact, *found.facts))


def _copied(
    index: GraphIndex, held: Mapping[OpName, OpName], layer: Mapping[OpName, int]
) -> dict[int, Diagnosis | None]:
    """The same of layers that have the weights of others as far away as theirs."""
    places = {(node.op_type, index.names[p]): p for p, node in enumerate(index.nodes)}
    groups: dict[int, list[OpName]] = {}
    for node in sorted(held, key=lambda node: places[node]):
        groups.setdefault(places[node] - places[held[node]], []).append(node)
    result: dict[int, Diagnosis | None] = {}
    for group in groups.values():
        numbers = list(dict.fromkeys(layer[node] for node in group))
        if len(numbers) < 2:
            continue
        ends, others = ((f"{op} {name}" for op, name in nodes) for nodes in _ends(group, held))
        fact = CopiedWeights((next(ends), next(ends)), (next(others), next(others)), len(numbers))
        result.update(dict.fromkeys(numbers[1:]))
        result[numbers[0]] = Diagnosis(Cause.WEIGHTS, (fact,), places[group[0]])
    return result


def is_copied(found: Diagnosis | None) -> bool:
    """Whether a diagnosis tells of several layers that have the weights of another block, or of each other's."""
    return found is not None and any(isinstance(fact, (CopiedWeights, ExchangedReaders)) for fact in found.facts)


def _ends(nodes: Sequence[OpName], held: Mapping[OpName, OpName]) -> tuple[list[OpName], list[OpName]]:
    """The first and the last of some nodes, and of those whose weights they have."""
    ends = [nodes[0], nodes[-1]]
    return ends, [held[node] for node in ends]


def _told(index: GraphIndex, found: Diagnosis, node: OpName, fact: ExchangedWeights) -> Diagnosis:
    """A diagnosis that tells exchanged weights in place of how those of one node differ."""
    differ = [f for f in found.facts if isinstance(f, GraphsDiffer) and _named(index, f.difference) == node]
    rest = tuple(f for f in found.facts if f not in differ)
    known = tuple(f for f in rest if isinstance(f, ExchangedWeights))
    facts = (*known, fact, *(f for f in rest if f not in known))
    return Diagnosis(Cause.WEIGHTS, facts, found.node if known else differ[0].difference.node)
