"""A report on its way to those who asked for it: files, the terminal, and the exit status.

The verdict is worth more than what carries it: a file that cannot be written and a terminal that went away cost no
other report, and a terminal that went away does not change the exit status.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.errors import OutputError, UsageError
from ...graph.printable import printable
from ..notices import NOT_WRITTEN
from .ending import let_go, no_standard_output, standard_output_kept

if TYPE_CHECKING:
    from ..report.formats import Content
    from ..report.model import Report


def deliver(
    report: Report,
    wanted: Sequence[tuple[str, str]],
    *,
    quiet: bool,
    verbose: bool,
    program: str = "compare",
    option: str | None = None,
) -> int:
    """Writes the reports that were asked for, shows what people read, and returns the exit status.

    Args:
        report: What was found.
        wanted: The flag of a format, and a path; ``-`` is standard output.
        quiet: Show the verdict alone.
        verbose: Show everything.
        program: What messages begin with.
        option: What the command calls the option that named the file, where that is not the flag of the format.

    Raises:
        UsageError: A report cannot be written; after everything else was done.
    """
    unwritten = write_all((option or flag, path, make) for flag, path, make in rendered(report, wanted))
    # With a report on standard output, what people read goes beside it.
    out = sys.stderr if any(path == "-" for _, path in wanted) else sys.stdout
    with verdict_shown(program) as showing:
        if quiet:
            print(report.verdict, file=out)
            for runner in report.runners:
                if runner.error:
                    print(f"{program}: {runner.failure}", file=sys.stderr)
            for notice in report.notices:
                if notice.code == NOT_WRITTEN:
                    print(f"{program}: {printable(notice.text)}", file=sys.stderr)
        else:
            from ..report.terminal.progress import console
            from ..report.terminal.show import show

            show(report, console(out), verbose=verbose)
    if showing.lost:  # the verdict is always shown
        from ..report.sentence import sentence

        with contextlib.suppress(OSError):
            print(printable(sentence(report)), file=sys.stderr)
    if unwritten is not None:
        raise unwritten
    return report.exit_status or (UsageError.exit_status if showing.lost else 0)


@dataclass
class Showing:
    """How showing something went.

    Attributes:
        error: Why it did not get there; None where it did, or whoever reads from a pipe has seen enough.
    """

    error: OSError | None = None

    @property
    def lost(self) -> bool:
        """Whether it did not get there, and nobody chose that."""
        return self.error is not None


@contextlib.contextmanager
def _shown() -> Iterator[Showing]:
    showing = Showing()
    try:
        yield showing
        sys.stdout.flush()
    except OSError as error:
        let_go(sys.stdout)
        showing.error = None if isinstance(error, BrokenPipeError) else error


@contextlib.contextmanager
def verdict_shown(program: str) -> Iterator[Showing]:
    """Shows what comes of a run: standard output that goes away inside ends nothing.

    Args:
        program: What the message that it did begins with.
    """
    with _shown() as showing:
        yield showing
    if showing.error is not None:
        with contextlib.suppress(OSError):
            print(f"{program}: {no_standard_output(showing.error)}", file=sys.stderr)


@contextlib.contextmanager
def answer_shown() -> Iterator[None]:
    """Shows what a command is there to show: whoever reads it from a pipe may have seen enough.

    Raises:
        OutputError: It does not get there.
    """
    with _shown() as showing:
        yield
    if showing.error is not None:
        raise OutputError(no_standard_output(showing.error)) from showing.error


def rendered(report: Report, wanted: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, Callable[[], Content]]]:
    """The reports that were asked for: flag, path, and what renders what is to be written there."""
    from ..report.formats import formats

    for flag, path in wanted:
        yield flag, path, functools.partial(formats()[flag].render, report)


def write_all(made: Iterable[tuple[str, str, Callable[[], Content]]]) -> UsageError | None:
    """Writes reports. What cannot be written costs no other report, nor what is shown; it is returned."""
    from ..report.files import write

    failed = None
    for flag, path, render in made:
        try:
            with standard_output_kept():  # the samples are looked at again, for their digest
                content = render()
            write(content, path, flag)
        except BrokenPipeError:
            let_go(sys.stdout)
        except UsageError as error:
            failed = failed or error
    return failed
