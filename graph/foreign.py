"""Code that others wrote, which this program calls: whatever it does, the program itself says how it ended."""

from __future__ import annotations

from types import TracebackType


class Ended(Exception):
    """Code of somebody else tried to end the program."""


class contained:
    """Turns whatever would end the program into an exception like any other: ``with contained(): function()``.

    ``sys.exit(0)`` in a runner, a loader or a metric would end the program with the status that means agreement.
    Ctrl-C is the user's and goes through.

    Raises:
        Ended: The block called ``sys.exit``, or raised something else that is no `Exception`.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (Exception, KeyboardInterrupt)):
            return
        if isinstance(error, SystemExit):
            raise Ended(f"it called sys.exit({'' if error.code is None else repr(error.code)})") from error
        raise Ended(f"it raised {type(error).__name__}, which ends programs") from error
