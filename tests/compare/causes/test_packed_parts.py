"""Of the weights that a fused attention has packed, those of the projection that is wrong are told."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

B, T, H, D = 2, 7, 4, 6
WIDE = H * D
X = f"float[{B}, {T}, {WIDE}]"
PLAIN = f"""g ({X} x) => ({X} y) {{
    [mq] q0 = MatMul(x, wq) [aq] q1 = Add(q0, bq) q2 = Reshape(q1, heads) q = Transpose<perm=[0, 2, 1, 3]>(q2)
    [mk] k0 = MatMul(x, wk) [ak] k1 = Add(k0, bk) k2 = Reshape(k1, heads) k = Transpose<perm=[0, 2, 3, 1]>(k2)
    [mv] v0 = MatMul(x, wv) [av] v1 = Add(v0, bv) v2 = Reshape(v1, heads) v = Transpose<perm=[0, 2, 1, 3]>(v2)
    s = MatMul(q, k) z = Mul(s, root) p = Softmax(z) [mix] a = MatMul(p, v)
    a2 = Transpose<perm=[0, 2, 1, 3]>(a) a3 = Reshape(a2, merged) [out] y = MatMul(a3, wo)
}}"""
FUSED = f"""g ({X} x) => ({X} y) {{
    [attend] a = com.microsoft.Attention<num_heads={H}>(x, weights, bias) [out] y = MatMul(a, wo)
}}"""
PARTS = {
    **{f"w{n}": normal(WIDE, WIDE, seed=i) / 3 for i, n in enumerate("qkv")},
    **{f"b{n}": normal(WIDE, seed=10 + i) for i, n in enumerate("qkv")},
}
OUT = normal(WIDE, WIDE, seed=20) / 5
DATA = [{"x": normal(B, T, WIDE, seed=3)}]


def plain(**others: np.ndarray):
    shapes = {"heads": np.array([B, T, H, D]), "merged": np.array([B, T, WIDE])}
    return parsed(PLAIN, **{**PARTS, **others}, **shapes, wo=OUT, root=np.float32(D**-0.5))


def fused(**others: np.ndarray):
    parts = {**PARTS, **others}
    packed = {name: np.concatenate([parts[f"{name[0]}{n}"] for n in "qkv"], axis=-1) for name in ("weights", "bias")}
    return parsed(FUSED, domains=["com.microsoft"], **packed, wo=OUT)


def column(value: np.ndarray) -> np.ndarray:
    return np.where(np.arange(WIDE) == 3, np.float32(0), value)


@pytest.mark.parametrize(
    ("name", "other", "node", "told"),
    [
        ("wk", column(PARTS["wk"]), "mk", f"{WIDE} of {WIDE * WIDE} weights differ"),
        ("wv", PARTS["wv"] * np.float32(1.1), "mv", "all 1.1 times the reference's"),
        ("wq", PARTS["wq"].T.copy(), "mq", "equal to the transpose"),
        ("bv", 0 * PARTS["bv"], "av", "all zero in the candidate"),
        ("bq", 0 * PARTS["bq"], "aq", "all zero in the candidate"),
    ],
)
def test_the_part_that_is_wrong_is_told_on_either_side(name, other, node, told):
    place, packed = "qkv".index(name[1]), {"w": "weights", "b": "bias"}[name[0]]
    who, third = ("queries", "keys", "values")[place], ("first", "middle", "last")[place]
    culprit = only(compare(plain(), fused(**{name: other}), DATA))
    assert (culprit.node, culprit.cause) == (node, "weights")
    assert f"the {who}' part of {packed} of Attention attend holds other values than '{name}'" in culprit.evidence
    assert told in culprit.evidence
    assert (
        culprit.remedies[0].text == f"put '{name}' of the first file into the {third} third of '{packed}' in the second"
    )
    culprit = only(compare(fused(), plain(**{name: other}), DATA))
    assert (culprit.node, culprit.cause) == ("attend", "weights")
    assert f"'{name}' holds other values than the {who}' part of {packed} of Attention attend" in culprit.evidence
    assert (
        culprit.remedies[0].text == f"put the {third} third of '{packed}' of the first file into '{name}' of the second"
    )


def test_two_parts_that_are_wrong_are_both_told():
    culprit = only(compare(plain(), fused(wv=PARTS["wv"] * np.float32(1.1), bv=0 * PARTS["bv"]), DATA))
    assert "than 'wv'" in culprit.evidence
    assert "than 'bv'" in culprit.evidence


def test_a_part_that_changes_nothing_is_not_told():
    """What is added to all keys adds the same to all scores of a query."""
    assert compare(plain(), fused(bk=0 * PARTS["bk"]), DATA).verdict == "pass"
    culprit = only(compare(plain(), fused(bk=0 * PARTS["bk"], bv=0 * PARTS["bv"]), DATA))
    assert "than 'bv'" in culprit.evidence
    assert "'bk'" not in culprit.evidence


@pytest.mark.parametrize("names", ["w", "b", "wb"])
def test_parts_that_stand_for_each_other_are_exchanged(names):
    others = {f"{name}{n}": PARTS[f"{name}{m}"] for name in names for n, m in ("kv", "vk")}
    culprit = only(compare(fused(), plain(**others), DATA))
    assert (culprit.node, culprit.cause) == ("attend", "weights")
    pairs = ", and ".join(f"'{name}v' and '{name}k'" for name in names)
    assert culprit.remedies[0].text == f"exchange {pairs} in the second file"
