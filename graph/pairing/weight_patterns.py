"""What explains a difference of all weights: another order, a factor, limits that a converter set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..printable import few, listed
from ..specs import is_float

BLOCK = 1 << 20
"""Elements that are compared at a time."""
LARGEST = 1 << 24
"""Elements of an array up to which an order, or a place along an axis, is looked for."""


@dataclass(frozen=True)
class Transposed:
    """The candidate's weights are the transpose of the reference's."""

    def __str__(self) -> str:
        return "equal to the transpose"


@dataclass(frozen=True)
class Reordered:
    """The candidate's weights are the reference's in another order along one axis."""

    axis: int

    def __str__(self) -> str:
        return f"the same in another order along axis {self.axis}"


@dataclass(frozen=True)
class Scaled:
    """The candidate's weights are the reference's times one factor."""

    factor: float

    def __str__(self) -> str:
        return f"all {self.factor:.6g} times the reference's"


@dataclass(frozen=True)
class Part:
    """The candidate's weights are some of the reference's, one after the other along an axis: from ``start`` on."""

    axis: int
    start: int
    count: int

    def __str__(self) -> str:
        return f"those from {self.start} to {self.start + self.count - 1} along axis {self.axis}, and not the others"


@dataclass(frozen=True)
class Zeroed:
    """The candidate's weights are zero."""

    def __str__(self) -> str:
        return "all zero in the candidate"


@dataclass(frozen=True)
class FewValues:
    """The candidate's weights have few distinct values, the nearest two ``step`` apart, and the reference's many."""

    count: int
    step: float

    def __str__(self) -> str:
        return f"only {self.count} distinct values, {self.step:.3g} apart, as if quantized"


@dataclass(frozen=True)
class Twin:
    """The candidate's weights are what the reference has at another input of the node (``scale`` for ``b``)."""

    name: str

    def __str__(self) -> str:
        return f"equal to the reference's {self.name}"


@dataclass(frozen=True)
class OfNode:
    """The candidate's weights are those of another node of the reference."""

    op: str
    name: str

    def __str__(self) -> str:
        return f"equal to those of {self.op} {self.name} in the reference"


@dataclass(frozen=True)
class StoredScaled:
    """The candidate stores weights in steps, and stores the reference's times factors that are not 1.

    Attributes:
        factor: The factor; of several, the one farthest from 1.
        axis: The axis that has a factor for each index; None: one factor for all.
        count, channels: How many indices of that axis have another factor than 1, of how many.
        at: The index that has ``factor``.
    """

    factor: float
    axis: int | None = None
    count: int = 0
    channels: int = 0
    at: int = 0

    def __str__(self) -> str:
        within = "to within the rounding to their quantization step"
        if self.axis is None:
            return f"all {self.factor:.4g} times the reference's, {within}"
        return (
            f"{self.count:,} of {self.channels:,} channels (axis {self.axis}) are multiples of the reference's, "
            f"{within}: channel {self.at} is {self.factor:.4g} times"
        )


@dataclass(frozen=True)
class BeyondSteps:
    """The candidate stores weights in steps, and rounding the reference's to the nearest step does not give these.

    Attributes:
        count, size: How many are more than half a step away, of how many.
        most: The greatest distance, in steps.
    """

    count: int
    size: int
    most: float

    def __str__(self) -> str:
        return (
            f"{self.count:,} of {self.size:,} are more than half a quantization step from the reference's, up to "
            f"{self.most:.3g} steps"
        )


@dataclass(frozen=True)
class Clamped:
    """The candidate's weights are the reference's, those beyond a limit set to it: too large ones, too small ones.

    Attributes:
        most, above: The greatest magnitude, and how many were set to it.
        least, below: The smallest magnitude that is not zero, and how many were raised to it.
    """

    most: float
    above: int
    least: float
    below: int

    def __str__(self) -> str:
        told = [f"{self.above:,} clamped at {self.most:.6g}"] if self.above else []
        told += [f"{self.below:,} raised to {self.least:.3g}"] if self.below else []
        return " and ".join(told)


