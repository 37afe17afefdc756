"""What converters get wrong."""

from __future__ import annotations

import numpy as np
import onnx
from layerdiff.graph.nodes import attribute
from onnx import helper

from .kinds import PRODUCTS, float_weight, kind, planted

# What converters get wrong


@kind("Conv", places=1)
def input_channels_reversed(edit, node, rng, tensors):
    """Red and blue exchanged in the first convolution."""
    weight = edit.weight(node.input[1])
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3 or weight.dtype != np.float32:
        return None
    edit.set_weight(node, 1, weight[:, ::-1].copy())
    return planted("input channels in reverse order", "weights", "layout")


@kind(*PRODUCTS, places=2)
def weights_clipped(edit, node, rng, tensors):
    """Outliers among the weights of one layer clipped at twice their standard deviation."""
    weight = float_weight(edit, node)
    if weight is None:
        return None
    end = 2 * weight.std()
    edit.set_weight(node, 1, weight.clip(-end, end))
    return planted(f"weights within {end:.3g}", "weights")


@kind("Relu", "LeakyRelu", "Tanh", "Conv", "MatMul", "Gemm", places=2)
def integers_between(edit, node, rng, tensors):
    """Values cast to integers and back."""
    output = node.output[0]
    if edit.only_reader(output) is None or not np.abs(tensors[output]).max() > 1:
        return None
    path = node.name.rsplit("/", 1)[0]
    node.output[0] = f"{output}_float"
    names = [edit.free_name(f"{path}/Cast_{i}") for i in (1, 2)]
    there = helper.make_node("Cast", [node.output[0]], [f"{output}_integer"], name=names[0], to=onnx.TensorProto.INT64)
    back = helper.make_node("Cast", [f"{output}_integer"], [output], name=names[1], to=onnx.TensorProto.FLOAT)
    edit.insert(edit.position(node) + 1, [there, back])
    return planted("Cast to INT64 and back behind it", "wrong-op")


@kind("MaxPool", places=1)
def pool_rounds_up(edit, node, rng, tensors):
    """Pooling whose size is rounded up: ceil_mode, and other sizes behind it."""
    if any(n.op_type == "Concat" for n in edit.graph.node):
        return None
    edit.set(node, ceil_mode=1)
    return planted("ceil_mode 0 -> 1", "attribute")


@kind("Pad", places=2)
def padding_mode(edit, node, rng, tensors):
    """Padding with other values."""
    mode = str(attribute(node, "mode", "constant"))
    new = "edge" if mode != "edge" else "reflect"
    edit.set(node, mode=new)
    return planted(f"mode {mode} -> {new}", "attribute")


@kind("Resize", places=2)
def resize_mode(edit, node, rng, tensors):
    """Nearest neighbour for linear interpolation, or the reverse."""
    new = "nearest" if attribute(node, "mode", "nearest") == "linear" else "linear"
    edit.set(node, mode=new)
    return planted(f"mode {new}", "attribute")


@kind("ReduceMean", places=2)
def mean_axis(edit, node, rng, tensors):
    """Mean of a normalization over another axis, broadcast all the same."""
    x, y = tensors[node.input[0]], tensors[node.output[0]]
    if x.ndim != 3 or y.shape != (*x.shape[:2], 1):
        return None
    if len(node.input) > 1:
        edit.set_weight(node, 1, np.array([1], np.int64))
    else:
        edit.set(node, axes=[1])
    return planted("axis 2 -> 1", "attribute", "weights")


@kind("Softmax", places=2)
def softmax_logarithm(edit, node, rng, tensors):
    """LogSoftmax for Softmax."""
    node.op_type = "LogSoftmax"
    return planted("LogSoftmax", "wrong-op")


