"""How two operators differ that give another shape to elements in their order: in what they are told, not in what
follows from the shape of what they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..index import GraphIndex
from ..nodes import attribute_ints
from ..operators import RESHAPES
from .changes import AttributeChange, GroupsChange, OpName
from .constants import constant_value
from .normal_form import NormalForm


def compares(op: str) -> bool:
    """Whether nodes of an operator are compared here."""
    return op in RESHAPES and op != "Flatten"


def change(
    reference: GraphIndex, n: int, a: NormalForm, candidate: GraphIndex, m: int, b: NormalForm
) -> AttributeChange | None:
    """How two of one operator differ; None where they give the same shape, or are told the same and what they read has
    another one. See `differences.node_differences`."""
    told = _told(reference, n), _told(candidate, m)
    shapes = a.settings.get("output shape"), b.settings.get("output shape")
    if (None not in shapes and shapes[0] == shapes[1]) or (None not in told and told[0] == told[1]):
        return None
    if a.op != "Reshape" and None not in told:
        return AttributeChange("axes", *told)
    if None not in shapes:
        groups = _groups(reference, n, candidate, m, *shapes)
        return AttributeChange("output shape", *shapes) if groups is None else groups
    if told[0] is None or told[1] is None or (a.op == "Reshape" and _fits(told[0], told[1])):
        return None
    return AttributeChange("shape", *told)


def _groups(
    reference: GraphIndex, n: int, candidate: GraphIndex, m: int, shape: Any, other: Any
) -> GroupsChange | None:
    """Another number of groups that are normalized, where that is what two Reshapes make."""
    mine, theirs = _normalizing(reference, n), _normalizing(candidate, m)
    if mine is None or theirs is None or mine[1] == theirs[1]:
        return None
    if len(shape) != 3 or len(other) != 3 or (shape[1], other[1]) != (mine[1], theirs[1]):
        return None
    return GroupsChange("output shape", shape, other, normalizes=(mine[0], theirs[0]))


def _normalizing(index: GraphIndex, position: int) -> tuple[OpName, int] | None:
    """The InstanceNormalization that alone reads what a node makes, and how many channels it has."""
    made = index.nodes[position].output[0]
    reader = next(iter(index.consumers.get(made, ())), None)
    if reader is None or len(index.consumers[made]) > 1 or index.nodes[reader].op_type != "InstanceNormalization":
        return None
    scale = constant_value(index, index.nodes[reader].input[1])
    return None if scale is None else ((index.nodes[reader].op_type, index.names[reader]), scale.size)


def _told(index: GraphIndex, position: int) -> list[int] | None:
    """The axes that a node adds or takes away, or the shape that it is to give; None where that is not known."""
    node = index.nodes[position]
    told = attribute_ints(node, "shape" if node.op_type == "Reshape" else "axes")
    if len(node.input) > 1 and node.input[1]:
        given = constant_value(index, node.input[1])
        told = None if given is None else [int(value) for value in given.reshape(-1)]
    rank = index.rank(node.input[0])
    if told is None or node.op_type == "Reshape" or rank is None:
        return told
    rank += len(told) if node.op_type == "Unsqueeze" else 0
    return sorted(axis % rank for axis in told) if rank else told


def _fits(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes may be one, of which some sizes are to be found out: 0 and -1."""
    return len(one) == len(other) and all(
        x == y or (min(x, y) <= 0 < max(x, y)) for x, y in zip(one, other, strict=True)
    )
