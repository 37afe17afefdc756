"""A report for people: names and messages without characters that a terminal, a browser or a log would obey."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from ...graph.printable import printable

T = TypeVar("T")

_OF_LINES = ("error", "text", "notes")
"""Fields whose texts may have several lines."""


def escaped(value: T, lines: bool = False) -> T:
    """The same value with every text in it as `printable` shows it; itself where there is nothing to write out.

    Args:
        value: A report, or anything in it.
        lines: Whether texts may have several lines.
    """
    made: Any = _escaped(value, lines)
    return value if made is None else made


def _escaped(value: Any, lines: bool) -> Any:
    """The changed value; None where nothing changes."""
    if type(value) is str:
        made = printable(value, lines=lines)
        return None if made == value else made
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _escaped(getattr(value, f.name), f.name in _OF_LINES) for f in dataclasses.fields(value)}
        changed = {name: item for name, item in fields.items() if item is not None}
        return dataclasses.replace(value, **changed) if changed else None
    if isinstance(value, (tuple, list)):
        items = [_escaped(item, lines) for item in value]
        if all(item is None for item in items):
            return None
        return type(value)(old if new is None else new for old, new in zip(value, items, strict=True))
    if isinstance(value, Mapping):
        pairs = {key: (_escaped(key, False), _escaped(item, lines)) for key, item in value.items()}
        if all(key is None and item is None for key, item in pairs.values()):
            return None
        return {old if key is None else key: value[old] if item is None else item for old, (key, item) in pairs.items()}
    return None
