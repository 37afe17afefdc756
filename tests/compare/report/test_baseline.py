"""What changed since an earlier report."""

from __future__ import annotations

from dataclasses import replace

import pytest
from layerdiff.compare.report.baseline import against
from layerdiff.compare.report.markdown import render as markdown
from layerdiff.compare.report.model import Cause

from support.reports import CULPRIT, LAYER, output, report


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("pass", "pass", None),
        ("pass", "fail", "worse"),
        ("pass", "undecided", "worse"),
        ("undecided", "fail", "worse"),
        ("fail", "missing", "worse"),
        ("fail", "undecided", "better"),
        ("fail", "pass", "better"),
        ("fail", "fail", "known-bad"),
        ("undecided", "undecided", "known-bad"),
        (None, "pass", "new"),
        ("pass", None, "gone"),
    ],
)
def test_what_became_of_an_output(before, after, kind):
    then, now = ([] if verdict is None else [output(verdict)] for verdict in (before, after))
    found = against(report(*now), report(*then)).changes
    assert [change.kind for change in found] == ([] if kind is None else [kind])
    assert {(c.subject, c.name, c.before, c.after) for c in found} <= {("output", "y", before, after)}


def test_what_became_of_culprits():
    def of(*names):
        return report(output("fail"), layers=(LAYER,), culprits=tuple(replace(CULPRIT, node=name) for name in names))

    found = against(of("a", "b"), of("b", "c")).changes
    kinds = {c.name: c.kind for c in found if c.subject == "culprit"}
    assert kinds == {"a": "new", "b": "known-bad", "c": "gone"}
    assert {c.after for c in found if c.name == "a"} == {Cause.OVERFLOW.value}


def test_culprits_that_nobody_looked_for_are_not_gone():
    before = report(output("fail"), layers=(LAYER,), culprits=(CULPRIT,))
    assert [change.subject for change in against(report(output("fail")), before).changes] == ["output"]


def test_people_read_it():
    found = against(report(output("fail")), report(output("pass")))
    assert "worse: output y of emulate:fp16: pass -> fail" in str(found)
    assert "🔺 worse: output `y` of `emulate:fp16`" in markdown(found)
