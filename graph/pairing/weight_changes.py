"""How the weights of two matched nodes differ, told without running them.

Weights are compared block by block, so that files are mapped and never read whole into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from ..index import GraphIndex
from ..specs import is_float
from ..weights import stored_bytes
from .affine import Affine
from .weight_patterns import (
    Along,
    BeyondSteps,
    Clamped,
    MergedOtherwise,
    Part,
    Pattern,
    StoredScaled,
    Transposed,
    along,
    blocks,
    part_of,
    pattern_of,
    unlike,
    wide,
)

FEWEST = 4
"""Weights of a channel from which on a factor that fits them all says something."""
BYTES = 1 << 18
"""Bytes compared at a time: what NumPy makes of them stays in the cache."""
FOLD_NOISE = 16 * 2.0**-24
"""Relative error that multiplying a normalization into weights may leave: a handful of FP32 operations."""
COARSE = 2.0**-8
"""The same in a 16-bit format."""

_OPEN = str(2**63 - 1)
"""Where a Slice ends that runs to the end."""
_DTYPE = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class WeightChange:
    """How the weights of the candidate differ from the reference's.

    Attributes:
        shape, candidate_shape: Shapes of the two; where they are not the same, the values were not compared.
        count: Values that differ.
        greatest: Greatest difference; None where values have no distance (strings).
        index: Where it is; of values without a distance, where the first is that differs.
        values: The two values there.
        rounded_to: The number format to which rounding the reference's weights gives the candidate's.
        stored: Whether the candidate stores them in that format.
        cut: How many of the reference's weights are beyond the greatest number of that format.
        quantized: Whether they are the reference's, within half of the step that the candidate quantizes them by.
        patterns: Other changes that explain all of it.
        folded: What was compared, where scalings and shifts were multiplied in first: ``weights`` or ``bias``.
        parts: Names of the reference's nodes that the candidate has in one product, where they were multiplied in.
        noun: What they are called, as `constants.noun_of` has it.
        beyond: The number format of all that the candidate has, where rounding the reference's weights to it gives the
            others: those that differ by more are counted.
        relative: Of what was compared after folding, the difference relative to all of them (L2).
        where: The few channels, or other indices of an axis, that hold all of it.
    """

    shape: tuple[int, ...]
    candidate_shape: tuple[int, ...]
    count: int = 0
    greatest: float | None = None
    index: tuple[int, ...] = ()
    values: tuple[Any, Any] | None = None
    rounded_to: str | None = None
    stored: bool = False
    cut: int = 0
    quantized: bool = False
    patterns: tuple[Pattern, ...] = ()
    folded: str | None = None
    parts: tuple[str, ...] = ()
    noun: str = "weights"
    beyond: str | None = None
    relative: float | None = None
    where: Along | None = None

    @property
    def size(self) -> int:
        """How many values the reference has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def stored_scaled(self) -> StoredScaled | None:
        """The factors between the weights and what is stored of them in steps, where these explain all of it."""
        return next((p for p in self.patterns if isinstance(p, StoredScaled)), None)

    @property
    def in_steps(self) -> bool:
        """Whether they are stored in another number format or in steps, which changes them."""
        stored = self.quantized or self.stored or self.rounded_to is not None
        return stored or any(isinstance(p, (BeyondSteps, StoredScaled)) for p in self.patterns)

    @property
    def rounded(self) -> bool:
        """Whether they are the reference's rounded to a format that holds them, and no more."""
        return self.rounded_to is not None and not self.cut

    @property
    def beyond_steps(self) -> bool:
        """Whether the weights are stored in steps, and rounding to these does not explain what they are."""
        return any(isinstance(p, BeyondSteps) for p in self.patterns)

    @property
    def part(self) -> bool:
        """Whether they are a part of the reference's: a product that was split, say, of which the rest is missing."""
        return any(isinstance(p, Part) for p in self.patterns)

    @property
    def clamped(self) -> bool:
        """Whether weights beyond a limit were set to it, and no other differs by more than the rounding to its type."""
        return any(isinstance(p, Clamped) for p in self.patterns)

    @property
    def explained_by_format(self) -> str | None:
        """The number format that the candidate stores the weights in, where that explains the whole difference."""
        return "int8" if self.quantized else self.rounded_to if self.stored and not self.cut else None

    @property
    def of_one(self) -> str:
        """What a single one of them is called."""
        return self.noun.removesuffix("s") if self.noun not in ("weights", "biases", "values", "axes") else "value"

    @property
    def meant(self) -> str:
        """The reference's number, where there is one alone and the two are told apart; else nothing."""
        one = self.size == 1 and self.folded is None and self.shape == self.candidate_shape
        return _told(self.values)[0] if one and self.greatest is not None and self.values is not None else ""

    def __str__(self) -> str:
        text = self._extent()
        if self.folded and isinstance(next(iter(self.patterns), None), MergedOtherwise):
            return f"{self.patterns[0]}; {text}"
        for pattern in self.patterns:
            whole = isinstance(pattern, (Transposed, Part)) and self.shape != self.candidate_shape
            text += f"{': ' if whole else '; '}{pattern}"
        return f"quantized, {text}" if self.quantized else text

    @property
    def of_values(self) -> str:
        """The same of values that are computed, whatever they are of."""
        if self.greatest is None or self.values is None:
            return self._extent()
        values = " against ".join(f"{v:.6g}" for v in self.values)
        return f"{self.count:,} of {self.size:,} values differ, {values}{self._place}"

    @property
    def _place(self) -> str:
        return f" at [{','.join(map(str, self.index))}]" if self.index else ""

    def _first(self) -> str:
        """The first of values that have no size, such as strings."""
        return "" if self.values is None else f", {self.values[0]!r} against {self.values[1]!r}{self._place}"

    def _extent(self) -> str:
        if self.shape != self.candidate_shape:
            return f"shape {dims_text(self.shape)} against {dims_text(self.candidate_shape)}"
        if self.greatest is None:
            return f"{self.count:,} of {self.size:,} values differ{self._first()}"
        noun = self.noun if self.size > 1 else self.of_one
        if self.rounded_to is not None and self.cut:
            assert self.values is not None
            end = float(ml_dtypes.finfo(_DTYPE[self.rounded_to]).max)
            return (
                f"{self.cut:,} of {self.size:,} {noun} beyond the greatest number of {self.rounded_to.upper()}, "
                f"{end:.6g}: {' became '.join(_told(self.values))}"
            )
        if self.rounded_to is not None:
            folded = "after folding, " if self.folded else ""
            text = f"all {self.size:,} {noun} equal to the reference's {folded}rounded to {self.rounded_to.upper()}"
            return f"{text} ({self.count:,} differ, greatest {self.greatest:.3g})"
        assert self.values is not None
        if self.size == 1 and self.folded is None:
            told = ("none" if self.noun == "ends" and v == _OPEN else v for v in _told(self.values))
            return f"{self.of_one} {' against '.join(told)}"
        differ = f"{noun} differ" if self.folded is None else f"{noun} differ from the reference's after folding"
        if self.beyond is not None:
            differ += f" by more than rounding to {self.beyond.upper()}"
        if self.relative is not None and 2 * self.count > self.size:
            differ += f" (relative L2 difference {self.relative:.2g})"
        return (
            f"{self.count:,} of {self.size:,} {differ}, greatest {self.greatest:.3g}{self._place}, "
            f"{' against '.join(_told(self.values))}{'' if self.where is None else f'; {self.where}'}"
        )


