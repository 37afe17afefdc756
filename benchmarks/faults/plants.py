"""The kinds of faults. Each changes a copy of a network at one node, and says which causes would be an honest answer.

A kind is a function of the network (as an `Edit`), a node and a random generator. It returns None where it cannot be
planted, else a `Plant`. Kinds that are ``emulated`` change nothing that FP32 would notice: the reference and the
candidate run the same changed network, the candidate in emulated FP16.

Causes are the words of the report: weights, attribute, scale, wrong-op, layout, overflow, underflow, saturation, nan,
narrow-accumulator, cancellation, quantization. More than one is accepted only where the fault *is* more than one of
them: a transposed weight is another weight and another layout; a wrong constant factor is a scale and a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from layerdiff.graph.cutting.fusion import fused_groups
from layerdiff.graph.index import GraphIndex, attribute
from onnx import helper

from .edit import Edit

Tensors = Mapping[str, np.ndarray]
"""Every tensor of the network on one sample."""


@dataclass(frozen=True)
class Plant:
    """A fault in its place.

    Attributes:
        what: The fault in one line.
        causes: Honest answers.
        nodes: Nodes (of the reference) that are the fault's place, beside the node that was asked for.
        candidate_tensor: Which tensor of the candidate stands for the node's output, if not that of the same name.
        node: The fault's node where it is another than the one that was asked for.
    """

    what: str
    causes: frozenset[str]
    nodes: tuple[str, ...] = ()
    candidate_tensor: str | None = None
    node: str | None = None


Function = Callable[[Edit, onnx.NodeProto, np.random.Generator, Tensors], "Plant | None"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        ops: Operators at which it can be planted.
        emulated: The format that the candidate is emulated in; None if the candidate is a second file.
        places: How many places in each network.
    """

    name: str
    ops: frozenset[str]
    plant: Function = field(repr=False)
    emulated: str | None = None
    places: int = 3

    @property
    def title(self) -> str:
        """The first line of the function's docstring."""
        return (self.plant.__doc__ or "").split("\n")[0].rstrip(".")


KINDS: dict[str, Kind] = {}


def kind(*ops: str, emulated: str | None = None, places: int = 3) -> Callable[[Function], Function]:
    """Registers a kind under the function's name."""

    def register(function: Function) -> Function:
        name = function.__name__
        KINDS[name] = Kind(name, frozenset(ops), function, emulated, places)
        return function

    return register


def planted(what: str, *causes: str, **more) -> Plant:
    return Plant(what, frozenset(causes), **more)


PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")


def float_weight(edit: Edit, node: onnx.NodeProto) -> np.ndarray | None:
    """The float weight of a product, on its input 1."""
    value = edit.weight(node.input[1])
    return value if value is not None and value.dtype == np.float32 and value.size > 8 else None


