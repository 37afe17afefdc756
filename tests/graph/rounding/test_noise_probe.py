"""Expected noise against brute force: what rounding does, measured, is what a probe says that it does."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
import pytest
from layerdiff import EmulateRunner, OnnxrtRunner
from layerdiff.compare.causes.judgement import GAIN_LIMIT, RMS_LIMIT, SLICE_LIMIT, judge, plain_noise
from layerdiff.graph.cutting.slices import backward, exploded_name
from layerdiff.graph.formats import BF16, FP16, FP32, INT8, TF32
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.noise_probe import drawn, known, perturbed
from layerdiff.graph.rounding.roundings import KAPPA, roundings
from layerdiff.graph.rounding.term_count import term_count
from layerdiff.graph.specs import TensorSpec
from onnx import helper

from support import networks
from support.models import infer, normal, parsed

FLOAT = networks.FLOAT
FORMATS = {"fp16": FP16, "bf16": BF16, "tf32": TF32}
ORT = OnnxrtRunner(threads=1)


def run(model: Model, feed):
    return infer(ORT, model, feed)


# ---- one layer of each kind: (model, feed) --------------------------------------------------------------------------


def matmul(k: int = 256):
    w = networks.Writer(1)
    w.node("MatMul", ["x", w.weight("w", k, 64)], "y")
    return w.model({"x": (FLOAT, [64, k])}, ["y"]), {"x": normal(64, k)}


def matmul_of_two():
    w = networks.Writer(1)
    w.node("MatMul", ["x", "b"], "y")
    return w.model({"x": (FLOAT, [4, 48, 64]), "b": (FLOAT, [4, 64, 48])}, ["y"]), {
        "x": normal(4, 48, 64),
        "b": normal(4, 64, 48, seed=1),
    }


def conv():
    w = networks.Writer(2)
    w.conv("x", "y", (16, 32))
    return w.model({"x": (FLOAT, [2, 16, 12, 12])}, ["y"]), {"x": normal(2, 16, 12, 12)}


def conv_group():
    w = networks.Writer(2)
    w.node("Relu", [w.batch_norm(w.conv("x", "c", (16, 32)), "bn", 32)], "y")
    return w.model({"x": (FLOAT, [2, 16, 12, 12])}, ["y"]), {"x": normal(2, 16, 12, 12)}


def depthwise():
    w = networks.Writer(2)
    w.conv("x", "y", (1, 32), group=32)
    return w.model({"x": (FLOAT, [2, 32, 12, 12])}, ["y"]), {"x": normal(2, 32, 12, 12)}


def deformable():
    w = networks.Writer(2)
    w.node("DeformConv", ["x", w.weight("w", 32, 16, 3, 3), w.value("o", np.zeros((2, 18, 10, 10), np.float32))], "y")
    return w.model({"x": (FLOAT, [2, 16, 12, 12])}, ["y"], opset=19), {"x": normal(2, 16, 12, 12)}


def power():
    w = networks.Writer(2)
    w.node("Pow", ["x", "p"], "y")
    feed = {"x": 20 + normal(64, 64), "p": 1 + normal(64, 64, seed=1) / 10}
    return w.model({"x": (FLOAT, [64, 64]), "p": (FLOAT, [64, 64])}, ["y"]), feed


def gemm():
    w = networks.Writer(3)
    w.node("Gemm", ["x", w.weight("w", 64, 128), w.weight("b", 64)], "y", transB=1)
    return w.model({"x": (FLOAT, [64, 128])}, ["y"]), {"x": normal(64, 128)}


def softmax():
    w = networks.Writer(4)
    w.node("Softmax", ["x"], "y", axis=-1)
    return w.model({"x": (FLOAT, [64, 64])}, ["y"]), {"x": 2 * normal(64, 64)}


def layer_normalization():
    w = networks.Writer(5)
    w.node("LayerNormalization", ["x", w.weight("g", 64, low=0.5), w.weight("b", 64)], "y", axis=-1)
    return w.model({"x": (FLOAT, [64, 64])}, ["y"], opset=17), {"x": normal(64, 64)}


def layer_normalization_in_pieces():
    w = networks.Writer(5)
    w.layer_norm("x", "y", 64)
    return w.model({"x": (FLOAT, [64, 64])}, ["y"]), {"x": normal(64, 64)}


def gelu_in_pieces():
    w = networks.Writer(6)
    w.gelu("x", "y")
    return w.model({"x": (FLOAT, [64, 64])}, ["y"]), {"x": normal(64, 64)}


def lstm(steps: int = 8):
    w, h = networks.Writer(7), 32
    w.node("LSTM", ["x", w.weight("w", 1, 4 * h, 16), w.weight("r", 1, 4 * h, h)], "y", hidden_size=h)
    return w.model({"x": (FLOAT, [steps, 16, 16])}, ["y"]), {"x": normal(steps, 16, 16)}


def residual_sum():
    w = networks.Writer(8)
    w.node("Add", ["x", "b"], "y")
    return w.model({"x": (FLOAT, [64, 64]), "b": (FLOAT, [64, 64])}, ["y"]), {
        "x": normal(64, 64),
        "b": normal(64, 64, seed=1),
    }


LAYERS = [
    matmul, matmul_of_two, conv, conv_group, depthwise, deformable, power, gemm, softmax, layer_normalization,
    layer_normalization_in_pieces, gelu_in_pieces, lstm, residual_sum,
]  # fmt: skip


def expected(model: Model, feed, candidate, seed: int = 1, adding=FP32):
    """The probe's noise of output ``y``, enlarged, and the roundings it was made with."""
    rounding = roundings(FP32, candidate, accumulator=adding)
    part = backward(model.index, ["y"], list(feed))
    specs = {n: TensorSpec(n, a.dtype, a.shape) for n, a in feed.items()}
    probed = perturbed(model, [(0, part)], specs, rounding, seed=seed).model
    made = drawn(probed, feed, seed, run)[exploded_name("y", 0)]
    return made - infer(ORT, model, feed)["y"], rounding


