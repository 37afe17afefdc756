"""Shape ranges of inputs, as the command line and a caller give them: one set for each optimization profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..graph.errors import UsageError
from ..graph.options import Kind, Named
from ..runners.contract.workload import ShapeRange

ShapeSet = Mapping[str, ShapeRange]
"""Shape ranges by input name."""


class _Range(Kind):
    """``1x3x224x224``, or the smallest, the usual and the largest shape: ``MIN..OPT..MAX``."""

    def read(self, text: str) -> ShapeRange:
        parts = text.split("..")
        if not all(re.fullmatch(r"(\d+(x\d+)*)?", part) for part in parts) or len(parts) not in (1, 3):
            raise self.refusal()
        dims = [tuple(int(d) for d in part.split("x")) if part else () for part in parts]
        low, best, high = dims if len(dims) == 3 else dims * 3
        ordered = all(a <= b <= c for a, b, c in zip(low, best, high, strict=False))
        if not len(low) == len(best) == len(high) or not ordered:
            raise ValueError("min, opt and max need the same rank, and min <= opt <= max everywhere")
        return ShapeRange(low, best, high)


class ShapeSets(Named):
    """``NAME:DIMS``; an input that is named several times has one range for each optimization profile."""

    def __init__(self) -> None:
        super().__init__(_Range(), "NAME:1x3x224x224, or three of them, NAME:MIN..OPT..MAX")

    def check(self, value: Sequence[ShapeSet]) -> None:
        """See `Kind.check`."""

    def collect(self, values: Sequence[tuple[str, ShapeRange]]) -> tuple[ShapeSet, ...]:  # type: ignore[override]
        """See `Kind.collect`."""
        named: dict[str, list[ShapeRange]] = {}
        for name, shape in values:
            named.setdefault(name, []).append(shape)
        count = max(map(len, named.values()), default=1)
        for name, shapes in named.items():
            if len(shapes) not in (1, count):
                most = next(n for n, found in named.items() if len(found) == count)
                raise ValueError(
                    f"{count} profiles for {most} and {len(shapes)} for {name}: "
                    f"give {name} once, for all of them, or {count} times"
                )
        return tuple({name: shapes[min(k, len(shapes) - 1)] for name, shapes in named.items()} for k in range(count))


def as_sets(
    shapes: Mapping[str, ShapeRange | Sequence[int]] | Sequence[Mapping[str, ShapeRange | Sequence[int]]] | None,
) -> tuple[ShapeSet, ...]:
    """What a caller gives as a tuple of sets; empty where nothing was given.

    Args:
        shapes: Ranges by input name, or several such sets. Plain dimensions are a range of that one shape.

    Raises:
        UsageError: Something is neither a range nor dimensions.
    """
    several = isinstance(shapes, Iterable) and not isinstance(shapes, (Mapping, str, bytes))
    sets: list[Any] = list(shapes or ()) if several else [] if shapes is None else [shapes]
    for one in sets:
        if not isinstance(one, Mapping):
            raise UsageError(f"shapes: {one!r} gives no shapes by name: {{'x': (1, 3, 224, 224)}} does.")
    return tuple({name: _as_range(name, value) for name, value in one.items()} for one in sets if one)


def _as_range(name: str, value: ShapeRange | Sequence[int]) -> ShapeRange:
    if isinstance(value, ShapeRange):
        return value
    if not isinstance(value, (tuple, list)) or not all(isinstance(d, int) and d >= 0 for d in value):
        raise UsageError(f"shapes: {name}: {value!r} is no shape; (1, 3, 224, 224) or ShapeRange(min, opt, max) is.")
    dims = tuple(value)
    return ShapeRange(dims, dims, dims)
