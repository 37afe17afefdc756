"""Nodes that one of two graphs alone has on the way to a constant: a Cast of positions to BF16 and back, a factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..formats import BY_DTYPE
from ..index import GraphIndex
from ..operators import QUANTIZERS, operator
from ..printable import being
from ..specs import dtype_name
from .constants import constant_value
from .origin import parted
from .weight_changes import WeightChange, weight_change

DEEPEST = 16
"""Most nodes one after the other that are looked through."""


@dataclass(frozen=True)
class OtherSteps:
    """Nodes that compute something more of a constant, in one of two graphs.

    Attributes:
        nodes: Operator and name of each, in their order.
        in_candidate: Whether it is the candidate that has them.
        position: Where the first of them stands, in its graph, that changes values.
        node: Operator and name of that one.
        rounds_to: The number format to which it rounds the values, where it is a Cast.
        change: How the values are others behind it.
    """

    nodes: tuple[tuple[str, str], ...]
    in_candidate: bool
    position: int
    node: tuple[str, str]
    rounds_to: str
    change: WeightChange

    def __str__(self) -> str:
        names = being([f"{op} {name}" for op, name in self.nodes])
        where = "in the candidate alone" if self.in_candidate else "missing in the candidate"
        op, name = self.node
        how = f"{op} {name} rounds to {self.rounds_to}" if self.rounds_to else f"behind {op} {name}"
        return f"{names} {where}: {how}, {self.change.of_values}"


def other_steps(reference: GraphIndex, name: str, candidate: GraphIndex, other: str) -> OtherSteps | None:
    """The nodes that one of the graphs alone has, on the way to a constant that is another one in the other graph.

    Returns:
        None where neither graph has the other's constant, but for what is computed of it.
    """
    found = parted(reference, name, candidate, other)
    if found is None:
        return None
    sides = (reference, found[0]), (candidate, found[1])
    for (index, last), (its, twin), in_candidate in ((sides[1], sides[0], True), (sides[0], sides[1], False)):
        value = constant_value(its, twin)
        path = None if value is None else _path(index, last, value, DEEPEST)
        if path and value is not None:
            return _steps(index, path, value, in_candidate)
    return None


def _path(index: GraphIndex, name: str, value: np.ndarray, deepest: int) -> list[tuple[int, str]] | None:
    """The nodes that make a tensor of one with this value, and what each makes; None where there is none above it."""
    position = index.producer.get(name)
    if position is None or not deepest or operator(index.nodes[position]) in QUANTIZERS:
        return None
    for read in index.nodes[position].input:
        known = constant_value(index, read) if read else None
        if known is None or known.size != value.size:
            continue
        before = [] if np.array_equal(known, value) else _path(index, read, value, deepest - 1)
        if before is not None:
            return [*before, (position, name)]
    return None


def _steps(index: GraphIndex, path: list[tuple[int, str]], value: np.ndarray, in_candidate: bool) -> OtherSteps | None:
    named = [(index.nodes[p].op_type, index.names[p]) for p, _ in path]
    for (position, name), node in zip(path, named, strict=True):
        made = constant_value(index, name)
        change = None if made is None else weight_change(*((value, made) if in_candidate else (made, value)))
        if made is not None and change is not None:
            fmt = BY_DTYPE.get(dtype_name(made.dtype)) if node[0] == "Cast" else None
            return OtherSteps(tuple(named), in_candidate, position, node, "" if fmt is None else str(fmt), change)
    return None
