"""A graph whose sums with a normalization behind them, one operator in ONNX Runtime, are written as two: with which the
other graph is matched, where it has others of them. It is read and never run."""

from __future__ import annotations

import onnx
from onnx import helper

from ..index import GraphIndex
from ..nodes import attribute
from ..operators import operator
from ..quantized.float_form import FloatForm
from ..writer import GraphWriter, Names
from .normal_form import slots

SKIPPING = {
    "SkipLayerNormalization": "LayerNormalization",
    "SkipSimplifiedLayerNormalization": "SimplifiedLayerNormalization",
}
"""The operators that are a sum and a normalization, with the latter."""
EPSILON = 1e-12
"""The epsilon of a SkipLayerNormalization that gives none."""


def fused(index: GraphIndex) -> int:
    """How many nodes are a sum and the normalization behind it."""
    return sum(_parts(node) for node in index.nodes)


def unfused(index: GraphIndex) -> FloatForm | None:
    """The graph with sums and normalizations that stand for themselves; None where it has none of both in one."""
    if not fused(index):
        return None
    writer, origins = GraphWriter(Names.of(index.graph), index.opset.get("", 1)), list[int]()
    specs, invented = dict(index.specs), set[str]()
    for position, node in enumerate(index.nodes):
        before = len(writer.nodes)
        if _parts(node):
            made = _write(writer, node)
            invented.update(made)
            kept = specs.get(node.output[0])
            specs.update({} if kept is None else dict.fromkeys(made, kept))
        else:
            writer.nodes.append(node)
        origins.extend([position] * (len(writer.nodes) - before))
    proto = onnx.ModelProto(ir_version=index.proto.ir_version)
    proto.opset_import.extend(index.proto.opset_import)
    proto.functions.extend(index.proto.functions)
    proto.graph.name = index.graph.name
    proto.graph.input.extend(index.graph.input)
    proto.graph.output.extend(index.graph.output)
    proto.graph.node.extend(writer.nodes)
    form = GraphIndex(proto, index.folder, specs)
    form.initializers, form.inputs = index.initializers, index.inputs  # not copied: they may be large
    return FloatForm(form, tuple(origins), frozenset(invented))


def _parts(node: onnx.NodeProto) -> bool:
    """Whether a node is a sum and a normalization, of which nobody reads the statistics."""
    return operator(node) in SKIPPING and not any(node.output[1:3])


def _write(writer: GraphWriter, node: onnx.NodeProto) -> list[str]:
    """Writes a node as what it stands for, and returns the tensors that the file does not have."""
    given, made = dict(zip(slots(node, 1), node.input, strict=True)), []
    addend = given["skip"]
    if given.get("bias"):
        addend = writer.emit("Add", [addend, given["bias"]])
        made.append(addend)
    total = node.output[3] if len(node.output) > 3 and node.output[3] else None
    summed = writer.emit("Add", [given["input"], addend], total)
    made.extend([] if total else [summed])
    read = [summed, *filter(None, (given.get("scale"), given.get("b")))]
    epsilon = attribute(node, "epsilon", EPSILON)
    op = SKIPPING[operator(node)]
    writer.nodes.append(helper.make_node(op, read, node.output[:1], name=node.name, axis=-1, epsilon=epsilon))
    return made
