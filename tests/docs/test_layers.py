"""docs/layers.md names the limits, causes and verdicts that are in force."""

from __future__ import annotations

import re
from typing import get_args

from layerdiff.compare.causes import judgement as judge
from layerdiff.compare.layers.contribution import SUSPECTS
from layerdiff.compare.report.model import Cause, LayerVerdict

from support.paths import ROOT

PAGE = (ROOT / "docs" / "layers.md").read_text("utf-8")


def test_limits_on_the_page_are_those_in_force():
    assert f"| {judge.RMS_LIMIT[False]:g} | {judge.RMS_LIMIT[True]:g} |" in PAGE
    assert f"| {judge.SLICE_LIMIT[False]:g} | {judge.SLICE_LIMIT[True]:g} |" in PAGE
    assert f"| {judge.GAIN_LIMIT:g} | {judge.GAIN_LIMIT:g} |" in PAGE
    assert (SUSPECTS, judge.SLICE, judge.CHANNELS, judge.FLIPS) == (8, 64, 16, 1e-3)


def test_every_cause_and_every_verdict_is_explained():
    tables = set(re.findall(r"`([a-z-]+)`", "".join(line for line in PAGE.splitlines() if line.startswith("|"))))
    assert {cause.value for cause in Cause} <= tables
    assert set(get_args(LayerVerdict)) <= tables
