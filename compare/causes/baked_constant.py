"""A constant where the reference computes from an input: a mask, positions or a size that an export has baked in, or
counts for itself.

Looks at: both graphs from the node that makes the tensor upwards, as far as the same operators stand there. Proves:
that a node reads a constant in the candidate, or what follows from sizes alone, and in the reference what is computed
from inputs of the model, or is one; and that the reference makes most of the error with that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.evaluation import evaluate
from ...graph.index import GraphIndex
from ...graph.operators import operator
from ...graph.pairing.constants import constant_value
from ...graph.printable import few
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import explained

if TYPE_CHECKING:
    from ..lockstep.plan import LayerPair

NAMED = 3
"""How many inputs are named."""


@dataclass(frozen=True)
class BakedConstant:
    """A tensor that is computed from inputs in the reference, and a constant in the candidate.

    Attributes:
        tensor: Its name in the reference.
        node: Operator and name of the node that makes it there; of an input of the model, of one that reads it.
        inputs: The inputs of the model that it is computed from.
        more: How many other tensors are.
        counted: Whether it follows from sizes in the candidate, and is no constant.
        of_sizes: Whether it follows from sizes in the reference, whatever the values of the inputs are.
    """

    tensor: str
    node: tuple[str, str]
    inputs: tuple[str, ...]
    more: int = 0
    counted: bool = False
    of_sizes: bool = False

    @property
    def sources(self) -> str:
        """The inputs, as in a sentence."""
        names = few([f"'{name}'" for name in self.inputs], NAMED)
        sizes = "the sizes of " if self.of_sizes else ""
        return f"{sizes}the input{'s' if self.inputs[1:] else ''} {names}"

    @property
    def text(self) -> str:
        """See `Fact`."""
        op, name = self.node
        beside = f", and {self.more} more tensor{'s' if self.more > 1 else ''} too" if self.more else ""
        there = "computed from sizes alone" if self.counted else "a constant"
        if self.inputs == (self.tensor,):
            return f"{op} {name} reads {self.sources} in the reference, and what is {there} in the candidate{beside}"
        made = f"what {op} {name} makes ('{self.tensor}') is computed from {self.sources} in the reference"
        return f"{made}, and {there} in the candidate{beside}"

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.inputs == (self.tensor,):
            return f"let {self.node[1]} read {self.sources} in the second file"
        return f"compute '{self.tensor}' from {self.sources} in the second file: its export has a constant there"


def find(case: LayerCase) -> Diagnosis | None:
    """Constants of the candidate that stand for what the reference computes from inputs."""
    index, other = case.graphs
    if index is other:
        return None
    twin = case.twin
    position, its = index.producer[case.tensor], other.producer[twin]
    found = {baked.tensor: baked for baked in _baked(case, position, its, set())}
    made = case.reweighted({name: baked.value for name, baked in found.items()}) if found else None
    if made is None or not explained(case, made):
        return None
    first = next(iter(found.values()))
    maker = index.producer.get(first.tensor, first.reader)
    node, inputs = (index.nodes[maker].op_type, index.names[maker]), _inputs(index, first.tensor)
    fact = BakedConstant(first.tensor, node, inputs, len(found) - 1, first.counted, _of_sizes(index, first.tensor))
    return Diagnosis(Cause.WRONG_OP, (fact,), maker)


def of_sizes(graphs: tuple[GraphIndex, GraphIndex], pair: LayerPair) -> tuple[int, BakedConstant] | None:
    """A constant of the candidate that stands for what the reference computes from sizes, of a layer that the candidate
    cannot run on other sizes: the position of who makes that in the reference, and what it is."""
    index, other = graphs
    seen: set[int] = set()
    waiting = [
        (index.producer[mine], other.producer[theirs])
        for mine, theirs in zip(pair.reference.outputs, pair.candidate.outputs, strict=True)
    ]
    while waiting:
        position, twin = waiting.pop()
        node, its = index.nodes[position], other.nodes[twin]
        if position in seen or operator(node) != operator(its):
            continue
        seen.add(position)
        for mine, theirs in zip(node.input, its.input, strict=False):
            above, beside = index.producer.get(mine), other.producer.get(theirs)
            if above is None or constant_value(index, mine) is not None:
                continue
            inputs = _inputs(index, mine) if dataflow(index).recomputed(mine) else ()
            if inputs and theirs and constant_value(other, theirs) is not None:
                made = index.nodes[above].op_type, index.names[above]
                return above, BakedConstant(mine, made, inputs, of_sizes=_of_sizes(index, mine))
            if beside is not None and above in pair.reference.nodes:
                waiting.append((above, beside))
    return None


@dataclass(frozen=True)
class _Baked:
    """A tensor of the reference, who reads it, the candidate's value in its place, whether that follows from sizes."""

    tensor: str
    reader: int
    value: np.ndarray
    counted: bool


