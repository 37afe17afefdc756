"""What operators demand of inputs that set a shape: one legal value, which gives the shape that the graph declares."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff.graph.implied_inputs import input_ranges
from layerdiff.graph.index import GraphIndex
from onnx import helper
from onnx.reference import ReferenceEvaluator

from support.models import of_nodes

VALUES, SIGNAL = np.zeros((2, 3, 4), "f"), np.zeros((2, 8, 1), "f")
ON_OFF = np.float32([0, 1])

DECLARED = {
    "depth of a OneHot": ("y = OneHot(i, x, v)", "x int64", "float 2,3,5", {"i": np.zeros((2, 3), int), "v": ON_OFF}),
    "depth on the first axis": (
        "y = OneHot<axis=0>(i, x, v)",
        "x int64",
        "float 7,2",
        {"i": np.zeros(2, int), "v": ON_OFF},
    ),
    "axis of a reduction": ("y = ReduceMax<keepdims=0>(v, x)", "x int64 1", "float 2,4", {"v": VALUES}),
    "axis that is kept": ("y = ReduceSum(v, x)", "x int64 1", "float 2,3,1", {"v": VALUES}),
    "two axes": ("y = ReduceMean<keepdims=0>(v, x)", "x int64 2", "float 3", {"v": VALUES}),
    "logarithms of sums": ("y = ReduceLogSumExp<keepdims=0>(v, x)", "x int64 1", "float 2,3", {"v": VALUES}),
    "image of a Col2Im": (
        "y = Col2Im(v, x, b)",
        "x int64 2",
        "float 1,1,5,5",
        {"v": np.zeros((1, 5, 5), "f"), "b": np.array([1, 5])},
    ),
    "blocks of a Col2Im": (
        "y = Col2Im<pads=[0,1,0,1]>(v, i, x)",
        "x int64 2",
        "float 1,1,5,5",
        {"v": np.zeros((1, 5, 15), "f"), "i": np.array([5, 5])},
    ),
    "axis of a DFT": ("y = DFT(v, , x)", "x int64", "float 2,8,2", {"v": SIGNAL}),
    "length of a DFT": ("y = DFT(v, x, a)", "x int64", "float 2,8,2", {"v": SIGNAL, "a": np.array(1)}),
    "chunks": (
        "s = SplitToSequence<axis=1>(v, x)\ny = SequenceAt(s, z)",
        "x int64",
        "float 2,3",
        {"v": np.zeros((2, 6), "f"), "z": np.array(0)},
    ),
    "chunks of their own": (
        "s = SplitToSequence<axis=1>(v, x)\ny = SequenceAt(s, z)",
        "x int64 2",
        "float 2,3",
        {"v": np.zeros((2, 6), "f"), "z": np.array(0)},
    ),
}


@pytest.mark.parametrize("case", DECLARED)
def test_inputs_that_set_a_shape_give_the_declared_one(case):
    nodes, inputs, declared, weights = DECLARED[case]
    proto = of_nodes(nodes, inputs, opset=20, **weights)
    shape = [int(d) for d in declared.split()[1].split(",")]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape))
    index = GraphIndex(proto)
    value = input_ranges(index)["x"].value
    fed = np.array(value).reshape([d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim])
    assert ReferenceEvaluator(proto).run(None, {"x": fed})[0].shape == tuple(shape)


def test_a_mel_matrix_has_the_declared_shape_and_all_frequencies():
    proto = of_nodes(
        "y = MelWeightMatrix(bins, n, rate, low, high)", "bins int32;n int32;rate int32;low float;high float"
    )
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [9, 8]))
    found = {name: r.value for name, r in input_ranges(GraphIndex(proto)).items()}
    assert found == {"bins": (8,), "n": (16,), "rate": (8000,), "low": (0,), "high": (4000,)}
