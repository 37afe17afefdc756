"""Runs a file of checks, one after the other, and says what came of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError, UsageError
from ..cli.command import compare, earlier, held_against, prepared, told_by
from ..cluster import Task, cluster, gpus_of
from ..distributed import settled
from ..notices import NOT_WRITTEN, worker_died
from .checks import Check, Checks
from .outcomes import Outcome

if TYPE_CHECKING:
    from ..progress import Progress


def run_checks(
    checks: Checks, progress: Callable[[Check], Progress | None] = lambda check: None
) -> Iterator[tuple[Check, Outcome]]:
    """Runs the checks, and gives each with its outcome as soon as it is there.

    Args:
        checks: Which. After an outcome that is not expected, no other runs if they say so.
        progress: Told which check begins; whom to tell what is going on in it.

    Before the first one is run, every check is read: its models, its data, and the names in it. One that cannot be run
    is an error, and where the first that is not as expected ends the suite, it is the first.
    """
    unready = dict(_unready(checks.checks))
    for check in sorted(checks.checks, key=lambda check: check.name not in unready) if checks.stop else checks.checks:
        outcome = unready.get(check.name) or _run(check, progress(check))
        yield check, outcome
        if checks.stop and not outcome.as_expected:
            return


def run_checks_on(address: str, checks: Checks) -> Iterator[tuple[Check, Outcome]]:
    """The same on a cluster of Ray, as many at once as there is room for; outcomes come in the order of the checks.

    Args:
        address: See `cluster.cluster`.
        checks: Which.

    Raises:
        MissingPackage: Ray is not installed.
        UsageError: There is no such cluster, or a check needs a GPU that it does not have; the first check that is not
            as expected is to end the suite, of which others know nothing.
        RunnerError: Workers died again and again.
    """
    if checks.stop:
        raise UsageError("--ray: a suite that stops at the first check that is not as expected runs in one process.")
    with cluster(address) as connected:
        tasks = [Task(_run_there, (check,), gpus_of(check.request.runners)) for check in checks.checks]
        for check, done in zip(checks.checks, connected.run(tasks), strict=True):
            outcome: Outcome = done.result
            report = outcome.report
            if done.deaths and report is not None:
                report = replace(report, notices=(*report.notices, worker_died(check.name, done.deaths)))
            yield check, replace(outcome, report=report)


def _run_there(check: Check) -> Outcome:
    """What came of a check. Runs in a worker, and what it returns goes to another process."""
    rules = replace(check.request.rules, ray=None)
    outcome = _run(replace(check, request=replace(check.request, rules=rules)), None)
    return outcome if outcome.report is None else replace(outcome, report=settled(outcome.report))


def _unready(checks: Sequence[Check]) -> Iterator[tuple[str, Outcome]]:
    """The checks that cannot be run, by name. Of those that read what another one writes, nothing is known yet."""
    for check in checks:
        made = (path for other in checks if other is not check for path in _written(other))
        if any(path in check.request.reads for path in made):
            continue
        began = time.monotonic()
        try:
            earlier(check.request)
            prepared(check.request)
        except LayerdiffError as error:
            yield check.name, Outcome(check.name, check.expect, None, str(error), time.monotonic() - began)


def _written(check: Check) -> list[str]:
    return [path for _, path in (*check.request.written, *check.request.reports)]


def _run(check: Check, progress: Progress | None) -> Outcome:
    began = time.monotonic()
    try:
        before = earlier(check.request)
        report = held_against(told_by(compare(check.request, progress), check.words), before, check.request)
        unwritten = next((notice.text for notice in report.notices if notice.code == NOT_WRITTEN), None)
        return Outcome(check.name, check.expect, report, unwritten, time.monotonic() - began)
    except LayerdiffError as error:
        return Outcome(check.name, check.expect, None, str(error), time.monotonic() - began)
    finally:
        if progress is not None:
            progress.clear()
