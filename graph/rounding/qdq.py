"""Quantization written into the graph: QuantizeLinear and DequantizeLinear around the inputs of matrix products.

This is what TensorRT calls explicit quantization. It is the only way to INT8 from TensorRT 11 on, and to FP8 on any
version. Scales are symmetric: activations per tensor, from their range; weights per output channel, from their values.
Biases, sums and outputs are not quantized, so that the runtime fuses them with the product before them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import UsageError
from ..index import GraphIndex, attribute
from ..model import Model
from ..operators import AFFINE_PRODUCTS

_FULL = {"int8": 127.0, "fp8": 448.0}
_OPSET = {"int8": 13, "fp8": 19}
"""Opset with per-channel scales, and with E4M3, in Q/DQ."""


def products(index: GraphIndex, keep: Collection[str] = ()) -> list[int]:
    """Positions of the nodes to quantize: products of FP32 tensors that ``keep`` does not name."""
    specs = index.specs
    return [
        i
        for i, node in enumerate(index.nodes)
        if node.op_type in AFFINE_PRODUCTS
        and node.domain in ("", "ai.onnx")
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


def quantize(
    model: Model, fmt: str, ranges: Mapping[str, float], keep: Collection[str] = (), opset: int = 0
) -> tuple[Model, tuple[str, ...]]:
    """A copy of ``model`` with Q/DQ pairs in front of every product.

    Args:
        model: An FP32 model without Q/DQ nodes; one that has some is returned as it is.
        fmt: ``int8`` or ``fp8`` (E4M3).
        ranges: Largest magnitude of each tensor of `activations`; it is mapped to the format's largest value.
        keep: Names of nodes that stay unquantized.
        opset: The least opset to write; 19 is what `typed.typed` needs to give Q/DQ nodes a 16-bit type.

    Returns:
        The model, and sentences for the user. Tensors without a range, or with range zero, stay unquantized, and so do
        the products that read them.

    Raises:
        UsageError: ``fmt`` is neither, or nothing in the model can be quantized.
    """
    if fmt not in _FULL:
        raise UsageError(f"{fmt}: graphs can be quantized to {' or '.join(_FULL)}.")
    index = model.index
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in index.nodes):
        return model, ("The model holds Q/DQ nodes already: it was quantized by them alone.",)
    proto = onnx.ModelProto()
    proto.CopyFrom(index.proto)
    least = max(_OPSET[fmt], opset)
    if index.opset.get("", 1) < least:
        proto = _raise_opset(proto, least, model.source)
    chosen = products(index, keep)
    usable = [i for i in chosen if all(_known(index, n, ranges) for n in index.nodes[i].input[:2])]
    if not usable:
        raise UsageError(
            f"{model.source}: nothing to quantize: no {', '.join(sorted(AFFINE_PRODUCTS))} with a known range."
        )
    _Quantizing(index, proto, fmt, ranges).run(usable)
    notes = [f"Q/DQ nodes stand before {len(usable)} of {len(chosen)} matrix products."]
    return model.derive(proto), tuple(notes)


def _known(index: GraphIndex, name: str, ranges: Mapping[str, float]) -> bool:
    return index.weight(name) is not None or (np.isfinite(ranges.get(name, np.nan)) and ranges[name] > 0)


def _raise_opset(proto: onnx.ModelProto, opset: int, source: str) -> onnx.ModelProto:
    try:
        return onnx.version_converter.convert_version(proto, opset)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{source}: Q/DQ nodes need opset {opset}, and it cannot be converted: {reason}") from error


class _Quantizing:
    def __init__(self, index: GraphIndex, proto: onnx.ModelProto, fmt: str, ranges: Mapping[str, float]) -> None:
        self.index, self.proto, self.fmt, self.ranges = index, proto, fmt, ranges
        self.pairs: dict[tuple[str, int | None], str] = {}
        self.before: list[onnx.NodeProto] = []

    def run(self, usable: list[int]) -> None:
        names = {self.index.names[i] for i in usable}
        outputs = {tuple(self.index.nodes[i].output) for i in usable}
        nodes: list[onnx.NodeProto] = []
        for node in self.proto.graph.node:
            if tuple(node.output) in outputs and node.op_type in AFFINE_PRODUCTS:
                self._keep_kernel_shape(node)
                for i in (0, 1):
                    node.input[i] = self._pair(node, i)
                nodes.extend(self.before)
                self.before = []
            nodes.append(node)
        assert len(names) == len(usable)
        fresh = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(fresh)

    def _keep_kernel_shape(self, node: onnx.NodeProto) -> None:
        """TensorRT reads the kernel's size off the weights, which it no longer finds behind Q/DQ nodes."""
        weight = self.index.weight(node.input[1])
        if node.op_type.startswith("Conv") and weight is not None and attribute(node, "kernel_shape") is None:
            node.attribute.append(helper.make_attribute("kernel_shape", list(weight.shape[2:])))

    def _pair(self, node: onnx.NodeProto, position: int) -> str:
        name = node.input[position]
        weight = self.index.weight(name)
        axis = None if weight is None else _axis(node, position, weight.ndim)
        if (name, axis) in self.pairs:
            return self.pairs[name, axis]
        if weight is None:
            scale = np.float32(self.ranges[name] / _FULL[self.fmt])
        else:
            others = tuple(i for i in range(weight.ndim) if i != axis)
            peak = np.max(np.abs(weight), axis=others) if axis is not None else np.max(np.abs(weight))
            scale = np.where(peak > 0, peak / _FULL[self.fmt], 1.0).astype(np.float32)
        suffix = "" if axis is None else f"_axis{axis}"
        base = f"{name}{suffix}"
        self._initializer(f"{base}_scale", np.asarray(scale, np.float32))
        self._zero(f"{base}_zero", np.shape(scale))
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        pair = (f"{base}_scale", f"{base}_zero")
        self.before += [
            helper.make_node("QuantizeLinear", [name, *pair], [f"{base}_q"], name=f"Quantize_{base}", **attributes),
            helper.make_node(
                "DequantizeLinear", [f"{base}_q", *pair], [f"{base}_dq"], name=f"Dequantize_{base}", **attributes
            ),
        ]
        self.pairs[name, axis] = f"{base}_dq"
        return f"{base}_dq"

    def _initializer(self, name: str, value: np.ndarray) -> None:
        self.proto.graph.initializer.append(numpy_helper.from_array(value, name))

    def _zero(self, name: str, shape: tuple[int, ...]) -> None:
        elem_type = TensorProto.INT8 if self.fmt == "int8" else TensorProto.FLOAT8E4M3FN
        count = int(np.prod(shape, dtype=np.int64))
        self.proto.graph.initializer.append(helper.make_tensor(name, elem_type, shape, bytes(count), raw=True))


def _axis(node: onnx.NodeProto, position: int, rank: int) -> int | None:
    """Axis of a weight along which the output channels lie; None for per-tensor scales."""
    if position == 0:  # a weight on the left (x = W @ a) has its outputs in rows: keep it simple, per tensor
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return rank - 1 if rank == 2 else None