def rms_z(model: Model, feed, y: np.ndarray, other: np.ndarray, candidate) -> float:
    noise, rounding = expected(model, feed, candidate)
    z = judge(y, other, noise, rounding).rms_z
    assert z is not None
    return z


# ---- the formula ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "u"), [(np.float16, FP16.u), (ml_dtypes.bfloat16, BF16.u)])
def test_kappa_is_the_mean_square_of_a_rounding_in_units_of_u(dtype, u):
    x = np.exp2(np.random.default_rng(0).uniform(0, 8, 1 << 18)).astype(np.float32)
    relative = (x.astype(dtype).astype(np.float32) - x) / x
    assert np.mean((relative / u) ** 2) == pytest.approx(KAPPA, rel=0.02)
    assert pytest.approx(0.180, abs=5e-4) == KAPPA


@pytest.mark.parametrize("k", [16, 256, 2048])
def test_of_a_product_the_probe_gives_the_closed_form(k):
    """sigma^2 = kappa [(u_a^2 + u_b^2) (A o A)(B o B)]; the accumulator's part vanishes beside FP16's."""
    proto, feed = matmul(k)
    noise, rounding = expected(Model(proto), feed, FP16)
    a, b = feed["x"].astype(np.float64), onnx.numpy_helper.to_array(proto.graph.initializer[0]).astype(np.float64)
    variance = KAPPA * 2 * FP16.u**2 * ((a * a) @ (b * b))
    assert np.sqrt(np.mean((noise / rounding.gain) ** 2)) == pytest.approx(math.sqrt(variance.mean()), rel=0.1)


@pytest.mark.parametrize("k", [64, 512])
def test_of_an_fp32_product_the_probe_has_the_accumulators_part(k):
    """sigma^2 = kappa 2 u^2 K / 2 (A o A)(B o B), for two runtimes, plus the rounding of each product's sum."""
    proto, feed = matmul(k)
    noise, rounding = expected(Model(proto), feed, FP32)
    a, b = feed["x"].astype(np.float64), onnx.numpy_helper.to_array(proto.graph.initializer[0]).astype(np.float64)
    variance = KAPPA * 2 * FP32.u**2 * k / 2 * ((a * a) @ (b * b))
    assert np.sqrt(np.mean((noise / rounding.gain) ** 2)) == pytest.approx(math.sqrt(variance.mean()), rel=0.25)


@pytest.mark.parametrize(("k", "roundings"), [(16, 0), (144, 8), (256, 15), (1152, 71), (4608, 287)])
def test_an_fp16_accumulator_rounds_once_for_16_products(k, roundings):
    """sigma^2 = kappa u^2 [2 + (ceil(K / 16) - 1) / 2] (A o A)(B o B)."""
    proto, feed = matmul(k)
    noise, rounding = expected(Model(proto), feed, FP16, adding=FP16)
    a, b = feed["x"].astype(np.float64), onnx.numpy_helper.to_array(proto.graph.initializer[0]).astype(np.float64)
    variance = KAPPA * FP16.u**2 * (2 + roundings / 2) * ((a * a) @ (b * b))
    assert np.sqrt(np.mean((noise / rounding.gain) ** 2)) == pytest.approx(math.sqrt(variance.mean()), rel=0.1)


