"""How a command ends: statuses that are no verdict, and what may end it early."""

from __future__ import annotations

INTERRUPTED = 130
"""Ctrl-C."""
CRASHED = 3
"""What also a runner that failed gives: nothing may be concluded."""


class Shown(SystemExit):
    """The help, or the version, was asked for and has been printed: the only reason to end without a verdict."""