def fold(values: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """The weight with output channels on the first axis."""
    if node.op_type == "ConvTranspose" or node.op_type == "MatMul":
        return values.swapaxes(0, 1)
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        return values.T
    return values


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
    return planted("index + 1", "wrong-op", "layout")


@kind("LSTM", "GRU", places=1)
def directions_exchanged(edit, node, rng, tensors):
    """Weights of the two directions of a recurrent layer exchanged."""
    if attribute(node, "direction", "forward") != "bidirectional":
        return None
    for slot in (1, 2, 3):
        edit.set_weight(node, slot, edit.weight(node.input[slot])[::-1].copy())
    return planted("forward and backward weights exchanged", "weights", "layout")


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


# Accumulation


@kind("MatMul", "Gemm", "Conv", places=4)
def fp16_accumulation(edit, node, rng, tensors):
    """Sums of one layer accumulated in FP16."""
    w = float_weight(edit, node)
    if w is None or int(attribute(node, "group", 1)) != 1:
        return None
    axis = 0 if node.op_type == "MatMul" else 1  # of the weight, along which is summed
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        return None
    depth = w.shape[axis]
    if depth < 16 or (node.op_type == "MatMul" and w.ndim != 2):
        return None
    count = min(depth, 32)
    sizes = [len(part) for part in np.array_split(np.arange(depth), count)]
    base = node.name
    pieces = [f"{base}/split_output_{i}" for i in range(count)]
    along = -1 if node.op_type == "MatMul" else 1
    if edit.opset >= 13:
        split = [node.input[0], edit.add_weight(f"{base}/split_sizes", np.asarray(sizes, np.int64))]
        nodes = [helper.make_node("Split", split, pieces, name=f"{base}/Split", axis=along)]
    else:
        nodes = [helper.make_node("Split", [node.input[0]], pieces, name=f"{base}/Split", axis=along, split=sizes)]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    total = ""
    bias = node.input[2] if len(node.input) > 2 else ""
    for i, (piece, part) in enumerate(zip(pieces, np.split(w, np.cumsum(sizes)[:-1], axis), strict=True)):
        name = f"{base}/part_{i}"
        value = edit.add_weight(f"{node.input[1]}.{i}", np.ascontiguousarray(part))
        nodes.append(helper.make_node(node.op_type, [piece, value], [f"{name}_product"], name=name, **attributes))
        last = f"{name}_product"
        if total:
            nodes.append(helper.make_node("Add", [total, last], [f"{name}_sum"], name=f"{name}/Add"))
            last = f"{name}_sum"
        nodes.append(
            helper.make_node("Cast", [last], [f"{name}_half"], name=f"{name}/Cast", to=onnx.TensorProto.FLOAT16)
        )
        total = f"{name}_single" if i < count - 1 or bias else node.output[0]
        cast = helper.make_node("Cast", [f"{name}_half"], [total], name=f"{name}/Cast_1", to=onnx.TensorProto.FLOAT)
        nodes.append(cast)
    if bias:
        values = edit.weight(bias)
        if node.op_type == "Conv":
            values = values[:, None, None]
        name = edit.add_weight(f"{bias}.last", values)
        nodes.append(helper.make_node("Add", [total, name], list(node.output), name=f"{base}/Add"))
    edit.replace(node, nodes)
    edit.prune()
    return planted(f"sum over {depth} in {count} parts, each added in FP16", "narrow-accumulator")


# Quantizers


def pair(edit: Edit, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The DequantizeLinear that alone reads a QuantizeLinear."""
    reader = edit.only_reader(node.output[0])
    return reader if reader is not None and reader.op_type == "DequantizeLinear" else None


def set_pair(edit: Edit, node: onnx.NodeProto, dequantize: onnx.NodeProto, slot: int, values: np.ndarray) -> None:
    """Gives a Q/DQ pair one new scale or zero point."""
    name = edit.add_weight(node.input[slot], values)
    node.input[slot] = dequantize.input[slot] = name
    edit.prune()


@kind("QuantizeLinear", places=6)
def quantizer_saturation(edit, node, rng, tensors):
    """The range of a quantizer too small."""
    dequantize = pair(edit, node)
    if dequantize is None:
        return None
    factor = float(rng.choice([3, 5]))
    set_pair(edit, node, dequantize, 1, (edit.weight(node.input[1]) / np.float32(factor)).astype(np.float32))
    return planted(f"range {factor:g} times too small", "saturation", "scale", nodes=(dequantize.name,))


@kind("QuantizeLinear", "DequantizeLinear", places=8)
def qdq_scale(edit, node, rng, tensors):
    """Scale of a Q/DQ pair, or of one of its nodes, wrong."""
    scale = edit.weight(node.input[1])
    if node.op_type == "QuantizeLinear":
        dequantize = pair(edit, node)
        if dequantize is None:
            return None
        set_pair(edit, node, dequantize, 1, scale * np.float32(1.2))
        return planted("scale of the pair times 1.2", "scale", "quantization", "weights", nodes=(dequantize.name,))
    gain = float(rng.choice([1.01, 1.05]))
    edit.set_weight(node, 1, (scale * gain).astype(np.float32))
    weight = edit.weight(node.input[0]) is not None
    return planted(
        f"scale of {'the weights' if weight else 'DequantizeLinear'} times {gain}",
        "scale",
        "quantization",
        "weights",
        nodes=around(edit, node),
    )


def around(edit: Edit, node: onnx.NodeProto) -> tuple[str, ...]:
    """The node that a DequantizeLinear makes one kernel with: its quantizer, or the product whose weight it makes."""
    maker = edit.maker(node.input[0])
    if maker is not None:
        return (maker.name,)
    return tuple(reader.name for reader in edit.readers(node.output[0]))


@kind("DequantizeLinear", "QuantizeLinear", places=8)
def qdq_zero_point(edit, node, rng, tensors):
    """Zero point of a Q/DQ node off by one."""
    zero = edit.weight(node.input[2])
    new = zero + 1 if zero.max() < 255 else zero - 1
    edit.set_weight(node, 2, new.astype(zero.dtype))
    partner = pair(edit, node) if node.op_type == "QuantizeLinear" else None
    nodes = (partner.name,) if partner is not None else around(edit, node)
    return planted(f"zero point of {node.op_type} off by one", "quantization", "scale", "weights", nodes=nodes)


# What only a narrow format harms


def producer(edit: Edit, tensor: str) -> onnx.NodeProto | None:
    """A product without bias of its own that alone reads ``tensor``."""
    reader = edit.only_reader(tensor)
    if reader is None or reader.op_type not in ("Conv", "MatMul") or reader.input[0] != tensor:
        return None
    return reader if len(reader.input) == 2 and float_weight(edit, reader) is not None else None


def separate(edit: Edit, first: str, second: str) -> bool:
    """Whether two nodes run as two kernels, so that a tensor between them exists in memory."""
    index = GraphIndex(edit.proto)
    position = {n.name: i for i, n in enumerate(index.nodes)}
    return not any({position[first], position[second]} <= set(g.nodes) for g in fused_groups(index))


@kind(
    "Relu", "LeakyRelu", "Clip", "Gelu", "Mul", "Tanh", "MaxPool", "Add", "PRelu", "Reshape", emulated="fp16", places=4
)
def overflow_fp16(edit, node, rng, tensors):
    """An activation beyond FP16's largest number, brought back after the next product."""
    product = producer(edit, node.output[0])
    value = tensors[node.output[0]]
    if product is None or value.dtype != np.float32:
        return None
    shift = int(np.ceil(np.log2(65504 * 1.3 / np.abs(value).max())))
    path = node.name.rsplit("/", 1)[0] + "/rescale"
    tail = node.output[0]
    chosen = node
    normalization = edit.maker(node.input[0]) if node.op_type in ("Relu", "LeakyRelu", "PRelu") else None
    if (
        normalization is not None
        and normalization.op_type in ("BatchNormalization", "InstanceNormalization")
        and edit.only_reader(normalization.output[0]) is not None
        and np.abs(edit.weight(normalization.input[1])).max() * 2.0**shift < 60000
    ):
        # A homogeneous activation: the factor goes into gamma and beta, as long as FP16 holds them.
        edit.scale_weight(normalization, 1, 2.0**shift)
        edit.scale_weight(normalization, 2, 2.0**shift)
        chosen = normalization
    else:
        half = shift // 2
        first = edit.after(tail, "Mul", np.float32(2.0**half), path)
        chosen = edit.after(first.output[0], "Mul", np.float32(2.0 ** (shift - half)), path)
        if not separate(edit, chosen.name, product.name):
            return None
    after = edit.after(product.output[0], "Mul", np.float32(2.0 ** -(shift // 2)), path + "/back")
    edit.after(after.output[0], "Mul", np.float32(2.0 ** -(shift - shift // 2)), path + "/back")
    what = f"largest value {np.abs(value).max() * 2.0**shift:.3g}"
    return planted(what, "overflow", node=chosen.name, nodes=(node.name,))


@kind(
    "Relu", "LeakyRelu", "Clip", "Gelu", "Mul", "Tanh", "MaxPool", "Add", "PRelu", "Reshape", emulated="fp16", places=4
)
def underflow_fp16(edit, node, rng, tensors):
    """An activation below FP16's smallest number, brought back after the next product."""
    product = producer(edit, node.output[0])
    value = tensors[node.output[0]]
    if product is None or value.dtype != np.float32:
        return None
    shift = int(np.ceil(np.log2(np.abs(value).max() * 2.0**25)))
    path = node.name.rsplit("/", 1)[0] + "/rescale"
    first = edit.after(node.output[0], "Mul", np.float32(2.0**-13), path)
    chosen = edit.after(first.output[0], "Mul", np.float32(2.0 ** (13 - shift)), path)
    after = edit.after(product.output[0], "Mul", np.float32(2.0**14), path + "/back")
    edit.after(after.output[0], "Mul", np.float32(2.0 ** (shift - 14)), path + "/back")
    if not separate(edit, chosen.name, product.name):
        return None
    what = f"largest value {np.abs(value).max() * 2.0**-shift:.3g}"
    return planted(what, "underflow", node=chosen.name, nodes=(first.name,))


@kind("Conv", "MatMul", emulated="fp16", places=2)
def cancellation_fp16(edit, node, rng, tensors):
    """A large offset added before a product and taken off after it."""
    if producer(edit, node.input[0]) is None or edit.maker(node.input[0]) is None:
        return None
    w = float_weight(edit, node)
    reader = edit.only_reader(node.output[0])
    if reader is None or (w.ndim > 2 and w.shape[2:] != (1, 1)) or int(attribute(node, "group", 1)) != 1:
        return None
    offset = 1000.0
    sums = fold(w.astype(np.float64), node).reshape(fold(w, node).shape[0], -1).sum(axis=1) * offset
    if reader.op_type == "BatchNormalization":
        edit.set_weight(reader, 3, (edit.weight(reader.input[3]) + sums).astype(np.float32))
    elif reader.op_type == "Add":
        slot = next((s for s in (0, 1) if edit.weight(reader.input[s]) is not None), None)
        if slot is None:
            return None
        edit.set_weight(reader, slot, (edit.weight(reader.input[slot]) - sums).astype(np.float32))
    else:
        return None
    path = node.name.rsplit("/", 1)[0] + "/offset"
    added = edit.after(node.input[0], "Add", np.float32(offset), path)
    return planted(f"offset {offset:g} cancels", "cancellation", nodes=(added.name, reader.name))
