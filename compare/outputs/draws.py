"""What networks with random roundings gave, kept for whoever judges one candidate many times."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..runs.spill import Store

if TYPE_CHECKING:
    import numpy as np


KEPT = 1 << 29
"""Bytes of draws that stay in memory, where they are kept for later."""


class Kind(NamedTuple):
    """What the draws of a network with random roundings are for.

    Attributes:
        jumping: Outputs that rounding changes by jumps: roundings are enlarged.
        subnormals: Errors that the rounding of normal numbers does not explain.
        by_value: Errors that independent roundings do not explain, on inputs that repeat a value: what is equal is
            rounded alike.
    """

    jumping: bool = False
    subnormals: bool = False
    by_value: bool = False


class Drawn:
    """Outputs of networks with random roundings that were made before, for whoever judges one candidate many times.

    A key is all that a draw depends on besides the sample: the network, what runs it, and the draw's number.

    Attributes:
        gains: By how much roundings are enlarged, by network.
    """

    def __init__(self, memory: int = KEPT) -> None:
        """Starts empty; ``memory``: bytes that stay in memory, the rest goes to disk."""
        self._store = Store(memory)
        self._streams: dict[Hashable, str] = {}
        self.gains: dict[Hashable, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What was drawn, for another process."""
        return {"streams": self._streams, "gains": self.gains, "arrays": list(self._store.items())}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Takes over what was drawn. It stays in memory, beside as much as anybody keeps there."""
        self._streams, self.gains = state["streams"], state["gains"]
        self._store = Store(KEPT + sum(array.nbytes for _, array in state["arrays"]))
        for (stream, sample, name), array in state["arrays"]:
            self._store.put(stream, sample, name, array)

    def known(self, key: Hashable, sample: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of some outputs that were drawn before."""
        stream = self._stream(key)
        return {n: self._store.get(stream, sample, n) for n in names if self._store.has(stream, sample, n)}

    def keep(self, key: Hashable, sample: int, outputs: Mapping[str, np.ndarray]) -> None:
        """Keeps outputs that were drawn."""
        for name, array in outputs.items():
            self._store.put(self._stream(key), sample, name, array)

    def _stream(self, key: Hashable) -> str:
        return self._streams.setdefault(key, str(len(self._streams)))

    def close(self) -> None:
        """Frees what is kept."""
        self._store.__exit__(None, None, None)
