"""A constant where the reference computes from an input: a mask, positions or a size that an export has baked in.

Looks at: both graphs from the node that makes the tensor upwards, as far as the same operators stand there. Proves:
that a node reads a constant in the candidate and in the reference what is computed from inputs of the model, and that
the reference makes most of the error with that constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ...graph.index import GraphIndex
from ...graph.operators import operator
from ...graph.pairing.constants import constant_value
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import explained

NAMED = 3
"""How many inputs are named."""


@dataclass(frozen=True)
class BakedConstant:
    """A tensor that is computed from inputs in the reference, and a constant in the candidate.

    Attributes:
        tensor: Its name in the reference.
        node: Operator and name of the node that makes it there.
        inputs: The inputs of the model that it is computed from.
        more: How many other tensors are.
    """

    tensor: str
    node: tuple[str, str]
    inputs: tuple[str, ...]
    more: int = 0

    @property
    def sources(self) -> str:
        """The inputs, as in a sentence."""
        shown = [f"'{name}'" for name in self.inputs[:NAMED]]
        left = f" and {len(self.inputs) - NAMED} more" if len(self.inputs) > NAMED else ""
        return f"the input{'s' if self.inputs[1:] else ''} {', '.join(shown)}{left}"

    @property
    def text(self) -> str:
        """See `Fact`."""
        op, name = self.node
        beside = f", and {self.more} more tensor{'s' if self.more > 1 else ''} too" if self.more else ""
        return (
            f"what {op} {name} makes ('{self.tensor}') is computed from {self.sources} in the reference, and a "
            f"constant in the candidate{beside}"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """Constants of the candidate that stand for what the reference computes from inputs."""
    index, other = case.graphs
    if index is other:
        return None
    twin = case.pair.candidate.outputs[case.pair.reference.outputs.index(case.tensor)]
    position, its = index.producer[case.tensor], other.producer[twin]
    within = frozenset(case.pair.reference.nodes)
    found = dict(_baked(index, position, other, its, within, set()))
    made = case.reweighted(found) if found else None
    if made is None or not explained(case, made):
        return None
    first = next(iter(found))
    maker = index.producer[first]
    fact = BakedConstant(first, (index.nodes[maker].op_type, index.names[maker]), _inputs(index, first), len(found) - 1)
    return Diagnosis(Cause.WRONG_OP, (fact,), maker)


def _baked(
    index: GraphIndex, position: int, other: GraphIndex, twin: int, within: frozenset[int], seen: set[int]
) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors that the reference computes in a layer from inputs, and the candidate's constants in their place, from
    two nodes of one operator upwards."""
    node, its = index.nodes[position], other.nodes[twin]
    if position in seen or operator(node) != operator(its):
        return
    seen.add(position)
    for mine, theirs in zip(node.input, its.input, strict=False):
        above, beside = index.producer.get(mine), other.producer.get(theirs)
        if above is None or above not in within or not theirs or constant_value(index, mine) is not None:
            continue
        deeper = {} if beside is None else dict(_baked(index, above, other, beside, within, seen))
        value = None if deeper else constant_value(other, theirs)
        yield from deeper.items()
        if value is not None and _inputs(index, mine):
            yield mine, value


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
