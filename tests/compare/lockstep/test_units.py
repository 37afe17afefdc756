"""Which node of a layer does its arithmetic: the one that a finding about the layer is about."""

import numpy as np
import pytest
from layerdiff.compare.lockstep.units import plan
from layerdiff.graph.index import GraphIndex

from support.models import parsed

MAIN = {  # only y is observed, so that all of it is one layer
    "a product and its bias": ("a = MatMul(x, w) y = Add(a, b)", "MatMul"),
    "an Einsum and its bias": ('a = Einsum <equation = "ij,jk->ik"> (x, w) y = Add(a, b)', "Einsum"),
    "the last of two products": ("a = MatMul(x, w) c = Relu(a) y = Gemm(c, w)", "Gemm"),
    "a function that is moved": ("a = Tanh(x) t = Transpose(a) y = Reshape(t, s)", "Tanh"),
    "a shuffle": ("a = Tanh(x) r = Reshape(a, s) d = DepthToSpace <blocksize = 2> (r) y = Identity(d)", "Tanh"),
}


@pytest.mark.parametrize("name", MAIN)
def test_the_arithmetic_of_a_layer_is_its_last_product_or_what_is_not_mere_movement(name):
    body, op = MAIN[name]
    weights = {"w": np.eye(4), "b": np.ones(4), "s": np.array([1, 4, 2, 2])}
    index = GraphIndex(parsed(f"g (float[4, 4] x) => (float y) {{ {body} }}", **weights))
    (unit,) = plan(index, index, {"x": "x", "y": "y"}, memory=1 << 20).units
    assert index.nodes[unit.main].op_type == op
