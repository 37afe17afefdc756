"""JUnit XML: what is not a pass never looks like one."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as xml

import pytest
import xmlschema
from layerdiff.compare.report.junit import render
from layerdiff.compare.report.model import OutputResult

from support.paths import ROOT
from support.reports import CULPRIT, LAYER, full, many_layers, output, report

XSD = xmlschema.XMLSchema(ROOT / "tests" / "support" / "junit.xsd")


def cases(found) -> dict[str, str]:
    """Name of each case -> what came of it."""
    root = xml.fromstring(render(found))
    return {case.get("name"): next((child.tag for child in case), "passed") for case in root.iter("testcase")}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (report(output()), {"output y": "passed"}),
        (report(output(), output("fail", tensor="z")), {"output y": "passed", "output z": "failure"}),
        (report(output("undecided")), {"output y": "failure"}),
        (report(output(), OutputResult("emulate:fp16", "z", "missing")), {"output y": "passed", "output z": "failure"}),
        (report(output(), output(tensor="z", count=0)), {"output y": "passed", "output z": "skipped"}),
        (report(output(count=0)), {"output y": "skipped", "comparison": "error"}),
        (report(), {"comparison": "error"}),
        (report(output(), errors={"emulate:fp16": "no"}), {"runs": "error", "output y": "passed"}),
        (report(errors={"onnxrt": "no"}), {"runs": "error", "comparison": "error"}),
        (
            report(output("fail"), culprits=(CULPRIT,)),
            {"output y": "failure", "layer loop//l/conv/Conv (Conv)": "failure"},
        ),
    ],
)
def test_what_comes_of_each(found, expected):
    assert cases(found) == expected


def test_layers_that_nobody_judged_are_skipped_in_one_case():
    layers = tuple(replace(LAYER, tensor=f"t{i}", verdict="unmatched") for i in range(100))
    found = cases(report(output(), layers=layers))
    assert found == {"output y": "passed", "layers that have no counterpart in the candidate's graph": "skipped"}


@pytest.mark.parametrize(
    "found",
    [full(), report(), report(output()), many_layers(50, 3, 5), report(output("fail", tensor="a\x00<&\ud800\"'"))],
    ids=range(5),
)
def test_it_follows_the_xsd(found):
    XSD.validate(render(found))


def test_counts_are_those_of_the_cases():
    root = xml.fromstring(render(report(output(), output("fail", tensor="z"), output(tensor="e", count=0))))
    assert {k: root.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "1", "errors": "0", "skipped": "1"
    }  # fmt: skip
