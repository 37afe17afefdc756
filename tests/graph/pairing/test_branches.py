"""Adapters of low rank that one file has multiplied into the weights that they adapt."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

BASE = {f"w{i}": normal(8, 8, seed=i) / 2 for i in range(3)} | {f"c{i}": normal(8, seed=9 + i) for i in range(3)}
BASE |= {f"g{i}": 1 + normal(8, seed=60 + i) / 9 for i in range(3)} | {
    f"b{i}": normal(8, seed=70 + i) for i in range(3)
}
LOW = {f"d{i}": normal(8, 2, seed=20 + i) / 2 for i in range(3)}
LOW |= {f"u{i}": normal(2, 8, seed=30 + i) for i in range(3)}
TWO = {"two": np.float32(2)}
DATA = [{"x": normal(6, 8, seed=50)}]


def network(block: str, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes = " ".join(block.format(i=i, x="x" if not i else f"h{i - 1}") for i in range(3))
    return parsed(f"g (float[6,8] x) => (float[6,8] h2) {{ {nodes} }}", **weights)


APART = """[norm{i}] n{i} = LayerNormalization({x}, g{i}, b{i}) [base{i}] p{i} = Gemm(n{i}, w{i}, c{i})
    [down{i}] l{i} = MatMul(n{i}, d{i}) [up{i}] a{i} = MatMul(l{i}, u{i})
    [alpha{i}] s{i} = Mul(a{i}, two) [join{i}] q{i} = Add(p{i}, s{i})
    [act{i}] t{i} = Tanh(q{i}) [sum{i}] h{i} = Add({x}, t{i})"""
MERGED = """[norm{i}] n{i} = LayerNormalization({x}, g{i}, b{i}) [base{i}] p{i} = Gemm(n{i}, w{i}, c{i})
    [act{i}] t{i} = Tanh(p{i}) [sum{i}] h{i} = Add({x}, t{i})"""


def merged(factor: float = 2, at: int = -1, delta: np.ndarray | None = None) -> onnx.ModelProto:
    """The same network with the adapters merged, that at one place otherwise."""
    weights = dict(BASE)
    for i in range(3):
        each = LOW[f"d{i}"] @ LOW[f"u{i}"]
        change = 2 * each if i != at else factor * (each if delta is None else delta)
        weights[f"w{i}"] = (BASE[f"w{i}"] + change).astype(np.float32)
    return network(MERGED, weights)


def test_adapters_that_are_merged_rightly_are_no_fault():
    report = compare(network(APART, BASE | LOW | TWO), merged(), DATA)
    assert report.verdict == "pass"
    assert not report.culprits


@pytest.mark.parametrize(
    ("factor", "delta"),
    [(1, None), (4, None), (2, (LOW["d1"] @ LOW["u1"]).T), (2, LOW["d0"] @ LOW["u0"])],
    ids=["without its factor", "twice", "turned", "another one's"],
)
def test_an_adapter_that_is_merged_wrongly_is_one_fault(factor, delta):
    culprit = only(compare(network(APART, BASE | LOW | TWO), merged(factor, 1, delta), DATA))
    assert (culprit.node, culprit.cause) == ("base1", "weights")
    assert "weights differ from the reference's after folding" in culprit.evidence
    (remedy,) = culprit.remedies
    assert (
        remedy.text == "fold down1, up1, alpha1 and join1 into base1 again, or put back there what the first file has"
    )


def test_an_adapter_that_is_left_out_is_missing():
    culprit = only(compare(network(APART, BASE | LOW | TWO), merged(0, 1), DATA))
    assert "MatMul down1, MatMul up1, Mul alpha1" in culprit.evidence
    assert "missing in the candidate" in culprit.evidence
    assert culprit.remedies[0].text.startswith("put the first file's MatMul down1, MatMul up1, Mul alpha1 (with 2)")


BEHIND = APART.replace("Gemm(n{i}, w{i}, c{i})", "MatMul(n{i}, w{i})").replace(
    "[act{i}] t{i} = Tanh(q{i})", "[bias{i}] r{i} = Add(q{i}, c{i}) [act{i}] t{i} = Tanh(r{i})"
)
"""The bias is added behind the adapter, and stands in the product where that is merged."""


@pytest.mark.parametrize("factor", [2, 0])
def test_a_bias_behind_an_adapter_is_no_fault_beside_weights_that_are_merged_wrongly(factor):
    report = compare(network(BEHIND, BASE | LOW | TWO), merged(factor, at=1), DATA)
    if factor == 2:
        assert (report.verdict, report.culprits) == ("pass", ())
        return
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("base1", "weights")
    assert "bias" not in culprit.evidence
