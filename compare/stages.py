"""The questions one after the other: do the outputs agree, and where do they part? Data in, a report out."""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ..graph.errors import LayerdiffError
from . import notices
from .assemble import assemble
from .collect import Collector
from .comparison import check_form
from .journal.journal import Journal
from .journal.keys import made_by
from .journal.sessions import RunJournal
from .layers import Watch, begin, localize
from .layers.misoptimized import misoptimized
from .outputs.draws import Drawn
from .plans.fix import fix, planned
from .plans.remedies import with_remedies
from .progress import SILENT, Progress
from .report.files import check_writable
from .runs.recording import check_left_over, save_inputs, saving_outputs
from .runs.resized import resized, unfit
from .runs.run import Stopped
from .runs.shards import ShardRecorder
from .runs.streaming import execute
from .runs.workers.builders import building
from .runs.workers.isolation import isolated
from .share import belongs, refuse_what_needs_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..dataloaders.base import Samples
    from .comparison import Comparison, Rules
    from .outputs.evidence import OutputEvidence
    from .report.model import Report
    from .runs.run import RunLog


class Interrupted(KeyboardInterrupt):
    """Ctrl-C when something was found already.

    Attributes:
        report: What was found, which is no pass unless all outputs were judged.
    """

    def __init__(self, report: Report, during: str) -> None:
        """Takes the report, and what was done when Ctrl-C came."""
        super().__init__()
        self.report = replace(report, notices=(*report.notices, notices.interrupted(during)))


def compare(
    comparison: Comparison, progress: Progress = SILENT, ran_on: Callable[[Samples], None] = lambda samples: None
) -> Report:
    """Runs every sample on every side, keeps statistics alone, and localizes if the rules ask for it.

    Args:
        comparison: What is to be compared. It may have come from another process.
        progress: Told what is going on.
        ran_on: Told which samples were run, where a runner refuses sizes that were guessed: others than were bound.

    Raises:
        UsageError: The metric or the labels are wrong. A runner that fails is in the report.
        MissingPackage: What shows layers is not installed.
        Interrupted: Ctrl-C came; it holds what was found.
    """
    rules = comparison.rules
    if rules.shard is not None:
        refuse_what_needs_all("--shard", needs_all(rules))
    if rules.fix is not None:
        planned(comparison)  # refuses, before anything runs
    for side in comparison.sides.all if rules.layers is not None else ():
        if (missing := side.runner.lacks_for_layers) is not None:
            raise missing
    for flag, path in (
        ("--fix", rules.fix),
        ("--fixed-model", rules.fixed_model),
        ("--apply-remedy", rules.apply_remedy),
        ("--save-inputs", rules.save_inputs),
        ("--save-outputs", rules.save_outputs),
    ):
        if path is not None:
            check_writable(path, flag, folder=flag.startswith("--save"))
    if rules.save_inputs is not None:
        check_form(rules.save_inputs, len(comparison.samples))
        check_left_over(rules.save_inputs, "--save-inputs", len(comparison.samples))
    if rules.save_outputs is not None:
        names = [side.name for side in comparison.sides.all]
        check_left_over(rules.save_outputs, "--save-outputs", len(comparison.samples), names)
    with journaled(comparison) as kept, isolated(kept) as apart, building(apart) as comparison:
        return _with_notice(_compared(comparison, progress, ran_on), comparison)


def needs_all(rules: Rules) -> tuple[tuple[str, object], ...]:
    """Options that are for a run on all samples, and what they were given."""
    return (
        ("--layers", rules.layers),
        ("--fix", rules.fix),
        ("--apply-remedy", rules.apply_remedy),
        ("--latency", rules.latency),
        ("--save-inputs", rules.save_inputs),
        ("--save-outputs", rules.save_outputs),
    )


@contextmanager
def journaled(comparison: Comparison) -> Iterator[Comparison]:
    """The comparison with the journal that its rules ask for, until the block ends.

    Raises:
        UsageError: The folder cannot be written, or holds something else.
    """
    if comparison.rules.resume is None:
        yield comparison
        return
    with Journal(comparison.rules.resume, made_by()) as entries:
        yield replace(comparison, journal=RunJournal(entries))


def _with_notice(report: Report, comparison: Comparison) -> Report:
    """The report with what is to be said of the folder in which results are kept."""
    if comparison.journal is None:
        return report
    told = notices.journal(comparison.journal.entries)
    return replace(report, notices=(*report.notices, *told))


def _compared(comparison: Comparison, progress: Progress, ran_on: Callable[[Samples], None]) -> Report:
    """The three questions, with whoever runs in a process of its own there."""
    rules = comparison.rules
    if rules.shard is not None:
        return _share(comparison, progress)
    log, collector = _ran(comparison, progress)
    other = resized(comparison, log, progress)
    if other is not None:
        comparison = other
        ran_on(comparison.samples)
        log, collector = _ran(comparison, progress)
    elif (told := unfit(comparison, log)) is not None:
        log = replace(log, notices=(*log.notices, told))
    ran = _walked(comparison, log)
    if ran is not None:
        begin(ran, log)
    with closing(Drawn()) as drawn:
        return _judged(comparison, log, collector, progress, drawn)


