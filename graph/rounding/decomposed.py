"""Softmax and LayerNormalization as a target computes them without a fused kernel: primitives that each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from ..nodes import attribute_float, attribute_int
from .round_array import round_array
from .scope import Scope


def write_decomposed(scope: Scope, node: onnx.NodeProto) -> bool:
    """Writes a Softmax or LayerNormalization in primitives.

    Args:
        scope: Where it stands.
        node: The node; what it reads is rounded already.

    Returns:
        False where nothing was written: it is another operator, or one that cannot be taken apart.
    """
    rule = _RULES.get(node.op_type)
    output = node.output[0]
    if rule is None or not scope.is_float32(output):
        return False
    shape = scope.shape(output)
    if not rule(scope, node, None if shape is None else len(shape)):
        return False
    scope.exact.add(output)
    return True


def _softmax(scope: Scope, node: onnx.NodeProto, rank: int | None) -> bool:
    write, x = scope.writer, node.input[0]
    axis = attribute_int(node, "axis", -1 if write.opset >= 13 else 1)
    if write.opset < 13 and (rank is None or axis % rank != rank - 1):
        scope.findings.leave("Softmax over several axes at once is not decomposed", node.output[0])
        return False
    shifted = scope.round(write.emit("Sub", [x, write.reduce("ReduceMax", x, [axis])]))
    power = scope.round(write.emit("Exp", [shifted]))
    total = scope.round(write.reduce("ReduceSum", power, [axis]))
    scope.round(write.emit("Div", [power, total]), node.output[0])
    return True


def _layer_normalization(scope: Scope, node: onnx.NodeProto, rank: int | None) -> bool:
    write, x = scope.writer, node.input[0]
    axis = attribute_int(node, "axis", -1)
    if (axis != -1 and rank is None) or any(node.output[1:]):
        scope.findings.leave("LayerNormalization is not decomposed", node.output[0])
        return False
    axes = [-1] if axis == -1 else list(range(axis % (rank or 1), rank or 1))
    centred = scope.round(write.emit("Sub", [x, scope.round(write.reduce("ReduceMean", x, axes))]))
    square = scope.round(write.emit("Mul", [centred, centred]))
    variance = scope.round(write.reduce("ReduceMean", square, axes))
    epsilon = np.asarray(attribute_float(node, "epsilon", 1e-5), np.float32)
    least = write.scalar(float(round_array(epsilon, scope.target.number.name, weights=True)))
    deviation = scope.round(write.emit("Sqrt", [scope.round(write.emit("Add", [variance, least]))]))
    last = write.emit("Div", [centred, deviation])
    for op_type, name in zip(("Mul", "Add"), node.input[1:], strict=False):
        if name:
            last = write.emit(op_type, [scope.round(last), name])
    scope.round(last, node.output[0])
    return True


_RULES: Mapping[str, Callable[[Scope, onnx.NodeProto, int | None], bool]] = {
    "Softmax": _softmax,
    "LayerNormalization": _layer_normalization,
}

DECOMPOSED = frozenset(_RULES)
"""Operators that are written in primitives."""
