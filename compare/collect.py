"""What is known of outputs, collected as they come: evidence alone, without verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..graph.cutting.dataflow import unseeded
from ..graph.cutting.fusion import static_tensors
from .notices import output_constant, output_not_finite, samples_empty
from .outputs.by_types import hold_to_types
from .outputs.draws import Drawn
from .outputs.evidence import Coverage, OutputEvidence
from .outputs.judge import Judge
from .outputs.logits import LogitsMeter
from .outputs.measuring import measure
from .outputs.metric import LOGITS, Meter, criterion
from .progress import SILENT, Progress
from .runs.same_rows import SameRows

if TYPE_CHECKING:
    from .comparison import Comparison
    from .report.model import AccuracyResult, Notice
    from .runs.run import RunLog
    from .runs.streaming import Take
    from .sides import Side, Sides


@dataclass(frozen=True)
class Evidence:
    """What is known of all outputs after a run.

    Attributes:
        outputs: Of each output of each candidate.
        accuracy: What each runner's outputs are worth on labelled data, the reference first; empty without a metric.
        devices: Where statistics of a candidate were computed, by its name, if not by NumPy.
        notices: What the user should know of how outputs were compared.
    """

    outputs: tuple[OutputEvidence, ...] = ()
    accuracy: tuple[AccuracyResult, ...] = ()
    devices: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


class Collector:
    """Takes outputs sample after sample.

    Args:
        comparison: What is compared, by which rules.

    Raises:
        UsageError: The metric does not exist or lacks its labels.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._criterion = criterion(comparison.rules)
        self._judge: Judge | None = None
        self._meter: Meter | LogitsMeter | None = None
        self._rows = SameRows()
        self._empty = 0
        self._taken = 0

    def begin(self, sides: Sides) -> Take:
        """Gets ready for those that opened; see `streaming.Begin`."""
        judge = self._judge = Judge(sides, self._comparison.rules)
        meter = self._meter = self._measuring(sides)

        def take(side: Side, sample: int, outputs: dict[str, Any]) -> None:
            judge.take(side.name, sample, outputs)
            if side is sides.reference:
                self._rows.take(outputs)
                self._taken += 1
                self._empty += bool(outputs) and not any(math.prod(array.shape) for array in outputs.values())
            if meter is not None:
                meter.take(side.name, sample, outputs)

        return take

    def _measuring(self, sides: Sides) -> Meter | LogitsMeter | None:
        rule = self._criterion
        if rule is None:
            return None
        return LogitsMeter(rule, sides, self._comparison.samples) if rule.metric == LOGITS else Meter(rule, sides)

    def evidence(
        self,
        comparison: Comparison,
        log: RunLog,
        progress: Progress = SILENT,
        drawn: Drawn | None = None,
        measured: bool = True,
    ) -> Evidence:
        """All that is known when the run is over. What rounding explains is measured now, where outputs are in doubt.

        Args:
            comparison: What was compared.
            log: How the run went.
            progress: Told what is going on.
            drawn: What was drawn before, for whoever judges one candidate many times.
            measured: Whether what rounding explains is measured; else outputs in doubt stay undecided.

        Raises:
            UsageError: There are more labels than rows.
        """
        found = self._compared(comparison, log, progress, drawn, measured)
        return replace(found, outputs=(*found.outputs, *_not_run(comparison, log)))

    def _compared(
        self, comparison: Comparison, log: RunLog, progress: Progress, drawn: Drawn | None, measured: bool
    ) -> Evidence:
        judge, meter = self._judge, self._meter
        if judge is None:
            return Evidence()
        total = len(comparison.samples)
        ran = replace(comparison, sides=comparison.sides.chosen(log.reference, log.candidates))
        outputs = judge.evidence(total, log.finished)
        if measured:
            outputs = measure(ran, log, outputs, judge.kept, progress, drawn)
            outputs = hold_to_types(ran, log, outputs, progress)
        index = ran.reference.model.index
        random, static = unseeded(index), static_tensors(index)
        outputs = tuple(
            replace(
                e,
                idle=log.of(e.candidate).info.idle,
                random=random.get(e.tensor, ""),
                static=e.tensor in static,
                blank=log.blank,
                nan_given=log.nan_given,
                generated=not comparison.samples.representative,
                guessed=comparison.samples.guessed,
                unranged=comparison.samples.unranged,
            )
            for e in outputs
        )
        same = self._rows.constant() if log.varied else {}
        told = (
            *judge.notices,
            *(output_constant(n, rows) for n, rows in same.items() if n not in static),
            *_not_finite(outputs),
            *([samples_empty(self._empty, self._taken)] if 0 < self._empty < self._taken else ()),
        )
        if meter is None:
            return Evidence(outputs, devices=judge.devices(), notices=told)
        if log.samples == total:
            meter.finish()
        outputs = tuple(replace(e, metric=meter.loss(e.candidate, e.tensor)) for e in outputs)
        return Evidence(outputs, meter.results(outputs), judge.devices(), (*told, *meter.notices()))


def _not_finite(outputs: Sequence[OutputEvidence]) -> Iterator[Notice]:
    """What to say of outputs that agree where they are infinite or NaN on both sides, once of each."""
    told: set[str] = set()
    for known in outputs:
        seen = known.statistics
        if known.tensor not in told and not seen.broken and (seen.inf[0] or seen.nan[0]):
            told.add(known.tensor)
            yield output_not_finite(known.tensor, seen.inf[0], seen.nan[0], seen.count)


def _not_run(comparison: Comparison, log: RunLog) -> Iterator[OutputEvidence]:
    """Of every candidate that a runtime took and could not run: each output, of which nothing is known."""
    outputs = comparison.sides.chosen(log.reference, ()).reference.model.outputs
    for runner in log.runners:
        if runner.info.not_run and runner.name != log.reference and runner.error is None:
            for spec in outputs:
                coverage = Coverage(0, len(comparison.samples))
                yield OutputEvidence(runner.name, spec.name, log.reference, coverage, not_run=runner.info.not_run)