@dataclass(frozen=True)
class MergedOtherwise:
    """One file has merged into its weights what the other adds beside them, and not as that does it.

    Attributes:
        nodes: Operator and name of the products that make what is added.
        factor: How many times it was merged.
        scale: The one number that it is multiplied by where it is added, if there is one.
        turned: Whether it was merged transposed.
        another: The products whose result was merged in place of theirs.
        in_reference: Whether it is the reference that has merged it.
        low: Whether what is added is of low rank.
    """

    nodes: tuple[tuple[str, str], ...]
    factor: float
    scale: float | None
    turned: bool
    another: tuple[tuple[str, str], ...]
    in_reference: bool
    low: bool

    def __str__(self) -> str:
        side, other = ("reference", "candidate") if self.in_reference else ("candidate", "reference")
        what = f"the {side} has merged {self._adapter(self.another or self.nodes)}"
        if self.another:
            return f"{what}, where the {other} adds {self._adapter(self.nodes)}"
        turned = " transposed" if self.turned else ""
        if not self._scaled:
            return f"{what}{turned}"
        if self.scale is None:
            return f"{what}{turned} {self.factor:.6g} times"
        return f"{what}{turned} with a scale of {self.scale * self.factor:.6g}, where the {other} has {self.scale:.6g}"

    def remedy(self, node: str) -> str:
        """What puts the second file right. ``node``: its product."""
        if not self.in_reference:
            scale = "" if self.scale is None or not self._scaled else f" with a scale of {self.scale:.6g}"
            turned = ", not transposed" if self.turned else ""
            return f"merge {self._adapter(self.nodes)} into {node} again{scale}{turned}, as the first file adds it"
        if self.scale is not None and not self.turned and not self.another:
            return f"set the scale of {self._adapter(self.nodes)} to {self.scale * self.factor:.6g} in the second file"
        return f"put what the first file has merged in place of {self._adapter(self.nodes)}"

    @property
    def _scaled(self) -> bool:
        return f"{self.factor:.4g}" != "1"

    def _adapter(self, nodes: tuple[tuple[str, str], ...]) -> str:
        named = listed([f"{op} {name}" for op, name in nodes], len(nodes))
        return f"the adapter {named}" if self.low else f"what {named} {'make' if nodes[1:] else 'makes'}"


@dataclass(frozen=True)
class Along:
    """Where along one axis all values are that differ, if that is at half of its indices at most.

    Attributes:
        axis: The axis, such as that of a weight's output channels.
        indices: Where, in their order.
        length: Indices of the axis.
        pattern: What explains all of the difference there.
    """

    axis: int
    indices: tuple[int, ...]
    length: int
    pattern: Scaled | Zeroed | Reordered | None = None

    def __str__(self) -> str:
        first, last = self.indices[0], self.indices[-1]
        if len(self.indices) == 1:
            named = f"index {first}"
        elif last - first == len(self.indices) - 1:
            named = f"indices {first} to {last}"
        else:
            named = f"indices {few([*map(str, self.indices)], 3)}"
        told = f", {self.pattern}" if self.pattern is not None else ""
        return f"they are at {named} of axis {self.axis} ({len(self.indices):,} of {self.length:,}){told}"


Pattern = (
    Transposed
    | Reordered
    | Scaled
    | Part
    | Zeroed
    | StoredScaled
    | BeyondSteps
    | Clamped
    | FewValues
    | Twin
    | OfNode
    | MergedOtherwise
)
"""A kind of change that explains all of a difference."""


def pattern_of(x: np.ndarray, y: np.ndarray) -> Pattern | None:
    """What kind of change explains all of a difference between two arrays of one shape; None where none does."""
    if x.size < 2:
        return None
    if x.ndim == 2 and x.shape[0] == x.shape[1] and np.array_equal(x.T, y):
        return Transposed()
    if x.size <= LARGEST:
        for axis in range(x.ndim):
            if 1 < x.shape[axis] <= 1 << 16 and _permuted(x, y, axis):
                return Reordered(axis)
    if not is_float(x.dtype) or not is_float(y.dtype):
        return None
    if not y.any():
        return Zeroed()
    return _scaled(x, y) or _clamped(x, y) or _few_values(x, y)


