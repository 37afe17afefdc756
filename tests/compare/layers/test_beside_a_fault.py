"""A rewriting that is no fault where the outputs agree is none beside a fault, either."""

from __future__ import annotations

import numpy as np

from support.layerwise import compare, only
from support.models import normal, parsed

WEIGHTS = {
    **{name: normal(16, 16, seed=i) / np.float32(4) for i, name in enumerate(("wq", "wk", "wv", "w"))},
    "heads": np.array([2, 6, 4, 4]),
    "flat": np.array([8, 6, 4]),
    "back": np.array([2, 4, 4, 6]),
    "joined": np.array([2, 6, 16]),
    "one": np.float32(1),
    "small": np.float32(1e-5),
    "g": 1 + normal(16, seed=8) / np.float32(4),
    "b": normal(16, seed=9),
}
DATA = [{"x": normal(2, 6, 16, seed=50)}]


def attention(keys: str, factor: float = 1.0, norm: str = "[norm] n = LayerNormalization<epsilon=0.00001>(x, g, b)"):
    text = f"""g (float[2,6,16] x) => (float[2,6,16] y) {{ {norm} [q] q = MatMul(n, wq) [k] k = MatMul(n, wk)
        [v] v = MatMul(n, wv) qr = Reshape(q, heads) kr = Reshape(k, heads) vr = Reshape(v, heads)
        qt = Transpose<perm=[0,2,1,3]>(qr) vt = Transpose<perm=[0,2,1,3]>(vr) {keys}
        [score] s = MatMul(qt, ks) [soft] p = Softmax(s) [mix] o = MatMul(p, vt)
        ot = Transpose<perm=[0,2,1,3]>(o) oj = Reshape(ot, joined) [out] y = MatMul(oj, w) }}"""
    return parsed(text, **{**WEIGHTS, "w": WEIGHTS["w"] * np.float32(factor)})


IN_STEPS = """nm = ReduceMean<axes=[-1]>(x) nd = Sub(x, nm) nq = Mul(nd, nd) nv = ReduceMean<axes=[-1]>(nq)
    ne = Add(nv, small) ns = Sqrt(ne) nn = Div(nd, ns) ng = Mul(nn, g) [norm] n = Add(ng, b)"""
SCALED = "[turn] kt = Transpose<perm=[0,2,3,1]>(kr) [scale] ks = Mul(kt, one)"
TURNED = """[turn] kt = Transpose<perm=[0,2,1,3]>(kr) [flat] kf = Reshape(kt, flat)
    [swap] kw = Transpose<perm=[0,2,1]>(kf) [scale] ks = Reshape(kw, back)"""


def test_keys_that_are_turned_otherwise():
    assert compare(attention(SCALED), attention(TURNED, norm=IN_STEPS), DATA).verdict == "pass"
    culprit = only(compare(attention(SCALED), attention(TURNED, 2.0, IN_STEPS), DATA))
    assert culprit.node == "out"


def test_keys_that_are_turned_wrongly_are_told():
    report = compare(attention(SCALED), attention(TURNED.replace("[0,2,1]>(kf)", "[0,1,2]>(kf)")), DATA)
    assert report.verdict == "fail"
    assert {culprit.node for culprit in report.culprits} <= {"turn", "scale"}


def normalized(epsilon: float, then: str):
    text = f"""g (float[2,6,16] x) => (float[2,6,16] y) {{
        [norm] n = LayerNormalization<epsilon={epsilon}>(x, g, b) {then} }}"""
    return parsed(text, **WEIGHTS)


def test_a_shape_that_one_file_gives_once_more_is_not_told_beside_what_it_is_given_to():
    culprit = only(
        compare(
            normalized(1e-5, "[back] r = Reshape(n, joined) [out] y = MatMul(r, w)"),
            normalized(0.2, "[out] y = MatMul(n, w)"),
            DATA,
        )
    )
    assert (culprit.node, culprit.cause) == ("norm", "attribute")
