"""A quantized file that is believed: beside one in floating point, and beside one that quantizes other layers."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from layerdiff.compare.causes.differences import GraphsDiffer
from onnx import numpy_helper
from onnxruntime import quantization as quantizers

from support.layerwise import compare, only
from support.models import normal, parsed
from support.quantized import exact, quantized
from support.rewrites import optimized

NETWORK = """g (float[2,8,12,12] x) => (float[2,5] y) {
    [one] a = Conv<pads=[1,1,1,1]>(x, u, ub) [relu] b = Relu(a)
    [two] c = Conv<pads=[1,1,1,1]>(b, v, vb) [add] d = Add(c, b) [relu2] e = Relu(d)
    [three] f = Conv<pads=[1,1,1,1]>(e, w, wb) [relu3] h = Relu(f)
    [mean] m = GlobalAveragePool(h) [flat] n = Flatten(m) [head] y = Gemm(n, t, tb) }"""
SIZES = {"u": (8, 8, 3, 3), "v": (8, 8, 3, 3), "w": (8, 8, 3, 3), "t": (8, 5), "tb": (5,)}
SIZES |= dict.fromkeys(("ub", "vb", "wb"), (8,))
WEIGHTS = {n: np.float32(0.2) * normal(*size, seed=i) for i, (n, size) in enumerate(SIZES.items())}
DATA = [{"x": normal(2, 8, 12, 12, seed=9)}]
KINDS = ["qdq", "qoperator"]
OTHER = WEIGHTS["v"] + np.float32(0.1) * normal(8, 8, 3, 3, seed=30)


def network(**others):
    return parsed(NETWORK, **WEIGHTS | others)


def codes(report) -> list[str]:
    return [notice.code for notice in report.notices]


@pytest.mark.parametrize("kind", KINDS)
def test_beside_a_quantized_file_the_one_in_floating_point_is_clean(kind):
    mine = quantized(network(), kind, DATA)
    report = compare(mine, network(), DATA, ort=exact(mine))
    assert (report.verdict, report.culprits) == ("undecided", ())
    assert {"one", "two", "three"} <= {layer.node for layer in report.layers}
    assert codes(report).count("layers-turned-round") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_the_file_in_floating_point_is_told_of_the_quantized_one(kind):
    """In the user's roles: the second file is the one that is off."""
    mine = quantized(network(), kind, DATA)
    culprit = only(compare(mine, network(v=OTHER), DATA, ort=exact(mine)))
    assert (culprit.node, culprit.cause, culprit.candidate) == ("two", "weights", "onnxrt")
    (change,) = (f.difference.change for f in culprit.facts if isinstance(f, GraphsDiffer))
    assert change.values[0] == pytest.approx(WEIGHTS["v"][change.index], abs=0.02)
    assert change.values[1] == pytest.approx(OTHER[change.index])
    told = culprit.remedies[0].text
    assert told.startswith(f"give {culprit.node} of the second file the weights that ")
    assert told.endswith("has in the first, dequantized; where the second file is right, quantize it again")


def test_a_factor_of_the_file_in_floating_point_is_that_of_its_weights():
    mine = quantized(network(), "qdq", DATA)
    culprit = only(compare(mine, network(v=WEIGHTS["v"] / np.float32(2)), DATA, ort=exact(mine)))
    assert "all 0.5" in culprit.evidence


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("others", "node"), [({"v": OTHER}, "two"), ({"vb": 0 * WEIGHTS["vb"]}, "two")])
def test_ranges_that_both_files_calibrated_are_a_consequence_of_the_weight_before_them(kind, others, node):
    mine, theirs = quantized(network(), kind, DATA), quantized(network(**others), kind, DATA)
    culprit = only(compare(mine, theirs, DATA, ort=exact(mine)))
    assert (culprit.node.removesuffix("_quant"), culprit.cause) == (node, "weights")
    assert "since calibration saw what this fault makes" in culprit.evidence


def test_a_range_that_differs_by_more_than_what_it_is_of_is_told_beside_a_weight():
    mine, theirs = quantized(network(), "qdq", DATA), quantized(network(v=OTHER), "qdq", DATA)
    node = next(n for n in theirs.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "m")
    name = node.input[1]
    for reader in theirs.graph.node:
        if reader.op_type in ("QuantizeLinear", "DequantizeLinear") and reader.input[1] == name:
            reader.input[1] = "narrow"
    scale = next(numpy_helper.to_array(t) for t in mine.graph.initializer if t.name == name)
    theirs.graph.initializer.append(numpy_helper.from_array(scale / np.float32(6), "narrow"))
    report = compare(mine, theirs, DATA, ort=exact(mine))
    assert {c.node for c in report.culprits} >= {"two", node.name}


