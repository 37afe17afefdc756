"""The order of causes; a new one is one new file and its place in that order."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from layerdiff.compare.causes import examiner
from layerdiff.compare.report.json import to_json
from layerdiff.compare.report.model import Cause

from support.edits import edited, scaled
from support.layer_cases import layer_case
from support.layerwise import compare, data_of, only
from support.networks import residual
from support.runners import Off

Y = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
NEW_CAUSE = '''
"""Numbers. Looks at: how many elements there are. Proves: nothing."""

from dataclasses import dataclass

from layerdiff.compare.causes.diagnosis import Diagnosis
from layerdiff.compare.report.json import to_json
from layerdiff.compare.report.model import Cause


@dataclass(frozen=True)
class Elements:
    count: int

    @property
    def text(self) -> str:
        return f"{self.count:,} elements, which is unlucky"


def find(case):
    return Diagnosis(Cause.UNKNOWN, (Elements(case.y.size),))
'''


def first(case):
    """What the causes say in their order, without a runtime that float64 could be asked of."""
    return next(found for find in examiner.ORDER if (found := find(case)) is not None)


@pytest.mark.parametrize(
    ("c", "more", "cause"),
    [
        (Y.T, {}, Cause.WRONG_OP),
        (np.where(Y > 2, np.inf, Y), {"reason": "finite"}, Cause.NAN),
        (Y.clip(-1, 1), {}, Cause.SATURATION),
        (Y[::-1], {}, Cause.LAYOUT),
        (1.01 * Y, {}, Cause.SCALE),
        (Y * Y, {}, Cause.UNKNOWN),
        (Y * Y, {"quantized": True}, Cause.QUANTIZATION),
    ],
    ids=lambda value: value.value if isinstance(value, Cause) else "",
)
def test_the_first_cause_that_finds_something_is_the_cause(c, more, cause):
    assert first(layer_case(Y, c, **more)).cause is cause


def test_every_case_has_a_cause():
    assert first(layer_case(Y[:1, :1], Y[:1, :1] + 1)).cause is Cause.UNKNOWN


def test_a_new_cause_is_a_file_and_its_place_in_the_order(monkeypatch, tmp_path):
    (tmp_path / "unlucky_cause.py").write_text(NEW_CAUSE)
    monkeypatch.syspath_prepend(tmp_path)
    import unlucky_cause

    model, data = residual(), data_of("residual")
    wrong = edited(model, scaled("b2.w", 1.02))
    assert only(compare(model, wrong, data)).cause == "weights"
    monkeypatch.setattr(examiner, "ORDER", (unlucky_cause.find, *examiner.ORDER))
    culprit = only(compare(model, wrong, data))
    assert (culprit.cause, culprit.evidence) == ("unknown", "4,096 elements, which is unlucky")
    assert culprit.facts[0].count == 4096
    del sys.modules["unlucky_cause"]


def test_facts_reach_the_report_as_values_and_its_json_as_one_line():
    report = compare(residual(), Off(threads=1, node="n_b2", factor=1.25), data_of("residual"))
    culprit = only(report)
    assert culprit.facts[0].gain == pytest.approx(1.25, rel=1e-3)
    assert culprit.evidence == "; ".join(fact.text for fact in culprit.facts)
    (written,) = to_json(report)["culprits"]
    assert written["evidence"] == culprit.evidence
    assert type(written["cause"]) is str
    assert "facts" not in written
