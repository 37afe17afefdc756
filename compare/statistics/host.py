"""Reads pairs of tensors in host memory, in blocks that stay in the CPU's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from .limits import Limits
from .moments import Moments, Reading
from .place import Place, greater, number, text

BLOCK = 1 << 17
"""Elements of a block of the cheap statistics: its float32 arrays fit into a core's second-level cache."""
FULL_BLOCK = 1 << 13
"""Elements of a block of the full statistics, which hold about ten float64 arrays of that size."""
EXACT = 2.0**53
"""Below this float64 holds every integer."""
RUN = 1 << 13
"""Elements that BLAS sums in float32 at a time. OpenBLAS starts threads for more, which cost more than they gain."""


def read(
    reference: np.ndarray, candidate: np.ndarray, limits: Limits | None, sample: int, how: Reading, into: Moments
) -> None:
    """Takes a pair of tensors of one shape into ``into``.

    Args:
        reference, candidate: Tensors of any dtype.
        limits: The allowed error; None: none at all.
        sample: Number of the sample, for places.
        how: What to look for.
        into: What was seen before.
    """
    _Reader(_Pair(reference, candidate, limits, sample), how, into).read()


def is_text(dtype: np.dtype) -> bool:
    """Whether a dtype holds strings."""
    return dtype.kind in "OSUT"


