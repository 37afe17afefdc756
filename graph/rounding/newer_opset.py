"""Models of old opsets in one that has the operators which draw noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from ..errors import ModelError

if TYPE_CHECKING:
    from ..model import Model

DRAWS = 13
"""The oldest opset with the operators that draw in whole networks, and what older models are converted to."""


def in_newer_opset(model: Model) -> Model:
    """The model, converted to `DRAWS` where it is older. Tensors keep their names.

    Raises:
        ModelError: It cannot be converted.
    """
    opset = model.index.opset.get("", DRAWS)
    if opset >= DRAWS:
        return model
    try:
        converted = onnx.version_converter.convert_version(model.proto, DRAWS)
    except Exception as error:  # whatever the converter says of operators that it does not know
        raise ModelError(f"{model.source}: opset {opset} cannot be converted to {DRAWS}: {error}") from error
    _name_back(model.proto.graph, converted.graph)
    return model.derive(converted)


def _name_back(graph: onnx.GraphProto, converted: onnx.GraphProto) -> None:
    """Gives results of nodes that the converter put others in place of (a Resize of an Upsample) their names, which
    those who read them tell."""
    made = {name for node in converted.node for name in node.output}
    lost = {name for node in graph.node for name in node.output if name} - made
    if not lost:
        return
    twins = {node.output[0]: node for node in converted.node if node.output}
    names: dict[str, str] = {}
    for node in graph.node:
        twin = twins.get(node.output[0]) if node.output else None
        for name, new in zip(node.input, () if twin is None else twin.input, strict=False):
            if name in lost and new in made:
                names[new] = name
    for node in converted.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in converted.value_info:
        value.name = names.get(value.name, value.name)
