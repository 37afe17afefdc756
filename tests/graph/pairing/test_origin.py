"""Where two weights that graphs compute from constants begin to differ."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.load import load
from layerdiff.graph.pairing.origin import origin

from support.models import normal, parsed

W = normal(4, 6)
SLICED = """g (float[2,4] x) => (float[2,3] y) {
    part = Slice(w, first, last, axes)
    turned = Transpose(part)
    again = Transpose(turned)
    scaled = Mul(again, factor)
    y = MatMul(x, scaled)
}"""
JOINED = "g (float[2,4] x) => (float[2,12] y) { both = Concat<axis = 1>(a, b) y = MatMul(x, both) }"


def sliced(**changed):
    first, last, axes = np.array([0]), np.array([3]), np.array([1])
    given = {"w": W, "first": first, "last": last, "axes": axes, "factor": np.float32(0.5), **changed}
    return load(parsed(SLICED, **given)).index


@pytest.mark.parametrize(
    ("changed", "op"),
    [
        ({"first": np.array([1]), "last": np.array([4])}, "Slice"),
        ({"factor": np.float32(0.6)}, "Mul"),
        ({"w": 2 * W}, None),  # stored weights: the layer's own
    ],
)
def test_the_node_whose_own_constant_differs(changed, op):
    mine, theirs = sliced(), sliced(**changed)
    found = origin(mine, "scaled", theirs, "scaled")
    assert (None if found is None else mine.nodes[found].op_type) == op


def test_exchanged_inputs_of_a_concat():
    one, other = W, normal(4, 6, seed=1)
    mine, theirs = (load(parsed(JOINED, a=a, b=b)).index for a, b in ((one, other), (other, one)))
    assert mine.nodes[origin(mine, "both", theirs, "both")].op_type == "Concat"


def test_folded_weights_have_no_origin():
    folded = load(parsed("g (float[2,4] x) => (float[2,3] y) { y = MatMul(x, scaled) }", scaled=W[:, :3])).index
    assert origin(sliced(), "scaled", folded, "scaled") is None
