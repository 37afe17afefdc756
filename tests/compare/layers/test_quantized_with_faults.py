"""Networks that were quantized with a fault in them: ranges behind it are those of other values."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed
from support.quantized import exact, quantized

RESIDUAL = """g (float[64,16] x) => (float[64,8] y) {{
    [one] a = MatMul(x, v) [act] p = Relu(a) [two] b = MatMul(p, w) [add] s = Add({0}) [act2] r = Relu(s)
    [three] c = MatMul(r, u) [act3] q = Relu(c) [last] y = MatMul(q, t) }}"""
WEIGHTS = {"v": normal(16, 16, seed=1) / 4, "w": normal(16, 16, seed=2) / 4, "u": normal(16, 16, seed=3) / 4}
WEIGHTS |= {"t": normal(16, 8, seed=4) / 4}
DATA = [{"x": normal(64, 16, seed=9)}]


def report_of(mine: str, theirs: str, kind: str, **others: np.ndarray):
    network = parsed(RESIDUAL.format(mine), **WEIGHTS)
    file = quantized(parsed(RESIDUAL.format(theirs), **WEIGHTS | others), kind, DATA)
    return compare(network, file, DATA, ort=exact(file))


@pytest.mark.parametrize("kind", ["qdq", "qoperator"])
def test_an_addition_that_reads_one_branch_twice_is_told_where_the_quantizer_makes_up_for_the_relu_behind(kind):
    culprit = only(report_of("p, b", "b, b", kind))
    assert (culprit.node, culprit.cause) == ("add", "wrong-op")
    assert "in the candidate, and 'p' in the reference" in culprit.evidence
    assert "limited" not in culprit.evidence


@pytest.mark.parametrize("kind", ["qdq", "qoperator"])
def test_ranges_that_were_calibrated_behind_a_fault_are_none_of_their_own(kind):
    culprit = only(report_of("p, b", "p, b", kind, v=WEIGHTS["v"].T.copy() / 8))
    assert culprit.node == "one"
    assert "other than the reference's values need (" in culprit.evidence


def test_a_range_that_is_too_narrow_before_a_fault_is_told_beside_it():
    network = parsed(RESIDUAL.format("p, b"), **WEIGHTS)
    other = parsed(RESIDUAL.format("p, b"), **WEIGHTS | {"u": WEIGHTS["u"].T.copy()})
    file = quantized(other, "qdq", [{"x": DATA[0]["x"] / 8}])
    report = compare(network, file, DATA, ort=exact(file))
    assert {culprit.cause for culprit in report.culprits} >= {"saturation"}


@pytest.mark.parametrize("kind", ["qdq", "qoperator"])
def test_a_range_that_a_small_fault_has_moved_is_none_of_its_own(kind):
    text = """g (float[64,16] x) => (float[64,8] y) {{ [one] a = MatMul(x, v) [act] p = LeakyRelu<alpha = {0}>(a)
        [two] b = MatMul(x, w) [three] q = Relu(b) [join] c = Concat<axis = 1>(p, q) [last] y = MatMul(c, t) }}"""
    weights = {"v": WEIGHTS["v"], "w": WEIGHTS["w"], "t": normal(32, 8, seed=4) / 4}
    mine, theirs = (parsed(text.format(alpha), **weights) for alpha in (0.2, 0.1))
    file = quantized(theirs, kind, DATA)
    culprit = only(compare(mine, file, DATA, ort=exact(file)))
    assert (culprit.node, culprit.cause) == ("act", "attribute")
