"""A sum and the normalization behind it, where one file has them in one operator of ONNX Runtime's own."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

WIDE = 8
WEIGHTS = {
    **{name: normal(WIDE, WIDE, seed=i) / 2 for i, name in enumerate(("w", "v", "u"))},
    "gamma": 1 + normal(WIDE, seed=5) / 4, "beta": normal(WIDE, seed=6), "bias": normal(WIDE, seed=7),
}  # fmt: skip
DATA = [{"x": normal(2, 4, WIDE, seed=9)}]
MIDDLE = {
    "apart": """[biased] c = Add(b, bias) [sum] s = Add(a, c)
        [norm] n = LayerNormalization<epsilon={eps}>(s, gamma, beta)""",
    "fused": """[biased] c = Add(b, bias)
        [skip] n = com.microsoft.SkipLayerNormalization<epsilon={eps}>(a, c, gamma, beta)""",
    "with the bias": "[skip] n = com.microsoft.SkipLayerNormalization<epsilon={eps}>(a, b, gamma, beta, bias)",
    "with the sum": """[biased] c = Add(b, bias)
        [skip] n, , , s = com.microsoft.SkipLayerNormalization<epsilon={eps}>(a, c, gamma, beta)""",
}
ONE = [name for name in MIDDLE if name != "apart"]


def network(middle: str, eps: float = 1e-5, *, reads_sum: bool = False, **others: np.ndarray):
    end = "[more] t = Add(n, s) [last] y = MatMul(t, u)" if reads_sum else "[last] y = MatMul(n, u)"
    steps = MIDDLE[middle]
    text = f"""g (float[2,4,{WIDE}] x) => (float[2,4,{WIDE}] y) {{
        [first] a = MatMul(x, w) [second] b = MatMul(a, v) {steps.format(eps=eps)} {end} }}"""
    domains = [] if middle == "apart" else ["com.microsoft"]
    return parsed(text, domains=domains, **{**WEIGHTS, **others})


def pair(fused: str, turned: bool = False, eps: float = 1e-5, **others: np.ndarray):
    reads_sum = fused == "with the sum"
    first, second = network("apart", reads_sum=reads_sum), network(fused, eps, reads_sum=reads_sum, **others)
    return (second, first) if turned else (first, second)


@pytest.mark.parametrize("fused", ONE)
@pytest.mark.parametrize("turned", [False, True])
def test_both_in_one_operator_are_no_fault(fused, turned):
    report = compare(*pair(fused, turned), DATA)
    assert (report.verdict, report.culprits) == ("pass", ())


@pytest.mark.parametrize("fused", ONE)
def test_another_epsilon_is_told_with_both_values(fused):
    culprit = only(compare(*pair(fused, eps=0.1), DATA))
    assert (culprit.node, culprit.cause) == ("norm", "attribute")
    assert "epsilon 1e-05 against 0.1" in culprit.evidence
    culprit = only(compare(*pair(fused, turned=True, eps=0.1), DATA))
    assert (culprit.node, culprit.cause) == ("skip", "attribute")
    assert "epsilon 0.1 against 1e-05" in culprit.evidence


@pytest.mark.parametrize("fused", ONE)
@pytest.mark.parametrize(("name", "node"), [("gamma", "norm"), ("w", "first"), ("u", "last")])
def test_weights_are_compared_beside_it(fused, name, node):
    culprit = only(compare(*pair(fused, **{name: np.flip(WEIGHTS[name], -1)}), DATA))
    assert (culprit.node, culprit.cause) == (node, "weights")


def test_what_is_behind_it_is_told_without_it():
    def network(*middle: str, domains=()):
        text = f"""g (float[2,4,{WIDE}] x) => (float[2,4,{WIDE}] y) {{
            [first] a = MatMul(x, w) [second] b = MatMul(a, v) {" ".join(middle)} [last] y = MatMul(m, u) }}"""
        return parsed(text, domains=domains, **WEIGHTS)

    apart = network(MIDDLE["apart"].format(eps=1e-5), "[gate] g = Sigmoid(n) [product] m = Mul(n, g)")
    quick = "[quick] m = com.microsoft.QuickGelu<alpha=1.7>(n)"
    fused = network(MIDDLE["with the bias"].format(eps=1e-5), quick, domains=["com.microsoft"])
    culprit = only(compare(apart, fused, DATA))
    assert (culprit.node, culprit.cause) == ("product", "attribute")
    assert culprit.evidence == "alpha of QuickGelu quick is 1.7: with 1 it makes what the first file does"


FLAT = {
    "wide": "[up] h0 = MatMul(x, w) [up_bias] h = Add(h0, bias)",
    "flat": "[down_to_rows] r = Reshape(x, rows) [gemm] g = Gemm(r, w, bias) [back] h = Reshape(g, sizes)",
    "wide heads": """[up] h0 = MatMul(x, w) [up_bias] h1 = Add(h0, bias) [split] h2 = Reshape(h1, heads)
        [turn] h3 = Transpose<perm=[0,2,1,3]>(h2) [gate] h4 = Sigmoid(h3) [back] h5 = Transpose<perm=[0,2,1,3]>(h4)
        [join] h6 = Reshape(h5, sizes) [mix] h7 = MatMul(h6, v) [mix_bias] h = Add(h7, beta)""",
    "flat heads": """[r0] r = Reshape(x, rows) [g0] g = Gemm(r, w, bias) [split] h2 = Reshape(g, heads)
        [turn] h3 = Transpose<perm=[0,2,1,3]>(h2) [gate] h4 = Sigmoid(h3) [back] h5 = Transpose<perm=[0,2,1,3]>(h4)
        [r1] r6 = Reshape(h5, rows) [g1] h7 = Gemm(r6, v, beta) [back_] h = Reshape(h7, sizes)""",
}
GELU = {
    "pieces": """[div] e0 = Div(h, root) [erf] e1 = Erf(e0) [more] e2 = Add(e1, one) [times] e3 = Mul(h, e2)
        [half] e = Mul(e3, half)""",
    "one": "[gelu] e = com.microsoft.Gelu(h)",
    "fast": "[gelu] e = com.microsoft.FastGelu(h)",
}


def products(first: str, gelu: str = "pieces", norm: str = "whole", **others: np.ndarray):
    """A normalization, a product of all tokens, and an activation, before another product."""
    norms = {
        "whole": "[norm] x = LayerNormalization(a, gamma, beta)",
        "pieces": """[mean] n0 = ReduceMean<axes=[-1]>(a) [less] n1 = Sub(a, n0) [square] n2 = Mul(n1, n1)
            [var] n3 = ReduceMean<axes=[-1]>(n2) [eps] n4 = Add(n3, eps) [deviation] n5 = Sqrt(n4)
            [over] n6 = Div(n1, n5) [gain] n7 = Mul(n6, gamma) [shift] x = Add(n7, beta)""",
    }
    text = f"""g (float[2,4,{WIDE}] a) => (float[2,4,{WIDE}] y) {{
        {norms[norm]} {FLAT[first]} {GELU[gelu]} [last] y = MatMul(e, u) }}"""
    numbers = {"root": 2**0.5, "one": 1, "half": 0.5, "eps": 1e-5}
    shapes = {"rows": [8, WIDE], "sizes": [2, 4, WIDE], "heads": [2, 4, 2, WIDE // 2]}
    values = {
        **WEIGHTS, **{name: np.array(shape) for name, shape in shapes.items()},
        **{name: np.array(value, np.float32) for name, value in numbers.items()}, **others,
    }  # fmt: skip
    read = {name: value for name, value in values.items() if f" {name})" in text or f" {name}," in text}
    return parsed(text, domains=["com.microsoft"] if "microsoft" in text else [], **read)


TOKENS = [{"a": normal(2, 4, WIDE, seed=9)}]


@pytest.mark.parametrize("heads", ["", " heads"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_of_rows_that_is_one_of_tokens_is_no_fault(heads, turned):
    pair = products(f"wide{heads}"), products(f"flat{heads}", "one", "pieces")
    report = compare(*(pair[::-1] if turned else pair), TOKENS)
    assert (report.verdict, report.culprits) == ("pass", ())


@pytest.mark.parametrize("heads", ["", " heads"])
def test_its_weights_are_compared(heads):
    wrong = WEIGHTS["w"] * np.where(np.arange(WIDE) == 3, np.float32(1.2), 1)
    report = compare(products(f"wide{heads}"), products(f"flat{heads}", "one", "pieces", w=wrong), TOKENS)
    assert (only(report).node, only(report).cause) == ("up", "weights")
    assert "8 of 64 weights differ" in only(report).evidence


def test_an_activation_between_such_products_is_told_alone():
    culprit = only(compare(products("wide"), products("flat", "fast", "pieces"), TOKENS))
    assert (culprit.node, culprit.cause) == ("half", "wrong-op")
    assert culprit.evidence == "Div, Erf, Add, Mul, Mul against FastGelu"
