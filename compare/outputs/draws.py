"""What networks with random roundings gave, kept for whoever judges one candidate many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..runs.spill import Store

if TYPE_CHECKING:
    import numpy as np

    from ...graph.rounding.random_rounding import Roundoff

KEPT = 1 << 29
"""Bytes of draws that stay in memory, where they are kept for later."""


class Kind(NamedTuple):
    """What the draws of a network with random roundings are for.

    Attributes:
        jumping: Outputs that rounding changes by jumps: roundings are enlarged.
        subnormals: Errors that the rounding of normal numbers does not explain.
    """

    jumping: bool = False
    subnormals: bool = False


class Drawn:
    """Outputs of networks with random roundings that were made before, for whoever judges one candidate many times."""

    def __init__(self, memory: int = KEPT) -> None:
        """Starts empty; ``memory``: bytes that stay in memory, the rest goes to disk."""
        self._store = Store(memory)
        self.gains: dict[tuple[Roundoff, Kind], float] = {}

    def known(self, key: tuple[Roundoff, Kind, int], sample: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of some outputs that were drawn before."""
        stream = str(hash(key))
        return {n: self._store.get(stream, sample, n) for n in names if self._store.has(stream, sample, n)}

    def keep(self, key: tuple[Roundoff, Kind, int], sample: int, outputs: Mapping[str, np.ndarray]) -> None:
        """Keeps outputs that were drawn."""
        for name, array in outputs.items():
            self._store.put(str(hash(key)), sample, name, array)

    def close(self) -> None:
        """Frees what is kept."""
        self._store.__exit__(None, None, None)