def _judged(comparison: Comparison, log: RunLog, collector: Collector, progress: Progress, drawn: Drawn) -> Report:
    """What the runs showed, where they part, and a plan; draws of rounding serve all three."""
    rules = comparison.rules
    searching = rules.fix is not None or rules.apply_remedy is not None
    try:
        evidence = collector.evidence(comparison, log, progress, drawn if rules.layers or searching else None)
    except KeyboardInterrupt as error:
        report = assemble(comparison, log, collector.evidence(comparison, log, measured=False))
        raise Interrupted(report, "the error that rounding explains was measured") from error
    report = assemble(comparison, log, evidence)
    try:
        if rules.layers is not None or (searching and report.verdict == "fail"):
            report = _explained(comparison, log, evidence.outputs, report, progress, drawn)
    except KeyboardInterrupt as error:
        raise Interrupted(report, "layers were looked at") from error
    except Exception as error:
        report = _in_spite_of(error, report, "layers were looked at")
    unwritten = any(notice.code == notices.NOT_WRITTEN for notice in report.notices)
    if rules.apply_remedy is not None and report.applied is None and not unwritten:
        report = replace(report, notices=(*report.notices, notices.nothing_applied(rules.apply_remedy)))
    if rules.fix is None:
        return report
    try:
        return fix(comparison, log, evidence.outputs, report, progress, drawn)
    except KeyboardInterrupt:  # what was found until then is worth being told
        return replace(
            report, notices=(*report.notices, notices.fix_interrupted(rules.fix, rules.resume, rules.ray is not None))
        )
    except Exception as error:
        return _in_spite_of(error, report, "a plan was searched")


def _in_spite_of(error: Exception, report: Report, during: str) -> Report:
    """The report with what was found before a fault of this program; the user's mistakes are raised."""
    if isinstance(error, LayerdiffError):
        raise error
    logging.getLogger("layerdiff").debug("while %s", during, exc_info=error)
    return replace(report, notices=(*report.notices, notices.stage_failed(during, error)))


def _ran(comparison: Comparison, progress: Progress) -> tuple[RunLog, Collector]:
    """How the samples ran on every side, and who has looked at the outputs.

    Raises:
        Interrupted: Ctrl-C came.
    """
    rules = comparison.rules
    collector = Collector(comparison)
    localizing = any(rule is not None for rule in (rules.layers, rules.fix, rules.apply_remedy))
    if rules.save_inputs is not None:
        save_inputs(comparison.samples, rules.save_inputs)
    try:
        with saving_outputs(comparison, collector.begin, rules.save_outputs) as saved:
            log = execute(comparison, saved.begin, progress, on_device=not localizing, remember=localizing)
    except Stopped as stopped:
        log = stopped.log
        report = assemble(comparison, log, collector.evidence(comparison, log, measured=False))
        raise Interrupted(report, "the samples were run") from stopped.__cause__
    if saved.error is not None:
        log = replace(log, notices=(*log.notices, notices.not_written(saved.error)))
    return log, collector


def _share(comparison: Comparison, progress: Progress) -> Report:
    """A share of the samples: nothing is decided that hangs on all of them."""
    rules = replace(comparison.rules, labels=None, metric=None, metric_output=None, metric_drop=None)
    collector = Collector(replace(comparison, rules=rules))
    recorder = ShardRecorder(collector.begin)
    log = execute(comparison, recorder.begin, progress)
    report = assemble(comparison, log, collector.evidence(comparison, log, measured=False))
    shard = recorder.shard(comparison, log)
    mine = sum(belongs(number, comparison.rules.shard) for number in range(shard.total))
    report = replace(report, data=replace(report.data, description=f"{mine} of {report.data.description}"))
    return replace(report, shard=shard, notices=(*report.notices, notices.shard(shard.index, shard.count)))


def _explained(
    comparison: Comparison,
    log: RunLog,
    outputs: Sequence[OutputEvidence],
    report: Report,
    progress: Progress,
    drawn: Drawn,
) -> Report:
    """The report with where the sides part, and what that calls for."""
    ran, report = localized(comparison, log, report, progress)
    if ran is None:
        return report
    off = misoptimized(ran, log, report, progress)
    report = replace(report, notices=(*report.notices, *(notices.misoptimized(o.side, o.text) for o in off)))
    if not report.culprits:
        return report
    try:
        return with_remedies(ran, log, outputs, report, progress, {o.candidate: o.remedy for o in off}, drawn)
    except Exception as error:
        return _in_spite_of(error, report, "remedies were tried")


def localized(
    comparison: Comparison, log: RunLog, report: Report, progress: Progress = SILENT, watch: Watch | None = None
) -> tuple[Comparison | None, Report]:
    """The report with layers and culprits, as far as there is a pair to walk.

    Args:
        comparison: What was compared.
        log: How the run went.
        report: What the outputs showed.
        progress: Told what is going on.
        watch: Told what is walked.

    Returns:
        What was walked, None where there was no pair, and the report.
    """
    ran = _walked(comparison, log)
    if ran is not None:
        return ran, localize(ran, log, report, progress, watch)
    told = notices.not_deterministic(report) if log.candidates else ()
    return None, replace(report, notices=(*report.notices, *told))


def _walked(comparison: Comparison, log: RunLog) -> Comparison | None:
    """The sides that ran to the end, and candidates that refused a sample; None where there is no pair of them."""
    alive = tuple(name for name in log.candidates if log.of(name).error is None or log.of(name).refused)
    if log.of(log.reference).error is not None or not alive:
        return None
    return replace(comparison, sides=comparison.sides.chosen(log.reference, alive))
