"""Arrays that are kept for later: in memory up to a limit, beyond it in files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from ...graph.errors import UsageError, no_room

SHARE = 2
"""What is kept between pieces may take one part in so many of the memory that localizing may use."""


@dataclass(frozen=True)
class _Spilled:
    """An array in a file: its bytes, in C order."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    nbytes: int


class Store:
    """Arrays by (stream, sample, tensor), dropped by whoever knows that they are no longer needed.

    Objects (strings) stay in memory: their bytes are elsewhere.

    Args:
        limit: Bytes kept in memory. What is put beyond them goes to a temporary folder, which closing removes, or the
            end of the store.

    Attributes:
        in_memory, on_disk: Bytes that are kept there.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_memory = 0
        self.on_disk = 0
        self._arrays: dict[tuple[str, int, str], np.ndarray | _Spilled] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrays.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def put(self, stream: str, sample: int, name: str, array: np.ndarray) -> None:
        """Keeps an array.

        Raises:
            UsageError: There is no room for it in the temporary folder.
        """
        key = (stream, sample, name)
        if array.dtype == object or not array.nbytes or self.in_memory + array.nbytes <= self.limit:
            self.in_memory += array.nbytes
            kept = array.view()
            kept.flags.writeable = False
            self._arrays[key] = kept
            return
        if self._folder is None:
            self._folder = _temporary()
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.bin"
        try:
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            path.write_bytes(raw)  # type: ignore[arg-type]
        except OSError as error:  # not by `tofile`, which may write less and say nothing
            raise UsageError(no_room(path.parent, error)) from error
        self.on_disk += array.nbytes
        self._arrays[key] = _Spilled(path, array.dtype, array.shape, array.nbytes)

    def get(self, stream: str, sample: int, name: str) -> np.ndarray:
        """An array that was put, read-only. One in a file is mapped, not read."""
        kept = self._arrays[stream, sample, name]
        if isinstance(kept, np.ndarray):
            return kept
        return np.asarray(np.memmap(kept.path, np.uint8, "r")).view(kept.dtype).reshape(kept.shape)

    def items(self) -> Iterator[tuple[tuple[str, int, str], np.ndarray]]:
        """All that is kept, with its keys."""
        return ((key, self.get(*key)) for key in list(self._arrays))

    def has(self, stream: str, sample: int, name: str) -> bool:
        """Whether an array is kept."""
        return (stream, sample, name) in self._arrays

    def drop(self, stream: str, sample: int, names: Iterable[str]) -> None:
        """Forgets arrays; those that are not there are none."""
        for name in names:
            kept = self._arrays.pop((stream, sample, name), None)
            if isinstance(kept, _Spilled):
                kept.path.unlink(missing_ok=True)
                self.on_disk -= kept.nbytes
            elif kept is not None:
                self.in_memory -= kept.nbytes


def _temporary() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="layerdiff-")
    except OSError as error:
        raise UsageError(no_room(Path(tempfile.gettempdir()), error)) from error
