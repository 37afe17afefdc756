"""Who makes the runs that a search asks for: this process, one by one, or the workers of a cluster, several at once.

On a cluster a run may be begun before the search asks for it, where it will ask if the runs before it fail. What the
search never asks for is dropped, so that it comes to the same plan by the same runs.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from ...graph.errors import RunnerError
from ..cluster import Held, Task, cluster, gpus_of
from ..progress import SILENT, Progress
from ..runs.workers.isolation import isolated, portable
from .bench import Bench

if TYPE_CHECKING:
    import numpy as np

    from ...runners.contract.latency import KernelTime
    from ...runners.contract.runner import Runner
    from ..cluster import Cluster, Jobs
    from ..comparison import Comparison
    from ..outputs.draws import Drawn
    from ..report.plan import OutputTrial
    from ..runs.run import RunLog


class Wanted(NamedTuple):
    """A run that a search asks for.

    Attributes:
        kept: Numbers of the layers that stay FP32.
        emulation: Number of the emulation that tells what the others cost; None: the candidate itself runs.
        judged: Whether there has to be a verdict.
    """

    kept: frozenset[int]
    emulation: int | None = None
    judged: bool = True


@dataclass(frozen=True)
class Run:
    """The same, as the bench makes it.

    Attributes:
        runner: Who runs in the candidate's place.
        judged: Whether there has to be a verdict.
        timed: Whether it is timed, if the rules ask for times.
        apart: Whether its sessions are opened where the candidate's are, in a process of their own.
    """

    runner: Runner
    judged: bool
    timed: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Ran:
    """What came of a run.

    Attributes:
        outputs: What each output came to; empty where it failed.
        seconds: How long it took.
        error: Why it failed, in one line; None if it did not.
        latency, kernels: See `Trial.latency` and `Bench.kernels`.
    """

    outputs: tuple[OutputTrial, ...]
    seconds: float
    error: str | None = None
    latency: float | None = None
    kernels: tuple[KernelTime, ...] = ()


Make: TypeAlias = Callable[[Wanted], Run]
"""What the bench is to run for what a search asks for."""


class Crew(Protocol):
    """Makes the runs of a search."""

    def ahead(self, wanted: Iterable[Wanted]) -> None:
        """Told which runs will be asked for next, in this order, as long as each of them fails; in place of those of
        which it was told before. An iterable is taken as far as there is somebody to run it."""

    def run(self, wanted: Wanted) -> Ran:
        """Makes a run."""

    @property
    def deaths(self) -> int:
        """How many workers died on runs, which were made again."""


@contextmanager
def crew(bench: Bench, make: Make, progress: Progress = SILENT) -> Iterator[Crew]:
    """Those who make the runs of a search: the cluster that the rules name, or this process.

    Args:
        bench: Where runs are made.
        make: What is run for what is asked for.
        progress: Told what is going on.

    Raises:
        UsageError: The cluster is not there, or lacks the GPUs.
    """
    address = bench.comparison.rules.ray
    if address is None:
        yield _Alone(bench, make, progress)
        return
    with cluster(address) as connected, connected.jobs() as jobs:
        yield _Workers(connected, jobs, bench, make)


def ran(bench: Bench, run: Run, progress: Progress = SILENT) -> Ran:
    """Makes one run."""
    start, error = time.perf_counter(), None
    outputs: tuple[OutputTrial, ...] = ()
    try:
        if run.judged:
            outputs = bench.judged(run.runner, progress, timed=run.timed)
        else:
            outputs = bench.estimated(run.runner)
    except RunnerError as failure:
        error = str(failure).splitlines()[0]
    seconds = time.perf_counter() - start
    if error is not None or not run.timed:
        return Ran(outputs, seconds, error)
    return Ran(outputs, seconds, latency=bench.latency, kernels=bench.kernels)


class _Alone:
    """This process."""

    deaths = 0

    def __init__(self, bench: Bench, make: Make, progress: Progress) -> None:
        self._bench, self._make, self._progress = bench, make, progress

    def ahead(self, wanted: Iterable[Wanted]) -> None:
        """Nothing is done before it is asked for; see `Crew.ahead`."""

    def run(self, wanted: Wanted) -> Ran:
        """See `Crew.run`."""
        return ran(self._bench, self._make(wanted), self._progress)


@dataclass(frozen=True)
class _Work:
    """All that a worker needs for runs of one search. The reference is not run there.

    Attributes:
        comparison, log, drawn: See `Bench`.
        candidate: Name of the candidate.
        outputs: What the reference gave for each sample.
    """

    comparison: Comparison
    log: RunLog
    candidate: str
    outputs: tuple[Mapping[str, np.ndarray], ...]
    drawn: Drawn


class _Workers:
    """The workers of a cluster: as many runs at once as there is room for."""

    def __init__(self, connected: Cluster, jobs: Jobs, bench: Bench, make: Make) -> None:
        self._cluster, self._jobs, self._make = connected, jobs, make
        self._numbers: dict[Wanted, int] = {}
        self._next: deque[Wanted] = deque()
        self._reference = bench.comparison.reference.runner
        plain, name = portable(bench.comparison), bench.candidate.name
        self._held = connected.put(_Work(plain, bench.log, name, bench.reference_outputs(), bench.drawn))

    @property
    def deaths(self) -> int:
        """See `Crew.deaths`."""
        return self._jobs.deaths

    def ahead(self, wanted: Iterable[Wanted]) -> None:
        """See `Crew.ahead`."""
        self._next = deque(w for w in wanted if w not in self._numbers)
        self._fill()

    def run(self, wanted: Wanted) -> Ran:
        """See `Crew.run`."""
        if wanted not in self._numbers:
            # what is asked for instead of what was told of shows that the latter was told of in vain
            self._next = deque(w for w in self._next if w != wanted) if wanted in self._next else deque()
            self._start(wanted, self._task(wanted))
        number = self._numbers[wanted]
        while not self._jobs.ended(number):
            self._fill()  # before waiting: when this run has ended, something else may be asked for than was told of
            self._jobs.turn()
        result: Ran = self._jobs.done(number).result
        return result

    def _fill(self) -> None:
        """Begins what will be asked for next, as long as somebody is idle."""
        while self._next:
            task = self._task(self._next[0])
            if self._jobs.running >= self._cluster.slots(task.gpus):
                return
            self._start(self._next.popleft(), task)

    def _start(self, wanted: Wanted, task: Task) -> None:
        self._numbers[wanted] = self._jobs.start(task)

    def _task(self, wanted: Wanted) -> Task:
        run = self._make(wanted)
        # what rounding explains is measured by the reference's network
        gpus = gpus_of([run.runner, *([self._reference] if run.judged else [])])
        plain = replace(run, runner=run.runner.opened_by(None), apart=run.runner.isolation is not None)
        return Task(_ran_there, (self._held, plain), gpus)


def _ran_there(held: Held, run: Run) -> Ran:
    """Makes a run in a worker."""
    bench, _ = _bench(held)
    apart = bench.candidate.runner.isolation if run.apart else None
    return ran(bench, replace(run, runner=run.runner.opened_by(apart)))


@functools.lru_cache(maxsize=1)
def _bench(held: Held) -> tuple[Bench, ExitStack]:
    """The bench of a worker, for all runs that this process is given, and what it lives in."""
    work: _Work = held.value()
    stack = ExitStack()
    comparison = stack.enter_context(isolated(work.comparison))
    side = next(side for side in comparison.candidates if side.name == work.candidate)
    return stack.enter_context(Bench(comparison, work.log, side, work.drawn, work.outputs)), stack
