"""Number formats that runtimes compute in: unit roundoff and range of each.

The unit roundoff u bounds the relative error of rounding to nearest: |fl(x) - x| <= u |x| in the normal range
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 2.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class NumberFormat:
    """A floating-point format, or INT8 (``u`` is then NaN: its step depends on a scale, not on the value)."""

    name: str
    u: float
    """Unit roundoff: 2^-p for p bits of significand."""
    max: float
    """Largest finite value."""
    smallest_normal: float
    smallest_subnormal: float
    dtype: str
    """The NumPy or ml_dtypes name of the type that stores it (float32 for TF32)."""

    @property
    def is_integer(self) -> bool:
        """Whether the format is a scaled integer, which has no unit roundoff."""
        return math.isnan(self.u)

    def __str__(self) -> str:
        return self.name.upper()


FP64 = NumberFormat("fp64", 2.0**-53, 1.7976931348623157e308, 2.0**-1022, 2.0**-1074, "float64")
FP32 = NumberFormat("fp32", 2.0**-24, 3.4028234663852886e38, 2.0**-126, 2.0**-149, "float32")
TF32 = NumberFormat("tf32", 2.0**-11, 3.4011621342146535e38, 2.0**-126, 2.0**-136, "float32")
FP16 = NumberFormat("fp16", 2.0**-11, 65504.0, 2.0**-14, 2.0**-24, "float16")
BF16 = NumberFormat("bf16", 2.0**-8, 3.3895313892515355e38, 2.0**-126, 2.0**-133, "bfloat16")
E4M3 = NumberFormat("e4m3", 2.0**-4, 448.0, 2.0**-6, 2.0**-9, "float8_e4m3fn")
E5M2 = NumberFormat("e5m2", 2.0**-3, 57344.0, 2.0**-14, 2.0**-16, "float8_e5m2")
INT8 = NumberFormat("int8", math.nan, 127.0, 1.0, 1.0, "int8")

FORMATS: dict[str, NumberFormat] = {f.name: f for f in (FP64, FP32, TF32, FP16, BF16, E4M3, E5M2, INT8)}
"""Every format by name."""

BY_DTYPE: dict[str, NumberFormat] = {f.dtype: f for f in (FP64, FP32, FP16, BF16, E4M3, E5M2)}
"""The format in which values of a dtype are stored, by the dtype's name."""


def coarser(a: NumberFormat, b: NumberFormat) -> NumberFormat:
    """The one of two formats with the larger unit roundoff; INT8 is coarser than any float."""
    if a.is_integer or b.is_integer:
        return a if a.is_integer else b
    return a if a.u >= b.u else b
