"""Models in a few words, data for them, and what a runner makes of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
from layerdiff import Model, Runner
from onnx import TensorProto, helper, numpy_helper

Info = tuple[str, int, Sequence[Any] | None]
"""Name, element type and shape of an input or output."""


def parsed(text: str, *, opset: int = 17, domains: Iterable[str] = (), **weights: Any) -> onnx.ModelProto:
    """ONNX's textual form, ``g (float[N] x) => (float[N] y) { y = Add(x, w) }``, with weights by name.

    The versions are such that every supported runtime reads them.
    """
    opsets = ", ".join(f'"{domain}": {version}' for domain, version in {"": opset, **dict.fromkeys(domains, 1)}.items())
    proto = onnx.parser.parse_model(f"<ir_version: 9, opset_import: [{opsets}]>\n{text}")
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    return proto


def without_output_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, whose outputs have the shape that they come in."""
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return proto


def of_nodes(
    nodes: str, inputs: str, *, opset: int = 17, domains: Iterable[str] = (), ir: int = 9, **weights: Any
) -> onnx.ModelProto:
    """A model without a word on its outputs, which are those of the last node, one node a line.

    ``of_nodes("y = Gather(table, ids)", "ids int64 N,S; k int64", table=...)``; a dimension ``?`` has no name.
    """
    infos = []
    for text in inputs.split(";"):
        name, kind, *dims = text.split()
        shape = [int(d) if d.isdigit() else None if d == "?" else d for d in dims[0].split(",")] if dims else []
        infos.append(helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind.upper()), shape))
    lines = [onnx.parser.parse_node(line.strip()) for line in nodes.strip().splitlines()]
    outputs = [onnx.ValueInfoProto(name=name) for name in lines[-1].output]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(lines, "g", infos, outputs, tensors)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def assembled(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Info],
    outputs: Sequence[Info],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    domains: Iterable[str] = (),
    ir: int = 8,
) -> onnx.ModelProto:
    """A model of nodes that are made already."""
    infos = [[helper.make_tensor_value_info(*info) for info in some] for some in (inputs, outputs)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(nodes, "g", *infos, tensors)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Normally distributed float32."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def infer(
    runner: Runner, model: Model, feed: Mapping[str, np.ndarray], fetch: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """What a runner makes of one feed: the outputs, or what is fetched."""
    with runner.open(model, fetch=fetch) as session:
        return dict(session.infer(feed, list(fetch) or None))
