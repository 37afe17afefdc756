"""Graphs that hand integers from operator to operator, with a float tensor wherever they do.

Between two operators of scaled integers stands no float tensor to look at. A DequantizeLinear and the QuantizeLinear
that takes it back, with the same scale, give one and change no bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from ..index import GraphIndex
from ..operators import QUANTIZERS, operator
from ..writer import GraphWriter, Names
from .layouts import channels_last, channels_moved
from .scales import Scale, scales_of

if TYPE_CHECKING:
    from ..model import Model

_SUFFIX = "_quantized"
"""What ONNX Runtime's quantizers put behind the name of a float tensor."""


def with_float_borders(model: Model) -> Model:
    """The same network, bit by bit, with a float tensor wherever operators hand each other integers; the model itself
    where they never do."""
    index = model.index
    handed = _handed_on(index)
    if not handed:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(index.proto)
    writer = GraphWriter(Names.of(index.graph), index.opset.get("", 1))
    again: dict[str, str] = {}
    for node in list(proto.graph.node):
        if node.op_type != "DequantizeLinear":
            node.input[:] = [again.get(name, name) for name in node.input]
        writer.nodes.append(node)
        for name in node.output:
            if name in handed:
                pair = [n for n in handed[name] if n]
                made = _floats(writer, node, name, pair, channels_moved(index, node))
                again[name] = writer.emit("QuantizeLinear", [made, *pair], writer.names.fresh(f"{name}__again"))
    writer.into(proto.graph)
    return model.derive(proto)


def _floats(
    writer: GraphWriter, node: onnx.NodeProto, name: str, pair: list[str], turns: tuple[list[int], list[int]] | None
) -> str:
    """Writes what integers stand for, on the way with the channels where all other layouts have them."""
    called = writer.names.fresh(_float_name(name))
    if not channels_last(node) or turns is None:
        return writer.emit("DequantizeLinear", [name, *pair], called)
    first, last = turns
    made = writer.emit("DequantizeLinear", [name, *pair])
    return writer.emit("Transpose", [writer.emit("Transpose", [made], called, perm=first)], perm=last)


def _float_name(name: str) -> str:
    return name.removesuffix(_SUFFIX) if name.endswith(_SUFFIX) else f"{name}__float"


def _handed_on(index: GraphIndex) -> dict[str, Scale]:
    """Integers that a node makes and an operator reads -> their scale. Between one whose channels are last and the
    Transpose before or behind it are none: the floats on its other side are the same."""
    scales = scales_of(index)
    found = {}
    for name, scale in scales.items():
        readers = [index.nodes[p] for p in index.consumers.get(name, ())]
        readers = [node for node in readers if operator(node) not in QUANTIZERS]
        maker = index.nodes[index.producer[name]]
        if operator(maker) == "Transpose":
            readers = [node for node in readers if not channels_last(node)]
        elif channels_last(maker):
            readers = [node for node in readers if operator(node) != "Transpose"]
        if readers:
            found[name] = scale
    return found
