"""``compare --suite checks.toml``: many comparisons, one table, one exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TextIO

from ...graph.errors import UsageError
from ..cli.arguments import Parser
from ..cli.delivery import rendered, verdict_shown, write_all
from ..cli.ending import Shown
from ..cli.reading import Reads
from ..cli.report_options import Reports, add_report, add_screen, check_places, check_reports, check_screen
from ..cluster import HERE
from ..share import Share, belongs
from .checks import Check, Checks, names_of, read_checks
from .outcomes import Outcome, SuiteResult
from .running import run_checks, run_checks_on
from .shares import shard_of
from .summary import FORMATS, print_suite, show_reports

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
    if not {"-h", "--help"}.isdisjoint(words):  # also behind a --suite without a file
        parser().print_help()
        raise Shown(0)
    space, others = parser().parse_known_args(list(words))
    if others:
        there = "models, runners, data and all else that is compared stand in the file, each check has its own"
        raise UsageError(f"--suite does not take {' '.join(others)}: {there}. See compare --suite --help.")
    check_screen(space.quiet, space.verbose)
    reports = tuple(getattr(space, "reports", ()))
    check_reports(reports, Reads.of((), [space.suite]))
    checks = read_checks(space.suite)
    _check_between(checks, reports, Reads.of((), [space.suite]))
    check_places(reports)
    whole = checks.checks
    if space.shard is not None:
        checks = share_of(checks, space.shard)
    from ..report.terminal.progress import TerminalProgress, console

    def progress(check: Check) -> Progress | None:
        if space.quiet:
            return None
        shown = TerminalProgress()
        shown.stage(check.name)
        return shown

    out = sys.stderr if any(path == "-" for _, path in reports) else sys.stdout
    running = run_checks(checks, progress) if space.ray is None else run_checks_on(space.ray, checks)
    outcomes, unwritten, interrupted = _outcomes(running, out if space.verbose else None)
    came = {outcome.name for outcome in outcomes}
    found = SuiteResult(
        tuple(outcomes),
        tuple(name for name in names_of(checks.checks) if name not in came),
        None if space.shard is None else shard_of(space.shard, whole, outcomes),
    )
    unwritten = write_all((flag, path, partial(FORMATS[flag], found)) for flag, path in reports) or unwritten
    with verdict_shown("compare") as showing:
        print_suite(found, console(out), quiet=space.quiet)
    if showing.lost:
        print_suite(found, console(sys.stderr), quiet=True)
    if interrupted is not None:
        raise interrupted
    if unwritten is not None:
        raise unwritten
    return found.status or (UsageError.exit_status if showing.lost else 0)


def _outcomes(
    running: Iterable[tuple[Check, Outcome]], out: TextIO | None
) -> tuple[list[Outcome], UsageError | None, KeyboardInterrupt | None]:
    """What comes of the checks, whose own reports are written; why one of these could not be; and what has interrupted
    them, behind the first.

    Args:
        running: Gives them.
        out: Where each is shown with all statistics; None: nowhere.
    """
    from ..report.terminal.progress import console

    outcomes: list[Outcome] = []
    unwritten = None
    try:
        for check, outcome in running:
            outcomes.append(outcome)
            if outcome.report is not None:
                unwritten = write_all(rendered(outcome.report, check.request.reports)) or unwritten
            if out is not None:
                with verdict_shown("compare"):
                    show_reports([outcome], console(out))
    except KeyboardInterrupt as error:
        cause = error.__cause__
        interrupted = cause if isinstance(cause, KeyboardInterrupt) else error
        if not outcomes:
            raise interrupted from None
        return outcomes, unwritten, interrupted
    return outcomes, unwritten, None


def _check_between(checks: Checks, reports: Reports, suite: Reads) -> None:
    """Makes sure that neither the suite nor one check of it writes over what another one reads.

    Raises:
        UsageError: One does.
    """
    read = suite
    for check in checks.checks:
        read += check.request.reads
    check_reports(reports, read)
    for check in checks.checks:
        try:
            check_reports(check.request.reports, suite)
            for other in checks.checks:  # a plan that one check finds may be what a later one applies
                check_reports(check.request.reports, other.request.reads)
        except UsageError as error:
            raise UsageError(f"check {check.name}: {error}") from None


def share_of(checks: Checks, share: tuple[int, int]) -> Checks:
    """A share of the checks.

    Raises:
        UsageError: The first check that is not as expected ends the suite, which shares do not know of each other.
    """
    if checks.stop:
        raise UsageError("--shard: a suite that stops at the first check that is not as expected cannot be shared out.")
    mine = tuple(check for number, check in enumerate(checks.checks) if belongs(number, share))
    return replace(checks, checks=mine)


def _share(text: str) -> tuple[int, int]:
    try:
        return Share().read(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected {Share.expected}") from None


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser("compare --suite", DESCRIPTION, EPILOG)
    made.add_argument("--suite", metavar="FILE", required=True, help="the checks, as TOML")
    made.add_argument(
        "--shard",
        metavar="I/N",
        type=_share,
        help="run the I-th of N shares of the checks; see layerdiff merge",
    )
    made.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const=HERE,
        help="run the checks on a cluster of Ray; without an address, one of this machine's processes",
    )
    group = made.add_argument_group("report")
    for flag in FORMATS:
        add_report(group, flag, f"write all checks as {flag[2:]}")
    add_screen(group)
    return made
