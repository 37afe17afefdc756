"""Layers in groups that run side by side in one engine, so that blocks that repeat are groups of one kind."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import LayerPair

MOST = 20
"""Most layers of one engine. Those of a transformer's 121 layers took two processes 23 s in groups of 20, 36 s in
groups of 12 or of 22, and one of 29 layers takes 11 to 14 s by itself (H200, TensorRT 8.6, which refuses 41)."""
LONGEST = 5 * MOST
"""Most layers of a block that is seen to repeat."""


def together(
    pairs: Sequence[LayerPair],
    refused: Collection[tuple[int, ...]] = (),
    most: int = MOST,
    kinds: Sequence[Hashable] = (),
) -> list[Sequence[LayerPair]]:
    """Layers in groups that run together: as few of one size as there can be, and blocks that repeat in equal groups.

    Args:
        pairs: The layers.
        refused: Groups that do not run together, by the layers' numbers: they run in two halves, and so on, so that one
            layer that cannot run hides no other.
        most: Layers of the largest group.
        kinds: What each layer computes; layers that compute the same with other weights have equal kinds. Empty: that
            does not matter.
    """
    cuts = [(0, len(pairs))] if not kinds else _blocks(kinds, most)
    parts = [pairs[a + part : a + end] for a, b in cuts for part, end in _evenly(b - a, most)]
    return [group for part in parts for group in _halves(part, refused)]


def _evenly(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Where parts of almost one size begin and end, none of them of more than ``most``."""
    parts = max(math.ceil(count / most), 1)
    yield from ((i * count // parts, (i + 1) * count // parts) for i in range(parts))


def _blocks(kinds: Sequence[Hashable], most: int) -> list[tuple[int, int]]:
    """Where blocks begin and end: those that repeat, and what lies between them."""
    if not kinds:
        return []
    begin, period, times = _repeat(kinds)
    step = period * _taken(period, times, most)
    end = begin + times * period // step * step
    if end - begin - step < most:  # no engine is saved
        return [(0, len(kinds))]
    repeated = [(a, a + step) for a in range(begin, end, step)]
    behind = [(a + end, b + end) for a, b in _blocks(kinds[end:], most)]
    return [*_blocks(kinds[:begin], most), *repeated, *behind]


def _taken(period: int, times: int, most: int) -> int:
    """How many small blocks make one group: so many that none is left over, unless the groups would be small."""
    most_of_them = max(min(most // period, times // 2), 1)
    even = [n for n in range(most_of_them, 0, -1) if times % n == 0 and 2 * n * period >= most]
    return even[0] if even else most_of_them


def _repeat(kinds: Sequence[Hashable]) -> tuple[int, int, int]:
    """The block whose repetitions cover the most beside itself: where it begins, its length, and how often it stands
    there, one after the other."""
    best = (0, len(kinds), 1)
    for period in range(1, min(LONGEST, len(kinds) // 2) + 1):
        begin = 0
        for equal, run in groupby(a == b for a, b in zip(kinds, kinds[period:], strict=False)):
            length = sum(1 for _ in run)
            times = 1 + length // period
            if equal and (times - 1) * period > (best[2] - 1) * best[1]:
                best = (begin, period, times)
            begin += length
    return best


def _halves(pairs: Sequence[LayerPair], refused: Collection[tuple[int, ...]]) -> Iterator[Sequence[LayerPair]]:
    if len(pairs) < 2 or key_of(pairs) not in refused:
        if pairs:
            yield pairs
        return
    middle = len(pairs) // 2
    yield from _halves(pairs[:middle], refused)
    yield from _halves(pairs[middle:], refused)


def key_of(pairs: Sequence[LayerPair]) -> tuple[int, ...]:
    """The numbers of some layers."""
    return tuple(pair.number for pair in pairs)
