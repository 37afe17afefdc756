"""Values that depend on weights and constants alone, and how they are quantized."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from ..evaluation import evaluate
from ..index import GraphIndex
from ..nodes import attribute_int, attribute_ints, attribute_tensor
from ..operators import SHAPES, operator
from ..specs import dtype_from_onnx


def constant_value(index: GraphIndex, name: str, limit: int = 1 << 28) -> np.ndarray | None:
    """The value of a tensor that depends on weights and constants alone, computed with NumPy where no file holds it.

    Args:
        index: The graph.
        name: The tensor.
        limit: Most bytes that may be read into memory to compute it; files are mapped and do not count.

    Returns:
        None if it depends on the data, is larger than the limit, or its operators are not known here.
    """
    value = index.weight(name)
    if value is not None:
        return value
    value = index.constant(name)
    if value is not None:
        return value
    position = index.producer.get(name)
    if position is None:
        return None
    node = index.nodes[position]
    if operator(node) in SHAPES or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
        return None
    feed: dict[str, np.ndarray] = {}
    for read in index.reads[position]:
        argument = constant_value(index, read, limit)
        if argument is None or argument.nbytes > limit:
            return None
        feed[read] = np.ascontiguousarray(argument)
    if node.op_type == "Identity":
        return feed[node.input[0]]
    if node.op_type == "Transpose":
        return np.transpose(feed[node.input[0]], attribute_ints(node, "perm"))
    if node.op_type == "ConstantOfShape":
        value = attribute_tensor(node, "value")
        fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
        return np.broadcast_to(fill.reshape(()), tuple(int(d) for d in feed[node.input[0]]))
    if node.op_type == "Cast":
        return feed[node.input[0]].astype(dtype_from_onnx(attribute_int(node, "to", 0)))
    if operator(node) == "DequantizeLinear":
        return _dequantized(node, feed)
    return evaluate(node, name, feed, index.proto.opset_import)


def _dequantized(node: onnx.NodeProto, feed: Mapping[str, np.ndarray]) -> np.ndarray | None:
    stored, scale = feed[node.input[0]], feed[node.input[1]]
    zero = feed[node.input[2]] if len(node.input) > 2 and node.input[2] else None
    if scale.size > 1:
        if scale.ndim != 1:
            return None  # blocks of an axis: no common way of writing
        shape = [1] * stored.ndim
        shape[attribute_int(node, "axis", 1)] = scale.size
        scale = scale.reshape(shape)
        zero = None if zero is None else zero.reshape(shape)
    else:
        scale, zero = scale.reshape(()), None if zero is None else zero.reshape(())
    wide = stored.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # an infinite scale is for a comparison to find
        return (wide if zero is None else wide - zero.astype(np.float32)) * scale.astype(np.float32)


def quantization_step(index: GraphIndex, name: str) -> np.ndarray | None:
    """The distance between neighbouring values of a weight that is stored quantized, shaped to broadcast against it."""
    position = index.producer.get(name)
    while position is not None and index.nodes[position].op_type in ("Identity", "Cast"):
        position = index.producer.get(index.nodes[position].input[0])
    if position is None or index.nodes[position].op_type != "DequantizeLinear":
        return None
    node = index.nodes[position]
    stored, scale = constant_value(index, node.input[0]), constant_value(index, node.input[1])
    if stored is None or scale is None or scale.ndim > 1:
        return None
    if scale.size == 1:
        return scale.reshape([1] * stored.ndim)
    shape = [1] * stored.ndim
    shape[attribute_int(node, "axis", 1)] = scale.size
    return scale.reshape(shape)
