"""Other ways to write a network, as exporters and optimizers have them: each computes the same, up to rounding."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable

import numpy as np
import onnx
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.nodes import attribute
from onnx import TensorProto, helper, numpy_helper

from support import networks

Proto = onnx.ModelProto


def with_nodes(proto: Proto, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray] | None = None) -> Proto:
    """A copy with other nodes and more (or other) weights."""
    result = Proto()
    result.CopyFrom(proto)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    del result.graph.value_info[:]
    table = {t.name: t for t in result.graph.initializer}
    for name, value in (weights or {}).items():
        if name in table:
            table[name].CopyFrom(numpy_helper.from_array(value, name))
        else:
            result.graph.initializer.append(numpy_helper.from_array(value, name))
    return result


def weights_of(proto: Proto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def renamed(proto: Proto) -> Proto:
    """Every inner tensor and weight gets a number, in no order; nodes lose their names."""
    result = with_nodes(proto, [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node])
    keep = {i.name for i in proto.graph.input} | {o.name for o in proto.graph.output}
    names = [o for n in proto.graph.node for o in n.output if o] + [t.name for t in proto.graph.initializer]
    numbers = [str(i) for i in range(len(names))]
    random.Random(1).shuffle(numbers)
    table = {name: name if name in keep else number for name, number in zip(names, numbers, strict=True)}

    def rename(graph: onnx.GraphProto, table: dict[str, str]) -> None:
        for node in graph.node:
            node.input[:] = [table.get(i, i) for i in node.input]
            node.output[:] = [table.get(o, o) for o in node.output]
            node.name = ""
            for a in node.attribute:
                if a.type == onnx.AttributeProto.GRAPH:
                    rename(a.g, table)

    rename(result.graph, table)
    for tensor in result.graph.initializer:
        tensor.name = table[tensor.name]
    return result


def reordered(proto: Proto) -> Proto:
    """The nodes in another order in which they can run."""
    index, shuffle = GraphIndex(proto), random.Random(2)
    left, done, order = set(range(len(index.nodes))), set(), []
    while left:
        ready = [p for p in sorted(left) if all(index.producer.get(r, -1) in done | {-1} for r in index.reads[p])]
        order.append(shuffle.choice(ready))
        done.add(order[-1])
        left.discard(order[-1])
    return with_nodes(proto, [index.nodes[p] for p in order])


def folded(proto: Proto) -> Proto:
    """BatchNormalization multiplied into the convolution before it."""
    index, weights, nodes, more = GraphIndex(proto), weights_of(proto), [], {}
    for node in proto.graph.node:
        before = index.nodes[index.producer[node.input[0]]] if node.op_type == "BatchNormalization" else None
        if before is not None and before.op_type == "Conv" and len(index.consumers[node.input[0]]) == 1:
            conv = nodes.pop(next(i for i, n in enumerate(nodes) if n.output[0] == node.input[0]))
            scale, shift, mean, var = (weights[i] for i in node.input[1:])
            factor = scale / np.sqrt(var + np.float32(attribute(node, "epsilon", 1e-5)))
            more[conv.input[1]] = weights[conv.input[1]] * factor[:, None, None, None]
            more[f"{conv.input[1]}.bias"] = (0 - mean) * factor + shift
            fresh = helper.make_node("Conv", [*conv.input[:2], f"{conv.input[1]}.bias"], node.output)
            fresh.attribute.extend(conv.attribute)
            nodes.append(fresh)
        else:
            nodes.append(node)
    return with_nodes(proto, nodes, more)


def rescaled(proto: Proto) -> Proto:
    """BatchNormalization written as Mul and Add."""
    weights, nodes, more = weights_of(proto), [], {}
    for node in proto.graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        scale, shift, mean, var = (weights[i] for i in node.input[1:])
        factor = scale / np.sqrt(var + np.float32(attribute(node, "epsilon", 1e-5)))
        name = node.output[0]
        more[f"{name}.f"], more[f"{name}.s"] = factor[:, None, None], (shift - mean * factor)[:, None, None]
        nodes.append(helper.make_node("Mul", [node.input[0], f"{name}.f"], [f"{name}.x"]))
        nodes.append(helper.make_node("Add", [f"{name}.x", f"{name}.s"], [name]))
    return with_nodes(proto, nodes, more)


def optimized(proto: Proto, level: str = "BASIC") -> Proto:
    """What ONNX Runtime makes of it: its own folding, at level ``EXTENDED`` its own operators, and at ``ALL`` its own
    layouts, where the processor has one."""
    with tempfile.TemporaryDirectory() as folder:
        options = networks.ort.SessionOptions()
        options.graph_optimization_level = getattr(networks.ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        options.optimized_model_filepath = f"{folder}/m.onnx"
        options.log_severity_level = 4
        networks.ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(f"{folder}/m.onnx")


def upgraded(proto: Proto) -> Proto:
    """Opset 18: the axes of reductions become inputs."""
    return onnx.version_converter.convert_version(proto, 18)


def half(proto: Proto) -> Proto:
    """Stored and computed in float16, with casts at the borders."""
    ends = {
        v.name for v in (*proto.graph.input, *proto.graph.output) if v.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    nodes = [helper.make_node("Cast", [i.name], [f"{i.name}.h"], to=10) for i in proto.graph.input if i.name in ends]
    for node in proto.graph.node:
        node = onnx.NodeProto.FromString(node.SerializeToString())
        node.input[:] = [f"{i}.h" if i in ends else i for i in node.input]
        node.output[:] = [f"{o}.h" if o in ends else o for o in node.output]
        for a in node.attribute:
            if node.op_type == "Cast" and a.i == TensorProto.FLOAT:
                a.i = TensorProto.FLOAT16
        nodes.append(node)
    nodes += [helper.make_node("Cast", [f"{o.name}.h"], [o.name], to=1) for o in proto.graph.output if o.name in ends]
    weights = {n: v.astype(np.float16) for n, v in weights_of(proto).items() if v.dtype == np.float32}
    return with_nodes(proto, nodes, weights)


def between(proto: Proto, make: Callable[[str, str, tuple], list[onnx.NodeProto]]) -> Proto:
    """``make(input, output, shape)`` after every third node with a float output."""
    index, nodes, table = GraphIndex(proto), [], {}
    for p, node in enumerate(index.nodes):
        node = onnx.NodeProto.FromString(node.SerializeToString())
        node.input[:] = [table.get(i, i) for i in node.input]
        nodes.append(node)
        name = node.output[0]
        spec = index.specs.get(name)
        if p % 3 == 0 and spec and spec.dtype == np.float32 and spec.shape and name not in index.outputs:
            nodes.extend(make(name, f"{name}.copy", spec.shape))
            table[name] = f"{name}.copy"
    return with_nodes(proto, nodes)


def with_identities(proto: Proto) -> Proto:
    return between(proto, lambda a, b, _: [helper.make_node("Identity", [a], [b])])


def with_casts(proto: Proto) -> Proto:
    return between(
        proto,
        lambda a, b, _: [
            helper.make_node("Cast", [a], [f"{b}.w"], to=11),
            helper.make_node("Cast", [f"{b}.w"], [b], to=1),
        ],
    )


def with_transposes(proto: Proto) -> Proto:
    """To channels-last and back, as converters between frameworks do."""

    def make(a: str, b: str, shape: tuple) -> list[onnx.NodeProto]:
        there = [0, *range(2, len(shape)), 1][: len(shape)]
        back = [there.index(i) for i in range(len(shape))]
        return [
            helper.make_node("Transpose", [a], [f"{b}.t"], perm=there),
            helper.make_node("Transpose", [f"{b}.t"], [b], perm=back),
        ]

    return between(proto, make)


def split_gemm(proto: Proto) -> Proto:
    """Gemm as MatMul and Add."""
    weights, nodes, more = weights_of(proto), [], {}
    for node in proto.graph.node:
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        name = node.output[0]
        more[f"{name}.wt"] = np.ascontiguousarray(weights[node.input[1]].T)
        nodes.append(helper.make_node("MatMul", [node.input[0], f"{name}.wt"], [f"{name}.m"]))
        nodes.append(helper.make_node("Add", [f"{name}.m", node.input[2]], [name]))
    return with_nodes(proto, nodes, more)


def chunked(proto: Proto) -> Proto:
    """Every second product of weights as two products of halves, added."""
    weights, nodes, more, count = weights_of(proto), [], {}, 0
    for node in proto.graph.node:
        count += node.op_type == "MatMul" and node.input[-1] in weights
        if node.op_type != "MatMul" or node.input[-1] not in weights or count % 2:
            nodes.append(node)
            continue
        name, w = node.output[0], weights[node.input[1]]
        middle = len(w) // 2
        more[f"{name}.axis"] = np.array([-1])
        for i, (low, high) in enumerate([(0, middle), (middle, len(w))]):
            more[f"{name}.w{i}"], more[f"{name}.l{i}"], more[f"{name}.h{i}"] = (
                w[low:high],
                np.array([low]),
                np.array([high]),
            )
            ends = [f"{name}.l{i}", f"{name}.h{i}", f"{name}.axis"]
            nodes.append(helper.make_node("Slice", [node.input[0], *ends], [f"{name}.x{i}"]))
            nodes.append(helper.make_node("MatMul", [f"{name}.x{i}", f"{name}.w{i}"], [f"{name}.m{i}"]))
        nodes.append(helper.make_node("Add", [f"{name}.m0", f"{name}.m1"], [name]))
    return with_nodes(proto, nodes, more)


def fused_norms(proto: Proto) -> Proto:
    """Normalizations in pieces as LayerNormalization of opset 17."""
    nodes = []
    for node in upgraded(proto).graph.node:
        name = node.output[0]
        stem = name.rsplit(".", 1)[0]
        if "norm" in name and name.endswith(
            (".mean", ".centred", ".square", ".variance", ".shifted", ".root", ".unit")
        ):
            if name.endswith(".mean"):
                start = node.input[0]
            continue
        if name.endswith(".scaled"):
            nodes.append(
                helper.make_node("LayerNormalization", [start, f"{stem}.gamma", f"{stem}.beta"], [stem], axis=-1)
            )
        elif not (node.op_type == "Add" and f"{name}.scaled" in node.input):
            nodes.append(node)
    return with_nodes(upgraded(proto), nodes)


SAME = {
    "a copy": lambda p: with_nodes(p, list(p.graph.node)),
    "reordered": reordered,
    "folded": folded,
    "rescaled": rescaled,
    "optimized": optimized,
    "opset 18": upgraded,
    "identities": with_identities,
    "casts": with_casts,
    "transposes": with_transposes,
    "gemm split": split_gemm,
    "float16": half,
    "chunked products": chunked,
    "fused normalizations": fused_norms,
}
"""Transformations that leave the function as it is, up to rounding."""
