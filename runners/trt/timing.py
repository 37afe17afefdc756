"""How long an engine takes, as trtexec measures it: page-locked host memory, CUDA events around copies and kernels."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..contract.latency import Latency, Times, warm
from .cuda import TO_DEVICE, TO_HOST, Cuda

if TYPE_CHECKING:
    import numpy as np


def timed(
    cuda: Cuda,
    stream: int,
    inputs: Sequence[tuple[int, np.ndarray]],
    outputs: Sequence[tuple[int, int]],
    execute: Callable[[], None],
    runs: int,
) -> Latency:
    """Times ``runs`` runs after a warm-up; one at a time, none overlapped.

    Args:
        cuda: The CUDA runtime.
        stream: Where everything is queued.
        inputs: Address on the device, and what is copied there.
        outputs: Address on the device, and the bytes that are copied from there.
        execute: Queues the kernels.
        runs: How many.

    Returns:
        ``device`` is copy in + compute + copy out, ``gpu`` the compute alone.
    """
    with ExitStack() as stack:

        def pinned(size: int) -> int:
            address = cuda.malloc_host(max(size, 1))
            stack.callback(cuda.free_host, address)
            return address

        copies_in, copies_out = [], []
        for address, array in inputs:
            copies_in.append((address, pinned(array.nbytes), array.nbytes))
            ctypes.memmove(copies_in[-1][1], array.ctypes.data, array.nbytes)
        for address, size in outputs:
            copies_out.append((pinned(size), address, size))
        events = [cuda.event() for _ in range(4)]
        for event in events:
            stack.callback(cuda.destroy_event, event)

        def run() -> None:
            cuda.record(events[0], stream)
            for to, source, size in copies_in:
                cuda.copy(to, source, size, TO_DEVICE, stream)
            cuda.record(events[1], stream)
            execute()
            cuda.record(events[2], stream)
            for to, source, size in copies_out:
                cuda.copy(to, source, size, TO_HOST, stream)
            cuda.record(events[3], stream)
            cuda.synchronize(stream)

        return _latency(cuda, run, events, runs)


def _latency(cuda: Cuda, run: Callable[[], None], events: Sequence[int], runs: int) -> Latency:
    """Times a run that records an event before its copies in, around its kernels, and after its copies out."""
    warm_up = warm(run)
    host, gpu, device = [], [], []
    begin = time.perf_counter()
    for _ in range(max(runs, 1)):
        start = time.perf_counter()
        run()
        host.append(1e3 * (time.perf_counter() - start))
        gpu.append(cuda.elapsed(events[1], events[2]))
        device.append(cuda.elapsed(events[0], events[3]))
    total = time.perf_counter() - begin
    return Latency(
        runs=len(host),
        warm_up=warm_up,
        host=Times.of(host),
        throughput=len(host) / total,
        gpu=Times.of(gpu),
        device=Times.of(device),
    )
