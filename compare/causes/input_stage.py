"""Preprocessing: what enters the network is scaled, shifted or has its channels reversed, on one side alone.

Looks at: what the first layer is given on both sides, of layers that read nothing but an input of the network. Proves:
that the candidate's is the reference's with its channels reversed (RGB against BGR), or times a gain plus an offset
(1/255, a mean), up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..report.model import Cause
from . import other_operand
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import in_graphs
from .evidence import gains_text, numbers_text

SAME = 1e-4
"""Largest distance, relative to the input's spread, of what is the same after a gain and an offset."""
TOLD = 1e-3
"""Least change of a gain from 1, or of an offset from 0 relative to the spread, that is told."""
COLOURS = 3
FEWEST = 16
"""Values from which on a fit says something."""


@dataclass(frozen=True)
class Reversed:
    """The channels of the input in reverse order."""

    axis: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the input's channels are reversed along axis {self.axis}: RGB against BGR"


@dataclass(frozen=True)
class Scaled:
    """The input times a gain, or one for each channel, before its offset."""

    gains: tuple[float, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the input is scaled by {gains_text(self.gains)}"


@dataclass(frozen=True)
class Shifted:
    """The input plus an offset, or one for each channel."""

    offsets: tuple[float, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the input is shifted by {numbers_text(self.offsets)}"


@dataclass(frozen=True)
class _Fit:
    gains: np.ndarray
    offsets: np.ndarray
    left: float
    spread: float


def find(case: LayerCase) -> Diagnosis | None:
    """What the candidate does to the network's input, and the reference does not."""
    reads = case.pair.reference.inputs
    if len(reads) != 1 or reads[0] not in case.graphs[0].inputs:
        return None
    given = case.operands()
    if given is None or any(x.dtype.kind not in "fiu" for x in given):
        return None
    found = _of(*(x.astype(np.float64) for x in given))
    if found is not None and len(case.graphs[0].consumers.get(reads[0], ())) > 1:
        told = other_operand.find(case)  # several nodes read the input, and what one file does to it is one fault
        if told is not None:
            return told
    says = in_graphs(case)
    return found if found is None or says is None else replace(found.adding(*says.facts), node=says.node)


def _of(mine: np.ndarray, theirs: np.ndarray) -> Diagnosis | None:
    if mine.shape != theirs.shape or mine.size < FEWEST or not np.isfinite(mine).all() or not np.isfinite(theirs).all():
        return None
    axes = [a for a in dict.fromkeys((1, mine.ndim - 1)) if mine.ndim > 2 and mine.shape[a] == COLOURS]
    for axis in (None, *axes):
        if (fit := _fitted(mine, theirs, axis)) is not None:
            return _diagnosis(fit)
    for axis in axes:
        if (fit := _fitted(np.flip(mine, axis), theirs, axis)) is not None:
            return _diagnosis(fit, axis)
    return None


def _fitted(mine: np.ndarray, theirs: np.ndarray, axis: int | None) -> _Fit | None:
    """theirs = gain x mine + offset by least squares, for the tensor or each channel; None where that is not so."""
    count = 1 if axis is None else mine.shape[axis]
    a, b = (x.reshape(1, -1) if axis is None else np.moveaxis(x, axis, 0).reshape(count, -1) for x in (mine, theirs))
    mean_a, mean_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    power = ((a - mean_a) ** 2).sum(1)
    spread = float(np.sqrt(((b - mean_b) ** 2).mean()))
    if not power.all() or not spread:
        return None
    gains = ((a - mean_a) * (b - mean_b)).sum(1) / power
    offsets = mean_b[:, 0] - gains * mean_a[:, 0]
    left = float(np.sqrt(np.mean((b - gains[:, None] * a - offsets[:, None]) ** 2)))
    return _Fit(gains, offsets, left, spread) if left < SAME * spread else None


def _diagnosis(fit: _Fit, reversed_along: int | None = None) -> Diagnosis | None:
    scaled = Scaled(_listed(fit.gains)) if np.any(np.abs(fit.gains - 1) > TOLD) else None
    shifted = Shifted(_listed(fit.offsets)) if np.any(np.abs(fit.offsets) > TOLD * fit.spread) else None
    turned = None if reversed_along is None else Reversed(reversed_along)
    facts = tuple(fact for fact in (turned, scaled, shifted) if fact is not None)
    return Diagnosis(Cause.SCALE if turned is None else Cause.LAYOUT, facts) if facts else None


def _listed(values: np.ndarray) -> tuple[float, ...]:
    """One number for all channels where they have the same."""
    alike = bool(np.all(np.abs(values - values[0]) <= TOLD * np.abs(values).max()))
    return (float(values[0]),) if alike else tuple(map(float, values))