def along(x: np.ndarray, y: np.ndarray, differs: np.ndarray | None = None) -> Along | None:
    """Where along one axis two arrays of one shape differ, in most of the values there; None where that is spread over
    more than half of every axis, and of vectors, whose values are no channels. ``differs``: which do, if not all that
    are not equal."""
    if x.ndim < 2 or x.size > LARGEST:
        return None
    if differs is None:
        differs = unlike(wide(x), wide(y))
    if np.count_nonzero(differs) < 2:
        return None
    found: list[tuple[float, int, np.ndarray]] = []
    for axis, length in enumerate(x.shape):
        hit = differs.any(axis=tuple(i for i in range(x.ndim) if i != axis))
        count = int(hit.sum())
        if 0 < 2 * count <= length and 2 * int(differs.sum()) >= count * (x.size // length):
            found.append((count / length, axis, np.flatnonzero(hit)))
    if not found:
        return None
    _, axis, indices = min(found, key=lambda one: one[:2])
    there = (np.ascontiguousarray(v.take(indices, axis)) for v in (x, y))
    pattern = pattern_of(*there)
    told = pattern if isinstance(pattern, (Scaled, Zeroed, Reordered)) else None
    return Along(axis, tuple(map(int, indices)), x.shape[axis], told)


def unlike(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Which values are not the same; NaN is NaN."""
    with np.errstate(all="ignore"):
        return np.asarray((p != q) & ~((p != p) & (q != q)))


def part_of(x: np.ndarray, y: np.ndarray) -> Part | None:
    """Where weights are that have fewer values along one axis; None where they are no part of the others."""
    fewer = [i for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=False)) if a != b]
    if x.ndim != y.ndim or len(fewer) != 1 or x.dtype != y.dtype or not 0 < y.shape[fewer[0]] < x.shape[fewer[0]]:
        return None
    axis = fewer[0]
    rows, other = np.moveaxis(x, axis, 0), np.moveaxis(y, axis, 0)
    if other[0].size < 2:
        return None
    for start in range(len(rows) - len(other) + 1):
        if np.array_equal(rows[start], other[0]) and np.array_equal(rows[start : start + len(other)], other):
            return Part(axis, start, len(other))
    return None


def _permuted(x: np.ndarray, y: np.ndarray, axis: int) -> bool:
    others = tuple(i for i in range(x.ndim) if i != axis)
    if x.dtype != y.dtype or not np.array_equal(np.sort(x.max(axis=others)), np.sort(y.max(axis=others))):
        return False
    rows, other = (np.moveaxis(np.asarray(v), axis, 0).reshape(v.shape[axis], -1) for v in (x, y))
    return sorted(r.tobytes() for r in rows) == sorted(r.tobytes() for r in other)


def _scaled(x: np.ndarray, y: np.ndarray) -> Scaled | None:
    xx = xy = largest = 0.0
    with np.errstate(all="ignore"):
        for _, (p, q) in blocks(x, y):
            p, q = p.astype(np.float64), q.astype(np.float64)
            xx, xy, largest = xx + float(p @ p), xy + float(p @ q), max(largest, float(np.abs(p).max()))
        factor = xy / xx if 0 < xx < np.inf else 0.0
        if not factor or not np.isfinite(factor) or str(Scaled(factor)) == str(Scaled(1.0)):
            return None  # beside large values, small ones of which some are others
        allowed = 4e-7 * abs(factor) * largest
        if all(np.abs(q.astype(np.float64) - factor * p).max() <= allowed for _, (p, q) in blocks(x, y)):
            return Scaled(factor)
    return None


def _clamped(x: np.ndarray, y: np.ndarray) -> Clamped | None:
    sizes = [np.abs(wide(b)) for _, (b,) in blocks(y)]
    most = max(float(size.max(initial=0.0)) for size in sizes)
    least = min(float(size.min(where=size > 0, initial=np.inf)) for size in sizes)
    above = below = 0
    for _, (a, b) in blocks(x, y):
        with np.errstate(over="ignore"):
            equal = a.astype(y.dtype) == b
        p, q = wide(a), wide(b)
        sides = np.signbit(p) == np.signbit(q)
        large = ~equal & sides & (np.abs(p) > most) & (np.abs(q) == most)
        small = ~equal & sides & (np.abs(p) < least) & (np.abs(q) == least)
        if not (equal | large | small).all():
            return None
        above, below = above + int(large.sum()), below + int(small.sum())
    if most == least and above and below:  # all are one value
        return None
    return Clamped(most, above, least, below) if above + below > 1 else None


def _few_values(x: np.ndarray, y: np.ndarray) -> FewValues | None:
    if x.size <= 1024:
        return None
    step = max(1, x.size // (1 << 16))
    values, before = np.unique(wide(y.reshape(-1)[::step])), np.unique(wide(x.reshape(-1)[::step]))
    if 1 < len(values) <= 256 and len(before) > 4 * len(values):
        return FewValues(len(values), float(np.diff(values).min()))
    return None


def blocks(*arrays: np.ndarray) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Arrays of one shape, flat and block by block: where each begins, and the block of each array."""
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield start, tuple(f[start : start + BLOCK] for f in flat)


def wide(x: np.ndarray) -> np.ndarray:
    """Floats as float64; all else as it is."""
    return x.astype(np.float64) if is_float(x.dtype) and x.dtype.kind != "c" else x
