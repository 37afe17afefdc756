"""Text that may be shown: names of tensors come out of files, and a terminal obeys what it is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # of ASCII and Latin-1: ESC among them, and what moves the cursor
    "\u2028\u2029"  # ends of lines
    "\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c"  # what turns the order of characters around
    "\ud800-\udfff]"  # halves of characters, which cannot be written
)


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with control characters written out: ``\x1b``, ``\n``, ``\u202e``.

    Args:
        text: The text.
        lines: Whether ends of lines stay. What stands behind one is then set off, so that it cannot be taken for
            another message.
    """
    if _CONTROL.search(text) is None:
        return text
    if lines:
        first, *rest = text.split("\n")
        return "\n".join([printable(first), *("  " + printable(line).strip() for line in rest)])
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


LONGEST = 240
"""Characters of the longest name that people are shown whole."""
_LONG = re.compile(rf"\S{{{LONGEST + 1},}}")


def shortened(text: str) -> str:
    """The text with names beyond `LONGEST` characters shown by their beginning, their end and their length."""
    return _LONG.sub(lambda found: _short(found.group()), text)


def _short(name: str) -> str:
    return f"{name[:60]}...{name[-30:]} ({len(name):,} characters)"


def counted(count: int, one: str, many: str = "") -> str:
    """A number and what it counts: ``1 tensor``, ``1,200 tensors``.

    Args:
        count: The number.
        one: The words behind a one.
        many: Those behind any other number; empty: ``one`` with an s.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def share_of(share: float) -> str:
    """A part of an error as text: errors may undo each other, so that one of them may be more than they come to, which
    is all of it to a reader; what is little is never nothing.

    Args:
        share: The part, as a share of the whole.
    """
    return f"{min(share, 1.0):.0%}" if share >= 0.01 else "less than 1%"


def quoted(names: Iterable[str]) -> str:
    """Names in quotes, one after the other."""
    return ", ".join(map(repr, names))


def few(names: Sequence[str], most: int) -> str:
    """The first of some names, and how many more there are: ``a, b and 3 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence, a few of them: ``a, b and c``. One more than ``most`` is named, too."""
    shown = [*names[:most], f"{len(names) - most} more"] if len(names) > most + 1 else [*names]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def being(names: Sequence[str], most: int = 3) -> str:
    """Names as the subject of a sentence, with its verb: ``a is``, ``a and b are``."""
    return f"{listed(names, most)} {'is' if len(names) == 1 else 'are'}"


def in_one_line(error: object) -> str:
    """What an error says, with its second line behind the first."""
    return " ".join(line.strip() for line in str(error).split("\n"))
