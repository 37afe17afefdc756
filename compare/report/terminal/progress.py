"""What is going on while a comparison runs, on a terminal or in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from ....graph.printable import printable, shortened
from ...progress import Progress

if TYPE_CHECKING:
    from rich.status import Status


PIPED = 10_000
"""Columns of what is no screen: nothing is folded there."""


class _Console(Console):
    """One that does not end the program when its reader goes away."""

    def on_broken_pipe(self) -> None:
        """See `rich.console.Console.on_broken_pipe`.

        Raises:
            BrokenPipeError: Always.
        """
        raise BrokenPipeError


def console(file: IO[str] | None = None) -> Console:
    """A console that neither cuts nor folds what goes into a pipe, unless COLUMNS says how wide it is."""
    file = file or sys.stdout
    piped = not file.isatty() and "COLUMNS" not in os.environ
    width = PIPED if piped else None
    return _Console(file=file, width=width, highlight=False, soft_wrap=False, emoji=False, force_jupyter=False)


class TerminalProgress(Progress):
    """One line that changes on a terminal; a line for each stage elsewhere. What cannot be written is not."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self._console = console(file or sys.stderr)
        self._status: Status | None = None
        self._text = ""
        self._drawn = 0.0
        self._began = time.monotonic()

    def stage(self, text: str) -> None:
        """See `Progress.stage`."""
        self._text = text = shortened(printable(text))
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._show(text)
            return
        with contextlib.suppress(OSError, ValueError):
            self._console.print(text, markup=False, soft_wrap=True)

    def advance(self, done: int, total: int, unit: str = "samples") -> None:
        """See `Progress.advance`."""
        now = time.monotonic()
        if self._console.is_terminal and (now - self._drawn > 0.1 or done == total):
            self._drawn = now
            self._show(f"{self._text} · {done:,} of {total:,} {unit} done{_left(now - self._began, done, total)}")

    def clear(self) -> None:
        """See `Progress.clear`."""
        if self._status is not None:
            with contextlib.suppress(OSError, ValueError):
                self._status.stop()
            self._status = None

    def _show(self, text: str) -> None:
        shown = escape(text)
        with contextlib.suppress(OSError, ValueError):
            if self._status is None:
                self._status = self._console.status(shown, spinner="dots")
                self._status.start()
            else:
                self._status.update(shown)


def _left(seconds: float, done: int, total: int) -> str:
    """How long the rest takes if it goes on so; empty while nothing can be said, or it is over at once."""
    rest = seconds * (total - done) / done if done else 0.0
    if seconds < 1 or rest < 1:
        return ""
    return f", {rest:.0f} s left" if rest < 90 else f", {rest / 60:.0f} min left"
