"""What a reader finds in pairs of tensors: counts, sums, and maxima with their places. All of it adds up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .place import Place, greater


@dataclass(frozen=True)
class Reading:
    """What a reader is to look for.

    Attributes:
        full: Everything; otherwise without the relative errors, the mean |error|, the reference's range, the histogram
            and the units in the last place.
        equal_nan: Whether NaN equals NaN.
    """

    full: bool = True
    equal_nan: bool = False


@dataclass
class Moments:
    """One pair of tensors, or many of them together. Error is candidate minus reference.

    Attributes:
        count: Elements seen; elements that are not finite on either side count too.
        finite: Elements that are finite on both sides.
        mismatched: Elements outside the tolerance; without one, elements that differ at all.
        broken: Elements of which one side alone is finite, or that are infinities of two signs, or NaN (see
            `Reading.equal_nan`). They are mismatches under any tolerance.
        nan, inf: Counts on the reference's and the candidate's side.
        broken_at: The first element that is broken; None where there is none.
        max_abs_at, max_rel_at: Greatest errors of finite pairs with their places; None where all are zero. The relative
            error is |error| / |reference|, over elements with a nonzero reference.
        use_at: Greatest |error| / allowed error with its place: 1 is at the limit. None without a tolerance.
        max_ulp: Greatest number of units in the last place between two finite values; None where nobody counted.
        histogram: floor(log2 |error|) -> elements, over finite pairs that differ.
        sum_abs, sum_error: Sums of |error| and of the error, over finite pairs like all that follow.
        sum_ee, sum_rr, sum_cc: Sums of squares: error, reference, candidate.
        sum_rc: Sum of reference times candidate.
        least, greatest: The reference's range, over finite pairs; of complex numbers, that of their moduli.
        text: Whether strings were compared.
        device: Where the last pair was read, and by what, if not by NumPy: ``"cuda:0 (cupy 14.2.0)"``.
    """

    count: int = 0
    finite: int = 0
    mismatched: int = 0
    broken: int = 0
    nan: list[int] = field(default_factory=lambda: [0, 0])
    inf: list[int] = field(default_factory=lambda: [0, 0])
    broken_at: Place | None = None
    max_abs_at: Place | None = None
    max_rel_at: Place | None = None
    use_at: Place | None = None
    max_ulp: int | None = None
    histogram: dict[int, int] = field(default_factory=dict)
    sum_abs: float = 0.0
    sum_error: complex = 0.0
    sum_ee: float = 0.0
    sum_rr: float = 0.0
    sum_cc: float = 0.0
    sum_rc: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    text: bool = False
    device: str = ""

    def add(self, other: Moments) -> None:
        """Takes in what another one has seen: the same as having seen it all, up to the rounding of float64 sums."""
        self.count += other.count
        self.finite += other.finite
        self.mismatched += other.mismatched
        self.broken += other.broken
        for side in (0, 1):
            self.nan[side] += other.nan[side]
            self.inf[side] += other.inf[side]
        self.broken_at = greater(self.broken_at, other.broken_at)
        self.max_abs_at = greater(self.max_abs_at, other.max_abs_at)
        self.max_rel_at = greater(self.max_rel_at, other.max_rel_at)
        self.use_at = greater(self.use_at, other.use_at)
        if other.max_ulp is not None:
            self.take_ulp(other.max_ulp)
        for exponent, number in other.histogram.items():
            self.take_histogram(exponent, number)
        self.sum_abs += other.sum_abs
        self.sum_error += other.sum_error
        self.sum_ee += other.sum_ee
        self.sum_rr += other.sum_rr
        self.sum_cc += other.sum_cc
        self.sum_rc += other.sum_rc
        self.take_range(other.least, other.greatest)
        self.text = self.text or other.text
        self.device = self.device or other.device

    def take_broken(self, number: int, first: Place, judged: bool) -> None:
        """Takes in elements that no tolerance lets pass.

        Args:
            number: How many.
            first: The first of them, with an infinite value.
            judged: Whether there is a tolerance, of which they use infinitely much.
        """
        self.broken += number
        self.mismatched += number
        self.broken_at = greater(self.broken_at, first)
        if judged:
            self.use_at = greater(self.use_at, first)

    def take_ulp(self, steps: int) -> None:
        """Takes in a greatest number of units in the last place."""
        self.max_ulp = max(self.max_ulp or 0, steps)

    def take_range(self, least: float, greatest: float) -> None:
        """Takes in a range of the reference."""
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)

    def take_histogram(self, exponent: int, number: int) -> None:
        """Takes in elements with errors of at least 2^exponent and less than twice that."""
        self.histogram[exponent] = self.histogram.get(exponent, 0) + number
