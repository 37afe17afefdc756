"""How deep a tensor is in a network: roundings on the longest path to it, and products that are summed along one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from ..index import GraphIndex
from ..nodes import attribute_int, reads, subgraphs
from ..operators import CASTS, CONTROL_FLOW, EXACT_OPERATORS, RECURRENT, operator
from ..specs import is_float
from .term_count import term_count

CHAIN = 512
"""Most terms that count in one sum: longer ones are made of parts, whose errors do not add up like those of a chain."""
UNKNOWN_STEPS = 32
"""Steps of a loop or sequence whose length the graph does not tell."""


class Depth(int):
    """The number of layers that round on the longest path to a tensor.

    Attributes:
        terms: The greatest number of terms, at most `CHAIN` of each sum, that are summed along a path to it.
    """

    terms: float

    def __new__(cls, layers: int = 0, terms: float = 0) -> Depth:  # noqa: D102
        depth = super().__new__(cls, layers)
        depth.terms = terms
        return depth


def depth(index: GraphIndex, output: str, groups: Sequence[Any] | None = None) -> Depth:
    """The depth of ``output``.

    Args:
        groups: Fused groups (`graph.cutting.fusion.fused_groups`), each of which rounds once, as the target's kernels
            do. None counts every node that rounds by itself.
    """
    return depths(index, groups).get(output, Depth())


def depths(index: GraphIndex, groups: Sequence[Any] | None = None) -> dict[str, Depth]:
    """`depth` of every tensor of the graph that depends on its inputs.

    Args:
        groups: See `depth`.
    """
    owner: dict[int, int] = {p: -1 - number for number, group in enumerate(groups or ()) for p in group.nodes}
    entered: dict[int, Depth] = {}  # by group: the greatest depth among what it reads from outside, so far
    added: dict[int, Depth] = {}  # by group: what it has added itself, so far
    varying = set(index.inputs)
    known: dict[str, Depth] = {}
    for position, node in enumerate(index.nodes):
        group = owner.get(position, position)
        read = index.reads[position]
        if read and varying.isdisjoint(read):
            continue  # the same for every input: folded before anything runs
        varying.update(node.output)
        makers = [(known[n], index.producer[n]) for n in read if n in known]
        outside = [d for d, maker in makers if owner.get(maker, maker) != group]
        entered[group] = _deepest([entered.get(group, Depth()), *outside])
        own = _adds(index, position)
        added[group] = _deepest([added.get(group, Depth()), own])
        before, new = entered[group], added[group]
        after = Depth(before + new, before.terms + new.terms)
        known.update({name: after for name in node.output if name})
    return known


def _deepest(depths: Sequence[Depth]) -> Depth:
    return Depth(max(depths), max(d.terms for d in depths))


def _adds(index: GraphIndex, position: int) -> Depth:
    """What a node adds to the depth of what it reads."""
    layers = _roundings(index, position)
    if not layers:
        return Depth()
    terms = term_count(index.nodes[position], lambda name: _shape(index, name))
    return Depth(layers, min(terms, CHAIN) if terms > 1 else 0)


def _shape(index: GraphIndex, name: str) -> tuple[int, ...] | None:
    """A tensor's shape, with 1 for what is unknown."""
    spec = index.specs.get(name)
    if spec is None or spec.shape is None:
        return None
    return tuple(d if isinstance(d, int) else 1 for d in spec.shape)


def _roundings(index: GraphIndex, position: int) -> int:
    """How often a node rounds a value on its way through."""
    node = index.nodes[position]
    spec = index.specs.get(node.output[0]) if node.output else None
    if spec is not None and not is_float(spec.dtype):
        return 0
    if operator(node) in RECURRENT:
        return _steps(index, node, attribute_int(node, "layout", 0))
    if node.op_type == "Loop":
        trips = index.constant(node.input[0]) if node.input[0] else None
        return _body(node) * (int(trips.reshape(-1)[0]) if trips is not None and trips.size else UNKNOWN_STEPS)
    if node.op_type == "Scan":
        return _body(node) * UNKNOWN_STEPS
    if node.op_type == "If":
        return _body(node)
    return _rounds_once(node)


def _rounds_once(node: onnx.NodeProto) -> int:
    if operator(node) in CASTS:
        return int(attribute_int(node, "to", 0) not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE))
    return int(operator(node) not in EXACT_OPERATORS)


def _steps(index: GraphIndex, node: onnx.NodeProto, layout: int) -> int:
    """Length of the sequence that a recurrent layer walks along."""
    spec = index.specs.get(node.input[0])
    axis = 1 if layout == 1 else 0
    length = spec.shape[axis] if spec is not None and spec.shape is not None and len(spec.shape) > axis else None
    return length if isinstance(length, int) and length > 0 else UNKNOWN_STEPS


def _body(node: onnx.NodeProto) -> int:
    """Roundings on the longest path through a node's bodies."""
    longest = 0
    for body in subgraphs(node):
        known: dict[str, int] = {}
        for inner in body.node:
            own = _body(inner) if operator(inner) in CONTROL_FLOW else _rounds_once(inner)
            after = own + max((known.get(n, 0) for n in reads(inner)), default=0)
            known.update(dict.fromkeys(inner.output, after))
        longest = max([longest, *known.values()])
    return longest
