"""``compare --suite checks.toml``: many comparisons, one table, one exit status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..cli.arguments import Parser
from ..cli.delivery import rendered, write_all
from ..cli.report_options import add_report, add_screen, check_reports, check_screen
from .checks import Check, names_of, read_checks
from .running import Outcome, run_checks
from .summary import FORMATS, show, status

if TYPE_CHECKING:
    from ..progress import Progress

DESCRIPTION = "Runs every comparison of a file of checks, and holds each verdict against the one that is expected."
EPILOG = """\
a file of checks:
  [defaults]
  runners = ["onnxrt", "emulate=fp16"]
  [[check]]
  name = "digits in FP16"
  model = "digits.onnx"
  data = "heldout.npz"
  expect = "pass"          or "fail", "undecided": known failures

exit status: 0 all as expected, 1 something else, 2 wrong usage, 3 a runner or an input failed
"""


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: The words or the file cannot be understood, or a report cannot be written.
    """
    space = parser().parse_args(list(words))
    check_screen(space.quiet, space.verbose)
    reports = tuple(getattr(space, "reports", ()))
    check_reports(reports, [space.suite])
    checks = read_checks(space.suite)
    from ..report.terminal.progress import TerminalProgress, console

    def progress(check: Check) -> Progress | None:
        if space.quiet:
            return None
        shown = TerminalProgress()
        shown.stage(check.name)
        return shown

    outcomes: list[Outcome] = []
    unwritten = None
    for outcome in run_checks(checks, progress):
        outcomes.append(outcome)
        if outcome.report is not None:
            unwritten = write_all(rendered(outcome.report, outcome.check.request.reports)) or unwritten
        if space.verbose and outcome.report is not None:
            from ..report.terminal.show import show as show_report

            show_report(outcome.report, console(), verbose=True)
    names = names_of(checks.checks)
    unwritten = unwritten or write_all((flag, path, partial(FORMATS[flag], outcomes, names)) for flag, path in reports)
    if space.quiet:
        print("pass" if status(outcomes, len(names)) == 0 else "fail")
    elif not any(path == "-" for _, path in reports):
        show(outcomes, len(names), console())
    if unwritten is not None:
        raise unwritten
    return status(outcomes, len(names))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser("compare --suite", DESCRIPTION, EPILOG)
    made.add_argument("--suite", metavar="FILE", required=True, help="the checks, as TOML")
    group = made.add_argument_group("report")
    for flag in FORMATS:
        add_report(group, flag, f"write all checks as {flag[2:]}")
    add_screen(group)
    return made
