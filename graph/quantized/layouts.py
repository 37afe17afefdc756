"""Where operators of quantized files have their data, scales and zero points, and which float operator each stands for.

ONNX defines a few of these operators; the others are ONNX Runtime's, and what its quantizers write.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ..index import GraphIndex
from ..nodes import attribute_int
from ..operators import BROADCASTING, CASTS, POINTWISE, QUANTIZERS, domain_of, operator


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


_KEEPS_AXES = POINTWISE | BROADCASTING | QUANTIZERS | CASTS | {"Concat", "Resize", "Upsample"}
"""Operators that leave every axis of what they are given where it is."""

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
    return attribute_int(node, "channels_last", 0) != 0 or operator(node) == "NhwcMaxPool"


def channels_moved(index: GraphIndex, node: onnx.NodeProto) -> tuple[list[int], list[int]] | None:
    """The permutations that make the last axis of what such a node reads and makes the second one, and the reverse;
    None where the number of axes is not known. Filters have as many."""
    ranks = (index.rank(name) or 0 for name in (*node.input[:1], given(node, 3), *node.output))
    rank = next((rank for rank in ranks if rank > 1), 0) or _rank_before(index, node)
    return ([0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]) if rank else None


def _rank_before(index: GraphIndex, node: onnx.NodeProto) -> int:
    """How many axes a node of that layout is given, where shape inference does not know: as many as the filters of the
    nodes before have, or their windows tell; 0 where these do not say it either."""
    at: onnx.NodeProto | None = node
    while at is not None:
        window = next((len(a.ints) for a in at.attribute if a.name == "kernel_shape"), 0)
        filters = index.rank(given(at, 3)) if operator(at) == "QLinearConv" else 0
        if window or filters:
            return filters or window + 2
        layout = layout_of(at)
        if not channels_last(at) and (operator(at) if layout is None else layout.op) not in _KEEPS_AXES:
            return 0
        name = at.input[layout.operands[0].data if layout is not None else 0]
        known, position = index.rank(name) or 0, index.producer.get(name)
        if known > 1:
            return known
        at = None if position is None else index.nodes[position]
    return 0


def with_channels_last(index: GraphIndex) -> frozenset[str]:
    """The tensors whose last axis is that of the channels: what nodes of that layout read and make, and what others
    make of these element by element, side by side or between neighbours. Transposes there and back give them again."""
    known = index.kept.get(with_channels_last)
    if known is None:
        known = index.kept[with_channels_last] = _with_channels_last(index)
    assert isinstance(known, frozenset)
    return known


def _with_channels_last(index: GraphIndex) -> frozenset[str]:
    found: set[str] = set()
    turned: set[str] = set()
    for node in index.nodes:
        op = operator(node) if (layout := layout_of(node)) is None else layout.op
        if channels_last(node):
            found.update(node.input[:1])
        elif op == "Transpose" and node.input[0] in found | turned:
            (turned if node.input[0] in found else found).add(node.output[0])
            continue
        elif op not in _KEEPS_AXES or found.isdisjoint(node.input):
            continue
        found.update(name for name in node.output if name)
    return frozenset(found)


def float_attributes(node: onnx.NodeProto, op: str) -> list[onnx.AttributeProto]:
    """Those attributes of a node that the float operator has as well."""
    known = onnx.defs.get_schema(op).attributes if onnx.defs.has(op) else {}
    return [a for a in node.attribute if a.name in known]


def ranges_of(node: onnx.NodeProto, index: GraphIndex) -> list[str]:
    """The scales and zero points that a node has of tensors which are no constants: they say what range these have."""
    if operator(node) in QUANTIZERS:
        return [] if node.input[0] in index.initializers else list(node.input[1:])
    layout = layout_of(node)
    if layout is None:
        return []
    operands = [place for place in layout.operands if given(node, place.data) not in index.initializers]
    places = [position for place in operands for position in (place.scale, place.zero)]
    places += [position for position in (layout.scale, layout.zero) if position is not None]
    return [name for position in places if (name := given(node, position))]


def integers_read(node: onnx.NodeProto) -> list[str]:
    """The scaled integers that an operator takes along with their scales."""
    layout = layout_of(node)
    return [] if layout is None else [given(node, place.data) for place in layout.operands]


def is_product_of_integers(node: onnx.NodeProto) -> bool:
    """Whether a node multiplies integers and leaves the scales to the nodes behind it."""
    return operator(node) in ("MatMulInteger", "ConvInteger")


def given(node: onnx.NodeProto, position: int) -> str:
    """The name of an input; empty where it is missing."""
    return node.input[position] if position < len(node.input) else ""


def is_contrib(node: onnx.NodeProto) -> bool:
    """Whether a node's operator is not one of ONNX's own."""
    return bool(domain_of(node))
