"""Types of tensors that operators from outside ONNX make, which ONNX's shape inference does not know.

ONNX Runtime writes its own operators (FusedConv, Gelu, SkipLayerNormalization, convolutions of a blocked layout) into
the models that it saves after optimizing them. Where such an operator shapes its output as one of ONNX's does, that one
stands in for it while shapes are inferred, so that inference goes on behind it. Of what its others make, and what is
made of that, the element type alone is told: that of a float operand, or what the operator's schema says. Of operators
of unknown domains nothing is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from .operators import CONTRIB_DOMAIN, SHAPED_LIKE_FIRST, STANDARD_DOMAINS, domain_of, is_standard, operator
from .specs import TensorSpec, dtype_from_onnx, is_float

_BLOCKED = "com.microsoft.nchwc"
_AS = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
"""Operators that shape their output as one of ONNX's does, which takes their first three inputs."""


_TYPED_BY = {"QLinearConcat": 1, "QLinearConv": 7, "QLinearWhere": 1, "QGemm": 8}
"""Operators of scaled integers whose output has the type of another input than the first, mostly of a zero point."""
_INTEGERS_BESIDE = {
    "EmbedLayerNormalization": 1, "QEmbedLayerNormalization": 1, "BeamSearch": 0, "GreedySearch": 0, "Sampling": 0,
    "MatMulInteger16": 0, "MulInteger": 0, "ReduceSumInteger": 0,
}  # fmt: skip
"""Operators of which one output is of 32-bit integers, whatever they are given, and which one it is."""

_SETTINGS: Mapping[str, Mapping[str, int | float]] = {
    "Attention": {"num_heads": 0, "unidirectional": 0, "do_rotary": 0, "scale": 0.0, "mask_filter_value": -1e4},
    "MultiHeadAttention": {"num_heads": 0, "unidirectional": 0, "scale": 0.0, "mask_filter_value": -1e4},
    "GroupQueryAttention": {
        "num_heads": 0, "kv_num_heads": 0, "do_rotary": 0, "rotary_interleaved": 0, "smooth_softmax": 0, "scale": 0.0,
        "softcap": 0.0,
    },
    "RotaryEmbedding": {"interleaved": 0, "num_heads": 0, "rotary_embedding_dim": 0, "scale": 1.0},
    "QuickGelu": {"alpha": 1.702},
    "GroupNorm": {"groups": 0, "activation": 0, "epsilon": 1e-5},
}  # fmt: skip
"""Settings of ONNX Runtime's own operators, and what they are where a node does not give them: 0 where that follows
from others."""

_GELUS = {1: ("Gelu", "FastGelu", "QuickGelu"), 2: ("BiasGelu", "FastGelu")}
"""Ways to compute about the same, by how many inputs they have."""
_STORED = {name.lower(): value for name, value in onnx.TensorProto.DataType.items()}


def is_custom(node: onnx.NodeProto) -> bool:
    """Whether ONNX does not define the operator. ONNX Runtime puts some of its own into ONNX's domain."""
    return not is_standard(node) or not onnx.defs.has(node.op_type)


def settings(node: onnx.NodeProto, version: int) -> dict[str, int | float]:
    """The settings of a node that are single numbers, those included that it does not give: what its operator has for
    them then, and 0 where that follows from something else.

    Args:
        node: The node.
        version: The opset of its domain.
    """
    found: dict[str, int | float] = {}
    if node.domain == CONTRIB_DOMAIN:
        found.update(_SETTINGS.get(node.op_type, {}))
    elif onnx.defs.has(node.op_type, version, domain_of(node)):
        for name, a in onnx.defs.get_schema(node.op_type, version, domain_of(node)).attributes.items():
            given = onnx.helper.get_attribute_value(a.default_value) if a.default_value.type else 0
            if a.type in (onnx.defs.OpSchema.AttrType.INT, onnx.defs.OpSchema.AttrType.FLOAT):
                found[name] = float(given) if a.type == onnx.defs.OpSchema.AttrType.FLOAT else int(given)
    for a in node.attribute:
        if a.type in (onnx.AttributeProto.INT, onnx.AttributeProto.FLOAT):
            found[a.name] = onnx.helper.get_attribute_value(a)
    return found


def others_like(node: onnx.NodeProto) -> tuple[str, ...]:
    """Operators of ONNX Runtime's own that compute about the same as a node, from the same inputs: a Gelu by the error
    function in place of one by the hyperbolic tangent.

    Args:
        node: The node.
    """
    alike = _GELUS.get(sum(map(bool, node.input)), ()) if node.domain == CONTRIB_DOMAIN else ()
    return tuple(op for op in alike if op != node.op_type) if node.op_type in alike else ()


def stand_in(graph: onnx.GraphProto) -> None:
    """Replaces operators from outside, in place, by such of ONNX's as shape their outputs alike."""
    if not any(is_custom(node) for node in graph.node):
        return
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
    del graph.node[:]
    for node in nodes:
        settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if not is_custom(node):
            pass
        elif node.domain == _BLOCKED:
            _unblock(graph, node, settings)
        elif node.domain not in (*STANDARD_DOMAINS, CONTRIB_DOMAIN):
            pass
        elif operator(node) in SHAPED_LIKE_FIRST:
            _become(node, "Identity", 1)
        elif node.op_type == "FusedMatMul":
            left, right = ("ji" if settings.get("transA") else "ij"), ("kj" if settings.get("transB") else "jk")
            # where the batch is transposed, its axes lie between the two of the matrix
            left, right = (
                f"{axes[0]}...{axes[1]}" if settings.get(name) else f"...{axes}"
                for axes, name in ((left, "transBatchA"), (right, "transBatchB"))
            )
            _become(node, "Einsum", 2)
            node.attribute.append(onnx.helper.make_attribute("equation", f"{left},{right}->...ik"))
        elif node.op_type in _AS:
            _become(node, _AS[node.op_type], 3)
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            kind = _made_by(node, types)
            _become(node, "Cast", 1)
            node.attribute.append(onnx.helper.make_attribute("to", kind))
        graph.node.append(node)


