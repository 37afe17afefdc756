"""Reads an ``.onnx`` file without its weights: large ones stay where they are, as if they were external data.

A ``ModelProto`` holds its weights between everything else. Parsing them copies them, and so does every piece of the
model that is made, serialized and opened. What is read here instead is the file's own structure (protobuf's wire
format: a sequence of tags, lengths and bytes); an initializer of some size becomes a reference to its bytes in the very
file, which ONNX allows for any file and any offset, and which runtimes map into memory instead of copying.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

LIMIT = 4096
"""Bytes from which on an initializer stays in the file."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number

Field = tuple[int, int, int, int]
"""Number of a field, where its tag begins, where its content begins, where it ends."""


def read(path: Path) -> onnx.ModelProto:
    """The model in ``path``; initializers of `LIMIT` bytes or more are external data in ``path.name``.

    Raises:
        google.protobuf.message.DecodeError: It is no ONNX model, or cut short.
    """
    if not path.stat().st_size:
        return onnx.ModelProto()
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return onnx.ModelProto.FromString(_without_weights(memoryview(mapped), path.name))


def _without_weights(view: memoryview, location: str) -> bytes:
    """The serialized model, its large initializers replaced by references into the file ``location``."""
    parts: list[bytes | memoryview] = []
    for number, tag, start, end in _fields(view, 0, len(view)):
        if number == _GRAPH:
            graph = b"".join(_graph(view, start, end, location))
            parts += (_key(_GRAPH), _number(len(graph)), graph)
        else:
            parts.append(view[tag:end])
    return b"".join(parts)


def _graph(view: memoryview, start: int, end: int, location: str) -> Iterator[bytes | memoryview]:
    kept = start  # everything from here on is taken as it is
    for number, tag, begin, stop in _fields(view, start, end):
        if number != _INITIALIZER or stop - begin < LIMIT:
            continue
        found = _raw_data(view, begin, stop)
        if found is None:
            continue
        tag_raw, raw, raw_end = found
        reference = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("location", location), ("offset", str(raw)), ("length", str(raw_end - raw))):
            reference.external_data.add(key=key, value=value)
        tail = reference.SerializeToString()
        size = tag_raw - begin + stop - raw_end + len(tail)
        yield view[kept:tag]
        yield _key(_INITIALIZER) + _number(size)
        yield view[begin:tag_raw]
        yield view[raw_end:stop]
        yield tail
        kept = stop
    yield view[kept:end]


def _raw_data(view: memoryview, start: int, end: int) -> tuple[int, int, int] | None:
    """Where the field ``raw_data`` of a tensor begins, where its bytes begin, and where they end."""
    for number, tag, begin, stop in _fields(view, start, end):
        if number == _RAW_DATA and stop - begin >= LIMIT:
            return tag, begin, stop
    return None


def _fields(view: memoryview, position: int, end: int) -> Iterator[Field]:
    """The fields of one message."""
    while position < end:
        tag = position
        key, position = _varint(view, position, end)
        kind = key & 7
        if kind == _BYTES:
            size, start = _varint(view, position, end)
            position = start + size
        elif kind == _VARINT:
            start = position
            _, position = _varint(view, position, end)
        elif kind in (_FIXED32, _FIXED64):
            start = position
            position += 4 if kind == _FIXED32 else 8
        else:
            raise DecodeError(f"Wire type {kind} at byte {tag}.")
        if position > end:
            raise DecodeError(f"The field at byte {tag} ends behind its message.")
        yield key >> 3, tag, start, position


def _varint(view: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise DecodeError(f"No number at byte {position}.")


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(number: int) -> bytes:
    return _number(number << 3 | _BYTES)
