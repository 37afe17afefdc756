"""The ``compare`` command: reads the command line, runs the comparator, shows the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError, UsageError
from ...graph.interrupts import uninterrupted

if TYPE_CHECKING:
    from ..progress import Progress
    from ..report.model import Report
    from .arguments import Request

INTERRUPTED = 130
CRASHED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0 agree, 1 disagree, 2 wrong usage, 3 a runner failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        if words[:1] == ["plan"]:
            from .plan import run

            return run(words[1:])
        from .arguments import parse

        return _run(parse(words))
    except LayerdiffError as error:
        return _refuse(str(error), error.exit_status, debug)
    except KeyboardInterrupt:
        return _refuse("interrupted.", INTERRUPTED, debug)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CRASHED
    except Exception as error:
        first = str(error).strip().split("\n", 1)[0]
        text = f"{type(error).__name__}: {first}" if first else type(error).__name__
        return _refuse(f"unexpected error, {text} (--debug shows where).", CRASHED, debug)


def _refuse(text: str, status: int, debug: bool) -> int:
    if debug and status != INTERRUPTED:
        import traceback

        traceback.print_exc()
    lines = [line for line in text.splitlines() if line.strip()]
    print("\n".join(["compare: " + lines[0], *("  " + line.strip() for line in lines[1:2])]), file=sys.stderr)
    return status


def _run(request: Request) -> int:
    if request.debug:
        import logging

        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
        logging.getLogger("layerdiff").setLevel(logging.DEBUG)
    progress = None
    if not request.quiet:
        from ..report.terminal.progress import TerminalProgress, console
        from ..report.terminal.show import show

        progress = TerminalProgress()
    try:
        report = compare(request, progress)
    finally:
        if progress is not None:
            progress.clear()
    unwritten = _write(report, request.reports)
    # With a report on standard output, what people read goes beside it.
    out = sys.stderr if any(path == "-" for _, path in request.reports) else sys.stdout
    if request.quiet:
        print(report.verdict, file=out)
        for runner in report.runners:
            if runner.error:
                print(f"compare: {runner.failure}", file=sys.stderr)
    else:
        show(report, console(out), verbose=request.verbose)
    if unwritten is not None:
        raise unwritten
    return report.exit_status


def _write(report: Report, wanted: Sequence[tuple[str, str]]) -> UsageError | None:
    """Writes the reports that were asked for. What cannot be written costs no other report, nor what is shown."""
    failed = None
    for flag, path in wanted:
        from ..report.files import write
        from ..report.formats import formats

        try:
            write(formats()[flag].render(report), path, flag)
        except UsageError as error:
            failed = failed or error
    return failed


def compare(request: Request, progress: Progress | None = None) -> Report:
    """What the command line asks for, as a report.

    Raises:
        UsageError: The request does not fit the models or the data.
    """
    with uninterrupted():
        from ...dataloaders import DataLoader, open_data
        from ..comparator import Comparator
        from ..progress import SILENT
        from ..runs.worst_sample import save_worst

    first, *second = request.models
    comparator = Comparator(
        first,
        request.runners,
        candidate_model=second[0] if second else None,
        data_loader=DataLoader(**request.random) if request.data is None else open_data(request.data),
        calibration_data=None if request.calibration_data is None else open_data(request.calibration_data),
        rules=request.rules,
        progress=progress or SILENT,
    )
    report = comparator.compare()
    if request.save_worst is not None and comparator.samples is not None:
        report = save_worst(report, comparator.samples, request.save_worst)
    return report
