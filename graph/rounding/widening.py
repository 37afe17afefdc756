"""Graphs that are typed FP16 or BF16 made to compute in FP32, so that whoever rewrites them decides what rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..cutting.slices import SEPARATOR
from ..formats import BF16, BY_DTYPE, FP16, NumberFormat
from ..nodes import subgraphs
from ..specs import Arrays, dtype_name

if TYPE_CHECKING:
    from ..model import Model

NARROW: dict[int, NumberFormat] = {TensorProto.FLOAT16: FP16, TensorProto.BFLOAT16: BF16}
"""The element types that are made FP32, and their number formats."""

_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype", "precision", "softmax_precision", "stash_type")
"""Attributes that name an element type."""


def widened(model: Model) -> Model:
    """A model that computes in FP32 what the graph types FP16 or BF16, and takes and gives FP32; itself where no
    tensor has such a type."""
    if not any(is_narrow(spec.dtype) for spec in model.index.specs.values()):
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    widen(proto.graph)
    return model.derive(proto)


def is_narrow(dtype: np.dtype) -> bool:
    """Whether values of this dtype are FP16 or BF16."""
    return BY_DTYPE.get(dtype_name(dtype)) in NARROW.values()


def to_fp32(arrays: Arrays) -> dict[str, np.ndarray]:
    """What a widened model takes: FP16 and BF16 arrays as FP32, others as they are."""
    return {name: a.astype(np.float32) if is_narrow(a.dtype) else a for name, a in arrays.items()}


def widen(graph: onnx.GraphProto) -> None:
    """Makes a graph, and the bodies of its nodes, compute in FP32 where its types are FP16 or BF16."""
    casts = widen_declarations(graph)
    if casts:
        nodes = [*casts, *graph.node]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    for node in graph.node:
        widen_node(node)


def widen_declarations(graph: onnx.GraphProto, inline: bool = True) -> list[onnx.NodeProto]:
    """Makes FP32 what a graph declares: inputs, outputs, values, weights. Its nodes stay as they are.

    Args:
        graph: The graph.
        inline: Whether weights are written anew; else the graph casts them when it runs, as it does with weights that
            stand in another file.

    Returns:
        The casts of weights, which belong in front of the graph's nodes.
    """
    for info in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(info.type)
    for sparse in graph.sparse_initializer:
        _widen_tensor(sparse.values)
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type in NARROW and not (inline and _widen_tensor(tensor)):
            name, tensor.name = tensor.name, f"{tensor.name}{SEPARATOR}narrow"
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], tensor.name, to=TensorProto.FLOAT))
    computed = {node.output[0] for node in casts}  # old files list their weights among the inputs, too
    inputs = [info for info in graph.input if info.name not in computed]
    if len(inputs) < len(graph.input):
        del graph.input[:]
        graph.input.extend(inputs)
    return casts


def widen_node(node: onnx.NodeProto) -> None:
    """Makes FP32 the types and tensors that a node's attributes name, those in its bodies among them."""
    for a in node.attribute:
        if a.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(a.t)
        elif a.name in _TYPE_ATTRIBUTES and a.i in NARROW:
            a.i = TensorProto.FLOAT
    for body in subgraphs(node):
        widen(body)


def _widen_type(kind: onnx.TypeProto) -> None:
    """Makes a type FP32, also that of the elements of a sequence or of an optional."""
    which = kind.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        _widen_type(getattr(kind, which).elem_type)
    elif which == "tensor_type" and kind.tensor_type.elem_type in NARROW:
        kind.tensor_type.elem_type = TensorProto.FLOAT


def _widen_tensor(tensor: onnx.TensorProto) -> bool:
    """Makes a tensor FP32, unless its values are in another file."""
    if tensor.data_type not in NARROW:
        return True
    if tensor.data_location == TensorProto.EXTERNAL:
        return False
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name))
    return True
