"""More layers than the culprit alone: who reads what it makes, or who makes what cancels or is amplified in it.

A tensor between a layer in FP32 and one that is not is stored in the narrow format. Where that format cannot hold it,
both have to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ...graph.cutting.fusion import Group, fused_groups, static_tensors
from ...graph.operators import CASTS, MOVEMENT, UNTOUCHED, operator
from ...graph.specs import is_float
from ..report.model import Cause

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

GROWS = frozenset({Cause.OVERFLOW, Cause.UNDERFLOW, Cause.NAN, Cause.AMPLIFIED, Cause.CANCELLATION})
"""Causes for which the tensors beside a layer may have to stay in FP32, too."""

MOST_KEPT = 16
"""Most nodes that a short answer names; of more, a search tells."""


def wider(
    index: GraphIndex, nodes: Sequence[str], cause: Cause, reach: int, *, every_node: bool
) -> Iterator[tuple[str, ...]]:
    """Sets of nodes to keep, each with the layers next to those of the one before; in the end, where the runtime rounds
    inside of what could be one kernel, that as a whole.

    Args:
        index: The graph.
        nodes: Names of nodes to begin with.
        cause: Why: what cancels is computed before the culprit, all else is lost between it and its readers; what is
            amplified is rounded on both sides.
        reach: Most sets that grow.
        every_node: Whether the runtime rounds after every node.
    """
    position = {name: p for p, name in enumerate(index.names)}
    first = kept = [position[name] for name in nodes if name in position]
    for step in range(reach if cause in GROWS else 0):
        inside = _groups_of(index, kept, every_node)
        before = cause is Cause.CANCELLATION or (cause is Cause.AMPLIFIED and step == 1)
        found = (_makers if before else _readers)(index, inside)
        if not found or len(found.union(kept)) > MOST_KEPT:
            break
        kept = sorted(found.union(kept))
        yield tuple(index.names[p] for p in kept)
    whole = _groups_of(index, first, every_node=False).union(first)
    if every_node and len(first) < len(whole) <= MOST_KEPT:
        yield tuple(index.names[p] for p in sorted(whole))


def one_kernel(index: GraphIndex, position: int) -> list[int]:
    """A node with all that run in one kernel with it, in the order of the graph."""
    return sorted({position} | _groups_of(index, [position], every_node=False))


def _groups_of(index: GraphIndex, nodes: Sequence[int], every_node: bool) -> set[int]:
    """Some nodes with all that run in one kernel with them."""
    groups = [Group((p,), p) for p in nodes] if every_node else fused_groups(index)
    return {p for g in groups if not set(nodes).isdisjoint(g.nodes) for p in g.nodes}


def _readers(index: GraphIndex, inside: set[int]) -> set[int]:
    """The nodes that compute with what some nodes make, through data movement."""
    return _computing(
        index, inside, lambda p: (r for name in index.nodes[p].output if name for r in index.consumers.get(name, ()))
    )


def _makers(index: GraphIndex, inside: set[int]) -> set[int]:
    """The nodes that compute what some nodes read, through data movement."""
    static = static_tensors(index)
    return _computing(
        index, inside, lambda p: (index.producer[n] for n in index.reads[p] if n in index.producer and n not in static)
    )


def _computing(index: GraphIndex, inside: set[int], beside: Callable[[int], Iterable[int]]) -> set[int]:
    """The first nodes that compute, from some nodes on, through data movement.

    Args:
        index: The graph.
        inside: Where to begin.
        beside: Gives the nodes next to one.
    """
    found: set[int] = set()
    waiting = list(inside)
    while waiting:
        for position in set(beside(waiting.pop())) - inside - found:
            op = operator(index.nodes[position])
            if op in MOVEMENT or (op in CASTS and not _from_integers(index, position)):
                waiting.append(position)
            elif op not in UNTOUCHED:
                found.add(position)
    return found


def _from_integers(index: GraphIndex, position: int) -> bool:
    """Whether a Cast makes floating-point numbers of integers, which a narrow format rounds."""
    node = index.nodes[position]
    given, made = (index.specs.get(name) for name in (node.input[0], node.output[0]))
    return given is not None and made is not None and not is_float(given.dtype) and is_float(made.dtype)
