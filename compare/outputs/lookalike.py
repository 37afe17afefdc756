"""Does an output hold the values of another one? Exporters exchange outputs, and rename them.

An output is said to be another one on evidence alone: it has to be near that one and far from its own namesake and from
all others. So outputs that are all alike, or constant, are never called exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..statistics.statistics import Statistics

if TYPE_CHECKING:
    from ...runners.contract.device import DeviceArray

NEAR = 0.1
"""Largest relative L2 distance, to the other output around its mean, of what is called the same values."""
MARGIN = 8.0
"""How many times further off everything else has to be."""
APART = 1e-2
"""Least distance of everything else, where one fits to the last bit."""
FEWEST = 4
"""Elements from which on equal values say something."""


def lookalike(
    value: np.ndarray | DeviceArray,
    own: str,
    others: Mapping[str, np.ndarray | DeviceArray],
    outlines: dict[str, Outline | None] | None = None,
) -> str | None:
    """The only output of the other side that holds the values of an output; None where that is the namesake.

    Distances are L2 norms over all elements, relative to that output's distance from its own mean.

    Args:
        value: The output.
        own: Its name.
        others: The outputs of the other side.
        outlines: Those of them that are known, for whoever asks of many outputs.
    """
    if value.size < FEWEST or _dtype(value).kind in "OSUT":
        return None
    array = np.asarray(value)
    numbers = {name: other for name, other in others.items() if _dtype(other).kind not in "OSUT"}
    if own in numbers and distance(array, np.asarray(numbers[own])) < APART:
        return None  # as near as that to its namesake, it is no other one
    known = {} if outlines is None else outlines
    for name, other in numbers.items():
        if name not in known:
            known[name] = Outline.of(np.asarray(other))
    mine = Outline.of(array)
    least = {name: 0.0 if mine is None or (it := known[name]) is None else mine.least(it) for name in numbers}
    found: dict[str, float] = {}
    for name in numbers:
        if least[name] <= NEAR:
            found[name] = distance(array, np.asarray(numbers[name]))
            if sum(size < APART for size in found.values()) > 1:
                return None
    best = min(found, key=lambda name: found[name], default=own)
    if best == own or found[best] > NEAR:
        return None
    far = max(MARGIN * found[best], APART)
    rest = (name for name in numbers if name != best and least[name] < far)

    def size(name: str) -> float:
        return found[name] if name in found else distance(array, np.asarray(numbers[name]))

    return best if all(size(name) >= far for name in rest) else None


@dataclass(frozen=True)
class Outline:
    """What tells most outputs from each other without a look at both of their elements.

    Attributes:
        shape: Of the output.
        boolean: Whether it holds truth values.
        mean, spread: Its mean, and the L2 norm of what it is beside that.
    """

    shape: tuple[int, ...]
    boolean: bool
    mean: float
    spread: float

    @staticmethod
    def of(array: np.ndarray) -> Outline | None:
        """The outline of an output; None where it says nothing: complex numbers, and what is not finite."""
        if array.dtype.kind == "c" or not array.size:
            return None
        wide = array.reshape(-1).astype(np.float64)
        with np.errstate(all="ignore"):
            mean = float(wide.mean())
            spread = float(np.linalg.norm(wide - mean))
        return Outline(array.shape, array.dtype.kind == "b", mean, spread) if math.isfinite(spread) else None

    def least(self, other: Outline) -> float:
        """What the `distance` to another output is at least."""
        if self.shape != other.shape or self.boolean != other.boolean or not other.spread:
            return math.inf
        between = math.hypot(self.spread - other.spread, math.sqrt(math.prod(self.shape)) * (self.mean - other.mean))
        return between / other.spread * 0.99 - 1e-6  # nobody is to be ruled out by the rounding of this


def distance(value: np.ndarray, other: np.ndarray) -> float:
    """L2 distance relative to the other's from its own mean; infinite for another shape or kind, or a constant."""
    if value.shape != other.shape or (value.dtype.kind == "b") != (other.dtype.kind == "b"):
        return math.inf
    wide = other.reshape(-1).astype(np.complex128 if other.dtype.kind == "c" else np.float64)
    wide = wide[np.isfinite(wide)]
    with np.errstate(all="ignore"):
        spread = float(np.linalg.norm(wide - wide.mean())) if wide.size else 0.0
    statistics = Statistics(full=False).update(other, value)
    if not spread or not math.isfinite(spread) or statistics.broken:
        return math.inf
    return float(statistics.measures(finite_only=True)["rmse"]) * math.sqrt(statistics.finite) / spread


class Lookalikes:
    """Which outputs of a candidate hold the values of other outputs of the reference, on every sample so far."""

    def __init__(self) -> None:
        self._found: dict[str, str | None] = {}
        self._apart: dict[str, float] = {}

    def take(
        self,
        suspects: Iterable[str],
        outputs: Mapping[str, np.ndarray | DeviceArray],
        reference: Mapping[str, np.ndarray | DeviceArray],
    ) -> None:
        """Takes in one sample.

        Args:
            suspects: Outputs of the candidate that are not what the reference has under their names.
            outputs, reference: All outputs of both.
        """
        outlines: dict[str, Outline | None] = {}
        for name in suspects:
            if name not in self._found:
                self._found[name] = lookalike(outputs[name], name, reference, outlines)
        for name, other in self.held.items():
            apart = distance(np.asarray(outputs[name]), np.asarray(reference[other]))
            self._apart[name] = max(apart, self._apart.get(name, 0.0))
            if apart > NEAR:
                self._found[name] = None

    @property
    def held(self) -> dict[str, str]:
        """Outputs of the candidate -> outputs of the reference."""
        return {name: other for name, other in self._found.items() if other is not None}

    @property
    def apart(self) -> dict[str, float]:
        """Of these outputs of the candidate, their largest distance to the other one: 0 of the very values."""
        return {name: self._apart[name] for name in self.held}


def exchanged(held: Mapping[str, str]) -> dict[str, str]:
    """Of outputs and the outputs whose values they hold, those that go round: each of them is held by one of them."""
    found = dict(held)
    while left := {name: other for name, other in found.items() if other not in found}:
        found = {name: other for name, other in found.items() if name not in left}
    return found if len(set(found.values())) == len(found) else {}


def _dtype(x: Any) -> np.dtype:
    return np.dtype(x.dtype)
