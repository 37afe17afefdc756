"""Why an engine was not built, at which ONNX node."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ...graph.cutting.slices import SEPARATOR, original_name
from .log import failed_node, failed_operator, reason
from .network import layers_of

if TYPE_CHECKING:
    from ...graph.model import Model
    from .versions import Library


_REGION = re.compile(r"\{ForeignNode\[(.+?)\.\.\.(.+)\]\}")
"""What TensorRT calls a region that Myelin compiles: its first and its last node."""
_UNNAMED = re.compile(r"\(Unnamed Layer\* (\d+)\) \[\w+\]")
"""What TensorRT calls a layer to which the parser gave no name: its number in the parsed network."""


def why_not_built(model: Model, library: Library, errors: list[str], network: Any) -> str:
    """That a model cannot be built, at which ONNX node, and why: one line.

    Args:
        model: What was built.
        library: The installed TensorRT.
        errors: What TensorRT's log holds, the oldest first.
        network: The parsed network.
    """
    node, names = failed_node(errors), model.index.names
    what = f"{library} cannot build {model.source}"
    region = _REGION.fullmatch(node)
    if region:
        ends = [_node_of(label, model, network) for label in region.groups()]
        places = list(dict.fromkeys(original_name(names[p]) for p in ends if p is not None))
        if None not in ends:
            nodes = " to ".join(repr(p) for p in places)
            what = f"{library} cannot build node{'s' if places[1:] else ''} {nodes} of {model.source}"
        elif places:
            what = f"{library} cannot build nodes around {places[0]!r} of {model.source}"
        else:
            what += f", in a region whose nodes cannot be told ({node})"
    elif node:
        found = _node_of(node, model, network)
        fused = [n for n in names if n and n in node] if found is None else []
        if found is not None:
            what = f"{library} cannot build node {original_name(names[found])!r} of {model.source}"
        elif fused:  # name what it is made of
            what = f"{library} cannot build node {node.replace(SEPARATOR, '#')!r} of {model.source}"
        else:
            what += f", at a layer whose node cannot be told ({node})"
    else:
        operator = failed_operator(errors)
        alike = [name for name, n in zip(names, model.index.nodes, strict=True) if n.op_type == operator]
        if alike:
            one_of = f"one of {len(alike)} nodes of {operator}, the first of them" if alike[1:] else "node"
            what = f"{library} cannot build {one_of} {original_name(alike[0])!r} of {model.source}"
    return f"{what}: {reason(errors)}."


def _node_of(label: str, model: Model, network: Any) -> int | None:
    """The ONNX node that a layer belongs to, by what TensorRT's log calls the layer.

    The parser adds layers node by node, and gives the last of them the names of the node's outputs. A constant has the
    name of a weight: the first node that reads it is meant. Where the log speaks of a tensor, it is the node that makes
    it, or the first that reads it from outside.
    """
    index = model.index
    if label in index.names:
        return index.names.index(label)
    layers = layers_of(network)
    number = next((i for i, layer in enumerate(layers) if layer.name == label), None)
    unnamed = _UNNAMED.fullmatch(label)
    if number is None and unnamed and int(unnamed.group(1)) < len(layers):
        number = int(unnamed.group(1))
    if number is None and label in index.producer:
        return index.producer[label]
    if label in index.initializers or label in {spec.name for spec in model.inputs}:
        return min(index.consumers.get(label, ()), default=None)
    for layer in layers[number:] if number is not None else ():
        made = [index.producer.get(layer.get_output(i).name) for i in range(layer.num_outputs)]
        if any(p is not None for p in made):
            return next(p for p in made if p is not None)
    inside = [n for n in index.names if n and n in label]  # fused: the one that is in no other's name
    inside = [n for n in inside if not any(n != other and n in other for other in inside)]
    if inside or " + " not in label:
        return index.names.index(inside[0]) if len(inside) == 1 else None
    return next((p for part in label.split(" + ") if (p := _node_of(part, model, network)) is not None), None)
