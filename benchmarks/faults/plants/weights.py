"""Weights of one layer, and of a normalization."""

from __future__ import annotations

import numpy as np
from layerdiff.graph.nodes import attribute

from .kinds import PRODUCTS, float_weight, fold, kind, planted

# Weights


@kind(*PRODUCTS)
def weights_fp16(edit, node, rng, tensors):
    """Weights of one layer rounded to FP16."""
    w = float_weight(edit, node)
    if w is None:
        return None
    edit.set_weight(node, 1, w.astype(np.float16).astype(np.float32))
    return planted("weights rounded to FP16", "weights")


@kind(*PRODUCTS)
def weights_int8_per_tensor(edit, node, rng, tensors):
    """Weights of one layer rounded to INT8 with one scale."""
    w = float_weight(edit, node)
    if w is None:
        return None
    step = np.abs(w).max() / 127
    edit.set_weight(node, 1, (np.round(w / step) * step).astype(np.float32))
    return planted("weights rounded to INT8, one scale", "weights", "quantization")


@kind(*PRODUCTS, "DequantizeLinear", "Gather")
def stale_weights(edit, node, rng, tensors):
    """Weights of one layer from another checkpoint: mixed with noise of their own size."""
    if node.op_type == "Gather" or node.op_type == "DequantizeLinear":
        w = edit.weight(node.input[0])
        slot = 0
    else:
        w, slot = float_weight(edit, node), 1
    if w is None or w.ndim < 2 or w.size < 9:
        return None
    share = float(rng.choice([0.01, 0.1, 1.0]))
    other = rng.permutation(w.ravel()).reshape(w.shape).astype(np.float64)
    mixed = w * np.sqrt(1 - share**2) + other * share
    if w.dtype == np.int8:
        mixed = np.clip(np.round(mixed), -127, 127)
    edit.set_weight(node, slot, mixed.astype(w.dtype))
    nodes = tuple(r.name for r in edit.readers(node.output[0])) if node.op_type == "DequantizeLinear" else ()
    return planted(f"{share:.0%} of the weights' size is of another checkpoint", "weights", nodes=nodes)


@kind(*PRODUCTS)
def few_weights(edit, node, rng, tensors):
    """Three weights of one layer changed."""
    w = float_weight(edit, node)
    if w is None or w.size < 30:
        return None
    where = rng.choice(w.size, 3, replace=False)
    w.ravel()[where] += rng.choice([-1, 1], 3) * rng.uniform(0.5, 3, 3) * w.std()
    edit.set_weight(node, 1, w)
    return planted(f"3 of {w.size} weights", "weights")


@kind(*PRODUCTS, places=2)
def scale_drift(edit, node, rng, tensors):
    """All weights of one layer too large by less than a percent."""
    w = float_weight(edit, node)
    if w is None:
        return None
    gain = 1 + float(rng.choice([3e-4, 1e-3, 5e-3]))
    edit.set_weight(node, 1, (w * gain).astype(np.float32))
    return planted(f"weights times {gain}", "scale", "weights")


@kind("MatMul", "Gemm", "Conv")
def weight_transposed(edit, node, rng, tensors):
    """A square weight transposed."""
    w = float_weight(edit, node)
    if w is None or w.ndim < 2 or w.shape[0] != w.shape[1] or (w.ndim > 2 and w.shape[2:] != (1, 1)):
        return None
    edit.set_weight(node, 1, np.ascontiguousarray(w.swapaxes(0, 1)))
    return planted(f"weight of {w.shape[0]}x{w.shape[1]} transposed", "weights", "layout")


