"""Quantization written into the graph: QuantizeLinear and DequantizeLinear around the inputs of matrix products.

This is what TensorRT calls explicit quantization. It is the only way to INT8 from TensorRT 11 on, and to FP8 on any
version. Scales are symmetric: activations per tensor, from their range; weights per output channel, from their values.
Biases, sums and outputs are not quantized, so that the runtime fuses them with the product before them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..errors import UsageError, first_line
from ..index import GraphIndex
from ..model import Model
from ..nodes import attribute_int, attribute_ints
from ..operators import AFFINE_PRODUCTS, WINDOWED, operator
from ..writer import GraphWriter, Names
from .rewrite import Note, Rewrite

_FULL = {"int8": 127.0, "fp8": 448.0}
_OPSET = {"int8": 13, "fp8": 19}
"""Opset with per-channel scales, and with E4M3, in Q/DQ."""


def products(index: GraphIndex, keep: Collection[str] = ()) -> list[int]:
    """Positions of the nodes to quantize: products of FP32 tensors that ``keep`` does not name."""
    specs = index.specs
    return [
        i
        for i, node in enumerate(index.nodes)
        if operator(node) in AFFINE_PRODUCTS
        and index.names[i] not in keep
        and all(n in specs and specs[n].dtype == np.float32 for n in node.input[:2])
    ]


def activations(index: GraphIndex, keep: Collection[str] = ()) -> list[str]:
    """Tensors whose ranges `quantize` needs, in graph order: inputs of products that are not weights."""
    names: dict[str, None] = {}
    for i in products(index, keep):
        for name in index.nodes[i].input[:2]:
            if index.weight(name) is None:
                names[name] = None
    return list(names)


def quantizable(index: GraphIndex, ranges: Mapping[str, float], keep: Collection[str] = ()) -> list[int]:
    """Positions of the products that `quantize` can quantize: ranges are known of all that they read."""
    return [i for i in products(index, keep) if all(_known(index, n, ranges) for n in index.nodes[i].input[:2])]


def quantize(
    model: Model, fmt: str, ranges: Mapping[str, float], keep: Collection[str] = (), opset: int = 0
) -> Rewrite:
    """A copy of ``model`` with Q/DQ pairs in front of every product.

    Args:
        model: An FP32 model without Q/DQ nodes; one that has some is returned as it is.
        fmt: ``int8`` or ``fp8`` (E4M3).
        ranges: Largest magnitude of each tensor of `activations`; it is mapped to the format's largest value.
        keep: Names of nodes that stay unquantized.
        opset: The least opset to write; 19 is what `typed.typed` needs to give Q/DQ nodes a 16-bit type.

    Returns:
        The model and the names of the products that were quantized. Tensors without a range, or with range zero, stay
        unquantized, and so do the products that read them.

    Raises:
        UsageError: ``fmt`` is neither, or nothing in the model can be quantized.
    """
    if fmt not in _FULL:
        raise UsageError(f"{fmt}: graphs can be quantized to {' or '.join(_FULL)}.")
    index = model.index
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in index.nodes):
        return Rewrite(model, (Note("The model holds Q/DQ nodes already: it was quantized by them alone."),))
    proto = onnx.ModelProto()
    proto.CopyFrom(index.proto)
    least = max(_OPSET[fmt], opset)
    if index.opset.get("", 1) < least:
        proto = _raise_opset(proto, least, model.source)
    usable = quantizable(index, ranges, keep)
    if not usable:
        raise UsageError(
            f"{model.source}: nothing to quantize: no {', '.join(sorted(AFFINE_PRODUCTS))} with a known range."
        )
    _Quantizing(index, proto, fmt, ranges).run(usable)
    note = Note(f"Q/DQ nodes stand before {len(usable)} of {len(products(index, keep))} matrix products.")
    return Rewrite(model.derive(proto), (note,), frozenset(index.names[i] for i in usable))


def _known(index: GraphIndex, name: str, ranges: Mapping[str, float]) -> bool:
    return index.weight(name) is not None or (np.isfinite(ranges.get(name, np.nan)) and ranges[name] > 0)


def _raise_opset(proto: onnx.ModelProto, opset: int, source: str) -> onnx.ModelProto:
    try:
        return onnx.version_converter.convert_version(proto, opset)
    except Exception as error:
        why = f"Q/DQ nodes need opset {opset}, and it cannot be converted: {first_line(error)}"
        raise UsageError(f"{source}: {why}") from error


class _Quantizing:
    """Writes Q/DQ pairs into ``proto``, a copy of the graph of ``index`` in an opset that has them."""

    def __init__(self, index: GraphIndex, proto: onnx.ModelProto, fmt: str, ranges: Mapping[str, float]) -> None:
        self.index, self.proto, self.fmt, self.ranges = index, proto, fmt, ranges
        self.writer = GraphWriter(Names.of(proto.graph), _OPSET[fmt])
        self.pairs: dict[tuple[str, int | None], str] = {}

    def run(self, usable: list[int]) -> None:
        outputs = {self.index.nodes[i].output[0] for i in usable}
        graph, write = self.proto.graph, self.writer
        for node in graph.node:
            if node.output and node.output[0] in outputs:
                self._keep_kernel_shape(node)
                for i in (0, 1):
                    node.input[i] = self._pair(node, i)
            write.nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        del graph.node[:]
        graph.node.extend(write.nodes)
        graph.initializer.extend(write.initializers)

    def _keep_kernel_shape(self, node: onnx.NodeProto) -> None:
        """TensorRT reads the kernel's size off the weights, which it no longer finds behind Q/DQ nodes."""
        weight = self.index.weight(node.input[1])
        if operator(node) in WINDOWED and weight is not None and attribute_ints(node, "kernel_shape") is None:
            node.attribute.append(helper.make_attribute("kernel_shape", list(weight.shape[2:])))

    def _pair(self, node: onnx.NodeProto, position: int) -> str:
        """The name of an operand behind its Q/DQ pair, which is written where nobody has yet."""
        name = node.input[position]
        weight = self.index.weight(name)
        axis = None if weight is None else _axis(node, position, weight.ndim)
        if (name, axis) in self.pairs:
            return self.pairs[name, axis]
        if weight is None:
            scale = np.asarray(self.ranges[name] / _FULL[self.fmt], np.float32)
        else:
            others = tuple(i for i in range(weight.ndim) if i != axis)
            peak = np.max(np.abs(weight), axis=others) if axis is not None else np.max(np.abs(weight))
            scale = np.where(peak > 0, peak / _FULL[self.fmt], 1.0).astype(np.float32)
        base = name if axis is None else f"{name}_axis{axis}"
        write = self.writer
        pair = [write.constant(scale, f"{base}_scale"), self._zeros(f"{base}_zero", scale.shape)]
        along = {} if axis is None else {"axis": axis}
        quantized = write.emit("QuantizeLinear", [name, *pair], write.names.fresh(f"{base}_q"), **along)
        output = write.names.fresh(f"{base}_dq")
        self.pairs[name, axis] = write.emit("DequantizeLinear", [quantized, *pair], output, **along)
        return output

    def _zeros(self, name: str, shape: tuple[int, ...]) -> str:
        """The name of zero points; NumPy has no type for FP8's."""
        elem_type = TensorProto.INT8 if self.fmt == "int8" else TensorProto.FLOAT8E4M3FN
        name = self.writer.names.fresh(name)
        zeros = helper.make_tensor(name, elem_type, shape, bytes(math.prod(shape)), raw=True)
        self.writer.initializers.append(zeros)
        return name


def _axis(node: onnx.NodeProto, position: int, rank: int) -> int | None:
    """Axis of a weight along which the output channels lie; None for per-tensor scales."""
    if position == 0:  # a weight on the left (x = W @ a) has its outputs in rows: keep it simple, per tensor
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute_int(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attribute_int(node, "transB", 0) else 1
    return rank - 1 if rank == 2 else None
