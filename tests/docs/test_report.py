"""docs/report.md says what there is: every key of the JSON report, every code of a notice, and no other."""

from __future__ import annotations

import re

import pytest
from layerdiff.compare.report.inputs import DataInfo, ModelInfo
from layerdiff.compare.report.json import to_json
from layerdiff.compare.report.model import Report

from support.paths import ROOT

PAGE = (ROOT / "docs" / "report.md").read_text("utf-8")
REPORT = Report("a", ModelInfo("m.onnx", 1, lambda: "0"), DataInfo(0, None, "nothing", True), (), ())
SOURCE = "".join((ROOT / "compare" / name).read_text("utf-8") for name in ("notices.py", "layers/texts.py"))
CODES = re.findall(r'(?:Notice\(\s*|^[A-Z_]+ = )"([a-z0-9-]+)"', SOURCE, re.MULTILINE)


def explained(section: str) -> set[str]:
    """The names in the first column of a section's table."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([a-z0-9_-]+)`", cell)}


@pytest.mark.parametrize(("section", "names"), [("JSON", to_json(REPORT)), ("Notices", CODES)])
def test_a_table_names_what_there_is(section, names):
    assert names
    assert explained(section) == set(names)
