"""Shares of a comparison, or the checks of a suite, as tasks of Ray. Scheduling is Ray's; Ray is imported here alone.

A task gets its comparison through Ray's object store and gives a report back. The reports on shares are put together as
`merging` does, so that nothing depends on who ran what. A worker that dies costs its task, which is started again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..graph.errors import LayerdiffError, MissingPackage, RunnerError, UsageError, first_line
from . import notices
from .merging import merged
from .progress import SILENT, Progress
from .report.inputs import known
from .share import refuse_what_needs_all
from .stages import compare as compare_here
from .stages import needs_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..dataloaders.base import Samples
    from ..runners.contract.runner import Runner
    from .comparison import Comparison
    from .report.model import Report

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

    def put(self, value: Any) -> Any:
        """A value in Ray's object store; what a task is given of it is the value."""
        return self._ray.put(value)

    def run(self, tasks: Sequence[Task], told: Callable[[int], None] = lambda done: None) -> Iterator[Done]:
        """Runs tasks, and gives what came of each in their order, as soon as it is there.

        Args:
            tasks: One CPU each, and their GPUs.
            told: Told how many are done.

        Raises:
            LayerdiffError: A task raised it; or it cost `TRIES` workers.
        """
        for task in tasks:
            self.slots(task.gpus)
        ray, results, deaths = self._ray, dict[int, Any](), [0] * len(tasks)
        died = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)

        def start(number: int) -> Any:
            task = tasks[number]
            remote = ray.remote(max_retries=0, num_cpus=1, num_gpus=task.gpus)(_in_folder)
            return remote.remote(os.getcwd(), task.function, *task.arguments)

        waiting = {start(number): number for number in range(len(tasks))}
        try:
            for number in range(len(tasks)):
                while number not in results:
                    (ready,), _ = ray.wait(list(waiting), num_returns=1)
                    finished = waiting.pop(ready)
                    try:
                        results[finished] = result = ray.get(ready)
                        if isinstance(result, _Refused):
                            raise result.error()
                        told(len(results))
                    except died as error:
                        deaths[finished] += 1
                        if deaths[finished] == TRIES:
                            why = first_line(error)
                            raise RunnerError(f"--ray: {TRIES} workers died on one task: {why}") from None
                        waiting[start(finished)] = finished
                yield Done(results[number], deaths[number])
        finally:
            for left in waiting:
                ray.cancel(left, force=True)


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


def compare(
    comparison: Comparison, progress: Progress = SILENT, ran_on: Callable[[Samples], None] = lambda samples: None
) -> Report:
    """Runs a comparison: here, or in shares on the cluster that its rules name; see `stages.compare`.

    Raises:
        UsageError: See `stages.compare`; the rules ask for something that needs all samples in one place.
        RunnerError: Workers died again and again.
    """
    rules = comparison.rules
    if rules.ray is None:
        return compare_here(comparison, progress, ran_on)
    refuse_what_needs_all("--ray", (*needs_all(rules), ("--shard", rules.shard), ("--resume", rules.resume)))
    comparison = replace(comparison, rules=replace(rules, ray=None))
    gpus = gpus_of(side.runner for side in comparison.sides.all)
    with cluster(rules.ray) as connected:
        count = min(len(comparison.samples), connected.slots(gpus)) or 1
        progress.stage(f"running {count} shares of the samples on a cluster")
        held = connected.put(comparison)
        tasks = [Task(_share, (held, (index, count)), gpus) for index in range(1, count + 1)]
        done = list(connected.run(tasks, functools.partial(_advance, progress, count)))
    shares = {f"share {index} of {count}": found.result for index, found in enumerate(done, 1)}
    report = merged(comparison, shares, progress)
    told = [notices.worker_died(name, found.deaths) for name, found in zip(shares, done, strict=True) if found.deaths]
    return replace(report, notices=(*report.notices, *told))


def gpus_of(runners: Iterable[Runner]) -> int:
    """GPUs that a task with these runners needs: they run one after the other, on the same ones."""
    return max((runner.gpus for runner in runners), default=0)


def _advance(progress: Progress, count: int, done: int) -> None:
    progress.advance(done, count)


def _share(comparison: Comparison, shard: tuple[int, int]) -> Report:
    """The report on a share of the samples. Runs in a worker."""
    return settled(compare_here(replace(comparison, rules=replace(comparison.rules, shard=shard))))


def settled(report: Report) -> Report:
    """The report without the models and the samples, of which it keeps the digests."""

    def of(info: Any) -> Any:
        return None if info is None else replace(info, digest=functools.partial(known, info.sha256))

    return replace(report, model=of(report.model), candidate_model=of(report.candidate_model), data=of(report.data))


def _in_folder(folder: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function where paths mean what they mean to whoever asks, if there is such a folder."""
    if os.path.isdir(folder):
        os.chdir(folder)
    try:
        return function(*arguments)
    except LayerdiffError as error:
        return _Refused(str(error), isinstance(error, UsageError))
