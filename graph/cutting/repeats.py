"""Blocks of layers that repeat, as those of a transformer do."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby

LONGEST = 100
"""Most layers of a block that is seen to repeat."""


def blocks(kinds: Sequence[Hashable], most: int) -> list[tuple[int, int]]:
    """Blocks of layers that repeat, one after the other, as places where they begin and end: those of which an engine
    can be given the weights of the next. Of small ones, several are one block; large ones need several engines.

    Args:
        kinds: What each layer computes (`alike.kind_of`).
        most: Layers of the largest engine.
    """
    if not kinds:
        return []
    begin, period, times = _repeat(kinds)
    step = period * _taken(period, times, most)
    end = begin + times * period // step * step
    if end - begin - step < most:  # no engine is saved
        return []
    behind = [(a + end, b + end) for a, b in blocks(kinds[end:], most)]
    return [*blocks(kinds[:begin], most), *((a, a + step) for a in range(begin, end, step)), *behind]


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
