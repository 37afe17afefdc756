"""A constant among the nodes that compute what a layer reads besides its data: a grid of anchors, a table of positions.

Looks at: both graphs from the node that makes the tensor upwards, as far as the same operators stand there within the
layer. Proves: which constant or attribute is the first that differs, where no matched nodes differ, and that the
candidate's constants in the reference make most of the error: two nodes of one operator need not be the same node,
where one of the graphs has more of them. What rounding to a format explains is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx

from ...graph.index import GraphIndex
from ...graph.nodes import attribute
from ...graph.operators import MOVEMENT, operator
from ...graph.pairing.changes import AttributeChange, OperatorChange
from ...graph.pairing.constants import constant_value, in_levels_of, noun_of
from ...graph.pairing.differences import Difference, DifferenceKind, same_setting
from ...graph.pairing.normal_form import normal_form
from ...graph.pairing.weight_changes import WeightChange, weight_change
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer, explained, weights_read, with_others

_HELD = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS, onnx.AttributeProto.TENSOR)


def find(case: LayerCase) -> Diagnosis | None:
    """The first constant that differs at or above the node that makes the tensor, with those beside it, or the
    attributes of the first node of which some do."""
    index, other = case.graphs
    if index is other or len(case.pair.reference.nodes) < 2:
        return None
    twin = case.twin
    position, its = index.producer[case.tensor], other.producer[twin]
    if operator(index.nodes[position]) != operator(other.nodes[its]):
        return None
    within = frozenset(case.pair.reference.nodes), frozenset(case.pair.candidate.nodes)
    steps = {p for p, d in case.differences if d.expected_by_format is not None}
    found = [d for d in _differences(index, position, other, its, within, set()) if d.node not in steps]
    found = _told_once(found)
    if not found or not _makes_the_error(case, found):
        return None
    cause = Cause.ATTRIBUTE if isinstance(found[0].change, AttributeChange) else Cause.WEIGHTS
    first = [d for d in found if d.node == found[0].node and type(d.change) is type(found[0].change)]
    told = Diagnosis(cause, tuple(map(GraphsDiffer, first)), found[0].node)
    alike = all(difference.kind is DifferenceKind.WEIGHTS for difference in found)  # they make the error together
    return with_others(told, index, [(d.node, d) for d in found], found[0].node) if alike else told


def _told_once(found: list[Difference]) -> list[Difference]:
    """Differences without those of a scale or zero point that another node has too, of which the first is told."""
    shared = [d for d in found if isinstance(d.change, WeightChange) and d.change.noun in ("scales", "zero points")]
    first = {d.name: d for d in reversed(shared)}
    return [d for d in found if d not in shared or first[d.name] is d]


def _makes_the_error(case: LayerCase, found: list[Difference]) -> bool:
    """Whether the reference makes most of the error with the candidate's constants. Where that cannot be computed: not,
    where one graph is known to have nodes that the other has not."""
    constants = all(difference.kind is DifferenceKind.WEIGHTS for difference in found)
    made = case.reweighted(weights_read(case.graphs, found)) if constants else None
    if made is None:
        return not any(isinstance(d.change, OperatorChange) and d.change.alone for _, d in case.differences)
    return explained(case, made)


def _differences(
    index: GraphIndex,
    position: int,
    other: GraphIndex,
    twin: int,
    within: tuple[frozenset[int], frozenset[int]],
    seen: set[int],
) -> Iterator[Difference]:
    """What differs at two nodes of one operator, what is above them first."""
    seen.add(position)
    node, its, alike = index.nodes[position], other.nodes[twin], True
    for mine, theirs in zip(node.input, its.input, strict=False):
        above, beside = index.producer.get(mine), other.producer.get(theirs)
        x, y = constant_value(index, mine), constant_value(other, theirs)
        if x is not None and y is not None:
            x = in_levels_of(index, position, x, y.dtype)
            one = x.size == y.size == 1  # of one value, whatever its rank
            change = weight_change(x.reshape(()), y.reshape(())) if one else weight_change(x, y)
            if change is not None and not change.explained_by_format:
                yield Difference(position, twin, replace(change, noun=noun_of(index, position, mine, x)), mine)
        elif above in within[0] and beside in within[1] and above is not None and beside is not None:
            same = operator(index.nodes[above]) == operator(other.nodes[beside])
            alike = alike and same
            if above not in seen and same:
                yield from _differences(index, above, other, beside, within, seen)
    if not alike and operator(node) in MOVEMENT:  # other operators before them may have moved the axes
        return
    plain = (a for a in (*node.attribute, *its.attribute) if a.type not in _HELD)
    for name in sorted({a.name for a in plain}):
        values = attribute(node, name), attribute(its, name)
        if None in values:  # what a node does that does not say it
            values = _implied(index, position, name), _implied(other, twin, name)
        if None not in values and not same_setting(*values):
            yield Difference(position, twin, AttributeChange(name, *values), name)


def _implied(index: GraphIndex, position: int, name: str) -> object:
    """What a node has for an attribute, be it by the default of its operator."""
    form = normal_form(index, position, lambda read: constant_value(index, read) is not None)
    return form.settings.get(name)
