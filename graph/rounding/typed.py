"""Number formats written into the graph as types, for runtimes that take types as law (TensorRT 11, strongly typed 10).

Unlike `precision.rewrite`, which rounds values but computes in FP32, the graph made here *computes* in the narrow type:
weights are stored in it, Cast nodes stand where the type changes, and inputs and outputs of the model keep theirs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import UsageError
from ..index import GraphIndex, subgraphs
from ..model import Model

if TYPE_CHECKING:
    from ..specs import TensorSpec

_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_SCHEMA_NAME = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}


def typed(model: Model, fmt: str, keep: Collection[str] = ()) -> Model:
    """A copy of ``model`` whose FP32 nodes compute in ``fmt``, as far as ONNX lets their operators.

    Args:
        model: Any model.
        fmt: ``fp16`` or ``bf16``.
        keep: Names of nodes (`GraphIndex.names`) that stay FP32, such as a precision plan's.

    Inner tensors keep their names and have the new type; model inputs, outputs and names that subgraphs capture keep
    FP32 under their old name. Nodes with subgraphs, and operators of other domains, stay FP32. Weights outside the
    format's range become its largest finite value or its smallest subnormal, as TensorRT does it.

    The newest definition of each operator decides what it may compute in (Convolution takes BF16 from opset 22 only):
    TensorRT's parser does not ask for the opset, other runtimes may refuse BF16 graphs of older ones.

    Raises:
        UsageError: ``fmt`` is no such format.
    """
    if fmt not in _TYPES:
        raise UsageError(f"{fmt}: graphs can be typed as {' or '.join(_TYPES)}.")
    return model.derive(_Typing(model.index, fmt, frozenset(keep)).run())


def schema_of(node: onnx.NodeProto) -> onnx.defs.OpSchema | None:
    """The newest definition of a node's operator; None for other domains. Q/DQ as of opset 21: from 23 on the type of
    their output is an attribute's and no longer the scale's."""
    if node.domain not in ("", "ai.onnx"):
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
    """One rewriting. ``_form`` knows in which element type each float tensor is held."""

    def __init__(self, index: GraphIndex, fmt: str, keep: frozenset[str]) -> None:
        self.index, self.fmt, self.keep = index, fmt, keep
        self.type = _TYPES[fmt]
        self.graph = onnx.GraphProto()
        self.held: dict[str, int] = {}
        self.casts: dict[tuple[str, int], str] = {}
        self.taken = {n for node in index.nodes for n in (*node.input, *node.output)}
        inner = {n for node in index.nodes for body in subgraphs(node) for n in index_reads(body)}
        self.frozen = set(index.outputs) | inner

    def run(self) -> onnx.ModelProto:
        index, proto = self.index, onnx.ModelProto()
        proto.CopyFrom(index.proto)
        for name, spec in index.specs.items():
            if _is_fp32(spec):
                self.held[name] = TensorProto.FLOAT
        for name, node in zip(index.names, index.nodes, strict=True):
            self._node(name, node)
        del proto.graph.node[:]
        proto.graph.node.extend(self.graph.node)
        del proto.graph.value_info[:]  # types changed; runtimes infer them anew
        used = {n for node in proto.graph.node for n in node.input} | self.frozen
        kept = [t for t in proto.graph.initializer if t.name in used]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend([*kept, *self.graph.initializer])
        return proto

    def _node(self, name: str, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = name
        narrow = frozenset() if name in self.keep else narrow_type_strings(node, self.fmt)
        schema = schema_of(node)
        tied: set[str] = set()
        for i, tensor in enumerate(node.input):
            if tensor and self._is_float(tensor) and schema is not None:
                parameter = _formal(schema, i, outputs=False)
                if parameter in narrow:
                    copy.input[i] = self._as(tensor, self.type)
                    tied.add(parameter)
                    continue
            if tensor and self._is_float(tensor):
                copy.input[i] = self._as(tensor, TensorProto.FLOAT)
        made = []
        for i, tensor in enumerate(node.output):
            if not tensor or tensor not in self.index.specs or not self._is_float(tensor):
                continue
            follows = schema is not None and _formal(schema, i, outputs=True) in tied
            if not follows:
                self.held[tensor] = TensorProto.FLOAT
            elif tensor in self.frozen:
                copy.output[i] = self._fresh(f"{tensor}_{self.fmt}")
                self.held[copy.output[i]] = self.type
                self.casts[tensor, self.type] = copy.output[i]
                made.append((copy.output[i], tensor))
            else:
                self.held[tensor] = self.type
        self.graph.node.append(copy)
        for narrow_name, wide in made:
            self.graph.node.append(
                helper.make_node(
                    "Cast", [narrow_name], [wide], name=self._fresh(f"{wide}_to_fp32"), to=TensorProto.FLOAT
                )
            )
            self.held[wide] = TensorProto.FLOAT

    def _is_float(self, tensor: str) -> bool:
        return tensor in self.held

    def _as(self, tensor: str, elem_type: int) -> str:
        """Name of ``tensor`` in ``elem_type``: itself, an earlier Cast's, a narrow weight, or a new Cast's."""
        if self.held[tensor] == elem_type:
            return tensor
        if (tensor, elem_type) in self.casts:
            return self.casts[tensor, elem_type]
        weight = self.index.weight(tensor) if tensor in self.index.initializers else None
        name = self._fresh(f"{tensor}_{self.fmt if elem_type == self.type else 'fp32'}")
        if weight is not None:
            self.graph.initializer.append(narrow_weight(weight, self.fmt, name))
        else:
            cast_name = self._fresh(f"Cast_{name}")
            self.graph.node.append(helper.make_node("Cast", [tensor], [name], name=cast_name, to=elem_type))
        self.held[name] = elem_type
        self.casts[tensor, elem_type] = name
        return name

    def _fresh(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self.taken:
            candidate, count = f"{name}_{count}", count + 1
        self.taken.add(candidate)
        return candidate


def _is_fp32(spec: TensorSpec) -> bool:
    return bool(spec.dtype == np.float32)


def index_reads(body: onnx.GraphProto) -> list[str]:
    """Names that a subgraph reads from outside itself."""
    from ..index import captured

    return captured(body)


def narrow_weight(weight: np.ndarray, fmt: str, name: str) -> onnx.TensorProto:
    """``weight`` in ``fmt``, clamped to its largest finite value; too small values become the smallest subnormal."""
    from .. import formats

    limits = formats.FORMATS[fmt]
    wide = np.asarray(weight, np.float32)
    clamped = np.clip(wide, -limits.max, limits.max)  # NaN stays NaN
    infinite = np.isinf(wide)
    if infinite.any():
        clamped = np.where(infinite, wide, clamped)
    tiny = (wide != 0) & (np.abs(wide) < limits.smallest_subnormal)
    if tiny.any():
        clamped = np.where(tiny, np.copysign(np.float32(limits.smallest_subnormal), wide), clamped)
    if fmt == "fp16":
        return numpy_helper.from_array(clamped.astype(np.float16), name)
    import ml_dtypes

    stored = clamped.astype(ml_dtypes.bfloat16)
    return helper.make_tensor(name, TensorProto.BFLOAT16, weight.shape, stored.tobytes(), raw=True)
