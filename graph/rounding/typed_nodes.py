"""Nodes whose tensors the graph types FP16 or BF16: the types are law, and every result rounds to its own.

A runtime may compute such a node in a wider format and carry the wide value past the tensor (ONNX Runtime's CPU does,
also past one that is infinite). Here the node is computed in FP32, as kernels that accumulate in FP32 do it, and each
tensor holds what its type holds: FP16 overflows to infinity beyond 65504, and underflows to zero.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from ..operators import CASTS, CONTRIB_DOMAIN, QUANTIZERS, REARRANGING, RECURRENT, is_standard, operator
from ..specs import dtype_to_onnx
from .decomposed import write_decomposed
from .recurrent import write_recurrent
from .scope import Scope


def is_typed(scope: Scope, node: onnx.NodeProto) -> bool:
    """Whether a node reads or gives a tensor that the graph types FP16 or BF16."""
    return any(scope.stored(name) is not None for name in (*node.input, *node.output))


def write_typed(scope: Scope, node: onnx.NodeProto) -> None:
    """Writes a node of FP32 operands whose results round to the formats that the graph's types name.

    Args:
        scope: Where it stands.
        node: The node, without bodies; its attributes name FP32 where the graph's name FP16 or BF16.
    """
    if operator(node) in REARRANGING and len({scope.stored(n) for n in (node.input[0], *node.output) if n}) == 1:
        scope.writer.nodes.append(node)  # what it gives is rounded as what it gets
        return
    number = next(filter(None, map(scope.stored, (*node.output, *node.input))), None)
    assert number is not None
    if not is_standard(node) and node.domain != CONTRIB_DOMAIN:
        _write_narrow(scope, node)
        return
    law = scope.typed(number, node.output[0])
    if operator(node) in RECURRENT and write_recurrent(law, node):
        return
    if scope.target.decomposed and write_decomposed(law, node):
        return
    given = list(node.output)
    formats = [scope.stored(name) for name in given]
    node.output[:] = [_raw(scope, n) if f is not None else n for n, f in zip(given, formats, strict=True)]
    made = list(node.output)
    scope.writer.nodes.append(node)
    for raw, name, stored in zip(made, given, formats, strict=True):
        if stored is not None:
            scope.typed(stored, name).round(raw, name, guard=scope.guarded(name))
        elif name and name not in scope.index.specs:
            scope.findings.leave("the type is not known, not rounded", name)
    if operator(node) in CASTS | QUANTIZERS and scope.stored(node.input[0]) is scope.target.number:
        scope.exact.update(name for name in given if scope.is_float32(name))


def _raw(scope: Scope, name: str) -> str:
    return scope.writer.names.fresh(f"{name}__fp32")


def _write_narrow(scope: Scope, node: onnx.NodeProto) -> None:
    """Writes a custom operator, whose kernel may know no other types than those of the graph."""
    write = scope.writer
    for i, name in enumerate(node.input):
        if scope.stored(name) is not None:
            node.input[i] = write.cast(name, _element_type(scope, name))
    narrow = {i: name for i, name in enumerate(node.output) if scope.stored(name) is not None}
    for i, name in narrow.items():
        node.output[i] = write.names.fresh(f"{name}__narrow")
    made = list(node.output)
    write.nodes.append(node)
    for i, name in narrow.items():
        write.cast(made[i], TensorProto.FLOAT, name)


def _element_type(scope: Scope, name: str) -> int:
    spec = scope.spec(name)
    assert spec is not None
    return dtype_to_onnx(spec.dtype)
