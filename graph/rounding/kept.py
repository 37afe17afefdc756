"""Nodes that stay in FP32 while the rest of a network is narrowed: how they are named, and what goes with them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterable, Sequence

from ..cutting.slices import backward, original_name
from ..errors import UsageError
from ..index import GraphIndex
from ..operators import MOVEMENT, is_data, operator


def named_nodes(index: GraphIndex, wanted: Sequence[str], who: str, source: str) -> tuple[str, ...]:
    """The nodes that names and patterns mean, in the order of the graph.

    Args:
        index: The graph.
        wanted: Names of nodes (`GraphIndex.names`), or patterns of them with ``*`` and ``?``. What is a name is never
            taken for a pattern.
        who, source: The runner and the model, for messages.

    Raises:
        UsageError: There is no such node; says which ones may be meant.
    """
    known = frozenset(index.names)
    found: set[str] = set()
    for name in wanted:
        if name in known:
            found.add(name)
            continue
        matching = [n for n in index.names if fnmatch.fnmatchcase(n, name)]
        if not matching:
            raise UsageError(f"{who}: keep={name}: {source} has no such node{_near(index, name)}")
        found.update(matching)
    return tuple(name for name in index.names if name in found)


def _near(index: GraphIndex, name: str) -> str:
    maker = index.producer.get(name)
    if maker is not None:
        return f"; the tensor of that name is made by node {index.names[maker]!r}."
    near = difflib.get_close_matches(name, index.names, n=3, cutoff=0.5)
    near = near or [n for n in index.names if name.casefold() in n.casefold()][:3]
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; its nodes are called {', '.join(map(repr, index.names[:3]))} ..."


def positions_of(index: GraphIndex, names: Collection[str]) -> frozenset[int]:
    """Positions of named nodes in a graph or in a piece of it, as far as they are there."""
    wanted = frozenset(names)
    return frozenset(p for p, name in enumerate(index.names) if wanted and original_name(name) in wanted)


def positions_in_copy(given: GraphIndex, copy: GraphIndex, names: Collection[str]) -> frozenset[int]:
    """Positions in a converted copy of a graph (functions inlined, a newer opset) of what nodes of the graph became."""
    chosen = positions_of(given, names)
    if copy is given:
        return chosen
    found: set[int] = set()
    for position in chosen:
        outputs = [name for name in given.nodes[position].output if name in copy.producer]
        if outputs:
            found.update(backward(copy, outputs, frozenset(given.reads[position])).nodes)
    return frozenset(found)


def with_movement(index: GraphIndex, names: Iterable[str]) -> frozenset[str]:
    """Nodes that stay FP32, with the data movement that hands their values on.

    A value that a kept node makes stays FP32 through Reshape, Transpose, Concat and their kin, and so does an input of
    the model on its way to a kept node: written as types, these nodes are kept too, or the value would be rounded on
    the way.

    Args:
        index: The graph.
        names: Names of nodes.

    Returns:
        Their names and those of the movement.
    """
    kept = set(positions_of(index, frozenset(names)))
    for position, node in enumerate(index.nodes):  # a topological order: what a kept node makes comes after it
        if operator(node) in MOVEMENT and any(index.producer.get(n) in kept for n in _moved(index, position)):
            kept.add(position)
    inputs = frozenset(index.inputs)
    plain: set[int] = set()
    for position, node in enumerate(index.nodes):
        data = _moved(index, position)
        if operator(node) in MOVEMENT and data:
            given = (n in inputs or index.producer.get(n) in plain or n in index.initializers for n in data)
            if all(given) and any(n not in index.initializers for n in data):
                plain.add(position)
    for position in sorted(plain, reverse=True):
        readers = (p for n in index.nodes[position].output for p in index.consumers.get(n, ()))
        if any(p in kept for p in readers):
            kept.add(position)
    return frozenset(index.names[p] for p in kept)


def _moved(index: GraphIndex, position: int) -> list[str]:
    node = index.nodes[position]
    return [name for i, name in enumerate(node.input) if name and is_data(node, i)]
