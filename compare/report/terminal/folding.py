"""Lines that fit on the terminal: words stay whole, and what is folded is set off from the line that it belongs to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

_WORD = re.compile(r"\S+")
HANG = "  "
"""What a folded line begins with besides the indent of its first."""


def say(to: Console, told: str | Text, style: str = "", whole: re.Pattern[str] | None = None) -> None:
    """Prints a text, each line of it folded to the width.

    Args:
        to: Where it is printed.
        told: The text; its own line ends stay.
        style: How it looks.
        whole: What is not folded although there are spaces in it.
    """
    text = told if isinstance(told, Text) else Text(told)
    text.stylize_before(style)
    for line in text.split("\n", allow_blank=True):
        for part in _folded(line, max(to.width, 1), whole):
            to.print(part, soft_wrap=True)


def _folded(line: Text, width: int, whole: re.Pattern[str] | None) -> list[Text]:
    plain = line.plain
    if cell_len(plain) <= width:
        return [line]
    kept = [] if whole is None else [found.span() for found in whole.finditer(plain)]
    lead = plain[: len(plain) - len(plain.lstrip())] + HANG
    begins: list[int] = []
    end, used = 0, 0
    for start, stop in _words(plain, kept):
        if begins and used + cell_len(plain[end:stop]) > width:
            begins.append(start)
            used = len(lead) + cell_len(plain[start:stop])
        else:
            begins = begins or [0]
            used += cell_len(plain[end:stop])
        end = stop
    parts = list(line.divide(begins[1:]))
    for part in parts:
        part.rstrip()
    return [parts[0], *(Text.assemble(lead, part) for part in parts[1:])] if parts else []


def _words(plain: str, kept: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where words begin and end; those of a part that is kept whole are one."""
    found: list[tuple[int, int]] = []
    for word in _WORD.finditer(plain):
        start, stop = word.span()
        if found and any(a < start < b and a < found[-1][1] for a, b in kept):
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found
