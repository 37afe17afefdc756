"""Normalization."""

from __future__ import annotations

import numpy as np
import onnx

from ..decoder import LENGTH, WIDTH, Form, decoder
from ..expectation import Pair, fault, healthy
from ..writing import Drawn, attribute, beside, file, inputs, known, made, network, pair, set_attribute


def _epsilon(name: str, operator: str, epsilon: float) -> Pair:
    net = known(name)
    changed = file(net.reference)
    for node in changed.nodes((operator,)):
        set_attribute(node, "epsilon", epsilon)
    return beside(net, changed)


@healthy()
def epsilon_of_zero() -> Pair:
    """Epsilon of all LayerNormalizations zero for 1e-12"""
    return _epsilon("minilm", "LayerNormalization", 0.0)


@fault("*LayerNormalization", causes="attribute")
def epsilon_of_another_framework() -> Pair:
    """Epsilon of all LayerNormalizations 1e-5 for 1e-12"""
    return _epsilon("minilm", "LayerNormalization", 1e-5)


@fault("BatchNormalization@*", causes="attribute")
def batch_norm_epsilon() -> Pair:
    """Epsilon of all BatchNormalizations 1e-3 for 1e-5"""
    return _epsilon("ppocr-cls", "BatchNormalization", 1e-3)


@fault("BatchNormalization@6", causes="wrong-op")
def batch_norm_by_its_batch() -> Pair:
    """A BatchNormalization by the statistics of what it reads"""
    net = known("ppocr-cls")
    changed = file(net.reference)
    norm = changed.node("BatchNormalization@6")
    norm.op_type = "InstanceNormalization"
    del norm.input[3:], norm.attribute[:]
    set_attribute(norm, "epsilon", 1e-5)
    return beside(net, changed)


@fault("BatchNormalization@7", "Conv@9", causes="weights scale")
def batch_norm_folded_with_another_epsilon() -> Pair:
    """All BatchNormalizations folded into their convolutions, one of them with epsilon 1e-3 for 1e-5"""
    net = known("ppocr-cls")
    changed = file(net.reference)
    for norm in changed.nodes(("BatchNormalization",)):
        convolution = changed.node(norm.input[0])
        scale, bias, mean, variance = (changed.value(name).astype(np.float64) for name in norm.input[1:5])
        epsilon = 1e-3 if norm.name == "BatchNormalization@7" else attribute(norm, "epsilon")
        factor = scale / np.sqrt(variance + epsilon)
        weight = changed.value(convolution.input[1]) * factor[:, None, None, None]
        convolution.input[1] = changed.add(f"{convolution.name}_weight", weight.astype(np.float32))
        convolution.input.append(changed.add(f"{convolution.name}_bias", (bias - mean * factor).astype(np.float32)))
        convolution.output[0] = norm.output[0]
        changed.proto.graph.node.remove(norm)
    return beside(net, changed)


@healthy()
def layer_norm_in_pieces() -> Pair:
    """LayerNormalizations in ten nodes, with a Reciprocal"""
    net = known("minilm", 2)
    changed = file(net.reference)
    changed.add("tiny", np.float32(1e-12))
    for norm in changed.nodes(("LayerNormalization",)):
        at, (x, gain, bias) = norm.name, norm.input
        changed.replace(
            norm,
            made("ReduceMean", x, name=f"{at}_mean", axes=[-1], keepdims=1),
            made("Sub", x, f"{at}_mean", name=f"{at}_centred"),
            made("Mul", f"{at}_centred", f"{at}_centred", name=f"{at}_square"),
            made("ReduceMean", f"{at}_square", name=f"{at}_variance", axes=[-1], keepdims=1),
            made("Add", f"{at}_variance", "tiny", name=f"{at}_safe"),
            made("Sqrt", f"{at}_safe", name=f"{at}_deviation"),
            made("Reciprocal", f"{at}_deviation", name=f"{at}_inverse"),
            made("Mul", f"{at}_centred", f"{at}_inverse", name=f"{at}_unit"),
            made("Mul", f"{at}_unit", gain, name=f"{at}_scaled"),
            made("Add", f"{at}_scaled", bias, name=f"{at}_biased", makes=norm.output[0]),
        )
    return beside(net, changed)


