"""A constant of one of the two files that the other one computes of its own constants and of sizes: a table of
positions, to which a mask is added that follows from the size of a window.

Looks at: both graphs from the node that makes the tensor upwards, as far as the same operators stand there. Proves:
that the reference makes most of the error with what the candidate has there; and, where what is computed of them can be
taken back, which of the constants is another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.index import GraphIndex
from ...graph.operators import operator
from ...graph.pairing.changes import OpName
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import op_names
from ...graph.pairing.normal_form import inputs_alike
from ...graph.pairing.wanted import taken_back
from ...graph.pairing.weight_changes import WeightChange, weight_change
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import explained


@dataclass(frozen=True)
class FoldedConstant:
    """A constant in one file, which the other computes from constants and sizes.

    Attributes:
        tensor: Its name in the file that computes it.
        node: Operator and name of the node that makes it there.
        stored: Its name in the file that has it as a constant.
        constant: The one that is another one, of those that it is computed from; empty where none can be told.
        change: How that differs, or else the whole.
        in_candidate: Whether it is the candidate that has it as a constant.
    """

    tensor: str
    node: OpName
    stored: str
    constant: str
    change: WeightChange
    in_candidate: bool

    @property
    def text(self) -> str:
        """See `Fact`."""
        has, computes = ("candidate", "reference") if self.in_candidate else ("reference", "candidate")
        made = f"{' '.join(self.node)} computes " + (f"'{self.tensor}' " if self.tensor != self.stored else "it ")
        own = f"from '{self.constant}'" if self.constant else "from constants and sizes"
        of = f"'{self.constant}'" if self.constant else f"'{self.stored}'"
        return f"'{self.stored}' is a constant in the {has}, and {made}{own} in the {computes}: of {of}, {self.change}"

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.in_candidate:
            return (
                f"store in '{self.stored}' of the second file what the first file computes there, or export the model "
                "again"
            )
        if not self.constant:
            return f"let {' '.join(self.node)} make '{self.stored}' of the first file in the second one"
        there = f"'{self.stored}' of the first file holds what is computed from its values"
        return f"put '{self.constant}' of the second file right: {there}"


def find(case: LayerCase) -> Diagnosis | None:
    """A constant that one file has folded, and of which the values are not those that the other computes."""
    if case.graphs[0] is case.graphs[1]:
        return None
    position, twin = case.graphs[0].producer[case.tensor], case.graphs[1].producer[case.twin]
    for reader, mine, theirs in _pairs(case, position, twin, set()):
        values = _value(case, 0, mine), _value(case, 1, theirs)
        if values[0] is None or values[1] is None or values[0].shape != values[1].shape:
            continue
        made = case.reweighted({mine: values[1]})
        if made is None or not explained(case, made):
            continue
        told = _told(case, (mine, theirs), (values[0], values[1]))
        if told is None:
            return None
        maker, its = (index.producer.get(name) for index, name in zip(case.graphs, (mine, theirs), strict=True))
        if maker is None:
            return Diagnosis(Cause.WEIGHTS, (told,), reader, candidate_node=its)
        return Diagnosis(Cause.WEIGHTS, (told,), maker)
    return None


def _pairs(case: LayerCase, position: int, twin: int, seen: set[int]) -> Iterator[tuple[int, str, str]]:
    """Tensors that two nodes of one operator read, or nodes above them, of which one is a constant and the other one
    computed from constants and sizes, and the node that reads them in the reference."""
    index, other = case.graphs
    if position in seen or operator(index.nodes[position]) != operator(other.nodes[twin]):
        return
    seen.add(position)
    for mine, theirs in inputs_alike(index, position, other, twin):
        above, beside = index.producer.get(mine), other.producer.get(theirs)
        folded = [_is_constant(graph, name) for graph, name in zip(case.graphs, (mine, theirs), strict=True)]
        if any(folded):
            computed = (other, theirs) if folded[0] else (index, mine)
            if not all(folded) and _of_sizes(*computed):
                yield position, mine, theirs
        elif above is not None and beside is not None and above in case.pair.reference.nodes:
            yield from _pairs(case, above, beside, seen)


def _is_constant(index: GraphIndex, name: str) -> bool:
    return bool(name) and constant_value(index, name) is not None


def _of_sizes(index: GraphIndex, name: str) -> bool:
    """Whether a tensor is computed from constants and sizes alone."""
    return name in index.producer and dataflow(index).kind.get(name) is Kind.CONSTANT


def _value(case: LayerCase, side: int, name: str) -> np.ndarray | None:
    """What a tensor is that depends on constants and sizes, as one side has it."""
    known = constant_value(case.graphs[side], name)
    if known is not None:
        return known
    inside = case.inner if side == 0 else case.candidate_inner
    return inside.get(name, case.values.get(case.origins.get(name, name) if side else name))


def _told(case: LayerCase, names: tuple[str, str], values: tuple[np.ndarray, np.ndarray]) -> FoldedConstant | None:
    """How such a constant differs: by one of those that it is computed from, or as a whole, where it does not follow
    from sizes that the candidate may have been exported with others of."""
    side = 0 if _is_constant(case.graphs[1], names[1]) else 1
    index, name, stored = case.graphs[side], names[side], names[1 - side]
    node = op_names(index, [index.producer[name]])[0]
    fixed = _fixed(index)
    found = taken_back(index, name, values[1 - side], lambda read: _value(case, side, read), fixed=fixed)
    if found is None:
        if side == 0 and not fixed:
            return None
        change = weight_change(*values)
        constant = ""
    else:
        pair = (found.own, found.value) if side == 0 else (found.value, found.own)
        change, constant = weight_change(*pair), found.name
    if change is None or change.explained_by_format is not None:
        return None
    return FoldedConstant(name, node, stored, constant, replace(change, noun="values"), side == 0)


def _fixed(index: GraphIndex) -> bool:
    """Whether the sizes of all inputs are stated."""
    return all(
        (shape := index.shape(name)) is not None and all(isinstance(d, int) for d in shape) for name in index.inputs
    )
