"""Values as JSON can hold them, and back."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: tuples become lists, NumPy scalars numbers, numbers that are not finite null."""
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, complex):
        return {"real": plain(value.real), "imag": plain(value.imag)}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if hasattr(value, "tolist"):  # a NumPy scalar or array; ml_dtypes' scalars give Python floats
        inner = value.tolist()
        return plain(inner) if type(inner) is not type(value) else plain(float(value))
    return str(value)


def typed(hint: Any, value: Any) -> Any:
    """A value of a type out of what JSON has of it.

    Args:
        hint: A type as the fields of dataclasses are annotated.
        value: What `plain` made of such a value. Keys that the type does not have are passed over: a later version
            may have added them.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    if value is None or hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return typed(next(a for a in arguments if a is not type(None)), value)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{value!r} stands where one of {', '.join(map(repr, arguments))} is expected")
        return value
    if origin is Mapping and not isinstance(value, Mapping):
        raise TypeError(f"{value!r} stands where an object is expected")
    kinds = _KINDS.get(Mapping if dataclasses.is_dataclass(hint) else origin if origin is tuple else hint)
    if kinds is not None and (not isinstance(value, kinds[0]) or isinstance(value, kinds[1])):
        raise TypeError(f"{value!r} stands where {kinds[2]} is expected")
    if dataclasses.is_dataclass(hint):
        hints = hints_of(typing.cast(type, hint))
        names = [f.name for f in dataclasses.fields(hint) if f.init]
        return hint(**{name: typed(hints[name], value[name]) for name in names if name in value})  # type: ignore[operator]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if origin is tuple:
        return tuple(typed(arguments[0], item) for item in value)
    return value


_KINDS: Mapping[Any, tuple[Any, Any, str]] = {
    float: ((int, float), bool, "a number"),
    int: (int, bool, "a whole number"),
    str: (str, (), "a text"),
    bool: (bool, (), "true or false"),
    tuple: ((list, tuple), (), "a list"),
    Mapping: (Mapping, (), "an object"),
}
"""Of types: what JSON has for them, what of that is something else, and what it is called."""


@functools.lru_cache(maxsize=64)
def hints_of(cls: type) -> Mapping[str, Any]:
    """The annotations of a dataclass, resolved."""
    return typing.get_type_hints(cls)
