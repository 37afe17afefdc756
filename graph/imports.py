"""What the user names as ``package.module:name``."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from .errors import UsageError, said
from .foreign import contained
from .interrupts import uninterrupted


def named_object(option: str, text: str, form: str) -> Any:
    """The object that ``package.module:name`` names.

    Modules are looked for in the present folder too, which a console script does not have on its path. One that is
    found there keeps it there: what it imports later, and processes of their own, find the folder as well.

    Args:
        option: The option that names it, for messages.
        text: ``package.module:name``.
        form: What the option takes, for messages.

    Raises:
        UsageError: There is no such module or name, or importing it failed.
    """
    module, _, name = text.rpartition(":")
    if not module or not name:
        raise UsageError(f"{option} {text}: expected {form}.")
    try:
        with contained(), uninterrupted():
            return getattr(_imported(module), name)
    except Exception as error:  # an import runs whatever the module holds
        lines = said(error).splitlines()
        why = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise UsageError(f"{option} {text}: {why.rstrip('.')}.") from error


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        folder = os.getcwd()
        sys.path.append(folder)
        try:
            return importlib.import_module(module)
        except BaseException:
            sys.path.remove(folder)
            raise
