"""Formats, quantized files and other forms of a network, in which nothing is wrong."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.faults.edit import Edit
from benchmarks.faults.rewrites import folded, opset_upgraded, renamed, saved_extended, saved_layout
from benchmarks.kit.bodies import graphs
from benchmarks.kit.runtime import run

from .case import Network, errors
from .graph import Graph, NotHere, attribute

Form = Callable[[Network], onnx.ModelProto]
SAME = 1e-3
"""Greatest relative L2 error that a form in FP32 may make: beyond, it is another network."""


def typed_fp16(net: Network) -> onnx.ModelProto:
    """A file typed FP16, inputs and outputs FP32 with a Cast"""
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    model = _copy(net)
    kept = {name for node in Graph(model).nodes(("Resize",)) for name in node.input[1:3]}
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type == single and tensor.name not in kept:
                tensor.CopyFrom(_half(tensor, tensor.name))
        for node in graph.node:
            for a in node.attribute:
                if a.type == onnx.AttributeProto.TENSOR and a.t.data_type == single and not kept & {*node.output}:
                    a.t.CopyFrom(_half(a.t, a.t.name))
                if node.op_type == "Cast" and a.name == "to" and a.i == single:
                    a.i = half
                if node.op_type == "Constant" and a.name in ("value_float", "value_floats"):
                    raise NotHere
        inner = [] if graph is model.graph else [*graph.input, *graph.output]
        for info in inner:
            if info.type.tensor_type.elem_type == single:
                info.type.tensor_type.elem_type = half
        del graph.value_info[:]
    _cast_borders(model)
    return model


def _half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.clip(numpy_helper.to_array(tensor), -65504, 65504).astype(np.float16), name)


def _cast_borders(model: onnx.ModelProto) -> None:
    main, single, half = model.graph, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    weights = {t.name for t in main.initializer}
    names, before, after = {}, [], []
    for info in main.input:
        if info.type.tensor_type.elem_type == single and info.name in weights:
            info.type.tensor_type.elem_type = half
        elif info.type.tensor_type.elem_type == single:
            names[info.name] = f"{info.name}_half"
            before.append(helper.make_node("Cast", [info.name], [names[info.name]], name=f"in/{info.name}", to=half))
    for info in main.output:
        if info.type.tensor_type.elem_type == single:
            names[info.name] = f"{info.name}_half"
            after.append(helper.make_node("Cast", [names[info.name]], [info.name], name=f"out/{info.name}", to=single))
    for graph in graphs(model.graph):
        for node in graph.node:
            node.input[:] = [names.get(i, i) for i in node.input]
            node.output[:] = [names.get(o, o) for o in node.output]
    _set_nodes(main, [*before, *main.node, *after])


def ort_static(net: Network) -> onnx.ModelProto:
    """onnxruntime's quantize_static, QDQ"""
    from onnxruntime import quantization

    class Feeds(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(net.feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    return _quantized(net, lambda source, target: quantization.quantize_static(source, target, Feeds()))


def ort_dynamic(net: Network) -> onnx.ModelProto:
    """onnxruntime's quantize_dynamic"""
    from onnxruntime import quantization

    return _quantized(net, quantization.quantize_dynamic)


def _quantized(net: Network, quantize: Callable[[str, str], None]) -> onnx.ModelProto:
    if any(n.op_type in ("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger") for n in net.proto.graph.node):
        raise NotHere
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder) / "source.onnx"), str(Path(folder) / "target.onnx")
        onnx.save(net.proto, source)
        quantize(source, target)
        return onnx.load(target)


def _shared(rewrite: Callable[[Edit, np.random.Generator], Edit | None]) -> Form:
    """A form that benchmarks/faults makes too."""

    def form(net: Network) -> onnx.ModelProto:
        edit = rewrite(Edit(net.proto), np.random.default_rng(len(net.name)))
        if edit is None:
            raise NotHere
        return edit.proto

    form.__doc__ = (rewrite.__doc__ or "").rstrip(".")
    return form


def identities(net: Network) -> onnx.ModelProto:
    """An Identity behind every third tensor"""
    model = _copy(net)
    rng = np.random.default_rng(3)
    kept = {o.name for o in model.graph.output}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        output = next(iter(node.output), "")
        if output and output not in kept and node.op_type not in ("If", "Constant") and rng.random() < 0.3:
            node.output[0] = f"{output}_before"
            nodes.append(helper.make_node("Identity", [node.output[0]], [output], name=f"{node.name}/Identity"))
    _set_nodes(model.graph, nodes)
    return model


