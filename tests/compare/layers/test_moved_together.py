"""A roll along two axes, which an exporter writes as Slices and Concats, is one fault where it rolls the other way."""

from __future__ import annotations

import numpy as np

from support.layerwise import compare, only
from support.models import normal, parsed

ROLLED = """g (float[4,6,6,8] x) => (float[4,6,6,4] y) {
    [up] a = MatMul(x, w)
    [s0] p = Slice(a, first, end, one) [s1] q = Slice(a, zero, first, one) [c0] b = Concat<axis=1>(p, q)
    BETWEEN
    [s2] r = Slice(d, second, end, two) [s3] s = Slice(d, zero, second, two) [c1] e = Concat<axis=2>(r, s)
    [down] y = MatMul(e, v) }"""
FIXED = {"zero": 0, "one": 1, "two": 2, "end": 1 << 40}
WEIGHTS = {"w": normal(8, 8), "v": normal(8, 4, seed=1)}
DATA = [{"x": normal(4, 6, 6, 8, seed=2)}]


def network(first, second, between=""):
    places = {**FIXED, "first": first, "second": second}
    text = ROLLED.replace("BETWEEN", between)
    text = text if between else text.replace("(d,", "(b,")
    return parsed(text, **WEIGHTS, **{name: np.array([at]) for name, at in places.items()})


def test_a_roll_the_other_way_is_one_fault_with_all_its_slices():
    culprit = only(compare(network(-2, -2), network(2, 2), DATA))
    assert (culprit.node, culprit.cause) == ("s0", "weights")
    assert culprit.evidence.startswith("start -2 against 2; Slice s1 too")
    assert all(
        f"Slice {name} too: {end} -2 against 2" in culprit.evidence for name, end in (("s2", "start"), ("s3", "end"))
    )


def test_rolls_that_differ_otherwise_are_two_faults():
    report = compare(network(-2, -2), network(2, 1), DATA)
    assert [sorted(c.facts[0].text for c in report.culprits)] == [["start -2 against 1", "start -2 against 2"]]


def test_rolls_with_something_between_them_are_two_faults():
    between = "[act] d = Tanh(b)"
    report = compare(network(-2, -2, between), network(2, 2, between), DATA)
    assert sorted(c.node for c in report.culprits) == ["s0", "s2"]


def test_the_node_to_set_is_the_one_that_differs_whatever_else_is_of_its_kind_in_the_layer():
    culprit = only(compare(network(-2, -2), network(1, 1), DATA))
    assert culprit.remedies[0].text.startswith("set the start of s0 to -2")
