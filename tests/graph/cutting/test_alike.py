"""Parts of a graph that compute the same with other weights."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.cutting.alike import kind_of, numbered
from layerdiff.graph.model import Model
from layerdiff.runners.onnxrt.runner import OnnxrtRunner

from support.models import normal, parsed

TWO = """g (float[N, 8] x) => (float[N, 8] y) {{
    [a1] a1 = MatMul(x, w1)
    [b1] b1 = {first}
    [c1] c1 = Add(b1, a1)
    [a2] a2 = MatMul(c1, w2)
    [b2] b2 = {second}
    [y] y = Add({sum})
}}"""


def kinds(first="Elu<alpha = 0.5>(a1)", second="Elu<alpha = 0.5>(a2)", summed="b2, a2", shape=(8, 8)):
    weights = {"w1": normal(8, 8), "w2": normal(*shape, seed=1)}
    index = Model(parsed(TWO.format(first=first, second=second, sum=summed), **weights)).index
    return kind_of(index, [0, 1, 2]), kind_of(index, [3, 4, 5])


def test_equal_blocks_are_of_one_kind():
    one, other = kinds()
    assert one == other


@pytest.mark.parametrize(
    "changed",
    [
        {"second": "Elu<alpha = 0.25>(a2)"},
        {"second": "Selu(a2)"},
        {"second": "Elu<alpha = 0.5>(c1)"},  # reads something else
        {"summed": "a2, b2"},
        {"summed": "b2, b2"},
        {"shape": (8, 4)},
    ],
    ids=str,
)
def test_another_block_is_of_another_kind(changed):
    one, other = kinds(**changed)
    assert one != other


def test_a_numbered_model_computes_the_same():
    text = TWO.format(first="Elu(a1)", second="Selu(a2)", sum="b2, a2")
    model = Model(parsed(text, w1=normal(8, 8), w2=normal(8, 8)))
    other, names = numbered(model)
    x = normal(3, 8, seed=5)
    with OnnxrtRunner().open(model) as one, OnnxrtRunner().open(other) as two:
        expected, found = one.infer({"x": x})["y"], two.infer({names["x"]: x})
    assert np.array_equal(found[names["y"]], expected)
    assert [node.name for node in other.proto.graph.node] == [node.name for node in model.proto.graph.node]
    assert not set(names.values()) & set(names)


def test_bodies_read_the_new_names():
    proto = parsed(
        """g (float[N, 8] x, bool c) => (float[N, 8] y) {
            [m] m = MatMul(x, w)
            [if] y = If(c) <then_branch = t () => (float[N, 8] o) { o = Add(m, x) },
                            else_branch = e () => (float[N, 8] o) { o = Sub(m, x) }>
        }""",
        w=normal(8, 8),
    )
    model = Model(proto)
    other, names = numbered(model)
    feed = {"x": normal(2, 8), "c": np.array(True)}
    with OnnxrtRunner().open(model) as one, OnnxrtRunner().open(other) as two:
        expected = one.infer(feed)["y"]
        found = two.infer({names[n]: v for n, v in feed.items()})[names["y"]]
    assert np.array_equal(found, expected)
