"""Branches that no sample takes are told: nothing in them was compared."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner

from support.models import parsed

CHOICE = """g (float[N, 4] x, int64 rate) => (float[N, 4] y) {{
    high = Constant<value_int = 16>() c = Equal(rate, high)
    y = If(c) <then_branch = a () => (float[N, 4] t) {{ t = Relu(x) }},
               else_branch = b () => (float[N, 4] e) {{ k = Constant<value_float = {factor}>() e = {body} }}> }}"""
GIVEN = """g (float[N, 4] x, bool c) => (float[N, 4] y) {
    y = If(c) <then_branch = a () => (float[N, 4] t) { t = Relu(x) },
               else_branch = b () => (float[N, 4] e) { e = Neg(x) }> }"""
X = np.arange(8, dtype=np.float32).reshape(2, 4) - 3


def told(model, data, other=None):
    runners = [OnnxrtRunner()] if other is not None else [OnnxrtRunner(), OnnxrtRunner()]
    report = Comparator(parsed(model), runners, candidate_model=other and parsed(other), data_loader=data).compare()
    assert report.verdict == "pass"
    return [notice.text for notice in report.notices if notice.code == "branch-not-run"]


def of_rates(*rates):
    return [{"x": X, "rate": np.array(rate)} for rate in rates]


def choice(factor=1.0, body="Mul(x, k)"):
    return CHOICE.format(factor=factor, body=body)


NOT_RUN = "branch of If_2 ({}) ran in no sample: the condition was {} in all of them, and nothing in it was compared"


@pytest.mark.parametrize(
    ("model", "data", "other", "text"),
    [
        (choice(), of_rates(16, 16), None, "The else " + NOT_RUN.format("2 nodes", "true") + "."),
        (choice(), of_rates(8), None, "The then " + NOT_RUN.format("1 node", "false") + "."),
        (choice(), of_rates(8, 16), None, None),
        (
            choice(),
            of_rates(16),
            choice(-1.0),
            "The else " + NOT_RUN.format("2 nodes", "true") + ", though the files differ there.",
        ),
        (choice(body="Identity(x)"), of_rates(16), None, None),  # a branch that exporters write for a Squeeze
        (
            GIVEN,
            [{"x": X, "c": np.array(True)}],
            None,
            "The else " + NOT_RUN.format("1 node", "true").replace("If_2", "If_0") + ".",
        ),
    ],
)
def test_a_branch_that_no_sample_takes_is_told(model, data, other, text):
    assert told(model, data, other) == ([] if text is None else [text])
