"""Who makes and who reads each tensor of an ONNX graph, names captured by subgraphs included."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from .contrib_ops import element_types
from .evaluation import evaluate
from .inference import infer_shapes
from .nodes import attribute_int, attribute_tensor, reads
from .operators import FOLDABLE, is_standard, operator
from .specs import Dim, TensorSpec, spec_from_value_info
from .weights import read_tensor

CONSTANT_LIMIT = 1 << 16
"""Most elements that `GraphIndex.constant` folds on the way; larger results count as unknown."""


class GraphIndex:
    """An ONNX graph with its edges looked up once. The graph must not change while the index is in use.

    Nodes are addressed by their position in ``graph.node``, which ONNX requires to be a topological order.
    """

    def __init__(
        self, proto: onnx.ModelProto, folder: Path | None = None, specs: Mapping[str, TensorSpec] | None = None
    ) -> None:
        """Looks up the edges. ``folder``: of external data; ``specs``: types of tensors, where they are known."""
        self.proto = proto
        self._specs = specs
        self.kept: dict[object, object] = {}
        """What others found out about this graph, kept as long as the graph is."""
        self.graph = proto.graph
        self.folder = folder
        self.nodes: list[onnx.NodeProto] = list(self.graph.node)
        self.initializers: dict[str, onnx.TensorProto] = {t.name: t for t in self.graph.initializer}
        self.initializers.update({t.values.name: t.values for t in self.graph.sparse_initializer})
        self.inputs: list[str] = [i.name for i in self.graph.input if i.name not in self.initializers]
        self.outputs: list[str] = [o.name for o in self.graph.output]
        self.reads: list[list[str]] = [reads(node) for node in self.nodes]
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = {}
        for position, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.producer[name] = position
            for name in self.reads[position]:
                self.consumers.setdefault(name, []).append(position)

    @cached_property
    def names(self) -> list[str]:
        """A unique name for every node: see `unique_names`."""
        return unique_names(self.nodes)

    @cached_property
    def opset(self) -> dict[str, int]:
        """Opset version by domain; the default domain is the empty string."""
        return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in self.proto.opset_import}

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """Dtype and shape of every tensor that ONNX shape inference can type (top level of the graph)."""
        if self._specs is not None:
            return dict(self._specs)
        infos = [*self.graph.input, *self.graph.output, *self.graph.value_info]
        known = {i.name: s for i in infos if (s := spec_from_value_info(i)) is not None}
        inferred = infer_shapes(self.proto).graph.value_info
        for info in inferred:
            spec = spec_from_value_info(info)
            if spec is not None and info.name in self.producer:
                known[info.name] = spec
        for name, tensor in self.initializers.items():
            info = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            spec = spec_from_value_info(info)
            if spec is not None:
                known[name] = spec
        if any(name and name not in known for node in self.nodes for name in node.output):
            containers = {
                i.name for i in (*infos, *inferred) if i.type.WhichOneof("value") not in (None, "tensor_type")
            }
            known.update(element_types(self.nodes, known, containers))
        return known

    def rank(self, name: str) -> int | None:
        """How many axes a tensor has; None where that is not known."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """The shape of a tensor, as far as it is known; what a Reshape is told, where inference does not see it."""
        spec, position = self.specs.get(name), self.producer.get(name)
        if (spec is None or spec.shape is None) and position is not None:
            node = self.nodes[position]
            target = self.constant(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
            if target is not None and target.ndim == 1 and (target > 0).all():
                return tuple(map(int, target))
        return None if spec is None else spec.shape

    def weight(self, name: str) -> np.ndarray | None:
        """The value of an initializer or a Constant node's output, of any size; None if ``name`` is neither.

        External data are memory-mapped: nothing is read from disk before the values are used.
        """
        tensor = self.initializers.get(name)
        if tensor is None:
            position = self.producer.get(name)
            if position is None or self.nodes[position].op_type != "Constant":
                return None
            node = self.nodes[position]
            for a in node.attribute:
                if a.name == "value":
                    tensor = a.t
                elif a.name in ("value_float", "value_floats"):
                    return np.asarray(onnx.helper.get_attribute_value(a), np.float32)
                elif a.name in ("value_int", "value_ints"):
                    return np.asarray(onnx.helper.get_attribute_value(a), np.int64)
            if tensor is None:
                return None
        return read_tensor(tensor, self.folder)

    def moved_from(self, name: str, through: Collection[str]) -> str:
        """The tensor that becomes ``name`` by operators of ``through`` alone, each on its first input; itself where
        another operator makes it, or none."""
        while (position := self.producer.get(name)) is not None and operator(self.nodes[position]) in through:
            name = self.nodes[position].input[0]
        return name

    def computed_weight(self, name: str) -> np.ndarray | None:
        """The value of a weight, also of one that the graph computes from constants. A fill (ConstantOfShape) is a view
        of one element, however large: see `is_fill`. None where the value cannot be told cheaply."""
        value = self.weight(name)
        if value is not None or name not in self.producer:
            return value
        node = self.nodes[self.producer[name]]
        if operator(node) != "ConstantOfShape":
            return self.constant(name)
        shape, fill = self.constant(node.input[0]), attribute_tensor(node, "value")
        if shape is None:
            return None
        element = np.zeros(1, np.float32) if fill is None else read_tensor(fill, self.folder)
        return np.broadcast_to(element.reshape(()), tuple(int(d) for d in shape.reshape(-1)))

    @cached_property
    def _folded(self) -> dict[str, np.ndarray | None]:
        return {}

    def constant(self, name: str) -> np.ndarray | None:
        """The value of ``name`` if it is the same for every input, folded through data movement and integer
        arithmetic on small tensors; None if it depends on the inputs or cannot be told cheaply."""
        if name not in self._folded:
            self._folded[name] = None  # also guards against malformed cyclic graphs
            value = self._fold(name)
            if name in self.initializers and value is not None and value.size > CONSTANT_LIMIT:
                del self._folded[name]  # kept, it would keep memory that anybody else can have
                return value
            self._folded[name] = value
        return self._folded[name]

    def _fold(self, name: str) -> np.ndarray | None:
        value = self.weight(name)
        if value is not None or name not in self.producer:
            return value
        node = self.nodes[self.producer[name]]
        if operator(node) not in FOLDABLE or not is_standard(node):
            return None
        if node.op_type == "Shape":
            return self._fold_shape(node)
        feed: dict[str, np.ndarray] = {}
        for read in filter(None, node.input):
            argument = self.constant(read)
            if argument is None or argument.size > CONSTANT_LIMIT:
                return None
            feed[read] = argument
        return evaluate(node, name, feed, self.proto.opset_import)

    def _fold_shape(self, node: onnx.NodeProto) -> np.ndarray | None:
        spec = self.specs.get(node.input[0])
        if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape):
            return None
        start, end = attribute_int(node, "start", 0), attribute_int(node, "end", len(spec.shape))
        return np.asarray(spec.shape[start:end], np.int64)


def is_fill(values: np.ndarray) -> bool:
    """Whether an array is a view of one element."""
    return values.size > 1 and not any(
        step for step, size in zip(values.strides, values.shape, strict=True) if size > 1
    )


def unique_names(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """A unique name for every node of a graph: its own, else ``Op_position``."""
    seen: set[str] = set()
    result = []
    for position, node in enumerate(nodes):
        name = node.name or f"{node.op_type}_{position}"
        if name in seen:
            name = f"{name}#{position}"
        seen.add(name)
        result.append(name)
    return result