def bias_apart(net: Network) -> onnx.ModelProto:
    """Biases of convolutions added by an Add"""
    model = _copy(net)
    nodes: list[onnx.NodeProto] = []
    graph = Graph(model)
    for node in model.graph.node:
        nodes.append(node)
        bias = graph.weight(node.input[2]) if node.op_type == "Conv" and len(node.input) > 2 else None
        weight = graph.weight(node.input[1]) if bias is not None else None
        if bias is None or weight is None:
            continue
        output = node.output[0]
        shaped = bias.reshape(-1, *[1] * (weight.ndim - 2))[None]
        model.graph.initializer.append(numpy_helper.from_array(shaped, f"{output}_bias"))
        del node.input[2:]
        node.output[0] = f"{output}_product"
        nodes.append(helper.make_node("Add", [node.output[0], f"{output}_bias"], [output], name=f"{node.name}/Add"))
    return _changed(model, nodes)


def activations_spelled_out(net: Network) -> onnx.ModelProto:
    """Relu as Max, Sigmoid by its formula"""
    model = _copy(net)
    nodes: list[onnx.NodeProto] = []
    for name, value in (("zero_of_max", 0.0), ("one_of_sigmoid", 1.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    for node in model.graph.node:
        output, at = next(iter(node.output), ""), node.name
        if node.op_type == "Relu":
            nodes.append(helper.make_node("Max", [node.input[0], "zero_of_max"], [output], name=f"{at}/Max"))
        elif node.op_type == "Sigmoid":
            chain = (("Neg", [node.input[0]]), ("Exp", [f"{output}/Neg"]), ("Add", [f"{output}/Exp", "one_of_sigmoid"]))
            nodes += [helper.make_node(op, given, [f"{output}/{op}"], name=f"{at}/{op}") for op, given in chain]
            nodes.append(helper.make_node("Reciprocal", [f"{output}/Add"], [output], name=f"{at}/Reciprocal"))
        else:
            nodes.append(node)
    return _changed(model, nodes)


def channels_equalized(net: Network) -> onnx.ModelProto:
    """Channels between two convolutions scaled, and scaled back"""
    model = _copy(net)
    graph = Graph(model)
    count = 0
    for first in graph.nodes(("Conv",)):
        second = _behind_relu(graph, first)
        if second is None or len(first.input) < 3:
            continue
        names = (first.input[1], first.input[2], second.input[1])
        weight, bias, behind = map(graph.weight, names)
        if weight is None or bias is None or behind is None or any(len(graph.readers(name)) > 1 for name in names):
            continue
        scale = np.exp(np.random.default_rng(count).normal(size=len(weight))).astype(np.float32)
        graph.set_weight(names[0], weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
        graph.set_weight(names[1], bias * scale)
        graph.set_weight(names[2], behind / scale.reshape(-1, *[1] * (behind.ndim - 2)))
        count += 1
    if not count:
        raise NotHere
    return model


def _behind_relu(graph: Graph, conv: onnx.NodeProto) -> onnx.NodeProto | None:
    """The convolution that alone reads a convolution's rectified output."""
    readers = graph.readers(conv.output[0])
    if [n.op_type for n in readers] != ["Relu"]:
        return None
    readers = graph.readers(readers[0].output[0])
    whole = [n for n in readers if n.op_type == "Conv" and attribute(n, "group", 1) == 1]
    return whole[0] if len(whole) == len(readers) == 1 else None


def _copy(net: Network) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(net.proto)
    return model


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)


def _changed(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    if len(nodes) == len(model.graph.node) and all(a is b for a, b in zip(nodes, model.graph.node, strict=True)):
        raise NotHere
    _set_nodes(model.graph, nodes)
    return model


FORMATS = {"fp16": "Emulated FP16", "bf16": "Emulated BF16", "tf32": "Emulated TF32", "int8": "Emulated INT8"}
OPTIMIZATIONS = {"optimization": "ONNX Runtime without optimizations"}
NARROW: dict[str, Form] = {"typed_fp16": typed_fp16, "ort_static": ort_static, "ort_dynamic": ort_dynamic}
"""Files of other numbers."""
SINGLE: dict[str, Form] = {
    "bn_folded": _shared(folded),
    "renamed": _shared(renamed),
    "opset_upgraded": _shared(opset_upgraded),
    "saved_extended": _shared(saved_extended),
    "saved_layout": _shared(saved_layout),
    "identities": identities,
    "bias_apart": bias_apart,
    "activations_spelled_out": activations_spelled_out,
    "channels_equalized": channels_equalized,
}
"""Files that compute the same in FP32."""
FORMS = NARROW | SINGLE
TITLES = FORMATS | {name: (form.__doc__ or "").strip() for name, form in FORMS.items()} | OPTIMIZATIONS
QUANTIZED = frozenset({"int8", "ort_static", "ort_dynamic"})
"""Where INT8 is too coarse for a network, the layer that makes most of the error is named with the cause
``quantization``, which says what to leave in float and is no accusation."""


def make(net: Network, form: str) -> onnx.ModelProto | None:
    """A network in another form; None where it has no such form."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = FORMS[form](net)
        outputs = run(model, net.feeds, optimize=True)
    except Exception:  # the tool that makes the form refuses the network, or ONNX Runtime what became of it
        return None
    if form in SINGLE and any(error > SAME for error in errors(net.plain, outputs).values()):
        return None
    return model
