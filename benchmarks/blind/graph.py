"""A model whose bodies are changed like its main graph: nodes, weights and attributes, wherever they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.kit.bodies import graphs


class NotHere(Exception):
    """The network has no place for this kind of fault, or no such form."""


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model, each node with a name of its own, so that the place of a fault can be told; changed in place."""
    taken: set[str] = set()
    for graph in graphs(proto.graph):
        for node in graph.node:
            if not node.name or node.name in taken:
                node.name = f"{node.op_type}:{next(iter(node.output), len(taken))}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)
    return proto


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute; ``default`` where the node has none of that name."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Gives an attribute another value."""
    for old in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(name, value))


class Graph:
    """A model to be changed in place. Its nodes are those of all bodies too."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self._tensors = {t.name: t for graph in graphs(proto.graph) for t in graph.initializer}
        self._aliases: dict[str, str] = {}
        for node in self.nodes():
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._tensors.setdefault(node.output[0], node.attribute[0].t)
            elif node.op_type == "Identity":
                self._aliases[node.output[0]] = node.input[0]

    def nodes(self, ops: Collection[str] | None = None) -> list[onnx.NodeProto]:
        """The nodes of these operators; all nodes if none are given."""
        return [n for graph in graphs(self.proto.graph) for n in graph.node if ops is None or n.op_type in ops]

    def home(self, node: onnx.NodeProto) -> onnx.GraphProto:
        """The graph or body that a node is in."""
        return next(g for g in graphs(self.proto.graph) if any(n.name == node.name for n in g.node))

    def weight(self, name: str) -> np.ndarray | None:
        """A copy of a constant, seen through Identity; None if the tensor is computed."""
        tensor = self._tensor(name)
        return None if tensor is None else numpy_helper.to_array(tensor).copy()

    def set_weight(self, name: str, values: np.ndarray) -> None:
        """Gives a constant another value, for all nodes that read it."""
        tensor = self._tensor(name)
        assert tensor is not None
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))

    def add_weight(self, node: onnx.NodeProto, name: str, values: np.ndarray) -> str:
        """Adds a constant to the graph that ``node`` is in; the name must be free."""
        self.home(node).initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor; those behind an Identity of a constant stand for the Identity."""
        found = []
        for node in self.nodes():
            if tensor in node.input:
                through = node.op_type == "Identity" and self._tensor(tensor) is not None
                found += self.readers(node.output[0]) if through else [node]
        return found

    def constants(self, ops: Collection[str], slots: Sequence[int] | None = None) -> list[Constant]:
        """The constant inputs of these operators: the node, the tensor's name and its values, in the graph's order."""
        found = []
        for node in self.nodes(ops):
            for slot in range(len(node.input)) if slots is None else slots:
                values = self.weight(node.input[slot]) if slot < len(node.input) else None
                if values is not None:
                    found.append((node, node.input[slot], values))
        return found

    def _tensor(self, name: str) -> onnx.TensorProto | None:
        while name not in self._tensors and name in self._aliases:
            name = self._aliases[name]
        return self._tensors.get(name)


Constant = tuple[onnx.NodeProto, str, np.ndarray]
