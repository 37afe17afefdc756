"""Sources of inputs: one module each, all behind `Source`. The names below load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Sample as Sample
    from .base import Samples as Samples
    from .base import Source as Source
    from .iterable import Iterated as Iterated
    from .opening import as_source as as_source
    from .opening import open_data as open_data
    from .prompts import Prompts as Prompts
    from .random_inputs import DataLoader as DataLoader

_HOME = {
    "DataLoader": "random_inputs",
    "Iterated": "iterable",
    "Prompts": "prompts",
    "Sample": "base",
    "Samples": "base",
    "Source": "base",
    "as_source": "opening",
    "open_data": "opening",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
