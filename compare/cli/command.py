"""The ``compare`` command: reads the command line, runs the comparator, shows the report."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError, OutputError, UsageError, said
from ...graph.interrupts import Terminated, uninterrupted
from ...graph.printable import printable, shortened
from ..progress import SILENT
from .commands import program, run_other
from .ending import (
    CRASHED,
    INTERRUPTED,
    TERMINATED,
    Shown,
    forgiving_streams,
    let_go_of_streams,
    no_standard_output,
    of_standard_output,
    own_temporary_folder,
    standard_output_kept,
    terminable,
)

if TYPE_CHECKING:
    from ..comparator import Comparator
    from ..comparison import Comparison
    from ..progress import Progress
    from ..report.model import Report
    from .arguments import Request


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0 agree, 1 disagree, 2 wrong usage, 3 a runner failed.

    Raises:
        Shown: The help or the version was asked for, and has been printed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    forgiving_streams()
    try:
        with terminable(), own_temporary_folder(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of infinities, which are told as what they are
            status = _status(words)
    except KeyboardInterrupt as error:  # between the two
        status = _refuse(program(words), "interrupted.", _interrupted(error), False)
    finally:
        lost = let_go_of_streams()
    if lost is None:
        return status
    return status or _refuse(program(words), no_standard_output(lost), OutputError.exit_status, False)


def _interrupted(error: KeyboardInterrupt) -> int:
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


def _status(words: Sequence[str]) -> int:
    """See `main`."""
    name, debug = program(words), "--debug" in words
    try:
        other = run_other(words)
        if other is not None:
            return other
        with uninterrupted():
            from .arguments import parse

        return _run(parse(words), words)
    except LayerdiffError as error:
        return _refuse(name, str(error), error.exit_status, debug)
    except KeyboardInterrupt as error:
        return _refuse(name, "interrupted.", _interrupted(error), debug)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CRASHED
    except Shown:
        raise
    except OSError as error:
        if not of_standard_output(error):
            return _crashed(name, error, debug)
        return _refuse(name, no_standard_output(error), OutputError.exit_status, debug)
    except SystemExit as error:  # of somebody's code: the status is not for it to choose
        return _refuse(name, f"something called sys.exit({error.code!r}) before there was a verdict.", CRASHED, debug)
    except BaseException as error:
        return _crashed(name, error, debug)


def _crashed(name: str, error: BaseException, debug: bool) -> int:
    first = said(error).split("\n", 1)[0]
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return _refuse(name, f"unexpected error, {text} (--debug shows where).", CRASHED, debug)


def _refuse(program: str, text: str, status: int, debug: bool) -> int:
    with contextlib.suppress(OSError):
        if debug and status not in (INTERRUPTED, TERMINATED):
            import traceback

            traceback.print_exc()
        lines = [shortened(printable(line)) for line in text.split("\n") if line.strip()]
        print("\n".join([f"{program}: {lines[0]}", *("  " + line.strip() for line in lines[1:2])]), file=sys.stderr)
    return status


def _run(request: Request, words: Sequence[str]) -> int:
    if request.debug:
        import logging

        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
        logging.getLogger("layerdiff").setLevel(logging.DEBUG)
    with uninterrupted():
        from ..notices import NOT_WRITTEN, STAGE_FAILED
        from ..stages import Interrupted
        from .delivery import deliver

    before = earlier(request)
    progress = None
    if not request.quiet:
        with uninterrupted():
            from ..report.terminal.progress import TerminalProgress

        progress = TerminalProgress()
    interrupted = None
    try:
        report = compare(request, progress)
    except KeyboardInterrupt as error:
        if not isinstance(error, Interrupted):
            raise
        report, interrupted = error.report, error.__cause__
    finally:
        if progress is not None:
            progress.clear()
    report = told_by(report, words)
    report = held_against(report, before, request)
    status = deliver(report, request.reports, quiet=request.quiet, verbose=request.verbose)
    codes = {notice.code for notice in report.notices}
    if "fix-interrupted" in codes:
        status = INTERRUPTED
    if isinstance(interrupted, KeyboardInterrupt):
        raise interrupted
    if STAGE_FAILED in codes:
        return CRASHED
    return UsageError.exit_status if NOT_WRITTEN in codes else status


def told_by(report: Report, words: Sequence[str]) -> Report:
    """The report with the command that repeats the run: sizes that a runner refused are written out."""
    from ..notices import SIZE_REFUSED

    sizes = [f"--shape={notice.subject}" for notice in report.notices if notice.code == SIZE_REFUSED]
    command = shlex.join(["compare", *words, *sizes])
    return replace(report, provenance=replace(report.provenance, command=command))


def earlier(request: Request) -> Report | None:
    """The earlier report that a command names by ``--baseline``; None if it names none.

    Raises:
        UsageError: It cannot be read, or is no report.
    """
    if request.baseline is None:
        return None
    from ..report.baseline import against
    from ..report.load import load_report, of_a_report

    report = load_report(request.baseline)
    with of_a_report(request.baseline):
        against(report, report)  # whatever is wrong with it is to be known before anything runs
    return report


def held_against(report: Report, before: Report | None, request: Request) -> Report:
    """The report with what changed since an earlier one, if there is one."""
    if before is None:
        return report
    from ..report.baseline import against

    return against(report, before, request.baseline or "")


def comparator(request: Request, progress: Progress | None = None) -> Comparator:
    """What the command line asks for, ready to run.

    Raises:
        UsageError: There are no such data.
    """
    with uninterrupted():
        import numpy.random  # noqa: F401 - which NumPy loads on first use

        from ...dataloaders import DataLoader, open_data
        from ...dataloaders.first import First
        from ...dataloaders.prompts import prompted
        from ..comparator import Comparator

    first, second = (*request.models, None, None)[:2]
    data = DataLoader(**request.random) if request.data is None else prompted(open_data(request.data), request.prompts)
    if request.first is not None:
        data = First(data, request.first)
    return Comparator(
        first,
        request.runners,
        candidate_model=second,
        data_loader=data,
        calibration_data=None
        if request.calibration_data is None
        else open_data(request.calibration_data, "--calibration-data"),
        rules=request.rules,
        progress=progress or SILENT,
    )


@standard_output_kept()
def prepared(request: Request, progress: Progress | None = None) -> tuple[Comparator, Comparison]:
    """What the command line asks for, with its models loaded and its samples bound, and before anything is run.

    Raises:
        UsageError: The request does not fit the models or the data, or what it asks for cannot be written.
    """
    with uninterrupted():
        from ..report.files import check_folder
        from .report_options import check_places

    check_places(request.reports)
    if request.save_worst is not None:
        check_folder(request.save_worst, "--save-worst")
    asked = comparator(request, progress)
    return asked, asked.prepare()


@standard_output_kept()
def compare(request: Request, progress: Progress | None = None) -> Report:
    """What the command line asks for, as a report.

    Raises:
        UsageError: The request does not fit the models or the data.
    """
    with uninterrupted():
        from ..distributed import compare as run
        from ..notices import not_written
        from ..report.files import discard

    asked, comparison = prepared(request, progress)
    discard(path for _, path in request.reports)
    report = run(comparison, progress or SILENT, asked.ran_on)
    if request.save_worst is not None and asked.samples is not None:
        from ..runs.worst_sample import save_worst

        try:
            report = save_worst(report, asked.samples, request.save_worst)
        except OutputError as error:
            report = replace(report, notices=(*report.notices, not_written(error)))
    return report
