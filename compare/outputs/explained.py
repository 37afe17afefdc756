"""Is the error of an output explained by rounding? One sample against draws of the error that rounding makes there.

The draws come from the same network with every rounding drawn at random (`graph.rounding.random_rounding`). An error is
held against them by five statistics, each of which is 1 for the typical draw:

- *rms*: root mean square of the error over that of the draws;
- *slice*: the same for the worst slice of at least `SLICE` elements: one index of one axis, or neighbours in memory;
- *magnitude*: the same for the worst set of elements of one binary exponent: what is small is not excused by what is
  large;
- *element*: the worst single element, in standard deviations. A standard deviation of few draws is uncertain, so it is
  moderated by that of the elements of like magnitude, as far as these are alike (G. K. Smyth, *Linear models and
  empirical Bayes methods*, Stat. Appl. Genet. Mol. Biol. 3, 2004);
- *gain*: a gain that all channels have in common, in standard errors.

A statistic may reach its floor (`FLOORS`), and beyond that `MARGIN` times what it is for the worst of the draws when
each is held against the others: heavy tails and errors that move together are measured, not assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...graph.interrupts import uninterrupted

SLICE = 64
"""Fewest elements of a slice."""
MARGIN = 2.0
"""Times the worst draw's statistic that a healthy candidate's may be."""
FLOORS: Mapping[str, float] = {"rms": 3.0, "slice": 4.0, "magnitude": 4.0, "element": 8.0}
"""What a statistic may reach at least; the root mean square of few elements more (`floors`)."""
CROSSING = 4
"""Times the expected number of elements that change their sign in no draw and in the candidate, that it may have."""
CLASS = 32
"""Fewest elements of like magnitude that moderate each other's standard deviation."""


def floors(size: int) -> dict[str, float]:
    """What the statistics of an output may reach at least.

    The root mean square of a few elements scatters as these do: a single one may reach what an element may, and from 51
    elements on the floor of `FLOORS` holds.

    Args:
        size: Elements of the output.
    """
    return {**FLOORS, "rms": max(FLOORS["rms"], FLOORS["element"] / max(size, 1) ** 0.25)}


@dataclass(frozen=True)
class Held:
    """An error held against draws.

    Attributes:
        statistics: By name (see the module).
        expected: Relative L2 error that rounding makes.
        relative: Relative L2 error that there is.
        worst: Position of the worst element in C order.
        beyond: Elements beyond the floor of single ones.
    """

    statistics: Mapping[str, float]
    expected: float
    relative: float
    worst: int
    beyond: int

    def use(self, limits: Mapping[str, float]) -> tuple[float, str]:
        """The largest share of a limit, and the statistic that it is of."""
        shares = {name: value / limits[name] for name, value in self.statistics.items()}
        name = max(shares, key=lambda n: shares[n])
        return shares[name], name

    def without(self, statistic: str) -> Held:
        """The same with one statistic less."""
        return replace(self, statistics={n: value for n, value in self.statistics.items() if n != statistic})

    def within(self, limits: Mapping[str, float]) -> bool:
        """Whether no statistic exceeds its limit."""
        return all(value <= limits[name] for name, value in self.statistics.items())


def hold(
    error: np.ndarray,
    reference: np.ndarray,
    draws: np.ndarray,
    floor: np.ndarray | float = 0.0,
    *,
    entries: bool = False,
) -> Held:
    """Holds an error against draws.

    Args:
        error: Candidate minus reference, float64, finite, of the output's shape.
        reference: The reference's output.
        draws: Errors that rounding makes, ``(D, *shape)``.
        floor: Standard deviation of what no draw shows: the rounding of the output itself.
        entries: Whether the leading dimension is that of a batch: the variances of single elements are then those that
            its entries have in common (`pooled`), which a few draws tell.
    """
    shape = error.shape
    e, y, drawn = error.reshape(-1), reference.reshape(-1).astype(np.float64), draws.reshape(len(draws), -1)
    own = np.einsum("de,de->e", drawn, drawn) / len(drawn)
    own += np.broadcast_to(np.square(floor), shape).reshape(-1)
    squared = np.square(e)
    own = _with_crossings(e, y, own, drawn)
    np.abs(y, out=y)
    norm = math.sqrt(float(y @ y))
    total, expected = float(squared.sum()), float(own.sum())
    statistics = {
        "rms": _ratio(total, expected),
        "slice": _slices(squared, own, shape),
        "magnitude": _magnitudes(squared, own, y),
    }
    deviation = np.sqrt(pooled(own, y, len(draws), shape[0]) if entries else moderated(own, y, len(draws)))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.divide(np.abs(e), deviation, out=deviation)
    z[e == 0] = 0.0
    worst = int(z.argmax()) if z.size else 0
    statistics["element"] = float(z[worst]) if z.size else 0.0
    relative = math.sqrt(total) / norm if norm else (math.inf if total else 0.0)
    beyond = int(np.count_nonzero(z > FLOORS["element"]))
    return Held(statistics, math.sqrt(expected) / norm if norm else math.inf, relative, worst, beyond)


