"""Which source can read this? Every module of this folder that has a function ``opens`` is asked."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ..graph.errors import DataError
from ..graph.whole_file import is_plain
from .base import Source


def open_data(path: str | os.PathLike[str], flag: str = "--data") -> Source:
    """The source that reads ``path``; ``flag`` is the option that named it, for messages.

    A new kind of file is a new module in this folder with ``opens(path) -> Source | None``, which declines with None,
    and ``READS``, which completes "cannot be read; expected ...".

    Raises:
        DataError: There is no such file, or nothing that can be read as data.
    """
    if not os.fspath(path):  # of which Path makes the present folder
        raise DataError(f"{flag} '': a file or a folder has a name.")
    path = Path(path)
    if not path.exists():
        raise DataError(f"{flag} {path}: no such file or folder.")
    if not is_plain(path):
        raise DataError(f"{flag} {path}: neither a regular file nor a folder, but a device or a pipe; save it first.")
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{flag} {path}: the folder is empty.")
    kinds = []
    for module in _modules():
        source = module.opens(path)
        if source is not None:
            return source
        kinds.append(module.READS)
    raise DataError(f"{flag} {path}: nothing in it can be read; expected {', '.join(kinds[:-1])} or {kinds[-1]}.")


def _modules() -> Iterator[ModuleType]:
    folder = os.fspath(Path(__file__).parent)
    for found in sorted(pkgutil.iter_modules([folder]), key=lambda m: m.name):
        module = importlib.import_module(f".{found.name}", __package__)
        if hasattr(module, "opens") and hasattr(module, "READS"):
            yield module


def as_source(data: Any) -> Source:
    """Whatever a caller has, as a source: a path, a dict of arrays, an iterable of dicts, a function that returns one.

    Raises:
        DataError: It is none of these.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, (str, os.PathLike)):
        return open_data(data)
    from .iterable import Iterated

    return Iterated(data)
