"""What came of a file of checks: one table, one JUnit, one Markdown, one JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from xml.etree import ElementTree as xml

from rich.console import Console
from rich.text import Text

from ..report.json import to_json
from ..report.junit import document, failed_suite, suites
from ..report.markdown import cell
from ..report.sentence import sentence
from ..report.terminal.numbers import number
from ..report.terminal.tables import new_table, print_table
from .checks import unexpected
from .outcomes import SCHEMA, Outcome, SuiteResult


def show(found: SuiteResult, to: Console) -> None:
    """One line for each check, and what is behind those that are not as expected."""
    table = new_table("check", "verdict", "expected", "rel L2", "s", right=("rel L2", "s"))
    for outcome in found.outcomes:
        style = "green" if outcome.as_expected else "bold red"
        cells = Text(outcome.name), Text(outcome.verdict, style=style), outcome.expect
        table.add_row(*cells, number(_error(outcome)), f"{outcome.seconds:.1f}")
    print_table(table, to)
    for outcome in found.outcomes:
        if not outcome.as_expected:
            to.print()
            to.print(Text.assemble((f"{outcome.name}: ", "bold"), _said(outcome)))
            for culprit in outcome.report.culprits[:3] if outcome.report is not None else ():
                told = f"  culprit: {culprit.node} ({culprit.op}): {culprit.cause}; {culprit.evidence}"
                to.print(told, markup=False)
    to.print()
    to.print(headline(found), markup=False)


def show_reports(outcomes: Sequence[Outcome], to: Console) -> None:
    """Every report, with all statistics."""
    from ..report.terminal.show import show as show_report

    for outcome in outcomes:
        if outcome.report is not None:
            show_report(outcome.report, to, verbose=True)


def print_suite(found: SuiteResult, to: Console, *, quiet: bool) -> None:
    """Prints a suite: the table, or where ``quiet``, the verdict alone."""
    if quiet:
        to.print("pass" if found.status == 0 else "fail")
    else:
        show(found, to)


def headline(found: SuiteResult) -> str:
    """The result in one line."""
    if not found.total:
        return "no check belongs to this share, so that nothing was compared"
    good = sum(outcome.as_expected for outcome in found.outcomes)
    known = sum(outcome.as_expected and outcome.expect != "pass" for outcome in found.outcomes)
    text = f"{good} of {found.total} checks as expected"
    text += f", {known} of them known failures" if known else ""
    return text + (f"; {len(found.not_run)} not run" if found.not_run else "")


def _said(outcome: Outcome) -> str:
    if outcome.report is None:
        return outcome.error or "no report"
    wrong = unexpected(outcome.verdict, outcome.expect)
    return f"{wrong}. {sentence(outcome.report)}"


def _error(outcome: Outcome) -> float | None:
    """The greatest relative error of an output."""
    outputs = outcome.report.outputs if outcome.report is not None else ()
    errors = [o.metrics.get("rel_l2") for o in outputs if o.metrics]
    return max((e for e in errors if isinstance(e, float)), default=None)


def junit(found: SuiteResult) -> str:
    """All checks as one JUnit: the outputs and culprits of each, and what was expected of it."""
    made: list[xml.Element] = []
    for outcome in found.outcomes:
        name, expect, before = outcome.name, outcome.expect, len(made)
        if outcome.report is None:
            made.append(failed_suite(name, "error", outcome.error or "no report"))
        elif expect == "pass":
            made += suites(outcome.report, f"{name}: ")
        elif outcome.as_expected:
            made.append(failed_suite(name, "skipped", f"known failure: {sentence(outcome.report)}"))
        else:
            made.append(failed_suite(name, "error" if outcome.verdict == "error" else "failure", _said(outcome)))
        for case in [case for suite in made[before:] for case in suite][:1]:  # which adds up to what all checks took
            case.set("time", f"{outcome.seconds:.3f}")
    made += [failed_suite(name, "skipped", "not run: the suite ended before it") for name in found.not_run]
    return document(made or [failed_suite("suite", "failure", headline(found))])


def markdown(found: SuiteResult) -> str:
    """A table for a step summary."""
    mark = "✅" if found.status == 0 else "❌"
    lines = [f"### {mark} layerdiff: {headline(found)}", "", "| check | verdict | expected | rel L2 |"]
    lines += ["| --- | --- | --- | --- |"]
    for outcome in found.outcomes[:200]:
        sign = "✅" if outcome.as_expected else "❌"
        lines.append(
            f"| {cell(outcome.name)} | {sign} {outcome.verdict} | {outcome.expect} | {number(_error(outcome))} |"
        )
    lines += [f"| {cell(name)} | not run | | |" for name in found.not_run[:200]]
    wrong = [outcome for outcome in found.outcomes if not outcome.as_expected][:20]
    return "\n".join([*lines, "", *(f"- {cell(o.name)}: {cell(_said(o))}" for o in wrong)]) + "\n"


def as_json(found: SuiteResult) -> str:
    """Every report, under the name of its check."""
    checks = [
        {
            "name": outcome.name,
            "expect": outcome.expect,
            "verdict": outcome.verdict,
            "as_expected": outcome.as_expected,
            "seconds": outcome.seconds,
            "error": outcome.error,
            "report": None if outcome.report is None else to_json(outcome.report),
        }
        for outcome in found.outcomes
    ]
    return written(checks, found.status == 0, found.not_run, found.shard)


def written(
    checks: Sequence[object], as_expected: bool, not_run: Sequence[str] = (), shard: Mapping[str, object] | None = None
) -> str:
    """The JSON form of a suite, from that of its checks."""
    total = len(checks) + len(not_run)
    content = {"schema": SCHEMA, "as_expected": as_expected, "total": total, "not_run": [*not_run], "checks": checks}
    if shard is not None:
        content["shard"] = shard
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[SuiteResult], str]] = {"--json": as_json, "--junit": junit, "--markdown": markdown}
"""What a suite can be written as."""
