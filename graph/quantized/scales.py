"""The scale and zero point of every tensor of scaled integers."""

from __future__ import annotations

import onnx

from ..index import GraphIndex
from ..nodes import attribute_string
from ..operators import MOVEMENT, Kind, facts_of, is_data, is_standard, operator
from .layouts import given, layout_of

Scale = tuple[str, str]
"""Names of a scale and of its zero point, which is empty where there is none."""


def scales_of(index: GraphIndex) -> dict[str, Scale]:
    """Tensor of integers that a node makes -> its scale: what makes it says so, or what reads it."""
    said = _said_by_readers(index)
    found: dict[str, Scale] = {}
    for node in index.nodes:
        layout = layout_of(node)
        if node.op_type == "QuantizeLinear":
            found[node.output[0]] = (node.input[1], given(node, 2))
        elif node.op_type == "DynamicQuantizeLinear":
            found[node.output[0]] = (node.output[1], node.output[2])
        elif layout is not None and layout.scale is not None:
            zero = "" if layout.zero is None else given(node, layout.zero)
            found[node.output[0]] = (node.input[layout.scale], zero)
        elif moves(node) and (data := moved(node)):
            scale = found.get(data[0]) if all(name in found for name in data) else None
            for name in integers_made(index, node):
                one = scale or said.get(name)
                if one is not None:
                    found[name] = one
    return found


def _said_by_readers(index: GraphIndex) -> dict[str, Scale]:
    """Tensor -> the one scale that a DequantizeLinear or an operator behind it reads it with."""
    said: dict[str, Scale] = {}
    for node in reversed(index.nodes):
        if node.op_type == "DequantizeLinear":
            said.setdefault(node.input[0], (node.input[1], given(node, 2)))
        for place in layout.operands if (layout := layout_of(node)) is not None else ():
            said.setdefault(given(node, place.data), (given(node, place.scale), given(node, place.zero)))
        if moves(node) and node.output[0] in said:
            said.setdefault(node.input[0], said[node.output[0]])
    return {name: scale for name, scale in said.items() if _of_whole_tensor(index, scale[0])}


def _of_whole_tensor(index: GraphIndex, scale: str) -> bool:
    value = index.constant(scale)
    return value is not None and value.size == 1


def moves(node: onnx.NodeProto) -> bool:
    """Whether a node gives elements of what it gets, integers or floats alike."""
    if operator(node) == "NhwcMaxPool":
        return True
    if operator(node) in ("Resize", "Upsample"):
        return attribute_string(node, "mode", "nearest") == "nearest"
    return is_standard(node) and (operator(node) in MOVEMENT or facts_of(node).kind is Kind.SELECTION)


def moved(node: onnx.NodeProto) -> list[str]:
    """The inputs whose elements a node moves."""
    return [name for i, name in enumerate(node.input) if name and is_data(node, i)]


def integers_made(index: GraphIndex, node: onnx.NodeProto) -> list[str]:
    """The outputs of a node that moves integers which are such integers too: others are indices."""
    kind = index.specs.get(moved(node)[0])
    made = [(name, index.specs.get(name)) for name in node.output if name]
    return [name for name, spec in made if kind is not None and spec is not None and spec.dtype == kind.dtype]