class _Reader:
    """One sample's two tensors on their way into a `Moments`."""

    def __init__(self, pair: _Pair, how: Reading, into: Moments) -> None:
        self._pair = pair
        self._how = how
        self._into = into

    def read(self) -> None:
        """Takes in all elements, in C order."""
        pair, size = self._pair, self._pair.reference.size
        if pair.text:
            self._read_text()
            return
        if self._how.full or pair.working != np.float32:
            for a, b in _blocks(0, size, FULL_BLOCK):
                self._read_block(a, b)
            return
        buffers = [np.empty(min(BLOCK, size), np.float32) for _ in range(3)]
        for a, b in _blocks(0, size, BLOCK):
            with np.errstate(all="ignore"):
                done = self._read_cheaply(a, b, buffers)
            if not done:
                for inner in _blocks(a, b, FULL_BLOCK):
                    self._read_block(*inner)

    def _read_cheaply(self, start: int, stop: int, buffers: list[np.ndarray]) -> bool:
        """Takes in a block in float32; False, and nothing taken in, where that would overflow or underflow."""
        pair, into = self._pair, self._into
        reference = _as_float32(pair.reference[start:stop], buffers[0])
        candidate = _as_float32(pair.candidate[start:stop], buffers[1])
        error = np.subtract(candidate, reference, out=buffers[2][: stop - start])
        # The difference is finite only if both sides are. Under 2^-50 its square nears float32's smallest normal.
        top = max(float(np.maximum.reduce(error)), -float(np.minimum.reduce(error)))
        if not math.isfinite(top) or 0 < top < 2.0**-50:
            return False
        rr = _dot(reference, reference)
        if not 2.0**-90 < rr < 2.0**120:
            return False
        ee = er = total = 0.0
        if top:
            ee, er, total = _dot(error, error), _dot(error, reference), _dot(error, _ones(error.size))
            if not ee < 2.0**120:
                return False
        # Far from the reference, |c|^2 = |r|^2 + 2 r.e + |e|^2 cancels: take it directly.
        near = ee < rr / 4
        cc, rc = (rr + 2 * er + ee, rr + er) if near else (_dot(candidate, candidate), _dot(candidate, reference))
        if not math.isfinite(cc):
            return False
        into.count += stop - start
        into.finite += stop - start
        into.sum_error += total
        into.sum_ee += ee
        into.sum_rr += rr
        into.sum_cc += cc
        into.sum_rc += rc
        magnitude = None
        if top > (into.max_abs_at.value if into.max_abs_at else 0):
            magnitude = np.abs(error)
            position = start + int(magnitude.argmax())
            into.max_abs_at = greater(into.max_abs_at, pair.place(None, position))
        if pair.limits is not None:
            magnitude = np.abs(error) if magnitude is None else magnitude
            limit = pair.limits.allowed(np.abs(reference))
            into.mismatched += int(np.count_nonzero(~(magnitude <= limit)))
            self._take_use(magnitude, limit, start, None)
        elif top:
            into.mismatched += int(np.count_nonzero(error != 0))  # ten times faster than on floats
        return True

    def _read_block(self, start: int, stop: int) -> None:
        """Takes in a block in float64 (complex128 for complex numbers)."""
        pair, into = self._pair, self._into
        raw = pair.reference[start:stop], pair.candidate[start:stop]
        with np.errstate(all="ignore"):
            reference, candidate = (_widen(x, pair.working) for x in raw)
            limit = None if pair.limits is None else pair.limits.allowed(np.abs(reference))
            into.count += stop - start
            where: np.ndarray | None = None  # positions of finite pairs within the block; None: all of them
            if pair.integers:
                error = _integer_error(*raw)
            else:
                error = candidate - reference
                if not np.isfinite(error).all():
                    where = self._drop_nonfinite(reference, candidate, start)
            if where is not None:
                reference, candidate, error = reference[where], candidate[where], error[where]
                limit = limit[where] if isinstance(limit, np.ndarray) and limit.ndim else limit
            if not error.size:
                return
            magnitude = np.abs(error)
            into.finite += error.size
            into.sum_error += error.sum().item()
            into.sum_ee += float(np.vdot(error, error).real)
            into.sum_rr += float(np.vdot(reference, reference).real)
            into.sum_cc += float(np.vdot(candidate, candidate).real)
            into.sum_rc += float(np.vdot(reference, candidate).real)
            wrong = magnitude != 0 if limit is None else ~(magnitude <= limit)
            into.mismatched += int(np.count_nonzero(wrong))
            self._take_max_abs(magnitude, raw, start, where)
            if limit is not None:
                self._take_use(magnitude, limit, start, where)
            if self._how.full:
                self._take_rest(raw, reference, magnitude, start, where)

    def _take_max_abs(
        self, magnitude: np.ndarray, raw: tuple[np.ndarray, np.ndarray], start: int, where: np.ndarray | None
    ) -> None:
        """The greatest error. Between 64-bit integers, float64 does not tell all from each other: exact ones are."""
        pair, into = self._pair, self._into
        top = float(magnitude.max())
        if top == 0 or (into.max_abs_at is not None and top < float(into.max_abs_at.value)):
            return
        at = int(magnitude.argmax())
        if pair.integers and top >= EXACT:
            alike = np.flatnonzero(magnitude == top)
            _, size, over = _distance(*(side[alike] for side in raw))
            at = int(alike[np.where(over, size, 0).argmax() if over.any() else size.argmax()])
        into.max_abs_at = greater(into.max_abs_at, pair.place(None, start + _position(where, at)))

    def _take_rest(
        self,
        raw: tuple[np.ndarray, np.ndarray],
        reference: np.ndarray,
        magnitude: np.ndarray,
        start: int,
        where: np.ndarray | None,
    ) -> None:
        """What the cheap statistics leave out."""
        pair, into = self._pair, self._into
        into.sum_abs += float(magnitude.sum())
        scale = np.abs(reference)
        real = scale if reference.dtype.kind == "c" else reference
        into.take_range(float(real.min()), float(real.max()))
        relative = magnitude / scale
        at = int(relative.argmax())
        if not math.isfinite(relative[at]):  # argmax stops at NaN: 0 / 0
            relative[scale == 0] = 0
            at = int(relative.argmax())
        if relative[at] > (into.max_rel_at.value if into.max_rel_at else 0):
            place = pair.place(float(relative[at]), start + _position(where, at))
            into.max_rel_at = greater(into.max_rel_at, place)
        if pair.ulp_dtype is not None:
            one, other = raw if where is None else (raw[0][where], raw[1][where])
            into.take_ulp(_max_ulp(one, other, pair.ulp_dtype))
        zeros = magnitude.size - int(np.count_nonzero(magnitude != 0))
        if zeros < magnitude.size:
            exponents = np.bincount(magnitude.view(np.int64) >> 52)
            exponents[0] -= zeros  # leaves the subnormals of float64
            for exponent in np.flatnonzero(exponents).tolist():
                into.take_histogram(exponent - 1023, int(exponents[exponent]))

    def _drop_nonfinite(self, reference: np.ndarray, candidate: np.ndarray, start: int) -> np.ndarray:
        """Counts NaN and infinities; positions of the pairs that are finite on both sides."""
        pair, into = self._pair, self._into
        finite = np.isfinite(reference) & np.isfinite(candidate)
        for side, values in enumerate((reference, candidate)):
            missing = np.isnan(values)
            into.nan[side] += int(np.count_nonzero(missing))
            into.inf[side] += int(np.count_nonzero(np.isinf(values) & ~missing))
        same = reference == candidate
        if self._how.equal_nan:
            same |= np.isnan(reference) & np.isnan(candidate)
        broken = np.flatnonzero(~finite & ~same)
        if broken.size:
            first = pair.place(math.inf, start + int(broken[0]))
            into.take_broken(broken.size, first, pair.limits is not None)
        return np.flatnonzero(finite)

    def _take_use(self, magnitude: np.ndarray, limit: np.ndarray | float, start: int, where: np.ndarray | None) -> None:
        pair, into = self._pair, self._into
        with np.errstate(all="ignore"):
            use = np.where(magnitude > 0, magnitude / limit, 0.0)
        at = int(use.argmax())
        if into.use_at is None or use[at] > into.use_at.value:
            place = pair.place(float(use[at]), start + _position(where, at))
            into.use_at = greater(into.use_at, place)

    def _read_text(self) -> None:
        pair, into = self._pair, self._into
        into.text = True
        into.count += pair.reference.size
        for position, (one, other) in enumerate(zip(pair.reference.tolist(), pair.candidate.tolist(), strict=True)):
            if text(one) != text(other):
                if not into.mismatched:
                    into.broken_at = greater(into.broken_at, pair.place(math.inf, position))
                into.mismatched += 1
                into.broken += 1


