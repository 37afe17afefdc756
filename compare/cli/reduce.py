"""``layerdiff reduce report.json -o bundle``: a culprit as a few nodes that fail alone, ready to be filed."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.errors import UsageError
from ...graph.printable import counted
from .arguments import Parser, Request, parse
from .delivery import verdict_shown
from .ending import standard_output_kept

if TYPE_CHECKING:
    from ..comparison import Comparison
    from ..progress import Progress
    from ..reduce.bundle import Bundle
    from ..report.model import Report

DESCRIPTION = "Reduces a culprit to a model of a few nodes that fails alone, with a script that needs no layerdiff."
EPILOG = """\
The comparison is run again, in the folder that the report's command was given in and on the same files.

examples:
  compare model.onnx --onnxrt --trt=fp16 --layers --json report.json
  layerdiff reduce report.json -o bundle        the first culprit
  python bundle/reproduce.py                    shows the difference, and exits with 1

exit status: 0 the bundle shows the difference, 1 the script does not show it, 2 wrong usage, 3 a runner failed
"""


def run(words: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    Raises:
        UsageError: The words cannot be understood, or the culprit cannot be reduced.
    """
    given = parser().parse_args(list(words))
    from ..progress import SILENT
    from ..reduce.bundle import reduce, shows
    from ..reduce.subject import named_culprit
    from ..report.load import load_report
    from ..report.terminal.progress import TerminalProgress

    report = load_report(given.report)
    named_culprit(report, given.culprit)  # refuses, before anything runs
    progress = SILENT if given.quiet else TerminalProgress()
    try:
        with standard_output_kept():
            bundle = reduce(_again(report, progress), report, given.output, given.culprit, progress)
    finally:
        if isinstance(progress, TerminalProgress):
            progress.clear()
    with verdict_shown("layerdiff reduce"):
        if not given.quiet:
            _show(bundle)
    return 0 if shows(bundle.shown) else 1


def _show(bundle: Bundle) -> None:
    print(f"{bundle.folder}: {', '.join(bundle.files)}")
    error = f"relative L2 error {bundle.error:.3g}, allowed {bundle.allowed:.3g}"
    if not math.isfinite(bundle.error):
        error = "values differ by infinity or NaN"
    print(f"{counted(bundle.nodes, 'node')}, {error}")
    print(f"reproduce.py: {bundle.shown.splitlines()[-1] if bundle.shown else 'says nothing'}")


def parser() -> Parser:
    """The command's options."""
    made = Parser("layerdiff reduce", DESCRIPTION, EPILOG)
    made.add_argument("report", metavar="REPORT", help="a report that compare --layers --json wrote")
    made.add_argument("-o", "--output", metavar="DIR", required=True, help="the folder to write, new or empty")
    made.add_argument("--culprit", metavar="N", type=int, default=1, help="which culprit of the report (1)")
    made.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    made.add_argument("--debug", action="store_true", help="show tracebacks")
    made.add_argument("-h", "--help", action="help", help="show this text")
    return made


def _again(report: Report, progress: Progress) -> Comparison:
    """The comparison that a report tells of, on the same files."""
    from ..assemble import data_digest
    from .command import comparator

    command = report.provenance.command
    if command is None:
        raise UsageError("the report was made in Python and tells no command that could be run again.")
    for model in filter(None, (report.model, report.candidate_model)):
        if not os.path.exists(model.source):
            raise UsageError(f"{model.source}: no such file here; run this in the folder that compare ran in.")
    comparison = comparator(_request(command), progress).prepare()
    for was in filter(None, (report.model, report.candidate_model)):
        now = next((side.model for side in comparison.sides.all if side.model.source == was.source), None)
        if now is None or now.sha256 != was.sha256:
            raise UsageError(
                f"{was.source} is not the file that the report was made on (SHA-256 {was.sha256[:12]}...)."
            )
    if report.data.sha256 is not None and data_digest(comparison.samples) != report.data.sha256:
        raise UsageError(
            f"{report.data.description} is not what the report was made on (SHA-256 {report.data.sha256[:12]}...): "
            "run the comparison again, or put the data back."
        )
    return comparison


def _request(command: str) -> Request:
    """What a command asked for, without what it wrote."""
    request = parse(shlex.split(command)[1:])
    rules = replace(request.rules, fix=None, fix_budget=None, fixed_model=None, apply_remedy=None, latency=None)
    rules = replace(rules, save_inputs=None, save_outputs=None, layers=rules.layers or "guilty")
    return replace(request, rules=rules)
