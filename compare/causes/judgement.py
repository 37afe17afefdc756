"""Is a layer's local error more than rounding? One sample of one layer against its expected noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx

from ...graph.formats import FP32
from ...graph.nodes import attribute_int
from ...graph.operators import facts_of, operator
from ...graph.rounding.roundings import Roundings
from ...graph.specs import is_float

SLICE = 64
"""Fewest elements of the slices over which errors are averaged."""
CHANNELS = 16
"""Fewest channels for which a common gain can be told from scatter."""
GAIN_LIMIT = 8.0
"""Standard errors by which a common gain must stand out. Healthy layers reach 5.0 (docs/layers.md)."""
APART = 1.5
"""Times the relative error of the entry with the greatest error from which on another one is judged in its place."""
FLIPS = 1e-3
"""Largest share of integers that rounding may tip over to a neighbour."""

EXPONENT_AT, AROUND_ONE = 52, 1022
"""The bit at which the exponent of a float64 begins, and the exponent of numbers from 1/2 to 1."""

RMS_LIMIT = {False: 8.0, True: 4.0}
"""Most that RMS z of a healthy layer reaches: between FP32 runtimes, and with a coarser candidate (docs/layers.md)."""
OUTLIER = 1.5
"""The same of a layer whose stored weights are the only ones of a file that rounding does not explain."""
SLICE_LIMIT = {False: 24.0, True: 10.0}
"""The same for the worst slice of at least `SLICE` elements."""


@dataclass(frozen=True)
class Judgement:
    """One layer's local error on one sample.

    Attributes:
        exceeds_noise: Whether it is more than the expected noise.
        sample: Number of the sample.
        relative: Relative L2 error.
        rms_z: RMS of error over expected standard deviation; None where the noise is unknown.
        slice_z: The same in the worst slice.
        gain_sigma: Standard errors by which a gain common to all channels stands out; None with too few channels.
        gain: That gain: the candidate is larger by this share.
        bound_use: Largest |error| / hard bound; None where no bound is known or nothing had to be held against it.
        expected: Relative L2 error that rounding explains; None where unknown.
        reason: Which test it fails: ``finite``, ``shape``, ``integer``, ``noise``, ``slice``, ``gain``, ``bound``,
            or ``range``: the steps explain the error, but those of a range far wider than the data.
        known: Whether the expected noise is known; without it nothing exceeds it.
        tensor: The output that was judged; empty for the layer as a whole.
    """

    exceeds_noise: bool
    sample: int
    relative: float
    rms_z: float | None = None
    slice_z: float | None = None
    gain_sigma: float | None = None
    gain: float = 0.0
    bound_use: float | None = None
    expected: float | None = None
    reason: str | None = None
    known: bool = True
    tensor: str = ""

    @classmethod
    def no_error(cls, sample: int) -> Judgement:
        """Both sides give the same values."""
        return cls(False, sample, 0.0, rms_z=0.0, slice_z=0.0, gain_sigma=0.0, bound_use=0.0)

    @classmethod
    def beyond_doubt(cls, reason: str, sample: int, relative: float) -> Judgement:
        """No rounding does this, whatever the format: see ``reason``."""
        return cls(True, sample, relative, reason=reason)

    @classmethod
    def tipped_over(cls, sample: int, share: float) -> Judgement:
        """Integers of a quantizer whose inputs lie on the border between two steps."""
        return cls(False, sample, share)

    @classmethod
    def unknown_noise(cls, sample: int, relative: float) -> Judgement:
        """There is an error, and nothing to hold it against."""
        return cls(False, sample, relative, known=False)

    @classmethod
    def plain_rounding(cls, sample: int, relative: float, plain: float) -> Judgement:
        """The error is no more than what rounding the result explains (`plain_noise`)."""
        return cls(False, sample, relative, rms_z=relative / plain, expected=plain)

    def of_outlier(self) -> Judgement:
        """The same of a layer whose weights stand out: less of an error exceeds its noise."""
        out = not self.exceeds_noise and self.rms_z is not None and self.rms_z > OUTLIER
        return replace(self, exceeds_noise=True, reason="noise") if out else self

    @property
    def excess(self) -> float:
        """How far beyond the expected noise it is, for ranking: the larger, the guiltier."""
        if self.reason in ("finite", "shape", "integer"):
            return math.inf
        return max(self.rms_z or 0.0, (self.slice_z or 0.0) / 3)


def worse(one: Judgement | None, other: Judgement) -> Judgement:
    """The worse of two judgements; the first of equals."""
    if one is None or (other.exceeds_noise, other.relative) > (one.exceeds_noise, one.relative):
        return other
    return one


@dataclass(frozen=True)
class Explained:
    """What rounding explains of an output's error, beside what a probe shows.

    Attributes:
        result_step: Standard deviation of the rounding of a result to a scaled integer.
        gain: RMS of the gain that rounding gives all channels in common, where that is known.
        bound: The largest error that rounding explains, element by element (see `graph.rounding.error_bound`); None if
            unknown.
        proven: Whether both sides are known to obey the bound: what breaks it then exceeds the noise, be it one
            element.
    """

    result_step: float = 0.0
    gain: float = 0.0
    bound: np.ndarray | None = None
    proven: bool = False


NOTHING_MORE = Explained()


def judge(
    reference: np.ndarray,
    candidate: np.ndarray,
    noise: np.ndarray | None,
    rounding: Roundings,
    *,
    sample: int = 0,
    known: bool = True,
    more: Explained = NOTHING_MORE,
) -> Judgement:
    """Judges one output of a layer.

    Args:
        reference, candidate: The layer's output from the same inputs.
        noise: Probe output minus reference (see `graph.rounding.noise_probe`); None if there was nothing to probe.
        rounding: The roundings that the probe was made with.
        sample: Number of the sample, for the record.
        known: Whether the expected noise is known at all.
        more: What else explains an error.
    """
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if reference.shape != candidate.shape:
        return Judgement.beyond_doubt("shape", sample, math.inf)
    if not is_float(reference.dtype) or not is_float(candidate.dtype):
        return _integers(reference, candidate, sample)
    pair = _finite(_flat64(reference), _flat64(candidate))
    if pair is None:
        return Judgement.beyond_doubt("finite", sample, math.inf)
    y, error = pair
    squares = np.square(error)
    # sums of NumPy's own, the same on every machine: those of BLAS depend on its threads
    power, squared = float(np.square(y).sum()), float(squares.sum())
    if not squared:
        return Judgement.no_error(sample)
    relative = math.sqrt(squared / power) if power else math.inf
    if not known:
        return Judgement.unknown_noise(sample, relative)
    variance = _variance(y, noise, rounding, more.result_step)
    expected = math.sqrt(float(variance.sum()))
    rms_z = math.sqrt(squared) / expected if expected else math.inf
    slice_z = _worst_slice(y, squares, variance, reference.shape, rounding)
    least = 0.5 * max(rounding.result, 8 * FP32.u)  # a gain that matters
    gain, gain_sigma = _gain(y, error, reference.shape, max(more.gain, least / GAIN_LIMIT))
    bound_use = None if more.bound is None else use_of(error, more.bound)
    reason = None
    if rms_z > RMS_LIMIT[rounding.coarse] and math.sqrt(squared / y.size) > rounding.floor:
        reason = "noise"
    elif slice_z > SLICE_LIMIT[rounding.coarse]:
        reason = "slice"
    elif gain_sigma is not None and gain_sigma > GAIN_LIMIT:
        reason = "gain"
    elif more.proven and bound_use is not None and bound_use > 1:
        reason = "bound"
    share = expected / math.sqrt(power) if power else None
    return Judgement(reason is not None, sample, relative, rms_z, slice_z, gain_sigma, gain, bound_use, share, reason)


def _finite(y: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The reference and the error, zero where neither side is finite; None where one side alone is."""
    with np.errstate(invalid="ignore"):  # infinity - infinity
        error = c - y
        if math.isfinite(float(error.sum())):
            return y, error
    finite = np.isfinite(y)
    if not np.array_equal(finite, np.isfinite(c)) or not np.array_equal(y[~finite], c[~finite], equal_nan=True):
        return None
    return np.where(finite, y, 0.0), np.where(finite, error, 0.0)