def weight_change(x: np.ndarray, y: np.ndarray) -> WeightChange | None:
    """How the weights of the candidate differ from the reference's.

    Args:
        x: The reference's.
        y: The candidate's; the shape may differ.

    Returns:
        None if all are equal, up to the rounding of what was multiplied in.
    """
    shapes = x.shape, y.shape
    if x.shape != y.shape:
        if x.size == y.size and x.ndim == y.ndim and x.shape == y.shape[::-1] and np.array_equal(x.T, y):
            return WeightChange(*shapes, patterns=(Transposed(),))
        if x.size != y.size or _squeezed(x) != _squeezed(y):
            part = part_of(x, y)
            return WeightChange(*shapes, patterns=() if part is None else (part,))
        y = y.reshape(x.shape)
        shapes = x.shape, x.shape
    if x.dtype == object or y.dtype == object or x.dtype.kind in "SUc" or y.dtype.kind in "SUc":
        unlike = np.asarray(x != y)
        if not unlike.any():
            return None
        first = tuple(int(i) for i in np.argwhere(unlike)[0])
        return WeightChange(*shapes, int(unlike.sum()), None, first, (x[first], y[first]))
    count, greatest, where = _greatest(x, y)
    if not count or _rounded_in_reference(x, y):
        return None
    rounded = _rounded(x, y)
    if rounded is not None and y.dtype.name != _DTYPE[rounded].name and not _holds_numbers(y):
        rounded = None  # a mask of -inf in place of -3.4e38 says nothing of a format
    if rounded is None and rounded_alike(x, y):
        return None
    beyond, held = None, x
    if rounded is None and (fmt := numbers_of(y) if is_float(x.dtype) and is_float(y.dtype) else None):
        with np.errstate(all="ignore"):
            cast = x.astype(_DTYPE[fmt])
            left, most, place = _greatest(cast, y)
        if left < count:
            count, greatest, where, beyond, held = left, most, place, fmt, cast
    index = tuple(int(i) for i in np.unravel_index(where, x.shape))
    explained = None if rounded else pattern_of(x, y)
    return WeightChange(
        *shapes,
        count,
        greatest,
        index,
        (_plain(x[index]), _plain(y[index])),
        rounded_to=rounded,
        stored=rounded is not None and y.dtype.name == _DTYPE[rounded].name,
        cut=0 if rounded is None else _beyond(x, rounded),
        patterns=() if explained is None else (explained,),
        beyond=beyond,
        where=None if rounded or explained or 2 * count > x.size else along(held, y),
    )


