"""Backward slices of a graph as models: what makes a tensor, from tensors that are given.

`slice_model` makes one model of one slice. `explode` puts many slices side by side into one model without any edge
between them: each reads its inputs from the feed. Fed with the reference's values, one run of it gives the local error
of every layer at the price of a single inference.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import ModelError
from ..index import GraphIndex
from ..nodes import subgraphs
from ..specs import TensorSpec, dtype_from_onnx
from .extract import add_weights, empty_like, value_info

if TYPE_CHECKING:
    from ..model import Model

SEPARATOR = "\x1f"
"""Between a tensor's name and the number of its slice in an exploded model. No exporter writes it."""


@dataclass(frozen=True)
class Slice:
    """What makes some tensors from others.

    Attributes:
        outputs: The tensors it makes, or hands on as it reads them.
        nodes: Positions in ``graph.node``, ascending.
        inputs: Tensors it reads from outside, in order of first use. Weights are not among them.
    """

    outputs: tuple[str, ...]
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]


def backward(index: GraphIndex, outputs: Sequence[str], given: Collection[str]) -> Slice:
    """The slice that makes ``outputs`` from ``given`` tensors and graph inputs.

    An output that is itself given is made all the same; everything else stops at what is given.

    Raises:
        ModelError: The graph does not hold an output.
    """
    nodes: set[int] = set()
    inputs: dict[str, None] = {}
    seen: set[str] = set()
    stack: list[str] = []
    for name in outputs:
        if name not in index.producer:
            raise ModelError(f"{name!r} is not made by any node.")
        nodes.add(index.producer[name])
    for position in nodes:
        stack.extend(index.reads[position])
    made = {name for position in nodes for name in index.nodes[position].output}
    while stack:
        name = stack.pop()
        if name in seen or name in made or name in index.initializers:
            continue
        seen.add(name)
        if name in given or name not in index.producer:
            inputs[name] = None
            continue
        position = index.producer[name]
        if position not in nodes:
            nodes.add(position)
            made.update(index.nodes[position].output)
            stack.extend(index.reads[position])
    ordered = tuple(sorted(nodes))
    order = {name: i for i, name in enumerate(n for p in ordered for n in index.reads[p])}
    # a given tensor whose producer came in later for another output is made inside after all
    kept = [name for name in inputs if name not in made]
    return Slice(tuple(outputs), ordered, tuple(sorted(kept, key=lambda n: order.get(n, -1))))


def slice_model(model: Model, part: Slice, specs: Mapping[str, TensorSpec]) -> Model:
    """One slice as a model. Tensors keep their names.

    Args:
        model: The whole model.
        part: The slice.
        specs: Types of its inputs, e.g. those of the arrays that will be fed.

    Raises:
        ModelError: The type of an input is not known.
    """
    proto = empty_like(model.proto)
    proto.graph.node.extend(model.index.nodes[p] for p in part.nodes)
    _finish(model, proto.graph, part.nodes, part.inputs, part.outputs, specs)
    return model.derive(proto)


def with_weights(model: Model, weights: Mapping[str, np.ndarray]) -> Model:
    """A model with other values in place of some of its weights, where these have the same shape, and of what single
    nodes make.

    Args:
        model: The model.
        weights: The values, by the name of the weight or tensor; weights are cast to its type.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for weight in proto.graph.initializer:
        value = weights.get(weight.name)
        if value is not None and value.shape == tuple(weight.dims):
            cast = value.astype(dtype_from_onnx(weight.data_type))
            weight.CopyFrom(numpy_helper.from_array(cast, weight.name))
    for node in proto.graph.node:
        value = weights.get(node.output[0]) if len(node.output) == 1 else None
        if value is not None:
            made = numpy_helper.from_array(np.asarray(value, order="C"))  # which a number stays
            node.CopyFrom(onnx.helper.make_node("Constant", [], node.output, node.name, value=made))
    return model.derive(proto)


def with_inverted(model: Model, node: int) -> Model:
    """A model in which a Where has the opposite condition.

    Args:
        model: The model.
        node: Position of the Where.
    """
    proto, where = _copied(model, node)
    opposite = f"{where.input[0]}{SEPARATOR}not"
    proto.graph.node.insert(node, onnx.helper.make_node("Not", [where.input[0]], [opposite]))
    proto.graph.node[node + 1].input[0] = opposite
    return model.derive(proto)


def with_setting(model: Model, node: int, name: str, value: int | float) -> Model:
    """A model in which an attribute of a node has another value.

    Args:
        model: The model.
        node: Position of the node.
        name: The attribute.
        value: Its value.
    """
    proto, changed = _copied(model, node)
    kept = [attribute for attribute in changed.attribute if attribute.name != name]
    del changed.attribute[:]
    changed.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    return model.derive(proto)


def without_attribute(model: Model, node: int, name: str) -> Model:
    """A model in which a node has not got an attribute.

    Args:
        model: The model.
        node: Position of the node.
        name: The attribute.
    """
    proto, changed = _copied(model, node)
    kept = [attribute for attribute in changed.attribute if attribute.name != name]
    del changed.attribute[:]
    changed.attribute.extend(kept)
    return model.derive(proto)


def without_input(model: Model, node: int, slot: int) -> Model:
    """A model in which a node does not read one of its inputs.

    Args:
        model: The model.
        node: Position of the node.
        slot: The place of the input.
    """
    proto, changed = _copied(model, node)
    changed.input[slot] = ""
    while changed.input and not changed.input[-1]:
        del changed.input[-1]
    return model.derive(proto)


def with_operator(model: Model, node: int, op: str) -> Model:
    """A model in which a node is another operator of the same domain, which has what that does without attributes.

    Args:
        model: The model.
        node: Position of the node.
        op: The operator.
    """
    proto, changed = _copied(model, node)
    changed.op_type = op
    del changed.attribute[:]
    return model.derive(proto)


def with_inputs(model: Model, node: int, others: Mapping[int, str]) -> Model:
    """A model in which a node reads other tensors.

    Args:
        model: The model.
        node: Position of the node.
        others: The places of inputs, and what it reads there.
    """
    proto, changed = _copied(model, node)
    for place, name in others.items():
        changed.input[place] = name
    return model.derive(proto)


def _copied(model: Model, node: int) -> tuple[onnx.ModelProto, onnx.NodeProto]:
    """A copy of a model's graph, and a node of it, to be changed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    return proto, proto.graph.node[node]


