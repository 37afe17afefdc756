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
    assert (culprit.node, culprit.cause) == ("product", "wrong-op")
    assert culprit.evidence == "Sigmoid, Mul against QuickGelu"
