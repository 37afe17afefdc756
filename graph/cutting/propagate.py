"""Shapes of all tensors that follow from shapes of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..index import GraphIndex
from ..inference import infer_shapes
from ..operators import is_standard
from ..specs import STRING, is_float, spec_from_value_info

if TYPE_CHECKING:
    from ..model import Model

ROUNDS = 8
"""Most rounds of inference and folding."""
LARGEST = 1024
"""Most elements of a constant that is folded."""


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
    _set_shapes(proto, shapes)
    known: dict[str, tuple[int, ...] | None] = {}
    for _ in range(ROUNDS):
        inferred = infer_shapes(proto)
        infos = [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]
        specs = [spec for info in infos if (spec := spec_from_value_info(info)) is not None]
        for spec in specs:
            if spec.shape is not None and all(isinstance(d, int) for d in spec.shape):
                known[spec.name] = tuple(d for d in spec.shape if isinstance(d, int))
        folded = _fold(GraphIndex(proto, model.folder, {spec.name: spec for spec in specs}))
        if not folded:
            break
        known.update(folded)
    return {name: known.get(name) for name in (*model.index.inputs, *model.index.producer)}


def _set_shapes(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Gives inputs their shapes, and forgets what the file says of other tensors: it may hold for other inputs only."""
    for info in proto.graph.input:
        if info.name in shapes:
            tensor = info.type.tensor_type
            tensor.ClearField("shape")
            tensor.shape.SetInParent()
            for d in shapes[info.name]:
                tensor.shape.dim.add().dim_value = int(d)
    custom = {o for node in proto.graph.node if not is_standard(node) for o in node.output}
    kept = [v for v in proto.graph.value_info if v.name in custom]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    for info in proto.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")


def _fold(index: GraphIndex) -> dict[str, tuple[int, ...]]:
    """Replaces nodes whose integer outputs have become constants by these, in place; the shapes of what was folded."""
    folded: dict[str, tuple[int, ...]] = {}
    for node in index.nodes:
        if node.op_type == "Constant" or len(node.output) != 1 or not node.input:
            continue
        name = node.output[0]
        spec = index.specs.get(name)
        if spec is not None and (is_float(spec.dtype) or spec.dtype == STRING):
            continue
        value = index.constant(name)
        if value is None or value.size > LARGEST or is_float(value.dtype):
            continue
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        constant = onnx.helper.make_node("Constant", [], [name], name=node.name, value=tensor)
        node.CopyFrom(constant)
        folded[name] = value.shape
    return folded
