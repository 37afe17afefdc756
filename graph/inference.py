"""ONNX shape inference, of a model without its large weights."""

from __future__ import annotations

import math

import onnx

from .contrib_ops import stand_in
from .operators import SCORES, operator


def infer_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX shape inference that never fails: what cannot be inferred (a custom operator) stays untyped.

    Operators of ONNX Runtime's own are taken for those of ONNX that shape their outputs alike (see `contrib_ops`).
    Large weights are left out of what is handed over: inference needs their shapes alone.
    """
    slim = onnx.ModelProto()
    copy_without_weights(proto, slim)
    stand_in(slim.graph)
    _type_scores(slim.graph)
    try:
        return onnx.shape_inference.infer_shapes(slim, data_prop=True)
    except Exception:
        return slim


def _type_scores(graph: onnx.GraphProto) -> None:
    """Gives the scores of classical models their type, which their operators say and inference does not tell."""
    known = {value.name for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        slot = SCORES.get(operator(node), -1)
        if 0 <= slot < len(node.output) and node.output[slot] and node.output[slot] not in known:
            info = onnx.helper.make_tensor_value_info(node.output[slot], onnx.TensorProto.FLOAT, [None, None])
            graph.value_info.append(info)


def copy_without_weights(proto: onnx.ModelProto, slim: onnx.ModelProto) -> None:
    """Copies a model, its large weights turned into inputs of their type and shape."""
    for field, value in proto.ListFields():
        if field.name != "graph":
            target = getattr(slim, field.name)
            if hasattr(target, "MergeFrom"):  # messages and repeated fields
                target.MergeFrom(value)
            else:
                setattr(slim, field.name, value)
    graph = slim.graph
    graph.name = proto.graph.name
    graph.node.MergeFrom(proto.graph.node)
    graph.output.MergeFrom(proto.graph.output)
    graph.value_info.MergeFrom(proto.graph.value_info)
    graph.sparse_initializer.MergeFrom(proto.graph.sparse_initializer)
    graph.input.MergeFrom(proto.graph.input)
    listed = {i.name for i in graph.input}
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) <= 1024:  # not ByteSize, which serializes to find out
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
