"""Is a tensor the reference's in another order, or turned, along an axis that weights are multiplied along?"""

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


def _apart(reference: np.ndarray, candidate: np.ndarray, axes: tuple[int, ...]) -> float:
    places = [d for i, d in enumerate(reference.shape) if i not in axes]
    count = math.prod(places)
    if count < FEWEST or not reference.size:
        return math.inf
    chosen = np.unravel_index(np.linspace(0, count - 1, min(count, ROWS)).astype(int), places)
    products = []
    with np.errstate(all="ignore"):
        for tensor in (reference, candidate):
            rows = np.moveaxis(tensor, axes, range(-len(axes), 0))[chosen].astype(np.float64)
            rows = rows.reshape(len(rows), -1)
            rows -= rows.mean(0)
            products.append(rows @ rows.T)
        size, apart = (float(np.linalg.norm(product)) for product in (products[0], products[0] - products[1]))
    return apart / size if 0 < size < math.inf and math.isfinite(apart) else math.inf
