"""What came of a file of checks: one table, one JUnit, one Markdown, one JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from xml.etree import ElementTree as xml

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...graph.digest import combined
from ..report.json import to_json
from ..report.junit import document, failed_suite, suites
from ..report.markdown import cell
from ..report.sentence import sentence
from ..report.terminal.numbers import number
from .checks import Check, names_of, unexpected
from .running import Outcome

SCHEMA = "layerdiff.suite/1"
"""Name and version of the JSON form."""


def status(outcomes: Sequence[Outcome], total: int) -> int:
    """The exit status: 0 all as expected, 1 something else, 3 a runner or an input failed."""
    if any(outcome.verdict == "error" for outcome in outcomes):
        return 3
    return 0 if len(outcomes) == total and all(outcome.as_expected for outcome in outcomes) else 1


def show(outcomes: Sequence[Outcome], total: int, to: Console) -> None:
    """One line for each check, and what is behind those that are not as expected."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "verdict", "expected"):
        table.add_column(name, overflow="fold")
    for name in ("rel L2", "s"):
        table.add_column(name, justify="right")
    for outcome in outcomes:
        style = "green" if outcome.as_expected else "bold red"
        cells = Text(outcome.check.name), Text(outcome.verdict, style=style), outcome.check.expect
        table.add_row(*cells, number(_error(outcome)), f"{outcome.seconds:.1f}")
    to.print(table)
    for outcome in outcomes:
        if not outcome.as_expected:
            to.print()
            to.print(Text.assemble((f"{outcome.check.name}: ", "bold"), _said(outcome)))
            for culprit in outcome.report.culprits[:3] if outcome.report is not None else ():
                told = f"  culprit: {culprit.node} ({culprit.op}): {culprit.cause}; {culprit.evidence}"
                to.print(told, markup=False)
    to.print()
    to.print(headline(outcomes, total), markup=False)


def headline(outcomes: Sequence[Outcome], total: int) -> str:
    """The result in one line."""
    good = sum(outcome.as_expected for outcome in outcomes)
    known = sum(outcome.as_expected and outcome.check.expect != "pass" for outcome in outcomes)
    text = f"{good} of {total} checks as expected"
    text += f", {known} of them known failures" if known else ""
    return text + (f"; {total - len(outcomes)} not run" if len(outcomes) < total else "")


def _said(outcome: Outcome) -> str:
    if outcome.report is None:
        return outcome.error or "no report"
    wrong = unexpected(outcome.verdict, outcome.check.expect)
    return f"{wrong}. {sentence(outcome.report)}"


def _error(outcome: Outcome) -> float | None:
    """The greatest relative error of an output."""
    outputs = outcome.report.outputs if outcome.report is not None else ()
    errors = [o.metrics.get("rel_l2") for o in outputs if o.metrics]
    return max((e for e in errors if isinstance(e, float)), default=None)


def junit(outcomes: Sequence[Outcome], skipped: Sequence[str] = ()) -> str:
    """All checks as one JUnit: the outputs and culprits of each, and what was expected of it.

    Args:
        outcomes: What came of those that ran.
        skipped: Names of those that did not.
    """
    made: list[xml.Element] = []
    for outcome in outcomes:
        name, expect = outcome.check.name, outcome.check.expect
        if outcome.report is None:
            made.append(failed_suite(name, "error", outcome.error or "no report"))
        elif expect == "pass":
            made += suites(outcome.report, f"{name}: ")
        elif outcome.as_expected:
            made.append(failed_suite(name, "skipped", f"known failure: {sentence(outcome.report)}"))
        else:
            made.append(failed_suite(name, "failure", _said(outcome)))
    made += [failed_suite(name, "skipped", "not run: an earlier check was not as expected") for name in skipped]
    return document(made)


def markdown(outcomes: Sequence[Outcome], total: int) -> str:
    """A table for a step summary."""
    mark = "✅" if status(outcomes, total) == 0 else "❌"
    lines = [f"### {mark} layerdiff: {headline(outcomes, total)}", "", "| check | verdict | expected | rel L2 |"]
    lines += ["| --- | --- | --- | --- |"]
    for outcome in outcomes[:200]:
        sign = "✅" if outcome.as_expected else "❌"
        lines.append(
            f"| {cell(outcome.check.name)} | {sign} {outcome.verdict} | {outcome.check.expect} "
            f"| {number(_error(outcome))} |"
        )
    wrong = [outcome for outcome in outcomes if not outcome.as_expected][:20]
    return "\n".join([*lines, "", *(f"- {cell(o.check.name)}: {cell(_said(o))}" for o in wrong)]) + "\n"


def share_as_json(
    share: tuple[int, int], whole: Sequence[Check], outcomes: Sequence[Outcome], names: Sequence[str]
) -> str:
    """The same of a share of the checks.

    Args:
        share: Which, of how many.
        whole: All checks.
        outcomes: What came of those of the share.
        names: Their names.
    """
    asked = combined(f"{check.name!r} {check.words!r} {check.expect}" for check in whole)
    shard = {"index": share[0], "count": share[1], "names": names_of(whole), "sha256": asked}
    return as_json(outcomes, len(names), {"shard": shard})


def as_json(outcomes: Sequence[Outcome], total: int, more: Mapping[str, object] | None = None) -> str:
    """Every report, under the name of its check."""
    checks = [
        {
            "name": outcome.check.name,
            "expect": outcome.check.expect,
            "verdict": outcome.verdict,
            "as_expected": outcome.as_expected,
            "seconds": outcome.seconds,
            "error": outcome.error,
            "report": None if outcome.report is None else to_json(outcome.report),
        }
        for outcome in outcomes
    ]
    content = {"schema": SCHEMA, "as_expected": status(outcomes, total) == 0, "total": total, "checks": checks}
    content.update(more or {})
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[Sequence[Outcome], Sequence[str]], str]] = {
    "--json": lambda outcomes, names: as_json(outcomes, len(names)),
    "--junit": lambda outcomes, names: junit(outcomes, names[len(outcomes) :]),
    "--markdown": lambda outcomes, names: markdown(outcomes, len(names)),
}
"""What a file of checks can be written as: from outcomes and the names of all checks."""
