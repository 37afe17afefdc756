"""Processes that build engines, several at once, while the command does something else."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ....graph.errors import LayerdiffError, RunnerError
from ....runners.contract.workload import Workload
from ..memory import free_memory
from .worker import Worker

if TYPE_CHECKING:
    from ....graph.model import Model
    from ....runners.contract.runner import Runner
    from ...comparison import Comparison

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST = 2
"""Most processes that build at the same time. They try kernels on one GPU, where each waits for the others: two built
the engines of a transformer's layers 1.3 times as fast as one, eight took four times as long (H200, TensorRT 8.6)."""
CORES = 4
"""Cores of the processor for each of them, beside which the reference runs."""
MEMORY = 4 << 30
"""Bytes of memory for each of them: with its libraries and kernels, TensorRT 8.6 holds 3 GB."""


class Builders:
    """Builds engines in processes of their own.

    Loading TensorRT takes some ten seconds, and a build keeps one core busy for most of its time: processes that are
    started while the deployed engine is built are ready when it is, and build those of the layers beside each other.

    Args:
        count: How many processes.
        timeout: Seconds that a build may take; None: any time.
    """

    def __init__(self, count: int, timeout: float | None = None) -> None:
        self.begun: dict[str, Any] = {}
        self._closed = False
        self._workers = [Worker(timeout) for _ in range(count)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count, "builder")
        for worker in self._workers:
            self._idle.put(worker)

    def start(self, runner: Runner) -> None:
        """Starts the processes, and has each of them load what a build by a runner takes."""
        tiny = _tiny()
        for _ in self._workers:
            self._threads.submit(self._quietly, runner, tiny)

    def _quietly(self, runner: Runner, model: Model) -> None:
        try:
            self.build(runner, model, Workload())
        except LayerdiffError as error:  # whoever builds something that is needed hears of it
            log.debug("a process that builds engines: %s", error)

    def submit(self, task: Callable[..., T], *arguments: Any) -> Future[T]:
        """Runs a function in a thread of its own, which may wait for `build`."""
        return self._threads.submit(task, *arguments)

    def build(self, runner: Runner, model: Model, workload: Workload, refittable: bool = False) -> Any:
        """What `Building.build` gives, in the next process that is free.

        Raises:
            LayerdiffError: See `Building.build`; or the process died.
        """
        return self._called(runner, "build", model, workload, refittable)

    def refit(self, runner: Runner, model: Model, made: Any, before: Model) -> Any:
        """What `Building.refit` gives, in the next process that is free.

        Raises:
            LayerdiffError: See `Building.refit`; or the process died.
        """
        return self._called(runner, "refit", model, made, before.here())

    def _called(self, runner: Runner, method: str, model: Model, *more: Any) -> Any:
        if self._closed:
            raise RunnerError(f"{runner.name}: nothing is built any more.")
        worker = self._idle.get()
        try:
            return worker.call(runner.opened_by(None), method, model, *more, doing="building engines")
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Ends all processes, whatever they are at."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()


@contextmanager
def building(comparison: Comparison) -> Iterator[Comparison]:
    """The comparison with processes that build engines of layers, until the block ends: where layers are looked at, a
    candidate's runtime builds engines, and the machine has cores and memory for such processes."""
    able = [
        side.runner
        for side in comparison.candidates
        if side.runner.capabilities.builds_apart and side.runner.capabilities.pieces and not side.runner.only_builds
    ]
    count = affordable() if comparison.rules.layers is not None and able else 0
    if count < 1:
        yield comparison
        return
    builders = Builders(count, comparison.rules.timeout)
    try:
        builders.start(able[0])
        yield replace(comparison, builders=builders)
    finally:
        builders.close()


def affordable() -> int:
    """How many processes of that kind the machine has room for."""
    if os.name != "posix":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(min(MOST, cores // CORES, free_memory() // MEMORY))


def _tiny() -> Model:
    """A network of one convolution."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from ....graph.model import Model

    kernel = numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "w")
    tensor = helper.make_tensor_value_info
    x, y = (tensor(name, TensorProto.FLOAT, [1, 8, side, side]) for name, side in (("x", 16), ("y", 14)))
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], "c")], "tiny", [x], [y], [kernel])
    return Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
