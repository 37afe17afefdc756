"""The error that the user allows, element by element: NumPy's rule, |c - r| <= atol + rtol |r|."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...graph.errors import UsageError
from ...graph.formats import BY_DTYPE


@dataclass(frozen=True)
class Tolerance:
    """The allowed error of one output.

    Attributes:
        rtol: Factor of |reference|.
        atol: Added to it.
    """

    rtol: float
    atol: float

    @property
    def exact(self) -> bool:
        """Whether no error at all is allowed."""
        return self.rtol == 0 and self.atol == 0

    def allowed(self, magnitude: Any) -> Any:
        """Allowed errors of elements of these magnitudes: an array of any library, or a number."""
        return self.atol + self.rtol * magnitude

    def __str__(self) -> str:
        return "exact" if self.exact else f"{self.atol:.3g} + {self.rtol:.3g} |r|"


EXACT = Tolerance(0.0, 0.0)
"""For integer, bool and string outputs."""


def user(rtol: float | None, atol: float | None) -> Tolerance | None:
    """The user's tolerance; None where neither number is given.

    Raises:
        UsageError: One of the two is missing, negative or NaN.
    """
    if rtol is None and atol is None:
        return None
    if rtol is None or atol is None:
        given, missing = ("rtol", "atol") if atol is None else ("atol", "rtol")
        raise UsageError(f"{given} is given without {missing}: give both (|c - r| <= atol + rtol |r|), or neither.")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not value >= 0:
            raise UsageError(f"{name} is {value}; it must be 0 or more.")
    return Tolerance(float(rtol), float(atol))


def finer(one: np.dtype, other: np.dtype) -> np.dtype:
    """Of two floating dtypes the one that rounds less. That a runtime returns a coarser one is no reason to round: what
    its arithmetic or the graph's types are says that, whichever of the two sides is the reference."""
    formats = [BY_DTYPE.get(_part(dtype).name) for dtype in (one, other)]
    return other if None not in formats and formats[1].u < formats[0].u else one  # type: ignore[union-attr]


def _part(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def last_place(dtype: np.dtype) -> Tolerance:
    """What the rounding of the output itself explains, on two sides: one unit in the last place of a dtype.

    In formats of 8 bits and less that is a difference like any other.
    """
    dtype = _part(dtype)
    stored = BY_DTYPE.get(dtype.name)
    if stored is None or dtype.itemsize < 2:
        return EXACT
    return Tolerance(2 * stored.u, stored.smallest_subnormal)
