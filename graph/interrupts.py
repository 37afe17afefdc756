"""Ctrl-C that waits for an import: an extension module that is interrupted while it loads cannot be loaded again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Raises ``KeyboardInterrupt`` behind the block, if it came inside; only where Python's own handler is in force.

    Libraries in C++ turn an interrupt that reaches them while they are imported into another error ("initialization
    failed"), which would be told as theirs.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came: list[int] = []

    def keep(number: int, frame: Any) -> None:
        came.append(number)

    signal.signal(signal.SIGINT, keep)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt
