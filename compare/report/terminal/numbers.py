"""Numbers as tables show them."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any) -> str:
    """Four digits, or three with an exponent where the number is small or large; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.2e}" if isinstance(value, float) and (value and not 0.01 <= abs(value) < 1e4) else f"{value:.4g}"


def share(use: float | None) -> str:
    """A share of what is allowed, as `times`; a dash where nothing was measured, or what was is not finite."""
    return "-" if use is None or not math.isfinite(use) else times(use)


def times(value: float) -> str:
    """A multiple: ``0.25x``, ``28x``; what is far beyond is only said to be."""
    if not value < 1000:
        return "> 1000x"
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"
