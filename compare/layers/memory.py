"""How much memory localizing may use, and how it gets some back first."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

BUDGET = 512 << 20
"""Bytes that localizing uses where the user says nothing and the machine has four times that."""


def budget(asked: int | None) -> int:
    """Bytes to use: what was asked for, else `BUDGET`, but no more than a quarter of what there is."""
    if asked is not None:
        return asked
    return max(int(min(BUDGET, free_memory() / 4)), 32 << 20)


def free_memory() -> float:
    """Bytes that can be had without swapping; infinite where the system does not say."""
    found = [math.inf]
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                found.extend(_limits(controllers, path))
    return min(found)


def _limits(controllers: str, path: str) -> Iterator[int]:
    """What the control groups from ``path`` up to the root allow. Inside a container, the root is its own."""
    root = Path("/sys/fs/cgroup", controllers)
    knob = "memory.limit_in_bytes" if controllers else "memory.max"
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):  # "max" is no number
            yield int((folder / knob).read_text())
        if folder == root:
            return


def give_back() -> None:
    """Returns to the system what the sessions on whole models have freed, where the C library is one that keeps it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)
