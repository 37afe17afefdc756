"""Quantizers that change nothing: what they read holds the very numbers already that they can make.

Runtimes move them, repeat them and leave them out. A DequantizeLinear behind a QuantizeLinear with its scale is one,
and so is every further pair behind operators that only move values or choose among them.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from ..index import GraphIndex
from ..nodes import attribute
from ..operators import QUANTIZERS, operator
from .layouts import layout_of
from .quantizers import holder, made_in_steps, quantizer
from .scales import moved, moves

Numbers = tuple[float, float, float]
"""The step between the numbers that a scaled integer can stand for, and how many steps below and above zero they end:
the same of signed and of unsigned integers whose zero points differ by half their levels."""


def idle_quantizers(index: GraphIndex) -> frozenset[int]:
    """Positions of the quantizers that give the numbers that they read."""
    return _looked_through(index)[0]


def numbers_held(index: GraphIndex) -> Mapping[str, Numbers]:
    """Tensors that hold nothing but what a quantizer made, moved perhaps -> the numbers that it makes."""
    return _looked_through(index)[1]


def _looked_through(index: GraphIndex) -> tuple[frozenset[int], dict[str, Numbers]]:
    known = index.kept.get(idle_quantizers)
    if not isinstance(known, tuple):
        known = index.kept[idle_quantizers] = _idle(index)
    return known


def _idle(index: GraphIndex) -> tuple[frozenset[int], dict[str, Numbers]]:
    held: dict[str, Numbers] = {}
    idle = set()
    for position, node in enumerate(index.nodes):
        if operator(node) in QUANTIZERS or layout_of(node) is not None:
            numbers = numbers_of(index, position)
            if numbers is None:
                continue
            if operator(node) in QUANTIZERS and held.get(node.input[0]) == numbers:
                idle.add(position)
            held[node.output[0]] = numbers
        elif keeps(node) and (data := moved(node)) and data[0] in held:
            if all(held.get(name) == held[data[0]] for name in data):
                held.update(dict.fromkeys(filter(None, node.output), held[data[0]]))
    return frozenset(idle), held


def numbers_of(index: GraphIndex, position: int) -> Numbers | None:
    """What a QuantizeLinear makes, a DequantizeLinear of data, or an operator on scaled integers; None where that is
    not known, or differs along an axis."""
    name = index.nodes[position].output[0]
    found = quantizer(index, position) or holder(index, name) or made_in_steps(index, name)
    if found is None or found.scale is None or found.scale.size != 1 or found.levels is not None:
        return None
    zero = 0.0 if found.zero is None else float(found.zero.reshape(-1)[0])
    return abs(float(found.scale.reshape(-1)[0])), found.ends[0] - zero, found.ends[1] - zero


def keeps(node: onnx.NodeProto) -> bool:
    """Whether a node gives nothing but numbers that it got, or zero, which scaled integers all have."""
    return operator(node) == "Relu" or (moves(node) and not attribute(node, "value", 0.0))  # of a Pad of opset 10
