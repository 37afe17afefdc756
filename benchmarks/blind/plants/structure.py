"""Other operators, and edges that lead elsewhere."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..graph import Graph, NotHere
from .kind import ATTRIBUTE, LAYOUT, STRUCTURE, WEIGHTS, WRONG_OP, Planted, pick

OTHER: dict[str, tuple[str, dict[str, Any] | None]] = {
    "Relu": ("LeakyRelu", {"alpha": 0.02}),
    "Sigmoid": ("HardSigmoid", {}),
    "Tanh": ("Softsign", {}),
    "LeakyRelu": ("Elu", {"alpha": 0.3}),
    "HardSigmoid": ("Sigmoid", {}),
    "Erf": ("Tanh", {}),
    "Softmax": ("LogSoftmax", None),
    "MaxPool": ("AveragePool", None),
    "ReduceMean": ("ReduceSum", None),
    "Sqrt": ("Identity", {}),
    "Max": ("Add", {}),
    "Min": ("Max", {}),
}
"""The operator that stands in the place of another, and its attributes; None keeps those there are."""


def operator_replaced(graph: Graph, chance: random.Random) -> Planted:
    """Another operator of the same kind"""
    node = pick(chance, graph.nodes(OTHER))
    before = node.op_type
    node.op_type, given = OTHER[before]
    kept = [a for a in node.attribute if given is None and a.name not in ("storage_order", "dilations")]
    kept = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in kept]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in (given or {}).items())])
    return Planted([node], f"{before} -> {node.op_type}", WRONG_OP | ATTRIBUTE)


def relu_clipped(graph: Graph, chance: random.Random) -> Planted:
    """A Relu that is cut off at 1"""
    node = pick(chance, graph.nodes(("Relu",)))
    for name, bound in (("planted_minimum", 0.0), ("planted_maximum", 1.0)):
        node.input.append(graph.add_weight(node, name, np.float32(bound)))
    node.op_type = "Clip"
    return Planted([node], "Relu -> Clip(0, 1)", WRONG_OP)


def slice_shifted(graph: Graph, chance: random.Random) -> Planted:
    """A Slice one place off"""
    nodes = (n for n in graph.nodes(("Slice",)) if len(n.input) >= 3)
    ranges = ((n, graph.weight(n.input[1]), graph.weight(n.input[2])) for n in nodes)
    node, start, end = pick(chance, ((n, s, e) for n, s, e in ranges if s is not None and e is not None))
    place = chance.randrange(start.size)
    if start[place] < 0 or not 0 <= end[place] < 2**30:
        raise NotHere
    shift = -1 if start[place] > 0 else 1
    start[place] += shift
    end[place] += shift
    node.input[1] = graph.add_weight(node, "planted_start", start)  # names of its own: others may share the old ones
    node.input[2] = graph.add_weight(node, "planted_end", end)
    return Planted([node], f"Slice {shift:+d} on place {place}", WEIGHTS | ATTRIBUTE | LAYOUT)


def mask_inverted(graph: Graph, chance: random.Random) -> Planted:
    """A condition inverted"""
    node = pick(chance, graph.nodes(("Where", "Equal", "GreaterOrEqual", "LessOrEqual", "And")))
    if node.op_type == "Where":
        node.input[1], node.input[2] = node.input[2], node.input[1]
        return Planted([node], "branches of Where exchanged", STRUCTURE)
    output = node.output[0]
    readers = graph.readers(output)
    home = graph.home(node)
    position = next(i for i, n in enumerate(home.node) if n.name == node.name)
    home.node[position].output[0] = f"{output}_inverted"
    home.node.insert(position + 1, helper.make_node("Not", [f"{output}_inverted"], [output], name="planted_not"))
    return Planted([home.node[position], home.node[position + 1], *readers], "inverted by Not", STRUCTURE)


def _exchanged(node: onnx.NodeProto, first: int, causes: frozenset[str]) -> Planted:
    node.input[first], node.input[first + 1] = node.input[first + 1], node.input[first]
    return Planted([node], f"inputs {first} and {first + 1} of {node.op_type} exchanged", causes)


def concat_order(graph: Graph, chance: random.Random) -> Planted:
    """Two inputs of a Concat exchanged"""
    node = pick(chance, (n for n in graph.nodes(("Concat",)) if len(n.input) >= 2))
    return _exchanged(node, chance.randrange(len(node.input) - 1), STRUCTURE)


def operands_exchanged(graph: Graph, chance: random.Random) -> Planted:
    """The operands of a Sub or Div exchanged"""
    return _exchanged(pick(chance, graph.nodes(("Sub", "Div"))), 0, STRUCTURE)


def output_zeroed(graph: Graph, chance: random.Random) -> Planted:
    """One of several outputs all zeros"""
    main = graph.proto.graph
    if len(main.output) < 2:
        raise NotHere
    output = chance.choice(list(main.output)).name
    before = f"{output}_before"
    for node in main.node:
        node.output[:] = [before if o == output else o for o in node.output]
        node.input[:] = [before if i == output else i for i in node.input]
    main.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "planted_zero"))
    main.node.append(helper.make_node("Mul", [before, "planted_zero"], [output], name="planted_zero_product"))
    makers = [n for n in main.node if before in n.output]
    return Planted([main.node[-1], *makers], f"output {output} times 0", STRUCTURE)


def residual_doubled(graph: Graph, chance: random.Random) -> Planted:
    """The sum of two tensors made the double of the first"""
    sums = (n for n in graph.nodes(("Add",)) if all(graph.weight(i) is None for i in n.input))
    node = pick(chance, sums)
    node.input[1] = node.input[0]
    return Planted([node], "Add(x, y) -> Add(x, x)", STRUCTURE)


ALL = (
    operator_replaced, relu_clipped, slice_shifted, mask_inverted, concat_order, operands_exchanged, output_zeroed,
    residual_doubled,
)  # fmt: skip
