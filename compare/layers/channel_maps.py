"""How what a candidate's layer makes is the reference's along one axis: with a factor for each channel, in another
order, or turned.

Such a change can be taken back by weights that are multiplied along that axis. Where only some channels fit, the others
are set to zero on both sides, so that what lies behind can be judged without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...graph.specs import is_float
from .turning import turning

AXES: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((1,),),
    3: ((2,), (1,)),
    4: ((1,), (3,), (1, 3), (2, 3), (1, 2)),
    5: ((1,), (4,), (1, 4)),
}
"""By rank, the axes that weights may be multiplied along."""
FEWEST = 4
"""Values of a channel below which that says nothing."""
MOST = 4096
"""Values of a channel that are looked at."""
LARGEST = 2048
"""Channels up to which it is looked for another order of them: each is held against each."""
TURNABLE = 1024
"""Channels up to which it is looked for a rotation, which takes a singular value decomposition."""
SMALL = 0.1
"""Share of the size of all channels that an error of one is held against, beside its own size."""
SAME = 1e-3
"""Relative difference of a factor from another one up to which they are the same."""
ENOUGH = 0.5
"""Share of the channels that have to fit."""


@dataclass(frozen=True)
class ChannelMap:
    """Channels along some axes with factors, in another order.

    Attributes:
        axes: The axes, flattened into one.
        order: Of each channel of the candidate, which of the reference's it is.
        factors: The factor of each; 0 where that is not known.
    """

    axes: tuple[int, ...]
    order: np.ndarray
    factors: np.ndarray

    def __call__(self, mine: np.ndarray) -> np.ndarray:
        """The reference's values as the candidate has them."""
        return _back(_flat(mine, self.axes)[..., self.order] * self.factors, mine, self.axes)

    @property
    def deviation(self) -> np.ndarray:
        """How far each channel is from being the reference's, or from having the factor that most have."""
        usual = float(np.median(self.factors)) or 1.0
        moved: np.ndarray = self.order != np.arange(len(self.order))
        return np.where(moved, 1.0, np.abs(self.factors / usual - 1))

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.order)

    def suits(self, value: np.ndarray) -> bool:
        """Whether a tensor has as many channels."""
        fits = value.ndim > max(self.axes) and is_float(value.dtype)
        return fits and math.prod(value.shape[a] for a in self.axes) == self.channels

    def of_weights(self, weights: np.ndarray, axis: int, *, made: bool) -> np.ndarray:
        """Weights that make values in these terms along an axis, or take them back; where a factor is not known, with
        none."""
        factors = np.where(self.factors == 0, 1.0, self.factors)
        moved = np.moveaxis(weights, axis, -1)[..., self.order]
        return np.moveaxis(moved * factors if made else moved / factors, -1, axis)

    def known(self, mine: np.ndarray) -> np.ndarray:
        """The reference's values without channels of which the factor is not known."""
        kept = np.zeros(len(self.order))
        kept[self.order[self.factors != 0]] = 1
        return _back(_flat(mine, self.axes) * kept, mine, self.axes)


@dataclass(frozen=True)
class Turn:
    """Values along the last axis multiplied by an orthogonal matrix."""

    matrix: np.ndarray

    def __call__(self, mine: np.ndarray) -> np.ndarray:
        """The reference's values as the candidate has them."""
        return (mine.astype(np.float64) @ self.matrix).astype(mine.dtype)

    def of_weights(self, weights: np.ndarray, axis: int, *, made: bool) -> np.ndarray:
        """Weights that make values in these terms along an axis, or take them back: the same of a rotation."""
        return np.moveaxis(np.moveaxis(weights, axis, -1) @ self.matrix, -1, axis)

    @property
    def deviation(self) -> np.ndarray:
        """How far each channel is from being the reference's."""
        return np.linalg.norm(self.matrix - np.eye(len(self.matrix)), axis=0)

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.matrix)

    def suits(self, value: np.ndarray) -> bool:
        """Whether a tensor has as many channels."""
        return value.ndim > 1 and is_float(value.dtype) and value.shape[-1] == self.channels


def alike(one: ChannelMap | Turn, other: ChannelMap | Turn) -> bool:
    """Whether two tensors stand in the same terms."""
    if one.channels != other.channels:
        return False
    if isinstance(one, Turn) and isinstance(other, Turn):
        return np.allclose(one.matrix, other.matrix, atol=SAME)
    if isinstance(one, ChannelMap) and isinstance(other, ChannelMap):
        return np.array_equal(one.order, other.order) and np.allclose(one.factors, other.factors, SAME)
    return False


@dataclass(frozen=True)
class Fit:
    """How a tensor is the reference's.

    Attributes:
        exact: Whether it is, to within rounding.
        same: Whether it is so with nothing to be taken back.
        left: Relative L2 error that is left.
        share: Share of the channels that are the reference's.
        change: What maps the reference's values to it, as far as that is known and not the identity.
    """

    exact: bool
    same: bool = False
    left: float = math.inf
    share: float = 0.0
    change: ChannelMap | None = None

    @property
    def known(self) -> float:
        """Share of the channels of which the factor is known."""
        return 0.0 if self.change is None else float(np.mean(self.change.factors != 0))


