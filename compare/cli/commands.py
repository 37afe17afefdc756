"""Which commands are there beside ``compare``? Those that the first word of a line names, and a suite's checks.

A new command is a module of this folder with ``run(words) -> exit status`` and ``parser()``, and a line in `COMMANDS`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

COMMANDS = {
    "report": "report_command",
    "merge": "merge",
    "reduce": "reduce",
    "inspect": "inspect",
    "extract": "extract",
    "plan": "plan",
    "completion": "completion",
}
"""Modules of this folder by the first word, in the order of the reference."""


def named(words: Sequence[str]) -> str | None:
    """The command that the first word of a line names, unless a file is called so; None: ``compare`` itself."""
    if not words or words[0] not in COMMANDS or os.path.exists(words[0]) or _of_a_suite(words):
        return None
    return words[0]


def program(words: Sequence[str]) -> str:
    """What messages about a line begin with."""
    name = named(words)
    return "compare" if name is None else f"layerdiff {name}"


def run_other(words: Sequence[str]) -> int | None:
    """Runs another command than ``compare`` and returns its exit status; None where the line is one of ``compare``."""
    name = named(words)
    if name is not None:
        return int(_module(name).run(words[1:]))
    if _of_a_suite(words):
        return int(importlib.import_module("..suites.command", __package__).run(words))
    return None


def command_parser(name: str) -> Any:
    """The `Parser` of a command."""
    return _module(name).parser()


def _module(name: str) -> Any:
    return importlib.import_module(f".{COMMANDS[name]}", __package__)


def _of_a_suite(words: Sequence[str]) -> bool:
    return any(word == "--suite" or word.startswith("--suite=") for word in words)
