"""Other forms of one network, in which nothing is wrong: what exporters, optimizers and quantizers make of a file."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from layerdiff.graph.model import Model
from layerdiff.graph.nodes import attribute
from layerdiff.graph.rounding.qdq import activations, quantize
from onnx import numpy_helper

from benchmarks.kit.networks import network
from benchmarks.kit.runtime import observe

from .case import SEED
from .edit import Edit

Rewrite = Callable[[Edit, np.random.Generator], "Edit | None"]


def folded(edit: Edit, rng: np.random.Generator) -> Edit | None:
    """BatchNormalization folded into the convolution before it."""
    count = 0
    for bn in [n for n in edit.graph.node if n.op_type == "BatchNormalization"]:
        conv = edit.maker(bn.input[0])
        if conv is None or conv.op_type != "Conv" or edit.only_reader(bn.input[0]) is None:
            continue
        gamma, beta, mean, variance = (edit.weight(i).astype(np.float64) for i in bn.input[1:])
        factor = gamma / np.sqrt(variance + float(attribute(bn, "epsilon", 1e-5)))
        weight = edit.weight(conv.input[1])
        edit.set_weight(conv, 1, (weight * factor[:, None, None, None]).astype(np.float32))
        old = edit.weight(conv.input[2]) if len(conv.input) > 2 else 0.0
        bias = ((old - mean) * factor + beta).astype(np.float32)
        name = edit.add_weight(f"{conv.input[1].removesuffix('.weight')}.folded_bias", bias)
        del conv.input[2:]
        conv.input.append(name)
        output = bn.output[0]
        edit.graph.node.remove(bn)
        conv.output[0] = output  # the name stays and means what it meant: the tensor before it is gone
        count += 1
    edit.prune()
    return edit if count else None


def renamed(edit: Edit, rng: np.random.Generator) -> Edit:
    """Every node, weight and inner tensor renamed, nodes in another topological order."""
    kept = {i.name for i in edit.graph.input} | {o.name for o in edit.graph.output} | {""}
    names: dict[str, str] = {}

    def new(name: str) -> str:
        if name in kept:
            return name
        return names.setdefault(name, f"t{len(names)}")

    for number, node in enumerate(edit.graph.node):
        node.name = f"n{number}"
        node.input[:] = [new(i) for i in node.input]
        node.output[:] = [new(o) for o in node.output]
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                _rename_body(a.g, f"b{number}")
    for tensor in edit.graph.initializer:
        tensor.name = new(tensor.name)
    del edit.graph.value_info[:]
    ready = {i.name for i in edit.graph.input} | {t.name for t in edit.graph.initializer} | {""}
    waiting, order = list(edit.graph.node), []
    while waiting:
        able = [i for i, n in enumerate(waiting) if all(name in ready for name in n.input)]
        node = waiting.pop(int(rng.choice(able)))
        order.append(node)
        ready.update(node.output)
    order = [onnx.NodeProto.FromString(n.SerializeToString()) for n in order]
    del edit.graph.node[:]
    edit.graph.node.extend(order)
    return edit


def _rename_body(body: onnx.GraphProto, prefix: str) -> None:
    """Everything in a body that captures nothing renamed, its inputs and outputs too."""
    names = {"": ""}

    def new(name: str) -> str:
        return names.setdefault(name, f"{prefix}_t{len(names)}")

    for number, node in enumerate(body.node):
        node.name = f"{prefix}_n{number}"
        node.input[:] = [new(i) for i in node.input]
        node.output[:] = [new(o) for o in node.output]
    for item in (*body.input, *body.output, *body.initializer):
        item.name = new(item.name)


def constants_folded(edit: Edit, rng: np.random.Generator) -> Edit | None:
    """Constant nodes made initializers, and what depends on constants alone computed."""
    from onnx.reference import ReferenceEvaluator

    known = {t.name for t in edit.graph.initializer}
    count = 0
    for node in list(edit.graph.node):
        if any(i and i not in known for i in node.input) or node.op_type == "DequantizeLinear":
            continue
        if node.op_type == "Constant":
            results = [edit.weight(node.output[0])]
        else:
            feeds = {i: edit.weight(i) for i in node.input if i}
            infos = [
                onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                for n, v in feeds.items()
            ]
            graph = onnx.helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=o) for o in node.output])
            model = onnx.helper.make_model(graph, opset_imports=edit.proto.opset_import)
            results = ReferenceEvaluator(model).run(None, feeds)
        outputs = list(node.output)
        edit.graph.node.remove(node)
        for name, value in zip(outputs, results, strict=True):
            edit.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
            known.add(name)
        count += 1
    edit.prune()
    return edit if count else None


def opset_upgraded(edit: Edit, rng: np.random.Generator) -> Edit | None:
    """Operator set raised by onnx.version_converter, to 21 where it goes so far."""
    for target in (21, 18, 17, 15):
        if target <= edit.opset:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                proto = onnx.version_converter.convert_version(edit.proto, target)
            proto.ir_version = max(proto.ir_version, 10 if target >= 21 else 8)
            onnx.checker.check_model(proto, full_check=True)
        except Exception:  # an operator that the converter has no adapter for: try a lower one
            continue
        return Edit(proto)
    return None


def constants_rounded(edit: Edit, rng: np.random.Generator) -> Edit:
    """Every weight the next number of FP32 or the one before, as where two exporters compute constants."""
    for tensor in edit.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size > 8:
            ends = np.where(rng.random(value.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.nextafter(value, ends), tensor.name))
    return edit


def _saved(edit: Edit, level: str) -> Edit:
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(edit.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Edit(onnx.load(options.optimized_model_filepath))


def saved_extended(edit: Edit, rng: np.random.Generator) -> Edit:
    """The file that ONNX Runtime saves after extended optimizations, with operators of its own."""
    return _saved(edit, "ORT_ENABLE_EXTENDED")


def saved_layout(edit: Edit, rng: np.random.Generator) -> Edit:
    """The file that ONNX Runtime saves after all optimizations, with the layout of this processor."""
    return _saved(edit, "ORT_ENABLE_ALL")


def quantized_file(edit: Edit, rng: np.random.Generator) -> Edit | None:
    """Operands of all products quantized by Q/DQ nodes, with ranges measured on the data."""
    model = Model(edit.proto)
    wanted = activations(model.index)
    if not wanted or any(n.op_type in ("QuantizeLinear", "Scan", "Loop") for n in edit.graph.node):
        return None
    ranges: dict[str, float] = {}
    for made in observe(edit.proto, network(edit.graph.name).samples(SEED, 4), wanted):
        for name, value in made.items():
            ranges[name] = max(ranges.get(name, 0.0), float(np.abs(value).max()))
    return Edit(quantize(model, "int8", ranges).model.proto)


def typed_fp16(edit: Edit, rng: np.random.Generator) -> Edit | None:
    """Weights and tensors typed FP16, inputs and outputs FP32 with a Cast."""
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    if any(n.op_type in ("QuantizeLinear", "Resize", "LSTM", "GRU", "Scan") for n in edit.graph.node):
        return None  # scales of Resize and quantizers are FP32 by definition; ORT's CPU kernels lack FP16 recurrence
    for tensor in edit.graph.initializer:
        if tensor.data_type == single:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in edit.graph.node:
        for a in node.attribute:
            if node.op_type == "Constant" and a.t.data_type == single:
                a.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(a.t).astype(np.float16)))
            if node.op_type == "Cast" and a.name == "to" and a.i == single:
                a.i = half
    casts = []
    for info in edit.graph.input:
        if info.type.tensor_type.elem_type == single:
            name = f"{info.name}_half"
            for node in edit.graph.node:
                node.input[:] = [name if i == info.name else i for i in node.input]
            casts.append(onnx.helper.make_node("Cast", [info.name], [name], name=f"{name}/Cast", to=half))
    edit.insert(0, casts)
    for info in edit.graph.output:
        name = f"{info.name}_half"
        for node in edit.graph.node:
            node.input[:] = [name if i == info.name else i for i in node.input]
            node.output[:] = [name if o == info.name else o for o in node.output]
        edit.graph.node.append(onnx.helper.make_node("Cast", [name], [info.name], name=f"{name}/Cast", to=single))
    del edit.graph.value_info[:]
    return edit


def typed_proto(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """A model typed FP16; None if it cannot be."""
    edit = typed_fp16(Edit(proto), np.random.default_rng(0))
    return None if edit is None else edit.proto
