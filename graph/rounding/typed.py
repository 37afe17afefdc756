"""Number formats written into the graph as types, for runtimes that take types as law (TensorRT 11, strongly typed 10).

Unlike `emulation.rewrite`, which rounds values but computes in FP32, the graph made here *computes* in the narrow type:
weights are stored in it, Cast nodes stand where the type changes, and inputs and outputs of the model keep theirs.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import UsageError
from ..index import GraphIndex
from ..model import Model
from ..nodes import captured, subgraphs
from ..operators import is_standard
from ..writer import GraphWriter, Names
from .kept import with_movement
from .rewrite import Rewrite
from .round_array import round_array

_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_SCHEMA_NAME = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}


def typed(model: Model, fmt: str, keep: Collection[str] = ()) -> Rewrite:
    """A copy of ``model`` whose FP32 nodes compute in ``fmt``, as far as ONNX lets their operators.

    Args:
        model: Any model.
        fmt: ``fp16`` or ``bf16``.
        keep: Names of nodes (`GraphIndex.names`) that stay FP32, such as a precision plan's; with them stays the data
            movement between them (`kept.with_movement`).

    Inner tensors keep their names and have the new type; model inputs, outputs and names that subgraphs capture keep
    FP32 under their old name. Nodes with subgraphs, and operators of other domains, stay FP32. Weights outside the
    format's range become its largest finite value or its smallest subnormal, as TensorRT does it.

    The newest definition of each operator decides what it may compute in (Convolution takes BF16 from opset 22 only):
    TensorRT's parser does not ask for the opset, other runtimes may refuse BF16 graphs of older ones.

    Returns:
        The model, and the names of the nodes that compute in ``fmt``.

    Raises:
        UsageError: ``fmt`` is no such format.
    """
    if fmt not in _TYPES:
        raise UsageError(f"{fmt}: graphs can be typed as {' or '.join(_TYPES)}.")
    typing = _Typing(model.index, fmt, with_movement(model.index, keep))
    return Rewrite(model.derive(typing.run()), nodes=frozenset(typing.typed))


def schema_of(node: onnx.NodeProto) -> onnx.defs.OpSchema | None:
    """The newest definition of a node's operator; None for other domains. Q/DQ as of opset 21: from 23 on the type of
    their output is an attribute's and no longer the scale's."""
    if not is_standard(node):
        return None
    newest = 21 if node.op_type in ("QuantizeLinear", "DequantizeLinear") else onnx.defs.onnx_opset_version()
    try:
        return onnx.defs.get_schema(node.op_type, newest)
    except onnx.defs.SchemaError:
        return None


def narrow_type_strings(node: onnx.NodeProto, fmt: str) -> frozenset[str]:
    """The type parameters (``T``, ``T1``) of a node's operator that may be ``fmt``; empty if it must stay FP32."""
    schema = schema_of(node)
    if schema is None or any(True for _ in subgraphs(node)):
        return frozenset()
    return frozenset(c.type_param_str for c in schema.type_constraints if _SCHEMA_NAME[fmt] in c.allowed_type_strs)


def _formal(schema: onnx.defs.OpSchema, position: int, outputs: bool) -> str:
    """Type parameter of an actual input or output; those past the last formal one belong to the variadic last."""
    formals = schema.outputs if outputs else schema.inputs
    if not formals:
        return ""
    formal = formals[min(position, len(formals) - 1)]
    return str(formal.type_str)


class _Typing:
    """One rewriting. ``held`` tells in which element type each float tensor is."""

    def __init__(self, index: GraphIndex, fmt: str, keep: frozenset[str]) -> None:
        self.index, self.fmt, self.keep = index, fmt, keep
        self.type = _TYPES[fmt]
        self.writer = GraphWriter(Names.of(index.graph, also=index.names), index.opset.get("", 1))
        self.held = {name: TensorProto.FLOAT for name, spec in index.specs.items() if spec.dtype == np.float32}
        self.casts: dict[tuple[str, int], str] = {}
        self.frozen = {*index.outputs, *(n for node in index.nodes for body in subgraphs(node) for n in captured(body))}
        self.typed: set[str] = set()

    def run(self) -> onnx.ModelProto:
        index, proto = self.index, onnx.ModelProto()
        proto.CopyFrom(index.proto)
        for name, node in zip(index.names, index.nodes, strict=True):
            self._node(name, node)
        del proto.graph.node[:]
        proto.graph.node.extend(self.writer.nodes)
        del proto.graph.value_info[:]  # types changed; runtimes infer them anew
        used = {n for node in proto.graph.node for n in node.input} | self.frozen
        kept = [t for t in proto.graph.initializer if t.name in used]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend([*kept, *self.writer.initializers])
        return proto

    def _node(self, name: str, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = name
        schema = schema_of(node)
        narrow = frozenset() if name in self.keep else narrow_type_strings(node, self.fmt)
        tied: set[str] = set()
        for i, tensor in enumerate(node.input):
            if tensor in self.held:
                parameter = "" if schema is None else _formal(schema, i, outputs=False)
                if parameter in narrow:
                    tied.add(parameter)
                copy.input[i] = self._as(tensor, self.type if parameter in narrow else TensorProto.FLOAT)
        if tied:
            self.typed.add(name)
        self.writer.nodes.append(copy)
        for i, tensor in enumerate(node.output):
            if tensor not in self.held:
                continue
            if schema is None or _formal(schema, i, outputs=True) not in tied:
                self.held[tensor] = TensorProto.FLOAT
            elif tensor in self.frozen:  # keeps its type under its name
                inner = copy.output[i] = self.writer.names.fresh(f"{tensor}_{self.fmt}")
                self.held[inner] = self.type
                self.casts[tensor, self.type] = inner
                self.writer.cast(inner, TensorProto.FLOAT, tensor)
            else:
                self.held[tensor] = self.type

    def _as(self, tensor: str, elem_type: int) -> str:
        """Name of ``tensor`` in ``elem_type``: itself, an earlier Cast's, a narrow weight, or a new Cast's."""
        if self.held[tensor] == elem_type:
            return tensor
        if (tensor, elem_type) in self.casts:
            return self.casts[tensor, elem_type]
        name = self.writer.names.fresh(f"{tensor}_{self.fmt if elem_type == self.type else 'fp32'}")
        weight = self.index.weight(tensor) if tensor in self.index.initializers else None
        if weight is not None:
            self.writer.initializers.append(narrow_weight(weight, self.fmt, name))
        else:
            self.writer.cast(tensor, elem_type, name)
        self.held[name] = elem_type
        self.casts[tensor, elem_type] = name
        return name


def narrow_weight(weight: np.ndarray, fmt: str, name: str) -> onnx.TensorProto:
    """``weight`` in ``fmt``, rounded as TensorRT rounds weights (see `round_array`)."""
    import ml_dtypes

    rounded = round_array(weight, fmt, weights=True)
    if fmt == "fp16":
        return numpy_helper.from_array(rounded.astype(np.float16), name)
    stored = rounded.astype(ml_dtypes.bfloat16)
    return helper.make_tensor(name, TensorProto.BFLOAT16, weight.shape, stored.tobytes(), raw=True)