def exploded_name(name: str, slice_number: int) -> str:
    """What a slice's output is called in an exploded model."""
    return f"{name}{SEPARATOR}{slice_number}"


def original_name(name: str) -> str:
    """The name in the whole graph of a tensor of an exploded model."""
    return name.partition(SEPARATOR)[0]


def in_whole_graph(text: str) -> str:
    """A message about an exploded model, with the names that nodes and tensors have in the whole graph."""
    return re.sub(rf"{SEPARATOR}\d+", "", text)


def explode(
    model: Model, parts: Sequence[tuple[int, Slice]], specs: Mapping[str, TensorSpec], apart: Collection[int] = ()
) -> Model:
    """Slices side by side in one model, every one fed from outside.

    Args:
        model: The whole model.
        parts: Slices with a number each. Tensor ``t`` that slice ``n`` makes is called ``exploded_name(t, n)``.
        specs: Types of the inputs.
        apart: Numbers of slices that are fed with values of their own: their inputs are called as their outputs are.

    Raises:
        ModelError: The type of an input is not known.
    """
    index = model.index
    proto = empty_like(model.proto)
    inputs: dict[str, None] = {}
    outputs: list[str] = []
    positions: set[int] = set()
    for number, part in parts:
        mapping = {name: exploded_name(name, number) for p in part.nodes for name in index.nodes[p].output if name}
        mapping.update((name, exploded_name(name, number)) for name in part.inputs if number in apart)
        for p in part.nodes:
            proto.graph.node.append(renamed(index.nodes[p], mapping, f"{index.names[p]}{SEPARATOR}{number}"))
        handed_on = [name for name in part.outputs if name in part.inputs and number not in apart]
        mapping.update((name, exploded_name(name, number)) for name in handed_on)
        proto.graph.node.extend(onnx.helper.make_node("Identity", [n], [mapping[n]], mapping[n]) for n in handed_on)
        inputs.update((mapping.get(name, name) if number in apart else name, None) for name in part.inputs)
        outputs.extend(mapping[name] for name in part.outputs)
        positions.update(part.nodes)
    _finish(model, proto.graph, positions, inputs, outputs, specs)
    return model.derive(proto)


def renamed(node: onnx.NodeProto, mapping: Mapping[str, str], name: str) -> onnx.NodeProto:
    """A copy of a node under another name, its tensors renamed, in its subgraphs too."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = name
    _rename(copy, mapping)
    return copy


def _rename(node: onnx.NodeProto, mapping: Mapping[str, str]) -> None:
    for field in (node.input, node.output):
        for i, old in enumerate(field):
            if old in mapping:
                field[i] = mapping[old]
    for body in subgraphs(node):
        inner = {i.name for i in body.input} | {t.name for t in body.initializer}
        inner |= {o for n in body.node for o in n.output}
        visible = {k: v for k, v in mapping.items() if k not in inner}
        if not visible:
            continue
        for child in body.node:
            _rename(child, visible)
        for output in body.output:
            output.name = visible.get(output.name, output.name)


def _finish(
    model: Model,
    graph: onnx.GraphProto,
    positions: Iterable[int],
    inputs: Iterable[str],
    outputs: Sequence[str],
    specs: Mapping[str, TensorSpec],
) -> None:
    index = model.index
    for name in inputs:
        spec = specs.get(name) or index.specs.get(original_name(name))
        if spec is None:
            raise ModelError(f"{model.source}: the type of {name!r} is not known, so nothing can be fed there.")
        shape = _vector_length(index, original_name(name)) or spec.shape
        graph.input.append(value_info(TensorSpec(name, spec.dtype, shape)))
    for name in outputs:
        spec = index.specs.get(original_name(name))
        if spec is None:
            graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        else:
            graph.output.append(value_info(TensorSpec(name, spec.dtype, None)))
    read = {name for p in positions for name in index.reads[p]}
    add_weights(index, graph, read)


def _vector_length(index: GraphIndex, name: str) -> tuple[int, ...] | None:
    """The shape of a vector of integers whose length the graph fixes; None for other tensors.

    It may be a shape itself (the sizes of a Resize), and a runtime takes an open length for a rank of 0.
    """
    spec = index.specs.get(name)
    if spec is None or spec.shape is None or spec.dtype.kind not in "iu" or len(spec.shape) != 1:
        return None
    return tuple(d for d in spec.shape if isinstance(d, int)) or None
