"""NumPy files, read without unpickling anything but strings: ``.npy`` and ``.npz``, whatever the names inside."""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeVar

import numpy as np

from .npy_strings import read_strings
from .whole_file import replacing

CHUNK = 1 << 24
"""Bytes that are unpacked at a time."""

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
    if int.from_bytes(size, "little") >= 1 << 16:
        raise ValueError("its header is too long")
    text = stream.read(int.from_bytes(size, "little"))
    # NumPy saves ml_dtypes' float8_e5m2 under a name that it cannot read back itself.
    whole = io.BytesIO(size + text.replace(b"'<f1'", b"'|V1'"))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(whole)
    if any(size < 0 for size in shape):
        raise ValueError(f"its header says a shape of {shape}")
    return Header(shape, dtype, fortran)


def read_array(stream: IO[bytes]) -> np.ndarray:
    """An array from an ``.npy`` stream. Arrays of objects are read if they hold strings; nothing else is unpickled.

    Raises:
        ValueError: It is no array, or cut short.
        pickle.UnpicklingError: It holds other objects.
    """
    header = read_header(stream)
    if header.dtype.hasobject:
        return read_strings(stream, header.shape)
    content = _exactly(stream, header.size)
    flat = np.frombuffer(content, header.dtype) if header.size else np.empty(0, header.dtype)
    if not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    """So many bytes to the end of a stream. A small archive may unpack to more than there is memory."""
    most = memory()
    if size > most:
        raise ValueError(f"its header says {size:,} bytes, and there are {most:,} bytes of memory")
    content = bytearray()
    while len(content) <= size:
        chunk = stream.read(min(CHUNK, size + 1 - len(content)))
        if not chunk:
            break
        content += chunk
    if len(content) > size:
        raise ValueError(f"damaged: it holds more than the {size:,} bytes that its header says")
    if len(content) < size:
        raise ValueError(f"cut short: {len(content):,} of {size:,} bytes")
    return content


def memory() -> int:
    """Bytes of memory of this machine; 64 GiB where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 36


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
    """An ``.npz`` with one array for each name, whatever the name (`numpy.savez` takes names as keywords).

    It is there whole or not at all.
    """
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                # strings as characters, not as pickled objects
                np.lib.format.write_array(file, np.asarray(array.astype(str) if array.dtype == object else array))
