"""Facts that many causes rest on: which element, how many, how large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self

    from .case import LayerCase

Scalar = float | complex | int | bool


@dataclass(frozen=True)
class Element:
    """One element of the layer's output.

    Attributes:
        at: Its index in the whole tensor.
        reference, candidate: What stands there.
    """

    at: tuple[int, ...]
    reference: Scalar
    candidate: Scalar

    @classmethod
    def of(cls, case: LayerCase, at: Sequence[int | np.integer]) -> Element:
        """The element of the output that is off at an index of the arrays of a case."""
        index = tuple(at)
        return cls(whole_index(index, case.entry), scalar(case.y[index]), scalar(case.c[index]))

    @classmethod
    def first(cls, case: LayerCase, mask: np.ndarray) -> Element:
        """The first element at which a mask of the output is true."""
        return cls.of(case, np.unravel_index(int(np.argmax(mask)), mask.shape))

    @property
    def where(self) -> str:
        """Its index as text."""
        return index_text(self.at)


def scalar(value: Any) -> Scalar:
    """An element of an array as a number of Python."""
    found: Scalar = value.item()
    return found


def whole_index(at: Sequence[int | np.integer], entry: int) -> tuple[int, ...]:
    """An index of the whole tensor, where ``at`` is one of a single entry of its batch."""
    return tuple(int(i) + (entry if not axis else 0) for axis, i in enumerate(at))


def index_text(at: Sequence[int]) -> str:
    """An index as text."""
    return f"[{', '.join(map(str, at))}]"


WHOLE = 1e-3
"""Distance from a whole number up to which the inverse of a factor is that number."""
EXACT = 1e-6
"""The same relative to the number, where that is more: what measuring a factor in FP32 leaves."""


def numbers_text(values: Sequence[float]) -> str:
    """A few numbers as text."""
    return ", ".join(f"{value:.6g}" for value in values)


def gains_text(gains: Sequence[float]) -> str:
    """Factors as text; of one that is the inverse of a whole number (1/255, 1/32768), that too."""
    inverse = 1 / gains[0] if len(gains) == 1 and gains[0] else 0.0
    whole = inverse >= 10 and abs(inverse - round(inverse)) < max(WHOLE, EXACT * inverse)
    return f"{numbers_text(gains)}{f' (1/{round(inverse)})' if whole else ''}"


def count_text(some: int, of: int) -> str:
    """A share of a tensor as text."""
    return f"{some:,} of {of:,} values"


@dataclass(frozen=True)
class Elements:
    """Some elements of the layer's output; those that make it a fact say what is wrong with them.

    Attributes:
        count, size: How many of how many.
        first: The first of them.
    """

    count: int
    size: int
    first: Element

    @classmethod
    def of(cls, case: LayerCase, mask: np.ndarray, *more: Any) -> Self:
        """Those at which a mask of the output is true; ``more`` are the fields that a fact has besides."""
        return cls(int(np.count_nonzero(mask)), case.y.size, Element.first(case, mask), *more)

    @property
    def counted(self) -> str:
        """How many of how many, as text."""
        return count_text(self.count, self.size)


@dataclass(frozen=True)
class GreatestDifference:
    """The element that differs most."""

    element: Element
    difference: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        e = self.element
        values = f"{e.reference:.6g} in the reference, {e.candidate:.6g} in the candidate"
        return f"greatest difference {self.difference:.3g} at {e.where}: {values}"


def greatest_difference(case: LayerCase) -> GreatestDifference:
    """The greatest difference of an output; infinite where one side is not a number."""
    with np.errstate(all="ignore"):
        difference = np.abs(case.c.astype(np.float64) - case.y.astype(np.float64))
    difference = np.where(np.isnan(difference), np.inf, difference)
    at = np.unravel_index(int(difference.argmax()), difference.shape)
    return GreatestDifference(Element.of(case, at), float(difference[at]))
