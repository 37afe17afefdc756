"""What can be said about a pair of tensors in one pass: `Statistics`, which add up exactly over blocks and samples.

A tensor is read in blocks that stay in the CPU's cache, and every number that is kept can be merged: sums, maxima with
their places, counts, and a histogram of log2 |error|. Error is candidate minus reference.

Precision. The full statistics take every difference, product and sum in float64; 64-bit integers are subtracted as
integers first, so that nothing wraps around and nothing is rounded away. The cheap ones (``full=False``) of formats of
32 bits or less take differences and products in float32, sum them with BLAS over `host.RUN` elements, and the sums of
runs in float64: a relative error of at most `host.RUN` * 2^-24 (5e-4) and in practice under 1e-6. A block whose float32
sums could overflow or underflow is done again in float64.

Which pairs count. NaN, and infinities of one sign on both sides, have no error: an infinity equals itself, a NaN equals
a NaN only by option. A pair of which one side alone is finite has an infinite error: it is the greatest, and every mean
is infinite with it (``null`` in reports), unless `Statistics.metrics` is asked for the finite pairs alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...graph.specs import dtype_name
from ...runners.contract.device import DeviceArray
from . import device, host
from .limits import Limits
from .moments import Moments, Reading
from .place import Place

CHEAP = ("count", "max_abs", "rmse", "rel_l2", "snr_db", "cosine", "bias", "nan", "inf")
"""Keys of the cheap metrics, in the order of the report."""
FULL = (
    *("count", "mismatched", "max_abs", "max_rel", "mean_abs", "rmse"),
    *("rel_l2", "snr_db", "cosine", "bias", "max_ulp", "nan", "inf"),
)
"""Keys of all metrics, in the order of the report."""


class Statistics(Moments):
    """One pair of tensors, over any number of samples.

    Attributes:
        reading: What is looked for.
        samples: Calls of `update`.
        shape_mismatch: Reference's and candidate's shape where they differ first; such a pair has nothing to compare,
            counts as mismatched throughout, and its errors are infinite.
        dtypes: Reference's and candidate's dtype names of the last update.
    """

    def __init__(self, full: bool = True, *, equal_nan: bool = False) -> None:
        """Starts empty.

        Args:
            full: Everything, or only the `CHEAP` metrics (`mismatched` too where a tolerance is given).
            equal_nan: Whether NaN equals NaN.
        """
        super().__init__()
        self.reading = Reading(full, equal_nan)
        self.samples = 0
        self.shape_mismatch: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.dtypes: tuple[str, str] | None = None

    def update(
        self,
        reference: np.ndarray | DeviceArray,
        candidate: np.ndarray | DeviceArray,
        limits: Limits | None = None,
        sample: int = 0,
    ) -> Statistics:
        """Takes in one sample's pair.

        Args:
            reference, candidate: Tensors of any ONNX dtype. Where dtypes differ, values are compared. Two that lie on
                one device are read there where `device` can, and else downloaded.
            limits: The allowed error; None means none at all.
            sample: Number of the sample, for the places of maxima.

        Returns:
            Itself.
        """
        self.samples += 1
        if isinstance(reference, DeviceArray) and isinstance(candidate, DeviceArray):
            found = device.read(reference, candidate, limits, sample, self.reading)
            if found is not None:
                self.dtypes = dtype_name(reference.dtype), dtype_name(candidate.dtype)
                self.add(found)
                return self
        reference, candidate = np.asarray(reference), np.asarray(candidate)
        self.dtypes = _dtype_name(reference), _dtype_name(candidate)
        if reference.shape != candidate.shape:
            self.shape_mismatch = self.shape_mismatch or (reference.shape, candidate.shape)
            number = max(reference.size, candidate.size, 1)
            self.count += number
            self.take_broken(number, Place(math.inf, sample, (), None, None), True)
            return self
        host.read(reference, candidate, limits, sample, self.reading, self)
        return self

    def merge(self, other: Statistics) -> Statistics:
        """Takes in what another one has seen: the same as having seen it all, up to the rounding of float64 sums.

        Returns:
            Itself.
        """
        self.add(other)
        self.samples += other.samples
        self.shape_mismatch = self.shape_mismatch or other.shape_mismatch
        self.dtypes = self.dtypes or other.dtypes
        return self

    @property
    def agree(self) -> bool:
        """Whether something was compared and nothing mismatched."""
        return self.samples > 0 and self.mismatched == 0

    @property
    def not_finite(self) -> bool:
        """Whether one side alone is finite somewhere, which strings that differ and other shapes are not."""
        return bool(self.broken) and not self.text and self.shape_mismatch is None

    @property
    def zero(self) -> bool:
        """Whether all elements are, and are floats; of two dtypes, on both sides."""
        floats = bool(self.dtypes) and all("float" in dtype for dtype in self.dtypes or ())
        return floats and 0 < self.finite == self.count and self.sum_rr == 0 == self.sum_cc

    @property
    def one_value(self) -> bool:
        """Whether all of the reference's elements are the same number, and finite."""
        real = "complex" not in (self.dtypes or ("",))[0]
        return real and 0 < self.finite == self.count and self.least == self.greatest

    @property
    def magnitude(self) -> float:
        """The greatest magnitude of the reference, over finite pairs."""
        return max(-self.least, self.greatest)

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
        rmse = math.inf if broken else _mean_root(self.sum_ee, n)
        error, signal = (math.inf if broken else math.sqrt(self.sum_ee)), math.sqrt(self.sum_rr)
        values: dict[str, Any] = {
            "count": self.count,
            "mismatched": self.mismatched,
            "max_abs": math.inf if broken else (self.max_abs_at.value if self.max_abs_at else 0.0),
            "max_rel": math.inf if broken else (self.max_rel_at.value if self.max_rel_at else 0.0),
            "mean_abs": math.inf if broken else (self.sum_abs / n if n else 0.0),
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
        if self.reading.full:
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
        if self.sum_rr == 0 and self.sum_cc == 0:
            return math.nan
        product = math.sqrt(self.sum_rr) * math.sqrt(self.sum_cc)
        return max(-1.0, min(1.0, self.sum_rc / product)) if product else 0.0

    def _bias(self) -> float:
        """Mean error; of complex numbers, its modulus."""
        if not self.finite:
            return 0.0
        total = self.sum_error
        return (abs(total) if isinstance(total, complex) else total) / self.finite


def _dtype_name(x: np.ndarray) -> str:
    return "string" if host.is_text(x.dtype) else dtype_name(x.dtype)


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
