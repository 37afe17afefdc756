"""Parts of two graphs are one program where operators, weights and names at the border are the same."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.one_program import one_program

from support.models import parsed

W = np.arange(16, dtype=np.float32).reshape(4, 4)
TEXT = "g (float[N, 4] x) => (float[N, 4] y) { a = MatMul(x, w) b = LeakyRelu<alpha = 0.5>(a) y = Add(b, x) }"


def told(other, w=W, names=None, **weights):
    one, two = (GraphIndex(m) for m in (parsed(TEXT, w=W), parsed(other, **{"w": w, **weights})))
    nodes = range(len(one.nodes)), range(len(two.nodes))
    return one_program(one, nodes[0], two, nodes[1], names or {"x": "x", "y": "y"})


def test_the_same_text_is():
    assert told(TEXT)


def test_names_inside_do_not_matter():
    assert told(TEXT.replace("a)", "c)").replace("a =", "c =", 1))


@pytest.mark.parametrize(
    "other",
    [
        TEXT.replace("0.5", "0.25"),
        TEXT.replace("Add(b, x)", "Add(b, b)"),
        TEXT.replace("Add(b, x)", "Sub(b, x)"),
        TEXT.replace("MatMul(x, w)", "MatMul(w, x)").replace("[N, 4]", "[4, 4]"),
    ],
    ids=["an attribute", "an edge", "an operator", "the order of inputs"],
)
def test_another_one_is_not(other):
    assert not told(other)


def test_other_weights_and_other_names_at_the_border_are_not():
    assert not told(TEXT, w=np.where(np.arange(16).reshape(4, 4) == 15, 0, W).astype(np.float32))
    assert not told(TEXT.replace("x", "z").replace("MatMul(z", "MatMul(z"), names={"x": "x", "y": "y"})
    assert told(TEXT.replace("x", "z"), names={"x": "z", "y": "y"})


CONSTANT = "g (float[N, 2] x) => (float[N, 2] y) { c = Constant<value = float[2] {1, 2}>() y = Add(x, c) }"


def test_values_of_constants_count():
    one, same, other = (GraphIndex(parsed(t)) for t in (CONSTANT, CONSTANT, CONSTANT.replace("{1, 2}", "{1, 3}")))
    names = {"x": "x", "y": "y"}
    assert one_program(one, range(2), same, range(2), names)
    assert not one_program(one, range(2), other, range(2), names)
