"""Models without local functions, whose nodes stand in the place of their calls."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

import onnx
import onnx.inliner

from ..model import Model
from ..nodes import subgraphs

_NUMBERED = re.compile(r"__\d+$")
"""What the inliner puts behind names."""


def inlined(model: Model, but: Collection[str] = ()) -> Model:
    """The same model without local functions; itself where it has none. A node inside of a function is called after the
    call, and what it is called there: ``encoder/act``.

    Args:
        model: The model.
        but: Domains of which the functions stay.
    """
    functions = {_key(f): f for f in model.proto.functions if f.domain not in but}
    if not functions:
        return model
    kept = [(f.domain, f.name) for f in model.proto.functions if f.domain in but]
    named = _each_call_its_own(model.proto, functions)
    flat = onnx.inliner.inline_selected_functions(named, kept, exclude=True)
    if len(flat.functions) > len(kept):  # of another version of ONNX: they stay, under the names that they have
        return model.derive(onnx.inliner.inline_selected_functions(model.proto, kept, exclude=True))
    own = {node.name for node in named.graph.node}
    for node in flat.graph.node:
        plain = _NUMBERED.sub("", node.name)
        if plain not in own:
            own.add(plain)
            node.name = plain
    return model.derive(flat)


_Key = tuple[str, str, str]
"""What a call and the function that is called share: domain, name, and which of several of that name it is."""


def _key(function: onnx.FunctionProto) -> _Key:
    return function.domain, function.name, getattr(function, "overload", "")


def _each_call_its_own(proto: onnx.ModelProto, functions: dict[_Key, onnx.FunctionProto]) -> onnx.ModelProto:
    """The model with a function for every call, whose nodes are called after it."""
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    del found.functions[:]
    found.functions.extend(f for f in proto.functions if _key(f) not in functions)
    waiting = [("", node) for node in _all(found.graph.node)]
    for number, (path, node) in enumerate(waiting):  # grows: functions call functions
        node.name = path + (node.name or f"{node.op_type}_{number}") if path else node.name
        function = functions.get((node.domain, node.op_type, getattr(node, "overload", "")))
        if function is None:
            continue
        copy = found.functions.add()
        copy.CopyFrom(function)
        copy.name = node.op_type = f"{function.name}_{number}"
        called = node.name or f"{function.name}_{number}"
        waiting.extend((f"{called}/", inner) for inner in _all(copy.node))
    return found


def _all(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those in their bodies."""
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _all(body.node)
