"""Graphs that hand integers from operator to operator, with a float tensor wherever they do.

Between two operators of scaled integers stands no float tensor to look at. A DequantizeLinear and the QuantizeLinear
that takes it back, with the same scale, give one and change no bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
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
    """The same network, bit by bit, with one float tensor wherever operators hand each other integers; the model itself
    where they never do, and where nobody makes the same floats of integers twice."""
    index = model.index
    handed, repeated = _handed_on(index), _repeated(index)
    if not handed and not any(len(positions) > 1 for positions in repeated.values()):
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(index.proto)
    writer = GraphWriter(Names.of(index.graph), index.opset.get("", 1))
    again: dict[str, str] = {}
    once = {index.nodes[p].output[0]: index.nodes[first].output[0] for first, *rest in repeated.values() for p in rest}
    gone = {p for _, *rest in repeated.values() for p in rest}
    ahead = {name: repeated[name][0] for name in handed if name in repeated and _follows(index, repeated[name][0])}
    gone.update(ahead.values())
    for position, node in enumerate(list(proto.graph.node)):
        if position in gone:
            continue
        read = once if node.op_type == "DequantizeLinear" else {**once, **again}
        node.input[:] = [read.get(name, name) for name in node.input]
        writer.nodes.append(node)
        for name in node.output:
            if name in handed:
                pair = [n for n in handed[name] if n]
                if name in ahead:
                    writer.nodes.append(index.nodes[ahead[name]])
                    made = writer.nodes[-1].output[0]
                else:
                    made = _floats(writer, node, name, pair, channels_moved(index, node))
                again[name] = writer.emit("QuantizeLinear", [made, *pair], writer.names.fresh(f"{name}__again"))
    writer.into(proto.graph)
    return model.derive(proto)


def _repeated(index: GraphIndex) -> dict[str, list[int]]:
    """Integers that a node makes -> positions of the nodes that make the same floats of them; of several that the graph
    gives, or that its bodies read, the first."""
    found: dict[str, list[int]] = {}
    for position, node in enumerate(index.nodes):
        if node.op_type != "DequantizeLinear" or node.input[0] not in index.producer:
            continue
        made, beside = node.output[0], found.setdefault(node.input[0], [])
        plain = all(made in index.nodes[p].input for p in index.consumers.get(made, ()))
        if not beside or (plain and made not in index.outputs and _alike(index, position, beside[0])):
            beside.append(position)
    return found


def _alike(index: GraphIndex, position: int, other: int) -> bool:
    """Whether two nodes make the same floats of the same integers."""
    one, two = index.nodes[position], index.nodes[other]
    if len(one.input) != len(two.input) or list(one.attribute) != list(two.attribute):
        return False
    values = ((index.constant(a), index.constant(b)) for a, b in zip(one.input[1:], two.input[1:], strict=True))
    return list(one.input) == list(two.input) or all(
        a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b) for a, b in values
    )


def _follows(index: GraphIndex, position: int) -> bool:
    """Whether a node that makes floats of integers may stand right behind the one that makes these, in their layout."""
    node = index.nodes[position]
    stored = all(name in index.initializers for name in node.input[1:])
    return stored and not channels_last(index.nodes[index.producer[node.input[0]]])


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