def _with_crossings(error: np.ndarray, y: np.ndarray, own: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Variances, of elements too that change their sign in the candidate and in no draw.

    What a Relu leaves zero because it is barely below zero, may come out barely above: no draw shows noise there, and
    yet it is none of another kind. How many more elements one more draw would take across is estimated by those that
    just one of the draws does, divided by the number of draws (I. J. Good, *The population frequencies of species and
    the estimation of population parameters*, Biometrika 40, 1953). As many of them as that explains, and as are no
    larger than the noise of the smallest elements on the other side allows, have that noise.

    Args:
        error, y, own: Of each element: the candidate's error, the reference's value, the variance.
        draws: Errors that rounding makes, ``(D, elements)``.
    """
    crossed = np.flatnonzero((error != 0) & (np.abs(error) >= np.abs(y)))  # no smaller error changes a sign
    crossed = crossed[_crosses(y[crossed], error[crossed]) & (y[crossed] + error[crossed] != 0)]
    crossed = crossed[~_crosses(y[crossed], draws[:, crossed]).any(axis=0)]
    if not crossed.size:
        return own
    near = np.flatnonzero(np.square(y) <= (1 + 1e-9) * len(draws) * own)  # nor does a smaller draw
    once = np.count_nonzero(_crosses(y[near], draws[:, near]).sum(axis=0) == 1)
    if crossed.size > CROSSING * (1 + (once + 1) / len(draws)):
        return own
    result, there = own.copy(), np.sign(y[crossed] + error[crossed])
    for side in (-1, 1):
        mine, others = crossed[there == side], np.flatnonzero((np.sign(y) == side) & (own > 0))
        if mine.size and others.size >= CLASS:
            count = min(SLICE, others.size)
            smallest = others[np.argpartition(np.abs(y[others]), count - 1)[:count]]
            variance = float(own[smallest].mean())
            small = mine[np.abs(error[mine]) <= FLOORS["element"] * math.sqrt(variance)]
            result[small] = np.maximum(own[small], variance)
    return result


def _crosses(y: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Where an error changes the sign of a value; zero has one of its own."""
    return np.sign(y + error) != np.sign(y)


def limits(reference: np.ndarray, draws: np.ndarray, floor: np.ndarray | float = 0.0) -> dict[str, float]:
    """What each statistic may reach: `MARGIN` times the worst draw's, each draw held against the others."""
    worst = among_themselves(reference, draws, floor)
    return {name: max(least, MARGIN * worst[name]) for name, least in floors(reference.size).items()}


def among_themselves(
    reference: np.ndarray, draws: np.ndarray, floor: np.ndarray | float = 0.0, entries: bool = False
) -> dict[str, float]:
    """The worst draw's statistics, each draw held against the others; ``entries``: see `hold`."""
    others = (np.delete(draws, k, axis=0) for k in range(len(draws)))
    held = (hold(d, reference, o, floor, entries=entries).statistics for d, o in zip(draws, others, strict=True))
    found = list(held)
    return {name: max(statistics[name] for statistics in found) for name in FLOORS}


def moderated(variance: np.ndarray, magnitude: np.ndarray, draws: int) -> np.ndarray:
    """Variances of elements from ``draws`` draws, each moderated by those of like magnitude.

    Among elements of one binary exponent, log variances scatter by what few draws make them scatter and by what the
    elements really differ in. Where they hardly differ, the common variance counts for many draws; where they differ
    much, for none.
    """
    with uninterrupted():
        from scipy.special import digamma, polygamma

    result = variance.copy()
    alive = variance > 0
    if not alive.any():
        return result
    exponent = np.frexp(magnitude)[1].astype(np.int64)
    exponent -= exponent.min()
    count = np.bincount(exponent, alive)
    logs = np.where(alive, variance, 1.0)
    np.log(logs, out=logs)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(exponent, logs) / count
        logs -= mean[exponent]
        logs *= logs
        logs[~alive] = 0.0
        scatter = np.bincount(exponent, logs) / np.maximum(count - 1, 1)
    del logs
    prior = np.exp(mean + math.log(draws / 2) - digamma(draws / 2))
    beyond = scatter - float(polygamma(1, draws / 2))
    weight = np.array([2 * _inverse_trigamma(b) if b > 0 else 1e6 for b in beyond])
    weight[~(count >= CLASS)] = 0.0
    prior[~(count >= CLASS)] = 0.0
    w, found = weight[exponent], prior[exponent]
    found *= w
    found += draws * variance
    w += draws
    found /= w
    return found


def pooled(variance: np.ndarray, magnitude: np.ndarray, draws: int, entries: int) -> np.ndarray:
    """Variances of elements from few draws of a batch: what its entries have in common.

    The smaller of two estimates: the mean variance of the element's place over all entries, in proportion to that of
    its entry, `moderated`; and the mean variance of elements of like magnitude, where there are enough of them.

    Args:
        variance: From ``draws`` draws.
        magnitude: Of the elements.
        draws: How many.
        entries: Entries of the batch, the leading dimension.
    """
    table = variance.reshape(entries, -1)
    mean = float(table.mean())
    if not mean:
        return variance
    common: np.ndarray = (table.mean(axis=1, keepdims=True) * table.mean(axis=0) / mean).reshape(-1)
    exponent = np.frexp(magnitude)[1].astype(np.int64)
    exponent -= exponent.min()
    count = np.bincount(exponent)
    alike = np.where(count >= CLASS, np.bincount(exponent, variance) / np.maximum(count, 1), np.inf)
    return np.minimum(moderated(common, magnitude, draws * entries), alike[exponent])


def _inverse_trigamma(x: float) -> float:
    """y with trigamma(y) = x, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    if x > 1e7:
        return 1 / math.sqrt(x)
    if x < 1e-6:
        return 1 / x
    y = 0.5 + 1 / x
    for _ in range(50):
        tri = float(polygamma(1, y))
        step = tri * (1 - tri / x) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y


def _ratio(squared: float, expected: float) -> float:
    return math.sqrt(squared / expected) if expected > 0 else (math.inf if squared > 0 else 0.0)


def _worst(squared: np.ndarray, expected: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(squared > 0, squared / expected, 0.0)
    return math.sqrt(float(ratio.max(initial=0.0)))


def _slices(squared: np.ndarray, own: np.ndarray, shape: Sequence[int]) -> float:
    """RMS over expected RMS of the worst slice."""
    size, found = squared.size, 0.0
    if size >= 2 * SLICE:
        blocks = size // SLICE * SLICE
        found = _worst(squared[:blocks].reshape(-1, SLICE).sum(axis=1), own[:blocks].reshape(-1, SLICE).sum(axis=1))
    for axis, length in enumerate(shape):
        if length > 1 and size // length >= SLICE:
            over = tuple(a for a in range(len(shape)) if a != axis)
            found = max(found, _worst(squared.reshape(shape).sum(axis=over), own.reshape(shape).sum(axis=over)))
    return found


def _magnitudes(squared: np.ndarray, own: np.ndarray, magnitude: np.ndarray) -> float:
    """RMS over expected RMS of the worst set of elements of one binary exponent."""
    exponent = np.frexp(magnitude)[1].astype(np.int64)
    exponent -= exponent.min(initial=0)
    count = np.bincount(exponent)
    enough = count >= SLICE
    return _worst(np.bincount(exponent, squared)[enough], np.bincount(exponent, own)[enough])
