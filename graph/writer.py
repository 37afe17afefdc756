"""Writing ONNX nodes: names that nothing else has, constants, and nodes in the form that an opset wants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .nodes import subgraphs


class Names:
    """The names of a graph's tensors and nodes, and new ones that differ from them."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._last: dict[str, int] = {}

    @classmethod
    def of(cls, graph: onnx.GraphProto, also: Iterable[str] = ()) -> Names:
        """The names of a graph, those inside bodies of its nodes among them, and others."""
        return cls(_names(graph).union(also))

    def fresh(self, wanted: str) -> str:
        """``wanted``, or where that is taken, with the next free number behind it."""
        name, count = wanted, self._last.get(wanted, 1)
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._last[wanted] = count
        self._taken.add(name)
        return name


def _names(graph: onnx.GraphProto) -> set[str]:
    names = {i.name for i in (*graph.input, *graph.output, *graph.initializer, *graph.value_info)}
    names.update(i.values.name for i in graph.sparse_initializer)
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
        for body in subgraphs(node):
            names |= _names(body)
    return names


class GraphWriter:
    """Nodes and constants, written one after the other for the opset of a model.

    Args:
        names: Names that are taken; shared by all writers of a model.
        opset: Version of ONNX's main domain that the nodes are for.
        label: What new tensors are named after; else after what they are made of.

    Attributes:
        nodes: What was written, in order.
        initializers: The constants that they read.
    """

    def __init__(self, names: Names, opset: int, label: str = "") -> None:
        self.names = names
        self.opset = opset
        self.label = label
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._scalars: dict[tuple[float, str], str] = {}

    def inside(self) -> GraphWriter:
        """A writer for the body of a node."""
        return GraphWriter(self.names, self.opset, self.label)

    def emit(self, op_type: str, inputs: Sequence[str], output: str | None = None, **attributes: object) -> str:
        """Writes a node of one output and returns the output's name."""
        if output is None:
            output = self.names.fresh(f"{self.label or (inputs[0] if inputs else '')}__{op_type.lower()}")
        name = self.names.fresh(f"{op_type}_{output}")
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=name, **attributes))
        return output

    def repeat(self, node: onnx.NodeProto, inputs: Sequence[str]) -> list[str]:
        """Writes a node again, with other inputs, and returns the names of its outputs; empty where it has none."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        copy.output[:] = [
            self.names.fresh(f"{self.label or name}__{node.op_type.lower()}") if name else "" for name in node.output
        ]
        copy.name = self.names.fresh(f"{node.op_type}_{next(filter(None, copy.output), '')}")
        self.nodes.append(copy)
        return list(copy.output)

    def constant(self, value: np.ndarray, name: str = "layerdiff_constant") -> str:
        """The name of a new constant, which is ``name`` where that is free."""
        name = self.names.fresh(name)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def into(self, graph: onnx.GraphProto) -> None:
        """Puts what was written into a graph, in place of its nodes."""
        del graph.node[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.initializers)

    def scalar(self, value: float, dtype: type = np.float32) -> str:
        """The name of a constant of rank 0; equal ones are written once."""
        key = (float(value), np.dtype(dtype).name)
        if key not in self._scalars:
            self._scalars[key] = self.constant(np.asarray(value, dtype), f"layerdiff_{float(value):g}")
        return self._scalars[key]

    def ints(self, *values: int) -> str:
        """The name of a constant list of integers."""
        return self.constant(np.asarray(values, np.int64), "layerdiff_ints")

    def cast(self, name: str, elem_type: int, output: str | None = None) -> str:
        """Writes a Cast."""
        return self.emit("Cast", [name], output, to=elem_type)

    def unsqueeze(self, name: str, axes: Sequence[int]) -> str:
        """Writes an Unsqueeze."""
        if self.opset >= 13:
            return self.emit("Unsqueeze", [name, self.ints(*axes)])
        return self.emit("Unsqueeze", [name], axes=list(axes))

    def reduce(self, op_type: str, name: str, axes: Sequence[int]) -> str:
        """Writes a reduction that keeps the axes it reduces."""
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.emit(op_type, [name, self.ints(*axes)], keepdims=1)
        return self.emit(op_type, [name], axes=list(axes), keepdims=1)

    def clip(self, name: str, limit: float, low: float | None = None) -> str:
        """Writes what limits values to ``low`` (minus ``limit`` if not given) and ``limit``."""
        low = -limit if low is None else low
        if self.opset < 8:  # Min and Max do not broadcast yet
            return self.emit("Clip", [name], min=low, max=limit)
        return self.emit("Max", [self.emit("Min", [name, self.scalar(limit)]), self.scalar(low)])

    def at_least(self, name: str, low: float) -> str:
        """Writes what limits values to ``low`` and more."""
        if self.opset < 8:
            return self.emit("Clip", [name], min=low)
        return self.emit("Max", [name, self.scalar(low)])
