"""A weight of nodes that one of the two files writes with other operators: the bias of a BiasGelu, of an Add before.

Looks at: the constants that the layer's nodes read on both sides, told apart by their shape alone, since no nodes
correspond. Proves: that the reference with the candidate's weight makes most of the error, so that the other operators
compute what they should.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.index import GraphIndex
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import Difference
from ...graph.pairing.weight_changes import weight_change
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer, explained, replaced

Read = tuple[int, str, np.ndarray]
"""Position of a node, a constant that it reads, and its value."""


def find(case: LayerCase) -> Diagnosis | None:
    """The weight that differs, of which each side has one of its shape, where it makes the error."""
    if not replaced(case):
        return None
    for (position, name, mine), (twin, _, theirs) in _of_one_shape(case):
        change = weight_change(mine, theirs)
        if change is None or change.explained_by_format is not None:
            continue
        made = case.reweighted({name: theirs})
        if made is not None and explained(case, made):
            return Diagnosis(Cause.WEIGHTS, (GraphsDiffer(Difference(position, twin, change, name)),), position)
    return None


def _of_one_shape(case: LayerCase) -> Iterator[tuple[Read, Read]]:
    """The weights of which each side has one of a shape."""
    mine, theirs = (
        _by_shape(_read(index, part.nodes))
        for index, part in zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    )
    for shape, reads in mine.items():
        others = theirs.get(shape, [])
        if len(reads) == len(others) == 1:
            yield reads[0], others[0]


def _by_shape(reads: Iterable[Read]) -> dict[tuple[int, ...], list[Read]]:
    found: dict[tuple[int, ...], list[Read]] = {}
    for read in reads:
        found.setdefault(read[2].shape, []).append(read)
    return found


def _read(index: GraphIndex, nodes: Iterable[int]) -> Iterator[Read]:
    """Floating constants of more than one value that the nodes of a layer read besides their data."""
    kind = dataflow(index).kind
    for position in nodes:
        node = index.nodes[position]
        if all(kind.get(name) is Kind.CONSTANT for name in node.output if name):
            continue
        for name in dict.fromkeys(node.input):
            value = constant_value(index, name) if name else None
            if value is not None and value.size > 1 and is_float(value.dtype):
                yield position, name, value
