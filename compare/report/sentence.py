"""The verdict in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import OutputResult, Report

MISOPTIMIZED = "misoptimized"
"""The code of the notice that names the side whose own graph optimizer makes the error."""
CAVEAT = "Random inputs prove little about deployment: --data runs real ones."


def sentence(report: Report) -> str:
    """The verdict in one sentence that names the data."""
    on = f", on {report.data.description}" if report.data.samples else ""
    return f"{report.verdict}: {_finding(report)}{on}."


def caveat(report: Report) -> str:
    """What the verdict does not prove; empty where it rests on real inputs, or on none."""
    return CAVEAT if report.data.samples and not report.data.representative else ""


def _finding(report: Report) -> str:
    parts = []
    failed = [runner.name for runner in report.runners if runner.error and not runner.stopped]
    if any(runner.stopped for runner in report.runners):
        parts.append("the run was interrupted")
    if failed:
        parts.append(f"{_and(failed)} failed")
    groups: dict[tuple[str, str], list[str]] = {}
    for candidate in report.candidates:
        outputs = report.of(candidate.name)
        if outputs:
            groups.setdefault(_outcome(outputs), []).append(candidate.name)
    for kind in ("disagree", "undecided", "agree"):
        for (found, where), names in groups.items():
            if found == "disagree" == kind:
                parts.append(f"{_and(names)} {_s('disagrees', 'disagree', names)} with {report.reference} in {where}")
            elif found == "undecided" == kind:
                parts.append(f"{_and(names)} cannot be judged in {where}")
            elif found == "agree" == kind:
                parts.append(f"{_and(names)} {_s('agrees', 'agree', names)} with {report.reference} in {where}")
    off = dict.fromkeys(notice.subject for notice in report.notices if notice.code == MISOPTIMIZED)
    parts += [f"{name} is the side that is off, by its graph optimization" for name in off]
    if not report.outputs:
        parts.append("layers were compared, and no output" if report.layers else "nothing was compared")
    elif not report.compared and all(o.verdict == "pass" for o in report.outputs):
        return "nothing was compared"
    return "; ".join(parts)


def _outcome(outputs: Sequence[OutputResult]) -> tuple[str, str]:
    """Of one candidate, the worst that happened, and in how many of its outputs."""
    extra = [o for o in outputs if o.verdict == "extra"]
    outputs = [o for o in outputs if o.verdict != "extra"]
    bad = [o for o in outputs if o.verdict in ("fail", "missing")]
    if extra and not bad:
        return "disagree", f"{_s('output', 'outputs', extra)} {_and([o.tensor for o in extra[:3]])}{_more(extra)}"
    unclear = [o for o in outputs if o.verdict == "undecided"]
    kind, some = ("disagree", bad) if bad else ("undecided", unclear) if unclear else ("agree", list(outputs))
    measured = [o for o in some if o.decided_by]
    by = f" by {measured[0].decided_by}" if measured else ""
    if len(measured) < len(some):
        by = f" ({len(measured)}{by})" if measured else ""
    if len(outputs) == 1:
        return kind, f"output {outputs[0].tensor}{by}"
    count = f"all {len(outputs)}" if len(some) == len(outputs) else f"{len(some)} of {len(outputs)}"
    return kind, f"{count} outputs{by}"


def _more(extra: Sequence[OutputResult]) -> str:
    left = f" and {len(extra) - 3} more" if len(extra) > 3 else ""
    return f"{left}, which the reference does not have"


def _s(one: str, many: str, items: Sequence[object]) -> str:
    return one if len(items) == 1 else many


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
