"""How much memory localizing may use, and how it gets some back first."""

from __future__ import annotations

import ctypes
import os
import sys

BUDGET = 512 << 20
"""Bytes that localizing uses where the user says nothing and the machine has four times that."""


def budget(asked: int | None) -> int:
    """Bytes to use: what was asked for, else `BUDGET`, but no more than a quarter of what the machine has free."""
    if asked is not None:
        return asked
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return BUDGET
    return max(min(BUDGET, free // 4), 32 << 20)


def give_back() -> None:
    """Returns to the system what the sessions on whole models have freed, where the C library is one that keeps it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)