def _made_by(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """The element type that a quantizer makes, from that of its zero point or scale."""
    if node.op_type == "QuantizeLinear":
        return types.get(node.input[2], TensorProto.UINT8) if len(node.input) > 2 else TensorProto.UINT8
    return types.get(node.input[1], TensorProto.FLOAT)


def _unblock(graph: onnx.GraphProto, node: onnx.NodeProto, settings: Mapping[str, Any]) -> None:
    """Channels lie in blocks of a few, and their number is rounded up: that says nothing until they are put back."""
    data, output = node.input[0], node.output[0]
    last = bool(settings.get("channels_last"))
    if node.op_type == "ReorderInput":
        _become(node, "Transpose" if last else "Identity", 1)
        if last:
            node.attribute.append(onnx.helper.make_attribute("perm", [0, 3, 1, 2]))
    elif node.op_type == "ReorderOutput":
        cut = f"{output}/channels"
        for name, value in (("/first", 0), ("/count", settings["channels"]), ("/axis", 1)):
            graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), f"{cut}{name}"))
        graph.node.append(
            onnx.helper.make_node("Slice", [data, f"{cut}/first", f"{cut}/count", f"{cut}/axis"], [cut], name=cut)
        )
        _become(node, "Transpose" if last else "Identity", 1)
        node.input[0] = cut
        if last:
            node.attribute.append(onnx.helper.make_attribute("perm", [0, 2, 3, 1]))
    elif node.op_type == "Upsample":
        scales = f"{output}/scales"
        graph.initializer.append(numpy_helper.from_array(np.array(settings["scales"], np.float32), scales))
        _become(node, "Resize", 1)
        node.input.extend(["", scales])
    elif onnx.defs.has(node.op_type):  # Conv and pooling; the sum that a convolution adds is no input of ONNX's
        _become(node, node.op_type, 3)


def _become(node: onnx.NodeProto, op: str, inputs: int) -> None:
    known = set(onnx.defs.get_schema(op).attributes)
    kept = [a for a in node.attribute if a.name in known]
    node.op_type, node.domain = op, ""
    del node.input[inputs:]
    del node.output[1:]
    del node.attribute[:]
    node.attribute.extend(kept)


def element_types(
    nodes: Iterable[onnx.NodeProto], known: Mapping[str, TensorSpec], containers: Collection[str] = ()
) -> dict[str, TensorSpec]:
    """Element types of tensors that are not ``known``, as far as they follow from those of others.

    Args:
        nodes: The nodes of a graph, in order.
        known: Specs of its inputs, weights, and all that shape inference could tell.
        containers: What shape inference tells to be no tensor: sequences and optionals.

    Returns:
        Specs without a shape.
    """
    found: dict[str, TensorSpec] = {}
    for node in nodes:
        missing = [
            (i, name) for i, name in enumerate(node.output) if name and name not in known and name not in containers
        ]
        if not missing:
            continue
        dtypes = [s.dtype if (s := known.get(n, found.get(n))) is not None else None for n in node.input]
        for i, name in missing:
            dtype = _by_operand(node, i, dtypes) if is_custom(node) else _by_schema(node, i, dtypes)
            if dtype is not None:
                found[name] = TensorSpec(name, dtype, None)
    return found


def _by_operand(node: onnx.NodeProto, output: int, dtypes: list[np.dtype | None]) -> np.dtype | None:
    if node.domain not in (*STANDARD_DOMAINS, CONTRIB_DOMAIN, _BLOCKED):
        return None
    given, op = [d for d in dtypes if d is not None], node.op_type
    if op == "QuantizeLinear":
        return dtypes[2] if len(dtypes) > 2 and dtypes[2] is not None else np.dtype(np.uint8)
    if _INTEGERS_BESIDE.get(op) == output:
        return np.dtype(np.int32)
    slot = _TYPED_BY.get(op, 0)
    if op.startswith(("QLinear", "QOrdered")) or (slot < len(node.input) and node.input[slot] and op in _TYPED_BY):
        return dtypes[slot] if slot < len(dtypes) else None
    return next((d for d in given if is_float(d)), given[0] if given else None)


def _by_schema(node: onnx.NodeProto, output: int, dtypes: list[np.dtype | None]) -> np.dtype | None:
    schema = onnx.defs.get_schema(node.op_type)
    if not schema.outputs:
        return None
    wanted = schema.outputs[min(output, len(schema.outputs) - 1)].type_str
    allowed: Sequence[str] = next(
        (c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == wanted), []
    )
    if len(allowed) == 1:
        wanted = allowed[0]
    if wanted.startswith("tensor(") and wanted[7:-1] in _STORED:
        return dtype_from_onnx(_STORED[wanted[7:-1]])
    for i, dtype in enumerate(dtypes):
        if dtype is not None and schema.inputs[min(i, len(schema.inputs) - 1)].type_str == wanted:
            return dtype
    return None
