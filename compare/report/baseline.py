"""What became worse, better, or stayed bad since an earlier report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .history import Change, ChangeKind
from .model import Culprit, Metrics, OutputResult, Report

_BADNESS = {"pass": 0, "undecided": 1, "fail": 2, "missing": 3, "extra": 3}


def against(report: Report, before: Report, name: str = "the baseline") -> Report:
    """The report with its changes against an earlier one; outputs and culprits are known by candidate and name.

    Args:
        report: What was found now.
        before: What was found then.
        name: What to call the earlier report.
    """
    changes = (*_outputs(report, before), *_culprits(report, before))
    return replace(report, changes=changes, baseline=name)


def _outputs(report: Report, before: Report) -> Iterator[Change]:
    earlier = {(o.candidate, o.tensor): o for o in before.outputs}
    for now in report.outputs:
        then = earlier.pop((now.candidate, now.tensor), None)
        kind = _kind(then, now)
        if kind is not None:
            yield _output(kind, then, now)
    for then in earlier.values():
        yield _output("gone", then, None)


def _kind(then: OutputResult | None, now: OutputResult) -> ChangeKind | None:
    """What became of an output; None where it passes as before."""
    if then is None:
        return "new"
    change = _BADNESS[now.verdict] - _BADNESS[then.verdict]
    if change:
        return "worse" if change > 0 else "better"
    return None if now.verdict == "pass" else "known-bad"


def _output(kind: ChangeKind, then: OutputResult | None, now: OutputResult | None) -> Change:
    one = now or then
    assert one is not None
    return Change(
        kind,
        one.candidate,
        "output",
        one.tensor,
        None if then is None else then.verdict,
        None if now is None else now.verdict,
        None if then is None else _error(then.metrics),
        None if now is None else _error(now.metrics),
    )


def _culprits(report: Report, before: Report) -> Iterator[Change]:
    if not report.layers or not before.layers:  # one of the two did not look for any
        return
    earlier, found = _by_node(before), _by_node(report)
    for key in dict.fromkeys((*found, *earlier)):
        then, now = earlier.get(key), found.get(key)
        kind: ChangeKind = "new" if then is None else "gone" if now is None else "known-bad"
        yield Change(
            kind,
            *key[:1],
            "culprit",
            key[1],
            None if then is None else str(then.cause),
            None if now is None else str(now.cause),
            None if then is None else _error(then.local),
            None if now is None else _error(now.local),
        )


def _by_node(report: Report) -> dict[tuple[str, str], Culprit]:
    return {(culprit.candidate, culprit.node): culprit for culprit in report.culprits}


def _error(metrics: Metrics | None) -> float | None:
    value = (metrics or {}).get("rel_l2")
    return value if isinstance(value, float) else None
