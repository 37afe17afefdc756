"""A report for people: names and messages without characters that a terminal, a browser or a log would obey."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from ...graph.printable import printable, shortened
from .inputs import DataInfo

T = TypeVar("T")

_OF_LINES = ("error", "notes")
"""Fields whose texts may have several lines, which are those of runtimes; what is said of data has one."""
_WITHOUT_TEXT = frozenset({type(None), bool, int, float})
"""Types of most values."""


Change = Callable[[str, bool], str]
"""What is made of a text, which may have several lines if the second argument says so."""


def escaped(value: T, lines: bool = False) -> T:
    """The same value with every text in it as `printable` shows it; itself where there is nothing to write out.

    Args:
        value: A report, or anything in it.
        lines: Whether texts may have several lines.
    """
    return _retold(value, lambda text, several: printable(text, lines=several), lines)


def abridged(value: T) -> T:
    """The same value with every long name in it as `shortened` shows it; itself where there is none."""
    return _retold(value, lambda text, _: shortened(text), False)


def _retold(value: T, change: Change, lines: bool) -> T:
    made: Any = _changed(value, change, lines)
    return value if made is None else made


def _changed(value: Any, change: Change, lines: bool) -> Any:
    """The changed value; None where nothing changes."""
    kind: Any = type(value)
    if kind is str:
        made = change(value, lines)
        return None if made == value else made
    if kind in _WITHOUT_TEXT:
        return None
    names = _fields(kind)
    if names is not None:
        several = () if isinstance(value, DataInfo) else _OF_LINES
        items = {name: _changed(getattr(value, name), change, name in several) for name in names}
        changed = {name: item for name, item in items.items() if item is not None}
        return dataclasses.replace(value, **changed) if changed else None
    if isinstance(value, (tuple, list)):
        parts = [_changed(item, change, lines) for item in value]
        if all(item is None for item in parts):
            return None
        return type(value)(old if new is None else new for old, new in zip(value, parts, strict=True))
    if isinstance(value, Mapping):
        pairs = {key: (_changed(key, change, False), _changed(item, change, lines)) for key, item in value.items()}
        if all(key is None and item is None for key, item in pairs.values()):
            return None
        return {old if key is None else key: value[old] if item is None else item for old, (key, item) in pairs.items()}
    return None


@lru_cache(maxsize=256)
def _fields(kind: type) -> tuple[str, ...] | None:
    """The names of a dataclass's fields; None of any other class."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None