@pytest.mark.parametrize(("k", "measured"), [(144, 5.4e-4), (256, 6.8e-4), (1152, 1.3e-3), (4608, 2.4e-3)])
def test_expected_noise_is_the_error_that_kernels_with_fp16_accumulators_made(k, measured):
    """The relative errors of healthy TensorRT kernels (docs/gpu.md): their RMS z is near 1."""
    proto, feed = matmul(k)
    noise, rounding = expected(Model(proto), feed, FP16, adding=FP16)
    y = infer(ORT, Model(proto), feed)["y"]
    size = math.hypot(float(np.sqrt(np.mean((noise / rounding.gain) ** 2) / np.mean(y * y))), rounding.result)
    assert size == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("k", [64, 1024])
def test_emulated_fp16_sums_are_healthy_and_sums_that_round_for_every_product_are_not_far_from_it(k):
    proto, feed = matmul(k)
    model = Model(proto)
    y, other = (
        infer(ORT, model, feed)["y"],
        infer(EmulateRunner(format="fp16", fp16_accumulation=True, threads=1), model, feed)["y"],
    )
    noise, rounding = expected(model, feed, FP16, adding=FP16)
    healthy = judge(y, other, noise, rounding)
    assert healthy.rms_z == pytest.approx(1, rel=0.15)
    assert not healthy.exceeds_noise
    a, weight = (m.astype(np.float16) for m in (feed["x"], onnx.numpy_helper.to_array(proto.graph.initializer[0])))
    total = np.zeros(y.shape, np.float16)
    for i in range(k):
        total = total + a[:, i : i + 1] * weight[i]
    one_by_one = judge(y, total.astype(np.float32), noise, rounding)
    assert 1.5 < one_by_one.rms_z < 8


@pytest.mark.parametrize(
    ("op", "maps", "ratio"),
    [  # sqrt((operands + K / 2) / operands), K = 576 and 9
        ("Conv <group = 8> (x, w)", 8, math.sqrt((2 + 288) / 2)),
        ("GlobalAveragePool (x)", 512, math.sqrt(1 + 4.5)),
    ],
)
def test_what_runs_on_no_tensor_core_may_round_for_every_term(op, maps, ratio):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 64, 3, 3)).astype(np.float32)
    proto = parsed(f"g (float[16, 512, 3, 3] x) => (float[16, {maps}, 1, 1] y) {{ y = {op} }}", w=weight)
    feed = {"x": rng.normal(size=(16, 512, 3, 3)).astype(np.float32)}
    sizes = []
    for adding in (FP16, FP32):
        noise, rounding = expected(Model(proto), feed, FP16, adding=adding)
        sizes.append(np.sqrt(np.mean((noise / rounding.gain) ** 2)))
    assert sizes[0] / sizes[1] == pytest.approx(ratio, rel=0.2)


