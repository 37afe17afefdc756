"""A network with random roundings: what is perturbed, by how much, and that nothing else changes."""

import math

import numpy as np
import onnx
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.graph.formats import BF16, FP16, FP32, TF32
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.noise_pool import Pools
from layerdiff.graph.rounding.random_rounding import GAIN, randomized
from layerdiff.graph.rounding.recurrent import step_by_step
from layerdiff.graph.rounding.rounding_sides import Roundoff
from layerdiff.graph.rounding.roundings import KAPPA
from onnx import helper, numpy_helper, parser

from support.rewrites import optimized

RNG = np.random.default_rng(0)
COARSE = {f: Roundoff(candidate=f) for f in (FP16, BF16, TF32)}
PLAIN = Roundoff()


def model_of(text, opset=17, **constants):
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    onnx.checker.check_model(model)
    return Model(model)


def drawn(model, roundoff, feed, draws=8, gain=None):
    """The outputs without noise, and the errors of draws, scaled back."""
    network = randomized(model, roundoff, gain)
    pools = Pools(network.scales, 1 << 16)
    with OnnxrtRunner().open(model) as plain, OnnxrtRunner().open(network.model) as noisy:
        base = plain.infer(feed)
        neutral = noisy.infer(network.feed(feed, pools.neutral()))
        errors = [noisy.infer(network.feed(feed, pools.draw(k))) for k in range(draws)]
    return (
        base,
        neutral,
        {n: np.array([(e[n].astype(np.float64) - base[n]) / network.gain for e in errors]) for n in base},
    )


def rms(x):
    return math.sqrt(float(np.mean(np.square(x))))


W = RNG.standard_normal((256, 128)).astype(np.float32)
X = RNG.standard_normal((64, 256)).astype(np.float32)
PRODUCT = "(float[64,256] x) => (float[64,128] y) { y = MatMul(x, w) }"


@pytest.mark.parametrize("fmt", [FP16, BF16, TF32], ids=str)
def test_a_product_has_the_noise_that_the_formula_gives(fmt):
    """sigma^2 = kappa [(u_a^2 + u_b^2) (A o A)(B o B) + u_out^2 y^2]; TF32 rounds no result."""
    base, _, errors = drawn(model_of(PRODUCT, w=W), COARSE[fmt], {"x": X})
    operands = 2 * fmt.u**2 * np.square(X.astype(np.float64)) @ np.square(W.astype(np.float64))
    result = 0 if fmt is TF32 else fmt.u**2 * np.square(base["y"].astype(np.float64))
    assert rms(errors["y"]) == pytest.approx(math.sqrt(KAPPA * float(np.mean(operands + result))), rel=0.05)


def test_an_input_without_elements_is_perturbed_with_the_others():
    """A cache before the first token: what is put together with it has the noise of the rest."""
    graph = "{ all = Concat<axis = 0>(past, x) y = MatMul(all, w) }"
    model = model_of(f"(float[N,256] past, float[64,256] x) => (float[M,128] y) {graph}", w=W)
    _, neutral, errors = drawn(model, COARSE[FP16], {"past": X[:0], "x": X})
    alone = drawn(model_of(PRODUCT, w=W), COARSE[FP16], {"x": X})
    assert rms(errors["y"]) == pytest.approx(rms(alone[2]["y"]), rel=0.05)
    np.testing.assert_allclose(neutral["y"], alone[1]["y"], rtol=1e-5, atol=1e-4)


def test_a_product_between_fp32_runtimes_has_the_noise_of_its_sums():
    base, _, errors = drawn(model_of(PRODUCT, w=W), PLAIN, {"x": X})
    sums = 2 * FP32.u**2 * 256 / 2 * np.square(X.astype(np.float64)) @ np.square(W.astype(np.float64))
    result = 8 * FP32.u**2 * np.square(base["y"].astype(np.float64))
    assert rms(errors["y"]) == pytest.approx(math.sqrt(KAPPA * float(np.mean(sums + result))), rel=0.1)


def test_sums_in_fp16_make_more_noise_where_they_are_known_to_be():
    model = model_of("(float[64,256] x) => (float[64,128] y) { [product] y = MatMul(x, w) }", w=W)
    name = model.index.names[0]
    wide = rms(drawn(model, COARSE[FP16], {"x": X})[2]["y"])
    narrow = rms(drawn(model, Roundoff(candidate=FP16, fp16_sums=frozenset({name})), {"x": X})[2]["y"])
    assert narrow > 1.3 * wide
    elsewhere = rms(drawn(model, Roundoff(candidate=FP16, fp16_sums=frozenset({"other"})), {"x": X})[2]["y"])
    assert elsewhere == pytest.approx(wide)


