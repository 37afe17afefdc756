"""Tensors through which all goes between two faults: what one graph computes on several branches, and the other in one
kernel, meets there.

Of a part of a graph that is left between matched nodes, some tensors are the only ones that what follows reads. Where
these are made by functions that no rewriting folds into a product (activations, maxima, Softmax), each behind products
of its own, and the parts of both graphs have the same of them in the same order, they are the same tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..operators import LASTING, PRODUCTS, operator
from .groups import Groups
from .pairs import Pairing
from .view import GraphView

Place = tuple[str, int, str]
"""What a matched node makes or reads: its pair's number, and the output or slot."""


def bottlenecks(pairing: Pairing) -> list[tuple[int, int]]:
    """Nodes of both graphs that make the same bottlenecks of the same part."""
    mine = _parts(pairing.r, {n: n for n in pairing.nodes})
    theirs = _parts(pairing.c, pairing.taken)
    found: list[tuple[int, int]] = []
    for borders, part in mine.items():
        other = theirs.get(borders)
        if part is None or other is None:
            continue
        left, right = _lasting(pairing.r, part), _lasting(pairing.c, other)
        kinds = [[view.fine.nodes[p].kind for p in some] for view, some in ((pairing.r, left), (pairing.c, right))]
        if kinds[0] == kinds[1] and all(pairing.fits(n, m) for n, m in zip(left, right, strict=True)):
            found.extend(zip(left, right, strict=True))
    return found


def _parts(view: GraphView, numbers: Mapping[int, int]) -> dict[frozenset[Place], list[int] | None]:
    """The parts of a graph by their borders; None where several have the same ones.

    Args:
        view: The graph.
        numbers: The number of its pair, of each node that is matched.
    """
    left = [p for p in view.live if p not in numbers]
    groups, borders = Groups(left), {p: _borders(view, p, numbers) for p in left}
    for p in left:
        for _, name in view.fine.nodes[p].inputs:
            q = view.index.producer.get(name)
            if q in borders:
                groups.join(q, p)
    found: dict[frozenset[Place], list[int] | None] = {}
    for nodes in groups.all():
        key = frozenset(place for p in nodes for place in borders[p])
        found[key] = None if key in found else sorted(nodes)
    return found


def _borders(view: GraphView, p: int, numbers: Mapping[int, int]) -> set[Place]:
    """What a node reads of matched nodes and graph inputs, and what of matched nodes and graph outputs reads it."""
    ends: set[Place] = set()
    for _, name in view.fine.nodes[p].inputs:
        q = view.index.producer.get(name)
        if q is None:
            ends.add(("reads", -1, name))
        elif q in numbers:
            ends.add(("reads", numbers[q], str(list(view.index.nodes[q].output).index(name))))
    for name in view.fine.nodes[p].outputs:
        ends.update(("read by", numbers[r], slot) for r, slot in view.fine.consumers.get(name, ()) if r in numbers)
        ends.update(("gives", -1, output) for output in view.output_roots.get(name, ()))
    return ends


def _lasting(view: GraphView, part: Sequence[int]) -> list[int]:
    """The nodes of a part that make bottlenecks by a function that lasts, in their order; none where there is no
    product before one of them and behind the one before it."""
    inside = set(part)
    last: dict[str, int] = {}
    for p in part:
        for name in view.fine.nodes[p].outputs:
            read = [r for r, _ in view.fine.consumers.get(name, ())]
            outside = name in view.output_roots or any(r not in inside for r in read)
            last[name] = len(view.index.nodes) if outside else max(read, default=-1)
    for p in part:  # what it reads from around it
        last.update({name: p for _, name in view.fine.nodes[p].inputs if view.index.producer.get(name) not in inside})
    found: list[int] = []
    alive = {name for name in last if view.index.producer.get(name) not in inside}
    products = 0
    for p in part:
        products += operator(view.index.nodes[p]) in PRODUCTS
        alive = {name for name in alive if last[name] > p}
        made = [name for name in view.fine.nodes[p].outputs if last[name] > p]
        alive.update(made)
        if len(made) == len(alive) == 1 and operator(view.index.nodes[p]) in LASTING:
            if not products:
                return []
            found.append(p)
            products = 0
    return found
