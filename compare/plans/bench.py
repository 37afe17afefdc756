"""Runs of one candidate with layers kept in FP32, each judged exactly as the comparison judges it.

Only the candidate runs: the reference's outputs, and the draws that show what rounding explains, are made once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from ...graph.formats import FP32
from ..collect import Collector
from ..outputs.by_expectation import ROUNDOFFS, SMALL
from ..outputs.decide import decide
from ..outputs.draws import Drawn
from ..outputs.judge import Judge
from ..progress import SILENT, Progress
from ..report.plan import OutputTrial, Trial
from ..runs.opening import open_whole
from ..runs.run import RunLog, RunnerLog
from ..runs.samples import checked, feed_of
from ..runs.spill import Store
from ..sides import Side, Sides

if TYPE_CHECKING:
    import numpy as np

    from ...graph.model import Model
    from ...runners.contract.latency import KernelTime
    from ...runners.contract.runner import Runner
    from ...runners.contract.session import Session
    from ..comparison import Comparison
    from ..outputs.evidence import OutputEvidence
    from ..runs.streaming import Take

KEPT = 1 << 29
"""Bytes of the reference's outputs that stay in memory; the rest goes to disk."""


class Bench:
    """One candidate, the samples, and what the reference gave for them. A context manager.

    Args:
        comparison: What was compared.
        log: How it ran.
        candidate: Whose runs are judged.
        drawn: What was drawn for it before; whoever gives it closes it.
        outputs: What the reference gave for each sample; it is run for them if they are not given.

    Attributes:
        comparison, candidate, log, drawn: As given.
        latency: Median time in milliseconds of one run of the last candidate that was judged, on the device where it
            has one; None where the rules ask for no times.
        kernels: What its kernels took, where the runtime tells; empty where it does not, or nothing is timed.
    """

    def __init__(
        self,
        comparison: Comparison,
        log: RunLog,
        candidate: Side,
        drawn: Drawn | None = None,
        outputs: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> None:
        self.comparison = replace(comparison, rules=replace(comparison.rules, layers=None, latency=None))
        self.candidate = candidate
        self.log = log
        self._given = outputs
        self._stack = ExitStack()
        self._store = self._stack.enter_context(Store(KEPT))
        self._outputs: list[tuple[str, ...]] = []
        self.drawn = self._stack.enter_context(closing(Drawn())) if drawn is None else drawn
        self._timed = comparison.rules.latency
        self.latency: float | None = None
        self.kernels: tuple[KernelTime, ...] = ()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def reference_outputs(self) -> tuple[Mapping[str, np.ndarray], ...]:
        """What the reference gives for each sample.

        Raises:
            RunnerError: It fails.
        """
        return tuple(self._reference(number, feed) for number, feed in enumerate(checked(self.comparison.samples)))

    @property
    def small(self) -> float:
        """The relative error that passes without a tolerance, if rounding explains it."""
        return small_error(self.candidate)

    def judged(
        self, runner: Runner, progress: Progress = SILENT, model: Model | None = None, *, timed: bool = False
    ) -> tuple[OutputTrial, ...]:
        """What the comparison says of a runner in the candidate's place.

        Args:
            runner: The runner.
            progress: Told what is going on.
            model: What it runs; the candidate's model if not given.
            timed: Whether it is timed, if the rules ask for times.

        Raises:
            RunnerError: The runtime refuses the model, or fails.
        """
        side = replace(self.candidate, runner=runner, model=model or self.candidate.model)
        collector = Collector(self.comparison)
        compared, log = self._run(side, collector.begin(Sides(self.comparison.reference, (side,))), timed)
        found = collector.evidence(compared, log, progress, self.drawn).outputs
        # that nothing is left to round is no reason to doubt what everything in FP32 gives
        return tuple(trial_of(replace(e, idle="", calibrated=False), self.small) for e in found)

    def estimated(self, runner: Runner) -> tuple[OutputTrial, ...]:
        """The errors of a runner in the candidate's place, without the verdict: no draws are made.

        Raises:
            RunnerError: The runtime refuses the model, or fails.
        """
        side = replace(self.candidate, runner=runner)
        judge = Judge(Sides(self.comparison.reference, (side,)), self.comparison.rules)
        _, log = self._run(side, lambda s, number, outputs: judge.take(s.name, number, outputs))
        found = judge.evidence(len(self.comparison.samples), log.finished)
        return tuple(trial_of(e, self.small, judged=False) for e in found)

    def _run(self, side: Side, take: Take, timed: bool = False) -> tuple[Comparison, RunLog]:
        reference = self.comparison.reference
        compared = replace(self.comparison, sides=Sides(reference, (side,), self.comparison.sides.named))
        done = 0
        sample: dict[str, np.ndarray] = {}
        with self._session(side) as (infer, session):
            for number, sample in enumerate(checked(self.comparison.samples)):
                take(reference, number, self._reference(number, sample))
                take(side, number, infer(sample))
                done += 1
            if timed and self._timed:
                times = session.latency(feed_of(session, sample), self._timed)
                self.latency, self.kernels = (times.gpu or times.host).median, times.kernels
            info = session.info
        ran = (replace(self.log.of(reference.name), samples=done), RunnerLog(side.name, info, samples=done))
        return compared, RunLog(reference.name, (side.name,), ran)

    @contextmanager
    def _session(self, side: Side) -> Iterator[tuple[_Infer, Session]]:
        with open_whole(self.comparison, side, False) as session:
            yield (lambda sample: session.infer(feed_of(session, sample))), session

    def _reference(self, number: int, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The reference's outputs for a sample; all of them are made when the first is asked for."""
        if self._given:
            return dict(self._given[number])
        name = self.comparison.reference.name
        if number >= len(self._outputs):
            with self._session(self.comparison.reference) as (infer, _):
                for later, feed in enumerate(checked(self.comparison.samples)):
                    outputs = infer(feed)
                    for tensor, array in outputs.items():
                        self._store.put(name, later, tensor, array)
                    self._outputs.append(tuple(outputs))
        return {tensor: self._store.get(name, number, tensor) for tensor in self._outputs[number]}


_Infer: TypeAlias = "Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]"


def small_error(candidate: Side) -> float:
    """The relative error that passes without a tolerance, if rounding explains it."""
    u = candidate.runner.arithmetic.u
    return max(SMALL, ROUNDOFFS * max(u if u == u else 0.0, FP32.u))


def unplanned(outputs: Sequence[OutputEvidence], candidate: Side) -> Trial:
    """What the outputs of a candidate came to in the comparison itself: a run with nothing kept."""
    small = small_error(candidate)
    return Trial((), tuple(trial_of(e, small) for e in outputs if e.candidate == candidate.name))


def trial_of(evidence: OutputEvidence, small: float, *, judged: bool = True) -> OutputTrial:
    """One output of a run.

    Args:
        evidence: What it showed.
        small: See `small_error`.
        judged: Whether the verdict can be told: draws were made.
    """
    result = decide(evidence) if judged else None
    error = evidence.relative if evidence.absent is None and not evidence.clash else math.inf
    return OutputTrial(
        evidence.tensor,
        "unknown" if result is None else result.verdict,
        finite(error),
        finite(_share(evidence, small)),
        None if result is None else result.reason,
    )


def _share(evidence: OutputEvidence, small: float) -> float:
    """The error as a share of what is allowed."""
    statistics = evidence.statistics
    if evidence.absent or evidence.clash or statistics.shape_mismatch is not None:
        return math.inf
    if evidence.metric is not None:
        loss = evidence.metric
        return max(0.0, loss.lost / max(1, loss.rows)) / loss.allowed if loss.allowed else math.inf
    if evidence.tolerance is not None:
        return math.inf if statistics.broken or statistics.use is None else float(statistics.use)
    if not statistics.mismatched:
        return 0.0
    if evidence.by_formula is not None:
        return evidence.by_formula.use
    found = evidence.expected
    return max(evidence.relative / small, 0.0 if found is None else found.use)


def finite(value: float) -> float | None:
    """A number; None where it is not finite."""
    return value if math.isfinite(value) else None
