"""The logarithmic derivatives of the gamma function, for positive numbers: to import SciPy's takes longer than a draw.

Each by its recurrence up to `FAR`, and by its asymptotic series from there on (Abramowitz and Stegun 6.3.18, 6.4.11).
"""

from __future__ import annotations

import math

FAR = 12.0
"""Argument from which on the first terms of the series are as good as float64."""


def digamma(x: float) -> float:
    """The first derivative."""
    below = 0.0
    while x < FAR:
        below -= 1 / x
        x += 1
    s = 1 / (x * x)
    return below + math.log(x) - 1 / (2 * x) - s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s * (1 / 240 - s / 132))))


def trigamma(x: float) -> float:
    """The second derivative."""
    below = 0.0
    while x < FAR:
        below += 1 / (x * x)
        x += 1
    s = 1 / (x * x)
    series = 1 / 6 - s * (1 / 30 - s * (1 / 42 - s * (1 / 30 - s * 5 / 66)))
    return below + 1 / x + s / 2 + s / x * series


def tetragamma(x: float) -> float:
    """The third derivative."""
    below = 0.0
    while x < FAR:
        below -= 2 / x**3
        x += 1
    s = 1 / (x * x)
    return below - s - s / x - s * s * (1 / 2 - s * (1 / 6 - s * (1 / 6 - s * (3 / 10 - s * 5 / 6))))