def _plain(value: Any) -> int | float:
    """A value of an array as Python's; integers, of which float64 does not hold all, stay what they are."""
    kind = np.asarray(value).dtype.kind
    return bool(value) if kind == "b" else int(value) if kind in "iu" else float(value)


def _told(values: tuple[Any, Any]) -> list[str]:
    """Two values that differ, with as many digits as show that."""
    shown = [[str(v) if isinstance(v, int) else f"{v:.{digits}g}" for v in values] for digits in (6, 9, 17)]
    return next((pair for pair in shown if pair[0] != pair[1]), shown[0])


def _greatest(x: np.ndarray, y: np.ndarray) -> tuple[int, float, int]:
    """How many values of two arrays of one shape differ, by how much at most, and where (of the flat arrays)."""
    count, worst, where = 0, -1.0, 0
    for start, (a, b) in blocks(x, y):
        if a.dtype == b.dtype and np.array_equal(a.view(np.uint8), b.view(np.uint8)):
            continue
        with np.errstate(all="ignore"):
            p, q = wide(a), wide(b)
            differs = unlike(p, q)
            if not differs.any():
                continue
            count += int(differs.sum())
            size = np.where(differs, np.abs(p.astype(np.float64) - q.astype(np.float64)), -1.0)
            size = np.where(np.isnan(size), np.inf, size)
        i = int(size.argmax())
        if size[i] > worst:
            worst, where = float(size[i]), start + i
    return count, worst, where


def folded_changes(a: Affine, b: Affine, half: bool) -> Iterator[tuple[str, WeightChange]]:
    """How a folded product differs from what folding the reference in float64 gives, beyond rounding.

    Args:
        a, b: What the two products compute with all that was folded in.
        half: Whether the candidate stores its weights in 16 bits.

    Yields:
        ``weights`` or ``bias``, and how they differ.
    """
    noise, coarse = COARSE if half else FOLD_NOISE, None if half else numbers_of(b.weight)
    channel = np.abs(a.weight).reshape(a.weight.shape[0], -1).max(axis=1).reshape(-1, *[1] * (a.weight.ndim - 1))
    sizes = [np.abs(a.weight), *(side.size for side in (a, b) if side.size is not None)]
    parts = (
        ("weights", a.weight, b.weight, noise * np.maximum.reduce(sizes) + noise * 2.0**-6 * channel + 2.0**-100),
        ("bias", a.bias, b.bias, noise * np.maximum(a.scale, b.scale) + 2.0**-100),
    )
    for (name, x, y, allowed), step in zip(parts, (b.step, b.bias_step), strict=True):
        error = np.abs(x - y)
        bad = ~(error <= allowed)
        beyond = bad if step is None else bad & ~_rounded_to_step(x, y, step)
        quantized = bool(bad.any() and not beyond.any())
        if bad.any():
            bad = bad if quantized else beyond
            rounded = coarse if coarse and step is None else None
            if rounded and (further := error > COARSE / noise * allowed + 2.0**-24).any():  # more than the format
                bad, rounded = further, None
            index = tuple(int(i) for i in np.unravel_index(int(np.where(bad, error, -1).argmax()), x.shape))
            values = float(x[index]), float(y[index])
            told = pattern_of(x, y) if step is None else None if quantized else _in_steps(x, y, step)
            change = WeightChange(
                x.shape, y.shape, int(bad.sum()), float(error[index]), index, values,
                rounded_to=rounded, quantized=quantized, patterns=() if told is None or rounded else (told,),
                where=None if told or quantized or rounded else along(x, y, bad),
            )  # fmt: skip
            noun = "weights" if name == "weights" else "biases"
            relative = float(np.linalg.norm(x - y) / norm) if (norm := float(np.linalg.norm(x))) else None
            yield name, replace(change, folded=name, noun=noun, relative=relative)