@kind("MatMul", "Gemm", "Conv", "ConvTranspose")
def channels_permuted(edit, node, rng, tensors):
    """Output channels of one layer permuted."""
    w = float_weight(edit, node)
    if w is None or fold(w, node).shape[0] < 4:
        return None
    rows = fold(w, node)
    order = np.arange(len(rows))
    if rng.random() < 0.5:
        order = order[::-1]
    else:
        i, j = rng.choice(len(rows), 2, replace=False)
        order[[i, j]] = order[[j, i]]
    edit.set_weight(node, 1, np.ascontiguousarray(fold(rows[order], node)))
    return planted(f"{(order != np.arange(len(rows))).sum()} output channels permuted", "weights", "layout")


@kind("Conv", "ConvTranspose", "Gemm", "Add")
def bias_dropped(edit, node, rng, tensors):
    """The bias of one layer dropped."""
    if node.op_type == "Add":
        slot = next((s for s in (0, 1) if (w := edit.weight(node.input[s])) is not None and w.size > 1), None)
        if slot is None:
            return None
        if rng.random() < 0.5:
            edit.set_weight(node, slot, np.zeros_like(edit.weight(node.input[slot])))
            return planted("bias all zeros", "weights", "scale")
        kept = edit.bypass(node, node.input[1 - slot])
        return planted("Add of the bias gone", "wrong-op", "weights", "scale", candidate_tensor=kept)
    if len(node.input) < 3:
        return None
    if rng.random() < 0.5:
        edit.set_weight(node, 2, np.zeros_like(edit.weight(node.input[2])))
    else:
        del node.input[2]
        edit.prune()
    return planted("bias dropped", "weights", "scale")


@kind("LSTM", "GRU")
def gates_reordered(edit, node, rng, tensors):
    """Gates of a recurrent layer in another framework's order."""
    count = 4 if node.op_type == "LSTM" else 3
    order = [0, 2, 3, 1] if count == 4 else [1, 0, 2]
    for slot in (1, 2, 3):
        w = edit.weight(node.input[slot])
        parts = np.split(w, count * (2 if slot == 3 else 1), axis=1)
        halves = [parts[:count], parts[count:]] if slot == 3 else [parts]
        edit.set_weight(node, slot, np.concatenate([half[i] for half in halves for i in order], axis=1))
    return planted("gates reordered", "weights", "layout")


# Normalizations


@kind("BatchNormalization", "InstanceNormalization", "LayerNormalization", "Sqrt")
def norm_epsilon(edit, node, rng, tensors):
    """Epsilon of a normalization changed."""
    if node.op_type == "Sqrt":
        add = edit.maker(node.input[0])
        if add is None or add.op_type != "Add":
            return None
        slot = next((s for s in (0, 1) if edit.weight(add.input[s]) is not None), None)
        if slot is None:
            return None
        old = float(edit.weight(add.input[slot]))
        new = float(rng.choice([1e-3, 1e-2]))
        edit.set_weight(add, slot, np.float32(new))
        return planted(f"epsilon {old:.0e} -> {new:.0e}", "attribute", "weights", nodes=(add.name,), node=add.name)
    old = float(attribute(node, "epsilon", 1e-5))
    new = float(rng.choice([1e-3, 1e-2]))
    edit.set(node, epsilon=new)
    return planted(f"epsilon {old:.0e} -> {new:.0e}", "attribute")


@kind("BatchNormalization")
def bn_mean_variance_exchanged(edit, node, rng, tensors):
    """Mean and variance of a BatchNormalization exchanged."""
    mean, variance = edit.weight(node.input[3]), edit.weight(node.input[4])
    node.input[3], node.input[4] = node.input[4], node.input[3]
    causes = {"weights", "nan"} if (mean < 0).any() else {"weights"}
    assert variance is not None
    return planted(f"mean and variance exchanged ({(mean < 0).sum()} of {mean.size} means negative)", *causes)


@kind("BatchNormalization", "InstanceNormalization", "LayerNormalization", places=2)
def norm_affine_exchanged(edit, node, rng, tensors):
    """Gamma and beta of a normalization exchanged."""
    node.input[1], node.input[2] = node.input[2], node.input[1]
    return planted("gamma and beta exchanged", "weights")
