"""What can be said about a pair of tensors in one pass: `Statistics`, which add up exactly over blocks and samples.

A tensor is read in blocks that stay in the CPU's cache, and every number that is kept can be merged: sums, maxima with
their places, counts, and a histogram of log2 |error|. Error is candidate minus reference.

Precision. The full statistics take every difference, product and sum in float64; 64-bit integers are subtracted as
integers first, so that nothing wraps around and nothing is rounded away. The cheap ones (``full=False``) of formats of
32 bits or less take differences and products in float32, sum them with BLAS over `RUN` elements, and the sums of runs
in float64: a relative error of at most `RUN` * 2^-24 (5e-4) and in practice under 1e-6. A block whose float32 sums
could overflow or underflow is done again in float64.

Which pairs count. NaN, and infinities of one sign on both sides, have no error: an infinity equals itself, a NaN equals
a NaN only by option. A pair of which one side alone is finite has an infinite error: it is the greatest, and every mean
is infinite with it (``null`` in reports), unless `Statistics.metrics` is asked for the finite pairs alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runners.contract.device import DeviceArray

if TYPE_CHECKING:
    from ..outputs.tolerance import Allowed

BLOCK = 1 << 17
"""Elements of a block of the cheap statistics: its float32 arrays fit into a core's second-level cache."""
FULL_BLOCK = 1 << 13
"""Elements of a block of the full statistics, which hold about ten float64 arrays of that size."""
RUN = 1 << 13
"""Elements that BLAS sums in float32 at a time. OpenBLAS starts threads for more, which cost more than they gain."""
THREAD_SHARE = 1 << 18
"""Fewest elements worth a thread."""

CHEAP = ("count", "max_abs", "rmse", "rel_l2", "snr_db", "cosine", "bias", "nan", "inf")
"""Keys of the cheap metrics, in the order of the report."""
FULL = (
    *("count", "mismatched", "max_abs", "max_rel", "mean_abs", "rmse"),
    *("rel_l2", "snr_db", "cosine", "bias", "max_ulp", "nan", "inf"),
)
"""Keys of all metrics, in the order of the report."""


@dataclass(frozen=True)
class Place:
    """Where a maximum was found.

    Attributes:
        value: The maximum: an exact ``int`` between integers, else a ``float``, ``inf`` where one side is not finite.
        sample: Number of the sample.
        index: Indices within that sample's tensor, one for each axis.
        reference, candidate: The two values there, as Python numbers.
    """

    value: float
    sample: int
    index: tuple[int, ...]
    reference: Any
    candidate: Any


