"""Runs a file of checks, one after the other, and says what came of each."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError
from ..cli.command import compare
from ..notices import NOT_WRITTEN
from .checks import Check, Checks, unexpected

if TYPE_CHECKING:
    from ..progress import Progress
    from ..report.model import Report


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        check: The check.
        report: What was found; None if there is none.
        error: Why there is none, in one or two lines.
        seconds: How long it took.
    """

    check: Check
    report: Report | None
    error: str | None
    seconds: float

    @property
    def verdict(self) -> str:
        """The report's, or ``error``."""
        return "error" if self.report is None else self.report.verdict

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the expected one. An error never is."""
        return not unexpected(self.verdict, self.check.expect)


def run_checks(checks: Checks, progress: Callable[[Check], Progress | None] = lambda check: None) -> Iterator[Outcome]:
    """Runs the checks, and gives each outcome as soon as it is there.

    Args:
        checks: Which. After an outcome that is not expected, no other runs if they say so.
        progress: Told which check begins; whom to tell what is going on in it.
    """
    for check in checks.checks:
        outcome = _run(check, progress(check))
        yield outcome
        if checks.stop and not outcome.as_expected:
            return


def _run(check: Check, progress: Progress | None) -> Outcome:
    began = time.monotonic()
    try:
        report = compare(check.request, progress)
        report = replace(report, provenance=replace(report.provenance, command=shlex.join(["compare", *check.words])))
        unwritten = next((notice.text for notice in report.notices if notice.code == NOT_WRITTEN), None)
        return Outcome(check, report, unwritten, time.monotonic() - began)
    except LayerdiffError as error:
        return Outcome(check, None, str(error), time.monotonic() - began)
    finally:
        if progress is not None:
            progress.clear()
