"""Where two weights that graphs compute from constants begin to differ: the bounds of a Slice, the factor of a Mul."""

from __future__ import annotations

import numpy as np
import onnx

from ..index import GraphIndex
from ..nodes import attribute
from ..operators import CASTS, COMPARISONS, QUANTIZERS, STRETCHES, operator
from ..specs import is_float
from .constants import constant_value
from .weight_changes import same_bytes


def origin(reference: GraphIndex, name: str, candidate: GraphIndex, other: str) -> int | None:
    """The node that is first to compute something else.

    Args:
        reference, candidate: The two graphs.
        name, other: The weight in each, which differ.

    Returns:
        Its position in the reference; None where stored weights differ that are as large as what is computed from them
        (they are the layer's own, unless they are compared), and where the candidate has the constants folded, so that
        no node can be told.
    """
    position, twin = reference.producer.get(name), candidate.producer.get(other)
    if position is None or twin is None:
        return None
    node, its = reference.nodes[position], candidate.nodes[twin]
    if "Constant" in (node.op_type, its.op_type) or operator(node) in QUANTIZERS:
        return None
    if node.op_type != its.op_type or len(node.input) != len(its.input):
        return position
    changed = [
        (mine, theirs)
        for mine, theirs in zip(node.input, its.input, strict=True)
        if mine and theirs and not _equal(reference, mine, candidate, theirs)
    ]
    if not changed:
        return position if _attributes(node) != _attributes(its) else None
    if len(changed) > 1 and _exchanged(reference, candidate, changed):
        return position
    mine, theirs = changed[0]
    deeper = origin(reference, mine, candidate, theirs)
    if deeper is not None:
        return deeper
    own = operator(node) not in COMPARISONS and _size(reference, mine) >= _size(reference, name)
    return None if own else position


def parted(reference: GraphIndex, name: str, candidate: GraphIndex, other: str) -> tuple[str, str] | None:
    """The constants from which on two graphs compute a weight alike, where they make these by other operators.

    Args:
        reference, candidate: The two graphs.
        name, other: The weight in each, which differ.

    Returns:
        Their names; None where no single one can be told, and where it is an attribute that differs.
    """
    position, twin = reference.producer.get(name), candidate.producer.get(other)
    if position is None or twin is None:
        return name, other
    node, its = reference.nodes[position], candidate.nodes[twin]
    if node.op_type != its.op_type or len(node.input) != len(its.input) or node.op_type == "Constant":
        return name, other
    changed = [pair for pair in zip(node.input, its.input, strict=True) if not _alike(reference, candidate, pair)]
    return parted(reference, changed[0][0], candidate, changed[0][1]) if len(changed) == 1 else None


def stored(index: GraphIndex, name: str) -> frozenset[str]:
    """The constants of more than one number, floats, that a tensor is computed from, or is itself.

    Args:
        index: The graph.
        name: The tensor, of constants alone.
    """
    waiting, found, seen = [name], set[str](), {name}
    while waiting:
        here = waiting.pop()
        position = index.producer.get(here)
        if position is not None and index.nodes[position].op_type != "Constant":
            new = [read for read in index.reads[position] if read not in seen]
            seen.update(new)
            waiting.extend(new)
            continue
        value = constant_value(index, here)
        if value is not None and value.size > 1 and is_float(value.dtype):
            found.add(here)
    return frozenset(found)


def computed_by(index: GraphIndex, name: str) -> int | None:
    """The node that computes a tensor, before those that give it another shape or type, or multiply by one; None where
    it is stored."""
    while (position := index.producer.get(name)) is not None:
        node = index.nodes[position]
        if node.op_type == "Constant":
            return None
        carried = [n for n in node.input if operator(node) != "Mul" or not _is_one(index, n)]
        if operator(node) not in STRETCHES | CASTS and len(carried) == len(node.input):
            return position
        name = carried[0]
    return None


def _is_one(index: GraphIndex, name: str) -> bool:
    value = constant_value(index, name)
    return value is not None and value.size == 1 and bool(value.reshape(()) == 1)


def _alike(reference: GraphIndex, candidate: GraphIndex, pair: tuple[str, str]) -> bool:
    """Whether two inputs are the same constant, or both absent."""
    name, other = pair
    return _equal(reference, name, candidate, other) if name and other else name == other


def _equal(reference: GraphIndex, name: str, candidate: GraphIndex, other: str) -> bool:
    if same_bytes(reference, name, candidate, other):
        return True
    x, y = constant_value(reference, name), constant_value(candidate, other)
    return x is None or y is None or (x.shape == y.shape and np.array_equal(x, y))


def _exchanged(reference: GraphIndex, candidate: GraphIndex, changed: list[tuple[str, str]]) -> bool:
    """Whether what differs is the order of the inputs."""
    theirs = [other for _, other in changed]
    return all(any(_equal(reference, name, candidate, other) for other in theirs) for name, _ in changed)


def _size(index: GraphIndex, name: str) -> int:
    value = constant_value(index, name)
    return 0 if value is None else value.size


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: attribute(node, a.name) for a in node.attribute}
