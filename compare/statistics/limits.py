"""What statistics need to know of an allowed error: it is made elsewhere, element by element."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Scales(Protocol):
    """The size of the values around each element: the minimum of arrays that broadcast to the tensor's shape.

    Attributes:
        shape: The tensor's shape.
        parts: All those arrays.
        lead: First of the trailing axes that are kept ready together.
        inner: Number of elements of those axes.
        trailing: Minimum of the arrays that vary along those axes alone, of ``inner`` elements.
        varying: The other arrays.
    """

    shape: tuple[int, ...]
    parts: list[np.ndarray]
    lead: int
    inner: int
    trailing: np.ndarray
    varying: list[np.ndarray]


class Factors(Protocol):
    """``atol + rtol |reference|``; beside `Scales`, ``rtol (|reference| + scale)``."""

    @property
    def rtol(self) -> float:
        """Factor of |reference|."""

    @property
    def atol(self) -> float:
        """Added to it."""


class Limits(Protocol):
    """The allowed error of each element of one tensor, made block by block."""

    @property
    def tolerance(self) -> Factors:
        """The factors of the rule."""

    @property
    def scale(self) -> Scales | None:
        """The local scale; None where the rule has none."""

    @property
    def floor(self) -> float:
        """The least allowed error where there is a scale."""

    def block(self, start: int, stop: int, magnitude: np.ndarray) -> np.ndarray:
        """Allowed errors of elements ``start`` to ``stop``, counted in C order.

        Args:
            magnitude: |reference| of those elements.
        """
