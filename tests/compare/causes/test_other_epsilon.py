"""An epsilon that one file has as an attribute and the other one adds."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

PIECES = """g (float[16,32] x) => (float[16,32] y) {
    [fc] h = MatMul(x, w) [mean] a = ReduceMean<axes=[-1]>(h) [sub] d = Sub(h, a) [square] q = Mul(d, d)
    [var] v = ReduceMean<axes=[-1]>(q) [eps] e = Add(v, epsilon) [root] r = Sqrt(e) [div] n = Div(d, r)
    [gain] g = Mul(n, gamma) [bias] b = Add(g, beta) [y] y = Tanh(b) }"""
WHOLE = """g (float[16,32] x) => (float[16,32] y) {{
    [fc] h = MatMul(x, w) [norm] b = LayerNormalization<epsilon={}>(h, gamma, beta) [y] y = Tanh(b) }}"""
WEIGHTS = {"w": normal(32, 32, seed=1), "gamma": normal(32, seed=2), "beta": normal(32, seed=3)}
DATA = [{"x": normal(16, 32, seed=4)}]


def sides(pieces: float, whole: float):
    return parsed(PIECES, **WEIGHTS, epsilon=np.float32(pieces)), parsed(WHOLE.format(whole), **WEIGHTS)


@pytest.mark.parametrize("fused", [True, False])
def test_another_epsilon_is_told_where_one_side_is_one_operator(fused):
    one, other = sides(1e-5, 1e-2)
    culprit = only(compare(*((one, other) if fused else (other, one)), DATA))
    assert culprit.cause == "attribute"
    assert f"epsilon {'1e-05 against 0.01' if fused else '0.01 against 1e-05'}" in culprit.evidence
    assert culprit.remedies[0].text.startswith("set the epsilon of ")
    assert culprit.remedies[0].text.endswith(f" to {'1e-05' if fused else '0.01'}")


def test_the_same_epsilon_is_nobodys_fault():
    report = compare(*sides(1e-5, 1e-5), DATA)
    assert (report.outputs[0].verdict, report.culprits) == ("pass", ())


def test_an_epsilon_that_does_not_make_the_error_is_not_told():
    one, _ = sides(1e-5, 1e-5)
    other = parsed(WHOLE.format(1.1e-5), **WEIGHTS | {"gamma": WEIGHTS["gamma"] * np.float32(1.5)})
    assert all("epsilon" not in c.evidence for c in compare(one, other, DATA).culprits)