def _variance(y: np.ndarray, noise: np.ndarray | None, rounding: Roundings, result_step: float) -> np.ndarray:
    """The expected variance of each element's error."""
    variance: np.ndarray = rounding.result**2 * y
    variance *= y
    variance += result_step**2
    if noise is None:
        return variance
    d = _flat64(noise)
    with np.errstate(invalid="ignore"):  # infinity - infinity
        whole = math.isfinite(float(d.sum()))
    if not whole:
        d[~np.isfinite(d)] = 0.0
    d /= rounding.gain
    d *= d
    d += variance
    return d


def _worst_slice(
    y: np.ndarray, squares: np.ndarray, variance: np.ndarray, shape: tuple[int, ...], rounding: Roundings
) -> float:
    """RMS z of the worst slice: of elements that lie together, or that are of one magnitude.

    A floor spares tiny slices whose values are among the subnormals.

    Args:
        y: The reference, flat.
        squares: The squares of the errors.
        variance: The expected ones.
        shape: The output's shape.
        rounding: The roundings in play.
    """
    rows = _rows(shape)
    floor = rounding.floor**2 + (1e-7 * FP32.u) ** 2
    # A slice may be all but free of noise by chance or by saturation; the whole tensor's noise lends it a little.
    common = 1e-6 * float(variance.mean())
    # What an activation cut off shows no noise, and a little of it where rounding lifts it over the edge.
    none = variance == 0
    if none.any() and not none.all() and (dead := none & (squares != 0)).any():
        variance = np.where(dead, float(variance[~none].mean()), variance)
    slices = variance.reshape(rows, -1).mean(axis=1) + floor + common
    means = squares.reshape(rows, -1).mean(axis=1)
    # Few elements that an activation let through are too few to average over.
    alive = np.count_nonzero(((y != 0) | (squares != 0)).reshape(rows, -1), axis=1)
    enough = alive >= min(SLICE, y.size)
    slice_z = math.sqrt(float((means / slices)[enough].max(initial=0.0)))
    return max(slice_z, _by_magnitude(y, squares, variance, floor))


