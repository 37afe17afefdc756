"""Layers in groups that run side by side in one engine."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import LayerPair

MOST = 20
"""Most layers of one engine. Those of a transformer's 121 layers took two processes 23 s in groups of 20, 36 s in
groups of 12 or of 22, and one of 29 layers takes 11 to 14 s by itself (H200, TensorRT 8.6, which refuses 41)."""


def together(
    pairs: Sequence[LayerPair],
    refused: Collection[tuple[int, ...]] = (),
    most: int = MOST,
    borders: Collection[int] = (),
) -> list[Sequence[LayerPair]]:
    """Layers in groups that run together: as few of one size as there can be.

    Args:
        pairs: The layers.
        refused: Groups that do not run together, by the layers' numbers: they run in two halves, and so on, so that one
            layer that cannot run hides no other.
        most: Layers of the largest group.
        borders: Numbers of layers that begin a group.
    """
    cuts = [0, *(i for i, pair in enumerate(pairs) if i and pair.number in borders), len(pairs)]
    parts = [pairs[a + part : a + end] for a, b in pairwise(cuts) for part, end in _evenly(b - a, most)]
    return [group for part in parts for group in _halves(part, refused)]


def _evenly(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Where parts of almost one size begin and end, none of them of more than ``most``."""
    parts = max(math.ceil(count / most), 1)
    yield from ((i * count // parts, (i + 1) * count // parts) for i in range(parts))


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
