"""Statistics where the data are: on a GPU, by CuPy or PyTorch, if one of them is installed.

The same numbers as `host` finds, in float64 throughout, up to the rounding of float64 sums. The arithmetic is written
once, against the functions that NumPy, CuPy and PyTorch have in common; `libraries.Library` is what they do
differently. Nothing is masked out by indexing, which would have to wait for the device: pairs that are not finite are
set to zero, where they add nothing and exceed nothing. Small arrays are downloaded: starting kernels would take longer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...runners.contract.device import DeviceArray
from .host import EXACT
from .libraries import LIBRARIES, Library, library
from .limits import Limits
from .moments import Moments, Reading
from .place import Place, greater, number

SMALL = 1 << 22
"""Fewest elements that are worth it."""
BLOCK = 1 << 23
"""Elements at a time: about ten float64 arrays of that size live on the device together."""
LANES = 32
"""Histograms that are counted side by side: most errors fall into few bins, and a bin takes one count at a time."""

log = logging.getLogger("layerdiff")

_FLOATS = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}
_INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")


class Uploads:
    """Large inputs, uploaded once for all sessions that read them on one device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._kept: dict[str, tuple[np.ndarray, DeviceArray]] = {}

    def __call__(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | DeviceArray]:
        """``feed`` with its large arrays on the device, once a library is at work there."""
        found = LIBRARIES.get(self._device)
        if found is None:
            return dict(feed)
        return {name: self._uploaded(found, name, array) for name, array in feed.items()}

    def _uploaded(self, lib: Library, name: str, array: np.ndarray) -> np.ndarray | DeviceArray:
        if array.size < SMALL or array.dtype.kind in "OSUT":
            return array
        kept = self._kept.pop(name, None)
        if kept is None or kept[0] is not array:
            kept = None  # free the last sample's before there are two
            copy = lib.upload(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            lib.finish()  # sessions run in streams of their own
            there = DeviceArray(lib.address(copy), array.shape, array.dtype, self._device, array.copy, copy)
            kept = array, there
        self._kept[name] = kept
        return kept[1]


def common(reference: Any, candidate: Any) -> Library | None:
    """What can compare two arrays where they are; None where they have to be compared in host memory."""
    if not (isinstance(reference, DeviceArray) and isinstance(candidate, DeviceArray)):
        return None
    if reference.device != candidate.device or reference.dtype != candidate.dtype or reference.size < SMALL:
        return None
    if reference.shape != candidate.shape:  # nothing to read
        return None
    if reference.dtype.name not in _FLOATS and reference.dtype.name not in _INTEGERS:
        return None
    return library(reference.device)


def read(
    reference: DeviceArray, candidate: DeviceArray, limits: Limits | None, sample: int, how: Reading
) -> Moments | None:
    """What is found in a pair; None where the device could not do it.

    Args:
        reference, candidate: Tensors on one device.
        limits: The allowed error; None: none at all.
        sample: Number of the sample, for places.
        how: What to look for.
    """
    lib = common(reference, candidate)
    if lib is None:
        return None
    found = Moments(device=f"{lib.device} ({lib.name})")
    try:
        with np.errstate(all="ignore"):
            _Reader(_Pair(lib, reference, candidate, sample), limits, how, found).read()
    except (MemoryError, RuntimeError) as error:  # its memory is the runtimes' first
        log.debug("statistics on %s: %s", lib.device, error)
        lib.release()
        return None
    return found


class _Pair:
    """One sample's two tensors, as the library sees them."""

    def __init__(self, lib: Library, reference: DeviceArray, candidate: DeviceArray, sample: int) -> None:
        self.lib = lib
        self.shape = reference.shape
        self.dtype = reference.dtype
        self.raw = lib.vector(reference), lib.vector(candidate)
        self.sample = sample

    def place(self, value: float | None, position: int) -> Place:
        """The place of an element counted in C order; ``value`` None means the |error| there, without rounding."""
        one, other = (self.lib.download(x[position : position + 1]).view(self.dtype)[0] for x in self.raw)
        reference, candidate = number(one), number(other)
        if value is None:
            value = abs(candidate - reference)
        index = tuple(int(i) for i in np.unravel_index(position, self.shape)) if self.shape else ()
        return Place(value, self.sample, index, reference, candidate)


class _Reader:
    """One sample's two arrays on their way into a `Moments`."""

    def __init__(self, pair: _Pair, limits: Limits | None, how: Reading, into: Moments) -> None:
        self._pair = pair
        self._lib = pair.lib
        self._dtype = pair.dtype
        self._raw = pair.raw
        self._limits = limits
        self._how = how
        self._into = into
        self._lanes: Any = None

    def read(self) -> None:
        """Takes in all elements."""
        for start, stop in _ranges(self._raw[0].shape[0], BLOCK):
            self._block(start, stop)

    def _block(self, start: int, stop: int) -> None:
        lib, xp, into = self._lib, self._lib.xp, self._into
        raw = self._raw[0][start:stop], self._raw[1][start:stop]
        reference, candidate = (_widen(lib, x, self._dtype.name) for x in raw)
        into.count += stop - start
        finite: Any = None  # which pairs are; None: all of them
        size: Any = None  # of errors between 64-bit integers, of which float64 does not tell all from each other
        if self._dtype.name == "int64":
            error, size = _wide_error(lib, raw[0], raw[1])
        else:
            error = candidate - reference
            if self._dtype.name in _FLOATS and not bool(xp.isfinite(error).all()):
                finite = self._drop_nonfinite(reference, candidate, start)
                reference, candidate, error = (xp.where(finite, x, 0.0) for x in (reference, candidate, error))
        magnitude, scale = xp.abs(error), xp.abs(reference)
        count = stop - start if finite is None else int(finite.sum())
        if not count:
            return
        into.finite += count
        limit = None if self._limits is None else self._limits.allowed(scale)
        wrong = magnitude != 0 if limit is None else ~(magnitude <= limit)
        numbers = {
            "error": error.sum(),
            "ee": (error * error).sum(),
            "rr": (reference * reference).sum(),
            "cc": (candidate * candidate).sum(),
            "rc": (reference * candidate).sum(),
            "mismatched": wrong.sum(),
            "top": magnitude.max(),
            "top_at": magnitude.argmax() if size is None else (size ^ -(2**63)).argmax(),
        }
        if limit is not None:
            use = xp.where(magnitude > 0, magnitude / limit, 0.0)
            use = use if finite is None else xp.where(finite, use, -1.0)
            numbers |= {"use": use.max(), "use_at": use.argmax()}
        if self._how.full:
            relative = xp.where(scale != 0, magnitude / scale, 0.0)
            numbers |= {"relative": relative.max(), "relative_at": relative.argmax()}
            for end, beyond in (("least", math.inf), ("greatest", -math.inf)):
                inside = reference if finite is None else xp.where(finite, reference, beyond)
                numbers[end] = inside.min() if end == "least" else inside.max()
            numbers |= {"abs": magnitude.sum(), "different": (magnitude != 0).sum()}
        stacked = lib.download(xp.stack([lib.cast(x, "float64") for x in numbers.values()])).tolist()
        self._take(dict(zip(numbers, stacked, strict=True)), start)
        if self._how.full:
            self._histogram(magnitude, int(stacked[-1]))
            if self._dtype.name in _FLOATS:
                into.take_ulp(_max_ulp(lib, raw[0], raw[1], self._dtype.name, finite))

    def _take(self, numbers: dict[str, float], start: int) -> None:
        into = self._into
        into.sum_error += numbers["error"]
        into.sum_ee += numbers["ee"]
        into.sum_rr += numbers["rr"]
        into.sum_cc += numbers["cc"]
        into.sum_rc += numbers["rc"]
        into.mismatched += int(numbers["mismatched"])
        known = float(into.max_abs_at.value) if into.max_abs_at else 0.0
        if numbers["top"] > known or (known >= EXACT and numbers["top"] == known):
            into.max_abs_at = greater(into.max_abs_at, self._pair.place(None, start + int(numbers["top_at"])))
        if "use" in numbers and numbers["use"] > (into.use_at.value if into.use_at else -1):
            into.use_at = greater(into.use_at, self._pair.place(numbers["use"], start + int(numbers["use_at"])))
        if not self._how.full:
            return
        into.sum_abs += numbers["abs"]
        into.take_range(numbers["least"], numbers["greatest"])
        if numbers["relative"] > (into.max_rel_at.value if into.max_rel_at else 0):
            place = self._pair.place(numbers["relative"], start + int(numbers["relative_at"]))
            into.max_rel_at = greater(into.max_rel_at, place)

    def _drop_nonfinite(self, reference: Any, candidate: Any, start: int) -> Any:
        """Counts NaN and infinities; which pairs are finite on both sides."""
        xp, into = self._lib.xp, self._into
        finite = xp.isfinite(reference) & xp.isfinite(candidate)
        for side, values in enumerate((reference, candidate)):
            into.nan[side] += int(xp.isnan(values).sum())
            into.inf[side] += int(xp.isinf(values).sum())
        same = reference == candidate
        if self._how.equal_nan:
            same = same | (xp.isnan(reference) & xp.isnan(candidate))
        broken = ~(finite | same)
        count = int(broken.sum())
        if count:
            first = self._pair.place(math.inf, start + int(self._lib.cast(broken, "uint8").argmax()))
            into.take_broken(count, first, self._limits is not None)
        return finite

    def _histogram(self, magnitude: Any, different: int) -> None:
        if not different:
            return
        lib, n = self._lib, magnitude.shape[0]
        if self._lanes is None:
            self._lanes = (lib.arange(0, n) % LANES) * 2048
        bins = (magnitude.view(lib.xp.int64) >> 52) + self._lanes[:n]
        counts = lib.download(lib.xp.bincount(bins, minlength=2048 * LANES)).reshape(LANES, 2048).sum(axis=0)
        counts[0] -= n - different  # leaves the subnormals of float64
        for exponent in np.flatnonzero(counts).tolist():
            self._into.take_histogram(exponent - 1023, int(counts[exponent]))


def _widen(lib: Library, x: Any, dtype: str) -> Any:
    """Stored elements as float64."""
    if dtype == "bfloat16":
        x = (lib.cast(x, "int32") << 16).view(lib.xp.float32)
    elif dtype == "uint16":
        x = lib.cast(x, "int32") & 0xFFFF
    elif dtype == "uint32":
        x = lib.cast(x, "int64") & 0xFFFFFFFF
    return lib.cast(x, "float64")


def _wide_error(lib: Library, reference: Any, candidate: Any) -> tuple[Any, Any]:
    """Candidate minus reference of int64 in float64, rounded once, and its size, a uint64 in the bits of int64."""
    up = candidate > reference
    size = lib.xp.where(up, candidate - reference, reference - candidate)  # wraps around to the right bits of a uint64
    # Half of it, with what was cut off as the lowest bit, rounds as the whole does.
    halves = lib.cast((size >> 1) & (2**63 - 1) | (size & 1), "float64") * 2.0
    error = lib.xp.where(size < 0, halves, lib.cast(size, "float64"))
    return lib.xp.where(up, error, -error), size


def _max_ulp(lib: Library, reference: Any, candidate: Any, dtype: str, finite: Any) -> int:
    """Greatest number of steps of ``dtype`` between finite values."""
    bits = _FLOATS[dtype]
    xp = lib.xp
    one, other = (lib.cast(x.view(getattr(xp, f"int{bits}")), "int64") for x in (reference, candidate))
    one, other = (_rank(x, bits) for x in (one, other))
    steps = xp.where(one > other, one - other, other - one)
    if finite is not None:
        steps = xp.where(finite, steps, 0)
    if bits < 64:
        return int(steps.max())
    return int((steps ^ -(2**63)).max()) + 2**63  # they are uint64 in the bits of int64


def _rank(code: Any, bits: int) -> Any:
    """As in `statistics`: sign and magnitude become two's complement, and both zeros 0."""
    sign = code >> (bits - 1)
    return (code ^ (sign & (2 ** (bits - 1) - 1))) - sign


def _ranges(size: int, step: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + step, size)) for a in range(0, size, step))
