"""Faults inside loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from .kinds import kind, planted

# Inside loops


def inner(node: onnx.NodeProto, rng: np.random.Generator, *ops: str) -> tuple[onnx.GraphProto, onnx.NodeProto]:
    """The body of a loop, and one of its nodes of some operators."""
    (body,) = (a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
    chosen = [n for n in body.node if n.op_type in ops]
    return body, chosen[int(rng.integers(len(chosen)))]


def set_inner(body: onnx.GraphProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes a weight of a body."""
    (tensor,) = (t for t in body.initializer if t.name == name)
    values = change(onnx.numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))


@kind("Scan", "Loop", places=2)
def body_stale_weights(edit, node, rng, tensors):
    """Weights of one layer inside a loop from an earlier checkpoint."""
    body, chosen = inner(node, rng, "MatMul")
    set_inner(body, chosen.input[1], lambda w: w + rng.normal(0, 0.03 * w.std(), w.shape))
    return planted("3 % of noise on the weights in the body", "weights", node=chosen.name)


@kind("Scan", "Loop", places=2)
def body_bias_dropped(edit, node, rng, tensors):
    """Bias of one layer inside a loop dropped."""
    body, _ = inner(node, rng, "MatMul")
    chosen = next(n for n in body.node if n.op_type == "Add" and n.input[1].endswith("_b"))
    set_inner(body, chosen.input[1], np.zeros_like)
    return planted("bias in the body zero", "weights", "scale", node=chosen.name)


@kind("Scan", "Loop", places=2)
def body_scale(edit, node, rng, tensors):
    """A factor inside a loop wrong by one percent."""
    body, _ = inner(node, rng, "Mul")
    chosen = next(n for n in body.node if n.op_type == "Mul" and n.input[1] == "rate")
    set_inner(body, "rate", lambda w: w * 1.01)
    return planted("factor in the body times 1.01", "scale", "weights", node=chosen.name)


@kind("Scan", "Loop", places=2)
def body_activation_replaced(edit, node, rng, tensors):
    """Another activation inside a loop."""
    _, chosen = inner(node, rng, "Tanh", "Sigmoid")
    old = chosen.op_type
    chosen.op_type = {"Tanh": "Softsign", "Sigmoid": "HardSigmoid"}[old]
    return planted(f"{old} -> {chosen.op_type} in the body", "wrong-op", node=chosen.name)
