"""Depth: roundings on the longest path to a tensor, and products that are summed along it."""

import numpy as np
import onnx
import pytest
from layerdiff.graph.cutting.fusion import fused_groups
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.rounding.depth import depth
from onnx import helper, numpy_helper, parser


def index_of(text, **constants):
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    onnx.checker.check_model(model)
    return GraphIndex(model)


W = np.ones((4, 4), np.float32)
DEPTHS = {
    "moves do not round": ("t = Transpose(x) r = Relu(t) y = Reshape(r, shape)", 0, 0),
    "a chain": ("a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) y = Exp(c)", 3, 8),
    "the longest path": ("a = MatMul(x, w) b = MatMul(a, w) y = Add(x, b)", 3, 8),
    "constants are free": ("v = Add(w, w) u = Mul(v, v) y = MatMul(x, u)", 1, 4),
    "integers are free": ("s = Cast<to=7>(x) i = Add(s, s) f = Cast<to=1>(i) y = MatMul(f, w)", 1, 4),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth(name):
    nodes, layers, terms = DEPTHS[name]
    index = index_of(f"(float[4,4] x) => (float[4,4] y) {{ {nodes} }}", w=W, shape=np.array([4, 4]))
    found = depth(index, "y")
    assert (found, found.terms) == (layers, terms)


def test_fused_groups_round_once():
    nodes = "a = MatMul(x, w) b = Add(a, v) c = Relu(b) d = MatMul(c, w) e = Add(d, v) f = Add(e, c) y = Relu(f)"
    index = index_of(f"(float[4,4] x) => (float[4,4] y) {{ {nodes} }}", w=W, v=np.ones(4, np.float32))
    assert depth(index, "y") == 5
    assert depth(index, "y", fused_groups(index)) == 2
    assert depth(index, "nothing") == 0


def test_a_recurrent_layer_rounds_at_every_step():
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)
    infos = [helper.make_tensor_value_info("x", 1, [17, 1, 5])]
    weights = {"w": np.ones((1, 12, 5), np.float32), "r": np.ones((1, 12, 3), np.float32)}
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", 1, None)])
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    assert depth(GraphIndex(helper.make_model(graph)), "y") == 17


def test_a_loop_counts_its_body_for_every_trip():
    body = parser.parse_graph(
        "body (int64 i, bool go, float[4] s) => (bool more, float[4] t) { more = Identity(go) u = Exp(s) t = Sin(u) }"
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    infos = [helper.make_tensor_value_info("x", 1, [4])]
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", 1, [4])])
    graph.initializer.append(numpy_helper.from_array(np.array(5), "trips"))
    assert depth(GraphIndex(helper.make_model(graph)), "y") == 10