class Statistics:
    """One pair of tensors, over any number of samples.

    Attributes:
        count: Elements seen; elements that are not finite on either side count too.
        mismatched: Elements outside the tolerance; without one, elements that differ at all.
        broken: Elements of which one side alone is finite, or that are infinities of two signs, or NaN (see
            ``equal_nan``). They are mismatches under any tolerance.
        samples: Calls of `update`.
        nan, inf: Counts on the reference's and the candidate's side.
        broken_at: The first of those; None where there are none.
        max_abs_at, max_rel_at: Greatest errors of finite pairs with their places; None where all are zero. The relative
            error is |error| / |reference|, over elements with a nonzero reference.
        use_at: Greatest |error| / allowed error with its place: 1 is at the limit. None without a tolerance.
        histogram: floor(log2 |error|) -> elements, over finite pairs that differ. Full statistics only.
        shape_mismatch: Reference's and candidate's shape where they differ first; such a pair has nothing to compare,
            counts as mismatched throughout, and its errors are infinite.
        dtypes: Reference's and candidate's dtype names of the last update.
        device: Where the last pair was read, and by what, if not by NumPy: ``"cuda:0 (cupy 14.2.0)"``.
    """

    def __init__(self, full: bool = True, *, equal_nan: bool = False, threads: int = 1) -> None:
        """Starts empty.

        Args:
            full: Everything, or only the `CHEAP` metrics (`mismatched` too where a tolerance is given).
            equal_nan: Whether NaN equals NaN.
            threads: Threads for large tensors. Two gain little: NumPy holds Python's lock between its short steps.
        """
        self.full = full
        self.equal_nan = equal_nan
        self.threads = threads
        self.count = 0
        self.finite = 0
        self.mismatched = 0
        self.broken = 0
        self.samples = 0
        self.nan = [0, 0]
        self.inf = [0, 0]
        self.broken_at: Place | None = None
        self.max_abs_at: Place | None = None
        self.max_rel_at: Place | None = None
        self.use_at: Place | None = None
        self.max_ulp: int | None = None
        self.histogram: dict[int, int] = {}
        self.shape_mismatch: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.dtypes: tuple[str, str] | None = None
        self.text = False
        self.device = ""
        self._abs = 0.0  # sum of |error|
        self._error: complex = 0.0  # sum of error
        self._ee = 0.0  # sums of squares: error, reference, candidate; and the product of the two
        self._rr = 0.0
        self._cc = 0.0
        self._rc = 0.0

    # -- taking in ----------------------------------------------------------------------------------------------

    def update(
        self,
        reference: np.ndarray | DeviceArray,
        candidate: np.ndarray | DeviceArray,
        allowed: Allowed | None = None,
        sample: int = 0,
    ) -> Statistics:
        """Takes in one sample's pair.

        Args:
            reference, candidate: Tensors of any ONNX dtype. Where dtypes differ, values are compared. Two that lie on
                one device are read there where `ondevice` can, and else downloaded.
            allowed: The allowed error of each element (`Tolerance.allowed`); None means none at all.
            sample: Number of the sample, for the places of maxima.

        Returns:
            Itself.
        """
        if isinstance(reference, DeviceArray) and isinstance(candidate, DeviceArray):
            from . import device as ondevice

            part = Statistics(self.full, equal_nan=self.equal_nan)
            if ondevice.read(reference, candidate, allowed, sample, part):
                part.samples, part.dtypes = 1, (reference.dtype.name, candidate.dtype.name)
                return self.merge(part)
        reference, candidate = np.asarray(reference), np.asarray(candidate)
        self.samples += 1
        self.dtypes = (_dtype_name(reference), _dtype_name(candidate))
        if reference.shape != candidate.shape:
            self._mismatch_shape(reference, candidate, sample)
            return self
        pair = _Pair(reference, candidate, allowed, sample)
        shares = min(self.threads, reference.size // THREAD_SHARE)
        if pair.text or shares < 2:
            self._read(pair, 0, reference.size)
            return self
        step = -(-reference.size // shares)
        step += -step % BLOCK
        spans = [(start, min(start + step, reference.size)) for start in range(0, reference.size, step)]
        parts = [Statistics(self.full, equal_nan=self.equal_nan, threads=1) for _ in spans]
        waiting = [_pool().submit(p._read, pair, *span) for p, span in zip(parts[1:], spans[1:], strict=True)]
        parts[0]._read(pair, *spans[0])
        for future in waiting:
            future.result()
        for part in parts:
            self.merge(part)
        return self

    def merge(self, other: Statistics) -> Statistics:
        """Takes in what another one has seen: the same as having seen it all, up to the rounding of float64 sums.

        Returns:
            Itself.
        """
        self.count += other.count
        self.finite += other.finite
        self.mismatched += other.mismatched
        self.broken += other.broken
        self.samples += other.samples
        for side in (0, 1):
            self.nan[side] += other.nan[side]
            self.inf[side] += other.inf[side]
        self.broken_at = _greater(self.broken_at, other.broken_at)
        self.max_abs_at = _greater(self.max_abs_at, other.max_abs_at)
        self.max_rel_at = _greater(self.max_rel_at, other.max_rel_at)
        self.use_at = _greater(self.use_at, other.use_at)
        if other.max_ulp is not None:
            self.max_ulp = max(self.max_ulp or 0, other.max_ulp)
        for exponent, number in other.histogram.items():
            self.histogram[exponent] = self.histogram.get(exponent, 0) + number
        self.shape_mismatch = self.shape_mismatch or other.shape_mismatch
        self.dtypes = self.dtypes or other.dtypes
        self.text = self.text or other.text
        self.device = self.device or other.device
        self._abs += other._abs
        self._error += other._error
        self._ee += other._ee
        self._rr += other._rr
        self._cc += other._cc
        self._rc += other._rc
        return self

    def _mismatch_shape(self, reference: np.ndarray, candidate: np.ndarray, sample: int) -> None:
        self.shape_mismatch = self.shape_mismatch or (reference.shape, candidate.shape)
        number = max(reference.size, candidate.size, 1)
        self.count += number
        self.mismatched += number
        self.broken += number
        place = Place(math.inf, sample, (), None, None)
        self.broken_at = _greater(self.broken_at, place)
        self.use_at = _greater(self.use_at, place)

    def _read(self, pair: _Pair, start: int, stop: int) -> None:
        """Takes in elements ``start`` to ``stop``, counted in C order."""
        if pair.text:
            self._read_text(pair)
            return
        if self.full or pair.working != np.float32:
            for a, b in _blocks(start, stop, FULL_BLOCK):
                self._read_block(pair, a, b)
            return
        buffers = [np.empty(min(BLOCK, stop - start), np.float32) for _ in range(3)]
        for a, b in _blocks(start, stop, BLOCK):
            with np.errstate(all="ignore"):
                done = self._read_cheaply(pair, a, b, buffers)
            if not done:
                for inner in _blocks(a, b, FULL_BLOCK):
                    self._read_block(pair, *inner)

    def _read_cheaply(self, pair: _Pair, start: int, stop: int, buffers: list[np.ndarray]) -> bool:
        """Takes in a block in float32; False, and nothing taken in, where that would overflow or underflow."""
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
        self.count += stop - start
        self.finite += stop - start
        self._error += total
        self._ee += ee
        self._rr += rr
        self._cc += cc
        self._rc += rc
        magnitude = None
        if top > (self.max_abs_at.value if self.max_abs_at else 0):
            magnitude = np.abs(error)
            position = start + int(magnitude.argmax())
            self.max_abs_at = _greater(self.max_abs_at, pair.place(None, position))
        if pair.allowed is not None:
            magnitude = np.abs(error) if magnitude is None else magnitude
            limit = pair.allowed.block(start, stop, np.abs(reference))
            self.mismatched += int(np.count_nonzero(~(magnitude <= limit)))
            self._take_use(pair, magnitude, limit, start, None)
        elif top:
            self.mismatched += int(np.count_nonzero(error != 0))  # ten times faster than on floats
        return True

    def _read_block(self, pair: _Pair, start: int, stop: int) -> None:
        """Takes in a block in float64 (complex128 for complex numbers)."""
        raw = pair.reference[start:stop], pair.candidate[start:stop]
        with np.errstate(all="ignore"):
            reference, candidate = (_widen(x, pair.working) for x in raw)
            limit = None if pair.allowed is None else pair.allowed.block(start, stop, np.abs(reference))
            self.count += stop - start
            where: np.ndarray | None = None  # positions of finite pairs within the block; None: all of them
            if pair.integers:
                error = _integer_error(*raw)
            else:
                error = candidate - reference
                if not np.isfinite(error).all():
                    where = self._drop_nonfinite(pair, reference, candidate, start)
            if where is not None:
                reference, candidate, error = reference[where], candidate[where], error[where]
                limit = limit[where] if isinstance(limit, np.ndarray) and limit.ndim else limit
            if not error.size:
                return
            magnitude = np.abs(error)
            self.finite += error.size
            self._error += error.sum().item()
            self._ee += float(np.vdot(error, error).real)
            self._rr += float(np.vdot(reference, reference).real)
            self._cc += float(np.vdot(candidate, candidate).real)
            self._rc += float(np.vdot(reference, candidate).real)
            wrong = magnitude != 0 if limit is None else ~(magnitude <= limit)
            self.mismatched += int(np.count_nonzero(wrong))
            at = int(magnitude.argmax())
            if magnitude[at] > (self.max_abs_at.value if self.max_abs_at else 0):
                self.max_abs_at = _greater(self.max_abs_at, pair.place(None, start + _position(where, at)))
            if limit is not None:
                self._take_use(pair, magnitude, limit, start, where)
            if self.full:
                self._take_rest(pair, raw, reference, magnitude, start, where)

    def _take_rest(
        self,
        pair: _Pair,
        raw: tuple[np.ndarray, np.ndarray],
        reference: np.ndarray,
        magnitude: np.ndarray,
        start: int,
        where: np.ndarray | None,
    ) -> None:
        """What the cheap statistics leave out."""
        self._abs += float(magnitude.sum())
        scale = np.abs(reference)
        relative = magnitude / scale
        at = int(relative.argmax())
        if not math.isfinite(relative[at]):  # argmax stops at NaN: 0 / 0
            relative[scale == 0] = 0
            at = int(relative.argmax())
        if relative[at] > (self.max_rel_at.value if self.max_rel_at else 0):
            place = pair.place(float(relative[at]), start + _position(where, at))
            self.max_rel_at = _greater(self.max_rel_at, place)
        if pair.ulp_dtype is not None:
            one, other = raw if where is None else (raw[0][where], raw[1][where])
            self.max_ulp = max(self.max_ulp or 0, _max_ulp(one, other, pair.ulp_dtype))
        zeros = magnitude.size - int(np.count_nonzero(magnitude != 0))
        if zeros < magnitude.size:
            exponents = np.bincount(magnitude.view(np.int64) >> 52)
            exponents[0] -= zeros  # leaves the subnormals of float64
            for exponent in np.flatnonzero(exponents).tolist():
                key = exponent - 1023
                self.histogram[key] = self.histogram.get(key, 0) + int(exponents[exponent])

    def _drop_nonfinite(self, pair: _Pair, reference: np.ndarray, candidate: np.ndarray, start: int) -> np.ndarray:
        """Counts NaN and infinities; positions of the pairs that are finite on both sides."""
        finite = np.isfinite(reference) & np.isfinite(candidate)
        for side, values in enumerate((reference, candidate)):
            missing = np.isnan(values)
            self.nan[side] += int(np.count_nonzero(missing))
            self.inf[side] += int(np.count_nonzero(np.isinf(values) & ~missing))
        same = reference == candidate
        if self.equal_nan:
            same |= np.isnan(reference) & np.isnan(candidate)
        broken = np.flatnonzero(~finite & ~same)
        if broken.size:
            self.broken += broken.size
            self.mismatched += broken.size
            place = pair.place(math.inf, start + int(broken[0]))
            self.broken_at = _greater(self.broken_at, place)
            if pair.allowed is not None:
                self.use_at = _greater(self.use_at, place)
        return np.flatnonzero(finite)

    def _take_use(
        self, pair: _Pair, magnitude: np.ndarray, limit: np.ndarray | float, start: int, where: np.ndarray | None
    ) -> None:
        with np.errstate(all="ignore"):
            use = np.where(magnitude > 0, magnitude / limit, 0.0)
        at = int(use.argmax())
        if self.use_at is None or use[at] > self.use_at.value:
            place = pair.place(float(use[at]), start + _position(where, at))
            self.use_at = _greater(self.use_at, place)

    def _read_text(self, pair: _Pair) -> None:
        self.text = True
        self.count += pair.reference.size
        for position, (one, other) in enumerate(zip(pair.reference.tolist(), pair.candidate.tolist(), strict=True)):
            if _text(one) != _text(other):
                if not self.mismatched:
                    self.broken_at = _greater(self.broken_at, pair.place(math.inf, position))
                self.mismatched += 1
                self.broken += 1

    # -- telling ------------------------------------------------------------------------------------------------

    @property
    def agree(self) -> bool:
        """Whether something was compared and nothing mismatched."""
        return self.samples > 0 and self.mismatched == 0

    @property
    def worst(self) -> Place | None:
        """The element that uses most of its tolerance; without a tolerance, the one with the greatest error."""
        if self.use_at is not None and self.use_at.value > 0:
            return self.use_at
        return self.broken_at or self.max_abs_at

    @property
    def worst_sample(self) -> int | None:
        """Number of the sample that holds `worst`; None where there is no error at all."""
        return None if self.worst is None else self.worst.sample

    @property
    def worst_index(self) -> tuple[int, ...] | None:
        """Indices of `worst` within its sample's tensor; None where there is no error at all."""
        return None if self.worst is None else self.worst.index

    @property
    def use(self) -> float | None:
        """Greatest share of the tolerance that an element uses (1 is at the limit); None without a tolerance."""
        return None if self.use_at is None else self.use_at.value

    def measures(self, finite_only: bool = False) -> dict[str, Any]:
        """Every metric under its key in the report, with ``inf`` and ``nan`` where they say so.

        Args:
            finite_only: Errors over the pairs that are finite on both sides, whatever the others do.
        """
        n = self.finite
        broken = self.broken and not finite_only
        rmse = math.inf if broken else _mean_root(self._ee, n)
        error, signal = (math.inf if broken else math.sqrt(self._ee)), math.sqrt(self._rr)
        values: dict[str, Any] = {
            "count": self.count,
            "mismatched": self.mismatched,
            "max_abs": math.inf if broken else (self.max_abs_at.value if self.max_abs_at else 0.0),
            "max_rel": math.inf if broken else (self.max_rel_at.value if self.max_rel_at else 0.0),
            "mean_abs": math.inf if broken else (self._abs / n if n else 0.0),
            "rmse": rmse,
            "rel_l2": _ratio(error, signal),
            "snr_db": _snr(signal, error),
            "cosine": math.nan if broken else self._cosine(),
            "bias": math.nan if broken else self._bias(),
            "max_ulp": math.inf if broken and self.max_ulp is not None else self.max_ulp,
            "nan": list(self.nan),
            "inf": list(self.inf),
        }
        if self.text:
            values.update(dict.fromkeys(k for k in FULL if k not in ("count", "mismatched", "nan", "inf")))
        if self.full:
            return values
        keys = CHEAP if self.use_at is None else FULL[:2] + CHEAP[1:]
        return {key: values[key] for key in keys}

    def metrics(self, finite_only: bool = False) -> dict[str, Any]:
        """Every metric under its key in the report; what is not finite is None, as JSON has it.

        Args:
            finite_only: See `measures`.
        """
        return {k: _or_none(v) for k, v in self.measures(finite_only).items()}

    def _cosine(self) -> float:
        if self._rr == 0 and self._cc == 0:
            return math.nan
        product = math.sqrt(self._rr) * math.sqrt(self._cc)
        return max(-1.0, min(1.0, self._rc / product)) if product else 0.0

    def _bias(self) -> float:
        """Mean error; of complex numbers, its modulus."""
        if not self.finite:
            return 0.0
        total = self._error
        return (abs(total) if isinstance(total, complex) else total) / self.finite


class _Pair:
    """One sample's two tensors, flattened in C order, and the dtypes that their comparison needs."""

    def __init__(self, reference: np.ndarray, candidate: np.ndarray, allowed: Allowed | None, sample: int) -> None:
        self.shape = reference.shape
        self.text = _is_text(reference.dtype) or _is_text(candidate.dtype)
        self.raw = reference.reshape(-1), candidate.reshape(-1)
        self.reference, self.candidate = (_plain(x) for x in self.raw)
        self.allowed = allowed
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
        reference, candidate = _number(one), _number(other)
        if value is None:
            value = abs(candidate - reference)
        index = tuple(int(i) for i in np.unravel_index(position, self.shape)) if self.shape else ()
        return Place(value, self.sample, index, reference, candidate)


def _greater(one: Place | None, other: Place | None) -> Place | None:
    """The place of the greater value; of equal ones, the earlier."""
    if one is None or other is None:
        return one or other
    if one.value != other.value:
        return one if one.value > other.value else other
    return one if (one.sample, one.index) <= (other.sample, other.index) else other


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="layerdiff-statistics")


def _blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + size, stop)) for a in range(start, stop, size))


