"""Kinds of faults that people reported: what is named, and with which words."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import EmulateRunner

from support.layerwise import compare, mentions, only
from support.models import parsed

RNG = np.random.default_rng(11)
X = {"x": (40 * RNG.standard_normal((6, 32))).astype(np.float32)}
W = (RNG.standard_normal((32, 32)) / 5).astype(np.float32)
RMS_NORM = """[up] a = MatMul(x, w) [square] q = Mul(a, a) [mean] m = ReduceMean<axes=[1]>(q) [eps] e = Add(m, tiny)
    [root] r = Sqrt(e) [invert] i = Reciprocal(r) [normal] n = Mul(a, i) [down] y = MatMul(n, w)"""
RMS = parsed(f"g (float[6,32] x) => (float[6,32] y) {{ {RMS_NORM} }}", w=W, tiny=np.float32(1e-5))


def test_a_normalization_whose_squares_overflow_is_an_overflow():
    report = compare(RMS, EmulateRunner(format="fp16", every_node=True), [{"x": 20 * X["x"]}])
    assert report.verdict == "fail"
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("square", "overflow")


def test_a_normalization_that_is_right_as_one_kernel_is_said_to_be():
    report = compare(RMS, EmulateRunner(format="fp16"), [{"x": 20 * X["x"]}])
    assert report.verdict == "pass"
    assert not report.culprits
    assert mentions(report, "rests on its being one kernel", "square", "65504", "--emulate=fp16,decomposed")
    small = compare(RMS, EmulateRunner(format="fp16"), [X])
    assert not mentions(small, "one kernel")


def test_what_underflows_inside_of_one_kernel_is_said_to():
    model = parsed(f"g (float[6,32] x) => (float[6,32] y) {{ {RMS_NORM} }}", w=W, tiny=np.float32(1e-12))
    report = compare(model, EmulateRunner(format="fp16"), [{"x": 1e-5 * X["x"]}])
    assert report.verdict == "pass"
    assert mentions(report, "rests on its being one kernel", "square", "become zero", "--emulate=fp16,decomposed")


def test_elementwise_operators_that_are_one_kernel_are_said_to_be():
    softplus = "[up] a = MatMul(x, w) [exp] e = Exp(a) [add] p = Add(e, one) [log] s = Log(p) [down] y = MatMul(s, w)"
    model = parsed(f"g (float[6,32] x) => (float[6,32] y) {{ {softplus} }}", w=W, one=np.float32(1))
    report = compare(model, EmulateRunner(format="fp16"), [{"x": X["x"] / 4}])
    assert report.verdict == "pass"
    assert mentions(report, "rests on its being one kernel", "at exp", "65504", "--emulate=fp16,every_node")
    assert compare(model, EmulateRunner(format="fp16", every_node=True), [{"x": X["x"] / 4}]).verdict == "fail"


VARIANCE = """[up] a = MatMul(x, w) [offset] o = Add(a, large) [mean] m = ReduceMean<axes=[1]>(o) [square] q = Mul(o, o)
    [squares] s = ReduceMean<axes=[1]>(q) [squared] p = Mul(m, m) [var] v = Sub(s, p) [centre] d = Sub(o, m)
    [eps] e = Add(v, tiny) [root] r = Sqrt(e) [normal] n = Div(d, r) [down] y = MatMul(n, w)"""


def variance(mean):
    """A normalization that computes the variance as the mean of squares less the square of the mean."""
    constants = {"w": W, "tiny": np.float32(1e-3), "large": np.float32(mean)}
    return parsed(f"g (float[6,32] x) => (float[6,32] y) {{ {VARIANCE} }}", **constants)


def test_a_variance_that_cancels_inside_of_one_kernel_is_said_to():
    data = [{"x": X["x"] / 40}]
    report = compare(variance(30), EmulateRunner(format="fp16"), data)
    assert report.verdict == "pass"
    assert not report.culprits
    assert mentions(report, "rests on its being one kernel", "at var", "cancel", "--emulate=fp16,decomposed")
    assert not mentions(compare(variance(1), EmulateRunner(format="fp16"), data), "one kernel")


@pytest.mark.parametrize("mean", [30, 70], ids=["imprecise", "below zero, which has no root"])
def test_a_variance_that_cancels_node_by_node_is_cancellation_and_its_remedy_heals(mean):
    report = compare(variance(mean), EmulateRunner(format="fp16", decomposed=True), [{"x": X["x"] / 40}])
    assert report.verdict != "pass"
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("var", "cancellation")
    assert culprit.remedies[0].keep
    assert culprit.remedies[0].measured.passed


@pytest.mark.parametrize("mode", [(0, 1), (1, 0)])
def test_training_mode_is_named(mode):
    def model(training):
        text = f"""g (float[6,8,4] x) => (float[6,8,4] y) {{
            [bn] y{", p, q" if training else ""} = BatchNormalization<training_mode={training}>(x, s, b, m, v) }}"""
        ones = np.ones(8, np.float32)
        return parsed(text, s=2 * ones, b=ones, m=0.5 * ones, v=3 * ones)

    one, other = map(model, mode)
    report = compare(one, other, [{"x": RNG.standard_normal((6, 8, 4)).astype(np.float32)}])
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("bn", "attribute")
    assert culprit.evidence.startswith(f"training_mode {mode[0]} against {mode[1]}")


INTEGERS = {
    "cumsum": ("c = CumSum(i, axis)", "f = Cast<to=1>(i) s = CumSum(f, axis) c = Cast<to=7>(s)", "FP32"),
    "quotient": (
        "c = Div(i, five)",
        "t = Div(i, five) q = Mul(t, five) l = Less(i, q) d = Cast<to=7>(l) c = Sub(t, d)",
        "down",
    ),
}


@pytest.mark.parametrize("reader", ["output", "read on"])
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_compared_and_never_heal(name, reader):
    good, bad, says = INTEGERS[name]
    values = {"axis": np.array(1), "five": np.array(5)}
    behind = "y = Identity(c)" if reader == "output" else "y = Add(c, c)"
    made = [
        parsed(
            f"g (int64[2,6] i) => (int64[2,6] y) {{ {text} {behind} }}",
            **{n: v for n, v in values.items() if n in text},
        )
        for text in (good, bad)
    ]
    data = [{"i": np.array([[1 << 24, 1, 1, 1, 1, 1], [-3, -7, 4, 0, -11, 2]])}]
    report = compare(*made, data)
    assert report.verdict == "fail"
    assert report.culprits, report.warnings
    if reader == "output":
        assert any(says in c.evidence for c in report.culprits), [c.evidence for c in report.culprits]


def test_a_mask_that_is_half_wrong_is_no_saturation():
    good = parsed("g (float[16] x) => (bool[16] y) { y = Less(x, one) }", one=np.float32(1e9))
    bad = parsed("g (float[16] x) => (bool[16] y) { y = Less(x, one) }", one=np.float32(0))
    report = compare(good, bad, [{"x": np.linspace(-1, 1, 16, dtype=np.float32)}])
    assert report.verdict == "fail"
    assert all(c.cause != "saturation" for c in report.culprits)


def anchors(offset):
    return parsed(
        """g (float[N,4] x) => (float[N,4] y, float[N,4] z) {
            [size] shape = Shape(x) [count] n = Gather(shape, zero) [steps] r = Range(zero0, n, one0)
            [cast] f = Cast<to=1>(r) [centre] a = Add(f, offset) [column] g = Unsqueeze(a, axis)
            [exp] e = Exp(x) [left] y = Sub(g, e) [tanh] t = Tanh(x) [right] z = Add(g, t) }""",
        zero=np.array(0),
        zero0=np.array(0),
        one0=np.array(1),
        axis=np.array([1]),
        offset=np.float32(offset),
    )


def test_a_constant_in_a_grid_that_is_computed_from_shapes_is_one_culprit():
    data = [{"x": RNG.standard_normal((5, 4)).astype(np.float32)}]
    culprit = only(compare(anchors(0.5), anchors(0.505), data))
    assert (culprit.node, culprit.cause) == ("centre", "weights")
    assert culprit.evidence == "value 0.5 against 0.505"
    assert set(culprit.tensors) == {"y", "z"}


def test_weights_that_are_sliced_otherwise_name_the_slice():
    def model(first):
        text = "g (float[6,8] x) => (float[6,8] y) { [cut] p = Slice(w, first, last, axes) [product] y = MatMul(x, p) }"
        ends = {"first": np.array([first]), "last": np.array([first + 8]), "axes": np.array([1])}
        return parsed(text, w=RNG.standard_normal((8, 32)).astype(np.float32) if not first else W[:8], **ends)

    one = model(4)
    culprit = only(compare(one, model(5), [{"x": X["x"][:, :8]}]))
    assert (culprit.node, culprit.cause) == ("cut", "weights")


def nested(slope):
    return parsed(
        f"""g (float[6,8] x, bool c, bool d) => (float[6,8] y) {{
        [before] a = Exp(x)
        [outer] b = If(c) <
            then_branch = t () => (r) {{ [inside] l = LeakyRelu<alpha={slope}>(x) [inner] r = If(d) <
                then_branch = tt () => (p) {{ p = Unsqueeze(l, axis) }},
                else_branch = ee () => (q) {{ q = Identity(l) }}> }},
            else_branch = e () => (s) {{ s = Neg(a) }}>
        [after] y = Add(b, a) }}""",
        axis=np.array([0]),
    )


def test_a_body_whose_results_have_no_rank_is_entered():
    feed = {"x": X["x"][:, :8], "c": np.array(True), "d": np.array(False)}
    report = compare(nested(0.1), nested(0.2), [feed])
    assert only(report).node == "inside"


def test_a_logarithm_of_what_became_zero_before_is_named():
    graph = parsed(
        """g (float[8,32] x) => (float[8,32] y) { [energy] e = Mul(x, x) [centre] c = Transpose<perm=[0,1]>(e)
            [level] l = Log(c) [weights] y = MatMul(l, w) }""",
        w=np.abs(W) + 0.1,
    )
    x = RNG.uniform(0.5, 2, (8, 32)).astype(np.float32)
    x[3, 5] = 1e-5  # its square is below FP16's smallest number, and is no loss beside the others
    culprit = only(compare(graph, EmulateRunner(format="fp16"), [{"x": x}]))
    assert culprit.cause == "underflow"
    assert culprit.node in ("energy", "level")
    assert "zero" in culprit.evidence


def test_an_epsilon_that_the_format_has_no_number_for_is_named_where_it_is_added():
    graph = parsed(
        "g (float[8,32] x) => (float[8,32] y) { [square] s = Mul(x, x) [eps] e = Add(s, tiny) [level] y = Log(e) }",
        tiny=np.float32(1e-10),
    )
    x = np.where(RNG.uniform(size=(8, 32)) < 0.5, 0, RNG.standard_normal((8, 32))).astype(np.float32)
    culprit = only(compare(graph, EmulateRunner(format="fp16"), [{"x": x}]))
    assert (culprit.node, culprit.cause) == ("eps", "underflow")
    assert "1e-10" in culprit.evidence


def test_small_numbers_under_a_root_are_rounding():
    graph = parsed("g (float[8,32] x) => (float[8,32] y) { [root] r = Sqrt(x) [product] y = MatMul(r, w) }", w=W)
    x = np.exp(RNG.uniform(-20, 3, (8, 32))).astype(np.float32)
    report = compare(graph, EmulateRunner(format="fp16"), [{"x": x}])
    assert not report.culprits


def test_channels_that_training_left_at_next_to_nothing_are_no_culprit():
    rng = np.random.default_rng(5)
    w = (rng.standard_normal((16, 3, 5, 5)) / 20).astype(np.float32)
    w[3] = 1e-13 * np.abs(w[3])
    graph = parsed(
        "g (float[2,3,12,12] x) => (float[2,16,8,8] y) { [conv] y = Conv(x, w, b) }",
        w=w,
        b=np.where(np.arange(16) == 3, 0, 1).astype(np.float32),
    )
    x = (100 * rng.uniform(size=(2, 3, 12, 12))).astype(np.float32)
    report = compare(graph, EmulateRunner(format="fp16"), [{"x": x}], rtol=1e-2, atol=0.1)
    assert report.verdict == "pass"
    assert not report.culprits
    assert mentions(report, "1 of 16 channels of the weights 'w'", "no culprit")


def test_weights_that_underflow_are_named_though_their_rounding_explains_the_error():
    rng = np.random.default_rng(6)
    graph = parsed(
        "g (float[32,64] x) => (float[32,64] y) { [faint] p = MatMul(x, w) [loud] y = Mul(p, scale) }",
        w=(2e-8 * rng.standard_normal((64, 64))).astype(np.float32),
        scale=np.float32(3e6),
    )
    culprit = only(
        compare(graph, EmulateRunner(format="fp16"), [{"x": rng.standard_normal((32, 64)).astype(np.float32)}])
    )
    assert (culprit.node, culprit.cause) == ("faint", "underflow")


def test_a_branch_that_is_not_taken_need_not_fit_what_is_fed():
    def model(slope):
        return parsed(
            f"""g (float[N,M] x, bool c) => (float[N,K] y) {{
            [choice] y = If(c) <
                then_branch = t () => (float[A,B] p) {{ [leaky] l = LeakyRelu<alpha={slope}>(x) p = MatMul(l, w) }},
                else_branch = e () => (float[C,D] q) {{ q = MatMul(x, v) }}> }}""",
            w=W[:8],
            v=W[:12],
        )

    feed = {"x": X["x"][:, :8], "c": np.array(True)}
    culprit = only(compare(model(0.1), model(0.2), [feed]))
    assert (culprit.node, culprit.cause) == ("leaky", "attribute")


def normalized(axis):
    return parsed(
        f"""g (float[2,16,16] x) => (float[2,16,16] y) {{
            [mean] m = ReduceMean<axes=[{axis}]>(x) [centre] d = Sub(x, m) [square] q = Mul(d, d)
            [variance] v = ReduceMean<axes=[{axis}]>(q) [eps] e = Add(v, tiny) [root] r = Sqrt(e)
            [norm] y = Div(d, r) }}""",
        tiny=np.float32(1e-5),
    )


def rotated(first):
    angles = np.arange(first, first + 6)[:, None] / np.arange(1, 33)
    return parsed(
        """g (float[6,32] x) => (float[6,32] y) {
            [a] p = Mul(x, c) [n] q = Neg(x) [b] r = Mul(q, s) [both] y = Add(p, r) }""",
        c=np.cos(angles).astype(np.float32),
        s=np.sin(angles).astype(np.float32),
    )


@pytest.mark.parametrize(
    ("model", "settings", "shape", "named", "cause"),
    [
        (normalized, (2, 1), (2, 16, 16), ("mean", "variance"), "attribute"),
        (rotated, (0, 1), (6, 32), ("a", "b"), "weights"),
    ],
)
def test_all_nodes_of_a_layer_that_differ_are_told(model, settings, shape, named, cause):
    report = compare(*map(model, settings), [{"x": RNG.standard_normal(shape).astype(np.float32)}])
    culprit = only(report)
    assert culprit.cause == cause
    assert culprit.node in named
    other = named[1 - named.index(culprit.node)]
    assert f"{other} too: " in culprit.evidence


ROTARY = """g (int64[64] places, float[64,32] x) => (float[64,32] y) {
    [float] f = Cast<to = 1>(places) [column] c = Unsqueeze(f, one) [angle] a = Mul(c, frequencies)
    [sine] s = Sin(a) [cosine] o = Cos(a) [up] u = MatMul(x, w)
    [left] l = Mul(u, o) [right] r = Mul(u, s) [sum] t = Add(l, r) [down] y = MatMul(t, w)
}"""


@pytest.mark.parametrize("every_node", [False, True])
def test_sine_and_cosine_of_an_angle_that_is_too_large_for_the_format_are_one_fault(every_node):
    model = parsed(
        ROTARY, w=W, one=np.array([1], np.int64), frequencies=(10_000 ** -(np.arange(32) / 32)).astype(np.float32)
    )
    data = [{"places": np.arange(1900, 1964), "x": X["x"].repeat(11, 0)[:64]}]
    report = compare(model, EmulateRunner(format="bf16", every_node=every_node), data)
    assert report.verdict != "pass"
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("angle", "amplified")
    assert "which sine (Sin) and cosine (Cos) read; it grows" in culprit.evidence
    remedy = culprit.remedies[-1]
    assert {"float", "angle", "sine", "cosine"} <= set(remedy.keep)
    assert "down" not in remedy.keep
    assert remedy.measured.passed
