"""Values as a number format holds them: the oracle of what a graph that `round_nodes` wrote computes."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from ..errors import UsageError
from ..formats import FORMATS, NumberFormat

EMULATED = ("fp16", "bf16", "tf32", "fp8", "e4m3", "e5m2", "int8")
"""The formats that can be emulated; ``fp8`` is E4M3."""

STORAGE = frozenset({"fp16", "bf16"})
"""Formats in which a target keeps tensors, and not only multiplies them."""

SCALED = frozenset({"e4m3", "e5m2", "int8"})
"""Formats whose values are scaled by a tensor's range."""


UNSCALED = frozenset({"fp16", "bf16", "tf32"})
"""Formats whose values stand for themselves."""


def resolve(fmt: str) -> NumberFormat:
    """The number format that an emulation is asked for by name.

    Raises:
        UsageError: It cannot be emulated.
    """
    if fmt not in EMULATED:
        raise UsageError(f"{fmt!r} cannot be emulated: not one of {', '.join(EMULATED)}.")
    return FORMATS["e4m3" if fmt == "fp8" else fmt]


def step_of(largest: float, full: float) -> float:
    """The step that maps a range to the format's; of a tensor of zeros, any will do.

    Args:
        largest: Largest magnitude of the tensor.
        full: The format's largest value.
    """
    return float(largest) / full if largest > 0 and math.isfinite(largest) else 1.0


def steps_of(largest: np.ndarray, full: float) -> np.ndarray:
    """The same for each of several ranges, as float32."""
    ranges = largest.astype(np.float64)
    return np.where((ranges > 0) & np.isfinite(ranges), ranges / full, 1.0).astype(np.float32)


def round_array(
    values: np.ndarray, fmt: str, *, weights: bool = False, scale: np.ndarray | float | None = None
) -> np.ndarray:
    """FP32 values as the format holds them: the oracle of what the rewritten graph computes.

    Args:
        values: float32, any shape.
        fmt: One of `EMULATED`.
        weights: Apply TensorRT's rule for weights: what is too large becomes the largest finite value, and what is
            not zero but would become zero the smallest subnormal one (infinite ones stay so). Else FP16, BF16 and
            TF32 overflow to infinity.
        scale: What one unit of INT8 or FP8 stands for; broadcasts against ``values``.

    Returns:
        float32 of the same shape, rounded to nearest, ties to even. INT8 and FP8 saturate.
    """
    number = resolve(fmt)
    x = np.asarray(values, np.float32)
    with np.errstate(all="ignore"):
        if number.is_integer:
            step = np.float32(1) if scale is None else np.asarray(scale, np.float32)
            return np.asarray(np.clip(np.rint(x / step), -128, 127) * step, np.float32)
        if number.name in SCALED:
            step = np.float32(1) if scale is None else np.asarray(scale, np.float32)
            inner = np.clip(x / step, -number.max, number.max).astype(np.float32)
            rounded = inner.astype(getattr(ml_dtypes, number.dtype)).astype(np.float32)
            return np.asarray((_lift(inner, rounded, number) if weights else rounded) * step, np.float32)
        inner = _clamped(x, number) if weights else x
        if number.name == "tf32":
            rounded = _round_tf32(inner)
        else:
            dtype = np.float16 if number.name == "fp16" else ml_dtypes.bfloat16
            rounded = inner.astype(dtype).astype(np.float32)
        return _lift(inner, rounded, number) if weights else rounded


def _clamped(x: np.ndarray, number: NumberFormat) -> np.ndarray:
    if x.size and -number.max <= x.min() and x.max() <= number.max:  # nearly always, and ten times faster
        return x
    return np.where(np.isinf(x), x, np.clip(x, -number.max, number.max)).astype(np.float32)


def _lift(values: np.ndarray, rounded: np.ndarray, number: NumberFormat) -> np.ndarray:
    lost = rounded == 0
    if lost.any():
        lost &= values != 0
    if not lost.any():
        return np.asarray(rounded, np.float32)
    return np.where(lost, np.copysign(np.float32(number.smallest_subnormal), values), rounded).astype(np.float32)


def _round_tf32(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values).view(np.uint32)
    even = bits + np.uint32(0x0FFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    rounded = (even & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(values), rounded, values).reshape(values.shape)