def fitted(mine: np.ndarray, theirs: np.ndarray, tolerance: float) -> Fit:
    """How what a candidate makes is what the reference makes.

    Args:
        mine, theirs: The tensor of the reference and of the candidate.
        tolerance: Relative error that rounding may leave.
    """
    if mine.shape != theirs.shape or not (is_float(mine.dtype) and is_float(theirs.dtype)):
        same = mine.shape == theirs.shape and np.array_equal(mine, theirs)
        return Fit(same, same, 0.0 if same else math.inf, float(same))
    if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        return Fit(False)
    left = _relative(theirs, mine)
    if left <= tolerance:
        return Fit(True, True, left, 1.0)
    best = Fit(False, left=left)
    for fit in _channels(mine, theirs, tolerance):
        if fit.exact or fit.known > best.known:
            best = fit
    if not best.exact and max(turning(mine, theirs).along(), _raw(mine, theirs)) <= 2 * tolerance:
        return Fit(True, False, tolerance, 1.0)
    return best


def turn(mine: np.ndarray, theirs: np.ndarray) -> Turn | None:
    """The orthogonal matrix along the last axis that best turns one tensor into another; None where there are too few
    rows to tell."""
    if mine.shape[-1] > TURNABLE:
        return None
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (mine, theirs))
    if len(a) < a.shape[1]:
        return None
    u, _, v = np.linalg.svd(a.T @ b)
    return Turn(u @ v)


def _channels(mine: np.ndarray, theirs: np.ndarray, tolerance: float) -> Iterator[Fit]:
    """How channels fit, for each axis, in the same order and then in another one, up to where all fit. Of several axes
    together nothing else is said."""
    for axes in AXES.get(mine.ndim, ()):
        a, b = _rows(mine, axes), _rows(theirs, axes)
        if len(a) < FEWEST:
            continue
        for order in _orders(a, b):
            factors, off = _factors(a[:, order], b, tolerance)
            left = _left(a[:, order] * factors, b)
            if not off.any():
                yield Fit(True, False, left, 1.0, ChannelMap(axes, order, factors))
                return
            share = 1 - float(off.mean())
            if share < ENOUGH:  # a shift of all channels leaves their factors
                factors, off = _slopes(a[:, order], b, tolerance)
            if len(axes) == 1 and off.mean() <= 1 - ENOUGH:
                yield Fit(False, False, left, share, ChannelMap(axes, order, np.where(off, 0, factors)))


def _orders(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """The orders of channels that come into question."""
    yield np.arange(a.shape[1])
    if a.shape[1] <= LARGEST:
        yield _matching(a, b)


def _raw(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The relative difference of the products of all rows with each other, what they have in common included: the
    least over the axes."""
    found = [math.inf]
    for axes in AXES.get(mine.ndim, ()):
        a, b = (x[:: max(1, len(x) // 64)] for x in (_rows(mine, axes), _rows(theirs, axes)))
        found.append(_left(a @ a.T, b @ b.T))
    return min(found)


def _factors(a: np.ndarray, b: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The factor of each channel by least squares, and which do not fit."""
    power = np.sum(a * a, 0)
    factors = np.divide(np.sum(a * b, 0), power, out=np.ones(a.shape[1]), where=power > 0)
    return factors, _off(a, b - a * factors, factors, tolerance)


def _slopes(a: np.ndarray, b: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The same of channels that are shifted, too; of values that are zero, as a Relu makes them, nothing is known."""
    there = (a != 0) & (b != 0)
    count = np.maximum(there.sum(0), 1)
    means = [np.where(there, x, 0).sum(0) / count for x in (a, b)]
    a, b = (np.where(there, x - mean, 0) for x, mean in zip((a, b), means, strict=True))
    factors, off = _factors(a, b, tolerance)
    return factors, off | (there.sum(0) < FEWEST)


def _off(a: np.ndarray, error: np.ndarray, factors: np.ndarray, tolerance: float) -> np.ndarray:
    """Which channels do not fit, each held against its own size and against that of all."""
    size = np.sqrt(np.mean(a * a, 0))
    scale = np.where(factors == 0, 1, np.abs(factors))
    off: np.ndarray = np.sqrt(np.mean(error * error, 0)) > tolerance * scale * (
        size + SMALL * np.sqrt(np.mean(size**2))
    )
    return off | ((factors == 0) & (size > 0))


def _matching(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each channel of the candidate, the one of the reference that is most alike."""
    a, b = (x[np.linspace(0, len(x) - 1, min(len(x), 256)).astype(int)] for x in (a, b))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=0), np.finfo(np.float64).tiny) for x in (a, b))
    alike = np.abs(b.T @ a)
    order, free = np.full(len(alike), -1), np.ones(len(alike), bool)
    for channel in np.argsort(-alike.max(1)):
        best = int(np.argmax(np.where(free, alike[channel], -1)))
        order[channel], free[best] = best, False
    return order


def _relative(theirs: np.ndarray, mine: np.ndarray) -> float:
    size = float(np.linalg.norm(mine.astype(np.float64)))
    error = float(np.linalg.norm(theirs.astype(np.float64) - mine.astype(np.float64)))
    return error / size if size else (math.inf if error else 0.0)


def _left(a: np.ndarray, b: np.ndarray) -> float:
    size = float(np.linalg.norm(b))
    return float(np.linalg.norm(b - a)) / size if size else math.inf


def _flat(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    return moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)


def _back(flat: np.ndarray, like: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    shape = np.moveaxis(like, axes, range(-len(axes), 0)).shape
    return np.moveaxis(flat.reshape(shape), range(-len(axes), 0), axes).astype(like.dtype)


def _rows(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    rows = _flat(x, axes)
    rows = rows.reshape(-1, rows.shape[-1])
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST)).astype(int)].astype(np.float64)