@kind("Erf", places=1)
def gelu_sigmoid(edit, node, rng, tensors):
    """The sigmoid form of GELU for the exact one."""
    path = node.name.rsplit("/", 1)[0]

    def named(op: str) -> str:
        return edit.free_name(f"{path}/{op}_approximate")

    x, y = node.input[0], node.output[0]
    factor = edit.add_weight(f"{y}_slope", np.float32(1.702 * 2**0.5))
    two, one = edit.add_weight(f"{y}_two", np.float32(2)), edit.add_weight(f"{y}_one", np.float32(1))
    steps = [
        helper.make_node("Mul", [x, factor], [f"{y}_a"], name=named("Mul")),
        helper.make_node("Sigmoid", [f"{y}_a"], [f"{y}_b"], name=named("Sigmoid")),
        helper.make_node("Mul", [f"{y}_b", two], [f"{y}_c"], name=named("Twice")),
        helper.make_node("Sub", [f"{y}_c", one], [y], name=named("Sub")),
    ]
    edit.replace(node, steps)
    return planted("2 sigmoid(1.702 x) - 1", "wrong-op")


@kind("Mul", places=2)
def excitation_dropped(edit, node, rng, tensors):
    """The scale of squeeze and excitation missing."""
    makers = [edit.maker(i) for i in node.input]
    gates = [i for i, m in enumerate(makers) if m is not None and m.op_type in ("Sigmoid", "HardSigmoid")]
    if len(gates) != 1 or tensors[node.input[gates[0]]].ndim != 4:
        return None
    kept = edit.bypass(node, node.input[1 - gates[0]])
    return planted("Mul by the gate gone", "wrong-op", candidate_tensor=kept)


@kind("Add", places=2)
def residual_of_another_block(edit, node, rng, tensors):
    """A residual connection from one block too early."""
    output = node.output[0]
    if any(edit.weight(i) is not None or tensors[i].shape != tensors[output].shape for i in node.input):
        return None
    position = edit.position(node)
    makers = {i: edit.maker(i) for i in node.input}
    if None in makers.values():
        return None
    shortcut = min(node.input, key=lambda i: edit.position(makers[i]))
    op = makers[shortcut].op_type
    earlier = [
        n.output[0]
        for n in edit.graph.node[: edit.position(makers[shortcut])]
        if n.op_type == op and tensors[n.output[0]].shape == tensors[output].shape
    ]
    if op not in ("Add", "Relu") or not earlier or position == 0:
        return None
    node.input[:] = [earlier[-1] if i == shortcut else i for i in node.input]
    edit.prune()
    return planted(f"reads {earlier[-1]} for {shortcut}", "wrong-op", "layout")


@kind("Gather", places=1)
def index_off_by_one(edit, node, rng, tensors):
    """Every index of an embedding one too large."""
    table, ids = edit.weight(node.input[0]), tensors.get(node.input[1])
    if table is None or ids is None or table.dtype != np.float32 or table.ndim != 2:
        return None
    path = node.name.rsplit("/", 1)[0]
    one = edit.add_weight(f"{path.strip('/').replace('/', '.')}.one", np.ones((), ids.dtype))
    size = edit.add_weight(f"{path.strip('/').replace('/', '.')}.size", np.array(len(table), ids.dtype))
    names = [edit.free_name(f"{path}/{op}") for op in ("Add_one", "Mod")]
    more = helper.make_node("Add", [node.input[1], one], [f"{names[0]}_output_0"], name=names[0])
    wrapped = helper.make_node("Mod", [f"{names[0]}_output_0", size], [f"{names[1]}_output_0"], name=names[1])
    node.input[1] = f"{names[1]}_output_0"
    edit.insert(edit.position(node), [more, wrapped])
    return planted("index + 1", "wrong-op", "layout", nodes=tuple(names))


@kind("LSTM", "GRU", places=1)
def directions_exchanged(edit, node, rng, tensors):
    """Weights of the two directions of a recurrent layer exchanged."""
    if attribute(node, "direction", "forward") != "bidirectional":
        return None
    for slot in (1, 2, 3):
        edit.set_weight(node, slot, edit.weight(node.input[slot])[::-1].copy())
    return planted("forward and backward weights exchanged", "weights", "layout")
