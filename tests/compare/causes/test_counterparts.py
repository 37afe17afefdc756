"""A layer that both sides compute with other operators is taken apart where tensors inside stand for each other."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

QKV = "float[2, 4, 9, 6]"
ATTENTION = f"g ({QKV} q, {QKV} k, {QKV} v) => ({QKV} y) {{ %s y = MatMul(p, v) }}"
PLAIN = ATTENTION % "kt = Transpose<perm=[0, 1, 3, 2]>(k) [scores] s = MatMul(q, kt) d = Div(s, root) p = Softmax(d)"
PIECES = """
m = ReduceMax<axes=[-1]>(z) c = Sub(z, m) e = Exp(c) t = ReduceSum(e, last) p = Div(e, t)
"""
ON_BOTH = "qs = Mul(q, half) ks = Mul(k, half) kt = Transpose<perm=[0, 1, 3, 2]>(ks) z = MatMul(qs, kt)" + PIECES
BESIDE = (
    "qs = Mul(q, half) ks = Mul(k, half) kt = Transpose<perm=[0, 1, 3, 2]>(ks) zs = MatMul(qs, kt)"
    " [factor] z = Mul(zs, beside)" + PIECES
)
FACTORS = {"last": np.array([-1]), "beside": np.float32(0.95)}
DATA = [{name: 2 * normal(2, 4, 9, 6, seed=i) for i, name in enumerate("qkv")}]


def attention(inside: str, half: float = 6**-0.25):
    return parsed(ATTENTION % inside, half=np.float32(half), **FACTORS)


def test_a_scale_that_was_forgotten_in_an_attention_written_otherwise_is_told():
    reference = parsed(PLAIN, root=np.float32(6**0.5))
    culprit = only(compare(reference, attention(ON_BOTH, half=0.97 * 6**-0.25), DATA))
    assert (culprit.cause, culprit.node) == ("scale", "scores")
    assert "candidate = 0.9409 x reference" in culprit.evidence
    culprit = only(compare(reference, attention(BESIDE), DATA))
    assert (culprit.cause, culprit.node) == ("scale", "scores")
    assert "the constant of Mul factor is 0.95: with 1 it makes what the first file does" in culprit.evidence


def test_the_same_attention_is_right():
    report = compare(parsed(PLAIN, root=np.float32(6**0.5)), attention(ON_BOTH), DATA)
    assert report.verdict == "pass"
    assert not report.culprits


POINTWISE = "g (float[2, 8, 5, 5] x) => (float[2, 6, 5, 5] y) { %s [behind] y = Conv(h, depth) }"
CONV = POINTWISE % "a = Conv(x, w4) [act] h = HardSwish(a)"
PRODUCT = (
    POINTWISE
    % """
t = Transpose<perm=[0, 2, 3, 1]>(x) b = MatMul(t, w2) a = Transpose<perm=[0, 3, 1, 2]>(b)
s = Add(a, three) c = Clip(s, low, high) m = Mul(a, c) h = Div(m, six)
"""
)
W, DEPTH = normal(6, 8), normal(6, 6, 1, 1)


def test_an_activation_beside_a_convolution_that_is_written_as_a_product_is_told():
    numbers = {"three": 3, "low": 0, "high": 6, "six": 6.1}
    weights = {name: np.float32(value) for name, value in numbers.items()}
    candidate = parsed(PRODUCT, w2=W.T.copy(), depth=DEPTH, **weights)
    culprit = only(compare(parsed(CONV, w4=W[:, :, None, None], depth=DEPTH), candidate, [{"x": normal(2, 8, 5, 5)}]))
    assert (culprit.node, culprit.cause) == ("act", "wrong-op")
    assert "HardSwish against Add, Clip, Mul, Div; candidate = 0.983607 x reference" in culprit.evidence


ROLLED = "g (float[2, 8, 12] x) => (float[2, 8, 12] y) { %s [out] y = MatMul(p, rolled) }"
SLICES = (
    ROLLED
    % """
a = Slice(x, at, end, one) b = Slice(x, zero, at, one) [roll] rolled = Concat<axis=1>(a, b)
kt = Transpose<perm=[0, 2, 1]>(rolled) s = MatMul(rolled, kt) p = Softmax(s)
"""
)
SPLIT = ROLLED % (
    """
front, rear = Split<axis=1>(x, sizes) rolled = Concat<axis=1>(rear, front)
kt = Transpose<perm=[0, 2, 1]>(rolled) z = MatMul(rolled, kt)
"""
    + PIECES.replace("axes=[-1]", "axes=[2]")
)


@pytest.mark.parametrize(("sizes", "wrong"), [([3, 5], False), ([5, 3], True)])
def test_a_roll_before_an_attention_is_told(sizes, wrong):
    places = {"at": [3], "end": [8], "one": [1], "zero": [0]}
    weights = {name: np.array(value) for name, value in places.items()}
    candidate = parsed(SPLIT, sizes=np.array(sizes), last=np.array([-1]))
    report = compare(parsed(SLICES, **weights), candidate, [{"x": normal(2, 8, 12)}])
    if not wrong:
        assert report.verdict == "pass"
        assert not report.culprits
    else:
        assert only(report).node == "roll"
