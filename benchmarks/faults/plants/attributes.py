"""Attention, and attributes of one node."""

from __future__ import annotations

import numpy as np
import onnx
from layerdiff.graph.nodes import attribute
from onnx import helper

from ..edit import Edit
from .kinds import Tensors, kind, planted

# Attention


def is_attention_scale(edit: Edit, node: onnx.NodeProto, tensors: Tensors) -> bool:
    """A Mul or Div by a scalar, with a Softmax within the next three nodes."""
    if len(node.input) != 2 or (w := edit.weight(node.input[1])) is None or w.size != 1:
        return False
    if tensors[node.output[0]].ndim != 4 or tensors[node.output[0]].shape[1] == 1:  # one head: the mask
        return False
    frontier = [node]
    for _ in range(3):
        frontier = [r for n in frontier for r in edit.readers(n.output[0])]
        if any(n.op_type == "Softmax" for n in frontier):
            return True
    return False


@kind("Mul", "Div")
def attention_scale_missing(edit, node, rng, tensors):
    """The scale of attention scores missing."""
    if not is_attention_scale(edit, node, tensors):
        return None
    if rng.random() < 0.5:
        edit.set_weight(node, 1, np.ones_like(edit.weight(node.input[1])))
        return planted("factor is 1", "scale", "weights")
    kept = edit.bypass(node, node.input[0])
    return planted(f"{node.op_type} gone", "scale", "wrong-op", candidate_tensor=kept)


@kind("Mul", "Div")
def attention_scale_off(edit, node, rng, tensors):
    """The scale of attention scores wrong by 0.1 %."""
    if not is_attention_scale(edit, node, tensors):
        return None
    edit.scale_weight(node, 1, 1.001)
    return planted("factor times 1.001", "scale", "weights")


@kind("Softmax")
def softmax_axis(edit, node, rng, tensors):
    """Softmax over another axis."""
    rank = tensors[node.output[0]].ndim
    axis = int(attribute(node, "axis", -1)) % rank
    new = rank - 2 if axis == rank - 1 else rank - 1
    edit.set(node, axis=new)
    return planted(f"axis {axis} -> {new}", "attribute")


@kind("Add")
def mask_dropped(edit, node, rng, tensors):
    """The attention mask not applied."""
    if not any(r.op_type == "Softmax" for r in edit.readers(node.output[0])):
        return None
    if any(edit.weight(i) is not None for i in node.input):
        return None
    kept = edit.bypass(node, node.input[0])
    return planted("Add of the mask gone", "wrong-op", candidate_tensor=kept)


@kind("Gelu", "Erf")
def gelu_tanh(edit, node, rng, tensors):
    """The tanh form of GELU for the exact one."""
    if node.op_type == "Gelu":
        edit.set(node, approximate="tanh")
        return planted("approximate = tanh", "attribute", "wrong-op")
    divide = edit.maker(node.input[0])
    if divide is None or divide.op_type != "Div":
        return None
    x, path = divide.input[0], node.name.rsplit("/", 1)[0]
    names = [edit.add_weight(f"{path}/tanh_{i}", np.float32(v)) for i, v in enumerate([0.044715, np.sqrt(2 / np.pi)])]
    steps = [("Mul", [x, x]), ("Mul", ["", x]), ("Mul", ["", names[0]]), ("Add", [x, ""]), ("Mul", ["", names[1]])]
    nodes, last = [], ""
    for i, (op, inputs) in enumerate(steps):
        name = f"{path}/tanh/{op}_{i}"
        nodes.append(helper.make_node(op, [j or last for j in inputs], [f"{name}_output_0"], name=name))
        last = f"{name}_output_0"
    nodes.append(helper.make_node("Tanh", [last], [node.output[0]], name=f"{path}/tanh/Tanh"))
    edit.replace(node, nodes)
    edit.prune()
    return planted("Erf(x / sqrt 2) written as Tanh", "wrong-op", nodes=(divide.name,))


# Attributes


@kind("Conv", "Pad", "AveragePool")
def padding_mirrored(edit, node, rng, tensors):
    """Asymmetric padding mirrored."""
    if node.op_type == "Pad":
        pads = edit.weight(node.input[1])
        half = len(pads) // 2
        new = np.concatenate([pads[half:], pads[:half]])
        if (new == pads).all():
            return None
        edit.set_weight(node, 1, new)
        return planted(f"pads {pads.tolist()} -> {new.tolist()}", "attribute", "weights", "layout")
    pads = list(attribute(node, "pads", [0] * 4))
    new = pads[2:] + pads[:2]
    if new == pads:
        return None
    edit.set(node, pads=new)
    return planted(f"pads {pads} -> {new}", "attribute")


@kind("AveragePool")
def pool_counts_padding(edit, node, rng, tensors):
    """Average pooling counts the padding."""
    if not any(attribute(node, "pads", [0])):
        return None
    new = 1 - int(attribute(node, "count_include_pad", 0))
    edit.set(node, count_include_pad=new)
    return planted(f"count_include_pad = {new}", "attribute")


@kind("Resize")
def resize_coordinates(edit, node, rng, tensors):
    """Resize with another coordinate mode."""
    old = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if attribute(node, "mode", "nearest") == "nearest":
        edit.set(node, nearest_mode="ceil")
        return planted("nearest_mode floor -> ceil", "attribute")
    new = str(rng.choice([m for m in ("half_pixel", "align_corners", "asymmetric") if m != old]))
    edit.set(node, coordinate_transformation_mode=new)
    return planted(f"coordinate mode {old} -> {new}", "attribute")


@kind("Clip")
def clip_bounds(edit, node, rng, tensors):
    """Bounds of a Clip changed."""
    if rng.random() < 0.5:
        edit.set_weight(node, 2, np.float32(rng.choice([1.0, 3.0, 5.0])))
        return planted("maximum lowered", "attribute", "weights")
    edit.set_weight(node, 1, np.float32(rng.choice([-0.5, 0.05])))
    return planted("minimum moved", "attribute", "weights")


@kind("LeakyRelu", "HardSigmoid")
def activation_slope(edit, node, rng, tensors):
    """Slope of an activation changed."""
    old = float(attribute(node, "alpha", 0.01 if node.op_type == "LeakyRelu" else 0.2))
    new = 0.2 if node.op_type == "HardSigmoid" else old * float(rng.choice([0.1, 1.5]))
    edit.set(node, alpha=new)
    return planted(f"alpha {old:.3g} -> {new:.3g}", "attribute")


@kind("Conv", places=2)
def dilation_changed(edit, node, rng, tensors):
    """Dilation of a convolution changed, padding with it."""
    if list(attribute(node, "kernel_shape", [])) != [3, 3] or list(attribute(node, "pads", [])) != [1] * 4:
        return None
    edit.set(node, dilations=[2, 2], pads=[2] * 4)
    return planted("dilation 1 -> 2", "attribute")


@kind("GRU")
def linear_before_reset(edit, node, rng, tensors):
    """GRU's reset gate applied on the other side of its product."""
    edit.set(node, linear_before_reset=1 - int(attribute(node, "linear_before_reset", 0)))
    return planted("linear_before_reset flipped", "attribute")
