"""Faults in several places that are no rewriting: they are told as what they are."""

from __future__ import annotations

import numpy as np

from support.layerwise import compare, only
from support.models import parsed

RNG = np.random.default_rng(3)
W = RNG.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
V = RNG.normal(0, 0.3, (3, 4, 3, 3)).astype(np.float32)
IMAGES = [{"x": RNG.random((2, 3, 12, 12)).astype(np.float32)}]

MEANS = """g (float[2,3,12,12] x) => (float[2,3,12,12] y) {
    [center] d = Sub(x, mean) [c] c = Conv<pads=[1,1,1,1]>(d, w) [r] r = Relu(c)
    [e] e = Conv<pads=[1,1,1,1]>(r, v) [back] y = Add(e, mean) }"""


def means(*values: float) -> dict[str, np.ndarray]:
    return {"w": W, "v": V, "mean": np.float32(values).reshape(1, 3, 1, 1)}


def test_means_in_another_order_are_no_rewriting() -> None:
    report = compare(parsed(MEANS, **means(0.45, 0.42, 0.4)), parsed(MEANS, **means(0.4, 0.42, 0.45)), IMAGES)
    culprit = only(report)  # one constant, which two layers read
    assert culprit.node == "center"
    assert "the same in another order" in culprit.evidence
    assert "Sub center, Add back read it" in culprit.evidence
    assert "rewritten" not in culprit.evidence + culprit.remedies[0].text


PLACES = """g (float[8,16] x) => (float[8,1] y, float[8,1] z) {
    [sy] s = Softmax(x) [my] m = Mul(s, rows) [y] y = ReduceSum<keepdims=1>(m, one)
    [mz] n = Mul(s, columns) [z] z = ReduceSum<keepdims=1>(n, one) }"""


def test_places_that_are_half_a_step_off_are_all_told() -> None:
    rows, columns = np.arange(16, dtype=np.float32), np.arange(16, dtype=np.float32)[::-1].copy()
    more = {"one": np.asarray([1])}
    first = parsed(PLACES, rows=rows, columns=columns, **more)
    second = parsed(PLACES, rows=rows + np.float32(0.5), columns=columns + np.float32(0.5), **more)
    report = compare(first, second, [{"x": RNG.normal(0, 1, (8, 16)).astype(np.float32)}])
    assert {c.node for c in report.culprits} == {"my", "mz"}
    assert all("16 of 16" in c.evidence and "rewritten" not in c.evidence for c in report.culprits)


HALVES = """g (float[4,8] x) => (float[4,3] y) {
    [fc] h = Gemm(x, w, b) [first] p = Slice(h, zero, six, one) [second] q = Slice(h, six, twelve, one)
    [gate] s = Sigmoid(q) [glu] g = Mul(p, s) [out] y = Gemm(g, v) }"""
EXCHANGED = """g (float[4,8] x) => (float[4,3] y) {
    [n0] a = Gemm(x, w, b) [n1] c, d = Split<axis=1>(a)
    [n2] e = Sigmoid(c) [n3] f = Mul(d, e) [n4] y = Gemm(f, v) }"""


def test_parts_of_one_product_that_are_exchanged_are_told_by_their_own_names() -> None:
    weights = {
        "w": RNG.normal(0, 0.5, (8, 12)).astype(np.float32),
        "b": RNG.normal(0, 0.5, 12).astype(np.float32),
        "v": RNG.normal(0, 0.5, (6, 3)).astype(np.float32),
    }
    ends = {name: np.asarray([value]) for name, value in {"zero": 0, "six": 6, "twelve": 12, "one": 1}.items()}
    data = [{"x": RNG.normal(0, 1, (4, 8)).astype(np.float32)}]
    culprit = only(compare(parsed(HALVES, **weights, **ends), parsed(EXCHANGED, **weights), data))
    assert culprit.node == "first"
    assert "what Slice second makes in the reference" in culprit.evidence