class _Pair:
    """One sample's two tensors, flattened in C order, and the dtypes that their comparison needs."""

    def __init__(self, reference: np.ndarray, candidate: np.ndarray, limits: Limits | None, sample: int) -> None:
        self.shape = reference.shape
        self.text = is_text(reference.dtype) or is_text(candidate.dtype)
        self.raw = reference.reshape(-1), candidate.reshape(-1)
        self.reference, self.candidate = (_plain(x) for x in self.raw)
        self.limits = limits
        self.sample = sample
        dtypes = self.reference.dtype, self.candidate.dtype
        self.integers = all(d.kind in "iu" for d in dtypes)
        if self.text or any(d.kind == "c" for d in dtypes):
            self.working: np.dtype = np.dtype(np.complex128)
        elif all(_fits_float32(d) for d in dtypes):
            self.working = np.dtype(np.float32)
        else:
            self.working = np.dtype(np.float64)
        self.ulp_dtype = None if self.text else _ulp_dtype(*dtypes)

    def place(self, value: float | None, position: int) -> Place:
        """The place of an element counted in C order; ``value`` None means the |error| there, without rounding."""
        one, other = self.raw[0][position], self.raw[1][position]
        reference, candidate = number(one), number(other)
        if value is None:
            value = abs(candidate - reference)
        index = tuple(int(i) for i in np.unravel_index(position, self.shape)) if self.shape else ()
        return Place(value, self.sample, index, reference, candidate)


def _blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + size, stop)) for a in range(start, stop, size))


def _position(where: np.ndarray | None, at: int) -> int:
    return at if where is None else int(where[at])


def _plain(x: np.ndarray) -> np.ndarray:
    """Bool and the integers of ml_dtypes as NumPy's own integers; everything else as it is."""
    if x.dtype.kind == "b":
        return x.view(np.uint8)
    if x.dtype.kind == "V" and "int" in x.dtype.name and "float" not in x.dtype.name:
        return x.astype(np.int8)  # 4 and 2 bits, signed or not
    return x


def _fits_float32(dtype: np.dtype) -> bool:
    """Whether float32 holds every value of a float dtype."""
    return dtype.kind in "fV" and dtype.itemsize <= 4


