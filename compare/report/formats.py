"""Which formats has a report? Every module of this folder that declares one.

A new format is one new module here, with ``FLAG`` (``"--html"``), ``HELP`` (one line for ``compare --help``) and
``render(report) -> str | bytes``; a format of several files returns them by name, and its path is a folder. Heavy
packages are imported inside of functions: the help asks for all formats.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, cast

from ...graph.interrupts import uninterrupted

Content: TypeAlias = str | bytes | Mapping[str, str | bytes]
"""A report in one format: a file, or files by their names in a folder."""


class Format(Protocol):
    """A module that renders reports.

    Attributes:
        FLAG: The option that takes the path to write to.
        HELP: One line for the help.

    A module may also say ``FOLDER = True`` (a folder is written, which standard output is not) and ``LAYERS = True``
    (it holds layers alone), and have ``check()``, which raises `UsageError` where a package that it needs is missing.
    """

    FLAG: str
    HELP: str

    def render(self, report: Any) -> Content:
        """The report in this format."""


def writes_folder(one: Format) -> bool:
    """Whether a format is a folder of files."""
    return bool(getattr(one, "FOLDER", False))


def holds_layers(one: Format) -> bool:
    """Whether a format holds layers alone, and nothing of a report without them."""
    return bool(getattr(one, "LAYERS", False))


def check_packages(one: Format) -> None:
    """Makes sure, before anything runs, that the packages of a format are there.

    Raises:
        UsageError: One is missing.
    """
    check = getattr(one, "check", None)
    if check is not None:
        check()


@functools.cache
def formats() -> Mapping[str, Format]:
    """The formats by their flags."""
    package = importlib.import_module(__name__.rpartition(".")[0])
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    with uninterrupted():
        modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    return {m.FLAG: cast(Format, m) for m in modules if all(hasattr(m, a) for a in ("FLAG", "HELP", "render"))}