def _position(where: np.ndarray | None, at: int) -> int:
    return at if where is None else int(where[at])


def _is_text(dtype: np.dtype) -> bool:
    return dtype.kind in "OSUT"


def _dtype_name(x: np.ndarray) -> str:
    return "string" if _is_text(x.dtype) else x.dtype.name


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
    # Two's complement in 64 bits, and the sign apart.
    below_r, below_c = reference < 0, candidate < 0
    bits_r, bits_c = reference.astype(np.uint64), candidate.astype(np.uint64)
    up = np.where(below_r == below_c, bits_c > bits_r, below_r)
    size = np.where(up, bits_c - bits_r, bits_r - bits_c)
    error = size.astype(np.float64)
    # int64 against uint64 alone can be 2^64 or more apart: the difference then came out below its positive end.
    over = (below_r != below_c) & (size < np.where(below_r, bits_c, bits_r))
    error[over] += 2.0**64
    return np.where(up, error, -error)


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


def _number(x: Any) -> Any:
    """A NumPy scalar as a Python number (ml_dtypes scalars have no ``item`` that gives one)."""
    if isinstance(x, (str, bytes)):
        return _text(x)
    x = np.asarray(x)
    if x.dtype.kind == "V":
        x = x.astype(np.int8 if "float" not in x.dtype.name else np.float64)
    return x.item()


def _text(x: Any) -> Any:
    """Strings as ``str``: TensorFlow gives ``bytes`` where ONNX Runtime gives ``str``."""
    return x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else x


def _mean_root(squares: float, n: int) -> float:
    return math.sqrt(squares / n) if n else 0.0


def _ratio(error: float, signal: float) -> float:
    if signal:
        return error / signal
    return math.inf if error else 0.0


def _snr(signal: float, error: float) -> float:
    """Signal over error in dB: 20 log10(|reference| / |error|), which knows no peak and no sign."""
    if error == 0:
        return math.inf
    if signal == 0 or math.isinf(error):
        return -math.inf
    return 20 * (math.log10(signal) - math.log10(error))


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cheap(reference: np.ndarray, candidate: np.ndarray, threads: int = 1) -> dict[str, Any]:
    """The `CHEAP` metrics of one pair, as `Statistics.metrics` has them."""
    return Statistics(False, threads=threads).update(reference, candidate).metrics()
