"""The reference of all commands, as Markdown made of the parsers: ``python -m layerdiff.compare.cli.reference``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from .arguments import Parser, full_parser
from .commands import COMMANDS, command_parser

HEAD = """\
# The commands

<!-- Written by `python -m layerdiff.compare.cli.reference`. Do not edit. -->

`compare` and `layerdiff` are one program; `compare model.onnx ...` and `layerdiff model.onnx ...` compare. An option
takes its value as the next word or behind `=`. A runner's own value stands behind its `=` ([runners.md](runners.md)).
"""


def text() -> str:
    """The page."""
    parts = [HEAD, *_command("compare", full_parser())]
    for name in COMMANDS:
        parts += _command(f"layerdiff {name}", command_parser(name))
    return "\n".join(parts)


def _command(name: str, parser: Parser) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{parser.description}\n"
    groups: dict[Any, list[argparse.Action]] = {}
    for action in parser.every:
        groups.setdefault(getattr(action, "container", None), []).append(action)
    for group, actions in groups.items():
        own = {"positional arguments": "arguments"}.get(group.title, group.title)
        yield f"### {own[:1].upper()}{own[1:]}\n" if name == "compare" else f"**{own[:1].upper()}{own[1:]}**\n"
        if group.description:
            yield "".join(f"{line}  \n" for line in group.description.splitlines())
        yield "| | |\n|---|---|"
        yield from (f"| `{_form(action)}` | {_cell(action.help or '')} |" for action in actions)
        yield ""


def _form(action: argparse.Action) -> str:
    """How an option is written: ``--layers[=all]``, ``-o DIR, --output DIR``."""
    shown = getattr(action, "shown", None)
    if shown:
        return str(shown).replace("|", "\\|")
    value = "" if action.nargs == 0 else f" {action.metavar or '|'.join(map(str, action.choices or ())) or action.dest}"
    if not action.option_strings:
        return str(action.metavar or action.dest)
    return ", ".join(f"{flag}{value}" for flag in action.option_strings).replace("|", "\\|")


def _cell(help_: str) -> str:
    plain = help_.replace("%%", "%").replace("|", "\\|")
    return re.sub(r"(?<![\w`])(--[a-z][\w-]*)", r"`\1`", plain)


if __name__ == "__main__":
    print(text(), end="")
