"""Strings in ``.npy`` files that NumPy wrote as pickled objects, read without importing or making anything.

A pickle is a program: it names functions and calls them. Here every name stands for something inert that remembers what
it was called with; what is not an array of strings as NumPy writes it is refused. NumPy's own objects are not made
either: a damaged description of one crashes the interpreter.
"""

from __future__ import annotations

import math
import pickle
from typing import IO, Any

import numpy as np

_RAW = "it holds {}, and only arrays of strings are unpickled"


def read_strings(stream: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
    """An array of strings of the shape that its header tells, from a stream that is left behind its header.

    Raises:
        pickle.UnpicklingError: It is none.
    """
    try:
        found = _Unpickler(stream).load()
    except (pickle.UnpicklingError, EOFError):
        raise
    except Exception as error:  # a damaged program fails in any way
        raise pickle.UnpicklingError(_RAW.format(f"a damaged pickle ({type(error).__name__})")) from None
    items = found.items if isinstance(found, _Array) else None
    if items is None or len(items) != math.prod(shape):
        raise pickle.UnpicklingError(_RAW.format("something else"))
    strings = [_text(item) for item in items]
    array = np.empty(len(strings), object)
    array[:] = strings
    assert isinstance(found, _Array)
    return array.reshape(shape, order="F" if found.fortran else "C")


class _Array:
    """What NumPy's array was: its elements in order."""

    items: list[Any] | None = None
    fortran = False

    def __setstate__(self, state: Any) -> None:
        _, _, dtype, self.fortran, items = state
        if not isinstance(dtype, _Dtype) or dtype.name[:1] != "O" or not isinstance(items, list):
            raise pickle.UnpicklingError(_RAW.format("an array of something else"))
        self.items = items


class _Dtype:
    """A dtype's name."""

    def __init__(self, name: str, *more: Any) -> None:
        self.name = str(name)

    def __setstate__(self, state: Any) -> None:
        """Byte order and flags, which strings do not need."""


class _Scalar:
    """A ``numpy.str_``."""

    def __init__(self, dtype: Any, content: Any) -> None:
        if not isinstance(dtype, _Dtype) or dtype.name[:1] != "U" or not isinstance(content, bytes):
            raise pickle.UnpicklingError(_RAW.format("a NumPy scalar"))
        self.text = content.decode("utf-32-le").rstrip("\0")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


_INERT = {"_reconstruct": _reconstruct, "ndarray": _Array, "dtype": _Dtype, "scalar": _Scalar}


class _Unpickler(pickle._Unpickler):  # in Python: the one in C allocates what a damaged file asks for
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _INERT:
            return _INERT[name]
        raise pickle.UnpicklingError(_RAW.format(f"{module}.{name}"))


def _text(item: Any) -> str | bytes:
    if isinstance(item, _Scalar):
        return item.text
    if not isinstance(item, (str, bytes)):
        raise pickle.UnpicklingError(_RAW.format(type(item).__name__))
    return item
