"""What became of outputs and culprits since an earlier report, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from .folding import say
from .numbers import number

if TYPE_CHECKING:
    from ..history import Change
    from ..model import Report

_STYLE = {"worse": "bold red", "new": "bold red", "better": "green", "gone": "green", "known-bad": "yellow"}
_SHOWN = 20


def show_changes(report: Report, to: Console) -> None:
    """What is worse first, then what is better, then what is as bad as it was."""
    if not report.changes:
        if report.baseline is not None:
            say(to, f"\nno change since {report.baseline}: every output passes, as it did")
        return
    ranked = sorted(report.changes, key=lambda change: list(_STYLE).index(change.kind))
    to.print()
    for change in ranked[:_SHOWN]:
        say(to, Text.assemble((f"{change.kind}: ", _STYLE[change.kind]), _told(change)))
    if len(ranked) > _SHOWN:
        to.print(f"and {len(ranked) - _SHOWN} more changes (--json has all)")


def _told(change: Change) -> str:
    verdicts = [word for word in (change.before, change.after) if word]
    words = " -> ".join(dict.fromkeys(verdicts))
    errors = ""
    if change.error_before is not None and change.error_after is not None:
        errors = f", rel L2 {number(change.error_before)} -> {number(change.error_after)}"
    return f"{change.subject} {change.name} of {change.candidate}: {words}{errors}"