def test_weights_that_a_format_holds_exactly_are_not_rounded():
    exact = W.astype(np.float16).astype(np.float32)
    less = rms(drawn(model_of(PRODUCT, w=exact), COARSE[FP16], {"x": X})[2]["y"])
    more = rms(drawn(model_of(PRODUCT, w=W), COARSE[FP16], {"x": X})[2]["y"])
    assert less == pytest.approx(more * math.sqrt(2 / 3), rel=0.05)


MOVES = {
    "moves": "t = Transpose(x) r = Reshape(t, shape) y = Relu(r)",
    "selections": "m = Max(x, x) y = Neg(m)",
    "integers": "c = Cast<to=7>(x) s = Add(c, c) y = Cast<to=1>(s)",
    "constants": "v = Mul(w, w) y = Identity(v)",
}


@pytest.mark.parametrize("name", MOVES)
def test_what_rounds_nothing_has_no_noise(name):
    text = f"(float[64,256] x) => (float y) {{ {MOVES[name]} }}"
    _, _, errors = drawn(model_of(text, w=W, shape=np.array([128, 128])), PLAIN, {"x": X})
    assert not errors["y"].any()


def test_an_unread_narrow_type_makes_no_noise():
    text = "(float[64,256] x) => (float[64,128] y) { dead = Cast<to=16>(x) y = MatMul(x, w) }"
    plain = rms(drawn(model_of(PRODUCT, w=W), PLAIN, {"x": X}, gain=1.0)[2]["y"])
    dead = rms(drawn(model_of(text, w=W), PLAIN, {"x": X})[2]["y"])
    assert dead < 3 * plain


@pytest.mark.parametrize("opset", [9, 13, 17, 20])
def test_pools_that_perturb_nothing_change_nothing(opset):
    text = "(float[64,256] x) => (float[64,128] y) { a = MatMul(x, w) b = Relu(a) c = Sigmoid(b) y = Mul(c, a) }"
    base, neutral, errors = drawn(model_of(text, opset, w=W), PLAIN, {"x": X})
    assert np.array_equal(base["y"], neutral["y"])
    assert errors["y"].any()


def test_no_two_draws_are_alike_and_each_can_be_made_again():
    model = model_of(PRODUCT, w=W)
    one, two = (drawn(model, PLAIN, {"x": X}, draws=3)[2]["y"] for _ in range(2))
    assert np.array_equal(one, two)
    together = np.corrcoef(one.reshape(3, -1))
    assert np.abs(together - np.eye(3)).max() < 0.1


def test_between_fp32_runtimes_roundings_are_enlarged_and_scaled_back():
    assert randomized(model_of(PRODUCT, w=W), PLAIN).gain == GAIN
    assert randomized(model_of(PRODUCT, w=W), COARSE[FP16]).gain == 1


def test_dimensions_that_the_graph_leaves_open_are_those_that_come():
    text = "(float[n,256] x) => (float[n,128] y) { y = MatMul(x, w) }"
    _, _, errors = drawn(model_of(text, w=W), PLAIN, {"x": X[:5]})
    assert errors["y"].shape[1:] == (5, 128)
    assert np.count_nonzero(errors["y"]) > 0.9 * errors["y"].size


def test_a_shape_that_the_file_claims_of_an_output_need_not_hold():
    text = "(float[1,128,1] x, int64 step, float[16] w) => (float[1,15,9,2] y) { y = STFT(x, step, w) }"
    feed = {"x": X[:1, :128, None], "step": np.array(2), "w": X[0, :16]}
    base, _, errors = drawn(model_of(text), PLAIN, feed)
    assert base["y"].shape == (1, 57, 9, 2)
    assert rms(errors["y"]) > 0


def loop(trips):
    body = parser.parse_graph(
        "body (int64 i, bool go, float[64] s) => (bool more, float[64] t)"
        "{ more = Identity(go) u = Sin(s) t = Add(u, u) }"
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    infos = [helper.make_tensor_value_info("x", 1, [64])], [helper.make_tensor_value_info("y", 1, [64])]
    graph = helper.make_graph([node], "g", *infos, [numpy_helper.from_array(np.array(trips), "trips")])
    return Model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))


def test_bodies_round_anew_in_every_iteration():
    """x -> 2 sin x near zero doubles every error: noise of all iterations together is more than that of the first."""
    x = np.full(64, 1e-3, np.float32)
    one, four = (rms(drawn(loop(n), PLAIN, {"x": x}, draws=16)[2]["y"]) for n in (1, 4))
    assert 8 < four / one < 8 * math.sqrt(4)


def test_both_branches_of_an_if_are_perturbed():
    text = """(float[64] x, bool c) => (float[64] y) {
        y = If (c) <
            then_branch = a () => (float[64] p) { p = Exp(x) }, else_branch = b () => (float[64] q) { q = Sin(x) }
        >
    }"""
    for choice in (True, False):
        _, _, errors = drawn(model_of(text), PLAIN, {"x": X[0, :64], "c": np.array(choice)})
        assert np.count_nonzero(errors["y"]) > 0.9 * errors["y"].size


