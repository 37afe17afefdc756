"""A Where that has the opposite condition is told as that, where the opposite of it explains the output."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes.inverted_condition import explains

from support.layerwise import compare, only
from support.models import normal, parsed

MASK = np.random.default_rng(0).random((4, 4)) > 0.4
np.fill_diagonal(MASK, True)
DATA = [{"x": normal(4, 8, seed=1), "m": MASK}]
WEIGHTS = {"zero": np.float32(0), "low": np.float32(-1e4), "w": normal(8, 8, seed=2)}


def attention(condition: str, *, gain: str = "w"):
    text = f"""g (float[4,8] x, bool[4,4] m) => (float[4,8] y) {{ [q] q = MatMul(x, w)
        [turn] t = Transpose<perm=[1,0]>(x) [score] s = MatMul(q, t) {condition} [add] a = Add(s, b)
        [soft] p = Softmax(a) [v] v = MatMul(x, {gain}) [y] y = MatMul(p, v) }}"""
    return parsed(text, **WEIGHTS, w2=2 * WEIGHTS["w"])


RIGHT = "[mask] b = Where(m, zero, low)"
NEGATED = "[not] n = Not(m) [mask] b = Where(n, zero, low)"
EXCHANGED = "[not] n = Not(m) [mask] b = Where(n, low, zero)"


def test_the_condition_is_told():
    culprit = only(compare(attention(RIGHT), attention(NEGATED), DATA))
    assert (culprit.node, culprit.cause) == ("mask", "wrong-op")
    assert culprit.evidence.startswith(
        "the condition 'n' of Where mask is inverted: with the opposite one the candidate makes what the reference does"
    )


def test_two_inversions_are_none():
    report = compare(attention(RIGHT), attention(EXCHANGED), DATA)
    assert report.verdict == "pass"
    assert not report.culprits


def test_another_fault_beside_a_condition_is_not_told_as_one():
    report = compare(attention(RIGHT), attention(RIGHT, gain="w2"), DATA)
    assert report.verdict == "fail"
    assert not any("inverted" in c.evidence for c in report.culprits)


Y = np.array([[1.0, 2.0], [3.0, -np.inf]], np.float32)


@pytest.mark.parametrize(
    ("c", "made", "right"),
    [
        (Y + 1, Y, True),
        (np.full_like(Y, -np.inf), Y, True),
        (Y + 1, Y + np.float32(0.5), False),
        (Y + 1, np.nan_to_num(Y), False),
        (Y, Y, False),
    ],
    ids=["right", "nothing was let through", "half as wrong", "finite where the reference is not", "equal"],
)
def test_only_what_leaves_nothing_explains(c, made, right):
    assert explains(Y, c, made) == right
