"""How much memory localizing may use, and how it gets some back first."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ...graph.weights import tensor_bytes
from ..sides import one_a_file

if TYPE_CHECKING:
    from ..sides import Side

BUDGET = 512 << 20
"""Bytes that localizing uses where the user says nothing and the machine has four times that."""
ENGINES = 4 << 30
"""The same where every piece is an engine: the fewer there are, the sooner they are built."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # mallopt(3)


def budget(asked: int | None, usual: int = BUDGET) -> int:
    """Bytes to use: what was asked for, else what is ``usual``, but no more than a quarter of what there is."""
    if asked is not None:
        return asked
    return max(int(min(usual, free_memory() / 4)), 32 << 20)


def weight_bytes(sides: Iterable[Side]) -> int:
    """Size of the weights of some sides, those of a model that they share once."""
    models = [side.model for side in one_a_file(sides)]
    return sum(tensor_bytes(t) for model in models for t in model.index.initializers.values())


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


@contextmanager
def reused(weights: int, allowed: int) -> Iterator[None]:
    """Lets what is freed inside be used again instead of going back to the system, where the C library is glibc.

    glibc maps every large array anew and gives it back at once, and the system clears every page again: as localizing
    makes and drops gigabytes, that takes a tenth of its time. In the end everything goes back.

    Args:
        weights: Bytes of the weights of all models. Pieces of them are copied as they are opened, and freed in another
            order: where all of them are more than is allowed, what is freed goes back at once after all, and what was
            freed before goes back first.
        allowed: Bytes that localizing may use.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    trim, option = getattr(library, "malloc_trim", None), getattr(library, "mallopt", None)
    if trim is None or option is None:  # musl has neither
        yield
        return
    trim(0)
    if weights > allowed:
        yield
        return
    option(_MMAP_MAX, 0)
    option(_TRIM_THRESHOLD, 2**31 - 1)
    option(_TOP_PAD, 64 << 20)
    try:
        yield
    finally:
        option(_MMAP_MAX, 65536)
        option(_TRIM_THRESHOLD, 128 << 10)
        option(_TOP_PAD, 128 << 10)
        trim(0)