def test_functions_of_the_models_own_are_perturbed_inside():
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[64] x) => (float[64] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["" : 17]> twice (a) => (b) { e = Exp(a) b = Exp(e) }"""
    _, _, errors = drawn(Model(parser.parse_model(text)), PLAIN, {"x": X[0, :64]})
    assert np.count_nonzero(errors["y"]) > 0.9 * errors["y"].size


def test_a_graph_typed_fp16_rounds_where_it_says():
    text = "(float16[64,256] x) => (float16[64,128] y) { y = MatMul(x, w) }"
    _, _, errors = drawn(model_of(text, w=W.astype(np.float16)), PLAIN, {"x": X.astype(np.float16)})
    assert 0.3 * FP16.u < rms(errors["y"]) / 16 < FP16.u


@pytest.mark.parametrize(("weight", "moves"), [([1e-7, 1e-7], True), ([1e-2, 1e-2], False), (1e-7, False)])
def test_subnormal_weights_may_be_lifted_but_no_single_constant(weight, moves):
    model = model_of("(float[64,2] x) => (float[64,2] y) { y = Mul(x, w) }", w=np.array(weight, np.float32))
    usual, more = (
        rms(drawn(model, Roundoff(candidate=FP16, subnormals=s), {"x": 1e4 + X[:, :2]}, draws=16)[2]["y"])
        for s in (False, True)
    )
    assert (more > 3 * usual) == moves


def test_subnormal_results_keep_their_sign_and_zero_stays_zero():
    model = model_of("(float[64,8] x) => (float[64,8] y) { y = Relu(x) }")
    x = np.where(X[:, :8] > 0, 3e-8, 0).astype(np.float32)
    base, _, errors = drawn(model, Roundoff(candidate=FP16, subnormals=True), {"x": x})
    assert rms(errors["y"]) > 1e-9
    assert np.all(errors["y"][:, base["y"] == 0] == 0)
    assert np.all(base["y"] + errors["y"] >= 0)


def scan(steps, body, **constants):
    """A state that starts as x and is passed through a body once for each step."""
    graph = parser.parse_graph(f"body (float[64] s, float[1] z) => (float[64] t) {{ {body} }}")
    node = helper.make_node("Scan", ["x", "zeros"], ["y"], body=graph, num_scan_inputs=1)
    infos = [helper.make_tensor_value_info("x", 1, [64])], [helper.make_tensor_value_info("y", 1, [64])]
    stored = {"zeros": np.zeros((steps, 1), np.float32), **constants}
    weights = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph([node], "g", *infos, weights)
    return Model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))


def test_the_steps_of_a_scan_round_anew():
    """As in a loop: the noise of four steps together is more than that of the first, grown eight times."""
    x = np.full(64, 1e-3, np.float32)
    body = "u = Sin(s) t = Add(u, u)"
    one, four = (rms(drawn(scan(n, body), PLAIN, {"x": x}, draws=16)[2]["y"]) for n in (1, 4))
    assert 8 < four / one < 8 * math.sqrt(4)


def test_a_weight_is_the_same_in_every_step():
    """The error of a factor grows as the number of steps, not as its root."""
    x, factor = np.ones(64, np.float32), np.full(64, 1.001, np.float32)
    coarse = Roundoff(candidate=BF16)
    one, many = (rms(drawn(scan(n, "t = Mul(s, w)", w=factor), coarse, {"x": x}, draws=16)[2]["y"]) for n in (1, 64))
    assert many / one > 0.5 * 64 / math.sqrt(3)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("GRU", 3), ("LSTM", 4), ("RNN", 1)])
def test_recurrent_layers_step_by_step_compute_the_same(op, gates, direction):
    n = 2 if direction == "bidirectional" else 1
    text = f"""(float[5,2,16] x) => (float[5,{n},2,8] y, float[{n},2,8] h) {{
        y, h = {op}<hidden_size=8, direction="{direction}">(x, w, r, b)
    }}"""
    sizes = {"w": (n, gates * 8, 16), "r": (n, gates * 8, 8), "b": (n, 2 * gates * 8)}
    model = model_of(text, **{name: RNG.standard_normal(size).astype(np.float32) / 4 for name, size in sizes.items()})
    written = step_by_step(model)
    assert "Scan" in {node.op_type for node in written.proto.graph.node}
    feed = {"x": RNG.standard_normal((5, 2, 16)).astype(np.float32)}
    with OnnxrtRunner().open(model) as one, OnnxrtRunner().open(written) as other:
        expected, found = one.infer(feed), other.infer(feed)
    for name in ("y", "h"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_fp64_is_rounded_as_fp64():
    text = "(double[64,256] x) => (double[64,128] y) { y = MatMul(x, w) }"
    _, _, errors = drawn(model_of(text, w=W.astype(np.float64)), PLAIN, {"x": X.astype(np.float64)})
    assert 0 < rms(errors["y"]) < 1e-13


def test_tf32_rounds_no_constant_outside_products():
    """A mask is one minus what is seen, times FP32's least number: a one that is moved hides everything."""
    text = "(float[64,8] x) => (float[64,8] y) { d = Sub(one, x) y = Mul(d, least) }"
    model = model_of(text, one=np.float32(1), least=np.finfo(np.float32).min)
    _, _, errors = drawn(model, COARSE[TF32], {"x": np.ones((64, 8), np.float32)})
    assert np.all(errors["y"] == 0)


def test_an_fp16_file_that_lists_its_weights_among_its_inputs_can_be_drawn(tmp_path):
    """Files of old exporters do; weights that stand in a file are cast there, and are then no inputs."""
    text = "g (float16[64,256] x, float16[256,128] w) => (float16[64,128] y) { y = MatMul(x, w) }"
    proto = parser.parse_model(f'<ir_version: 4, opset_import: ["" : 13]> {text}')
    proto.graph.initializer.append(numpy_helper.from_array(W.astype(np.float16), "w"))
    onnx.save(proto, tmp_path / "old.onnx")
    x = X.astype(np.float16)
    _, _, errors = drawn(load(tmp_path / "old.onnx"), PLAIN, {"x": x})
    assert rms(errors["y"]) > 0


ROWS = RNG.standard_normal((5, 64)).astype(np.float32)[[0, 1, 0, 2, 0, 3, 1, 4]]


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("fmt", [FP32, FP16])
def test_equal_vectors_are_rounded_alike_and_others_are_not(opset, fmt):
    model = model_of("(float[8,64] x) => (float[8,128] y) { a = MatMul(x, w) y = Tanh(a) }", opset, w=W[:64])
    base, neutral, errors = drawn(model, Roundoff(candidate=fmt, by_value=True), {"x": ROWS})
    assert np.array_equal(neutral["y"], base["y"])
    for draw in errors["y"]:
        assert np.array_equal(draw[0], draw[2])
        assert np.array_equal(draw[0], draw[4])
        assert np.array_equal(draw[1], draw[6])
        assert abs(np.corrcoef(draw[0], draw[3])[0, 1]) < 0.4
    usual = drawn(model, Roundoff(candidate=fmt), {"x": ROWS})[2]["y"]
    assert rms(errors["y"]) == pytest.approx(rms(usual), rel=0.3)


def test_a_blank_image_is_rounded_alike_everywhere_and_its_channels_are_not():
    text = "(float[1,3,9,9] x) => (float[1,32,9,9] y) { a = Conv<pads=[1,1,1,1]>(x, w) y = Relu(a) }"
    model = model_of(text, w=RNG.standard_normal((32, 3, 3, 3)).astype(np.float32))
    feed = {"x": np.full((1, 3, 9, 9), 0.7, np.float32)}
    _, _, errors = drawn(model, Roundoff(candidate=FP16, by_value=True), feed)
    inside = errors["y"][:, 0, :, 1:-1, 1:-1].reshape(8, 32, -1)
    typical = np.median(inside, axis=2, keepdims=True)
    assert np.isclose(inside, typical, atol=1e-5).mean() > 0.9
    assert len(np.unique(typical[0])) > 8


SIZES = {"w0": (24, 8, 3, 3), "w1": (16, 24, 1, 1)}
FILTERS = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in SIZES.items()}
CHANNELS = """(float[2,8,9,9] x) => (float[2,16,7,7] y) {
    [c0] a = Conv(x, w0) [norm] n = InstanceNormalization(a, s, b) [tanh] t = Tanh(n) [c1] y = Conv(t, w1) }"""


def test_a_blocked_layout_has_the_noise_of_the_plain_one():
    """Channels are filled up to whole blocks, of a size that no file says: nothing is as large as it seems."""
    model = model_of(CHANNELS, **FILTERS, s=np.ones(24, np.float32), b=np.zeros(24, np.float32))
    blocked = Model(optimized(model.proto, "ALL"))
    if not any(node.domain == "com.microsoft.nchwc" for node in blocked.proto.graph.node):
        pytest.skip("ONNX Runtime has no blocked layout on this processor")
    feed = {"x": RNG.standard_normal((2, 8, 9, 9)).astype(np.float32)}
    plain, other = (rms(drawn(each, PLAIN, feed)[2]["y"]) for each in (model, blocked))
    assert plain / 2 < other < 2 * plain