def test_the_same_seed_gives_the_same_noise_and_another_seed_another_one_of_equal_size():
    proto, feed = matmul()
    one, again, other = (expected(Model(proto), feed, FP16, seed=s)[0] for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1
    assert one.std() == pytest.approx(other.std(), rel=0.1)


EXACT = {
    "y = ReverseSequence <batch_axis = 0, time_axis = 1> (x, l)": {"l": np.full(4, 3)},
    "y = Compress <axis = 0> (x, k)": {"k": np.array([True, False, True, True])},
    "y = Trilu (x)": {},
    "y = CastLike (x, t)": {"t": np.zeros(1, np.float32)},
    "y = GatherND (x, i)": {"i": np.array([[0], [2]])},
}


@pytest.mark.parametrize("node", EXACT)
def test_an_operator_that_rounds_nothing_adds_no_noise(node):
    """Nothing but what the operand is rounded by, where it is."""
    weights = {k: v.astype(np.int64) if v.dtype.kind == "i" else v for k, v in EXACT[node].items()}
    proto = parsed(f"g (float[4, 4] x) => (float y) {{ {node} }}", **weights)
    feed = {"x": normal(4, 4)}
    part = backward(Model(proto).index, ["y"], ["x"])
    specs = {"x": TensorSpec("x", np.dtype(np.float32), (4, 4))}
    probed = perturbed(Model(proto), [(0, part)], specs, roundings(FP32, FP32)).model
    np.testing.assert_array_equal(
        drawn(probed, feed, 1, run)[exploded_name("y", 0)], infer(ORT, Model(proto), feed)["y"]
    )


# ---- a healthy layer against its expected noise ---------------------------------------------------------------------


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_an_emulated_layer_errs_as_expected(make, name):
    proto, feed = make()
    model = Model(proto)
    y, other = infer(ORT, model, feed)["y"], infer(EmulateRunner(format=name, threads=1), model, feed)["y"]
    assert 0.5 <= rms_z(model, feed, y, other, FORMATS[name]) <= 1.6


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("k", [32, 512])
def test_a_product_rounded_in_numpy_errs_as_expected(dtype, k):
    proto, feed = matmul(k)
    weight = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    a, b = (v.astype(dtype).astype(np.float32) for v in (feed["x"], weight))
    other = (a @ b).astype(dtype).astype(np.float32)
    fmt = FP16 if dtype is np.float16 else BF16
    assert 0.8 <= rms_z(Model(proto), feed, feed["x"] @ weight, other, fmt) <= 1.2


def sequential(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total = total + a[:, k : k + 1] * b[k]
    return total


def blocked(a: np.ndarray, b: np.ndarray, width: int = 16) -> np.ndarray:
    parts = [sequential(a[:, i : i + width], b[i : i + width]) for i in range(0, a.shape[1], width)]
    return np.sum(parts, axis=0, dtype=np.float32)


ORDERS = {
    "forwards": sequential,
    "backwards": lambda a, b: sequential(a[:, ::-1], b[::-1]),
    "in blocks": blocked,
    "blas": lambda a, b: a @ b,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("k", [64, 512, 2048])
def test_another_order_of_fp32_sums_is_within_the_limits(order, k):
    proto, feed = matmul(k)
    weight = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    noise, rounding = expected(Model(proto), feed, FP32)
    exact = (feed["x"].astype(np.float64) @ weight.astype(np.float64)).astype(np.float32)
    for reference in (exact, sequential(feed["x"], weight)):
        verdict = judge(reference, ORDERS[order](feed["x"], weight), noise, rounding)
        assert not verdict.exceeds_noise
        assert verdict.rms_z < 1.5
        assert verdict.slice_z < 2.5


# ---- what is beyond it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [matmul, conv, gemm, layer_normalization], ids=lambda f: f.__name__)
@pytest.mark.parametrize("reference", [FP32, FP16], ids=str)
def test_a_gain_of_three_hundredths_of_a_percent_stands_out(make, reference):
    """Under FP16's noise as well, where it is smaller than the noise of any element."""
    proto, feed = make()
    model = Model(proto)
    y = infer(ORT, model, feed)["y"]
    other = y if reference is FP32 else infer(EmulateRunner(format="fp16", threads=1), model, feed)["y"]
    noise, rounding = expected(model, feed, reference)
    healthy, off = (judge(y, v, noise, rounding) for v in (other, other * np.float32(1.0003)))
    assert not healthy.exceeds_noise
    assert off.exceeds_noise
    if reference is FP16:
        assert healthy.gain_sigma < 4
        assert off.gain_sigma > GAIN_LIMIT
        assert off.gain == pytest.approx(3e-4, rel=0.3)
        assert off.rms_z < RMS_LIMIT[True]


def test_a_narrow_accumulator_is_beyond_and_the_more_so_the_longer_the_sums():
    found = []
    for k in (64, 512):
        proto, feed = matmul(k)
        weight = onnx.numpy_helper.to_array(proto.graph.initializer[0])
        total = np.zeros((64, 64), np.float16)
        for i in range(k):
            total = total + (feed["x"][:, i : i + 1] * weight[i]).astype(np.float16)
        found.append(rms_z(Model(proto), feed, feed["x"] @ weight, total.astype(np.float32), FP32))
    assert found[0] > 100 * RMS_LIMIT[False]
    assert found[1] > found[0] / 2  # both sides grow with sqrt(K)
    proto, feed = matmul(2048)
    weight = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    total = np.zeros((64, 64), np.float16)
    for i in range(2048):
        total = total + (feed["x"][:, i : i + 1] * weight[i]).astype(np.float16)
    # beside a candidate that claims FP16 operands with FP32 sums it grows with K
    assert rms_z(Model(proto), feed, feed["x"] @ weight, total.astype(np.float32), FP16) > RMS_LIMIT[True]


def test_one_wrong_channel_of_many_is_seen_in_its_slice():
    proto, feed = conv()
    model = Model(proto)
    y, other = infer(ORT, model, feed)["y"], infer(EmulateRunner(format="fp16", threads=1), model, feed)["y"]
    other[:, 7] *= 1.02
    noise, rounding = expected(model, feed, FP16)
    verdict = judge(y, other, noise, rounding)
    assert verdict.exceeds_noise
    assert verdict.slice_z > SLICE_LIMIT[True]


# ---- what is known, and how many terms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "is_known"),
    [
        ("y = Relu(x)", True),
        ("y = com.microsoft.Gelu(x)", True),
        ("y = my.Op(x)", False),
        ("t = Cast<to=10>(x)  y = Cast<to=1>(t)", True),
        ("t = Cast<to=16>(x)  y = Cast<to=1>(t)", True),
        ("t = Cast<to=17>(x)  y = Cast<to=1>(t)", False),
    ],
)
def test_noise_is_known_of_known_operators_in_types_of_16_bits_and_more(text, is_known):
    proto = parsed(f"g (float[2] x) => (float[2] y) {{{text}}}", opset=19, domains=["my", "com.microsoft"])
    index = Model(proto).index
    assert known(index, backward(index, ["y"], [])) == is_known


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "k"),
    [
        ("MatMul", [(4, 8, 32), (32, 16)], {}, 32),
        ("MatMul", [None, (32, 16)], {}, 32),
        ("Gemm", [(8, 32), (16, 32)], {"transB": 1}, 32),
        ("Gemm", [(8, 32), (32, 16)], {}, 32),
        ("Conv", [(1, 16, 8, 8), (32, 16, 3, 3)], {}, 144),
        ("Conv", [(1, 32, 8, 8), (32, 1, 3, 3)], {"group": 32}, 9),
        ("ConvTranspose", [(1, 16, 8, 8), (16, 4, 2, 2)], {}, 64),
        ("DeformConv", [(1, 16, 8, 8), (32, 16, 3, 3)], {}, 144),
        ("AveragePool", [(1, 4, 8, 8)], {"kernel_shape": [2, 2]}, 4),
        ("GlobalAveragePool", [(1, 4, 8, 8)], {}, 64),
        ("Softmax", [(4, 10)], {"axis": -1}, 10),
        ("LayerNormalization", [(4, 10)], {"axis": -1}, 10),
        ("ReduceMean", [(4, 10, 6)], {"axes": [1, 2]}, 60),
        ("ReduceMax", [(4, 10, 6)], {"axes": [1, 2]}, 1),
        ("Relu", [(4, 10)], {}, 1),
        ("MatMul", [None, None], {}, 1),
    ],
)
def test_terms_of_a_sum(op, shapes, attributes, k):
    names = [f"i{n}" for n in range(len(shapes))]
    node = helper.make_node(op, names, ["y"], **attributes)
    assert term_count(node, dict(zip(names, shapes, strict=True)).get) == k


