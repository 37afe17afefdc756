"""Files that ONNX Runtime saves after its optimizations."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

from ..expectation import Pair, fault, healthy
from ..writing import File, beside, file, known, pair
from .attention import one_column


def _saved(proto: onnx.ModelProto) -> File:
    """The file that ONNX Runtime writes after extended optimizations."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "saved.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return File(onnx.load(str(target)))


def _at(node: onnx.NodeProto) -> tuple[str, ...]:
    """The names that a culprit at a node of the saved file may have."""
    return (node.name, *node.output)


@healthy()
def classifier_saved() -> Pair:
    """A network of convolutions with fused activations"""
    net = known("ppocr-cls")
    return beside(net, _saved(net.reference))


def _channel(name: str) -> Pair:
    net = known("ppocr-cls")
    changed = _saved(net.reference)
    node = changed.node(name)
    weight = changed.value(node.input[1])
    weight[3] *= 1.05
    changed.set_weight(node.input[1], weight)
    return beside(net, changed, at=_at(node))


@fault(causes="weights")
def weight_of_a_fused_convolution() -> Pair:
    """One channel of a convolution with a fused activation 5 % too large"""
    return _channel("Conv@9")


@fault(causes="weights")
def weight_of_a_folded_convolution() -> Pair:
    """One channel of a convolution with a folded BatchNormalization 5 % too large"""
    return _channel("Conv@8")


def _no_bias(changed: File) -> tuple[str, ...]:
    node = changed.node("Conv@4")
    changed.set_weight(node.input[2], changed.value(node.input[2]) * 0)
    return *_at(node), "Add@2"  # which adds it in the other file


@fault(causes="weights")
def bias_of_a_fused_convolution() -> Pair:
    """The bias of a convolution with a fused activation is zero"""
    net = known("ppocr-cls")
    changed = _saved(net.reference)
    return beside(net, changed, at=_no_bias(changed))


@fault(causes="weights")
def bias_of_a_fused_convolution_in_one_of_two() -> Pair:
    """The bias of a convolution is zero; both files are saved ones"""
    net = known("ppocr-cls")
    reference = _saved(net.reference).proto
    changed = file(reference)
    return pair(reference, changed, list(net.feeds), at=_no_bias(changed))


@healthy()
def encoder_saved() -> Pair:
    """An encoder with fused attention, normalization and GELU"""
    net = known("minilm", 2)
    return beside(net, _saved(net.reference))


@fault("l2_up_product_MatMul", causes="weights")
def weight_of_an_encoder_saved() -> Pair:
    """One column of a weight 50 % too large, in a saved encoder"""
    net = known("minilm", 2)
    changed = _saved(net.reference)
    one_column(changed)
    return beside(net, changed)


@fault("l2_up*", "l2_g*", causes="weights")
def bias_fused_into_gelu() -> Pair:
    """The bias that is fused into GELU is zero, in a saved encoder"""
    net = known("minilm", 2)
    changed = _saved(net.reference)
    node = changed.nodes(("BiasGelu",))[2]
    node.input[1] = changed.add("no_bias", changed.value(node.input[1]) * 0)
    return beside(net, changed, at=_at(node))
