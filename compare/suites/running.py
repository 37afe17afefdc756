"""Runs a file of checks, one after the other, and says what came of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError
from ..cli.command import compare, told_by
from ..notices import NOT_WRITTEN
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
    """
    for check in checks.checks:
        outcome = _run(check, progress(check))
        yield check, outcome
        if checks.stop and not outcome.as_expected:
            return


def _run(check: Check, progress: Progress | None) -> Outcome:
    began = time.monotonic()
    try:
        report = told_by(compare(check.request, progress), check.words)
        unwritten = next((notice.text for notice in report.notices if notice.code == NOT_WRITTEN), None)
        return Outcome(check.name, check.expect, report, unwritten, time.monotonic() - began)
    except LayerdiffError as error:
        return Outcome(check.name, check.expect, None, str(error), time.monotonic() - began)
    finally:
        if progress is not None:
            progress.clear()
