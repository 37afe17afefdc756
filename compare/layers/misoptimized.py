"""Is it a runtime's own graph optimizer that is wrong?

A runtime that fuses and rewrites a graph can be compared with itself: the same model, the same inputs, no optimization.
Where that changes an output by what two runtimes differ by, the side that changes is the one that is off, whoever is
the reference.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.errors import LayerdiffError
from ..causes.rounded_operand import RoundedTo8Bits
from ..progress import SILENT, Progress
from ..report.model import Cause
from ..runs.opening import open_whole
from ..runs.samples import feed_of, numbered
from ..statistics.statistics import Statistics
from .observation import relative_error

if TYPE_CHECKING:
    from ...runners.contract.runner import Runner
    from ..comparison import Comparison
    from ..report.model import Culprit, OutputResult, Report
    from ..runs.run import RunLog
    from ..sides import Side

log = logging.getLogger(__name__)

EXPLAINS = 0.5
"""Share of the difference between two sides from which on what one of them does to itself explains it."""
AGREES = 0.25
"""Relative difference up to which two sides may agree, whatever the format: steps of 8 bits make less, 12 dB."""
MOST = 3
"""Most optimizations that are named together; where more are needed, the level says enough."""

_SETTLED = frozenset(
    {
        Cause.OVERFLOW,
        Cause.UNDERFLOW,
        Cause.SATURATION,
        Cause.ATTRIBUTE,
        Cause.WEIGHTS,
        Cause.CANCELLATION,
        Cause.QUANTIZATION,
        Cause.AMPLIFIED,
        Cause.EXCHANGED_OUTPUTS,
        Cause.NONDETERMINISM,
        Cause.FEEDING,
        Cause.UNDECLARED,
    }
)
"""Causes beside which nobody asks for an optimizer."""


@dataclass(frozen=True)
class Misoptimized:
    """A side that is off, since the outputs agree once its runtime leaves the graph as it is.

    Attributes:
        candidate: The candidate of the pair that was looked at.
        side: The name of the side that is off.
        other: The name of the side that it then agrees with.
        tensor: The output.
        level: The first level of graph optimization that changes the output.
        optimizers: The optimizations that have to be left out for the outputs to agree; empty where not few suffice.
        error: Relative L2 difference of both sides as deployed.
        left: The same once this side's runtime optimizes nothing.
        flag: The long option of its runner, without ``--``.
    """

    candidate: str
    side: str
    other: str
    tensor: str
    level: str
    optimizers: tuple[str, ...]
    error: float
    left: float
    flag: str

    @property
    def text(self) -> str:
        """What was found, in one sentence."""
        why = f": {' with '.join(self.optimizers)}" if self.optimizers else ""
        error = f"{self.error:.1e}" if math.isfinite(self.error) else "values that are not finite"
        return (
            f"{self.side} is the side that is off in {self.tensor}: with no graph optimization it agrees with "
            f"{self.other} (relative difference {self.left:.1e} instead of {error}); it changes the result from level "
            f"{self.level} on{why}."
        )

    @property
    def remedy(self) -> str:
        """What to set."""
        if self.optimizers:
            options = ",".join(f"disabled_optimizers={name}" for name in self.optimizers)
            return f"run {self.side} without {' and '.join(self.optimizers)} (--{self.flag}={options})"
        return f"run {self.side} below the optimization level {self.level} (--{self.flag}=optimization=...)"


def misoptimized(
    comparison: Comparison, ran: RunLog, report: Report, progress: Progress = SILENT
) -> tuple[Misoptimized, ...]:
    """The sides whose own graph optimizer makes a failing output, as far as their runtimes have levels of it.

    Args:
        comparison: What was compared: the sides that ran.
        ran: How it ran.
        report: What it showed, culprits included.
        progress: Told what is going on.
    """
    found: list[Misoptimized] = []
    for candidate in comparison.candidates:
        output = _worst(report, candidate.name)
        blamed = [culprit for culprit in report.culprits if culprit.candidate == candidate.name]
        settled = candidate.runner.narrows or (blamed and all(map(_settled, blamed)))
        if output is None or settled or any(runner.in_pieces for runner in ran.runners):
            continue
        pair = comparison.reference, candidate
        if not any(side.runner.levels() for side in pair):
            continue
        progress.stage(f"{candidate.name}: comparing both sides with themselves without graph optimizations")
        try:
            found.extend(_Pair(comparison, pair, output).off())
        except LayerdiffError:
            log.debug("%s was not compared with itself", candidate.name, exc_info=True)
    return tuple(dict.fromkeys(found))


def _settled(culprit: Culprit) -> bool:
    """Whether a culprit's cause leaves nothing for the optimizer to have done: it is what makes a kernel of scaled
    integers of a product in FP32."""
    return culprit.cause in _SETTLED and not any(isinstance(fact, RoundedTo8Bits) for fact in culprit.facts)


def _worst(report: Report, candidate: str) -> OutputResult | None:
    """The failing output of a candidate that uses most of what is allowed, NaN on both sides aside."""
    failing = [o for o in report.of(candidate) if o.verdict == "fail" and o.worst_sample is not None and _differs(o)]
    return max(failing, key=lambda o: o.use if o.use is not None else math.inf, default=None)


def _differs(output: OutputResult) -> bool:
    """Whether more is wrong with an output than that both sides give NaN at the same places."""
    metrics = output.metrics or {}
    reference, candidate = metrics.get("nan") or (0, 0)
    only_nan = 0 < (metrics.get("mismatched") or 0) <= reference == candidate
    return bool(metrics) and not only_nan


class _Pair:
    """Two sides on the sample on which one of their outputs differs most."""

    def __init__(self, comparison: Comparison, pair: tuple[Side, Side], output: OutputResult) -> None:
        assert output.worst_sample is not None
        self._comparison = comparison
        self._pair = pair
        self._tensor = output.tensor
        ((_, self._sample),) = numbered(comparison.samples, {output.worst_sample})

    def off(self) -> list[Misoptimized]:
        """Those of the two that are off."""
        deployed = [self._run(side, side.runner) for side in self._pair]
        error = _difference(*deployed)
        found = []
        for place, side in enumerate(self._pair):
            levels = side.runner.levels()
            if not levels or not error:
                continue
            names, other = list(levels), self._pair[1 - place]
            plain = self._run(side, levels[names[0]])
            left, own = _difference(deployed[1 - place], plain), _difference(plain, deployed[place])
            if left > AGREES or not _small(left, error) or not _explains(own, error):
                continue

            def plain_again(runner: Runner, side: Side = side, plain: np.ndarray = plain, own: float = own) -> bool:
                return _small(_difference(plain, self._run(side, runner)), own)

            level = next((n for n in names[1:-1] if not plain_again(levels[n])), names[-1])

            def suffice(chosen: Sequence[str], runner: Runner = levels[level]) -> bool:
                return plain_again(runner.without(chosen))

            optimizers = fewest(side.runner.optimizers, suffice)
            who = self._pair[1].name, side.name, other.name
            found.append(Misoptimized(*who, self._tensor, level, optimizers, error, left, side.runner.flag))
        return found

    def _run(self, side: Side, runner: Runner) -> np.ndarray:
        with open_whole(self._comparison, replace(side, runner=runner), pieces=False) as session:
            return np.asarray(session.infer(feed_of(session, self._sample), [self._tensor])[self._tensor])


def _difference(reference: np.ndarray, other: np.ndarray) -> float:
    """Relative L2; infinite where something is finite on one side only. What is NaN on both sides is equal here."""
    return relative_error(Statistics(full=False, equal_nan=True).update(reference, other))


def _small(left: float, error: float) -> bool:
    """Whether what is left of an error is too little to be it; of an infinite one, whether it is finite."""
    return left <= EXPLAINS * error if math.isfinite(error) else math.isfinite(left)


def _explains(own: float, error: float) -> bool:
    return own >= EXPLAINS * error if math.isfinite(error) else not math.isfinite(own)


def fewest(names: Sequence[str], suffice: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    """A smallest set of names that suffices, by halving; empty where not even all do, or more than `MOST` are needed.

    Args:
        names: All names.
        suffice: Whether the effect is gone without these.
    """
    chosen: list[str] = []
    if not names or not suffice(names):
        return ()
    while not chosen or not suffice(chosen):
        if len(chosen) == MOST:
            return ()
        low, high = 0, len(names)  # names[:low] are too few, names[:high] suffice
        while high - low > 1:
            middle = (low + high) // 2
            if suffice([*chosen, *names[:middle]]):
                high = middle
            else:
                low = middle
        chosen.append(names[high - 1])
    return tuple(chosen)
