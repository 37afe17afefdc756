"""The scale of an attention's scores: on the scores in one file, on queries and keys in the other."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

WIDE = 8
ROOT = np.float32(WIDE**-0.25)
WEIGHTS = {name: normal(WIDE, WIDE, seed=i) / 2 for i, name in enumerate(("wq", "wk", "wv", "wo"))}
DATA = [{"x": normal(2, 6, WIDE, seed=9)}]
SOFTMAX = {
    "whole": "[softmax] a = Softmax(s)",
    "in pieces": """[top] t = ReduceMax<axes=[-1]>(s) [less] l = Sub(s, t) [exp] p = Exp(l)
        [sum] u = ReduceSum(p, last) [share] a = Div(p, u)""",
}


def attention(scale: str, softmax: str = "whole", factor: float = 1.0, **others: np.ndarray):
    """Attention of two heads; ``scale``: what is multiplied by it, the scores, the queries, or both operands."""
    queries = {"both": "[q2] e = Mul(q, root)", "queries": "[q2] e = Mul(q, whole)"}.get(scale, "")
    keys = "[k1] j = Transpose<perm=[0,2,1,3]>(k) [k2] c = Mul(j, root) [k3] h = Transpose<perm=[0,1,3,2]>(c)"
    turned = keys if scale == "both" else "[k1] h = Transpose<perm=[0,2,3,1]>(k)"
    scores = "[scale] s = Div(z, whole)" if scale == "scores" else "[times] s = Mul(z, factor)"
    text = f"""g (float[2,6,{WIDE}] x) => (float[2,6,{WIDE}] y) {{
        [query] q0 = MatMul(x, wq) [key] k0 = MatMul(x, wk) [value] v0 = MatMul(x, wv)
        [q_heads] q1 = Reshape(q0, heads) [k_heads] k = Reshape(k0, heads) [v_heads] v1 = Reshape(v0, heads)
        [q1] q = Transpose<perm=[0,2,1,3]>(q1) [v1] v = Transpose<perm=[0,2,1,3]>(v1) {queries} {turned}
        [product] z = MatMul({"e" if queries else "q"}, h) {scores} {SOFTMAX[softmax]}
        [mix] b = MatMul(a, v) [back] d = Transpose<perm=[0,2,1,3]>(b) [flat] f = Reshape(d, sizes)
        [out] y = MatMul(f, wo) }}"""
    whole = np.float32(WIDE**0.5 if scale == "scores" else WIDE**-0.5)
    values = {
        **WEIGHTS, "root": np.array(ROOT), "whole": np.array(whole), "factor": np.array(factor, np.float32),
        "heads": np.array([2, 6, 2, WIDE // 2]), "sizes": np.array([2, 6, WIDE]), "last": np.array([-1]), **others,
    }  # fmt: skip
    return parsed(text, **{name: value for name, value in values.items() if f" {name})" in text})


@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("scale", ["both", "queries"])
@pytest.mark.parametrize("turned", [False, True])
def test_another_place_of_the_scale_is_no_fault(scale, softmax, turned):
    pair = attention("scores"), attention(scale, softmax)
    report = compare(*(pair[::-1] if turned else pair), DATA)
    assert (report.verdict, report.culprits) == ("pass", ())


@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("scale", ["both", "queries"])
@pytest.mark.parametrize("name", ["query", "key", "value", "out"])
def test_a_fault_beside_it_is_told_alone(name, scale, softmax):
    stored = f"w{name[0]}"
    wrong = WEIGHTS[stored] * np.where(np.arange(WIDE) == 1, np.float32(1.2), 1)
    culprit = only(compare(attention("scores"), attention(scale, softmax, **{stored: wrong}), DATA))
    assert (culprit.node, culprit.cause) == (name, "weights")


@pytest.mark.parametrize("scale", ["both", "queries"])
def test_another_scale_is_told_with_the_product(scale):
    culprit = only(compare(attention("scores"), attention(scale, factor=0.95), DATA))
    assert (culprit.node, culprit.cause) == ("times", "scale")
    assert "the constant of Mul times is 0.95: with 1" in culprit.evidence


def test_a_scale_that_one_file_has_more_is_told_where_it_stands():
    report = compare(attention("", factor=0.5), attention("queries", factor=0.5), DATA)
    assert only(report).node == "q1"
