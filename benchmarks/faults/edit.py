"""Changes an ONNX graph in place: weights, attributes, nodes. Weights that others share stay theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Edit:
    """A copy of a model, to be changed."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        self.graph = self.proto.graph

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next(o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx"))

    def node(self, name: str) -> onnx.NodeProto:
        """The node of that name."""
        return next(n for n in self.graph.node if n.name == name)

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and weights."""
        return next((n for n in self.graph.node if tensor in n.output), None)

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor, in order."""
        return [n for n in self.graph.node if tensor in n.input]

    def only_reader(self, tensor: str) -> onnx.NodeProto | None:
        """The node that alone reads a tensor that is no output; None if there is no such node."""
        readers = self.readers(tensor)
        if len(readers) != 1 or any(o.name == tensor for o in self.graph.output):
            return None
        return readers[0]

    # Weights

    def weight(self, name: str) -> np.ndarray | None:
        """A copy of an initializer or Constant by the tensor's name; None if it is neither."""
        for tensor in self.graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor).copy()
        maker = self.maker(name)
        if maker is not None and maker.op_type == "Constant":
            return numpy_helper.to_array(maker.attribute[0].t).copy()
        return None

    def set_weight(self, node: onnx.NodeProto, slot: int, values: np.ndarray) -> None:
        """Gives ``node`` another weight at input ``slot``; other readers of the old one keep it."""
        name = node.input[slot]
        values = np.asarray(values)
        if sum(list(n.input).count(name) for n in self.graph.node) > 1:
            node.input[slot] = self.add_weight(name, values)
            return
        for tensor in self.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(values, name))
                return
        maker = self.maker(name)
        assert maker is not None
        assert maker.op_type == "Constant"
        maker.attribute[0].t.CopyFrom(numpy_helper.from_array(values))

    def scale_weight(self, node: onnx.NodeProto, slot: int, factor: float) -> None:
        """Multiplies a weight; a slot that is not there stays so."""
        if slot < len(node.input) and node.input[slot]:
            values = self.weight(node.input[slot])
            assert values is not None
            self.set_weight(node, slot, (values * factor).astype(values.dtype))

    def add_weight(self, name: str, values: np.ndarray) -> str:
        """Adds an initializer under a free name made from ``name``."""
        taken = {t.name for t in self.graph.initializer} | {o for n in self.graph.node for o in n.output}
        free, number = name, 0
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), free))
        return free

    # Nodes

    def set(self, node: onnx.NodeProto, **attributes: Any) -> None:
        """Sets attributes."""
        for name in attributes:
            for old in [a for a in node.attribute if a.name == name]:
                node.attribute.remove(old)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())

    def position(self, node: onnx.NodeProto) -> int:
        """Position in the graph."""
        return next(i for i, n in enumerate(self.graph.node) if n.name == node.name)

    def insert(self, position: int, nodes: Iterable[onnx.NodeProto]) -> None:
        """Inserts nodes before ``position``."""
        for offset, node in enumerate(nodes):
            self.graph.node.insert(position + offset, node)

    def replace(self, node: onnx.NodeProto, nodes: Iterable[onnx.NodeProto]) -> None:
        """Puts other nodes in the place of one."""
        position = self.position(node)
        del self.graph.node[position]
        self.insert(position, nodes)

    def bypass(self, node: onnx.NodeProto, kept: str) -> str:
        """Removes a node; who read it reads its input ``kept``. Returns the tensor that stands for its output now."""
        output = node.output[0]
        self.graph.node.remove(node)
        if any(o.name == output for o in self.graph.output):
            maker = self.maker(kept)
            assert maker is not None
            maker.output[list(maker.output).index(kept)] = output
            kept, output = output, kept
        for other in self.graph.node:
            other.input[:] = [kept if i == output else i for i in other.input]
        self.prune()
        return kept

    def after(self, tensor: str, op: str, constant: np.ndarray, path: str) -> onnx.NodeProto:
        """Inserts ``op(tensor, constant)`` between a tensor and all its readers. Returns the new node."""
        maker = self.maker(tensor)
        assert maker is not None
        readers = self.readers(tensor)
        name = self.free_name(f"{path}/{op}")
        output = f"{name}_output_0"
        value = self.add_weight(f"{path.strip('/').replace('/', '.')}.factor", constant)
        node = helper.make_node(op, [tensor, value], [output], name=name)
        for reader in readers:
            reader.input[:] = [output if i == tensor else i for i in reader.input]
        self.insert(self.position(maker) + 1, [node])
        return self.node(name)

    def free_name(self, name: str) -> str:
        """A node name that is not taken, made from ``name``."""
        taken = {n.name for n in self.graph.node}
        free, number = name, 0
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        return free

    def prune(self) -> None:
        """Drops nodes and weights that nothing needs any more."""
        needed = {o.name for o in self.graph.output}
        for node in reversed(list(self.graph.node)):
            if any(o in needed for o in node.output):
                needed.update(node.input)
            else:
                self.graph.node.remove(node)
        for tensor in list(self.graph.initializer):
            if tensor.name not in needed:
                self.graph.initializer.remove(tensor)
