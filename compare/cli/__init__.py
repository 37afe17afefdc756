"""The ``compare`` command."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status; see `command.main`. Ctrl-C waits for the modules of the command."""
    try:
        from ...graph.interrupts import uninterrupted

        with uninterrupted():
            from . import command
        return command.main(argv)
    except KeyboardInterrupt:  # before the command could see to it
        import sys

        print("compare: interrupted.", file=sys.stderr)
        return 130