def _as_float32(x: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    if x.dtype == np.float32:
        return x
    buffer[: x.size] = x
    return buffer[: x.size]


def _widen(x: np.ndarray, working: np.dtype) -> np.ndarray:
    return x.astype(np.complex128 if working.kind == "c" else np.float64, copy=False)


def _dot(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of products of two float32 vectors: float32 over `RUN` elements, float64 over runs."""
    whole = x.size - x.size % RUN
    total = 0.0
    if whole:
        runs = np.matmul(x[:whole].reshape(-1, 1, RUN), y[:whole].reshape(-1, RUN, 1))
        total = sum(runs.ravel().tolist())
    if whole < x.size:
        total += float(np.dot(x[whole:], y[whole:]))
    return total


@lru_cache(maxsize=1)
def _all_ones() -> np.ndarray:
    return np.ones(BLOCK, np.float32)


def _ones(n: int) -> np.ndarray:
    return _all_ones()[:n]


def _integer_error(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Candidate minus reference in float64, rounded once: the subtraction itself neither wraps around nor rounds."""
    if max(reference.dtype.itemsize, candidate.dtype.itemsize) < 8:
        return candidate.astype(np.float64) - reference.astype(np.float64)
    up, size, over = _distance(reference, candidate)
    error = size.astype(np.float64)
    error[over] += 2.0**64
    return np.where(up, error, -error)


def _distance(reference: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far integers are apart, exactly: whether the candidate is greater, the distance in 64 bits, and whether 2^64
    more have to be added."""
    below_r, below_c = reference < 0, candidate < 0  # two's complement in 64 bits, and the sign apart
    bits_r, bits_c = reference.astype(np.uint64), candidate.astype(np.uint64)
    up = np.where(below_r == below_c, bits_c > bits_r, below_r)
    size = np.where(up, bits_c - bits_r, bits_r - bits_c)
    # int64 against uint64 alone can be 2^64 or more apart: the difference then came out below its positive end.
    return up, size, (below_r != below_c) & (size < np.where(below_r, bits_c, bits_r))


def _ulp_dtype(reference: np.dtype, candidate: np.dtype) -> np.dtype | None:
    """The dtype whose units in the last place count: of two float dtypes, the one with the shorter significand."""
    if any(d.kind not in "fcV" for d in (reference, candidate)):
        return None
    parts = [np.dtype(f"f{d.itemsize // 2}") if d.kind == "c" else d for d in (reference, candidate)]
    return parts[0] if _step(parts[0]) >= _step(parts[1]) else parts[1]


@lru_cache(maxsize=64)
def _step(dtype: np.dtype) -> float:
    """Distance of 1 from the next larger number."""
    if dtype.name in ("float16", "float32", "float64", "longdouble"):
        return float(np.finfo(dtype).eps)
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps)


def _max_ulp(reference: np.ndarray, candidate: np.ndarray, dtype: np.dtype) -> int:
    """Greatest number of steps of ``dtype`` between finite values; complex numbers part by part."""
    one, other = (_rank(_parts(x).astype(dtype, copy=False)) for x in (reference, candidate))
    if one.dtype != np.int64:
        return int(np.abs(np.subtract(one, other, dtype=np.int64)).max())
    # Two ranks can be further apart than int64 reaches; as uint64 the difference is right again.
    return int(np.where(one > other, one - other, other - one).view(np.uint64).max())


def _parts(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(f"f{x.dtype.itemsize // 2}") if x.dtype.kind == "c" else x


def _rank(x: np.ndarray) -> np.ndarray:
    """The number of each value when all values of its dtype are counted upwards; both zeros have the same."""
    if x.dtype.itemsize == 1:
        return _byte_ranks(x.dtype)[x.view(np.uint8)]
    code = np.ascontiguousarray(x).view(f"i{x.dtype.itemsize}")
    # Sign and magnitude become two's complement: negative codes are mirrored, and -0 lands on 0.
    sign = code >> (8 * x.dtype.itemsize - 1)
    return (code ^ (sign & np.iinfo(code.dtype).max)) - sign


@lru_cache(maxsize=64)
def _byte_ranks(dtype: np.dtype) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    _, ranks = np.unique(np.where(values == 0, 0.0, values), return_inverse=True)
    return ranks.reshape(-1).astype(np.int32)
