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
                made = writer.emit("DequantizeLinear", [name, *pair], writer.names.fresh(_float_name(name)))
                again[name] = writer.emit("QuantizeLinear", [made, *pair], writer.names.fresh(f"{name}__again"))
    writer.into(proto.graph)
    return model.derive(proto)


def _float_name(name: str) -> str:
    return name.removesuffix(_SUFFIX) if name.endswith(_SUFFIX) else f"{name}__float"


def _handed_on(index: GraphIndex) -> dict[str, Scale]:
    """Integers that an operator makes and another one reads -> their scale."""
    scales = scales_of(index)

    def plain(position: int) -> bool:
        return operator(index.nodes[position]) not in QUANTIZERS

    return {
        name: scale
        for name, scale in scales.items()
        if plain(index.producer[name]) and any(map(plain, index.consumers.get(name, ())))
    }
