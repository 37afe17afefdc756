"""Is a tensor the reference's in another order, or turned, along an axis that weights are multiplied along? Or has each
channel a factor of its own?"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ...graph.specs import is_float

Axes: TypeAlias = "tuple[int, ...]"
"""Axes of a tensor that are one to the weights."""

AXES: dict[int, tuple[Axes, ...]] = {
    2: ((1,),),
    3: ((2,), (1,)),
    4: ((3,), (1,), (1, 3), (2, 3)),
    5: ((4,), (1,)),
}
"""By rank, the axes that weights may be multiplied along: the last, that of channels, and each with that of heads."""
ROWS = 64
"""Rows that are looked at."""
FEWEST = 4
"""Rows below which that says nothing: of a single one, every other of its length is a turned one."""
SAME = 0.01
"""Relative difference of rows, each in order of size, up to which they hold the same values."""
UNRELATED = 1.0
"""How far apart tensors are that are not turned into each other, in any format: it is not looked how."""
ORDER, SIGN, BOTH, TURNED = (
    "in another order",
    "with the other sign in some places",
    "in another order and with the other sign in some places",
    "turned",
)
"""What may have been done to rows, in words: the first that is true says the most."""


@dataclass(frozen=True)
class Turning:
    """How far a tensor is from being another one turned: by one orthogonal matrix, or one other order, for all rows.

    Such a matrix is there just if the products of all rows with each other are the same. Rows are taken less their
    mean, which is turned as they are: what they have in common says little.

    Attributes:
        apart: The relative difference of these products, by the axes that weights may be multiplied along. Infinite
            where there are too few rows.
        how: What it is that was done to the rows along the axes of the least, in words.
    """

    apart: Mapping[Axes, float] = field(default_factory=dict)
    how: str = TURNED

    def along(self, among: Collection[Axes] | None = None) -> float:
        """The least over all axes, or over some of them."""
        return min((v for axes, v in self.apart.items() if among is None or axes in among), default=math.inf)


def turning(reference: np.ndarray, candidate: np.ndarray) -> Turning:
    """How far a tensor is from being another one turned.

    Args:
        reference, candidate: The tensors.
    """
    if reference.shape != candidate.shape or not is_float(reference.dtype) or not is_float(candidate.dtype):
        return Turning()
    apart = {axes: _apart(reference, candidate, axes) for axes in AXES.get(reference.ndim, ())}
    least = min(apart, key=lambda axes: apart[axes], default=())
    if not least or apart[least] >= UNRELATED:
        return Turning(apart)
    return Turning(apart, _how(reference, candidate, least))


def _how(reference: np.ndarray, candidate: np.ndarray, axes: Axes) -> str:
    """What was done to rows that are turned: whether they hold the same values, or those of the same size."""
    rows = _rows(reference, candidate, axes)
    if rows is None:
        return TURNED
    mine, theirs = rows
    plain, sizes = (mine, theirs), (np.abs(mine), np.abs(theirs))
    ways = ((SIGN, sizes), (ORDER, [np.sort(x) for x in plain]), (BOTH, [np.sort(x) for x in sizes]))
    with np.errstate(all="ignore"):
        same = (how for how, (x, y) in ways if float(np.linalg.norm(x - y)) <= SAME * float(np.linalg.norm(x)))
        return next(same, TURNED)


def scaling(reference: np.ndarray, candidate: np.ndarray) -> float:
    """How far a tensor is from being another one with a factor for each channel: by least squares.

    Args:
        reference, candidate: The tensors.

    Returns:
        The relative L2 error that is left, the least over the last axis and that of channels. Infinite where neither
        has rows enough.
    """
    if reference.shape != candidate.shape or not is_float(reference.dtype) or not is_float(candidate.dtype):
        return math.inf
    axes = {axis for (axis, *more) in AXES.get(reference.ndim, ()) if not more and axis in (1, reference.ndim - 1)}
    return min((_left(reference, candidate, axis) for axis in axes), default=math.inf)


def _left(reference: np.ndarray, candidate: np.ndarray, axis: int) -> float:
    with np.errstate(all="ignore"):
        rows = _rows(reference, candidate, (axis,))
        if rows is None:
            return math.inf
        mine, theirs = rows
        factors = np.sum(mine * theirs, 0) / np.maximum(np.sum(mine * mine, 0), np.finfo(np.float64).tiny)
        left = float(np.linalg.norm(theirs - factors * mine) / np.linalg.norm(theirs))
    return left if math.isfinite(left) else math.inf


def _apart(reference: np.ndarray, candidate: np.ndarray, axes: Axes) -> float:
    with np.errstate(all="ignore"):
        rows = _rows(reference, candidate, axes)
        if rows is None:
            return math.inf
        mine, theirs = ((row - row.mean(0)) @ (row - row.mean(0)).T for row in rows)
        size, apart = float(np.linalg.norm(mine)), float(np.linalg.norm(mine - theirs))
    return apart / size if 0 < size < math.inf and math.isfinite(apart) else math.inf


def _rows(reference: np.ndarray, candidate: np.ndarray, axes: Axes) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows along some axes of two tensors, as far apart as there are; None where there are too few."""
    places = [d for i, d in enumerate(reference.shape) if i not in axes]
    count = math.prod(places)
    if count < FEWEST or not reference.size:
        return None
    chosen = np.unravel_index(np.linspace(0, count - 1, min(count, ROWS)).astype(int), places)
    last = range(-len(axes), 0)
    rows = (np.moveaxis(tensor, axes, last)[chosen].astype(np.float64) for tensor in (reference, candidate))
    mine, theirs = (row.reshape(len(row), -1) for row in rows)
    return mine, theirs
