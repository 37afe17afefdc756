"""Narrow accumulators, quantizers, and what only a narrow format harms."""

from __future__ import annotations

import numpy as np
import onnx
from layerdiff.graph.cutting.fusion import fused_groups
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.nodes import attribute
from onnx import helper

from ..edit import Edit
from .kinds import float_weight, fold, kind, planted

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
