"""Operators of ONNX Runtime's own that do more than one of ONNX's, beside the operators that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed
from support.rewrites import optimized

IMAGES = [{"x": normal(2, 3, 9, 9, seed=1)}]
CONVOLUTIONS = """g (float[2,3,9,9] x) => (float[2,4] y) {{
    [c0] a = Conv<pads=[1,1,1,1]>(x, w0, b0) [r0] b = Relu(a)
    [c1] c = Conv<pads={pads},dilations=[{step},{step}]>(b, w1, b1) {act}
    [sum] e = Add({left}, d) [c2] f = Conv<pads=[1,1,1,1]>(e, w2) [r2] h = LeakyRelu<alpha={slope}>(f)
    [pool] p = GlobalAveragePool(h) [flat] q = Flatten(p) [fc] y = MatMul(q, v) }}"""
USUAL = {"pads": "[1,1,1,1]", "step": 1, "act": "[r1] d = Relu(c)", "slope": 0.25, "left": "b"}
WEIGHTS = {
    "w0": normal(8, 3, 3, 3, seed=2) / 5, "b0": normal(8, seed=3), "w1": normal(8, 8, 3, 3, seed=4) / 8,
    "b1": normal(8, seed=5), "w2": normal(6, 8, 3, 3, seed=6) / 8, "v": normal(6, 4, seed=7),
}  # fmt: skip


def convolutions(weights=None, **changed):
    return parsed(CONVOLUTIONS.format(**{**USUAL, **changed}), **{**WEIGHTS, **(weights or {})})


CHANGED = [
    ({"pads": "[2,2,2,2]", "step": 2}, "c1", "attribute", "dilations [1, 1] against [2, 2]"),
    ({"pads": "[0,0,2,2]"}, "c1", "attribute", "pads [1, 1, 1, 1] against [0, 0, 2, 2]"),
    ({"act": "[r1] d = Identity(c)"}, "r1", "wrong-op", "Relu r1 is missing in the candidate"),
    ({"act": "[r1] d = Tanh(c)"}, "r1", "wrong-op", "Relu r1 against Tanh c1"),
    ({"slope": 0.5}, "r2", "attribute", "alpha 0.25 against 0.5"),
    ({"left": "a"}, "sum", "wrong-op", "reads"),
    ({"weights": {"w1": WEIGHTS["w1"] * 1.5}}, "c1", "weights", "all 1.5 times"),
    ({"weights": {"b1": 0 * WEIGHTS["b1"]}}, "c1", "weights", "biases differ"),
]


@pytest.mark.parametrize(("changed", "node", "cause", "text"), CHANGED)
def test_what_differs_inside_of_a_fused_convolution_is_told(changed, node, cause, text):
    culprit = only(compare(convolutions(), optimized(convolutions(**changed), "EXTENDED"), IMAGES))
    assert (culprit.node, culprit.cause) == (node, cause)
    assert text in culprit.evidence


def test_fused_convolutions_are_no_fault():
    fused = optimized(convolutions(), "EXTENDED")
    assert any(node.op_type == "FusedConv" for node in fused.graph.node)
    for pair in ((convolutions(), fused), (fused, convolutions()), (fused, fused)):
        report = compare(*pair, IMAGES)
        assert (report.verdict, report.culprits) == ("pass", ())


def test_a_sum_in_a_convolution_is_told_where_it_is_missing():
    def one(addend: str):
        step = f'[one] d = com.microsoft.FusedConv<activation="Relu",pads=[1,1,1,1]>(b, w1, b1{addend})'
        text = CONVOLUTIONS.format(**{**USUAL, "act": step})
        return parsed(text, domains=["com.microsoft"], **WEIGHTS)

    apart = convolutions(act="[s1] s = Add(c, b) [r1] d = Relu(s)")
    assert compare(apart, one(", b"), IMAGES).verdict == "pass"
    culprit = only(compare(apart, one(""), IMAGES))
    assert culprit.node == "s1"
    assert "Add s1 is missing in the candidate" in culprit.evidence


ROWS = [{"x": normal(4, 8, seed=8)}]
MATRICES = {name: normal(8, 8, seed=10 + i) / 2 for i, name in enumerate("uvw")}


def matrices(steps: str):
    text = f"g (float[4,8] x) => (float[4,8] y) {{ [first] a = MatMul(x, u) {steps} [last] y = MatMul(z, w) }}"
    read = {"half": np.float32(0.5)} if "half" in steps else {}
    return parsed(text, domains=["com.microsoft"], **MATRICES, bias=normal(8, seed=9), **read)


LINEAR = "[linear] b = Gemm(a, v, bias) [half] c = Mul(b, half) [act] z = Tanh(c)"
FUSED = '[one] z = com.microsoft.FusedGemm<activation="{}">(a, v, bias)'


def test_a_factor_that_a_fused_product_of_matrices_lacks_is_told():
    culprit = only(compare(matrices(LINEAR), matrices(FUSED.format("Tanh")), ROWS))
    assert culprit.node == "half"
    assert "Mul half is missing in the candidate" in culprit.evidence


def test_another_activation_of_a_product_of_matrices_is_told():
    plain = matrices("[linear] b = Gemm(a, v, bias) [act] z = Tanh(b)")
    assert compare(plain, matrices(FUSED.format("Tanh")), ROWS).verdict == "pass"
    culprit = only(compare(plain, matrices(FUSED.format("Softsign")), ROWS))
    assert (culprit.node, culprit.cause) == ("act", "wrong-op")
    assert "Tanh act against Softsign one" in culprit.evidence


SCORES = "[turn] t = Transpose<perm=[1,0]>(a) [score] s = MatMul(a, t) [soft] p = Softmax(s) [mix] z = MatMul(p, a)"
ONE = "[one] s = com.microsoft.FusedMatMul<alpha={},transB=1>(a, a) [soft] p = Softmax(s) [mix] z = MatMul(p, a)"


def test_a_product_that_transposes_and_scales_is_no_fault_and_another_factor_is():
    scaled = SCORES.replace("[soft] p = Softmax(s)", "[half] h = Mul(s, half) [soft] p = Softmax(h)")
    assert not compare(matrices(scaled), matrices(ONE.format(0.5)), ROWS).culprits
    culprit = only(compare(matrices(scaled), matrices(ONE.format(0.25)), ROWS))
    assert culprit.node in ("half", "score")


@pytest.mark.parametrize(("op", "beta"), [("Add", 1.0), ("Sub", -1.0)])
def test_a_product_of_matrices_that_adds_what_another_node_makes_is_a_sum(op, beta):
    def network(step: str):
        return matrices(f"[other] r = MatMul(x, w) {step}")

    apart = network(f"[linear] b = MatMul(a, v) [sum] z = {op}(b, r)")
    assert compare(apart, network(f"[one] z = Gemm<beta={beta}>(a, v, r)"), ROWS).verdict == "pass"
    culprit = only(compare(apart, network(f"[one] z = Gemm<beta={-beta}>(a, v, r)"), ROWS))
    assert (culprit.node, culprit.cause) == ("sum", "wrong-op")
    assert f"{op} sum against {'Sub' if op == 'Add' else 'Add'} one" in culprit.evidence


PARTS = "[left] p = {left} [right] q = {right} [mix] z = Sub(p, q)"
CUT = [np.array([n]) for n in (0, 4, 8, 1)]


@pytest.mark.parametrize(
    ("apart", "one"),
    [
        (
            PARTS.format(left="Slice(a, zero, four, axis)", right="Slice(a, four, eight, axis)"),
            "[one] {} = Split<axis=1>(a, fours) [mix] z = Sub(p, q)",
        ),
        (
            PARTS.format(left="Gather<axis=0>(b, first)", right="Gather<axis=0>(b, second)"),
            "[one] {} = Split<axis=0>(b, ones) p = Squeeze(s, zero) q = Squeeze(t, zero) [mix] z = Sub(p, q)",
        ),
    ],
    ids=["slices", "gathers"],
)
def test_a_split_is_the_slices_or_gathers_that_it_stands_for(apart, one):
    def network(steps: str):
        text = f"""g (float[2,8] x) => (float[N,M] y) {{ [l0] a = MatMul(x, u) [l1] b = MatMul(a, v) {steps}
            [act] y = Tanh(z) }}"""
        given = dict(zip(("zero", "four", "eight", "axis"), CUT, strict=True))
        given |= {"fours": np.array([4, 4]), "ones": np.array([1, 1]), "first": np.int64(0), "second": np.int64(1)}
        read = {name: value for name, value in given.items() if name in text}
        return parsed(text, u=MATRICES["u"], v=MATRICES["v"], **read)

    data = [{"x": normal(2, 8, seed=8)}]
    names = ("s, t", "t, s") if "Squeeze" in one else ("p, q", "q, p")
    assert compare(network(apart), network(one.format(names[0])), data).verdict == "pass"
    report = compare(network(apart), network(one.format(names[1])), data)
    assert report.verdict == "fail"
    assert {culprit.node for culprit in report.culprits} <= {"left", "right", "mix"}


def test_a_sum_and_an_activation_in_a_product_of_matrices_hide_no_weights():
    def network(step: str, **changed: np.ndarray):
        text = f"g (float[4,8] x) => (float[4,8] y) {{ [other] r = MatMul(x, w) {step} [last] y = MatMul(z, u) }}"
        return parsed(text, domains=["com.microsoft"], **{**MATRICES, **changed})

    apart = network("[linear] b = MatMul(x, v) [sum] c = Add(b, r) [act] z = Tanh(c)")
    one = '[one] z = com.microsoft.FusedGemm<activation="Tanh">(x, v, r)'
    assert compare(apart, network(one), ROWS).verdict == "pass"
    culprit = only(compare(apart, network(one, v=MATRICES["v"].T), ROWS))
    assert (culprit.node, culprit.cause) == ("linear", "weights")
    assert "equal to the transpose" in culprit.evidence


def test_a_factor_that_is_multiplied_into_weights_is_no_fault_beside_one_behind():
    def network(step: str, op: str, factor: float = 1.0):
        text = f"""g (float[4,8] x) => (float[4,4] y) {{ [first] a = MatMul(x, u) [act] r = Tanh(a) {step}
            [left] l = Slice(s, zero, four, axis) [right] q = Slice(s, four, eight, axis)
            [one] m = {op}(grid, l) [two] n = {op}(grid, q) [both] b = Mul(m, n) [last] y = Softmax(b) }}"""
        weights = {"u": MATRICES["u"], "v": MATRICES["v"] * np.float32(factor), "grid": normal(4, 4, seed=3)}
        read = dict(zip(("zero", "four", "eight", "axis"), CUT, strict=True))
        return parsed(text, **weights, **read, **({"two_times": np.float32(2)} if "two_times" in step else {}))

    apart = "[linear] p = MatMul(r, v) [double] s = Mul(p, two_times)"
    folded = network("[linear] s = MatMul(r, v)", "Sub", 2.0)
    report = compare(network(apart, "Add"), folded, ROWS)
    assert report.culprits
    assert not any("weights differ" in culprit.evidence for culprit in report.culprits)


def test_a_bias_of_zeros_is_another_bias_where_the_first_file_adds_it_behind():
    text = """g (float[2,3,9,9] x) => (float[2,8,9,9] y) {{
        [c0] a = {} [r] y = Relu(a) }}"""
    product = "Conv<pads=[1,1,1,1]>(x, w{})"
    weights = {"w": WEIGHTS["w0"], "shift": WEIGHTS["b0"].reshape(1, 8, 1, 1), "zeros": 0 * WEIGHTS["b0"]}
    added = parsed(
        text.format(f"{product.format('')} [more] b = Add(a, shift)").replace("Relu(a)", "Relu(b)"), **weights
    )
    zeros = parsed(text.format(product.format(", zeros")), **weights)
    without = parsed(text.format(product.format("")), **weights)
    found = [only(compare(added, other, IMAGES)) for other in (zeros, without)]
    assert [culprit.cause for culprit in found] == ["weights", "wrong-op"]
    assert "all zero in the candidate" in found[0].evidence
    assert "Add more is missing in the candidate" in found[1].evidence
