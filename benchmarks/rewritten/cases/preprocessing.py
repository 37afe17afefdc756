"""What is done to inputs: scales, means, windows."""

from __future__ import annotations

import numpy as np
import onnx

from ..expectation import Pair, fault, healthy
from ..writing import Drawn, beside, file, inputs, known, network, pair

MEAN, DEVIATION = np.array([123, 117, 104], np.float32), np.array([58, 57, 57.5], np.float32)


def _normalized(*, folded: bool, padding: int = 0) -> onnx.ModelProto:
    """Mean and deviation of the colours, in nodes of their own or in the first convolution."""
    drawn = Drawn()
    weight, bias = drawn.normal(8, 3, 3, 3, scale=0.2), drawn.normal(8, scale=0.1)
    if folded:
        weight = (weight / DEVIATION[None, :, None, None]).astype(np.float32)
        bias = (bias - (weight.astype(np.float64) * MEAN[None, :, None, None]).sum((1, 2, 3))).astype(np.float32)
    colours = {"mean": MEAN.reshape(1, 3, 1, 1), "deviation": DEVIATION.reshape(1, 3, 1, 1)}
    text = f"""colours (float[1,3,24,24] x) => (y) {{
      {"" if folded else "centred = Sub(x, mean)  scaled = Div(centred, deviation)"}
      c1 = Conv<pads = [{", ".join([str(padding)] * 4)}]>({"x" if folded else "scaled"}, w1, b1)
      r1 = Relu(c1)
      c2 = Conv<strides = [2, 2]>(r1, w2)  r2 = Relu(c2)
      pooled = GlobalAveragePool(r2)  flat = Flatten(pooled)
      y = MatMul(flat, w3)
    }}"""
    rest = {"w2": drawn.weight(8, 8, 3, 3), "w3": drawn.weight(8, 10)}
    return network(text, w1=weight, b1=bias, **rest, **({} if folded else colours))


def _picture() -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(0).integers(0, 256, (1, 3, 24, 24)).astype(np.float32)}]


@healthy()
def mean_in_a_convolution() -> Pair:
    """Mean and deviation of the colours folded into a convolution without padding"""
    return pair(_normalized(folded=False), _normalized(folded=True), _picture())


@fault("centred", "scaled", "c1", causes="wrong-op weights attribute")
def mean_in_a_convolution_that_pads() -> Pair:
    """Mean and deviation of the colours folded into a convolution that pads with zeros"""
    return pair(_normalized(folded=False, padding=1), _normalized(folded=True, padding=1), _picture())


def _means(values: list[float]) -> Pair:
    net = known("open-nsfw", 2)
    centred = file(net.reference)
    centred.add("colour_means", np.array(values, np.float32))
    centred.first("Sub", centred.proto.graph.input[0].name, "colour_means", name="centred")
    return beside(net, centred)


@fault("centred", causes="weights layout")
def means_in_another_order() -> Pair:
    """Means of red, green and blue in the order blue, green, red"""
    right, wrong = _means([104, 117, 123]), _means([123, 117, 104])
    assert right.candidate is not None
    assert wrong.candidate is not None
    return pair(right.candidate, wrong.candidate, list(right.feeds))


@fault("centred", "Conv__440", "conv_1*", causes="wrong-op weights")
def small_means_in_a_convolution_that_pads() -> Pair:
    """A tenth of the colours' means folded into the bias of a trained convolution that pads with zeros"""
    means = np.array([10.4, 11.7, 12.3], np.float32)
    centred, net = _means(means.tolist()), known("open-nsfw", 2)
    folded = file(net.reference)
    convolution = folded.nodes(("Conv",))[0]
    share = (folded.value(convolution.input[1]).sum((2, 3)) @ means).astype(np.float32)
    if len(convolution.input) > 2:
        folded.set_weight(convolution.input[2], folded.value(convolution.input[2]) - share)
    else:
        convolution.input.append(folded.add("shares_of_means", -share))
    assert centred.candidate is not None
    return pair(centred.candidate, folded, list(net.feeds))


def _scaled_sound(scale: float) -> Pair:
    net = known("wakeword-mel")
    changed = file(net.reference)
    changed.add("sound_scale", np.float32(scale))
    changed.first("Mul", changed.proto.graph.input[0].name, "sound_scale", name="scaled")
    return beside(net, changed)


