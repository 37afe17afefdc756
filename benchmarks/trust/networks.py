"""Networks of which nothing can be compared, large ones, and one that names files of others."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

W = np.eye(4, dtype=np.float32) / 3
BY_LAYERS = ["--onnxrt", "--emulate", "fp16", "--layers"]
INT8 = ["--onnxrt", "--emulate", "int8", "--rtol", "0.1", "--atol", "0.1"]


def model(nodes, shape, outputs=("y",), kind=TensorProto.FLOAT, **weights) -> onnx.ModelProto:
    """A network with one input ``x``; outputs have no declared shape."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "g", [x], made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def relu(output: str = "y") -> onnx.ModelProto:
    """One node."""
    return model([helper.make_node("Relu", ["x"], [output])], [4], (output,))


def external(location: str) -> onnx.ModelProto:
    """A product whose weights are in a file."""
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [2, 4], w=W)
    (weights,) = made.graph.initializer
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    return made


def sines(count: int) -> onnx.ModelProto:
    """A chain of sines."""
    names = ["x", *(f"t{i}" for i in range(1, count)), "y"]
    return model((helper.make_node("Sin", [a], [b]) for a, b in pairwise(names)), [4])


def products(count: int) -> onnx.ModelProto:
    """A chain of products and activations."""
    draw = np.random.default_rng(0)
    weights = {f"w{i}": (draw.standard_normal((16, 16)) / 4).astype(np.float32) for i in range(8)}
    nodes, last = [], "x"
    for i in range(count // 2):
        after = "y" if i == count // 2 - 1 else f"x{i + 1}"
        nodes.append(helper.make_node("MatMul", [last, f"w{i % 8}"], [f"m{i}"]))
        nodes.append(helper.make_node("Tanh", [f"m{i}"], [after]))
        last = after
    return model(nodes, [2, 16], **weights)


def filled(size: int) -> onnx.ModelProto:
    """A tensor of so many elements, made while the network runs."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["many"]),
        helper.make_node("ReduceMax", ["many"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    return model(nodes, [4], size=np.array([size], np.int64))


def doubling(times: int) -> onnx.ModelProto:
    """A function that calls another one twice, and so on: 2^(times - 1) nodes."""
    made = model([helper.make_node(f"F{times - 1}", ["x"], ["y"], domain="my")], [4])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    made.opset_import.append(opsets[1])
    for i in range(times):
        inner = f"F{i - 1}"
        body = [
            helper.make_node(inner if i else "Relu", ["a"], ["t"], domain="my" if i else ""),
            helper.make_node(inner if i else "Relu", ["t"], ["b"], domain="my" if i else ""),
        ]
        made.functions.append(helper.make_function("my", f"F{i}", ["a"], ["b"], body, opsets))
    return made


def in_a_body(op: str) -> onnx.ModelProto:
    """A product in the body of an If or a Scan."""
    inner = helper.make_node("MatMul", ["x" if op == "If" else "s", "w"], ["made"])
    made = helper.make_tensor_value_info("made", TensorProto.FLOAT, [4, 4])
    if op == "If":
        body = helper.make_graph([inner], "b", [], [made])
        node = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)
    else:
        inputs = [helper.make_tensor_value_info(n, 1, s) for n, s in (("s", [4, 4]), ("e", [4]))]
        body = helper.make_graph([inner], "b", inputs, [made])
        node = helper.make_node("Scan", ["x", "x"], ["y"], body=body, num_scan_inputs=1)
    return model([node], [4, 4], w=W, yes=np.array(True))


NOTHING = {
    "all infinite": (
        model([helper.make_node("Div", ["x", "z"], ["y"])], [4], z=np.zeros(4, np.float32)),
        ["--range", "x:1,2", "--onnxrt", "--onnxrt"],
    ),
    "no box found": (
        model(
            [helper.make_node("Greater", ["x", "t"], ["g"]), helper.make_node("NonZero", ["g"], ["y"])],
            [4],
            kind=TensorProto.INT64,
            t=np.float32(9),
        ),
        ["--onnxrt", "--onnxrt"],
    ),
    "random values": (
        model([helper.make_node("RandomNormalLike", ["x"], ["y"])], [4]),
        ["--runner", "risky:good", "--runner", "risky:good"],
    ),
    "a tolerance that zeros pass": (relu(), ["--onnxrt", "--emulate", "bf16", "--rtol", "1e308", "--atol", "0"]),
    "INT8 with its product in an If": (in_a_body("If"), INT8),
    "INT8 with its product in a Scan": (in_a_body("Scan"), INT8),
    "a format that rounds nothing": (
        model([helper.make_node("Transpose", ["x"], ["y"])], [2, 2]),
        ["--onnxrt", "--emulate", "fp16"],
    ),
}
"""Networks, and the words behind them, of which agreement proves nothing."""
