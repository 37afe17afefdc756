"""Code that others wrote, which this program calls: whatever it does, the program itself says how it ended."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import NoReturn

_exit = os._exit
_here = threading.local()


class Ended(Exception):
    """Code of somebody else tried to end the program."""


class _Left(BaseException):
    """``os._exit`` was called."""


def _leave(status: int) -> NoReturn:
    """`os._exit`, but for a block that is contained; what such a block forks ends as it wants to."""
    if getattr(_here, "process", None) == os.getpid():
        raise _Left(status)
    _exit(status)


class contained:
    """Turns whatever would end the program into an exception like any other: ``with contained(): function()``.

    ``sys.exit(0)`` in a runner, a loader or a metric would end the program with the status that means agreement, and so
    would ``os._exit(0)``, another function from the first such block on. Ctrl-C is the user's and goes through.

    Raises:
        Ended: The block called ``sys.exit`` or ``os._exit``, or raised something else that is no `Exception`.
    """

    def __enter__(self) -> None:
        self._outer = getattr(_here, "process", None)
        _here.process = os.getpid()
        os._exit = _leave

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _here.process = self._outer
        if error is None or isinstance(error, (Exception, KeyboardInterrupt)):
            return
        if isinstance(error, SystemExit):
            raise Ended(f"it called sys.exit({'' if error.code is None else repr(error.code)})") from error
        if isinstance(error, _Left):
            raise Ended(f"it called os._exit({error.args[0]!r})") from error
        raise Ended(f"it raised {type(error).__name__}, which ends programs") from error
