"""Which value of a PyTorch program each tensor of its ONNX export is.

The exporter of today names tensors by the nodes of the exported program and writes down which node an ONNX node comes
from: a tensor is believed to be a node's value where both say the same, module included. A file that does not tell (the
older exporter's, one that was optimized or renamed) is paired, as two files are, with what the exporter makes of the
program today. Where it makes nothing of it, an export of the older one is matched by modules: where one tensor leaves a
module in either graph, it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...graph.index import GraphIndex
from ...graph.specs import is_float
from ...graph.torch_traces import trace_of


@dataclass(frozen=True)
class Value:
    """A value of a PyTorch program: what a node of its graph computes.

    Attributes:
        name: The node.
        path: The module it is a part of, ``encoder.layers.0``; empty for the outermost.
        users: The nodes that read it, and an empty name where the program returns it.
        part_of: The node that it is one of several results of; empty where it is all of them.
    """

    name: str
    path: str
    users: tuple[str, ...] = ()
    part_of: str = ""


def matched(index: GraphIndex, values: Sequence[Value], own: Callable[[], GraphIndex | None]) -> dict[str, str]:
    """The values of a program that tensors of an ONNX graph are.

    Args:
        index: The graph.
        values: What the program computes, in order.
        own: Gives the program as PyTorch exports it today; None where it does not. Asked where the graph does not tell.

    Returns:
        ONNX tensor -> `Value.name`, in the graph's order.
    """
    if found := _by_name(index, values):
        return found
    exported = own()
    known = {} if exported is None else _by_name(exported, values)
    if exported is None or not known:
        return _by_module(index, values)
    from ...graph.pairing.matching import match

    pairs = {name: mine for mine, name in match(exported, index).tensors.items() if mine in known}
    return {name: known[pairs[name]] for name in index.producer if name in pairs}


def _by_name(index: GraphIndex, values: Sequence[Value]) -> dict[str, str]:
    known, found = {value.name: value for value in values}, {}
    for node in index.nodes:
        trace = trace_of(node)
        for tensor in node.output:
            value = known.get(tensor)
            if trace is None or value is None or value.path != trace.path:
                continue
            if trace.name in (value.name, value.part_of):
                found[tensor] = value.name
    return found


def _by_module(index: GraphIndex, values: Sequence[Value]) -> dict[str, str]:
    traces, by_name = [trace_of(node) for node in index.nodes], {value.name: value for value in values}
    paths = {value.name: value.path for value in values}
    readers = {value.name: [paths.get(user, "") for user in value.users] for value in values}
    theirs = _exits(paths, readers)
    made = {
        tensor: trace.path
        for node, trace in zip(index.nodes, traces, strict=True)
        for tensor in node.output
        if trace is not None and tensor in index.specs and is_float(index.specs[tensor].dtype)
    }
    read = {
        tensor: [
            trace.path if (trace := traces[reader]) is not None else "" for reader in index.consumers.get(tensor, ())
        ]
        + [""] * (tensor in index.outputs)
        for tensor in made
    }
    present = {*_modules(trace.path for trace in traces if trace is not None)}
    order = {tensor: position for position, tensor in enumerate(index.producer)}
    found = {}
    for path, tensors in _exits(made, read).items():
        value = theirs[path][0] if len(theirs.get(path, ())) == 1 else ""
        if len(tensors) == 1 and value and (value := _behind_folded(value, by_name, theirs, present)):
            found[tensors[0]] = value
    return dict(sorted(found.items(), key=lambda item: order[item[0]]))


def _exits(paths: Mapping[str, str], readers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The values that leave each module: what is computed in it, or in a module of it, and read outside."""
    found: dict[str, list[str]] = {}
    for name, path in paths.items():
        for module in _modules([path]):
            if any(reader != module and not reader.startswith(f"{module}.") for reader in readers[name]):
                found.setdefault(module, []).append(name)
    return found


def _modules(paths: Collection[str] | Iterator[str]) -> Iterator[str]:
    """The modules that paths name, and those around them but for the outermost."""
    for path in paths:
        parts = path.split(".") if path else []
        yield from (".".join(parts[: count + 1]) for count in range(len(parts)))


def _behind_folded(
    name: str, values: Mapping[str, Value], exits: Mapping[str, Sequence[str]], present: Collection[str]
) -> str:
    """The value behind the modules that the exporter folded into the one that computes ``name``: a BatchNormalization
    that follows a convolution leaves no node of its own. Empty where that cannot be told."""
    while True:
        users = [values[user] for user in values[name].users if user in values]
        folded = [user for user in users if user.path and user.path not in present]
        if not folded:
            return name
        out = exits.get(folded[0].path, ())
        if len(users) != 1 or len(values[name].users) != 1 or len(out) != 1 or out[0] == name:
            return ""
        name = out[0]
