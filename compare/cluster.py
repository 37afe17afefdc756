"""A cluster of Ray: what is started on it, and what came of it. Scheduling is Ray's; Ray is imported here alone.

A worker that dies costs its task, which is started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..graph.errors import LayerdiffError, MissingPackage, RunnerError, UsageError, first_line
from ..graph.interrupts import uninterrupted

if TYPE_CHECKING:
    from ..runners.contract.runner import Runner

HERE = "local"
"""The address that stands for a cluster of this machine's own, which lives as long as the command."""
TRIES = 3
"""How many workers a task may cost before it is given up."""


@dataclass(frozen=True)
class Task:
    """Something to be run by a worker.

    Attributes:
        function: Is called there with ``arguments``; importable, not a closure.
        gpus: GPUs that it needs.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    gpus: int = 0


@dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes:
        result: What its function returned.
        deaths: How many workers died on it before.
    """

    result: Any
    deaths: int = 0


@dataclass(frozen=True)
class Held:
    """A value in Ray's object store, on its way to tasks.

    Attributes:
        reference: Ray's own reference to it.
    """

    reference: Any

    def value(self) -> Any:
        """The value, in a worker. Arrays in it are not copied, and read-only."""
        import ray

        return ray.get(self.reference)


@dataclass(frozen=True)
class _Refused:
    """An error that a task ended with, as what is left of it on the way between processes."""

    text: str
    usage: bool

    def error(self) -> LayerdiffError:
        return UsageError(self.text) if self.usage else RunnerError(self.text)


class Cluster:
    """A cluster of Ray that this process is connected to."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def slots(self, gpus: int) -> int:
        """How many tasks can run at once.

        Args:
            gpus: GPUs that each needs.

        Raises:
            UsageError: None can: there is no GPU.
        """
        there = self._ray.cluster_resources()
        if there.get("GPU", 0) < gpus:
            raise UsageError(f"--ray: a runner needs {gpus} GPU, and the cluster has {there.get('GPU', 0):g}.")
        every = [there.get("CPU", 1), *([there["GPU"] // gpus] if gpus else [])]
        return max(1, int(min(every)))

    def put(self, value: Any) -> Held:
        """A value in Ray's object store, for tasks that are given what holds it."""
        return Held(self._ray.put(value))

    @contextlib.contextmanager
    def jobs(self) -> Iterator[Jobs]:
        """Tasks that are started one by one; what is not done when the block ends is cancelled."""
        jobs = Jobs(self._ray, self.slots)
        try:
            yield jobs
        finally:
            jobs.cancel()

    def run(self, tasks: Sequence[Task], told: Callable[[int], None] = lambda done: None) -> Iterator[Done]:
        """Runs tasks, and gives what came of each in their order, as soon as it is there.

        Args:
            tasks: One CPU each, and their GPUs.
            told: Told how many are done.

        Raises:
            LayerdiffError: A task raised it; or it cost `TRIES` workers.
        """
        done = 0
        with self.jobs() as jobs:
            numbers = [jobs.start(task) for task in tasks]
            for number in numbers:
                while not jobs.ended(number):
                    ended = jobs.turn()
                    if ended is not None:
                        jobs.done(ended)  # an error ends all of them at once
                        done += 1
                        told(done)
                yield jobs.done(number)


class Jobs:
    """Tasks on a cluster, each with the number that it got when it was started.

    Args:
        ray: Ray.
        slots: See `Cluster.slots`.
    """

    def __init__(self, ray: Any, slots: Callable[[int], int]) -> None:
        self._ray = ray
        self._slots = slots
        self._tasks: list[Task] = []
        self._deaths: list[int] = []
        self._waiting: dict[Any, int] = {}
        self._results: dict[int, Any] = {}

    @property
    def running(self) -> int:
        """How many are not done."""
        return len(self._waiting)

    @property
    def deaths(self) -> int:
        """How many workers died."""
        return sum(self._deaths)

    def start(self, task: Task) -> int:
        """Starts a task: one CPU, and its GPUs.

        Raises:
            UsageError: The cluster has no such GPUs.
        """
        self._slots(task.gpus)
        self._tasks.append(task)
        self._deaths.append(0)
        number = len(self._tasks) - 1
        self._start(number)
        return number

    def ended(self, number: int) -> bool:
        """Whether it is known what came of a task."""
        return number in self._results

    def done(self, number: int) -> Done:
        """What came of a task that ended.

        Raises:
            LayerdiffError: The task raised it; or it cost `TRIES` workers.
        """
        result = self._results[number]
        if isinstance(result, _Refused):
            raise result.error()
        return Done(result, self._deaths[number])

    def turn(self) -> int | None:
        """Waits until a task ends, and gives its number; None where its worker died and it was started again."""
        ray = self._ray
        died = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
        (ready,), _ = ray.wait(list(self._waiting), num_returns=1)
        number = self._waiting.pop(ready)
        try:
            self._results[number] = ray.get(ready)
        except died as error:
            self._deaths[number] += 1
            if self._deaths[number] < TRIES:
                self._start(number)
                return None
            text = f"--ray: {TRIES} workers died on one task: {first_line(error)}"
            self._results[number] = _Refused(text, usage=False)
        return number

    def cancel(self) -> None:
        """Ends all that are not done, and their workers."""
        for left in self._waiting:
            self._ray.cancel(left, force=True)

    def _start(self, number: int) -> None:
        task = self._tasks[number]
        remote = self._ray.remote(max_retries=0, num_cpus=1, num_gpus=task.gpus)(_in_folder)
        self._waiting[remote.remote(os.getcwd(), task.function, *task.arguments)] = number


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """A connection to a cluster, until the block ends; a connection that there is already is used and kept.

    Args:
        address: Ray's, or `HERE`.

    Raises:
        MissingPackage: Ray is not installed.
        UsageError: There is no cluster at the address.
    """
    try:
        with uninterrupted():
            import ray
    except ModuleNotFoundError:
        raise MissingPackage("Ray", "ray") from None
    mine = not ray.is_initialized()
    if mine:
        options: dict[str, Any] = {"include_dashboard": False} if address == HERE else {}
        try:
            with _own_signals():
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # Ray raises plain ones, too: "The current node timed out during startup"
            raise UsageError(f"--ray {address}: {first_line(error).rstrip('.')}.") from None
    try:
        yield Cluster(ray)
    finally:
        if mine:
            ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back what SIGTERM does: Ray ends the program by it, and a run that is ended tells what it has found."""
    mine = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, before)


def gpus_of(runners: Iterable[Runner]) -> int:
    """GPUs that a task with these runners needs: they run one after the other, on the same ones."""
    return max((runner.gpus for runner in runners), default=0)


def _in_folder(folder: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function where paths mean what they mean to whoever asks, if there is such a folder."""
    if os.path.isdir(folder):
        os.chdir(folder)
    try:
        return function(*arguments)
    except LayerdiffError as error:
        return _Refused(str(error), isinstance(error, UsageError))
