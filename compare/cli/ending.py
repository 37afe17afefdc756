"""How a command ends: statuses that are no verdict, what may end it early, and what it leaves."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import TextIO

from ...graph.interrupts import terminate
from ...graph.leases import Leased, remove_left

INTERRUPTED = 130
"""Ctrl-C."""
TERMINATED = 143
"""SIGTERM."""
CRASHED = 3
"""What also a runner that failed gives: nothing may be concluded."""


TEMPORARY = "layerdiff-run-"
"""What names of the folder for temporary files begin with."""


class Shown(SystemExit):
    """The help, or the version, was asked for and has been printed: the only reason to end without a verdict."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` inside, once, when SIGTERM comes; a second one ends the program at once."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Puts all temporary files made inside, by this process and those that it starts, into one folder, which goes.

    What processes that were killed have left goes too.
    """
    before, named = tempfile.tempdir, os.environ.get("TMPDIR")
    remove_left(TEMPORARY)
    try:
        folder = Leased(TEMPORARY)
    except OSError:  # nowhere to write: whoever needs to will say so
        yield
        return
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder.path)
    try:
        yield
    finally:
        tempfile.tempdir = before
        if named is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = named
        folder.close()


@contextlib.contextmanager
def standard_output_kept() -> Iterator[None]:
    """Sends to standard error what the code of others prints inside: standard output is for what was asked for."""
    number = saved = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        number, beside = sys.stdout.fileno(), sys.stderr.fileno()
        saved = os.dup(number)
        os.dup2(beside, number)  # what libraries and other programs print
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if number is not None and saved is not None:
            os.dup2(saved, number)
            os.close(saved)


def forgiving_streams() -> None:
    """Lets standard output and error write as escapes what their encoding has not, and nowhere if they are closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the program runs
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def of_standard_output(error: OSError) -> bool:
    """Whether an error that nobody expected is that of a stream: it names no file, and nothing can be written."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EBADF)


def no_standard_output(error: OSError) -> str:
    """What is said where standard output takes nothing."""
    return f"standard output cannot be written: {error.strerror}."


def let_go_of_streams() -> OSError | None:
    """Makes sure that what cannot be written any more does not change how Python ends, and returns why standard output
    could not be; None where it could, or whoever reads it has seen enough."""
    failed = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stdout and isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                failed = error
            let_go(stream)
    return failed


def let_go(stream: TextIO) -> None:
    """Nothing more is written to a stream, not even when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
