"""Scale: the candidate is the reference times a gain, plus an offset, for the tensor or channel by channel.

Looks at: a least-squares fit of the candidate's output to the reference's. Proves: that nearly all of the error goes
away with two numbers (a wrong scale, epsilon, bias or constant). A gain of next to nothing is no scale but values that
are lost, unless what is left of them is the reference exactly: samples of 16 bits, divided by 32,768.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import other_operator, other_operators, replaced, replaces_scaling
from .evidence import gains_text
from .judgement import by_channel, channel_axis

FITTED = 0.02
"""Share of the power of the error, and of the candidate's own spread, that may be left once a gain and an offset are
taken out, for them to be the cause: what is next to nothing beside the reference is of any gain."""
LOST = 1e-3
"""Gain below which values are lost, not scaled, unless the fit leaves nothing."""
EXACT = 1e-4
"""Distance from a fit, relative to the candidate's spread, that leaves nothing."""
NO_OFFSET = 1e-6
"""Offset up to which none is told."""
ONE = 1e-5
"""Distance of a gain from one up to which nothing is scaled."""
FEWEST = 8
"""Values from which on a fit says something."""


@dataclass(frozen=True)
class Fit:
    """candidate = gain x reference + offset."""

    gain: float
    offset: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        offset = f" {'-' if self.offset < 0 else '+'} {abs(self.offset):.3g}" if abs(self.offset) > NO_OFFSET else ""
        gain = "" if self.shifts else f"{gains_text((self.gain,))} x "
        return f"candidate = {gain}reference{offset}"

    @property
    def shifts(self) -> bool:
        """Whether nothing but a number is added."""
        return abs(self.gain - 1) <= ONE and abs(self.offset) > NO_OFFSET

    @property
    def remedy(self) -> str:
        """What to do; empty where the two numbers do not tell."""
        if self.shifts:
            less = "less" if self.offset < 0 else "more"
            return f"put the constant right in the second file: what it makes there is {abs(self.offset):.3g} {less}"
        if abs(self.offset) <= NO_OFFSET:
            times = gains_text((self.gain,))
            return f"put the scale right in the second file: what it makes there is {times} times the first file's"
        return ""


@dataclass(frozen=True)
class FitByChannel:
    """The same with a gain and an offset for each channel: the least and the greatest of them."""

    gains: tuple[float, float]
    offsets: tuple[float, float]

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"each channel is scaled and shifted: gains {self.gains[0]:.4g} to {self.gains[1]:.4g}, "
            f"offsets {self.offsets[0]:.3g} to {self.offsets[1]:.3g}"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """A fit that explains the error, unless another operator does."""
    if replaces_scaling(case):
        return None
    y, c = case.y, case.c
    error = _error(y, c)
    if y.size < FEWEST or not error:
        return None
    fact = _whole(y, c, error) or _by_channel(y, c, error)
    return None if fact is None else Diagnosis(Cause.SCALE, (fact, *other_operators(case)))


def of_other_operator(case: LayerCase) -> Diagnosis | None:
    """Another operator, and by how many times what it makes is larger, if that is all: two functions always have a best
    fit to each other."""
    found = other_operator(case)
    y, c = case.y, case.c
    if found is None or not replaced(case) or y.shape != c.shape or y.size < FEWEST or not is_float(y.dtype):
        return found
    error = _error(y, c)
    fit = _whole(y, c, error) if 0 < error < np.inf else None
    left = 0.0 if fit is None else _error(fit.gain * y.astype(np.float64), c)
    return found if fit is None or left > EXACT**2 * float(np.sum(c.astype(np.float64) ** 2)) else found.adding(fit)


def _error(y: np.ndarray, c: np.ndarray) -> float:
    return float(np.sum((c.astype(np.float64) - y.astype(np.float64)) ** 2))


def _whole(y: np.ndarray, c: np.ndarray, error: float) -> Fit | None:
    a, b = y.astype(np.float64).reshape(-1), c.astype(np.float64).reshape(-1)
    centred = a - a.mean()
    power = float(centred @ centred)
    if not power:
        return None
    gain = float(centred @ (b - b.mean())) / power
    offset = float(b.mean() - gain * a.mean())
    left = float(np.sum((b - gain * a - offset) ** 2))
    spread = float(np.sum((b - b.mean()) ** 2))
    lost = abs(gain) <= LOST and left > EXACT**2 * spread
    return Fit(gain, offset) if gain and not lost and left < FITTED * min(error, spread) else None


def _by_channel(y: np.ndarray, c: np.ndarray, error: float) -> FitByChannel | None:
    axis = channel_axis(y.shape)
    if axis is None:
        return None
    n = y.shape[axis]
    a, b = by_channel(y, axis), by_channel(c, axis)
    if a.shape[1] < FEWEST:
        return None
    mean_a, mean_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    spread = ((a - mean_a) ** 2).sum(1)
    gains = np.divide(((a - mean_a) * (b - mean_b)).sum(1), spread, out=np.ones(n), where=spread > 0)
    offsets = mean_b[:, 0] - gains * mean_a[:, 0]
    left = float(np.sum((b - gains[:, None] * a - offsets[:, None]) ** 2))
    if left > FITTED * min(error, float(np.sum((b - mean_b) ** 2))):
        return None
    return FitByChannel((float(gains.min()), float(gains.max())), (float(offsets.min()), float(offsets.max())))
