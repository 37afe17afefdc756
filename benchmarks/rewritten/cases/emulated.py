"""The same file in another format."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.kit.runtime import Feed

from ..expectation import Pair, fault, healthy
from ..writing import Drawn, inputs, known, network


def _in(emulate: str, model: onnx.ModelProto, feeds: list[Feed]) -> Pair:
    return Pair(model, None, feeds, emulate=emulate)


def _trained(emulate: str, name: str, samples: int) -> Pair:
    net = known(name, samples)
    return _in(emulate, net.reference, list(net.feeds))


def _unit() -> onnx.ModelProto:
    drawn = Drawn()
    text = """unit (float[4,1024] x) => (y) {
      h = MatMul(x, w1)
      up = Mul(h, twenty)
      square = Mul(up, up)
      total = ReduceSum(square, last)
      norm = Sqrt(total)
      unit = Div(up, norm)
      y = MatMul(unit, w2)
    }"""
    weights = {"w1": drawn.weight(1024, 1024), "w2": drawn.weight(1024, 16)}
    return network(text, twenty=np.float32(20), last=np.array([-1]), **weights)


@healthy(warns="Node by node it is wrong")
def sum_of_squares_in_one_kernel() -> Pair:
    """A sum of squares of 400,000 inside a normalization, which is one kernel: FP16"""
    return _in("fp16", _unit(), inputs(4, 1024))


@fault("square", "total", causes="overflow")
def sum_of_squares_node_by_node() -> Pair:
    """The same, node by node: FP16"""
    return _in("fp16,decomposed", _unit(), inputs(4, 1024))


def _exponential() -> onnx.ModelProto:
    drawn = Drawn()
    text = """shares (float[4,64] x) => (y) {
      h = MatMul(x, w1)
      power = Exp(h)
      total = ReduceSum(power, last)
      share = Div(power, total)
      y = MatMul(share, w2)
    }"""
    weights = {"w1": drawn.normal(64, 64, scale=0.6), "w2": drawn.weight(64, 16)}
    return network(text, last=np.array([-1]), **weights)


@healthy(warns="Node by node it is wrong")
def exponential_in_one_kernel() -> Pair:
    """A power of 100,000 inside a Softmax in pieces, which is one kernel: FP16"""
    return _in("fp16", _exponential(), inputs(4, 64))


@fault("power", causes="overflow", also=("total", "share"))
def exponential_node_by_node() -> Pair:
    """The same, node by node: FP16"""
    return _in("fp16,decomposed", _exponential(), inputs(4, 64))


def _scores() -> onnx.ModelProto:
    drawn = Drawn()
    text = """scores (float[1,16,64] x) => (y) {
      q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
      turned = Transpose<perm = [0, 2, 1]>(k)
      products = MatMul(q, turned)
      score = Mul(products, little)
      share = Softmax<axis = -1>(score)
      y = MatMul(share, v)
    }"""
    large = {f"w{name}": drawn.normal(64, 64, scale=8) for name in "qk"}
    return network(text, **large, wv=drawn.weight(64, 64), little=np.float32(1e-3))


@fault("products", causes="overflow", also=("score", "share"))
def scores_scaled_too_late() -> Pair:
    """Products of 100,000 that are scaled behind: FP16"""
    return _in("fp16", _scores(), inputs(1, 16, 64))


def _ratio() -> onnx.ModelProto:
    drawn = Drawn()
    text = """ratio (float[4,64] x) => (y) {
      h = MatMul(x, w1)
      r = Relu(h)
      gated = Mul(r, gate)
      safe = Add(gated, tiny)
      ratio = Div(gated, safe)
      y = MatMul(ratio, w2)
    }"""
    gate = (np.arange(64) % 3 > 0).astype(np.float32)
    return network(text, gate=gate, tiny=np.float32(1e-8), w1=drawn.weight(64, 64), w2=drawn.weight(64, 16))


@healthy()
def epsilon_lifted() -> Pair:
    """An epsilon of 1e-8, which FP16 does not have, as its least number"""
    return _in("fp16", _ratio(), inputs(4, 64))


@fault("safe", "ratio", causes="underflow", verdicts="fail")
def epsilon_cast() -> Pair:
    """An epsilon of 1e-8, which FP16 does not have, as zero"""
    return _in("fp16,cast_weights", _ratio(), inputs(4, 64))


def _angles(*, computed: bool) -> onnx.ModelProto:
    drawn = Drawn()
    frequencies = (1 / 10000 ** (np.arange(8) / 8)).astype(np.float32)
    given = "int64[1,32] places, float[1,32,8] x" if computed else "float[1,6000,8] x"
    counted = "" if computed else "places = Range(zero, count, one)"
    text = f"""angles ({given}) => (y) {{
      {counted}
      number = Cast<to = 1>(places)
      apart = Unsqueeze(number, axis)
      angle = Mul(apart, frequencies)
      sine = Sin(angle)
      placed = Add(x, sine)
      y = MatMul(placed, w)
    }}"""
    steps = {} if computed else {"zero": np.array(0), "count": np.array(6000), "one": np.array(1)}
    return network(text, axis=np.array([2 if computed else 1]), frequencies=frequencies, w=drawn.weight(8, 8), **steps)


@healthy("pass undecided fail", tolerated="amplified cancellation")
def angles_that_are_constants() -> Pair:
    """Sines of constant angles up to 6,000: nobody behind them is to be accused"""
    return _in("fp16", _angles(computed=False), inputs(1, 6000, 8))


@fault("angle", "sine", "placed", causes="amplified cancellation", verdicts="fail undecided")
def angles_of_6000() -> Pair:
    """Sines of angles up to 6,000, which FP16 has in steps of 4; product, sine and sum are one kernel"""
    places = np.random.default_rng(2).integers(3000, 6000, (1, 32))
    return _in("fp16", _angles(computed=True), [{**inputs(1, 32, 8)[0], "places": places}])


def _variance() -> onnx.ModelProto:
    drawn = Drawn()
    text = """variance (float[4,256] x) => (y) {
      p = MatMul(x, w1)
      h = Add(p, thirty)
      mean = ReduceMean<axes = [-1], keepdims = 1>(h)
      square = Mul(h, h)
      mean_square = ReduceMean<axes = [-1], keepdims = 1>(square)
      square_mean = Mul(mean, mean)
      variance = Sub(mean_square, square_mean)
      centred = Sub(h, mean)
      bounded = Max(variance, least)
      deviation = Sqrt(bounded)
      unit = Div(centred, deviation)
      y = MatMul(unit, w2)
    }"""
    weights = {"w1": drawn.weight(256, 256), "w2": drawn.weight(256, 16)}
    return network(text, thirty=np.float32(30), least=np.float32(1e-3), **weights)


@healthy(warns="Node by node it is wrong")
def variance_in_one_kernel() -> Pair:
    """A variance of 1 as the difference of two numbers near 900, inside a normalization, which is one kernel: FP16"""
    return _in("fp16", _variance(), inputs(4, 256))


@fault("variance", "mean_square", "square_mean", causes="cancellation amplified", verdicts="fail undecided")
def variance_node_by_node() -> Pair:
    """The same, node by node: FP16"""
    return _in("fp16,decomposed", _variance(), inputs(4, 256))


def _mean_of_many() -> onnx.ModelProto:
    drawn = Drawn()
    text = """many (float[1,8,128,128] x) => (y) {
      c = Conv<pads = [1, 1, 1, 1]>(x, w1)
      r = Relu(c)
      total = ReduceSum<keepdims = 0>(r, axes)
      mean = Mul(total, share)
      y = MatMul(mean, w2)
    }"""
    weights = {"w1": drawn.weight(8, 8, 3, 3), "w2": drawn.weight(8, 8)}
    return network(text, axes=np.array([2, 3]), share=np.float32(1 / 16384), **weights)


@healthy()
def sum_of_many() -> Pair:
    """A sum of 16,384 numbers that FP16 holds"""
    return _in("fp16", _mean_of_many(), inputs(1, 8, 128, 128))


@fault("total", causes="overflow")
def sum_of_many_large_ones() -> Pair:
    """A sum of 16,384 numbers that FP16 does not hold"""
    return _in("fp16", _mean_of_many(), inputs(1, 8, 128, 128, scale=20))


def _logarithm() -> onnx.ModelProto:
    drawn = Drawn()
    text = """logarithm (float[4,32] x) => (y) {
      h = MatMul(x, w)
      share = Softmax<axis = -1>(h)
      y = Log(share)
    }"""
    return network(text, w=drawn.normal(32, 32, scale=2.5))


@fault("share", "y", causes="underflow")
def logarithm_of_zero() -> Pair:
    """The logarithm of shares that FP16 takes for zero"""
    return _in("fp16", _logarithm(), inputs(4, 32))


@healthy("pass undecided", tolerated="amplified cancellation")
def logarithm_of_little() -> Pair:
    """The logarithm of shares that BF16 holds"""
    return _in("bf16", _logarithm(), inputs(4, 32))


@fault("*Pow_9*", "*Pow_11*", "convolution*", "*Log*", causes="overflow", also=("*",))
def power_of_sound() -> Pair:
    """wakeword-mel: the power of sound in integers: FP16"""
    return _trained("fp16", "wakeword-mel", 8)


@fault("*Maximum_max*", "*pow*", causes="underflow", verdicts="fail undecided pass")
def floor_of_a_logarithm_in_fp16() -> Pair:
    """dnsmos: the floor of a logarithm, 1e-12: FP16"""
    return _trained("fp16", "dnsmos", 1)


@fault("*LayerNorm_1/Sum_1", causes="overflow", also=("*",))
def sum_of_squares_of_magika() -> Pair:
    """magika: a sum of squares of 198,186: FP16"""
    return _trained("fp16", "magika", 2)


@healthy()
def encoder_in_fp16() -> Pair:
    """minilm: an epsilon of 1e-12 and a mask of the lowest number are clamped: FP16"""
    return _trained("fp16", "minilm", 1)


@healthy("pass undecided", tolerated="spread amplified")
def encoder_in_bf16() -> Pair:
    """minilm: BF16"""
    return _trained("bf16", "minilm", 1)


@healthy()
def voice_encoder_in_fp16() -> Pair:
    """voice-encoder: FP16"""
    return _trained("fp16", "voice-encoder", 2)


@healthy()
def open_nsfw_in_fp16() -> Pair:
    """open-nsfw: FP16"""
    return _trained("fp16", "open-nsfw", 1)


@healthy()
def plcmos_in_fp16() -> Pair:
    """plcmos: FP16"""
    return _trained("fp16", "plcmos", 2)


@healthy("undecided", tolerated="quantization spread amplified")
def face_landmarks_in_int8() -> Pair:
    """face-landmarks: INT8"""
    return _trained("int8", "face-landmarks", 2)
