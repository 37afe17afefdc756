"""Where operators of quantized files have their data, scales and zero points, and which float operator each stands for.

ONNX defines a few of these operators; the others are ONNX Runtime's, and what its quantizers write.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ..index import GraphIndex
from ..nodes import attribute_int
from ..operators import domain_of, operator


@dataclass(frozen=True)
class Scaled:
    """A tensor of scaled integers among the inputs of a node: value = (integer - zero) * scale.

    Attributes:
        data, scale: Their positions.
        zero: That of the zero point; the input may be missing.
    """

    data: int
    scale: int
    zero: int


@dataclass(frozen=True)
class Layout:
    """An operator that takes scaled integers.

    Attributes:
        op: The float operator that it stands for.
        operands: Its scaled inputs, in the order of that operator's.
        before: Inputs that the float operator takes in front of them, as they are.
        bias: Position of an INT32 bias, whose scale is the product of the operands'.
        scale, zero: Positions of those of the result; None: the result is a float.
        weight_axis: Axis of the second operand along which it may have scales of its own.
    """

    op: str
    operands: tuple[Scaled, ...]
    scale: int | None = None
    zero: int | None = None
    before: tuple[int, ...] = ()
    bias: int | None = None
    weight_axis: int = -1


_ONE, _TWO = Scaled(0, 1, 2), Scaled(3, 4, 5)

_LAYOUTS = {
    "QLinearConv": Layout("Conv", (_ONE, _TWO), 6, 7, bias=8, weight_axis=0),
    "QLinearMatMul": Layout("MatMul", (_ONE, _TWO), 6, 7),
    "QGemm": Layout("Gemm", (_ONE, _TWO), 7, 8, bias=6),
    "QLinearAdd": Layout("Add", (_ONE, _TWO), 6, 7),
    "QLinearMul": Layout("Mul", (_ONE, _TWO), 6, 7),
    "QLinearWhere": Layout("Where", (Scaled(1, 2, 3), Scaled(4, 5, 6)), 7, 8, before=(0,)),
    **{
        f"QLinear{op}": Layout(op, (_ONE,), 3, 4)
        for op in ("Sigmoid", "LeakyRelu", "Softmax", "AveragePool", "GlobalAveragePool", "ReduceMean")
    },
}


def layout_of(node: onnx.NodeProto) -> Layout | None:
    """Where a node has its scaled integers; None of an operator that takes none, or that no float operator equals."""
    op = operator(node)
    if op == "QLinearConcat":
        operands = tuple(Scaled(i, i + 1, i + 2) for i in range(2, len(node.input) - 2, 3))
        return Layout("Concat", operands, 0, 1)
    found = _LAYOUTS.get(op)
    if found is not None and op == "QGemm" and len(node.input) <= 7:
        return Layout(found.op, found.operands, bias=6)
    if found is not None and op == "QGemm" and attribute_int(node, "transB", 0):
        return Layout(found.op, found.operands, 7, 8, bias=6, weight_axis=0)
    return found


def channels_last(node: onnx.NodeProto) -> bool:
    """Whether a node reads and makes activations whose last axis is that of the channels: weights stay as they are."""
    return attribute_int(node, "channels_last", 0) != 0


def channels_moved(index: GraphIndex, node: onnx.NodeProto) -> tuple[list[int], list[int]] | None:
    """The permutations that make the last axis of what such a node reads and makes the second one, and the reverse;
    None where the number of axes is not known. Filters have as many."""
    ranks = (index.rank(name) or 0 for name in (*node.input[:1], given(node, 3), *node.output))
    rank = next((rank for rank in ranks if rank > 1), 0)
    return ([0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]) if rank else None


def float_attributes(node: onnx.NodeProto, op: str) -> list[onnx.AttributeProto]:
    """Those attributes of a node that the float operator has as well."""
    known = onnx.defs.get_schema(op).attributes if onnx.defs.has(op) else {}
    return [a for a in node.attribute if a.name in known]


def is_product_of_integers(node: onnx.NodeProto) -> bool:
    """Whether a node multiplies integers and leaves the scales to the nodes behind it."""
    return operator(node) in ("MatMulInteger", "ConvInteger")


def given(node: onnx.NodeProto, position: int) -> str:
    """The name of an input; empty where it is missing."""
    return node.input[position] if position < len(node.input) else ""


def is_contrib(node: onnx.NodeProto) -> bool:
    """Whether a node's operator is not one of ONNX's own."""
    return bool(domain_of(node))
