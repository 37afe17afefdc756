"""Outputs of every runner for every sample, in memory up to a limit and on disk beyond it."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

from .run import RunLog

if TYPE_CHECKING:
    from ..comparison import Comparison

MEMORY_LIMIT = 1 << 30
"""Bytes of outputs that stay in memory by default."""


@dataclass(frozen=True)
class _Spilled:
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]


class ArrayStore:
    """Arrays that move to one unnamed temporary file once they exceed ``limit`` bytes.

    Objects (strings) stay in memory: their bytes are elsewhere.
    """

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        self.limit = limit
        self.in_memory = 0
        self.on_disk = 0
        self._file: IO[bytes] | None = None

    def put(self, array: np.ndarray) -> np.ndarray | _Spilled:
        """Keeps an array; what it returns is for `get`."""
        if array.dtype == object or not array.nbytes or self.in_memory + array.nbytes <= self.limit:
            self.in_memory += array.nbytes
            kept = array.view()
            kept.flags.writeable = False
            return kept
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="layerdiff-")  # noqa: SIM115 - lives as long as the store
        # Arrays start at multiples of the page, as mmap wants it.
        offset = math.ceil(self.on_disk / mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._file.seek(offset)
        self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._file.flush()
        self.on_disk = offset + array.nbytes
        return _Spilled(offset, array.dtype, array.shape)

    def get(self, kept: np.ndarray | _Spilled) -> np.ndarray:
        """The array, read-only; from disk it is mapped, not read."""
        if isinstance(kept, np.ndarray):
            return kept
        assert self._file is not None
        count = math.prod(kept.shape)
        raw = mmap.mmap(self._file.fileno(), count * kept.dtype.itemsize, access=mmap.ACCESS_READ, offset=kept.offset)
        return np.frombuffer(raw, np.uint8).view(kept.dtype).reshape(kept.shape)


class RunResults(Mapping[str, "list[dict[str, np.ndarray]]"]):
    """What `Comparator.run` found: for each runner's name the outputs of each sample.

    Attributes:
        comparison: Who ran and on what; `Comparator.compare_accuracy` reads it.
        log: How the run went.
        store: Where the outputs are.
    """

    def __init__(self, comparison: Comparison, memory: int = MEMORY_LIMIT) -> None:
        """Starts empty; ``memory``: bytes of outputs that stay in memory."""
        self.comparison = comparison
        self.log = RunLog(comparison.reference.name)
        self.store = ArrayStore(memory)
        self._kept: dict[str, list[dict[str, np.ndarray | _Spilled]]] = {}

    def add(self, name: str, outputs: Mapping[str, np.ndarray]) -> None:
        """Keeps the outputs of the next sample of a runner."""
        self._kept.setdefault(name, []).append({tensor: self.store.put(a) for tensor, a in outputs.items()})

    def outputs(self, name: str, sample: int) -> dict[str, np.ndarray] | None:
        """The outputs of one runner for one sample; None if it failed before."""
        kept = self._kept.get(name, [])
        if sample >= len(kept):
            return None
        return {tensor: self.store.get(a) for tensor, a in kept[sample].items()}

    def __getitem__(self, name: str) -> list[dict[str, np.ndarray]]:
        return [{tensor: self.store.get(a) for tensor, a in sample.items()} for sample in self._kept[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {len(samples)} samples" for name, samples in self._kept.items())
        return f"RunResults({counts})"
