"""The epsilon of a normalization that one of the two files writes as one operator and the other one in pieces.

Looks at: the epsilon of each side, an attribute here and a number that is added before a root there. Proves: that the
network with the other side's number makes most of the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...graph.index import GraphIndex
from ...graph.operators import Kind, facts_of, operator
from ...graph.pairing.changes import AttributeChange
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import Difference
from ...graph.pairing.normal_form import normal_form
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer, explained
from .undoing import with_constants

ROOTS = {"Sqrt", "Pow"}
"""What reads the sum of a variance and an epsilon."""
LARGEST = 1.0
"""Greatest number that is an epsilon."""
SAME = 1e-3
"""Relative difference up to which two are one, rounded to a narrow format."""


@dataclass(frozen=True)
class Epsilon:
    """The epsilon of a normalization.

    Attributes:
        node: Position of the node that has it.
        value: The number.
        constant: Name of the constant, where a number is added; empty of an attribute.
    """

    node: int
    value: float
    constant: str = ""


def find(case: LayerCase) -> Diagnosis | None:
    """Another epsilon that makes the error, where one side has it as an attribute."""
    parts = (case.pair.reference.nodes, case.pair.candidate.nodes)
    found = [[*epsilons(index, nodes)] for index, nodes in zip(case.graphs, parts, strict=True)]
    if [len(one) for one in found] != [1, 1]:
        return None
    (mine,), (theirs,) = found
    alike = abs(mine.value - theirs.value) <= SAME * max(mine.value, theirs.value)
    if bool(mine.constant) == bool(theirs.constant) or alike or not _makes_the_error(case, mine, theirs):
        return None
    other = case.graphs[1]
    of = f"{other.nodes[theirs.node].op_type} {other.names[theirs.node]}"
    change = AttributeChange("epsilon", mine.value, theirs.value, of)
    fact = GraphsDiffer(Difference(mine.node, theirs.node, change, "epsilon"))
    return Diagnosis(Cause.ATTRIBUTE, (fact,), mine.node)


def _makes_the_error(case: LayerCase, mine: Epsilon, theirs: Epsilon) -> bool:
    if mine.constant:
        known = constant_value(case.graphs[0], mine.constant)
        made = None if known is None else case.reweighted({mine.constant: np.full_like(known, theirs.value)})
        return made is not None and explained(case, made)
    known = constant_value(case.graphs[1], theirs.constant)
    if known is None:
        return False
    return case.right_with(partial(with_constants, others={theirs.constant: np.full_like(known, mine.value)}))


def epsilons(index: GraphIndex, nodes: Iterable[int]) -> Iterator[Epsilon]:
    """The epsilons that some nodes of a graph have."""
    for position in nodes:
        node = index.nodes[position]
        if facts_of(node).kind is Kind.NORMALIZATION:
            form = normal_form(index, position)
            value = form.settings.get("epsilon")
            if isinstance(value, float):
                yield Epsilon(position, value)
        elif operator(node) == "Add" and _is_read_by_root(index, node.output[0]):
            for name in node.input:
                known = constant_value(index, name)
                if known is not None and known.size == 1 and 0 < float(known.reshape(-1)[0]) < LARGEST:
                    yield Epsilon(position, float(known.reshape(-1)[0]), name)


def _is_read_by_root(index: GraphIndex, name: str) -> bool:
    return any(operator(index.nodes[p]) in ROOTS for p in index.consumers.get(name, ()))
