"""Ctrl-C and SIGTERM that wait for an import: an extension module that is interrupted while it loads cannot be loaded
again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends the program as Ctrl-C does: what was found so far is told, and nothing is left behind."""


def terminate(number: int, frame: FrameType | None) -> None:
    """What a program does on SIGTERM that is to end so. A second one ends it at once.

    Raises:
        Terminated: Always.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Raises ``KeyboardInterrupt`` or `Terminated` behind the block, if the signal came inside, whatever else the block
    raises; only where Python's own handler, or `terminate`, is in force. A second one is obeyed at once.

    Libraries in C++ turn an interrupt that reaches them while they are imported into another error ("initialization
    failed"), which would be told as theirs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    kept = {number: handler for number, handler in known.items() if signal.getsignal(number) is handler}
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        if number in came:  # whoever sends it twice waits no longer
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
            signal.raise_signal(number)
        came.append(number)

    for number in kept:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        if came:  # an import that fails then is told as what it is: interrupted
            kept[signal.Signals(came[0])](came[0], None)