def numbers_of(*arrays: np.ndarray) -> str | None:
    """The 16-bit format of which all values are numbers, whatever type they are stored in; None where all are zero."""
    if not any(a.any() for a in arrays):
        return None
    for name in ("fp16",) if arrays[0].dtype == np.float16 else ("bf16", "fp16"):  # FP16 has most numbers of BF16, too
        with np.errstate(all="ignore"):
            if all(np.array_equal(b.astype(_DTYPE[name]).astype(b.dtype), b) for a in arrays for _, (b,) in blocks(a)):
                return name
    return None


def _in_steps(x: np.ndarray, y: np.ndarray, step: np.ndarray) -> Pattern | None:
    """What is known of values that are stored in steps, and are not the reference's rounded to these."""
    return stored_scaled(x, y, step) or beyond_steps(x, y, step)


def _rounded_in_reference(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the reference alone stores weights in a narrower type, in which the candidate's are the same."""
    if not (is_float(x.dtype) and is_float(y.dtype) and x.dtype.itemsize < y.dtype.itemsize):
        return False
    with np.errstate(all="ignore"):
        return all(bool((wide(p) == wide(q.astype(x.dtype))).all()) for _, (p, q) in blocks(x, y))


def rounded_alike(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether FP32 weights differ by no more than two ways to compute them do: a normalization that two exporters
    multiplied in. What is added up on the way (a bias) may err relative to the greatest of its kind."""
    if x.shape != y.shape or not x.dtype == y.dtype == np.float32:
        return False
    greatest = 0.0 if x.ndim > 1 or x.size < 2 else float(np.abs(x).max())
    with np.errstate(all="ignore"):
        return all(
            bool((np.abs(wide(p) - wide(q)) <= FOLD_NOISE * np.maximum(np.abs(wide(p)), greatest)).all())
            for _, (p, q) in blocks(x, y)
        )


def within_steps(x: np.ndarray, y: np.ndarray, step: np.ndarray) -> bool:
    """Whether all values are within half a step, as rounding leaves them, if not clipped at the ends of a channel."""
    return x.shape == y.shape and x.ndim == step.ndim and bool(_rounded_to_step(x, y, step).all())


def both_steps(own: np.ndarray, step: np.ndarray) -> np.ndarray | None:
    """The step that explains the difference of weights that both files store in steps, each half of its own away from
    what they were before; None where they are the same steps: what was rounded alike does not differ."""
    if own.ndim != step.ndim or np.array_equal(own, step):
        return None
    shapes = zip(own.shape, step.shape, strict=True)
    return own + step if all(a == b or 1 in (a, b) for a, b in shapes) else None


def beyond_steps(x: np.ndarray, y: np.ndarray, step: np.ndarray) -> BeyondSteps | None:
    """How far weights are from the reference's that are stored in steps; see `within_steps`."""
    if x.shape != y.shape or x.ndim != step.ndim:
        return None
    away = ~_rounded_to_step(x, y, step)
    with np.errstate(all="ignore"):
        steps = np.abs(np.asarray(x, np.float64) - y) / step
    return BeyondSteps(int(away.sum()), x.size, float(steps.max(where=away & np.isfinite(steps), initial=0.0)))


def _rounded_to_step(x: np.ndarray, y: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Which values are within half a step, or at the end of their channel, beyond which nothing is stored. A channel of
    one value, as those of a bias are, or of zeros alone has no end that could be seen."""
    axes = tuple(i for i, d in enumerate(step.shape) if d == 1)
    y = np.asarray(y, np.float64)
    ends = np.abs(y).max(axis=axes, keepdims=True)
    ends[(ends == 0) | (y.size == ends.size)] = np.inf
    error = np.abs(np.asarray(x, np.float64) - y)
    return np.asarray((error <= 0.501 * step) | ((np.abs(y) >= ends) & (np.abs(x) >= ends)))


def stored_scaled(x: np.ndarray, y: np.ndarray, step: np.ndarray) -> StoredScaled | None:
    """The factors between weights and what is stored of them in steps, which tell a wrong scale from a wrong weight.

    Args:
        x: The reference's weights.
        y: The candidate's, as its integers and scales give them.
        step: The distance between neighbouring values of ``y``, shaped to broadcast against it.

    Returns:
        One factor for all, or one for each channel that has a step of its own; None where factors do not explain the
        difference, and where they move no weight by more than a step.
    """
    if x.shape != y.shape or x.ndim != step.ndim or x.ndim < 2:
        return None
    wide, stored = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not (np.isfinite(wide).all() and np.isfinite(stored).all()):
        return None
    for axis in (None, *(i for i, d in enumerate(step.shape) if d > 1 and x.size >= FEWEST * d)):
        factor = _factors(wide, stored, axis)
        if not _rounded_to_step(factor * wide, stored, 2 * step).all():  # a factor is known to a part of a step
            continue
        others = tuple(i for i in range(x.ndim) if i != axis)
        off = (np.abs((factor - 1) * wide) > step).any(axis=others)
        if not off.any():
            return None
        flat = factor.reshape(-1)
        at = int(np.where(off, np.abs(flat - 1), -1).argmax())
        return (
            StoredScaled(float(flat[at]), axis, int(off.sum()), off.size, at)
            if flat.size > 1
            else StoredScaled(flat[0])
        )
    return None


def _factors(x: np.ndarray, y: np.ndarray, axis: int | None) -> np.ndarray:
    """The factors that bring one array nearest to another: one, or one for each index of an axis, shaped to broadcast.
    Values at the ends, which may be cut off, count only where there are no others."""
    others = tuple(i for i in range(x.ndim) if i != axis)
    inner = np.abs(y) < np.abs(y).max(axis=others, keepdims=True)
    inner |= ~(inner & (x != 0)).any(axis=others, keepdims=True)
    power = np.sum(np.where(inner, x * x, 0), axis=others, keepdims=True)
    product = np.sum(np.where(inner, x * y, 0), axis=others, keepdims=True)
    return np.divide(product, power, out=np.ones_like(power), where=power > 0)


def same_bytes(index: GraphIndex, name: str, other: GraphIndex, other_name: str) -> bool:
    """Whether two initializers have the same type, shape and bytes, told without reading them into memory.

    False where it cannot be told so.
    """
    x, y = index.initializers.get(name), other.initializers.get(other_name)
    if x is None or y is None or x.data_type != y.data_type or x.dims != y.dims:
        return False
    a, b = stored_bytes(x, index.folder), stored_bytes(y, other.folder)
    if a is None or b is None or a.size != b.size:
        return False
    return all(np.array_equal(a[i : i + BYTES], b[i : i + BYTES]) for i in range(0, a.size, BYTES))


def dims_text(shape: tuple[int, ...]) -> str:
    """A shape as text."""
    return "x".join(map(str, shape)) or "scalar"


def _squeezed(x: np.ndarray) -> tuple[int, ...]:
    return tuple(d for d in x.shape if d != 1)


def _rounded(x: np.ndarray, y: np.ndarray) -> str | None:
    """The format to which rounding ``x`` gives ``y``; what overflows may be infinite or clamped to the largest."""
    if not is_float(x.dtype) or not is_float(y.dtype):
        return None
    for name, dtype in _DTYPE.items():
        largest = float(ml_dtypes.finfo(dtype).max)
        tiniest = float(ml_dtypes.finfo(dtype).smallest_subnormal)
        for _, (a, b) in blocks(x, y):
            with np.errstate(all="ignore"):
                cast = a.astype(dtype).astype(np.float64)
                clamped = np.clip(cast, -largest, largest)
                other = b.astype(np.float64)
                same = (cast == other) | (clamped == other) | ((cast != cast) & (other != other))
                tiny = (np.abs(a) < tiniest) & (np.abs(other) <= tiniest)
            if not (same | tiny).all():
                break
        else:
            return name
    return None


def _holds_numbers(y: np.ndarray) -> bool:
    """Whether a value is finite, and not zero."""
    return any(bool(np.any(np.isfinite(b) & (b != 0))) for _, (b,) in blocks(y))


def _beyond(x: np.ndarray, rounded_to: str) -> int:
    """How many finite values rounding to a format makes infinite."""
    with np.errstate(all="ignore"):
        return int(sum(np.sum(np.isfinite(a) & ~np.isfinite(a.astype(_DTYPE[rounded_to]))) for _, (a,) in blocks(x)))
