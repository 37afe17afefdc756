"""Parts of a graph as models of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..errors import ModelError
from ..index import GraphIndex
from ..nodes import captured
from ..specs import TensorSpec, dtype_to_onnx
from .dataflow import dataflow

if TYPE_CHECKING:
    from ..model import Model


def extract(
    model: Model,
    nodes: Iterable[int],
    outputs: Sequence[str],
    *,
    specs: Mapping[str, TensorSpec] | None = None,
) -> Model:
    """A model of its own made of some nodes of another.

    Shape arithmetic, integer and constant paths that the nodes read are taken along. Only the weights that are read
    are; external ones stay references into the same folder, so that nothing is read from disk here.

    Args:
        model: The whole model.
        nodes: Positions of the nodes to take.
        outputs: Tensors that the piece gives, in this order.
        specs: Types of tensors that ONNX shape inference cannot tell.

    Raises:
        ModelError: An output is not made by these nodes, or the type of a tensor at the border is unknown.
    """
    index = model.index
    flow = dataflow(index, specs)
    types: Mapping[str, TensorSpec] = {**flow.specs, **specs} if specs else flow.specs
    taken = set(nodes)
    again, constants, outside = flow.closure(taken, extra=outputs)
    taken |= again
    made = {name for position in taken for name in index.nodes[position].output if name} | constants
    for name in outputs:
        if name not in made:
            raise ModelError(f"{model.source}: a piece of {len(taken)} nodes does not make {name!r}.")
    whole = index.graph
    proto = empty_like(index.proto)
    graph = proto.graph
    for name in sorted(constants, key=lambda n: index.producer[n]):
        value = onnx.numpy_helper.from_array(np.ascontiguousarray(index.constant(name)), name)
        graph.node.append(onnx.helper.make_node("Constant", [], [name], name=f"{name}/constant", value=value))
    graph.node.extend(index.nodes[position] for position in sorted(taken))
    graph.input.extend(_typed(name, types, whole, model.source) for name in outside)
    add_weights(index, graph, {name for position in taken for name in index.reads[position]})
    originals = {o.name: o for o in whole.output}
    for name in outputs:
        if name in originals:
            graph.output.append(originals[name])
        elif name in types:
            graph.output.append(value_info(types[name]))
        else:
            graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    border = {*outside, *outputs}
    graph.value_info.extend(v for v in whole.value_info if v.name in made and v.name not in border)
    graph.quantization_annotation.extend(a for a in whole.quantization_annotation if a.tensor_name in made | border)
    return model.derive(proto)


def empty_like(whole: onnx.ModelProto) -> onnx.ModelProto:
    """A model of the same versions, operator sets and functions, without its graph."""
    proto = onnx.ModelProto(
        ir_version=whole.ir_version, producer_name=whole.producer_name, producer_version=whole.producer_version
    )
    proto.opset_import.extend(whole.opset_import)
    proto.functions.extend(whole.functions)
    proto.metadata_props.extend(whole.metadata_props)
    proto.graph.name = whole.graph.name or "piece"
    return proto


def add_weights(index: GraphIndex, graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Adds those of the weights that are named. External ones stay references."""
    # an initializer that is also listed as an input may be overridden, and before IR 4 all of them are listed
    graph.input.extend(i for i in index.graph.input if i.name in names and i.name in index.initializers)
    graph.initializer.extend(t for t in index.graph.initializer if t.name in names)
    graph.sparse_initializer.extend(t for t in index.graph.sparse_initializer if t.values.name in names)


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """The ONNX type of a tensor."""
    shape = None if spec.shape is None else list(spec.shape)
    return onnx.helper.make_tensor_value_info(spec.name, dtype_to_onnx(spec.dtype), shape)


def _typed(name: str, types: Mapping[str, TensorSpec], graph: onnx.GraphProto, source: str) -> onnx.ValueInfoProto:
    for info in graph.input:
        if info.name == name:
            return info
    if name not in types:
        raise ModelError(f"{source}: the type of {name!r} is not known, so no piece can begin there.")
    return value_info(types[name])


def enter(model: Model, node: int, specs: Mapping[str, TensorSpec] | None = None) -> dict[str, Model]:
    """The bodies of an If, Loop or Scan node, each as a model of its own.

    What a body captures from outside becomes an input of it, after its own inputs (iteration number, condition,
    carried values, slices); weights and constants that it captures are taken along. A node without a name gets that of
    its operator and its position in the body.

    Args:
        model: The model around it.
        node: Position of the If, Loop or Scan.
        specs: Types of the bodies' inputs and of captured tensors, as measured. They override what the graph says.

    Returns:
        By attribute: ``then_branch`` and ``else_branch``, or ``body``.

    Raises:
        ModelError: The type of a captured tensor is not known.
    """
    index = model.index
    flow = dataflow(index)
    types: Mapping[str, TensorSpec] = {**flow.specs, **specs} if specs else flow.specs
    bodies = {}
    for a in index.nodes[node].attribute:
        if a.type != onnx.AttributeProto.GRAPH:
            continue
        proto = empty_like(index.proto)
        graph = proto.graph
        graph.CopyFrom(a.g)
        outer = captured(a.g)
        again = {p for p in flow.closure((), extra=outer)[0] if all(flow.kind[o] == 0 for o in index.nodes[p].output)}
        again = {p for p in again if not any(flow.leaves(o) for o in index.nodes[p].output)}
        made = {name for position in again for name in index.nodes[position].output}
        for position, inner in enumerate(graph.node):
            inner.name = inner.name or f"{inner.op_type}_{position}"
        body = list(graph.node)
        del graph.node[:]
        graph.node.extend(index.nodes[position] for position in sorted(again))
        graph.node.extend(body)
        for i, info in enumerate(graph.input):
            if specs and info.name in specs:
                graph.input[i].CopyFrom(value_info(specs[info.name]))
        for name in outer:
            if name not in made and name not in index.initializers:
                measured = specs is not None and name in specs
                graph.input.append(
                    value_info(types[name]) if measured else _typed(name, types, index.graph, model.source)
                )
        add_weights(index, graph, {*outer, *(name for position in again for name in index.reads[position])})
        bodies[a.name] = model.derive(proto)
    return bodies
