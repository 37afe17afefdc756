"""Is the candidate the reference with its axes in another order? NHWC against NCHW, most of all.

A permutation is named only on evidence: the permuted candidate has to be near the reference, the candidate as it stands
(where its shape allows that question) has to be far from it, and no other permutation may fit as well. So a constant or
a symmetric tensor, which fits in every order, is never called transposed.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from ..statistics.statistics import Statistics

if TYPE_CHECKING:
    from ...runners.contract.device import DeviceArray
    from .tolerance import Tolerance

NEAR = 0.1
"""Largest relative L2 distance, to the reference around its mean, of what is called the same values."""
MARGIN = 8.0
"""How many times further off every other order has to be."""
APART = 1e-3
"""Least distance of every other order, where the best one fits to the last bit."""
MAX_RANK = 6
"""Beyond it (720 orders) nobody transposes."""
SAMPLE = 1 << 14
"""Elements looked at to discard an order, before all are."""


def transposition(
    reference: np.ndarray | DeviceArray, candidate: np.ndarray | DeviceArray, allowed: Tolerance | None = None
) -> tuple[int, ...] | None:
    """The permutation that turns the candidate into the reference.

    Distances are L2 norms over pairs that are finite, relative to the reference's distance from its own mean.

    Args:
        reference, candidate: Tensors of any numeric dtype and the same number of elements.
        allowed: The tolerance of the pair: a candidate that satisfies it as it stands is not transposed.

    Returns:
        ``axes`` such that ``candidate.transpose(axes)`` is the reference but for noise; None where there is no such
        order but the given one, or more than one. Orders that differ only in where axes of length 1 go are the same;
        of those, the one that keeps most axes in place comes back.
    """
    rank = reference.ndim
    if candidate.ndim != rank or not 2 <= rank <= MAX_RANK or reference.size != candidate.size or reference.size < 4:
        return None
    if any(x.dtype.kind in "OSUT" for x in (reference, candidate)):
        return None
    if sorted(reference.shape) != sorted(candidate.shape):
        return None
    if reference.shape == candidate.shape and len(_orders(reference.shape, candidate.shape)) == 1:
        return None  # no axes of one length: only the given order fits
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if reference.shape == candidate.shape and Statistics(full=False).update(reference, candidate, allowed).agree:
        return None
    identity = tuple(range(rank))
    spread = _spread(reference)
    if not spread or not math.isfinite(spread):
        return None
    best: tuple[float, tuple[int, ...]] | None = None
    others: list[float] = []
    for axes in _orders(reference.shape, candidate.shape):
        distance = _distance(reference, candidate.transpose(axes), spread)
        if best is None or distance < best[0]:
            if best is not None:
                others.append(best[0])
            best = distance, axes
        else:
            others.append(distance)
    if best is None or best[0] > NEAR:
        return None
    if reference.shape == candidate.shape and _real(best[1], candidate.shape) == _real(identity, candidate.shape):
        return None
    if any(o < max(MARGIN * best[0], APART) for o in others):
        return None
    return best[1]


def _orders(reference: tuple[int, ...], candidate: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every distinct order of axes that gives the candidate the reference's shape, the least moved first."""
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for axes in sorted(permutations(range(len(candidate))), key=lambda p: sum(a != i for i, a in enumerate(p))):
        if tuple(candidate[a] for a in axes) == reference:
            found.setdefault(_real(axes, candidate), axes)
    return list(found.values())


def _real(axes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The order of the axes that are longer than 1."""
    return tuple(a for a in axes if shape[a] > 1)


def _spread(x: np.ndarray) -> float:
    """L2 norm of a tensor around its mean, over finite values."""
    wide = x.reshape(-1).astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    wide = wide[np.isfinite(wide)]
    if not wide.size:
        return 0.0
    with np.errstate(over="ignore"):
        return float(np.linalg.norm(wide - wide.mean()))


def _distance(reference: np.ndarray, candidate: np.ndarray, spread: float) -> float:
    """L2 distance relative to ``spread``; from a sample of the elements where that alone is far too much."""
    if reference.size > 4 * SAMPLE:
        step = reference.size // SAMPLE | 1
        where = np.unravel_index(np.arange(0, reference.size, step), reference.shape)
        part = Statistics(full=False).update(reference[where], candidate[where])
        rough = _relative(part, spread * math.sqrt(part.count / reference.size))
        if rough > 4 * NEAR * MARGIN:
            return rough
    return _relative(Statistics(full=False).update(reference, np.ascontiguousarray(candidate)), spread)


def _relative(statistics: Statistics, spread: float) -> float:
    if statistics.nan[0] != statistics.nan[1] or statistics.inf[0] != statistics.inf[1]:
        return math.inf
    measures = statistics.measures(finite_only=True)
    return float(measures["rmse"]) * math.sqrt(statistics.finite) / spread if statistics.finite else math.inf
