"""The same names and the same order for a converted graph, whichever way the converter went through it.

tf2onnx walks Python sets of strings, whose order changes with every process, and numbers what it inserts as it goes:
``Conv__348`` of one run is ``Conv__360`` of the next. Reports and precision plans refer to layers by name, so that the
numbers are given again here, along a walk that the graph alone decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

import onnx

from ..nodes import reads, subgraphs

_NUMBERED = re.compile(r"^(.*?)(?:__\d+)+$", re.DOTALL)
_PORT = re.compile(r"^(.*):\d+$", re.DOTALL)


def canonical_names(proto: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """The model with its nodes in depth-first order from the outputs, and ``NAME__n`` numbered from 1 in that order.

    Args:
        proto: The model. Bodies of If, Loop and Scan keep their order and their own names.
        kept: Node names (the part of a tensor's name before its ``:0``) that are no inserted numbers.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    nodes = _ordered(graph)
    new = _numbers(graph, nodes, kept)

    def rename(name: str) -> str:
        stem = _stem(name)
        return new[stem] + name[len(stem) :] if stem in new else name

    for node in nodes:
        node.name = rename(node.name)
        node.output[:] = [rename(name) for name in node.output]
        _rename_reads(node, rename)
    first_read = {name: position for position, name in enumerate(n for node in nodes for n in reads(node))}
    del graph.node[:]
    graph.node.extend(nodes)
    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    weights = sorted(graph.initializer, key=lambda t: (first_read.get(t.name, len(first_read)), t.name))
    infos = list(graph.value_info)
    for info in infos:
        info.name = rename(info.name)
    infos.sort(key=lambda i: i.name)
    for values, field in ((weights, graph.initializer), (infos, graph.value_info)):
        copies = [_copy(value) for value in values]
        del field[:]
        field.extend(copies)
    _number_dimensions([*graph.input, *graph.output, *graph.value_info])
    return result


def _copy(message: onnx.TensorProto | onnx.ValueInfoProto) -> onnx.TensorProto | onnx.ValueInfoProto:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _ordered(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Copies of the nodes, each after what it reads, in the order in which the outputs ask for them."""
    maker = {name: position for position, node in enumerate(graph.node) for name in node.output if name}
    order: dict[int, None] = {}
    # each entry is a node and whether what it reads has been put on the stack already
    todo = [(maker[o.name], False) for o in reversed(graph.output) if o.name in maker]
    while todo:
        position, ready = todo.pop()
        if position in order:
            continue
        if ready:
            order[position] = None
            continue
        todo.append((position, True))
        todo += [(maker[name], False) for name in reversed(reads(graph.node[position])) if name in maker]
    copies = []
    for position in (*order, *(p for p in range(len(graph.node)) if p not in order)):
        node = onnx.NodeProto()
        node.CopyFrom(graph.node[position])
        copies.append(node)
    return copies


def _numbers(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], kept: Collection[str]) -> dict[str, str]:
    """Old stem -> new stem, for the stems that carry a number of the converter's."""
    fixed = {_stem(v.name) for v in (*graph.input, *graph.output)} | set(kept)
    inside: set[str] = set()
    stems: dict[str, None] = {}
    for node in nodes:
        for name in (*reads(node), *node.output, node.name):
            if name:
                stems[_stem(name)] = None
        for body in subgraphs(node):
            inside |= _names_inside(body)
    renamed = [s for s in stems if s not in fixed and s not in inside and _NUMBERED.match(s)]
    taken = fixed | inside | (set(stems) - set(renamed))
    counts: dict[str, int] = {}
    new: dict[str, str] = {}
    for stem in renamed:
        match = _NUMBERED.match(stem)
        assert match is not None
        base = match[1]
        while True:
            counts[base] = counts.get(base, 0) + 1
            new[stem] = f"{base}__{counts[base]}"
            if new[stem] not in taken:
                break
    return new


def _names_inside(body: onnx.GraphProto) -> set[str]:
    """Stems of everything that a body makes itself."""
    found = {_stem(v.name) for v in (*body.input, *body.initializer)}
    for node in body.node:
        found |= {_stem(name) for name in (*node.output, node.name) if name}
        for inner in subgraphs(node):
            found |= _names_inside(inner)
    return found


def _rename_reads(node: onnx.NodeProto, rename: Callable[[str], str]) -> None:
    node.input[:] = [rename(name) for name in node.input]
    for body in subgraphs(node):
        for inner in body.node:
            _rename_reads(inner, rename)
        for output in body.output:  # a body may hand out what it captured
            output.name = rename(output.name)


def _number_dimensions(infos: Iterable[onnx.ValueInfoProto]) -> None:
    """Symbolic dimensions with a number get one in order of appearance; equal symbols stay equal."""
    new: dict[str, str] = {}
    for info in infos:
        for dim in info.type.tensor_type.shape.dim:
            match = _NUMBERED.match(dim.dim_param)
            if match is not None:
                dim.dim_param = new.setdefault(dim.dim_param, f"{match[1]}__{len(new) + 1}")


def _stem(name: str) -> str:
    match = _PORT.match(name)
    return match[1] if match is not None else name
