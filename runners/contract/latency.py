"""How long one inference takes, measured as trtexec does: warm up, run, sort, report the quantiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

WARM_UP_S = 0.2
"""Seconds of warm-up runs, as trtexec's default of 200 ms."""


@dataclass(frozen=True)
class Times:
    """Milliseconds over all runs."""

    min: float
    mean: float
    median: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Times:
        """Summarizes run times in milliseconds. p99 is the smallest value that 99 % of the runs do not exceed."""
        ordered = sorted(values)
        n = len(ordered)
        middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        return cls(ordered[0], sum(ordered) / n, middle, ordered[-(-99 * n // 100) - 1])


@dataclass(frozen=True)
class KernelTime:
    """What one kernel takes, or a few that a runtime times as one.

    Attributes:
        nodes: Names of the ONNX nodes that it computes.
        milliseconds: Median time on the device.
    """

    nodes: tuple[str, ...]
    milliseconds: float


@dataclass(frozen=True)
class Latency:
    """What was measured of a session.

    Attributes:
        runs: Runs that were timed.
        warm_up: Runs before them.
        host: Wall time of a run as the host sees it, inputs copied in and outputs copied out.
        gpu: Time of the computation alone on the device; None where nothing measures it.
        device: Time on the device with both copies (trtexec's "latency"); None where nothing measures it.
        throughput: Runs per second: ``runs`` over the wall time of all of them.
        kernels: What single kernels take, where the runtime tells; measured in runs of their own, which take longer.
    """

    runs: int
    warm_up: int
    host: Times
    throughput: float
    gpu: Times | None = None
    device: Times | None = None
    kernels: tuple[KernelTime, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it, without single kernels; times in milliseconds."""
        return {name: value for name, value in asdict(self).items() if name != "kernels"}


def time_runs(run: Callable[[], object], n: int) -> Latency:
    """Times ``n`` calls of ``run`` after `WARM_UP_S` seconds of warm-up (at least one call)."""
    warm_up = warm(run)
    times = []
    begin = time.perf_counter()
    for _ in range(max(n, 1)):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    total = time.perf_counter() - begin
    return Latency(runs=len(times), warm_up=warm_up, host=Times.of(times), throughput=len(times) / total)


def warm(run: Callable[[], object]) -> int:
    """Calls ``run`` for `WARM_UP_S` seconds, at least once, and returns how often."""
    end, count = time.perf_counter() + WARM_UP_S, 0
    while count == 0 or time.perf_counter() < end:
        run()
        count += 1
    return count
