"""Models with operators of ``ai.onnx.ml``, and with outputs that are no tensors."""

from __future__ import annotations

from onnx import TensorProto, helper


def model_of(nodes, inputs, outputs, ml=True, opset=17):
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("ai.onnx.ml", 3)] if ml else [])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def zipped(keys, scale=1.0):
    nodes = [
        helper.make_node("Constant", [], ["factor"], value_float=scale),
        helper.make_node("Mul", ["x", "factor"], ["scores"], name="scale"),
        helper.make_node("ZipMap", ["scores"], ["p"], domain="ai.onnx.ml", classlabels_strings=keys),
    ]
    values = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, values))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])]
    return model_of(nodes, inputs, [helper.make_value_info("p", kind)])