def _baked(case: LayerCase, position: int, twin: int, seen: set[int]) -> Iterator[_Baked]:
    """Tensors that the reference computes in a layer from inputs, or that are inputs, and what the candidate has in
    their place, from two nodes of one operator upwards."""
    index, other = case.graphs
    node, its = index.nodes[position], other.nodes[twin]
    if position in seen or operator(node) != operator(its):
        return
    seen.add(position)
    for mine, theirs in zip(node.input, its.input, strict=False):
        above, beside = index.producer.get(mine), other.producer.get(theirs)
        inside = mine in index.inputs if above is None else above in case.pair.reference.nodes
        if not inside or not theirs or above in seen or constant_value(index, mine) is not None:
            continue
        deeper = [] if beside is None or above is None else list(_baked(case, above, beside, seen))
        yield from deeper
        value = None if deeper else constant_value(other, theirs)
        counted = value is None and not deeper and not _reads(other, theirs, _inputs(index, mine))
        value = _counted(case, theirs) if counted else value
        if value is not None and _inputs(index, mine):
            yield _Baked(mine, position, value, counted)


def _reads(index: GraphIndex, name: str, inputs: tuple[str, ...]) -> bool:
    """Whether a tensor is made of more than sizes, or of some inputs."""
    return not dataflow(index).recomputed(name) or not set(inputs).isdisjoint(_inputs(index, name))


def _counted(case: LayerCase, name: str) -> np.ndarray | None:
    """What follows from the sizes of the model's inputs in the candidate; None where that cannot be computed."""
    index = case.graphs[1]
    known = constant_value(index, name)
    if known is not None or name not in index.producer:
        return case.values.get(name) if known is None else known
    node = index.nodes[index.producer[name]]
    feed = {read: _counted(case, read) for read in node.input if read}
    values = {read: value for read, value in feed.items() if value is not None}
    return None if len(values) < len(feed) else evaluate(node, name, values, index.proto.opset_import)


def _of_sizes(index: GraphIndex, name: str) -> bool:
    """Whether a tensor follows from the sizes of inputs alone."""
    return dataflow(index).kind.get(name) is Kind.CONSTANT


def _inputs(index: GraphIndex, name: str) -> tuple[str, ...]:
    """The inputs of the model that a tensor is computed from."""
    waiting, found = [name], {name}
    while waiting:
        position = index.producer.get(waiting.pop())
        new = [] if position is None else [n for n in index.reads[position] if n not in found]
        found.update(new)
        waiting.extend(new)
    return tuple(name for name in index.inputs if name in found)


def joined(diagnoses: Mapping[int, Diagnosis]) -> dict[int, list[int]]:
    """Layers with constants in place of what is computed from the same inputs: one fault, at the first of them.

    Args:
        diagnoses: What was found of guilty layers, by their numbers.

    Returns:
        The first, and the others.
    """
    found: dict[tuple[str, ...], list[int]] = {}
    for number in sorted(diagnoses):
        fact = next(iter(diagnoses[number].facts), None)
        if isinstance(fact, BakedConstant):
            found.setdefault(fact.inputs, []).append(number)
    return {first: others for first, *others in found.values() if others}
