"""Parts of a graph that compute the same with other weights, as the blocks of a transformer do."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

import onnx

from .extract import empty_like
from .slices import SEPARATOR, renamed

if TYPE_CHECKING:
    from ..index import GraphIndex
    from ..model import Model


def kind_of(index: GraphIndex, nodes: Iterable[int]) -> Hashable:
    """What nodes compute, whatever they and their tensors are called and whatever the values of their weights are:
    operators, attributes, types and shapes of weights, and which tensors are the same.

    Args:
        index: The graph.
        nodes: Positions of the nodes, in their order.
    """
    numbers: dict[str, int] = {}
    return tuple(
        (
            node.domain,
            node.op_type,
            _attributes(node),
            tuple((numbers.setdefault(name, len(numbers)), _weight(index, name)) if name else None for name in names),
        )
        for node in (index.nodes[position] for position in nodes)
        for names in ((*node.input, *node.output),)
    )


def _attributes(node: onnx.NodeProto) -> Hashable:
    """Values of attributes; of a Constant, which is a weight, the type and shape alone."""
    if node.op_type == "Constant" and [a.name for a in node.attribute] == ["value"]:
        return _shape(node.attribute[0].t)
    return tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))


def _weight(index: GraphIndex, name: str) -> Hashable:
    tensor = index.initializers.get(name)
    return None if tensor is None else _shape(tensor)


def _shape(tensor: onnx.TensorProto) -> Hashable:
    return tensor.data_type, tuple(tensor.dims)


def numbered(model: Model) -> tuple[Model, dict[str, str]]:
    """A model whose tensors are called by their order in its nodes, so that parts of one kind (`kind_of`) differ in the
    names of their nodes and in the values of their weights alone.

    Returns:
        The model, and the new name of every tensor.
    """
    graph = model.proto.graph
    outside = (*(i.name for i in graph.input), *(o.name for o in graph.output), *(t.name for t in graph.initializer))
    inside = (name for node in graph.node for name in (*node.input, *node.output) if name)
    names = {n: f"tensor{SEPARATOR}{i}" for i, n in enumerate(dict.fromkeys((*inside, *outside)))}
    proto = empty_like(model.proto)
    for node in graph.node:
        proto.graph.node.append(renamed(node, names, node.name))
    for field in ("input", "output", "initializer"):
        for entry in getattr(graph, field):
            copy = getattr(proto.graph, field).add()
            copy.CopyFrom(entry)
            copy.name = names[entry.name]
    for mine in (proto.graph.input, proto.graph.output, proto.graph.initializer):
        mine.sort(key=lambda entry: _number(entry.name))
    return model.derive(proto), names


def _number(name: str) -> int:
    return int(name.rpartition(SEPARATOR)[2])
