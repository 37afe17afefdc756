"""The jobs of a benchmark, in this process or in several, one core each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing.queues import Queue
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def spread(work: Callable[..., Answer], jobs: Iterable[tuple[Any, ...]], processes: int) -> Iterator[Answer]:
    """What ``work(*job)`` returns for every job, in order.

    Args:
        work: A function of a module that a spawned process can import: none of the ``__main__`` of a package.
        jobs: The arguments.
        processes: How many; with one, this process does it all.
    """
    if processes < 2:
        yield from (work(*job) for job in jobs)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core in islice(cycle(_cores()), processes):
        cores.put(core)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_stay_on, initargs=(cores,)) as pool:
        yield from pool.map(work, *zip(*jobs, strict=True))


def _cores() -> list[int | None]:
    """The cores that this process may use; None where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]


def _stay_on(cores: Queue[int | None]) -> None:
    """Keeps a process on one core: the runtimes make a thread for each that they see, which all spin."""
    core = cores.get()
    if core is not None:
        os.sched_setaffinity(0, {core})
