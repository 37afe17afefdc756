"""What is allowed where the expected error cannot be measured: a formula of depth and format.

|c - r| <= t (|r| + scale), with t = 4 sqrt(u^2 depth + u_acc^2 terms / 2): u is the unit roundoff of the coarsest
format in play, depth the number of layers that round on the longest path to the output, terms the number of products
that are summed along such a path, and u_acc the unit roundoff of the sums. Rounding errors are as good as independent
and add up like a random walk, hence the root. scale is the smallest RMS of the slices through an element that hold at
least `SLICE` elements: an output near zero carries the error of the larger terms that cancelled in it.

The formula knows neither the weights nor the data. It is coarser than what is measured, in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...graph.formats import BY_DTYPE, FP32, NumberFormat, coarser
from ...graph.index import GraphIndex
from ...graph.rounding.depth import Depth, depth

FACTOR = 4.0
"""The 4 in the formula of t."""
SLICE = 64
"""Fewest elements whose RMS says what size values have."""
DECIDABLE = 0.25
"""Largest t that still tells a right output from a wrong one."""
ULPS = 4
"""t is never under this many units in the last place of the output's dtype."""


@dataclass(frozen=True)
class Formula:
    """The formula for one output.

    Attributes:
        t: The relative tolerance.
        floor: The least allowed error: below it the format in play has no numbers.
    """

    t: float
    floor: float

    def allowed(self, reference: np.ndarray) -> np.ndarray:
        """The allowed error of each element of a tensor."""
        size = np.abs(reference.astype(np.complex128 if reference.dtype.kind == "c" else np.float64))
        return np.maximum(self.t * (size + _scale(np.where(np.isfinite(size), size, 0.0))), self.floor)


def formula(index: GraphIndex, output: str, formats: Sequence[NumberFormat], dtype: np.dtype) -> Formula:
    """The formula for an output of a graph.

    Args:
        index: The reference's graph.
        output: The output.
        formats: The number formats in play.
        dtype: The output's dtype.
    """
    return rule(depth(index, output), formats, dtype)


def rule(found: Depth, formats: Sequence[NumberFormat], dtype: np.dtype) -> Formula:
    """The formula at a depth."""
    stored = BY_DTYPE.get(np.dtype(f"f{dtype.itemsize // 2}").name if dtype.kind == "c" else dtype.name, FP32)
    floats = [f for f in formats if not f.is_integer]
    coarsest = stored if not floats or stored.u >= min(f.u for f in floats) else floats[0]
    for f in floats:
        coarsest = coarser(coarsest, f)
    adding = min(coarsest.u, FP32.u)
    t = FACTOR * math.sqrt(coarsest.u**2 * max(int(found), 1) + adding**2 * found.terms / 2)
    return Formula(max(t, ULPS * 2 * stored.u), 2 * coarsest.smallest_subnormal)


def _scale(size: np.ndarray) -> np.ndarray | float:
    """For each element the smallest RMS of the slices through it: all elements, one index of one axis, one row."""
    if not size.size:
        return 0.0
    squares = np.square(size)
    result: np.ndarray | float = math.sqrt(float(squares.mean()))
    kept: list[tuple[int, ...]] = [(axis,) for axis in range(size.ndim) if size.size // size.shape[axis] >= SLICE]
    if size.ndim > 1 and size.shape[-1] >= SLICE:
        kept.append(tuple(range(size.ndim - 1)))
    for axes in kept:
        over = tuple(a for a in range(size.ndim) if a not in axes)
        result = np.minimum(result, np.sqrt(squares.mean(axis=over, keepdims=True)))
    return result
