"""Outputs of every runner for every sample, as `Comparator.run` gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...graph.printable import counted
from .run import RunLog
from .spill import Store

if TYPE_CHECKING:
    import numpy as np

    from ..comparison import Comparison

MEMORY_LIMIT = 1 << 30
"""Bytes of outputs that stay in memory by default."""


class RunResults(Mapping[str, "tuple[Mapping[str, np.ndarray], ...]"]):
    """What `Comparator.run` found: for each runner's name the outputs of each sample, which cannot be changed.

    Attributes:
        comparison: Who ran and on what; `Comparator.compare_accuracy` reads it.
        log: How the run went.
        store: Holds the outputs.
    """

    def __init__(self, comparison: Comparison, memory: int = MEMORY_LIMIT) -> None:
        """Starts empty; ``memory``: bytes of outputs that stay in memory."""
        self.comparison = comparison
        self.log = RunLog(comparison.reference.name)
        self.store = Store(memory)
        self._names: dict[str, list[tuple[str, ...]]] = {}

    def add(self, name: str, outputs: Mapping[str, np.ndarray]) -> None:
        """Keeps the outputs of the next sample of a runner."""
        samples = self._names.setdefault(name, [])
        for tensor, array in outputs.items():
            self.store.put(name, len(samples), tensor, array)
        samples.append(tuple(outputs))

    def outputs(self, name: str, sample: int) -> dict[str, np.ndarray] | None:
        """The outputs of one runner for one sample; None if it failed before."""
        samples = self._names.get(name, [])
        if sample >= len(samples):
            return None
        return {tensor: self.store.get(name, sample, tensor) for tensor in samples[sample]}

    def __getitem__(self, name: str) -> tuple[Mapping[str, np.ndarray], ...]:
        samples = enumerate(self._names[name])
        return tuple(
            MappingProxyType({tensor: self.store.get(name, sample, tensor) for tensor in names})
            for sample, names in samples
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {counted(len(samples), 'sample')}" for name, samples in self._names.items())
        return f"RunResults({counts})"
