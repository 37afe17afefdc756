"""The hard bound: no healthy layer breaks it, in any format or order of sums, and what breaks it is no rounding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import EmulateRunner, OnnxrtRunner
from layerdiff.compare.causes.judgement import use_of
from layerdiff.graph.cutting.slices import backward
from layerdiff.graph.formats import BF16, E4M3, FP16, FP32, INT8, TF32
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.error_bound import add_bounds
from layerdiff.graph.rounding.noise_probe import drawn, perturbed
from layerdiff.graph.rounding.roundings import roundings
from layerdiff.graph.rounding.roundoff import roundoff_model
from layerdiff.graph.rounding.term_count import product_count
from layerdiff.graph.specs import TensorSpec
from layerdiff.runners.contract.workload import Workload
from onnx import helper

from support import networks
from support.models import infer, normal, parsed

FLOAT = networks.FLOAT
ORT = OnnxrtRunner(threads=1)


# ---- layers: each writes nodes that make y of x (and of b) ----------------------------------------------------------

IMAGE, ROWS = (2, 16, 10, 10), (24, 32)


def conv(w):
    w.conv("x", "y", (16, 32))


def conv_bn_relu(w):
    w.node("Relu", [w.batch_norm(w.conv("x", "c", (16, 32)), "bn", 32)], "y")


def conv_residual(w):
    w.node("Relu", [w.node("Add", [w.batch_norm(w.conv("x", "c", (16, 16)), "bn", 16), "x"], "sum")], "y")


def conv_silu(w):
    c = w.conv("x", "c", (16, 16))
    w.node("Mul", [c, w.node("Sigmoid", [c], "s")], "y")


def conv_clip(w):
    w.node("Clip", [w.conv("x", "c", (16, 16)), w.value("low", 0.0), w.value("high", 0.7)], "y")


def conv_leaky(w):
    w.node("LeakyRelu", [w.conv("x", "c", (16, 16))], "y", alpha=0.1)


def depthwise(w):
    w.conv("x", "y", (1, 16), group=16)


def transposed(w):
    w.node("ConvTranspose", ["x", w.weight("w", 16, 8, 2, 2)], "y", strides=[2, 2])


def pooled(w):
    w.node("AveragePool", [w.conv("x", "c", (16, 16))], "y", kernel_shape=[2, 2], strides=[2, 2])


def largest(w):
    w.node("MaxPool", [w.conv("x", "c", (16, 16))], "y", kernel_shape=[2, 2], strides=[2, 2])


def averaged(w):
    w.node("GlobalAveragePool", [w.conv("x", "c", (16, 16))], "y")


def linear(w):
    w.linear("x", "y", (32, 16))


def linear_gelu(w):
    w.gelu(w.linear("x", "l", (32, 16)), "y")


def gemm(w):
    w.node("Gemm", ["x", w.weight("w", 16, 32), w.weight("b", 16)], "y", transB=1, alpha=-0.5, beta=2.0)


def einsum(w):
    w.node("Einsum", ["x", w.weight("w", 32, 16)], "y", equation="ij,jk->ik")


def moved(w):
    x = w.node("Transpose", [w.node("Reshape", ["x", w.value("s", [24, 4, 8], np.int64)], "r")], "t", perm=[1, 0, 2])
    w.node("Tanh", [w.node("Concat", [x, x], "c", axis=0)], "y")


def picked(w):
    lengths, which = w.value("l", [8] * 24, np.int64), w.value("k", [True] * 20 + [False] * 4, np.bool_)
    x = w.node("ReverseSequence", ["x", lengths], "r", batch_axis=0, time_axis=1)
    w.node("Tanh", [w.node("Compress", [x, which], "c", axis=0)], "y")


def softmax(w):
    w.node("Softmax", ["x"], "y", axis=-1)


def softmax_of_columns(w):
    w.node("Softmax", ["x"], "y", axis=0)


LAYERS = {
    **dict.fromkeys(
        (conv, conv_bn_relu, conv_residual, conv_silu, conv_clip, conv_leaky, depthwise, transposed, pooled, largest,
         averaged), IMAGE),
    **dict.fromkeys((linear, linear_gelu, gemm, einsum, moved, picked, softmax, softmax_of_columns), ROWS),
}  # fmt: skip


def model_of(make, seed: int = 1) -> Model:
    w = networks.Writer(seed)
    make(w)
    return Model(w.model({"x": (FLOAT, list(LAYERS[make]))}, ["y"]))


def bound_of(model: Model, feed, candidate: np.ndarray, allowed) -> np.ndarray | None:
    """The bound of output ``y``."""
    part = backward(model.index, ["y"], list(feed))
    specs = {n: TensorSpec(n, a.dtype, a.shape) for n, a in feed.items()}
    probe = perturbed(model, [(0, part)], specs, roundings(FP32, FP32)).model
    bounds = add_bounds(probe.proto.graph, model.index, [(0, part)], specs, allowed)
    if not bounds:
        return None
    made = drawn(probe, feed, 1, lambda m, f: infer(ORT, m, f))
    return bounds[0, "y"].value(made, candidate, allowed)


# ---- the formula ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fmt", "operands"), [(FP32, 0.0), (FP16, FP16.u), (BF16, BF16.u), (TF32, TF32.u)], ids=str)
def test_of_a_product_it_is_the_closed_form(fmt, operands):
    """((1 + u_a)(1 + u_b)(1 + gamma_K) - 1)(|A||B|) + u_out |y|, with gamma_K of both sides."""
    w = networks.Writer(1)
    w.node("MatMul", ["x", w.weight("w", 32, 16)], "y")
    model, feed = Model(w.model({"x": (FLOAT, list(ROWS))}, ["y"])), {"x": normal(*ROWS)}
    weight = onnx.numpy_helper.to_array(model.proto.graph.initializer[0])
    y = feed["x"] @ weight
    gamma = 2 * 32 * FP32.u / (1 - 32 * FP32.u)
    out = 2 * FP32.u + (fmt.u if fmt is not FP32 else 0)
    factor = (1 + operands) ** 2 * (1 + gamma) * (1 + out) - 1
    expected = factor * (np.abs(feed["x"]).astype(np.float64) @ np.abs(weight)) + out * np.abs(y)
    assert bound_of(model, feed, y, roundoff_model(FP32, fmt)) == pytest.approx(expected, rel=2e-3)


# ---- no healthy layer breaks it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("name", ["fp16", "bf16", "tf32", "fp8", "e5m2", "int8"])
def test_an_emulated_layer_keeps_within_it(make, name):
    for seed in range(3):
        model, feed = model_of(make, seed), {"x": normal(*LAYERS[make], seed=seed)}
        work = Workload(samples=[feed].__iter__)
        candidate = EmulateRunner(format=name, threads=1).calibrated(model, work)
        allowed = roundoff_model(FP32, candidate.arithmetic, largest=dict(candidate.ranges or ()))
        y, other = infer(ORT, model, feed)["y"], infer(candidate, model, feed)["y"]
        bound = bound_of(model, feed, other, allowed)
        assert bound is not None
        assert bound.shape == y.shape
        assert use_of(other.astype(np.float64) - y, bound) <= 1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("decomposed", [False, True])
def test_a_softmax_keeps_within_it_however_it_is_rounded_and_however_large_its_inputs_are(scale, decomposed):
    model, feed = model_of(softmax), {"x": np.float32(scale) * normal(*ROWS)}
    for name in ("fp16", "bf16"):
        candidate = EmulateRunner(format=name, threads=1, decomposed=decomposed)
        y, other = infer(ORT, model, feed)["y"], infer(candidate, model, feed)["y"]
        bound = bound_of(model, feed, other, roundoff_model(FP32, candidate.arithmetic))
        assert use_of(other.astype(np.float64) - y, bound) <= 1


@pytest.mark.parametrize(("opset", "axis", "found"), [(11, 1, True), (11, 0, False), (13, 0, True), (18, 1, True)])
def test_a_softmax_is_over_the_axis_that_the_opset_means(opset, axis, found):
    w = networks.Writer(1)
    w.node("Softmax", ["x"], "y", axis=axis)
    model, feed = Model(w.model({"x": (FLOAT, list(ROWS))}, ["y"], opset=opset)), {"x": normal(*ROWS)}
    y, other = infer(ORT, model, feed)["y"], infer(EmulateRunner(format="fp16", threads=1), model, feed)["y"]
    bound = bound_of(model, feed, other, roundoff_model(FP32, FP16))
    assert (bound is not None) == found
    if bound is not None:
        assert 0 < use_of(other.astype(np.float64) - y, bound) <= 1


@pytest.mark.parametrize("make", LAYERS)
def test_another_order_of_fp32_sums_keeps_within_it(make):
    model, feed = model_of(make), {"x": normal(*LAYERS[make])}
    y, other = infer(ORT, model, feed)["y"], infer(OnnxrtRunner(threads=1, optimization="disable"), model, feed)["y"]
    assert use_of(other.astype(np.float64) - y, bound_of(model, feed, other, roundoff_model(FP32, FP32))) <= 1


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1e-3])
def test_what_is_below_the_formats_smallest_numbers_is_allowed_to_vanish(scale):
    model, feed = model_of(linear), {"x": np.float32(scale) * normal(*ROWS)}
    y, other = infer(ORT, model, feed)["y"], infer(EmulateRunner(format="fp16", threads=1), model, feed)["y"]
    assert use_of(other.astype(np.float64) - y, bound_of(model, feed, other, roundoff_model(FP32, FP16))) <= 1


def test_sums_in_fp16_keep_within_the_bound_of_sums_in_fp16_alone():
    w = networks.Writer(1)
    w.node("MatMul", ["x", w.weight("w", 32, 16)], "y")
    model, feed = Model(w.model({"x": (FLOAT, list(ROWS))}, ["y"])), {"x": normal(*ROWS)}
    weight = onnx.numpy_helper.to_array(model.proto.graph.initializer[0])
    total = np.zeros((24, 16), np.float16)
    for k in range(32):
        total = total + (feed["x"][:, k : k + 1] * weight[k]).astype(np.float16)
    error = total.astype(np.float64) - feed["x"] @ weight
    wide, narrow = (roundoff_model(FP32, FP16, adding) for adding in (FP32, FP16))
    assert use_of(error, bound_of(model, feed, total, narrow)) <= 1
    assert use_of(error, bound_of(model, feed, total, roundoff_model(FP32, FP32))) > 100
    assert wide.adding_in(FP16) == narrow


# ---- what breaks it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [f for f in LAYERS if f is not moved])
def test_a_wrong_element_among_many_breaks_it(make):
    model, feed = model_of(make), {"x": normal(*LAYERS[make])}
    y = infer(ORT, model, feed)["y"]
    place = np.unravel_index(int(np.abs(y).argmax()), y.shape)
    other = y.copy()
    other[place] *= np.float32(1.01)
    assert use_of(other.astype(np.float64) - y, bound_of(model, feed, other, roundoff_model(FP32, FP32))) > 1


# ---- where there is none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes",
    [
        "y = LogSoftmax(x)",
        "a = Add(x, x)  y = Softmax(a)",
        "y = Exp(x)",
        "y = my.Op(x)",
        "s = Sqrt(x)  y = Div(x, s)",
        "t = Cast<to=6>(x)  y = Cast<to=1>(t)",
        "c = Greater(x, x)  y = Where(c, x, x)",
    ],
)
def test_without_a_rule_there_is_no_bound(nodes):
    model = Model(parsed(f"g (float[4, 4] x) => (float[4, 4] y) {{{nodes}}}", domains=["my"]))
    specs = {"x": TensorSpec("x", np.dtype(np.float32), (4, 4))}
    part = backward(model.index, ["y"], ["x"])
    proto = perturbed(model, [(0, part)], specs, roundings(FP32, FP32)).model.proto
    before = proto.SerializeToString(deterministic=True)
    assert add_bounds(proto.graph, model.index, [(0, part)], specs, roundoff_model(FP32, FP16)) == {}
    after = onnx.ModelProto.FromString(proto.SerializeToString())
    assert [o.name for o in after.graph.output] == [o.name for o in onnx.ModelProto.FromString(before).graph.output]


def test_sums_too_long_for_their_accumulator_have_none():
    model, feed = model_of(linear), {"x": normal(*ROWS)}
    assert bound_of(model, feed, normal(24, 16), roundoff_model(FP32, FP16, FP16)) is not None
    w = networks.Writer(1)
    w.node("MatMul", ["x", w.weight("w", 2048, 4)], "y")
    model = Model(w.model({"x": (FLOAT, [2, 2048])}, ["y"]))
    assert bound_of(model, {"x": normal(2, 2048)}, normal(2, 4), roundoff_model(FP32, FP16, FP16)) is None


@pytest.mark.parametrize("fmt", [INT8, E4M3], ids=str)
def test_scaled_formats_have_none_unless_their_ranges_are_known(fmt):
    assert roundoff_model(FP32, fmt) is None
    assert roundoff_model(FP32, fmt, largest={"x": 1.0}) is not None


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "count"),
    [
        ("MatMul", [(4, 8, 32), (32, 16)], {}, 32),
        ("MatMul", [None, (32, 16)], {}, 32),
        ("MatMul", [None, None], {}, None),
        ("Conv", [None, (32, 16, 3, 3)], {}, 145),
        ("Conv", [(1, 16, 8, 8), None], {}, None),
        ("ConvTranspose", [None, (16, 4, 2, 2)], {"group": 2}, 33),
        ("Gemm", [None, (16, 32)], {"transB": 1}, 35),
        ("Einsum", [(4, 8), (8, 5)], {"equation": "ij,jk->ik"}, 8),
        ("Einsum", [(2, 3, 4), (2, 3, 4)], {"equation": "bhd,bhd->b"}, 12),
        ("Einsum", [(4, 8), (8, 5)], {"equation": "...j,jk->...k"}, None),
        ("Relu", [(4, 8)], {}, None),
    ],
)
def test_how_many_products_a_sum_has(op, shapes, attributes, count):
    names = [f"i{n}" for n in range(len(shapes))]
    node = helper.make_node(op, names, ["y"], **attributes)
    assert product_count(node, dict(zip(names, shapes, strict=True)).get) == count
