"""Memory that two processes see: tensors go from one to the other without being sent."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_ALIGNED = 64


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies in an arena.

    Attributes:
        name: Its name.
        dtype, shape: What it is.
        offset: Its first byte.
        strings: The elements, where they are strings, which do not lie there.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int = 0
    strings: list[Any] | None = None


class Arena:
    """A file in memory that has no name, so that nothing is left of it when the last process has closed it.

    Args:
        file: Its descriptor, which both processes have; see `new`.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._map: mmap.mmap | None = None

    @classmethod
    def new(cls) -> Arena:
        """An empty one."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("layerdiff"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def put(self, arrays: Mapping[str, Any]) -> tuple[Slot, ...]:
        """Copies arrays into it, over those that were put before, and says where they are."""
        slots: list[tuple[Slot, np.ndarray]] = []
        end = 0
        for name, value in arrays.items():
            array = np.asarray(value)
            if array.dtype.kind in "OSUT":
                slots.append((Slot(name, np.dtype(object), array.shape, strings=array.reshape(-1).tolist()), array))
                continue
            slots.append((Slot(name, array.dtype, array.shape, end), array))
            end += -(-array.nbytes // _ALIGNED) * _ALIGNED
        self._grow(end)
        for slot, array in slots:
            if slot.strings is None and array.size:
                self._at(slot)[...] = array
        return tuple(slot for slot, _ in slots)

    def get(self, slots: Sequence[Slot], *, copy: bool) -> dict[str, np.ndarray]:
        """Arrays that the other process put there: copies, or read-only views that hold until it puts others."""
        return {slot.name: self._get(slot, copy) for slot in slots}

    def _get(self, slot: Slot, copy: bool) -> np.ndarray:
        if slot.strings is not None:
            array = np.empty(len(slot.strings), object)
            array[:] = slot.strings
            return array.reshape(slot.shape)
        if 0 in slot.shape:
            return np.empty(slot.shape, slot.dtype)
        self._see(slot.offset + int(np.prod(slot.shape)) * slot.dtype.itemsize)
        view = self._at(slot)
        if copy:
            return np.array(view)
        view.flags.writeable = False
        return view

    def _at(self, slot: Slot) -> np.ndarray:
        assert self._map is not None
        return np.ndarray(slot.shape, slot.dtype, self._map, slot.offset)

    def _grow(self, size: int) -> None:
        """Makes room; what the other process still looks at stays where it is."""
        if size > os.fstat(self.file).st_size:
            os.ftruncate(self.file, max(size, 2 * os.fstat(self.file).st_size))
        if size:
            self._see(size)

    def _see(self, size: int) -> None:
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self.file, os.fstat(self.file).st_size)

    def close(self) -> None:
        """Lets go of it."""
        self._map = None
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
