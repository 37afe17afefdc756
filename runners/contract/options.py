"""Fields of a runner's configuration that are command-line options as well."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, flag: str, help: str, **arguments: Any) -> Any:
    """A configuration field that is also a command-line option.

    Args:
        default: Value of the field when the option is not given.
        flag: The option, e.g. ``"--ort-optimization"``. Runners may share one (``--workspace``).
        help: One line for ``compare --help``.
        arguments: Passed to ``argparse.ArgumentParser.add_argument`` (``choices``, ``metavar``, ``type``, ``action``).
            A ``bool`` field becomes a switch, a ``tuple`` field an option that may be repeated.
    """
    return field(default=default, metadata={"flag": flag, "help": help, "arguments": arguments})
