"""Does an output hold the values of another one? Exporters exchange outputs, and rename them.

An output is said to be another one on evidence alone: it has to be near that one and far from its own namesake and from
all others. So outputs that are all alike, or constant, are never called exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..statistics.statistics import Statistics

if TYPE_CHECKING:
    from ...runners.contract.device import DeviceArray

NEAR = 0.1
"""Largest relative L2 distance, to the other output around its mean, of what is called the same values.
Messages say so."""
MARGIN = 8.0
"""How many times further off everything else has to be."""
APART = 1e-2
"""Least distance of everything else, where one fits to the last bit."""
FEWEST = 4
"""Elements from which on equal values say something."""


def lookalike(value: np.ndarray | DeviceArray, own: str, others: Mapping[str, np.ndarray | DeviceArray]) -> str | None:
    """The only output of the other side that holds the values of an output; None where that is the namesake.

    Distances are L2 norms over all elements, relative to that output's distance from its own mean.

    Args:
        value: The output.
        own: Its name.
        others: The outputs of the other side.
    """
    if value.size < FEWEST or _dtype(value).kind in "OSUT":
        return None
    array = np.asarray(value)
    numbers = {name: other for name, other in others.items() if _dtype(other).kind not in "OSUT"}
    found = {name: distance(array, np.asarray(other)) for name, other in numbers.items()}
    best = min(found, key=lambda name: found[name], default=own)
    if best == own or found[best] > NEAR:
        return None
    rest = [size for name, size in found.items() if name != best]
    return best if all(size >= max(MARGIN * found[best], APART) for size in rest) else None


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
        for name in suspects:
            if name not in self._found:
                self._found[name] = lookalike(outputs[name], name, reference)
        for name, other in self.held.items():
            if distance(np.asarray(outputs[name]), np.asarray(reference[other])) > NEAR:
                self._found[name] = None

    @property
    def held(self) -> dict[str, str]:
        """Outputs of the candidate -> outputs of the reference."""
        return {name: other for name, other in self._found.items() if other is not None}


def exchanged(held: Mapping[str, str]) -> dict[str, str]:
    """Of outputs and the outputs whose values they hold, those that go round: each of them is held by one of them."""
    found = dict(held)
    while left := {name: other for name, other in found.items() if other not in found}:
        found = {name: other for name, other in found.items() if name not in left}
    return found if len(set(found.values())) == len(found) else {}


def _dtype(x: Any) -> np.dtype:
    return np.dtype(x.dtype)
