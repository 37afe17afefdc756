"""Which constant has to be another one for what is computed of it to have other values."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.constants import constant_value
from layerdiff.graph.pairing.wanted import taken_back

from support.models import normal, parsed

OWN, OTHER, ROW = normal(3, 1, seed=1), normal(3, 1, seed=2), normal(1, 4, seed=3) + 5


def graph(body: str, **constants) -> GraphIndex:
    text = f"g (float[3,4] x) => (float[3,4] y) {{ {body} y = Add(x, made) }}"
    return GraphIndex(parsed(text, own=OWN, row=ROW, shape=np.array([3, 4]), **constants))


@pytest.mark.parametrize(
    "body",
    [
        "made = Add(own, row)",
        "made = Sub(row, own)",
        "made = Mul(own, row)",
        "made = Div(own, row)",
        "made = Div(row, own)",
        "wide = Expand(own, shape) made = Add(row, wide)",
        "turned = Transpose<perm=[1,0]>(own) back = Transpose(turned) made = Add(row, back)",
        "flat = Flatten<axis=0>(own) column = Reshape(flat, [3,1]) made = Add(row, column)".replace(
            "[3,1]", "column_shape"
        ),
    ],
)
def test_what_is_computed_of_a_constant_is_taken_back(body):
    constants = {"column_shape": np.array([3, 1])} if "column_shape" in body else {}
    index, other = graph(body, **constants), graph(body, **constants)
    next(t for t in other.graph.initializer if t.name == "own").raw_data = OTHER.tobytes()
    value = constant_value(other, "made")
    found = taken_back(index, "made", value, lambda name: constant_value(index, name), fixed=True)
    assert (found.name, found.own.tolist()) == ("own", OWN.tolist())
    np.testing.assert_allclose(found.value, OTHER, rtol=1e-5)


def test_of_two_constants_that_could_be_other_ones_none_is_told():
    index = graph("made = Add(own, own)")
    value = constant_value(index, "made") + 1
    assert taken_back(index, "made", value, lambda name: constant_value(index, name), fixed=True) is None


def test_of_values_that_no_one_constant_makes_none_is_told():
    index = graph("made = Add(own, row)")
    value = constant_value(index, "made") + normal(3, 4, seed=5)
    assert taken_back(index, "made", value, lambda name: constant_value(index, name), fixed=True) is None
