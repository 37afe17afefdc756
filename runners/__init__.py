"""Runtimes that a model can be run on: one module each, all behind `Runner`."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from typing import TYPE_CHECKING

from ..graph.errors import UsageError
from ..graph.imports import named_object
from ..graph.interrupts import uninterrupted

if TYPE_CHECKING:
    from .contract.runner import Runner

GROUP = "layerdiff.runners"
"""Entry-point group through which other distributions add runners."""


def discover(third_parties: bool = True) -> dict[str, type[Runner]]:
    """Every runner class by its command-line flag: the modules of this folder, then the entry points."""
    from .contract.runner import Runner

    found: dict[str, type[Runner]] = {}
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    with uninterrupted():
        modules = [importlib.import_module(f".{name}", __name__) for name in names]
        from importlib.metadata import entry_points
    for module in modules:
        for item in vars(module).values():
            # type(), not isinstance: Python 3.10 takes Mapping[str, ...] for a class.
            if issubclass(type(item), type) and issubclass(item, Runner) and item.flag:
                found[item.flag] = item
    if third_parties:
        for entry in entry_points(group=GROUP):
            try:
                found.setdefault(entry.name, load_runner(entry.value))
            except UsageError as error:  # somebody's broken plug-in is no reason to refuse everything else
                logging.getLogger("layerdiff").warning("--%s is left out: %s", entry.name, error)
    return found


def load_runner(spec: str) -> type[Runner]:
    """What ``--runner package.module:NAME`` names: a class, or `FunctionRunner` for a function ``feed -> outputs``.

    Raises:
        UsageError: It cannot be imported, or is neither.
    """
    from .contract.runner import Runner
    from .function import FunctionRunner

    item = named_object("--runner", spec, "package.module:Class or package.module:function")
    if not isinstance(item, type) and callable(item):
        return FunctionRunner
    if not isinstance(item, type) or not issubclass(item, Runner):
        what = "class" if isinstance(item, type) else type(item).__name__
        raise UsageError(f"--runner {spec}: this {what} is not a subclass of layerdiff.Runner, nor a function.")
    return item
