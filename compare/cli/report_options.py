"""The options that every command has which makes a report: where it goes, in which form, and how much is shown."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Sequence
from typing import Any

from ... import __version__
from ...graph.errors import UsageError
from ..report.files import check_folder, check_writable
from ..report.formats import check_packages, formats, holds_layers, writes_folder
from .options import Once
from .reading import Reads

Reports = tuple[tuple[str, str], ...]
"""Reports to write: the flag of a format, and a path; ``-`` is standard output."""

NO_REPORT = (
    *(".onnx", ".ort", ".pb", ".keras", ".h5", ".hdf5", ".tflite", ".engine", ".plan", ".trt", ".pt", ".pt2", ".pth"),
    *(".safetensors", ".npy", ".npz", ".py", ".so", ".dll", ".dylib", ".toml"),
)
"""How names of models, data and programs end: a report never replaces such a file, be it read or not."""


def add_formats(group: Any) -> None:
    """One option for each format, each of which may be given several times."""
    for flag, one in formats().items():
        add_report(group, flag, one.HELP, writes_folder(one))
    group.add_argument(
        "--baseline",
        action=Once,
        metavar="JSON",
        help="an earlier report, from --json: say what became worse, better, stayed bad",
    )


def add_report(group: Any, flag: str, what: str, folder: bool = False) -> None:
    """The option of one format, which may be given several times."""
    group.add_argument(
        flag,
        metavar="DIR" if folder else "PATH",
        dest="reports",
        action="append",
        default=argparse.SUPPRESS,
        type=functools.partial(report_path, flag),
        help=what if folder else f"{what}; -: to standard output",
    )


def add_screen(group: Any) -> None:
    """How much is shown."""
    group.add_argument("-q", "--quiet", action="store_true", help="print the verdict alone")
    group.add_argument("-v", "--verbose", action="store_true", help="print versions, options, times, all statistics")
    group.add_argument("--debug", action="store_true", help="show tracebacks")
    group.add_argument("--version", action="version", version=f"layerdiff {__version__}")
    group.add_argument("-h", "--help", action="help", help="show this text")


def check_screen(quiet: bool, verbose: bool) -> None:
    """Makes sure that not both are asked for.

    Raises:
        UsageError: They are.
    """
    if quiet and verbose:
        raise UsageError("-q and -v contradict each other.")


def check_outputs(outputs: Sequence[tuple[str, str]], reports: Sequence[tuple[str, str]], reads: Reads) -> None:
    """Makes sure that nothing else is written over what is read, or over a report.

    Args:
        outputs: The flag, and a path.
        reports, reads: See `check_reports`.

    Raises:
        UsageError: Something is.
    """
    for flag, path in outputs:
        if path in reads:
            raise UsageError(f"{flag} {path}: that is an input of the comparison, and would be replaced.")
        if reads.in_folder(path):
            raise UsageError(f"{flag} {path}: inputs of the comparison are in there, and would be replaced.")
        if any(os.path.realpath(path) == os.path.realpath(other) for _, other in reports):
            raise UsageError(f"{flag} {path}: a report goes there.")


def report_path(flag: str, path: str) -> tuple[str, str]:
    """A report to write, as `Reports` has it."""
    return flag, path


def check_layers(reports: Sequence[tuple[str, str]], there: bool, remedy: str) -> None:
    """Makes sure that a format that holds layers alone is not asked for where there are none.

    Args:
        reports: What is to be written.
        there: Whether there are layers.
        remedy: What to do about it.

    Raises:
        UsageError: It is asked for, and there are none.
    """
    for flag, _ in reports:
        if not there and holds_layers(formats()[flag]):
            raise UsageError(f"{flag} holds layers alone, and there are none: {remedy}.")


def check_places(reports: Sequence[tuple[str, str]]) -> None:
    """Makes sure, before anything runs, that reports can be written where they are asked for.

    Raises:
        OutputError: One cannot.
    """
    for flag, path in reports:
        (check_folder if flag in formats() and writes_folder(formats()[flag]) else check_writable)(path, flag)


def check_reports(reports: Sequence[tuple[str, str]], reads: Reads) -> None:
    """Makes sure that no report is written over what is read, or over another report, and that each can be made.

    Args:
        reports: What is to be written.
        reads: What is read.

    Raises:
        UsageError: One is, or would replace a file that is called as no report is; or a package is missing.
    """
    for flag, path in reports:
        if flag in formats():
            check_packages(formats()[flag])
        if path == "-" and flag in formats() and writes_folder(formats()[flag]):
            raise UsageError(f"{flag} writes a folder, which standard output is not: name one.")
    if sum(path == "-" for _, path in reports) > 1:
        raise UsageError("only one report can go to standard output.")
    written: set[str] = set()
    for flag, path in reports:
        real = os.path.realpath(path)
        if path in reads:
            raise UsageError(f"{flag} {path}: that is an input of the comparison, and the report would replace it.")
        if os.path.splitext(path)[1].lower() in NO_REPORT and os.path.isfile(path):
            raise UsageError(f"{flag} {path}: that file is no report by its name, which the report would replace.")
        if path != "-" and real in written:
            raise UsageError(f"{flag} {path}: another report goes there.")
        written.add(real)