def plain_noise(rounding: Roundings, terms: float) -> float:
    """The relative L2 error that rounding explains without looking closer.

    That is the rounding of the result and, between FP32 runtimes, that of a sum of ``terms`` products of random signs,
    whose noise is accumulator sqrt(K / 2) of the sum itself. A coarser candidate is always looked at: what a wrong
    scale does to it can be smaller than its noise.
    """
    if rounding.coarse:
        return rounding.result
    return math.hypot(rounding.result, rounding.accumulator * math.sqrt(terms / 2))


def worst_entry(reference: np.ndarray, candidate: np.ndarray) -> int:
    """The entry along axis 0 whose error is the greatest, or one whose error is far greater beside its own values: what
    is wrong of an entry of small values is not hidden by the rounding of one of large ones."""
    found = []
    with np.errstate(all="ignore"):
        for a, b in zip(reference, candidate, strict=True):
            error = np.subtract(b, a, dtype=np.float32).reshape(-1)
            flat = np.asarray(a, dtype=np.float32).reshape(-1)
            found.append((np.abs(error).max(initial=0.0), math.sqrt(float(error @ error)), float(flat @ flat) ** 0.5))
        greatest, errors, sizes = np.nan_to_num(np.array(found, dtype=np.float64).T, nan=np.inf)
        relative = np.divide(errors, sizes, out=np.where(errors > 0, np.inf, 0.0), where=sizes > 0)
    largest, apart = int(greatest.argmax()), int(np.nan_to_num(relative, nan=np.inf).argmax())
    return apart if relative[apart] > APART * relative[largest] else largest


def cut_off(reference: np.ndarray, candidate: np.ndarray, step: float) -> bool:
    """Whether values stand at an end of the candidate's range that is more than two steps too narrow, and explain most
    of the error. Among many values they need not stand out of what their steps explain."""
    y, c = _flat64(reference), _flat64(candidate)
    if not c.size or not np.isfinite(y).all() or not np.isfinite(c).all():
        return False
    power = float(np.square(c - y).sum())
    for end, excess in ((c.max(), y - c.max()), (c.min(), c.min() - y)):
        piled = (c == end) & (excess > 0)
        narrow = bool(end) and np.count_nonzero(piled) > 1 and excess.max() > 2 * step
        cut = float(np.square(excess[piled]).sum())
        if narrow and cut > 0.5 * power and lifted(c == end, excess) < cut / 4:
            return True
    return False


def lifted(at_end: np.ndarray, excess: np.ndarray) -> float:
    """The power of the error of elements that stand at an end of a range and do not reach it in the reference: little
    of those that are cut off there, but for the rounding to the end.

    Args:
        at_end: Which elements of the candidate stand there.
        excess: How far the reference lies beyond the end.
    """
    return float(np.square(excess[at_end & (excess < 0)]).sum())


