"""``layerdiff report report.json --html report.html``: any format from a saved report."""

from __future__ import annotations

from collections.abc import Sequence

from .arguments import Parser
from .delivery import deliver
from .report_options import add_formats, add_screen, check_layers, check_reports, check_screen

DESCRIPTION = "Makes any format of a report that --json saved, without running anything, and shows it."
EPILOG = """\
examples:
  layerdiff report report.json                              show it as it was
  layerdiff report report.json --html report.html           in a browser
  layerdiff report report.json --baseline yesterday.json    what became worse, better, stayed bad

exit status: that of the comparison: 0 agree, 1 disagree or undecided, 3 a runner failed; 2 wrong usage
"""


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: The words cannot be understood, or a report cannot be read or written.
    """
    space = parser().parse_args(list(words))
    from ..report.baseline import against
    from ..report.load import load_report, of_a_report

    reports = tuple(getattr(space, "reports", ()))
    check_screen(space.quiet, space.verbose)
    check_reports(reports, [space.report, space.baseline])
    report = load_report(space.report)
    check_layers(reports, bool(report.layers), f"{space.report} was made without --layers")
    with of_a_report(space.report):
        if space.baseline is not None:
            report = against(report, load_report(space.baseline), space.baseline)
        return deliver(report, reports, quiet=space.quiet, verbose=space.verbose)


def parser() -> Parser:
    """The command's options."""
    made = Parser("layerdiff report", DESCRIPTION, EPILOG)
    made.add_argument("report", metavar="REPORT", help="a report that compare --json wrote")
    group = made.add_argument_group("report")
    add_formats(group)
    add_screen(group)
    return made
