"""What a kind of fault is: a function of a graph and chance."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx

from ..graph import Constant, Graph, NotHere, attribute

Chosen = TypeVar("Chosen")
WEIGHTS, ATTRIBUTE, LAYOUT = frozenset({"weights"}), frozenset({"attribute"}), frozenset({"layout"})
SCALE, WRONG_OP = frozenset({"scale"}), frozenset({"wrong-op"})
QUANTIZATION = frozenset({"quantization"})
STRUCTURE = ATTRIBUTE | LAYOUT | SCALE | WRONG_OP | WEIGHTS | {"nan"}
"""Where an edge leads elsewhere, each of these may describe what the nodes there make of it."""


@dataclass(frozen=True)
class Planted:
    """A fault that was planted.

    Attributes:
        nodes: The nodes that name the place rightly.
        what: What was changed, with values.
        causes: Honest answers.
    """

    nodes: Sequence[onnx.NodeProto]
    what: str
    causes: frozenset[str]


def pick(chance: random.Random, places: Iterable[Chosen]) -> Chosen:
    """One place of several.

    Raises:
        NotHere: There is none.
    """
    known = list(places)
    if not known:
        raise NotHere
    return chance.choice(known)


def weight_slots(node: onnx.NodeProto) -> tuple[int, ...]:
    """The inputs of a layer that may hold its weights."""
    if node.op_type == "MatMul":
        return (0, 1)
    return (1, 2) if node.op_type in ("LSTM", "GRU") else (1,)


LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "LSTM", "GRU")


def pick_weight(graph: Graph, chance: random.Random, ops: Sequence[str] = LAYERS) -> Constant:
    """The weight of one layer."""
    return pick(
        chance,
        (
            place
            for node in graph.nodes(ops)
            for place in constants_of(graph, node, weight_slots(node))
            if place[2].dtype == np.float32 and place[2].size >= 16
        ),
    )


def constants_of(graph: Graph, node: onnx.NodeProto, slots: Iterable[int]) -> list[Constant]:
    """Those of some inputs of a node that are constants."""
    held = ((name, graph.weight(name)) for name in (node.input[s] for s in slots if s < len(node.input)))
    return [(node, name, values) for name, values in held if values is not None]


def output_axis(node: onnx.NodeProto, values: np.ndarray) -> int:
    """The axis of a weight that numbers a layer's output channels."""
    if node.op_type in ("ConvTranspose", "LSTM", "GRU"):
        return 1
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else values.ndim - 1


def input_axis(node: onnx.NodeProto, values: np.ndarray) -> int:
    """The axis of a weight that numbers a layer's input channels."""
    return 1 if node.op_type == "Conv" or attribute(node, "transB", 0) else values.ndim - 2