@pytest.mark.parametrize("fmt", [FP16, BF16, TF32], ids=str)
def test_the_roundings_of_a_narrow_candidate_are_its_own_whoever_is_the_reference(fmt):
    one, other = roundings(FP32, fmt), roundings(fmt, FP32)
    assert one == other
    assert one.operand == pytest.approx(math.sqrt(KAPPA) * fmt.u)
    assert one.result >= one.operand
    assert one.accumulator < FP32.u


def test_between_two_narrow_sides_both_round():
    assert roundings(FP16, FP16).operand == pytest.approx(math.sqrt(2 * KAPPA) * FP16.u)
    assert roundings(FP32, FP32).operand == 0


def test_a_scaled_integer_has_steps_that_are_taken_as_they_are():
    rounding = roundings(FP32, INT8, {"x": 0.01})
    assert rounding.gain == 1
    assert rounding.steps == {"x": 0.01}
    assert roundings(FP32, FP16).gain > 1


@pytest.mark.parametrize("k", [16, 1024])
def test_plain_noise_bounds_from_below_what_a_probe_would_say(k):
    """What passes the closed form would pass the probe: the shortcut excuses nothing."""
    proto, feed = matmul(k)
    noise, rounding = expected(Model(proto), feed, FP32)
    y = infer(ORT, Model(proto), feed)["y"]
    measured = judge(y, y * np.float32(1 + 1e-6), noise, rounding).expected
    assert plain_noise(rounding, k) <= 1.3 * measured


def test_a_probe_draws_in_bodies_and_of_integers_nothing():
    model, feed = Model(networks.control()), {"x": normal(4, 4)}
    part = backward(model.index, ["last"], ["looped", "mean"])
    inputs = {n: networks.run_all(model.proto, feed)[n] for n in part.inputs}
    specs = {n: TensorSpec(n, a.dtype, a.shape) for n, a in inputs.items()}
    probed = perturbed(model, [(3, part)], specs, roundings(FP32, FP16)).model
    made = drawn(probed, inputs, 1, run)[exploded_name("last", 3)]
    exact = networks.run_all(model.proto, feed)["last"]
    assert not np.array_equal(made, exact)
    assert np.allclose(made, exact, rtol=0.05, atol=0.05)
