"""Reports on shares of the samples, put together: the report of one run on all of them, byte for byte but for times.

The shares hold the outputs. They are judged here, in the order of the samples, as one run judges them; what rounding
explains is measured here, too. Nothing of the deployed runtimes is run again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from ..graph.errors import UsageError
from ..runners.contract.session import SessionInfo
from .assemble import assemble
from .collect import Collector
from .notices import BRANCH_NOT_RUN, INPUT_CONSTANT, INPUT_NOT_FINITE
from .progress import SILENT, Progress
from .report.model import Notice
from .runs.inputs import Inputs
from .runs.run import RunLog, RunnerLog
from .runs.shards import calibration, networks, unpacked
from .runs.workers.isolation import isolated
from .share import belongs, in_order

if TYPE_CHECKING:
    from .comparison import Comparison
    from .report.model import Report, RunnerResult
    from .report.shard import Shard, ShardRunner

Shares = Mapping[str, "Report"]
"""Reports by the names of their files, in the order of their shares."""


def ordered(reports: Mapping[str, Report], asked: Mapping[str, object]) -> dict[str, Report]:
    """The reports in the order of their shares.

    Args:
        reports: By the names of their files.
        asked: What each was asked for, but for the share; by the same names.

    Raises:
        UsageError: One is no share, belongs to another run, is there twice, or is missing.
    """
    shares: dict[str, int] = {}
    first = next(iter(reports))
    for name, report in reports.items():
        shard = report.shard
        if shard is None:
            raise UsageError(f"{name}: not a share of a comparison: it was made without --shard.")
        unlike = _unlike(reports[first], report, asked[first] == asked[name])
        if unlike:
            raise UsageError(f"{name}: not a share of the comparison that {first} is of: {unlike}.")
        shares[name] = shard.index
    return {name: reports[name] for name in in_order(shares, _shard(reports[first]).count)}


def _unlike(first: Report, other: Report, asked_alike: bool) -> str:
    """In what two reports belong to two runs; empty where they are shares of one."""
    mine, theirs = _shard(first), _shard(other)
    if (mine.count, mine.total) != (theirs.count, theirs.total):
        return f"{theirs.count} shares of {theirs.total} samples, not {mine.count} of {mine.total}"
    if not asked_alike:
        return f"it was made by {other.provenance.command}, and the first by {first.provenance.command}"
    for what, a, b in (
        ("version of layerdiff", first.provenance.version, other.provenance.version),
        ("model", first.model.sha256, other.model.sha256),
        ("second model", first.candidate_model and first.candidate_model.sha256,
         other.candidate_model and other.candidate_model.sha256),
        ("data", first.data.sha256, other.data.sha256),
        ("reference", first.reference, other.reference),
        ("network", mine.networks, theirs.networks),
        ("set of calibration data", mine.calibration, theirs.calibration),
        ("list of candidates", mine.candidates, theirs.candidates),
        ("list of runners", [r.name for r in mine.runners], [r.name for r in theirs.runners]),
        ("number format", [r.format for r in first.runners], [r.format for r in other.runners]),
        ("list of versions", [dict(r.versions) for r in first.runners], [dict(r.versions) for r in other.runners]),
    ):  # fmt: skip
        if a != b:
            return f"it has {'other data' if what == 'data' else f'another {what}'}"
    return ""


def merged(comparison: Comparison, shares: Shares, progress: Progress = SILENT) -> Report:
    """The report on all samples.

    Args:
        comparison: What was compared, prepared anew.
        shares: See `ordered`.
        progress: Told what is going on.

    Raises:
        UsageError: The models or the samples are not those that were run.
    """
    first = next(iter(shares.values()))
    sides, then = comparison.sides.all, _shard(first).networks
    if networks(comparison) != then:
        changed = [s.model.source for s, known in zip_longest(sides, then[: len(sides)]) if s.model.digest != known]
        raise UsageError(f"{changed[0]} is not the model that the shares were made on: it has changed since.")
    if calibration(comparison) != _shard(first).calibration:
        raise UsageError("the calibration data are not those that the shares were made on.")
    with isolated(comparison) as comparison:
        log = _log(shares)
        collector = Collector(comparison)
        if log.candidates:
            chosen = comparison.sides.chosen(log.reference, log.candidates)
            take = collector.begin(chosen)
            parts = list(shares.items())
            for number in range(max(log.finished.values())):
                name, report = parts[number % len(parts)]
                try:
                    for side in chosen.all:
                        if number < log.of(side.name).samples:
                            given = _runner(_shard(report), side.name).outputs[number // len(parts)]
                            take(side, number, unpacked(given, name))
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise UsageError(f"{name}: a damaged report: {type(error).__name__} {error}.") from error
        inputs = _inputs(comparison, log)
        log = replace(log, notices=(*log.notices, *inputs.notices()))
        log = replace(log, masks=inputs.masks, blank=inputs.blank, nan_given=inputs.nan)
        report = assemble(comparison, log, collector.evidence(comparison, log, progress))
    if report.data.sha256 != first.data.sha256:
        raise UsageError("the samples are not those that the shares were made on.")
    return report


def _inputs(comparison: Comparison, log: RunLog) -> Inputs:
    """What one run sees of the inputs, up to the sample on which the reference failed."""
    seen, failed = Inputs(comparison), log.of(log.reference).error is not None
    for number, sample in enumerate(islice(comparison.samples, log.samples + failed)):
        seen.take(number, sample)
    return seen


def _log(shares: Shares) -> RunLog:
    """How one run on all samples had gone: up to the sample on which a runner failed, and no further."""
    reports = list(shares.values())
    first, reference = _shard(reports[0]), reports[0].reference
    failures = {runner.name: _failure(runner.name, reports) for runner in first.runners}
    at = {name: number for name, (number, _) in failures.items()}
    stop = min(at[reference], max((at[name] for name in first.candidates), default=math.inf))
    logs = []
    for name, (number, error) in failures.items():
        results = [next(r for r in report.runners if r.name == name) for report in reports]
        last = results[(first.total - 1) % len(results)]
        ran = any(_runner(_shard(report), name).samples for report in reports)
        samples = max(0, int(min(number, at[reference], stop + 1, first.total))) if ran else 0
        kept = error if number <= stop or math.isinf(number) else None
        idle = all(_runner(_shard(report), name).idle for report in reports)
        logs.append(_runner_log(_runner(first, name), last, results, samples, kept, idle))
    of_inputs = INPUT_CONSTANT, INPUT_NOT_FINITE, BRANCH_NOT_RUN
    notices = tuple(Notice(**notice) for notice in first.notices if notice["code"] not in of_inputs)
    return RunLog(reference, first.candidates, tuple(logs), notices=notices)


def _runner_log(
    known: ShardRunner, last: RunnerResult, results: Sequence[RunnerResult], samples: int, error: str | None, idle: bool
) -> RunnerLog:
    options = {key: value for key, value in last.options.items() if key != "statistics_on"}
    info = SessionInfo(
        options=options,
        versions=last.versions,
        notes=last.notes,
        fp16_accumulation=frozenset(known.fp16_accumulation),
        idle=known.idle if idle else "",
        not_run=known.not_run,
    )
    opening = [r.open_seconds for r in results if r.open_seconds is not None]
    running = [r.infer_seconds for r in results if r.infer_seconds is not None]
    return RunnerLog(
        name=known.name,
        info=info,
        in_pieces=known.in_pieces,
        open_seconds=sum(opening) if opening else None,
        infer_seconds=sum(running) if running else None,
        samples=samples,
        error=error,
    )


def _failure(name: str, reports: Sequence[Report]) -> tuple[float, str | None]:
    """The first sample on which a runner failed, and why: -1 where it could not be opened, infinity where it failed on
    no sample."""
    found: list[tuple[float, str | None]] = []
    for report in reports:
        shard = _shard(report)
        result = next(r for r in report.runners if r.name == name)
        if result.error is not None:
            mine = [n for n in range(shard.total) if belongs(n, (shard.index, shard.count))]
            done = _runner(shard, name).samples
            number = -1 if result.open_seconds is None else mine[done] if done < len(mine) else math.inf
            found.append((number, result.error))
    return min(found, key=lambda failure: failure[0], default=(math.inf, None))


def _runner(shard: Shard, name: str) -> ShardRunner:
    return next(runner for runner in shard.runners if runner.name == name)


def _shard(report: Report) -> Shard:
    assert report.shard is not None
    return report.shard
