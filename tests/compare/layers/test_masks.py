"""Masks of -1e9 and of FP32's least number: what stops at the ends of a format's range and changes nothing is no
culprit, and layers of a typed graph are given what that graph holds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.typed import typed
from layerdiff.graph.specs import TensorSpec, held

from support.layerwise import compare, mentions
from support.models import parsed

RNG = np.random.default_rng(3)
MASKS = [-1e9, -65504.0 * 4, float(np.finfo(np.float32).min)]
WEIGHTS = {
    "q": (RNG.standard_normal((16, 16)) / 4).astype(np.float32),
    "v": (RNG.standard_normal((16, 16)) / 4).astype(np.float32),
}
HIDDEN = np.where(np.arange(12) > 8, 1.0, 0.0).astype(np.float32)


def attention(mask: float) -> onnx.ModelProto:
    text = """g (float[4,12,16] x, float[12] m) => (float[4,12,16] y) {
        [big] b = Mul(m, least) [keys] k = MatMul(x, q) [turn] t = Transpose<perm=[0,2,1]>(k)
        [scores] s = MatMul(x, t) [masked] a = Add(s, b) [soft] p = Softmax(a) [mix] z = MatMul(p, x)
        [out] y = MatMul(z, v)
    }"""
    return parsed(text, least=np.float32(mask), **WEIGHTS)


def samples():
    return [{"x": RNG.standard_normal((4, 12, 16)).astype(np.float32), "m": HIDDEN}]


@pytest.mark.parametrize("fmt", ["fp16"])
@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_that_stops_at_the_range_is_a_note(mask, fmt):
    report = compare(attention(mask), EmulateRunner(format=fmt), samples())
    assert report.verdict == "pass"
    assert not report.culprits
    assert mentions(report, "the outputs agree all the same")


@pytest.mark.parametrize("mask", MASKS)
def test_layers_of_a_typed_file_are_given_what_it_holds(mask):
    good = attention(mask)
    converted = typed(Model(good), "fp16").model.proto
    report = Comparator(
        good, [OnnxrtRunner()], candidate_model=converted, data_loader=samples(), layers="guilty"
    ).compare()
    assert not [c.node for c in report.culprits if c.cause != "spread"]


@pytest.mark.parametrize(
    ("value", "expected"), [(-3.4e38, -65504.0), (1e9, 65504.0), (2.0, 2.0), (np.inf, np.inf), (-np.inf, -np.inf)]
)
def test_a_finite_number_beyond_the_range_becomes_its_greatest(value, expected):
    spec = TensorSpec("x", np.dtype(np.float16), (1,))
    assert held(np.array([value], np.float32), spec)[0] == np.float16(expected)
    assert held(np.array([value], np.float32), None)[0] == np.float32(value)


def test_an_overflow_that_matters_stays_a_culprit():
    text = """g (float[4,16] x) => (float[4,16] y) {
        [up] a = MatMul(x, w) [large] b = Mul(a, big) [down] y = Mul(b, small)
    }"""
    numbers = {"big": np.float32(1e5), "small": np.float32(1e-5)}
    report = compare(
        parsed(text, w=WEIGHTS["q"], **numbers),
        EmulateRunner(format="fp16", every_node=True),
        [{"x": RNG.standard_normal((4, 16)).astype(np.float32)}],
    )
    assert report.verdict == "fail"
    assert [c.node for c in report.culprits] == ["large"]


@pytest.mark.parametrize("mask", MASKS)
def test_an_error_behind_which_a_mask_follows_is_not_healed_by_its_size(mask):
    good = attention(mask)
    bad = onnx.ModelProto()
    bad.CopyFrom(good)
    (q,) = (t for t in bad.graph.initializer if t.name == "q")
    q.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(-WEIGHTS["q"][::-1]), "q"))
    report = compare(good, bad, samples(), layers="all")
    assert report.verdict == "fail"
    assert [(c.node, c.cause) for c in report.culprits] == [("keys", "weights")]


def test_a_layer_that_reads_more_than_its_type_holds_is_not_blamed_for_its_weights():
    """ONNX Runtime computes the typed file in FP32 and carries on past 65504; the layer by itself is given 65504."""
    text = """g (float[4,64] x) => (float[4,64] y) {
        [loud] a = Mul(x, large) [moved] r = Reshape(a, shape) [mixed] m = MatMul(r, w) [down] d = Mul(m, small)
        [back] b = Reshape(d, shape) [low] l = Exp(b) [y] y = MatMul(l, w)
    }"""
    weights = {"w": (RNG.standard_normal((64, 64)) / 8).astype(np.float32), "shape": np.array([4, 64])}
    good = parsed(text, large=np.float32(1e5), small=np.float32(1e-5), **weights)
    converted = typed(Model(good), "fp16").model.proto
    data = [{"x": RNG.standard_normal((4, 64)).astype(np.float32)}]
    report = Comparator(good, [OnnxrtRunner()], candidate_model=converted, data_loader=data, layers="all").compare()
    assert {(c.node, str(c.cause)) for c in report.culprits} <= {("loud", "overflow"), ("mixed", "overflow")}


def test_an_overflow_is_a_culprit_where_outputs_are_not_finite_though_it_contributes_nothing_finite():
    """Quantizing makes finite integers of the infinite value, so that no contribution of it can be told."""
    text = """g (float[4,64] x) => (float[4,64] y) {
        [loud] a = Mul(x, large) [down] d = Mul(a, small) [gate] s = Sigmoid(d) [silu] m = Mul(s, d)
        [quantized] q, scale, zero = DynamicQuantizeLinear(m) [ints] i = MatMulInteger(q, w, zero)
        [floats] f = Cast<to=1>(i) [scaled] z = Mul(f, scale) [again] b = Mul(z, large) y = Mul(b, small)
    }"""
    integers = RNG.integers(-90, 90, (64, 64)).astype(np.int8)
    model = parsed(text, large=np.float32(3e4), small=np.float32(3e-5), w=integers)
    x = RNG.uniform(-1, 1, (4, 64)).astype(np.float32)
    x[0, 0] = -3.0
    report = compare(model, EmulateRunner(format="fp16"), [{"x": x}], layers="all")
    assert report.verdict == "fail"
    assert ("loud", "overflow") in {(c.node, str(c.cause)) for c in report.culprits}
    assert "nan" not in {str(c.cause) for c in report.culprits}


@pytest.mark.parametrize("change", [1.0, 2.56])
def test_a_constant_that_differs_behind_values_beyond_the_type_is_the_culprit(change):
    """A converter that clamps constants clamps the divisor of a sum that is too large for FP16."""
    text = """g (float[4,64] x) => (float[4,64] y) {
        a = Exp(x) [sum] s = ReduceSum<keepdims = 1>(a, axes) [mean] m = Div(s, n) [y] y = Mul(m, w)
    }"""
    more = {"axes": np.array([1]), "w": RNG.standard_normal((1, 64)).astype(np.float32)}
    data = [{"x": (np.log(2500) + RNG.uniform(0, 1, (4, 64))).astype(np.float32)}]
    good, bad = (parsed(text, n=np.float32(n), **more) for n in (25600, 25600 / change))
    converted = typed(Model(bad), "fp16").model.proto
    report = Comparator(good, [OnnxrtRunner()], candidate_model=converted, data_loader=data, layers="all").compare()
    found = [(c.node, str(c.cause)) for c in report.culprits]
    assert found == ([("mean", "scale")] if change > 1 else [("sum", "overflow")])


def test_a_mask_that_is_left_out_is_told_with_the_factor_that_is_zero():
    """Its Sub is missing too, which is a matter of scale; put right, that alone mends nothing."""
    text = """g (float[4,12,16] x, int64[4,12] m) => (float[4,12,16] y) {{
        u = Unsqueeze(m, place) c = Cast<to=1>(u) {mask}
        [keys] k = MatMul(x, q) [turn] t = Transpose<perm=[0,2,1]>(k) [scores] s = MatMul(x, t)
        [masked] a = Add(s, b) [soft] p = Softmax(a) [mix] z = MatMul(p, x) [out] y = MatMul(z, v)
    }}"""
    axis, hidden = np.array([1]), np.tile(HIDDEN.astype(np.int64), (4, 1))
    first = parsed(
        text.format(mask="[sub] n = Sub(one, c) [times] b = Mul(n, w)"),
        one=np.float32(1),
        w=np.float32(-1e4),
        place=axis,
        **WEIGHTS,
    )
    second = parsed(text.format(mask="[times] b = Mul(c, w)"), w=np.float32(0), place=axis, **WEIGHTS)
    report = compare(first, second, [{**samples()[0], "m": hidden}])
    assert [c.node for c in report.culprits] == ["sub"]
    assert "Mul times too: value -10000 against 0" in report.culprits[0].evidence


def test_another_scale_beside_a_mask_is_told_with_other_weights_behind_it():
    text = """g (float[4,12,16] x) => (float[4,12,16] y) { [keys] k = MatMul(x, q) [turn] t = Transpose<perm=[0,2,1]>(k)
        [scores] s = MatMul(x, t) [scale] d = Mul(s, by) [masked] a = Add(d, mask) [soft] p = Softmax(a)
        [mix] z = MatMul(p, x) [out] y = MatMul(z, v) }"""
    mask = np.triu(np.full((12, 12), -1e9, np.float32), 1)
    right = parsed(text, mask=mask, by=np.float32(0.25), **WEIGHTS)
    wrong = parsed(text, mask=mask, by=np.float32(0.1), **WEIGHTS | {"v": WEIGHTS["v"].T.copy()})
    report = compare(right, wrong, [{"x": samples()[0]["x"]}])
    assert {culprit.node for culprit in report.culprits} == {"out", "scale"}
