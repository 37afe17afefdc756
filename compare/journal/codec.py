"""Values as bytes and back: numbers, texts, arrays, containers, and the dataclasses of this package.

Nothing that is read is run, as unpickling would do: a dataclass is made of its fields, and only classes of this package
are. Arrays lie behind the text, bit by bit as they were. Equal values give equal bytes, so that bytes can be a key.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import gc
import importlib
import json
import math
import struct
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

PACKAGE = __package__.removesuffix(".compare.journal")
Buffer: TypeAlias = "bytes | memoryview"

ALIGNED = 64
"""Arrays begin at multiples of so many bytes, so that they can be used where they lie."""
FLOORS = ("graph", "runners", "dataloaders", "compare")
"""Folders of the package whose classes are made."""
_LENGTH = struct.Struct("<Q")
_KINDS = frozenset(
    {
        *("float", "tuple", "set", "frozenset", "bytes", "complex", "array", "scalar", "strings", "dtype", "enum"),
        *("object", "named", "dict"),
    }
)
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Unreadable(ValueError):
    """Bytes that `encoded` did not write, or that a class of another version wrote."""


def encoded(value: Any) -> bytes:
    """A value as bytes.

    Raises:
        TypeError: It, or something in it, is of another type than those that can be kept.
    """
    return b"".join(portions(value))


def portions(value: Any) -> list[Buffer]:
    """The same in several portions, of which large ones are the arrays themselves.

    Raises:
        TypeError: See `encoded`.
    """
    writer = _Writer()
    with _uncollected():
        text = json.dumps(writer.plain(value), separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % ALIGNED)
    return [_LENGTH.pack(len(text)), text, *writer.parts]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look through everything again and again while much is made."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def decoded(content: memoryview) -> Any:
    """The value that `encoded` made these bytes of. Arrays lie in the same memory, where that may be written.

    Raises:
        Unreadable: There is none.
    """
    try:
        end = _LENGTH.size + _LENGTH.unpack_from(content)[0]
        return _Reader(content[end:]).value(json.loads(bytes(content[_LENGTH.size : end])))
    except Exception as error:  # whatever a wrong text makes of the classes
        raise Unreadable(f"{type(error).__name__}: {error}") from error


class _Writer:
    """Makes JSON of a value, with the bytes of its arrays beside it."""

    def __init__(self) -> None:
        self.parts: list[Buffer] = []
        self._size = 0

    def plain(self, value: Any) -> Any:
        """What JSON holds; whatever is not itself there is an object with one key, which says what it is."""
        kind: Any = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if kind is list:
            return [self.plain(v) for v in value]
        if kind is tuple:
            return {"tuple": [self.plain(v) for v in value]}
        if kind in (set, frozenset):
            return {kind.__name__: sorted((self.plain(v) for v in value), key=json.dumps)}
        if kind is bytes:
            return {"bytes": base64.b64encode(value).decode()}
        if kind is complex:
            return {"complex": [self.plain(value.real), self.plain(value.imag)]}
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value)
        if isinstance(value, np.dtype):
            return {"dtype": value.name}
        if isinstance(value, enum.Enum):
            return {"enum": [_name(kind), self.plain(value.value)]}
        if hasattr(kind, "__dataclass_fields__"):
            names = _fields(kind)
            state = vars(value) if names is None else {name: getattr(value, name) for name in names}
            return {"object": [_name(kind), {n: self.plain(v) for n, v in state.items()}]}
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return {"named": [_name(kind), [self.plain(v) for v in value]]}
        if isinstance(value, Mapping):
            return {"dict": [[self.plain(k), self.plain(v)] for k, v in value.items()]}
        raise TypeError(f"a {kind.__module__}.{kind.__qualname__} cannot be kept")

    def _array(self, value: np.ndarray | np.generic) -> Any:
        tag = "array" if isinstance(value, np.ndarray) else "scalar"
        if value.dtype.kind in "OUST":  # strings, whose bytes are elsewhere
            return {"strings": [list(value.shape), [self._text(v) for v in np.asarray(value).reshape(-1).tolist()]]}
        array = np.asarray(value)
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
        self.parts += (content, bytes(-len(content) % ALIGNED))
        start, self._size = self._size, self._size + -(-len(content) // ALIGNED) * ALIGNED
        dtype = array.dtype.name if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array.dtype.str
        return {tag: [dtype, list(array.shape), start, len(content)]}

    def _text(self, value: Any) -> Any:
        if not isinstance(value, str | bytes):
            raise TypeError(f"an array that holds a {type(value).__name__} cannot be kept")
        return self.plain(value)


class _Reader:
    """The way back."""

    def __init__(self, arrays: memoryview) -> None:
        self._arrays = arrays

    def value(self, plain: Any) -> Any:
        """The value that `_Writer.plain` made this of."""
        if isinstance(plain, list):
            return [self.value(v) for v in plain]
        if not isinstance(plain, dict):
            return plain
        ((kind, content),) = plain.items()
        if kind not in _KINDS:
            raise TypeError(f"{kind!r} is no kind of value")
        return getattr(self, f"_{kind}")(content)

    def _float(self, content: str) -> float:
        return _FLOATS[content]

    def _tuple(self, content: Any) -> tuple[Any, ...]:
        return tuple(self.value(v) for v in content)

    def _set(self, content: Any) -> set[Any]:
        return {self.value(v) for v in content}

    def _frozenset(self, content: Any) -> frozenset[Any]:
        return frozenset(self.value(v) for v in content)

    def _bytes(self, content: str) -> bytes:
        return base64.b64decode(content, validate=True)

    def _complex(self, content: Any) -> complex:
        real, imaginary = content
        return complex(self.value(real), self.value(imaginary))

    def _dict(self, content: Any) -> dict[Any, Any]:
        return {self.value(k): self.value(v) for k, v in content}

    def _array(self, content: Any) -> np.ndarray:
        dtype, shape, start, size = content
        found = np.frombuffer(self._arrays[start : start + size], np.uint8)
        if found.size != size:
            raise ValueError("an array ends too early")
        if not found.flags.writeable or found.ctypes.data % ALIGNED:
            found = found.copy()
        return found.view(_dtype(dtype)).reshape(shape)

    def _scalar(self, content: Any) -> Any:
        return self._array(content)[()]

    def _dtype(self, content: str) -> np.dtype:
        return _dtype(content)

    def _strings(self, content: Any) -> np.ndarray:
        shape, texts = content
        array = np.empty(len(texts), object)
        array[:] = [self.value(text) for text in texts]
        return array.reshape(shape)

    def _enum(self, content: Any) -> Any:
        name, value = content
        return _named(name, enum.Enum)(self.value(value))

    def _named(self, content: Any) -> Any:
        name, values = content
        return _named(name, tuple)(*map(self.value, values))

    def _object(self, content: Any) -> Any:
        name, state = content
        cls: type = _named(name, object)
        if not hasattr(cls, "__dataclass_fields__"):
            raise TypeError(f"{name} is no dataclass")
        made: Any = object.__new__(cls)
        for field, value in state.items():
            object.__setattr__(made, field, self.value(value))
        return made


def _dtype(name: str) -> np.dtype:
    import ml_dtypes  # what NumPy has no type for, by its name

    return np.dtype(getattr(ml_dtypes, name, name))


@functools.cache
def _fields(cls: Hashable) -> tuple[str, ...] | None:
    """The fields of a frozen dataclass; None where instances may hold more, as those of a class derived from one do."""
    kind: Any = cls
    return tuple(f.name for f in dataclasses.fields(kind)) if kind.__dataclass_params__.frozen else None


@functools.cache
def _name(cls: type) -> str:
    module = cls.__module__
    if not module.startswith(f"{PACKAGE}."):
        raise TypeError(f"a {module}.{cls.__qualname__} cannot be kept")
    return f"{module.removeprefix(f'{PACKAGE}.')}:{cls.__qualname__}"


def _named(name: str, kind: type) -> Any:
    """A class of this package, by its name there.

    Raises:
        TypeError: It is none, or of another kind.
    """
    module, _, qualified = name.partition(":")
    parts = (*module.split("."), *qualified.split("."))
    if parts[0] not in FLOORS or not all(part.isidentifier() for part in parts):
        raise TypeError(f"{name} names no class")
    found: Any = importlib.import_module(f"{PACKAGE}.{module}")
    for part in qualified.split("."):
        found = vars(found)[part]
    if not isinstance(found, type) or not issubclass(found, kind) or not found.__module__.startswith(f"{PACKAGE}."):
        raise TypeError(f"{name} is another kind of thing")
    return found
