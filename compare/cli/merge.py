"""``layerdiff merge a.json b.json -o all.json``: the report on all samples, or on all checks, from those on shares."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...graph.errors import UsageError
from .arguments import Parser, Request, parse
from .ending import standard_output_kept
from .reading import Reads
from .report_options import check_reports, check_screen

DESCRIPTION = "Puts the reports of compare --shard I/N together: of shares of the samples, or of a suite's checks."
EPILOG = """\
The comparison is prepared again, in the folder that the command of the reports was given in and on the same files; what
was run is not run again.

examples:
  compare model.onnx --onnxrt --trt --data samples --shard 1/2 --json a.json      on one machine
  compare model.onnx --onnxrt --trt --data samples --shard 2/2 --json b.json      on another one
  layerdiff merge a.json b.json -o all.json

exit status: that of the whole comparison: 0 agree, 1 disagree or undecided, 2 wrong usage, 3 a runner failed
"""


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: The words cannot be understood, or the reports are not the shares of one run.
    """
    space = parser().parse_args(list(words))
    from ..report.files import check_writable
    from ..report.load import read_json

    check_screen(space.quiet, space.verbose)
    check_reports([("-o", space.output)], Reads.of((), space.reports))
    check_writable(space.output, "-o")
    twice = next((name for name in space.reports if space.reports.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice}: named twice.")
    contents = {name: read_json(name) for name in space.reports}
    if any(isinstance(content, Mapping) and "checks" in content for content in contents.values()):
        suites = importlib.import_module("..suites.shares", __package__)
        status: int = suites.merge_suites(contents, space.output, quiet=space.quiet, verbose=space.verbose)
        return status
    return _merge(contents, space.output, quiet=space.quiet, verbose=space.verbose)


def _merge(contents: Mapping[str, Any], output: str, *, quiet: bool, verbose: bool) -> int:
    from ..merging import merged, ordered
    from ..progress import SILENT
    from ..report.load import from_json
    from ..report.terminal.progress import TerminalProgress
    from .command import comparator
    from .delivery import deliver

    reports = {name: from_json(content, name) for name, content in contents.items()}
    requests = {name: parse(_words(report.provenance.command, name)) for name, report in reports.items()}
    for request in requests.values():
        check_reports([("-o", output)], request.reads)
    shares = ordered(reports, {name: _but_for_the_share(request) for name, request in requests.items()})
    command = _whole(next(iter(reports.values())).provenance.command or "", output)
    progress = SILENT if quiet else TerminalProgress()
    try:
        with standard_output_kept():
            comparison = comparator(_but_for_the_share(next(iter(requests.values()))), progress).prepare()
            report = merged(comparison, shares, progress)
    finally:
        if isinstance(progress, TerminalProgress):
            progress.clear()
    report = replace(report, provenance=replace(report.provenance, command=command))
    wanted = (("--json", output),)
    return deliver(report, wanted, quiet=quiet, verbose=verbose, program="layerdiff merge", option="-o")


def parser() -> Parser:
    """The command's options."""
    made = Parser("layerdiff merge", DESCRIPTION, EPILOG)
    made.add_argument("reports", metavar="REPORT", nargs="+", help="what compare --shard --json wrote, in any order")
    made.add_argument("-o", "--output", metavar="PATH", required=True, help="the report to write, as JSON")
    made.add_argument("-q", "--quiet", action="store_true", help="print the verdict alone")
    made.add_argument("-v", "--verbose", action="store_true", help="print versions, options, times and all statistics")
    made.add_argument("--debug", action="store_true", help="show tracebacks")
    made.add_argument("-h", "--help", action="help", help="show this text")
    return made


def _words(command: str | None, name: str) -> list[str]:
    """The words of the command that a share was made by.

    Raises:
        UsageError: The report was made in Python.
    """
    if command is None:
        raise UsageError(f"{name}: it was made in Python and tells no command that could be prepared again.")
    return shlex.split(command)[1:]


def _but_for_the_share(request: Request) -> Request:
    """What was asked for on all samples; where reports go, and what is kept or printed, differs between machines."""
    rules = replace(request.rules, shard=None, resume=None)
    return replace(request, rules=rules, reports=(), reads=Reads(), written=(), quiet=False, verbose=False, debug=False)


def _whole(command: str, output: str) -> str:
    """The command of a share as that of the whole run, whose report is another file."""
    return shlex.join(_renamed(_without(shlex.split(command), "--shard"), "--json", output))


def _without(words: Sequence[str], flag: str) -> list[str]:
    """A command line without an option and its value."""
    found, skip = [], False
    for word in words:
        if not skip and word != flag and not word.startswith(f"{flag}="):
            found.append(word)
        skip = word == flag
    return found


def _renamed(words: Sequence[str], flag: str, value: str) -> list[str]:
    """A command line with another value of an option."""
    found: list[str] = []
    for word in words:
        if found and found[-1] == flag:
            found.append(value)
        else:
            found.append(f"{flag}={value}" if word.startswith(f"{flag}=") else word)
    return found
