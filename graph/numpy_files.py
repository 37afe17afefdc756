"""NumPy files, read without unpickling anything but strings: ``.npy`` and ``.npz``, whatever the names inside."""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")


class Header(NamedTuple):
    """What an ``.npy`` file says of itself before its data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def size(self) -> int:
        """Bytes of data that have to follow."""
        return math.prod(self.shape) * self.dtype.itemsize


def in_natural_order(path: Path) -> list[Any]:
    """sample2 before sample10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name)]


def members_of(file: Path, read: Callable[[IO[bytes]], T]) -> dict[str, T]:
    """What ``read`` makes of every member of an ``.npz`` file, by the member's name."""
    found = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                found[member.removesuffix(".npy")] = read(stream)
    return found


def read_header(stream: IO[bytes]) -> Header:
    """Shape, dtype and order of an ``.npy`` stream, which is left at its data.

    Raises:
        ValueError: It is not one.
    """
    version = np.lib.format.read_magic(stream)
    size = stream.read(2 if version == (1, 0) else 4)
    text = stream.read(int.from_bytes(size, "little"))
    # NumPy saves ml_dtypes' float8_e5m2 under a name that it cannot read back itself.
    whole = io.BytesIO(size + text.replace(b"'<f1'", b"'|V1'"))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(whole)
    return Header(shape, dtype, fortran)


def read_array(stream: IO[bytes]) -> np.ndarray:
    """An array from an ``.npy`` stream. Arrays of objects are read if they hold strings; nothing else is unpickled.

    Raises:
        ValueError: It is no array, or cut short.
        pickle.UnpicklingError: It holds other objects.
    """
    header = read_header(stream)
    if header.dtype.hasobject:
        array = _Strings(stream).load()
        if not isinstance(array, np.ndarray):
            raise ValueError("an array of objects that are no strings")
        return array.reshape(header.shape)
    content = stream.read()
    if len(content) != header.size:
        raise ValueError(f"cut short: {len(content):,} of {header.size:,} bytes")
    flat = np.frombuffer(content, header.dtype) if header.size else np.empty(0, header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


class _Strings(pickle.Unpickler):
    """Unpickles arrays of strings and refuses every class that they do not need."""

    _NEEDED = ("_reconstruct", "ndarray", "dtype", "scalar")

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in self._NEEDED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, and only arrays of strings are unpickled")


def map_array(path: Path) -> np.ndarray:
    """An ``.npy`` file as a memory map: read from disk where it is looked at."""
    with path.open("rb") as stream:
        start = read_header(stream)
        if start.dtype.hasobject or not start.size:
            stream.seek(0)
            return read_array(stream)
        offset = stream.tell()
    order: Literal["C", "F"] = "F" if start.fortran else "C"
    return np.memmap(path, start.dtype, "r", offset, start.shape, order)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An ``.npz`` with one array for each name, whatever the name (`numpy.savez` takes names as keywords)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=array.dtype == object)
