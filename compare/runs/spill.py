"""Tensors that are live between pieces: in memory up to a limit, beyond it in files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

SHARE = 2
"""What is kept between pieces may take one part in so many of the memory that localizing may use."""


class Store:
    """Arrays by (stream, sample, tensor), dropped by whoever knows that they are no longer needed.

    Args:
        limit: Bytes kept in memory. What is put beyond them goes to a temporary folder, which closing removes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._arrays: dict[tuple[str, int, str], np.ndarray | Path] = {}
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
        """Keeps an array."""
        key = (stream, sample, name)
        if self.used + array.nbytes <= self.limit or array.dtype == object:
            self.used += array.nbytes
            self._arrays[key] = array
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="layerdiff-")
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.npy"
        np.save(path, array.view(np.uint8) if array.dtype.kind == "V" and array.ndim else array)
        self._dtypes[path] = array.dtype
        self._arrays[key] = path

    def get(self, stream: str, sample: int, name: str) -> np.ndarray:
        """An array that was put. Those in files are read anew at every call."""
        value = self._arrays[stream, sample, name]
        if isinstance(value, Path):
            array = np.load(value)
            dtype = self._dtypes[value]
            return array.view(dtype) if array.dtype != dtype else array
        return value

    def has(self, stream: str, sample: int, name: str) -> bool:
        """Whether an array is kept."""
        return (stream, sample, name) in self._arrays

    def drop(self, stream: str, sample: int, names: Iterable[str]) -> None:
        """Forgets arrays; those that are not there are none."""
        for name in names:
            value = self._arrays.pop((stream, sample, name), None)
            if isinstance(value, Path):
                value.unlink(missing_ok=True)
                self._dtypes.pop(value, None)
            elif value is not None:
                self.used -= value.nbytes

    @property
    def _dtypes(self) -> dict[Path, np.dtype]:
        return self.__dict__.setdefault("_dtype_table", {})
