"""``layerdiff report`` of what a suite left: its formats and its table, or one of its checks."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...graph.errors import UsageError
from ..cli.delivery import verdict_shown, write_all
from ..report.load import of_a_report
from ..report.terminal.progress import console
from .outcomes import Outcome, load_suite
from .outcomes import is_suite as is_suite
from .summary import FORMATS, print_suite, show_reports

if TYPE_CHECKING:
    from ..report.model import Report


def report_suite(
    content: Mapping[str, Any], name: str, reports: Sequence[tuple[str, str]], *, quiet: bool, verbose: bool
) -> int:
    """Writes what was asked for, shows the suite, and returns its exit status.

    Args:
        content: What the file holds.
        name: What to call the file in messages.
        reports: The flag of a format, and a path; ``-`` is standard output.
        quiet: Print the verdict alone.
        verbose: Print every report, too.

    Raises:
        UsageError: The file is damaged, a format is none of suites, or cannot be written.
    """
    for flag, _ in reports:
        if flag not in FORMATS:
            there = ", ".join(FORMATS)
            raise UsageError(f"{flag}: {name} is the report of a suite, which has {there}; --check NAME is one of it.")
    found = load_suite(content, name)
    with of_a_report(name):
        unwritten = write_all((flag, path, partial(FORMATS[flag], found)) for flag, path in reports)
        to = console(sys.stderr if any(path == "-" for _, path in reports) else sys.stdout)
        with verdict_shown("layerdiff report"):
            if verbose:
                show_reports(found.outcomes, to)
            print_suite(found, to, quiet=quiet)
    if unwritten is not None:
        raise unwritten
    return found.status


def check_of(content: Mapping[str, Any], name: str, check: str) -> Report:
    """The report of one check.

    Args:
        content: What the file holds.
        name: What to call the file in messages.
        check: What the check is called.

    Raises:
        UsageError: The file is damaged, has no such check, or the check has no report.
    """
    outcomes: dict[str, Outcome] = {outcome.name: outcome for outcome in load_suite(content, name).outcomes}
    if check not in outcomes:
        near = difflib.get_close_matches(check, outcomes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(map(repr, outcomes))}."
        raise UsageError(f"--check {check}: {name} has no such check; {hint}")
    report = outcomes[check].report
    if report is None:
        raise UsageError(f"--check {check}: it has no report: {outcomes[check].error}")
    return report