@fault("scaled", "*Unsqueeze_1", "transpose_1", "convolution*", causes="scale")
def sound_as_a_fraction() -> Pair:
    """Sound scaled by 1/32768 in front of a network that wants integers"""
    return _scaled_sound(1 / 32768)


@fault("scaled", "*Unsqueeze_1", "transpose_1", "convolution*", causes="scale")
def sound_halved() -> Pair:
    """Sound scaled by 1/2"""
    return _scaled_sound(1 / 2)


@fault("scaled", "*Unsqueeze_1", "transpose_1", "convolution*", causes="scale")
def sound_of_a_third() -> Pair:
    """Sound scaled by 1/3"""
    return _scaled_sound(1 / 3)


def _behind_a_shape(text: str, columns: int, **shapes: np.ndarray) -> onnx.ModelProto:
    drawn = Drawn()
    kernel = (3,) * (1 if "Unsqueeze" in text else 2)
    body = f"""scaled (float[1,1024] x) => (y) {{
      {text}
      c1 = Conv(shaped, w1, b1)
      r1 = Relu(c1)
      flat = Flatten(r1)
      y = MatMul(flat, w2)
    }}"""
    weights = {"w1": drawn.weight(8, 1, *kernel), "b1": drawn.normal(8, scale=0.3), "w2": drawn.weight(columns, 10)}
    return network(body, **weights, **shapes)


@fault("scaled", "shaped", "c1", causes="scale")
def picture_scaled_twice() -> Pair:
    """A picture scaled by 1/255 once more, in front of a Reshape"""
    shape = {"square": np.array([1, 1, 32, 32])}
    right = _behind_a_shape("shaped = Reshape(x, square)", 7200, **shape)
    once_more = "scaled = Mul(x, by)  shaped = Reshape(scaled, square)"
    wrong = _behind_a_shape(once_more, 7200, **shape, by=np.array(1 / 255, np.float32))
    return pair(right, wrong, inputs(1, 1024))


@fault("scaled", "shaped", "c1", causes="scale")
def signal_scaled_twice() -> Pair:
    """A signal scaled by 1/32768 once more, in front of an Unsqueeze"""
    axes = {"axes": np.array([1])}
    right = _behind_a_shape("shaped = Unsqueeze(x, axes)", 8176, **axes)
    once_more = "scaled = Mul(x, by)  shaped = Unsqueeze(scaled, axes)"
    wrong = _behind_a_shape(once_more, 8176, **axes, by=np.array(1 / 32768, np.float32))
    return pair(right, wrong, inputs(1, 1024, scale=30))


@healthy()
def root_and_square_removed() -> Pair:
    """A square root whose square is taken, both removed"""
    net = known("dnsmos", 2)
    changed = file(net.reference)
    root, power = changed.node("mos_estimator_logpow/time2freq/Sqrt"), changed.node("mos_estimator_logpow/pow")
    changed.node("mos_estimator_logpow/Maximum_max").input[1] = root.input[0]
    changed.remove(power, root)
    return beside(net, changed)


@fault("*stft-real*", "*stft-imag*", causes="weights", every=True)
def window_of_another_length() -> Pair:
    """The window of a Fourier transform symmetric for periodic, in its real and its imaginary part"""
    net = known("dnsmos", 2)
    changed = file(net.reference)
    phase = 2 * np.pi * np.arange(320)
    periodic, symmetric = (0.5 - 0.5 * np.cos(phase / length) for length in (320, 319))
    factor = np.divide(symmetric, periodic, out=np.ones(320), where=periodic > 1e-9)
    for part in ("real", "imag"):
        changed.scaled(f"time2freq/stft-{part}/kernel:0", factor[None, :, None])
    return beside(net, changed)


@fault("*Maximum_max*", causes="weights saturation")
def floor_of_a_logarithm() -> Pair:
    """The least value of which a logarithm is taken 1e-7 for 1e-12"""
    net = known("dnsmos", 2)
    changed = file(net.reference)
    changed.set_weight("mos_estimator_logpow/Maximum/x:0", np.array(1e-7, np.float32))
    return beside(net, changed)
