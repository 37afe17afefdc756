"""What a node of an ONNX graph says: its attributes, each as the type that it has, its bodies, and what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

import onnx


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """The value of an attribute whatever its type, or ``default``. Strings come as ``str``."""
    found = _find(node, name)
    if found is None:
        return default
    value = onnx.helper.get_attribute_value(found)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return [v.decode("utf-8", "replace") for v in value]
    return value


@overload
def attribute_int(node: onnx.NodeProto, name: str) -> int | None: ...
@overload
def attribute_int(node: onnx.NodeProto, name: str, default: int) -> int: ...
def attribute_int(node: onnx.NodeProto, name: str, default: int | None = None) -> int | None:
    """An integer, which also says yes (1) or no (0); ``default`` where the node has no such attribute."""
    found = _find(node, name, onnx.AttributeProto.INT)
    return default if found is None else int(found.i)


@overload
def attribute_float(node: onnx.NodeProto, name: str) -> float | None: ...
@overload
def attribute_float(node: onnx.NodeProto, name: str, default: float) -> float: ...
def attribute_float(node: onnx.NodeProto, name: str, default: float | None = None) -> float | None:
    """A float, in FP32's precision; ``default`` where the node has no such attribute."""
    found = _find(node, name, onnx.AttributeProto.FLOAT)
    return default if found is None else float(found.f)


@overload
def attribute_ints(node: onnx.NodeProto, name: str) -> list[int] | None: ...
@overload
def attribute_ints(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]: ...
def attribute_ints(node: onnx.NodeProto, name: str, default: list[int] | None = None) -> list[int] | None:
    """A list of integers; ``default`` where the node has no such attribute."""
    found = _find(node, name, onnx.AttributeProto.INTS)
    return default if found is None else list(found.ints)


def attribute_floats(node: onnx.NodeProto, name: str) -> list[float] | None:
    """A list of floats; None where the node has no such attribute."""
    found = _find(node, name, onnx.AttributeProto.FLOATS)
    return None if found is None else list(found.floats)


def attribute_string(node: onnx.NodeProto, name: str, default: str = "") -> str:
    """A string; ``default`` where the node has no such attribute."""
    found = _find(node, name, onnx.AttributeProto.STRING)
    return default if found is None else found.s.decode("utf-8", "replace")


def attribute_strings(node: onnx.NodeProto, name: str) -> list[str] | None:
    """A list of strings; None where the node has no such attribute."""
    found = _find(node, name, onnx.AttributeProto.STRINGS)
    return None if found is None else [s.decode("utf-8", "replace") for s in found.strings]


def attribute_tensor(node: onnx.NodeProto, name: str) -> onnx.TensorProto | None:
    """A tensor; None where the node has no such attribute."""
    found = _find(node, name, onnx.AttributeProto.TENSOR)
    return None if found is None else found.t


def _find(node: onnx.NodeProto, name: str, kind: int | None = None) -> onnx.AttributeProto | None:
    """An attribute by its name. Of another type than the one that is asked for, it counts as missing."""
    return next((a for a in node.attribute if a.name == name and kind in (None, a.type)), None)


def trains(node: onnx.NodeProto) -> bool:
    """Whether a BatchNormalization normalizes by the statistics of what it is given, as in training."""
    return node.op_type == "BatchNormalization" and bool(attribute_int(node, "training_mode", 0))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of If, Loop, Scan and their kin."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def captured(graph: onnx.GraphProto) -> list[str]:
    """Names that a subgraph reads from outside, in order of first use."""
    inside = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    inside |= {i.values.name for i in graph.sparse_initializer}
    outside: dict[str, None] = {}
    for node in graph.node:
        for name in reads(node):
            if name not in inside:
                outside[name] = None
        inside.update(name for name in node.output if name)
    for output in graph.output:
        if output.name not in inside:
            outside[output.name] = None
    return list(outside)


def reads(node: onnx.NodeProto) -> list[str]:
    """Every tensor a node reads: its inputs, then what its subgraphs capture. Without empty names or repeats."""
    names = dict.fromkeys(name for name in node.input if name)
    for body in subgraphs(node):
        names.update(dict.fromkeys(captured(body)))
    return list(names)
