"""The report as the terminal shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import Report

FLAG = "--text"
HELP = "write what the terminal shows"
WIDTH = 10_000
"""Columns: nothing is folded."""


def render(report: Report) -> str:
    """The report as text without colours."""
    import io

    from rich.console import Console

    from .show import show

    file = io.StringIO()
    # whatever the environment says: a notebook's kernel would get the text instead of the file, and colours in it
    to = Console(file=file, width=WIDTH, highlight=False, emoji=False, force_jupyter=False, force_terminal=False)
    show(report, to)
    return file.getvalue()
