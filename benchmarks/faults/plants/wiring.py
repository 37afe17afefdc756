"""Another operator, or other wires."""

from __future__ import annotations

import numpy as np
from layerdiff.graph.nodes import attribute
from onnx import helper

from .kinds import kind, planted

# Operators and wiring


@kind("Relu", "Sigmoid", "Tanh", "HardSigmoid", "Clip", "PRelu", places=2)
def activation_replaced(edit, node, rng, tensors):
    """Another activation."""
    new = {
        "Relu": ("LeakyRelu", {"alpha": 0.01}),
        "Sigmoid": ("HardSigmoid", {}),
        "Tanh": ("Softsign", {}),
        "HardSigmoid": ("Sigmoid", {}),
        "Clip": ("Relu", {}),
        "PRelu": ("LeakyRelu", {"alpha": 0.25}),
    }
    op, attributes = new[node.op_type]
    if node.op_type == "Clip" and tensors[node.input[0]].max() < edit.weight(node.input[2]):
        return None
    name = node.name.rsplit("/", 1)[0] + "/" + op
    made = helper.make_node(op, [node.input[0]], list(node.output), name=edit.free_name(name), **attributes)
    edit.replace(node, [made])
    edit.prune()
    return planted(f"{node.op_type} -> {op}", "wrong-op")


@kind("Add")
def residual_missing(edit, node, rng, tensors):
    """A residual connection missing."""
    if any(edit.weight(i) is not None for i in node.input):
        return None
    if any(tensors[i].shape != tensors[node.output[0]].shape for i in node.input):
        return None
    if any(r.op_type == "Softmax" for r in edit.readers(node.output[0])):
        return None
    makers = [edit.maker(i) for i in node.input]
    if None in makers:
        return None
    branch = max(node.input, key=lambda i: edit.position(edit.maker(i)))  # the later one: the other is the shortcut
    kept = edit.bypass(node, branch)
    return planted("residual Add gone", "wrong-op", candidate_tensor=kept)


@kind("MaxPool", "AveragePool", places=2)
def pooling_replaced(edit, node, rng, tensors):
    """Average for maximum pooling, or the reverse."""
    op = "AveragePool" if node.op_type == "MaxPool" else "MaxPool"
    keep = {
        a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in ("kernel_shape", "pads", "strides")
    }
    name = edit.free_name(node.name.rsplit("/", 1)[0] + "/" + op)
    edit.replace(node, [helper.make_node(op, list(node.input), list(node.output), name=name, **keep)])
    return planted(f"{node.op_type} -> {op}", "wrong-op")


@kind("Concat")
def concat_order(edit, node, rng, tensors):
    """Two inputs of a Concat exchanged."""
    if tensors[node.output[0]].dtype != np.float32 or len(node.input) < 2:
        return None
    i, j = (int(v) for v in rng.choice(len(node.input), 2, replace=False))
    node.input[i], node.input[j] = node.input[j], node.input[i]
    return planted(f"inputs {i} and {j} exchanged", "layout")


@kind("Transpose")
def reshape_for_transpose(edit, node, rng, tensors):
    """Reshape where there should be a Transpose."""
    shape = list(tensors[node.output[0]].shape)
    batch = list(attribute(node, "perm", [])).index(0)
    if shape[batch] == 1:
        shape[batch] = -1
    name = edit.free_name(node.name.rsplit("/", 1)[0] + "/Reshape")
    value = edit.add_weight(f"{name}_shape", np.asarray(shape, np.int64))
    edit.replace(node, [helper.make_node("Reshape", [node.input[0], value], list(node.output), name=name)])
    return planted(f"Reshape to {shape}", "layout", "wrong-op")
