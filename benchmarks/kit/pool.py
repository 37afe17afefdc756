"""The jobs of a benchmark, in this process or in several, one thread each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, *zip(*jobs, strict=True))
