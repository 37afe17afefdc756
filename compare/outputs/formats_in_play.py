"""Which number formats a model itself computes in, whatever the runner adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.formats import BY_DTYPE, INT8, NumberFormat
from ...graph.nodes import attribute_int, subgraphs
from ...graph.operators import INTEGER_ARITHMETIC
from ...graph.specs import dtype_from_onnx

if TYPE_CHECKING:
    import onnx

    from ...graph.model import Model
    from ..sides import Side


def model_formats(model: Model) -> tuple[NumberFormat, ...]:
    """The formats of the model's weights, inputs, outputs, casts and quantizers, each once, coarsest first.

    A model without floating-point tensors gives an empty tuple. No shape inference: the types that tensors declare.
    """
    found: dict[str, NumberFormat] = {}

    def add(elem_type: int) -> None:
        try:
            number_format = BY_DTYPE.get(dtype_from_onnx(elem_type).name)
        except KeyError:
            return
        if number_format is not None:
            found[number_format.name] = number_format

    def walk(graph: onnx.GraphProto) -> None:
        for info in (*graph.input, *graph.output):
            add(info.type.tensor_type.elem_type)
        for tensor in graph.initializer:
            add(tensor.data_type)
        for node in graph.node:
            if node.op_type == "Cast":
                add(attribute_int(node, "to", 0))
            elif node.op_type in INTEGER_ARITHMETIC:
                found[INT8.name] = INT8
            for body in subgraphs(node):
                walk(body)

    walk(model.proto.graph)
    return tuple(sorted(found.values(), key=lambda f: -1.0 if f.is_integer else -f.u))


def formats_in_play(*sides: Side) -> tuple[NumberFormat, ...]:
    """The formats of each side's arithmetic and of each side's model, each once.

    A runner's arithmetic is what it makes of FP32; it says nothing about a model that has none.
    """
    found: dict[str, NumberFormat] = {}
    for side in sides:
        own = model_formats(side.model)
        arithmetic = side.runner.arithmetic
        if arithmetic.name != "fp32" or not own or any(f.name == "fp32" for f in own):
            found[arithmetic.name] = arithmetic
        found.update({f.name: f for f in own})
    return tuple(found.values())
