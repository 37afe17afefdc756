"""What a target folds into a convolution's weights before it rounds them: the scales and shifts that follow it.

A target multiplies the scale of a BatchNormalization (or of a Mul, a Div) into the weights, adds the shift to the bias,
and rounds both. Here the nodes stay: with s the scale of a channel, the weights become round(s w) / s, so that the
graph's own scale gives back what the target has. The rounding error of the folded bias is added to the last summand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from ..cutting.fusion import Group
from ..nodes import attribute_float, attribute_int
from ..operators import AFFINE_STEPS, facts_of, operator
from .scope import Scope


@dataclass
class Folded:
    """What changes in what a node reads.

    Attributes:
        inputs: Names by position of what it reads instead, or as it is.
        gain: For the convolution: what the target multiplies into its weights, for each output channel.
    """

    inputs: dict[int, str] = field(default_factory=dict)
    gain: np.ndarray | None = None


def fold(scope: Scope, group: Group) -> dict[int, Folded]:
    """What changes in the nodes of a convolution's group, by position; empty where nothing is folded into it."""
    index, target = scope.index, scope.target
    main = index.nodes[group.main]
    weight = scope.weight(main.input[1]) if main.op_type in ("Conv", "ConvTranspose") else None
    if weight is None or not target.inline or (attribute_int(main, "group", 1) != 1 and main.op_type != "Conv"):
        return {}
    if not scope.is_float32(main.output[0]):  # float64, which stays as it is
        return {}
    axis = facts_of(main).channel_axis
    assert axis is not None
    channels = weight.shape[axis]
    gain, shift = np.ones(channels), np.zeros(channels)
    own = Folded()
    if len(main.input) > 2 and main.input[2]:
        bias = scope.small(main.input[2])
        if bias is None:
            return {}
        shift = shift + bias.astype(np.float64)
        own.inputs[2] = main.input[2]
    last, tensor = group.main, main.output[0]
    for position in group.nodes:
        node = index.nodes[position]
        if position <= group.main or tensor not in node.input:
            continue
        step = _affine(scope, node, tensor, channels, weight.ndim)
        if step is None:
            break
        gain, shift = gain * step[0], shift * step[0] + step[1]
        last, tensor = position, node.output[0]
    if last == group.main:
        return {}
    own.gain = gain.astype(np.float32)
    rounded = target.rounded(shift) if target.stores and not target.scaled else shift
    return {group.main: own, **_shifted(scope, group, last, rounded - shift, weight.ndim)}


def _affine(
    scope: Scope, node: onnx.NodeProto, tensor: str, channels: int, rank: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and summand for each channel of a node that follows a convolution; None if it is no such node."""
    if node.op_type in ("Identity", "Dropout"):
        return np.ones(channels), np.zeros(channels)
    if node.op_type == "BatchNormalization":
        values = [scope.small(name) for name in node.input[1:5]]
        if any(v is None or v.size != channels for v in values):
            return None
        scale, bias, mean, variance = (np.asarray(v, np.float64) for v in values)
        with np.errstate(all="ignore"):
            factor = scale / np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
        return factor, bias - mean * factor
    if operator(node) not in AFFINE_STEPS or len(set(node.input)) != 2:
        return None
    if node.op_type in ("Sub", "Div") and node.input[0] != tensor:
        return None
    value = scope.small(node.input[1] if node.input[0] == tensor else node.input[0])
    constant = None if value is None else _per_channel(value, channels, rank)
    if constant is None:
        return None
    if node.op_type in ("Add", "Sub"):
        return np.ones(channels), constant if node.op_type == "Add" else -constant
    with np.errstate(all="ignore"):
        return (constant if node.op_type == "Mul" else 1 / constant), np.zeros(channels)


def _shifted(scope: Scope, group: Group, last: int, delta: np.ndarray, rank: int) -> dict[int, Folded]:
    """Adds the rounding error of the folded bias to the last summand, and keeps the other constants as they are."""
    kept: dict[int, Folded] = {}
    for position in group.nodes:
        node = scope.index.nodes[position]
        if not group.main < position <= last:
            continue
        inputs = {i: n for i, n in enumerate(node.input) if n in scope.static}
        kept[position] = Folded(inputs)
        if position != last or not np.all(np.isfinite(delta)) or not np.any(delta):
            continue
        if node.op_type == "BatchNormalization":
            i, summand = 2, delta
        elif node.op_type in ("Add", "Sub"):
            i = 1 if node.input[1] in scope.static else 0
            summand = (delta if node.op_type == "Add" else -delta).reshape([1, -1] + [1] * (rank - 2))
        else:
            continue
        value = scope.small(node.input[i])
        assert value is not None
        inputs[i] = scope.writer.constant((value + summand).astype(np.float32), f"{node.input[i]}__folded")
    return kept


def _per_channel(value: np.ndarray, channels: int, rank: int) -> np.ndarray | None:
    """A constant of a convolution's epilogue as one number for each channel (axis 1); None if it is more than that."""
    shape = (1,) * (rank - value.ndim) + value.shape
    if len(shape) != rank or any(d != 1 for a, d in enumerate(shape) if a != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(value.astype(np.float64).reshape(-1), (channels,)).copy()