def use_of(error: np.ndarray, bound: np.ndarray) -> float:
    """The largest share of a bound that an error takes; elements that are not finite have none."""
    with np.errstate(all="ignore"):
        use = np.abs(error.reshape(-1)) / bound.reshape(-1)
    largest = float(use.max(initial=0.0))
    return largest if math.isfinite(largest) else float(use[np.isfinite(use)].max(initial=0.0))


def _integers(reference: np.ndarray, candidate: np.ndarray, sample: int) -> Judgement:
    different = reference != candidate
    count = int(np.count_nonzero(different))
    if not count:
        return Judgement.no_error(sample)
    share = count / reference.size
    if reference.dtype.kind in "iu" and reference.dtype.itemsize == 1 and share <= FLIPS:
        step = np.abs(reference[different].astype(np.int64) - candidate[different].astype(np.int64)).max()
        if step <= 1:  # a quantizer's input lies within rounding of the border between two steps
            return Judgement.tipped_over(sample, share)
    return Judgement.beyond_doubt("integer", sample, share)


def _flat64(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1).astype(np.float64)


def _rows(shape: tuple[int, ...]) -> int:
    """How many slices of at least `SLICE` neighbouring elements a tensor has."""
    inner = 1
    for axis in range(len(shape) - 1, -1, -1):
        inner *= shape[axis]
        if inner >= SLICE:
            return math.prod(shape[:axis])
    return 1


def _by_magnitude(y: np.ndarray, squares: np.ndarray, variance: np.ndarray, floor: float) -> float:
    """RMS z of the worst set of elements of one binary exponent: what is small is not excused by what is large."""
    exponent = y.view(np.int64) >> EXPONENT_AT
    exponent &= (1 << 11) - 1
    if exponent.min(initial=1) == 0:
        exponent[exponent == 0] = AROUND_ONE  # zero has none
    count = np.bincount(exponent)
    squared = np.bincount(exponent, squares)
    expected = np.bincount(exponent, variance) + count * floor
    enough = (count >= SLICE) & (expected > 0)
    return math.sqrt(float((squared[enough] / expected[enough]).max(initial=0.0)))


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis that weights belong to: 1 in N x C x spatial, the last one elsewhere; None without enough channels."""
    if len(shape) < 2:
        return None
    axis = 1 if len(shape) >= 4 else len(shape) - 1
    return axis if shape[axis] >= CHANNELS else None


def output_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """The axis of a layer's weights, its second input, along which the output channels lie; None where not known."""
    if operator(node) == "Gemm":
        return 0 if attribute_int(node, "transB", 0) else 1
    return rank - 1 if operator(node) == "MatMul" else facts_of(node).channel_axis


def by_channel(x: np.ndarray, axis: int) -> np.ndarray:
    """Values as float64, ``(channels, rest)``."""
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64)


def _gains(y: np.ndarray, error: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """sum(y error) / sum(y^2) of each channel that is not zero; None without enough of them."""
    axis = channel_axis(shape)
    if axis is None:
        return None
    view = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    yy = np.einsum("ocs,ocs->c", y.reshape(view), y.reshape(view))
    ye = np.einsum("ocs,ocs->c", y.reshape(view), error.reshape(view))
    alive = yy > 1e-12 * float(yy.max(initial=0.0))
    return ye[alive] / yy[alive] if np.count_nonzero(alive) >= CHANNELS else None


def common_gain(reference: np.ndarray, noise: np.ndarray) -> float:
    """The gain that all channels have in common in what a probe did; 0 where it cannot be told."""
    y, d = _flat64(reference), _flat64(noise)
    usable = np.isfinite(y) & np.isfinite(d)
    gains = _gains(np.where(usable, y, 0.0), np.where(usable, d, 0.0), reference.shape)
    return 0.0 if gains is None else float(gains.mean())


def _gain(y: np.ndarray, error: np.ndarray, shape: tuple[int, ...], least: float) -> tuple[float, float | None]:
    """The mean of all channels' gains, and its distance from zero in standard errors; None with too few channels.

    The standard error is that of channels that are rounded independently of each other, but at least ``least``.
    Channels of the same values are rounded alike, and count once.
    """
    gains = _gains(y, error, shape)
    if gains is None or len(gains := np.unique(gains)) < CHANNELS:
        return 0.0, None
    mean, scatter = float(gains.mean()), float(gains.std(ddof=1))
    return mean, abs(mean) / max(scatter / math.sqrt(len(gains)), least)
