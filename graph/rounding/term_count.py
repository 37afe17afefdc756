"""How many terms a node's sums have: of any operator about, and of a product exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import onnx

from ..nodes import attribute_int, attribute_ints, attribute_string
from ..operators import OPERATORS, RECURRENT, Kind, operator

Shape: TypeAlias = "tuple[int, ...] | None"
ShapeOf: TypeAlias = Callable[[str], Shape]
"""Function from a tensor's name to its shape, or None where that is unknown."""

UNKNOWN_STEPS = 16
"""Steps of a sequence of which nothing is known."""


def term_count(node: onnx.NodeProto, shape_of: ShapeOf) -> float:
    """How many terms each element of a node's output is a sum of; 1 where it sums nothing, or nothing is known."""
    rule = _RULES.get(operator(node))
    if rule is None:
        return 1.0
    shapes = [shape_of(name) if name else None for name in node.input]
    return float(max(rule(node, [*shapes, None, None, None]) or 1, 1))


def ensemble_terms(node: onnx.NodeProto) -> int:
    """How many terms a score of an operator of `ai.onnx.ml` adds up: trees, support vectors or features."""
    lengths = {a.name: len(a.floats) or len(set(a.ints)) for a in node.attribute}
    if "nodes_treeids" in lengths:
        return lengths["nodes_treeids"]
    if "tree_roots" in lengths:
        return lengths["tree_roots"]
    return max(lengths.get("coefficients", 1), lengths.get("support_vectors", 1), 1)


def _convolution(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    return math.prod(shapes[1][1:]) if shapes[1] else None


def _transposed_convolution(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    weight = shapes[1]
    return weight[0] / attribute_int(node, "group", 1) * math.prod(weight[2:]) if weight else None


def _matmul(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    left, right = shapes[:2]
    if left or not right:
        return left[-1] if left else None
    return right[-2] if len(right) > 1 else right[0]


def _gemm(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    left, right = shapes[:2]
    if right or not left:
        return right[1 if attribute_int(node, "transB", 0) else 0] if right else None
    return left[-1]


def _einsum(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    return shapes[0][-1] if shapes[0] else None


def _recurrent(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    """Roundings of the state grow as the root of the steps that they are carried over."""
    x, weights, recurrence = shapes[:3]
    if not weights or not recurrence:
        return None
    return (weights[-1] + recurrence[-1]) * math.sqrt(x[0] if x else UNKNOWN_STEPS)


def _window(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    return math.prod(attribute_ints(node, "kernel_shape", [1]))


def _places(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    return math.prod(shapes[0][2:]) if shapes[0] else None


def _along_axis(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    return shapes[0][attribute_int(node, "axis", -1)] if shapes[0] else None


def _from_axis(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    return math.prod(shapes[0][attribute_int(node, "axis", -1) :]) if shapes[0] else None


def _reduction(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    if not shapes[0]:
        return None
    axes = attribute_ints(node, "axes")
    return shapes[0][-1] if axes is None else math.prod(shapes[0][a] for a in axes)


def _cumulative(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    return max(shapes[0]) if shapes[0] else None


def _neighbours(node: onnx.NodeProto, shapes: list[Shape]) -> float | None:
    return 4


_RULES: Mapping[str, Callable[[onnx.NodeProto, list[Shape]], float | None]] = {
    **{name: _reduction for name, facts in OPERATORS.items() if facts.kind is Kind.REDUCTION},
    **dict.fromkeys(("Conv", "DeformConv", "FusedConv"), _convolution),
    **dict.fromkeys(("MatMul", "FusedMatMul"), _matmul),
    **dict.fromkeys(("Gemm", "FusedGemm"), _gemm),
    **dict.fromkeys(RECURRENT, _recurrent),
    **dict.fromkeys(("AveragePool", "LpPool"), _window),
    **dict.fromkeys(("GlobalAveragePool", "InstanceNormalization", "GroupNormalization"), _places),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _along_axis),
    **dict.fromkeys(("LayerNormalization", "LpNormalization", "RMSNormalization"), _from_axis),
    **dict.fromkeys(("Resize", "Upsample"), _neighbours),
    "ConvTranspose": _transposed_convolution,
    "CumSum": _cumulative,
    "Einsum": _einsum,
}


def product_count(node: onnx.NodeProto, shape_of: ShapeOf) -> int | None:
    """How many products a contraction adds up, its bias included; None where the shapes do not tell."""
    if len(node.input) < 2:
        return None
    first, second = (shape_of(name) for name in node.input[:2])
    op = node.op_type
    if op == "Conv" and second:
        return math.prod(second[1:]) + 1
    if op == "ConvTranspose" and second:
        return second[0] // attribute_int(node, "group", 1) * math.prod(second[2:]) + 1
    if op == "Gemm" and second and len(second) == 2:
        return second[1 if attribute_int(node, "transB", 0) else 0] + 3
    if op == "MatMul" and (first or second):
        if first:
            return first[-1]
        assert second is not None
        return second[-2] if len(second) > 1 else second[0]
    if op == "Einsum" and first and second:
        return _einsum_products(attribute_string(node, "equation"), first, second)
    return None


def _einsum_products(equation: str, first: tuple[int, ...], second: tuple[int, ...]) -> int | None:
    """The product of the sizes that are summed over."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    labels = left.split(",")
    if not arrow or "." in equation or len(labels) != 2:
        return None
    sizes: dict[str, int] = {}
    for names, shape in zip(labels, (first, second), strict=True):
        if len(names) != len(shape):
            return None
        sizes.update(zip(names, shape, strict=True))
    return math.prod(size for name, size in sizes.items() if name not in right)
