"""Changes of a network: what a fault, or a healthy export, does to a file."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import numpy_helper


def edited(model: onnx.ModelProto, *edits: Callable[[onnx.GraphProto], None]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for edit in edits:
        edit(copy.graph)
    del copy.graph.value_info[:]  # it may be what the edits made untrue
    return copy


def scaled(name: str, factor: float) -> Callable[[onnx.GraphProto], None]:
    """An edit: one weight times a factor."""

    def edit(graph: onnx.GraphProto) -> None:
        (weight,) = (t for t in graph.initializer if t.name == name)
        value = numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array((value * factor).astype(value.dtype), name))

    return edit


def node(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(n for n in graph.node if n.name == name)
