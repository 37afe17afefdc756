"""The report as JUnit XML: a test suite for each candidate, a test case for each output and each culprit.

What disagrees or cannot be judged is a failure, what nobody compared is skipped, a runner that failed and a run that
compared nothing are errors: a build is green only where everything was compared and agrees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree as xml

from ...graph.printable import counted
from .escaped import escaped
from .sentence import sentence

if TYPE_CHECKING:
    from .model import OutputResult, Report, RunnerResult

FLAG = "--junit"
HELP = "write JUnit XML: one case for each output and culprit"

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def render(report: Report) -> str:
    """The report as JUnit XML."""
    return document(suites(report))


def document(made: list[xml.Element]) -> str:
    """A file of test suites."""
    root = xml.Element("testsuites", name="layerdiff")
    root.extend(made)
    for kind in ("tests", "failures", "errors", "skipped"):
        root.set(kind, str(sum(int(suite.get(kind, "0")) for suite in root)))
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def suites(report: Report, prefix: str = "") -> list[xml.Element]:
    """The test suites of a report.

    Args:
        report: The report.
        prefix: What stands before the names of its suites, where there are several reports.
    """
    report = escaped(report)
    made = [_suite(f"{prefix}{runner.name}", _cases(report, runner), report) for runner in report.candidates]
    rest = [_failed(runner) for runner in report.runners if runner.error and runner.name == report.reference]
    if not report.compared:
        rest.append(_case("comparison", report.reference, "error", "nothing-compared", sentence(report)))
    return made + ([_suite(f"{prefix}{report.reference}", rest, report)] if rest else [])


def failed_suite(name: str, outcome: str, message: str) -> xml.Element:
    """A suite of one case, of which nothing more is to be said than an outcome: ``failure``, ``error``, ``skipped``."""
    return _suite(name, [_case("comparison", name, outcome, "" if outcome == "skipped" else outcome, message)])


def _suite(name: str, cases: list[xml.Element], report: Report | None = None) -> xml.Element:
    def count(kind: str) -> str:
        return str(sum(case.find(kind) is not None for case in cases))

    suite = xml.Element(
        "testsuite",
        name=_legal(name),
        tests=str(len(cases)),
        failures=count("failure"),
        errors=count("error"),
        skipped=count("skipped"),
    )
    if report is not None and report.provenance.date:
        suite.set("timestamp", report.provenance.date)
    suite.extend(cases)
    return suite


def _cases(report: Report, runner: RunnerResult) -> list[xml.Element]:
    return [
        *([_failed(runner)] if runner.error else []),
        *(_output(output) for output in report.of(runner.name)),
        *_culprits(report, runner),
        *_unseen(report, runner),
    ]


def _failed(runner: RunnerResult) -> xml.Element:
    return _case("runs", runner.name, "error", "runner-failed", runner.failure)


def _output(output: OutputResult) -> xml.Element:
    name = f"output {output.tensor}"
    if output.verdict != "pass":
        return _case(name, output.candidate, "failure", output.verdict, output.reason or output.verdict)
    if not output.compared:
        return _case(name, output.candidate, "skipped", "", "the output is empty, so nothing was compared")
    return _case(name, output.candidate)


def _culprits(report: Report, runner: RunnerResult) -> Iterator[xml.Element]:
    names: dict[str, int] = {}
    for culprit in report.culprits:
        if culprit.candidate == runner.name:
            name = f"layer {culprit.path} ({culprit.op})"
            names[name] = names.get(name, 0) + 1
            name += f" #{names[name]}" if names[name] > 1 else ""  # names of cases are to be unique
            text = f"{culprit.cause}: {culprit.evidence}" if culprit.evidence else str(culprit.cause)
            yield _case(name, culprit.candidate, "failure", str(culprit.cause), text)


def _unseen(report: Report, runner: RunnerResult) -> Iterator[xml.Element]:
    """Layers that nobody compared, in one case: there may be thousands."""
    layers = [layer for layer in report.layers if layer.candidate == runner.name]
    for verdict, why in (("unmatched", "have no counterpart in the candidate's graph"), ("unknown", "were not judged")):
        names = [layer.tensor for layer in layers if layer.verdict == verdict]
        if names:
            some = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            text = f"{counted(len(names), 'tensor')} {why}: {some}"
            yield _case(f"layers that {why}", runner.name, "skipped", "", text)


def _case(name: str, classname: str, outcome: str = "", kind: str = "", message: str = "") -> xml.Element:
    case = xml.Element("testcase", name=_legal(name), classname=_legal(classname), time="0")
    if outcome:
        found = xml.SubElement(case, outcome, message=_legal(message))
        if kind:
            found.set("type", kind)
            found.text = _legal(message)
    return case


def _legal(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