def _layer_norm(*, axis: int = -1, unbiased: bool = False) -> onnx.ModelProto:
    drawn = Drawn()
    weights = {
        "w1": drawn.weight(32, 32), "gain": drawn.normal(32), "bias": drawn.normal(32), "w2": drawn.weight(32, 16),
        "epsilon": np.float32(1e-5), "axes": np.array([axis]), "count": np.float32(31),
    }  # fmt: skip
    mean = f"variance = ReduceMean<axes = [{axis}], keepdims = 1>(square)"
    text = f"""norm (float[2,32,32] x) => (y) {{
      h = MatMul(x, w1)
      mean = ReduceMean<axes = [{axis}], keepdims = 1>(h)
      centred = Sub(h, mean)
      square = Mul(centred, centred)
      {"total = ReduceSum(square, axes)  variance = Div(total, count)" if unbiased else mean}
      safe = Add(variance, epsilon)
      deviation = Sqrt(safe)
      unit = Div(centred, deviation)
      scaled = Mul(unit, gain)
      normal = Add(scaled, bias)
      positive = Relu(normal)
      y = MatMul(positive, w2)
    }}"""
    unused = () if unbiased else ("axes", "count")
    return network(text, **{name: values for name, values in weights.items() if name not in unused})


@fault("variance", "total", causes="wrong-op scale weights")
def unbiased_variance() -> Pair:
    """The sum of squares divided by n - 1"""
    return pair(_layer_norm(), _layer_norm(unbiased=True), inputs(2, 32, 32))


@fault("mean", "variance", causes="attribute", every=True)
def normalized_over_another_axis() -> Pair:
    """Mean and variance over another axis"""
    return pair(_layer_norm(), _layer_norm(axis=-2), inputs(2, 32, 32))


@fault("l1_norm", causes="weights scale")
def gain_less_one() -> Pair:
    """The gain of a normalization for one plus that gain"""
    return pair(decoder(), decoder(Form(mistake="gamma_less_one")), inputs(1, LENGTH, WIDTH))


@fault("l1_norm_*", "l1_norm2_*", causes="wrong-op", every=True)
def epsilon_outside_of_the_root() -> Pair:
    """Epsilon added behind the square root, not before it, in the two normalizations of a layer"""
    return pair(decoder(), decoder(Form(mistake="epsilon_outside")), inputs(1, LENGTH, WIDTH))


@fault("norm*", causes="attribute weights wrong-op")
def group_norm_of_fewer_groups() -> Pair:
    """A group normalization of two groups for four"""
    return pair(_group_norm(4), _group_norm(2), inputs(2, 3, 32, 32))


def _group_norm(groups: int) -> onnx.ModelProto:
    drawn = Drawn()
    text = """groups (float[2,3,32,32] x) => (y) {
      c1 = Conv<pads = [1, 1, 1, 1]>(x, w1)
      norm_apart = Reshape(c1, apart)
      norm_unit = InstanceNormalization<epsilon = 0.00001>(norm_apart, ones, zeros)
      norm = Reshape(norm_unit, whole)
      c2 = Conv<pads = [1, 1, 1, 1]>(norm, w2)
      r2 = Relu(c2)
      pooled = GlobalAveragePool(r2)
      flat = Flatten(pooled)
      y = MatMul(flat, w3)
    }"""
    return network(
        text,
        w1=drawn.normal(8, 3, 3, 3) * np.linspace(0.2, 2, 8, dtype=np.float32)[:, None, None, None],
        w2=drawn.weight(16, 8, 3, 3),
        w3=drawn.weight(16, 10),
        apart=np.array([2, groups, -1]),
        whole=np.array([2, 8, 32, 32]),
        ones=np.ones(groups, np.float32),
        zeros=np.zeros(groups, np.float32),
    )


@healthy()
def norm_with_a_bound() -> Pair:
    """A vector divided by its norm, or by 1e-12 where that is greater"""
    net = known("voice-encoder")
    changed = file(net.reference)
    changed.add("least", np.array([1e-12], np.float32))
    changed.before(changed.node("embedding_Div"), made("Max", "norm", "least", name="norm_bounded"))
    changed.node("embedding_Div").input[1] = "norm_bounded"
    return beside(net, changed)


@fault("norm*", "embedding*", causes="wrong-op scale", verdicts="pass fail")
def norm_with_an_epsilon() -> Pair:
    """A vector divided by its norm plus 1e-5, which changes the outputs by 3e-6"""
    net = known("voice-encoder")
    changed = file(net.reference)
    changed.add("epsilon", np.array([1e-5], np.float32))
    changed.before(changed.node("embedding_Div"), made("Add", "norm", "epsilon", name="norm_safe"))
    changed.node("embedding_Div").input[1] = "norm_safe"
    return beside(net, changed)
