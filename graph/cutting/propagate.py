"""Shapes of all tensors that follow from shapes of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..index import GraphIndex
from ..inference import infer_shapes
from ..specs import STRING, is_float, spec_from_value_info

if TYPE_CHECKING:
    from ..model import Model


def propagate(model: Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...] | None]:
    """The shape of every tensor for given shapes of the inputs, as far as it follows without running.

    ONNX shape inference, repeated: integer tensors that became constants (a Reshape's target from a Shape) are folded
    between the rounds.

    Args:
        model: The model or a piece of one.
        shapes: Concrete shapes of its inputs; those not named keep what the graph says.

    Returns:
        Tensor -> shape, for inputs, outputs and everything between; None where it depends on the data or on an operator
        that inference does not know.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for info in proto.graph.input:
        if info.name in shapes:
            tensor = info.type.tensor_type
            tensor.ClearField("shape")
            tensor.shape.SetInParent()
            for d in shapes[info.name]:
                tensor.shape.dim.add().dim_value = int(d)
    # what the file says of inner tensors may hold for other shapes of the inputs only
    custom = {o for node in proto.graph.node if node.domain not in ("", "ai.onnx") for o in node.output}
    kept = [v for v in proto.graph.value_info if v.name in custom]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    for info in proto.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    known: dict[str, tuple[int, ...] | None] = {}
    for _ in range(8):
        index = GraphIndex(proto, model.folder)
        inferred = infer_shapes(proto)
        infos = [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]
        for info in infos:
            spec = spec_from_value_info(info)
            if spec is not None and spec.shape is not None and all(isinstance(d, int) for d in spec.shape):
                known[info.name] = tuple(d for d in spec.shape if isinstance(d, int))
        index.__dict__["specs"] = {s.name: s for i in infos if (s := spec_from_value_info(i)) is not None}
        folded = 0
        for position, node in enumerate(index.nodes):
            if node.op_type == "Constant" or len(node.output) != 1 or not node.input:
                continue
            spec = index.specs.get(node.output[0])
            if spec is not None and (is_float(spec.dtype) or spec.dtype == STRING):
                continue
            value = index.constant(node.output[0])
            if value is None or value.size > 1024 or is_float(value.dtype):
                continue
            tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), node.output[0])
            proto.graph.node[position].CopyFrom(
                onnx.helper.make_node("Constant", [], [node.output[0]], name=node.name, value=tensor)
            )
            known[node.output[0]] = value.shape
            folded += 1
        if not folded:
            break
    names = [*model.index.inputs, *model.index.producer]
    return {name: known.get(name) for name in names}
