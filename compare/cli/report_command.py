"""``layerdiff report report.json --html report.html``: any format from a saved report."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...graph.errors import UsageError
from .arguments import Parser
from .delivery import deliver
from .reading import Reads
from .report_options import add_formats, add_screen, check_layers, check_reports, check_screen

if TYPE_CHECKING:
    from ..report.model import Report

DESCRIPTION = "Makes any format of a report that --json saved, without running anything, and shows it."
EPILOG = """\
examples:
  layerdiff report report.json                              show it as it was
  layerdiff report report.json --html report.html           in a browser
  layerdiff report report.json --baseline yesterday.json    what became worse, better, stayed bad
  layerdiff report suite.json --junit suite.xml             of compare --suite
  layerdiff report suite.json --check "digits in FP16"      one check of it

exit status: that of the comparison: 0 agree, 1 disagree or undecided, 3 a runner failed; 2 wrong usage
"""


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: The words cannot be understood, or a report cannot be read or written.
    """
    space = parser().parse_args(list(words))
    from ..report.baseline import against
    from ..report.load import load_report, of_a_report, read_json

    reports = tuple(getattr(space, "reports", ()))
    check_screen(space.quiet, space.verbose)
    check_reports(reports, Reads.of((), [space.report, space.baseline]))
    content = read_json(space.report)
    suites = importlib.import_module("..suites.report", __package__)
    if suites.is_suite(content) and space.check is None:
        if space.baseline is not None:
            raise UsageError(f"--baseline: {space.report} is the report of a suite; --check NAME is one of it.")
        status: int = suites.report_suite(content, space.report, reports, quiet=space.quiet, verbose=space.verbose)
        return status
    report = _one(content, space.report, space.check, suites)
    check_layers(reports, bool(report.layers), f"{space.report} was made without --layers")
    with of_a_report(space.report):
        if space.baseline is not None:
            report = against(report, load_report(space.baseline), space.baseline)
        return deliver(report, reports, quiet=space.quiet, verbose=space.verbose, program="layerdiff report")


def _one(content: Any, name: str, check: str | None, suites: Any) -> Report:
    """The report of one comparison that a file holds."""
    from ..report.load import from_json

    if check is None:
        return from_json(content, name)
    if not suites.is_suite(content):
        raise UsageError(f"--check {check}: {name} is the report of one comparison, not of a suite.")
    report: Report = suites.check_of(content, name, check)
    return report


def parser() -> Parser:
    """The command's options."""
    made = Parser("layerdiff report", DESCRIPTION, EPILOG)
    made.add_argument("report", metavar="REPORT", help="a report that compare --json wrote, of a suite too")
    made.add_argument("--check", metavar="NAME", help="one check of a suite's report")
    group = made.add_argument_group("report")
    add_formats(group)
    add_screen(group)
    return made