UP = """g (float[1,6,8,8] x) => (float[1,4,16,16] y) {
    [one] a = Conv<pads=[1,1,1,1]>(x, u, ub) [relu] b = Relu(a)
    [up] c = ConvTranspose<strides=[2,2], kernel_shape=[2,2]>(b, v, vb) [relu2] d = Relu(c)
    [two] y = Conv<pads=[1,1,1,1]>(d, w, wb) }"""
UP_SIZES = {"u": (6, 6, 3, 3), "v": (6, 6, 2, 2), "w": (4, 6, 3, 3), "ub": (6,), "vb": (6,), "wb": (4,)}
UP_WEIGHTS = {n: np.float32(0.3) * normal(*size, seed=i) for i, (n, size) in enumerate(UP_SIZES.items())}
UP_DATA = [{"x": normal(1, 6, 8, 8, seed=9)}]


@pytest.mark.parametrize("first", KINDS)
def test_files_that_quantize_other_layers_are_compared_and_sound_ones_are_clean(first):
    """No operator of scaled integers stands for a ConvTranspose."""
    files = {kind: quantized(parsed(UP, **UP_WEIGHTS), kind, UP_DATA) for kind in KINDS}
    mine, theirs = files.pop(first), next(iter(files.values()))
    report = compare(mine, theirs, UP_DATA, ort=exact(mine))
    assert report.culprits == ()
    assert {"one", "up", "two"} <= {layer.node.removesuffix("_quant") for layer in report.layers}


SLOPES = """g (float[1,8,8,8] x) => (float[1,8,8,8] y) {
    [one] a = Conv<pads=[1,1,1,1]>(x, u, ub) [act] b = PRelu(a, s)
    [two] c = Conv<pads=[1,1,1,1]>(b, v, vb) [add] d = Add(c, b) [act2] e = PRelu(d, r)
    [three] y = Conv<pads=[1,1,1,1]>(e, w, wb) }"""
SLOPED = {**{n: WEIGHTS[n] for n in ("u", "v", "w", "ub", "vb", "wb")}, "s": 0.5 * np.abs(normal(8, 1, 1, seed=20))}
SLOPED |= {"r": 0.5 * np.abs(normal(8, 1, 1, seed=21)).astype(np.float32)}
SLOPE_DATA = [{"x": normal(1, 8, 8, 8, seed=9)}]


@pytest.mark.parametrize("wrong", [False, True])
def test_channels_that_are_last_are_no_other_axis_where_all_axes_have_one_size(wrong):
    theirs = {**SLOPED, **({"r": np.zeros((8, 1, 1), np.float32)} if wrong else {})}
    file = optimized(quantized(parsed(SLOPES, **theirs), "qdq", SLOPE_DATA), "ALL")
    assert any(a.name == "channels_last" for n in file.graph.node for a in n.attribute)
    report = compare(parsed(SLOPES, **SLOPED), file, SLOPE_DATA, ort=exact(file))
    if wrong:
        assert [(c.node, c.cause) for c in report.culprits] == [("act2", "weights")]
    else:  # what rounding does of it all may be told
        assert {c.cause for c in report.culprits} <= {"quantization"}
        assert not any("differ" in c.evidence for c in report.culprits)


POOLED = """g (float[2,8,12,12] x) => (float[2,8,1,1] y) {
    [one] a = Conv<pads=[1,1,1,1]>(x, u, ub) [relu] b = Relu(a) [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)
    [two] c = Conv<pads=[1,1,1,1]>(p, v, vb) [add] d = Add(c, p) [relu2] e = Relu(d)
    [three] f = Conv<pads=[1,1,1,1]>(e, w, wb) [relu3] h = Relu(f) [mean] y = GlobalAveragePool(h) }"""
POOL_WEIGHTS = {n: WEIGHTS[n] for n in ("u", "v", "w", "ub", "vb", "wb")}


