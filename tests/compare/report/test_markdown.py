"""Markdown: short enough for GitHub at any size, and nothing in it is taken for markup."""

from __future__ import annotations

import pytest
from layerdiff.compare.report.markdown import LIMIT, render

from support.reports import many_layers, output, report


@pytest.mark.parametrize("culprits", [1, 3000])
@pytest.mark.parametrize("name", ["/encoder/layer.{}/attention/MatMul", "ü" * 2000 + "{}"])
def test_it_fits_at_ten_thousand_layers_and_names_the_culprits(name, culprits):
    found = render(many_layers(10_000, outputs=1000, culprits=culprits, name=name))
    assert len(found.encode()) <= LIMIT
    assert found.count("- **culprit**: ") == min(culprits, 20)
    assert "fail: emulate:fp16 disagrees with onnxrt in all 1000 outputs" in found
    assert "more" in found


def test_short_reports_are_whole():
    found = render(many_layers(20, outputs=3))
    assert found.count("| `/encoder/layer.") == 20
    assert found.count("❌ fail |") == 3


@pytest.mark.parametrize(
    "name", ["a|b", "`x`", "<script>alert(1)</script>", "@somebody", "two\nlines", "[x](http://y)"]
)
def test_names_are_names(name):
    found = render(report(output("fail", tensor=name, reason=name)))
    rows = [line for line in found.splitlines() if line.startswith("| `") and "fail" in line]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 7
    outside = [part for n, part in enumerate(found.split("`")) if not n % 2]
    assert not any(mark in part for part in outside for mark in ("<script", " @somebody"))
