"""What came of a file of checks, as data: from a run, or from the JSON that one left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...graph.errors import UsageError
from ..report.load import from_json, of_a_report
from ..report.plain import typed
from .checks import unexpected

if TYPE_CHECKING:
    from ..report.model import Report

SCHEMA = "layerdiff.suite/1"
"""Name and version of the JSON form."""


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        name: What the check is called.
        expect: The verdict that is expected of it.
        report: What was found; None if there is none.
        error: Why there is none, in one or two lines.
        seconds: How long it took.
    """

    name: str
    expect: str
    report: Report | None
    error: str | None
    seconds: float

    @property
    def verdict(self) -> str:
        """The report's, or ``error``."""
        return "error" if self.report is None else self.report.verdict

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the expected one. An error never is."""
        return not unexpected(self.verdict, self.expect)


@dataclass(frozen=True)
class SuiteResult:
    """What came of a file of checks.

    Attributes:
        outcomes: Of the checks that ran, in the order of the file.
        not_run: Names of the others: an earlier check that was not as expected has ended the suite, or an interrupt.
        shard: Which share of the checks this is; None: all of them.
    """

    outcomes: tuple[Outcome, ...]
    not_run: tuple[str, ...] = ()
    shard: Mapping[str, Any] | None = None

    @property
    def total(self) -> int:
        """Number of checks."""
        return len(self.outcomes) + len(self.not_run)

    @property
    def status(self) -> int:
        """The exit status: 0 all as expected, 1 something else or no check at all, 3 a runner or an input failed."""
        if any(outcome.verdict == "error" for outcome in self.outcomes):
            return 3
        as_expected = bool(self.outcomes) and all(outcome.as_expected for outcome in self.outcomes)
        return 0 if as_expected and not self.not_run else 1


def is_suite(content: Any) -> bool:
    """Whether what a JSON file holds is the report of a suite."""
    return isinstance(content, Mapping) and content.get("schema") == SCHEMA


def load_suite(content: Mapping[str, Any], name: str) -> SuiteResult:
    """The result that `summary.as_json` wrote.

    Args:
        content: What the file holds.
        name: What to call it in messages.

    Raises:
        UsageError: It is damaged.
    """
    with of_a_report(name):
        outcomes = tuple(_outcome(check, name) for check in typed(tuple[Mapping[str, Any], ...], content["checks"]))
        not_run = typed(tuple[str, ...], content.get("not_run", []))
        shard = typed(Mapping[str, Any], content.get("shard"))
    if not outcomes and not not_run and shard is None:
        raise UsageError(f"{name}: a damaged report: there is no check in it.")
    return SuiteResult(outcomes, not_run, shard)


def _outcome(check: Mapping[str, Any], name: str) -> Outcome:
    report = None if check["report"] is None else from_json(check["report"], name)
    told = typed(str, check["error"]), typed(float, check["seconds"])
    return Outcome(typed(str, check["name"]), typed(str, check["expect"]), report, *told)
