"""Outputs that are sequences or maps, as tensors: so that they can be compared like all others.

A classifier of scikit-learn gives one map for each row, from class to probability. Its keys are the same in every row,
and what it is made of is a tensor. ``probabilities`` becomes that tensor, and ``probabilities.keys`` its columns'
classes. A sequence of tensors ``s`` that the graph puts together of a fixed number of them becomes ``s[0]``, ``s[1]``
and so on; one whose length follows from values becomes ``s``, the values of all its tensors in a row, and
``s.shapes``, the rank and the dimensions of each.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..inference import infer_shapes
from ..nodes import subgraphs
from ..operators import ML_DOMAIN
from ..writer import Names
from .dead_nodes import dead_nodes, drop_nodes

SINCE = 11
"""The version of ONNX's operators from which on there are sequences."""


def unfolded(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A model whose outputs are tensors, as far as they are sequences or maps that can be written so.

    Args:
        proto: The model; it is not changed.

    Returns:
        The model itself, where nothing is to be done, or another one; and the names of the outputs that were rewritten.
    """
    kinds = {o.name: o.type.WhichOneof("value") for o in proto.graph.output}
    if not any(kind in ("sequence_type", "map_type") for kind in kinds.values()):
        return proto, ()
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    writer = _Unfolding(result)
    outputs = [_copied(output) for output in result.graph.output]
    del result.graph.output[:]
    done = []
    for output in outputs:
        found = writer.tensors(output) if kinds[output.name] in ("sequence_type", "map_type") else None
        result.graph.output.extend([output] if found is None else found)
        done += [output.name] if found is not None else []
    drop_nodes(result.graph, dead_nodes(result.graph))  # what made sequences and maps that nobody reads any more
    return result, tuple(done)


class _Unfolding:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.names = Names.of(model.graph)
        self.made = {name: node for node in model.graph.node for name in node.output if name}
        inferred = infer_shapes(model).graph
        self.types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)

    def tensors(self, output: onnx.ValueInfoProto) -> list[onnx.ValueInfoProto] | None:
        """What stands for an output; None where it cannot be written as tensors."""
        node = self.made.get(output.name)
        while node is not None and node.op_type == "Identity" and node.domain in ("", "ai.onnx"):
            node = self.made.get(node.input[0])
        if node is not None and node.op_type == "ZipMap" and node.domain == ML_DOMAIN:
            return self._map(output.name, node)
        element = output.type.sequence_type.elem_type
        if element.WhichOneof("value") != "tensor_type" or not self.opset:
            return None
        if node is not None and node.op_type == "SequenceConstruct":
            names = [f"{output.name}[{i}]" for i in range(len(node.input))]
            return [
                self._named(n, given, _value(n, element.tensor_type.elem_type))
                for n, given in zip(names, node.input, strict=True)
            ]
        return self._any_length(output.name, element.tensor_type.elem_type) if self.opset >= SINCE else None

    def _map(self, name: str, node: onnx.NodeProto) -> list[onnx.ValueInfoProto]:
        keys = next(
            numpy_helper.from_array(np.asarray(a.ints, np.int64))
            if a.name == "classlabels_int64s"
            else helper.make_tensor("", TensorProto.STRING, [len(a.strings)], list(a.strings))
            for a in node.attribute
            if len(a.ints) or len(a.strings)
        )
        self._free(name)
        self.graph.node.append(
            helper.make_node("Identity", [node.input[0]], [name], name=self.names.fresh(f"{name}/values"))
        )
        columns = self.names.fresh(f"{name}.keys")
        named = self.names.fresh(f"{node.name or name}/keys")
        self.graph.node.append(helper.make_node("Constant", [], [columns], name=named, value=keys))
        kind = self.types.get(node.input[0], TensorProto.FLOAT)
        return [_value(name, kind, None), _value(columns, keys.data_type, list(keys.dims))]

    def _named(self, name: str, given: str, value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        self.graph.node.append(helper.make_node("Identity", [given], [name], name=self.names.fresh(f"{name}/value")))
        return value

    def _any_length(self, name: str, kind: int) -> list[onnx.ValueInfoProto]:
        """A loop over the sequence that puts the values of its tensors behind each other."""
        inner = self._free(name)
        body = helper.make_graph(
            [
                helper.make_node("SequenceAt", [inner, "number"], ["element"]),
                helper.make_node("Reshape", ["element", "row"], ["flat"]),
                helper.make_node("Concat", ["values", "flat"], ["more"], axis=0),
                helper.make_node("Shape", ["element"], ["dims"]),
                helper.make_node("Shape", ["dims"], ["rank"]),
                helper.make_node("Concat", ["sizes", "rank", "dims"], ["longer"], axis=0),
                helper.make_node("Identity", ["go"], ["on"]),
            ],
            self.names.fresh(f"{name}/body"),
            [
                helper.make_tensor_value_info("number", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("values", kind, [None]),
                helper.make_tensor_value_info("sizes", TensorProto.INT64, [None]),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("more", kind, [None]),
                helper.make_tensor_value_info("longer", TensorProto.INT64, [None]),
            ],
            [numpy_helper.from_array(np.array([-1], np.int64), "row")],
        )
        shapes = self.names.fresh(f"{name}.shapes")
        count, values, sizes, true = (self.names.fresh(f"{name}/{word}") for word in ("count", "none", "sizes", "true"))
        empty = helper.make_tensor(values, kind, [0], [])
        self.graph.initializer.extend([empty, numpy_helper.from_array(np.zeros(0, np.int64), sizes)])
        self.graph.initializer.append(numpy_helper.from_array(np.array(True), true))
        self.graph.node.append(helper.make_node("SequenceLength", [inner], [count], name=self.names.fresh(count)))
        self.graph.node.append(
            helper.make_node(
                "Loop", [count, true, values, sizes], [name, shapes], name=self.names.fresh(f"{name}/all"), body=body
            )
        )
        return [_value(name, kind, [None]), _value(shapes, TensorProto.INT64, [None])]

    def _free(self, name: str) -> str:
        """Gives what is called ``name`` another name, so that a tensor can have it; returns that."""
        other = self.names.fresh(f"{name}/sequence")
        for node in self.graph.node:
            _rename(node, name, other)
        for value in self.graph.value_info:
            value.name = other if value.name == name else value.name
        return other


def _value(name: str, kind: int, shape: list[int | None] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _copied(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    node.input[:] = [new if name == old else name for name in node.input]
    node.output[:] = [new if name == old else name for name in node.output]
    for body in subgraphs(node):
        for inner in body.node:
            _rename(inner, old, new)
