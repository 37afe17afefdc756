"""ONNX shape inference, of a model without its large weights."""

from __future__ import annotations

import math

import onnx

from .contrib_ops import stand_in


def infer_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX shape inference that never fails: what cannot be inferred (a custom operator) stays untyped.

    Operators of ONNX Runtime's own are taken for those of ONNX that shape their outputs alike (see `contrib_ops`).
    Large weights are left out of what is handed over: inference needs their shapes alone.
    """
    slim = onnx.ModelProto()
    copy_without_weights(proto, slim)
    stand_in(slim.graph)
    try:
        return onnx.shape_inference.infer_shapes(slim, data_prop=True)
    except Exception:
        return slim


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
