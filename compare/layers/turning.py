"""Is a tensor the reference's in another order, or turned, along an axis that weights are multiplied along? Or has each
channel a factor of its own?"""

from __future__ import annotations

import math

import numpy as np

from ...graph.specs import is_float

AXES: dict[int, tuple[tuple[int, ...], ...]] = {
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


def turning(reference: np.ndarray, candidate: np.ndarray) -> float:
    """How far a tensor is from being another one turned: by one orthogonal matrix, or one other order, for all rows.

    Such a matrix is there just if the products of all rows with each other are the same. Rows are taken less their
    mean, which is turned as they are: what they have in common says little.

    Args:
        reference, candidate: The tensors.

    Returns:
        The relative difference of these products, the least over the axes that weights may be multiplied along.
        Infinite where no axis has rows enough.
    """
    if reference.shape != candidate.shape or not is_float(reference.dtype) or not is_float(candidate.dtype):
        return math.inf
    among = AXES.get(reference.ndim, ())
    return min((_apart(reference, candidate, axes) for axes in among), default=math.inf)


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


def _apart(reference: np.ndarray, candidate: np.ndarray, axes: tuple[int, ...]) -> float:
    with np.errstate(all="ignore"):
        rows = _rows(reference, candidate, axes)
        if rows is None:
            return math.inf
        mine, theirs = ((row - row.mean(0)) @ (row - row.mean(0)).T for row in rows)
        size, apart = float(np.linalg.norm(mine)), float(np.linalg.norm(mine - theirs))
    return apart / size if 0 < size < math.inf and math.isfinite(apart) else math.inf


def _rows(reference: np.ndarray, candidate: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
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
