"""Two quantizers in a row of which a runtime makes one: with the name of the first, and the range that both have."""

from __future__ import annotations

from ..index import GraphIndex
from ..operators import operator
from ..quantized.idle import Numbers, numbers_of
from .view import GraphView


def made_one(mine: GraphView, n: int, theirs: GraphView, m: int) -> int | None:
    """The second of two quantizers of a graph, where that of the other one that is called as the first is both: what
    stands between them is missing there. None where it is not.

    Args:
        mine, n: The graph that may have two, and the first of them.
        theirs, m: The other graph, and the quantizer in it.
    """
    first, one = (_range(view.index, p) for view, p in ((mine, n), (theirs, m)))
    if first is None or one is None or _same(first, one):
        return None
    for behind in _next(mine, n):
        second = _range(mine.index, behind)
        both = None if second is None else (one[0], max(first[1], second[1]), min(first[2], second[2]))
        if both is not None and _same(one, both):
            return behind
    return None


def _range(index: GraphIndex, position: int) -> Numbers | None:
    """The step of a quantizer, and the least and the greatest number that it makes."""
    numbers = numbers_of(index, position) if operator(index.nodes[position]) == "QuantizeLinear" else None
    return None if numbers is None else (numbers[0], numbers[0] * numbers[1], numbers[0] * numbers[2])


def _same(one: Numbers, other: Numbers) -> bool:
    """Whether two ranges are one, within a step: zero is one of the numbers."""
    return all(abs(a - b) <= max(one[0], other[0]) for a, b in zip(one[1:], other[1:], strict=True))


def _next(view: GraphView, position: int) -> list[int]:
    """The quantizers behind one, with none in between."""
    waiting, seen = [position], {position}
    found: list[int] = []
    while waiting:
        for name in view.fine.nodes[waiting.pop()].outputs:
            for reader in {p for p, _ in view.fine.consumers.get(name, ())} - seen:
                seen.add(reader)
                (found if operator(view.index.nodes[reader]) == "QuantizeLinear" else waiting).append(reader)
    return sorted(found)
