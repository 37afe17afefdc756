"""Adapters of low rank that one file has multiplied into the weights that they adapt."""

from __future__ import annotations

import ml_dtypes
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


ADAPTER = "the adapter MatMul down1 and MatMul up1"
ANOTHER = "the adapter MatMul down0 and MatMul up0"
TURNED = (LOW["d1"] @ LOW["u1"]).T


@pytest.mark.parametrize(
    ("factor", "delta", "says", "how"),
    [
        (1, None, f"{ADAPTER} with a scale of 1, where the reference has 2", " with a scale of 2"),
        (4, None, f"{ADAPTER} with a scale of 4, where the reference has 2", " with a scale of 2"),
        (-2, None, f"{ADAPTER} with a scale of -2, where the reference has 2", " with a scale of 2"),
        (2, TURNED, f"{ADAPTER} transposed;", ", not transposed"),
        (1, TURNED, f"{ADAPTER} transposed with a scale of 1,", " with a scale of 2, not transposed"),
        (2, LOW["d0"] @ LOW["u0"], f"{ANOTHER}, where the reference adds {ADAPTER}", ""),
    ],
    ids=["without its factor", "twice", "subtracted", "turned", "turned without its factor", "another one's"],
)
@pytest.mark.parametrize("renamed", [False, True])
def test_an_adapter_that_is_merged_wrongly_is_told_as_it_was_merged(factor, delta, says, how, renamed):
    other = merged(factor, 1, delta)
    if renamed:
        for i, node in enumerate(other.graph.node):
            node.name = f"n{i}"
    into = other.graph.node[5].name
    culprit = only(compare(network(APART, BASE | LOW | TWO), other, DATA))
    assert (culprit.node, culprit.cause, culprit.candidate_node or culprit.node) == ("base1", "weights", into)
    assert culprit.evidence.startswith(f"the candidate has merged {says}")
    (remedy,) = culprit.remedies
    assert remedy.text == f"merge {ADAPTER} into {into} again{how}, as the first file adds it"


@pytest.mark.parametrize(
    ("factor", "says", "text"),
    [
        (1, f"{ADAPTER} with a scale of 1, where the candidate has 2", f"set the scale of {ADAPTER} to 1"),
        (0, "not merged into Gemm base1 of the reference either", "leave MatMul down1, MatMul up1"),
    ],
)
def test_an_adapter_that_the_first_file_has_merged_otherwise_is_told_so(factor, says, text):
    culprit = only(compare(merged(factor, 1), network(APART, BASE | LOW | TWO), DATA))
    assert says in culprit.evidence
    assert culprit.remedies[0].text.startswith(text)


def test_weights_that_are_no_adapter_times_a_number_differ_by_a_share_of_them():
    culprit = only(compare(network(APART, BASE | LOW | TWO), merged(1, 1, normal(8, 8, seed=99)), DATA))
    assert "64 of 64 weights differ from the reference's after folding (relative L2 difference " in culprit.evidence
    (remedy,) = culprit.remedies
    assert (
        remedy.text == "fold down1, up1, alpha1 and join1 into base1 again, or put back there what the first file has"
    )


def test_merged_weights_that_are_rounded_are_told_so():
    other = merged()
    weight = next(w for w in other.graph.initializer if w.name == "w1")
    rounded = onnx.numpy_helper.to_array(weight).astype(ml_dtypes.bfloat16).astype(np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(rounded, "w1"))
    culprit = only(compare(network(APART, BASE | LOW | TWO), other, DATA))
    assert "all 64 weights equal to the reference's after folding, rounded to BF16" in culprit.evidence


def test_an_adapter_that_is_left_out_is_missing():
    culprit = only(compare(network(APART, BASE | LOW | TWO), merged(0, 1), DATA))
    assert "MatMul down1, MatMul up1, Mul alpha1" in culprit.evidence
    assert "missing in the candidate, and not merged into Gemm base1 of the candidate either" in culprit.evidence
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
    assert (culprit.node, culprit.cause) == ("join1", "wrong-op")
    assert "bias" not in culprit.evidence


def test_an_adapter_that_is_not_merged_is_told_where_another_one_shares_its_first_product():
    text = """g (float[6,8] x) => (float[6,8] y, float[6,8] z) {{ [norm] n = LayerNormalization(x, g0, b0)
        [base0] p0 = MatMul(n, w0) [base1] p1 = MatMul(n, w1) {0} [y] y = Tanh({1}) [z] z = Sin({2}) }}"""
    apart = """[down] l = MatMul(n, d0) [up0] a0 = MatMul(l, u0) [up1] a1 = MatMul(l, u1)
        [join0] q0 = Add(p0, a0) [join1] q1 = Add(p1, a1)"""
    read = {name: (BASE | LOW)[name] for name in ("g0", "b0", "w0", "w1")}
    low = {name: LOW[name] for name in ("d0", "u0", "u1")}
    one_merged = read | {"w1": (BASE["w1"] + LOW["d0"] @ LOW["u1"]).astype(np.float32)}
    report = compare(
        parsed(text.format(apart, "q0", "q1"), **read, **low), parsed(text.format("", "p0", "p1"), **one_merged), DATA
    )
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("join0", "wrong-op")
    assert "not merged into MatMul base0 of the candidate either" in culprit.evidence