@pytest.mark.parametrize(("others", "node"), [({}, ""), ({"w": np.roll(WEIGHTS["w"], 1, axis=0)}, "three")])
def test_what_is_behind_a_pool_of_channels_that_are_last_is_compared_layer_by_layer(others, node):
    """ONNX Runtime's NhwcMaxPool, and a mean behind it, whose axes no shape inference knows."""
    file = optimized(quantized(parsed(POOLED, **POOL_WEIGHTS | others), "qdq", DATA), "ALL")
    assert "NhwcMaxPool" in {n.op_type for n in file.graph.node}
    report = compare(parsed(POOLED, **POOL_WEIGHTS), file, DATA, ort=exact(file))
    assert [c.node for c in report.culprits] == [node] * bool(node)
    assert {"one", "three"} <= {layer.node for layer in report.layers if layer.local is not None}


def test_a_zero_point_that_is_read_otherwise_is_told_though_steps_explain_it():
    file = quantized(network(), "qdq", DATA)
    wrong = copy.deepcopy(file)
    reader = next(n for n in wrong.graph.node if n.op_type == "DequantizeLinear" and n.input[0].startswith("n_"))
    zero = next(numpy_helper.to_array(t) for t in wrong.graph.initializer if t.name == reader.input[2])
    wrong.graph.initializer.append(numpy_helper.from_array(np.array(zero + 1, zero.dtype), "its_own"))
    reader.input[2] = "its_own"
    report = compare(network(), wrong, DATA, ort=exact(wrong))
    assert report.culprits
    assert all("zero point" in c.evidence for c in report.culprits)


NORMED = """g (float[2,6,16] x) => (float[2,6,8] y) {
    [lift] a0 = MatMul(x, u) [lifted] a = Add(a0, ub)
    [square] p = Pow(a, two) [mean] m = ReduceMean<axes=[-1], keepdims=1>(p) [more] e = Add(m, small)
    [root] s = Sqrt(e) [norm] n = Div(a, s) [gain] h = Mul(n, g)
    [keys] k0 = MatMul(h, v) [keyed] k1 = Add(k0, vb) [key] k = Tanh(k1)
    [queries] q0 = MatMul(h, w) [queried] q1 = Add(q0, wb) [query] q = Tanh(q1)
    [join] j = Mul(k, q) [skip] r = Add(j, a) [out] y = MatMul(r, t) }"""
NORM = {n: normal(*size, seed=i) / 4 for i, (n, size) in enumerate({"u": (16, 16), "v": (16, 16), "w": (16, 16),
        "t": (16, 8), "ub": (16,), "vb": (16,), "wb": (16,), "g": (16,)}.items())}  # fmt: skip
NORM |= {"two": np.float32(2), "small": np.float32(1e-6), "g": 1 + NORM["g"]}


def test_sums_of_scaled_integers_are_exact_where_a_fused_normalization_is_quantized_behind() -> None:
    """The tensor that is quantized is inside of what the reference computes with other operators."""
    data = [{"x": normal(2, 6, 16, seed=9)}]
    file = quantized(parsed(NORMED, **NORM), "dynamic", data)
    report = compare(optimized(parsed(NORMED, **NORM), "EXTENDED"), file, data, ort=exact(file))
    assert not [c for c in report.culprits if c.cause == "narrow-accumulator"]
    assert report.culprits == ()


RECURRENT = """g (float[7,2,10] x) => (float[7,2,6] y) {
    [rnn] a, b = LSTM<hidden_size=12, direction="bidirectional">(x, u, v, ub) [turn] c = Transpose<perm=[0,2,1,3]>(a)
    [flat] d = Reshape(c, shape) [head] y = MatMul(d, w) }"""
GATES = {"u": normal(2, 48, 10, seed=1) / 3, "v": normal(2, 48, 12, seed=2) / 3, "ub": normal(2, 96, seed=3) / 5,
         "shape": np.array([7, 2, 24]), "w": normal(24, 6, seed=4) / 4}  # fmt: skip


@pytest.mark.parametrize("wrong", [False, True])
def test_a_recurrence_of_scaled_integers_may_have_a_scale_for_each_row(wrong, tmp_path) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(parsed(RECURRENT, **GATES | ({"v": np.roll(GATES["v"], 12, 1)} if wrong else {})), source)
    quantizers.quantize_dynamic(source, target, per_channel=True, weight_type=quantizers.QuantType.QUInt8)
    file = onnx.load(target)
    assert "DynamicQuantizeLSTM" in {node.op_type for node in file.graph.node}
    report = compare(parsed(RECURRENT, **GATES), file, [{"x": normal(7, 2, 10, seed=9)}], ort=exact(file))
    assert not any(c.cause == "wrong-op" for c in report.culprits)
    assert [c.node for c in report.culprits if c.cause == "weights"] == (["rnn"] if wrong else [])
