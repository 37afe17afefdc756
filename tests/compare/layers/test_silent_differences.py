"""Numbers that differ between two files, where what they make is within what rounding explains: a notice says so."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import FP16, compare
from support.models import normal, parsed

WIDE = """g (float[64,32] x) => (float[64,32] y) {
    [square] q = Mul(x, x) [mean] m = ReduceMean<axes=[-1]>(q) [add] a = Add(m, eps) [root] r = Sqrt(a)
    [div] y = Div(x, r) }"""


def notices(report) -> list[str]:
    return [notice.text for notice in report.notices if notice.code == "other-number"]


@pytest.mark.parametrize(
    ("mine", "theirs", "told"),
    [(1e-6, 1e-4, True), (1e-6, 1e-6, False), (1e-12, 1e-7, False), (1e-12, 0.0, False), (0.01, 0.01, False)],
)
def test_another_epsilon_beside_the_rounding_of_fp16_is_told_with_a_pass(mine, theirs, told):
    one, other = (parsed(WIDE, eps=np.float32(eps)) for eps in (mine, theirs))
    report = compare(one, FP16, [{"x": normal(64, 32)}], candidate_model=other)
    (output,) = (o for o in report.outputs if o.candidate.startswith("emulate"))
    assert output.verdict == "pass"
    assert {c.candidate for c in report.culprits} <= {"onnxrt@<memory>"}
    assert len(notices(report)) == told
    if told:
        assert "Add add differs in the candidate's file, epsilon 1e-06 against 0.0001;" in notices(report)[0]


def test_a_bound_that_no_value_reaches_is_told():
    text = "g (float[8,4] x) => (float[8,4] y) { [clip] c = Clip(x, low, high) [y] y = Neg(c) }"
    sides = (parsed(text, low=np.float32(-9), high=np.float32(high)) for high in (6, 7))
    report = compare(*sides, [{"x": np.tanh(normal(8, 4))}])
    assert report.outputs[0].verdict == "pass"
    assert len(notices(report)) == 1


def test_numbers_that_take_each_other_back_are_not_told():
    text = "g (float[8,4] x) => (float[8,4] y) { [a] a = Mul(x, f) [b] b = Mul(a, g) [y] y = Tanh(b) }"
    sides = (parsed(text, f=np.float32(f), g=np.float32(4 / f)) for f in (2, 8))
    report = compare(*sides, [{"x": normal(8, 4)}], layers="all")
    assert (report.outputs[0].verdict, notices(report)) == ("pass", [])


def test_a_number_that_a_culprit_tells_is_not_told_again():
    sides = (parsed(WIDE, eps=np.float32(eps)) for eps in (1e-6, 0.1))
    report = compare(*sides, [{"x": normal(64, 32)}])
    assert report.culprits
    assert notices(report) == []
