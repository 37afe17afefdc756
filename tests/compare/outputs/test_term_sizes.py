"""The size of the terms that an output was made of: what its elements may err by, where they themselves are small."""

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.outputs.term_sizes import terms
from layerdiff.compare.outputs.tolerance import Scale, rule
from layerdiff.graph.errors import RunnerError
from layerdiff.graph.formats import BF16, FP16, FP32, FP64
from layerdiff.graph.index import GraphIndex
from onnx import numpy_helper

pytest.importorskip("onnxruntime")

from support import networks
from support.edits import edited, scaled
from support.models import parsed

RNG = np.random.default_rng(3)
F32 = np.dtype(np.float32)


def normal(*shape, size=1.0):
    return (size * RNG.standard_normal(shape)).astype(np.float32)


def network(text, **constants):
    """A model of opset 20, with constants as initializers."""
    return parsed(f"g {text}", opset=20, **constants)


def inner(proto, feed, names):
    """Inputs and inner tensors."""
    values = networks.run_all(proto, feed)
    return {name: values[name] for name in names}


def sizes(proto, feed, output="y", here=1.0, one=1.0):
    """Sizes of the terms of an output, of its shape; and the reference's values of all that was asked for.

    ``here`` is how much less one layer rounds than all, ``one`` how much less FP32 does.
    """
    found = terms(GraphIndex(proto), output)
    reference = networks.run(proto, feed)
    values = inner(proto, feed, found.tensors)
    result = found.sizes(reference[output], values, lambda layers, _: here if layers else one)
    return np.broadcast_to(result, reference[output].shape), values


# -- sums of products ---------------------------------------------------------------------------------------------


def quadrature(proto, feed, axis, here):
    """The root of the sum of the squares of all terms, by the product itself on squares; their mean over a channel."""
    squared = onnx.ModelProto()
    squared.CopyFrom(proto)
    for tensor in squared.graph.initializer:
        factor = 0 if tensor.name == "b" else 1
        tensor.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(tensor) ** 2, tensor.name))
    squares = inner(squared, {k: v**2 for k, v in feed.items()}, ["z"])["z"].astype(np.float64)
    values = inner(proto, feed, ["z"])["z"].astype(np.float64) ** 2
    over = tuple(a for a in range(values.ndim) if a != axis % values.ndim)
    squares, channel = (x.mean(axis=over, keepdims=True) for x in (squares, values))
    (bias,) = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "b")
    bias = 0 if nodes_lack_bias(proto) else bias.reshape([-1 if n > 1 else 1 for n in channel.shape])
    gathered = np.sqrt(squares) + np.sqrt(np.minimum(channel, values.mean()))
    return np.sqrt(gathered**2 + here**2 * (channel + bias**2))


def nodes_lack_bias(proto):
    return all("b" not in node.input for node in proto.graph.node)


# nodes, shape of x, shape of w, length of b, axis of the channels
PRODUCTS = {
    "Conv": ("z = Conv(x, w, b)", (2, 6, 9, 9), (8, 6, 3, 3), 8, 1),
    "Conv in groups": ("z = Conv<group=3>(x, w, b)", (2, 6, 9, 9), (9, 2, 3, 3), 9, 1),
    "Conv in one dimension": ("z = Conv<strides=[2]>(x, w, b)", (2, 6, 30), (8, 6, 3), 8, 1),
    "ConvTranspose": ("z = ConvTranspose<strides=[2,2]>(x, w, b)", (2, 6, 20, 20), (6, 8, 2, 2), 8, 1),
    "ConvTranspose in groups": ("z = ConvTranspose<group=2, strides=[2,2]>(x, w, b)", (2, 6, 9, 9), (6, 4, 2, 2), 8, 1),
    "Gemm": ("z = Gemm(x, w, b)", (70, 5), (5, 8), 8, -1),
    "Gemm, transposed": ("z = Gemm<transB=1>(x, w, b)", (70, 5), (8, 5), 8, -1),
    "MatMul": ("z = MatMul(x, w)", (3, 70, 5), (5, 8), 8, -1),
}


@pytest.mark.parametrize("here", [1.0, 0.1])
@pytest.mark.parametrize("name", PRODUCTS)
def test_terms_of_a_product_add_up_in_squares(name, here):
    nodes, shape, weight, bias, axis = PRODUCTS[name]
    channels = np.exp(normal(shape[1 if axis == 1 else -1])).reshape(
        [-1 if a == axis % len(shape) else 1 for a in range(len(shape))]
    )
    feed = {"x": normal(*shape) * channels}
    given = ",".join(map(str, shape))
    proto = network(f"(float[{given}] x) => (float y) {{ {nodes} y = Relu(z) }}", w=normal(*weight), b=normal(bias))
    found, values = sizes(proto, feed, here=here)
    assert set(values) == {"x", "z"}
    expected = quadrature(proto, feed, axis, here)
    # Means over inputs of all positions stand for those of each window, which leave out some at the edges.
    assert found == pytest.approx(np.broadcast_to(expected, found.shape), rel=0.1)


def test_alpha_and_beta_scale_the_terms():
    feed = {"x": normal(70, 5)}
    w, b = normal(5, 8), normal(8)
    text = "(float[70,5] x) => (float[70,8] y) { z = Gemm<alpha={}, beta={}>(x, w, b) y = Relu(z) }"
    scaled, _ = sizes(network(text.replace("{}", "2.0", 1).replace("{}", "3.0"), w=w, b=b), feed)
    plain, _ = sizes(network(text.replace("{}", "1.0"), w=2 * w, b=3 * b), feed)
    assert scaled == pytest.approx(plain, rel=1e-6)


def test_without_values_constants_remain():
    """A reference that gives outputs alone still has its biases."""
    proto = network(
        "(float[2,3,8,8] x) => (float y) { z = Conv(x, w, b) y = Relu(z) }", w=normal(2, 3, 3, 3), b=np.float32([-7, 0])
    )
    found = terms(GraphIndex(proto), "y").sizes(normal(2, 2, 6, 6), {}, lambda layers, _: 1.0)
    assert found.reshape(-1).tolist() == [7, 0]


# -- what stands between ------------------------------------------------------------------------------------------

X = normal(2, 3, 4, 5)
HALVES = np.float32([0.5, 20.5, 300.25]).reshape(1, 3, 1, 1)
MASK = (RNG.random((2, 3, 4, 5)) < 0.5).astype(np.float32)


def scale(v):
    return np.maximum(np.abs(v), Scale(v).block(0, v.size).reshape(v.shape))


def softmax(e):
    return np.exp(e) / np.exp(e).sum(axis=3, keepdims=True)


def softmax_sizes(e, s):
    """By the Jacobian: dy_i / dx_j = y_i (1 where i is j, less y_j)."""
    y = softmax(e)
    jacobian = y[..., :, None] * (np.eye(e.shape[3]) - y[..., None, :])
    return np.sqrt(np.einsum("...ij,...j->...i", jacobian**2, s**2))


# ``e`` is a rounded tensor where the walk ends: its sizes are scale(e). Expected: function of e and of its sizes.
BETWEEN = {
    "Relu": ("y = Relu(e)", lambda e, s: s),
    "Clip": ("lo = Constant<value_float=0.0>() y = Clip(e, lo)", lambda e, s: s),
    "LeakyRelu": ("y = LeakyRelu<alpha=0.1>(e)", lambda e, s: np.where(e < 0, 0.1, 1) * s),
    "HardSwish": ("y = HardSwish(e)", lambda e, s: 1.5 * s),
    "Softplus": ("y = Softplus(e)", lambda e, s: np.hypot(s, 0.25)),
    "Sigmoid": ("y = Sigmoid(e)", lambda e, s: np.hypot(s / (1 + np.exp(-e)) / (1 + np.exp(e)), 0.25)),
    "Tanh": ("y = Tanh(e)", lambda e, s: s / np.cosh(e) ** 2),
    "Exp": ("y = Exp(e)", lambda e, s: s * np.exp(e)),
    "Softmax": ("y = Softmax<axis=3>(e)", lambda e, s: softmax_sizes(e, s)),
    "LogSoftmax": ("y = LogSoftmax<axis=3>(e)", lambda e, s: np.hypot(softmax_sizes(e, s) / softmax(e), 0.25)),
    "a sum": ("y = Add(e, halves)", lambda e, s: np.hypot(s, HALVES)),
    "a difference": ("y = Sub(e, x)", lambda e, s: np.hypot(s, np.abs(X))),
    "a product with a constant": ("y = Mul(e, halves)", lambda e, s: np.hypot(s * HALVES, e * HALVES)),
    "a square": ("y = Mul(e, e)", lambda e, s: np.abs(e) * s * np.sqrt(2)),
    "a quotient": ("y = Div(e, halves)", lambda e, s: s / HALVES),
    "one that is chosen": ("c = Greater(x, e) y = Where(c, e, halves)", lambda e, s: np.where(e < X, s, HALVES)),
    "the greater": ("y = Max(e, x)", lambda e, s: np.where(e > X, s, np.abs(X))),
    "a maximum with zero": ("z = Constant<value_float=0.0>() y = Max(e, z)", lambda e, s: s),
    "Transpose": ("y = Transpose<perm=[2,0,3,1]>(e)", lambda e, s: s.transpose(2, 0, 3, 1)),
    "Flatten": ("y = Flatten(e)", lambda e, s: s.reshape(2, -1)),
    "Reshape": ("y = Reshape(e, flat)", lambda e, s: s.reshape(-1)),
    "Concat": (
        "k = Mul(e, halves) y = Concat<axis=1>(e, k)",
        lambda e, s: np.concatenate([s, np.hypot(s, e) * HALVES], 1),
    ),
    "Split": ("k, y = Split<axis=3, num_outputs=2>(e)", lambda e, s: s[..., 3:]),
    "Slice": ("y = Slice(e, one, two, one)", lambda e, s: s[:, 1:2]),
    "pooling": ("y = GlobalMaxPool(e)", lambda e, s: np.median(s, axis=(2, 3), keepdims=True)),
}


@pytest.mark.parametrize("batch", ["2", "N"])
@pytest.mark.parametrize("name", BETWEEN)
def test_errors_pass_to_first_order(name, batch):
    nodes, expected = BETWEEN[name]
    text = f"(float[{batch},3,4,5] x) => (float y) {{ q = Cos(x) e = Sin(q) {nodes} }}"
    proto = network(text, halves=HALVES, flat=np.array([-1]), one=np.array([1]), two=np.array([2]))
    e = inner(proto, {"x": X}, ["e"])["e"]
    found, _ = sizes(proto, {"x": X}, one=0.25)
    size = expected(e.astype(np.float64), scale(e))
    if size.shape == found.shape:  # beside |y|, which is allowed for anyway
        y = np.abs(networks.run(proto, {"x": X})["y"].astype(np.float64))
        size = np.hypot(size, y) - y
    assert found == pytest.approx(np.broadcast_to(size, found.shape), rel=1e-5, abs=1e-12)


def test_gelu_in_pieces_is_as_uncertain_as_its_one():
    """x (1 + erf(x / sqrt 2)) / 2 at -6 is 6 times the error of 1 - 1."""
    nodes = "z = Sub(x, six) q = Div(z, root) e = Erf(q) p = Add(e, one) h = Mul(z, p) y = Mul(h, half)"
    constants = {"six": 6.0, "root": 2**0.5, "one": 1.0, "half": 0.5}
    proto = network(f"(float[400] x) => (float y) {{ {nodes} }}", **{k: np.float32(v) for k, v in constants.items()})
    found, _ = sizes(proto, {"x": normal(400, size=0.1)})
    assert found == pytest.approx(np.full(400, 3.0), rel=0.15)


@pytest.mark.parametrize("nodes", ["y = Cos(x)", "y = Sum(x)", "q = Cos(x) y = MatMul(q, x)"])
def test_where_values_say_as_much_as_terms(nodes):
    found = terms(GraphIndex(network(f"(float[4,4] x) => (float[4,4] y) {{ {nodes} }}")), "y")
    assert found is None or nodes == "y = Sum(x)"


def test_a_residual_stream_is_not_followed_to_its_source():
    nodes = "".join(f"c{i} = Cos(r{i}) r{i + 1} = Add(r{i}, c{i}) " for i in range(9))
    found = terms(GraphIndex(network(f"(float[4] x) => (float[4] y) {{ r0 = Cos(x) {nodes} y = Relu(r9) }}")), "y")
    assert set(found.tensors) == {"r9", "c8", "r8", "c7", "r7"}


# -- masks --------------------------------------------------------------------------------------------------------

MASKED = {
    "added": "n = Sub(one, m) k = Mul(n, huge) s = Add(e, k)",
    "chosen": "c = Cast<to=9>(m) s = Where(c, e, huge)",
    "chosen, computed": "c = Cast<to=9>(m) h = Expand(huge, form) s = Where(c, e, h)",
}


@pytest.mark.parametrize("huge", [-1e9, -3.4e38])
@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("last", ["y = Identity(s)", "y = Softmax<axis=3>(s)"])
def test_what_is_masked_out_excuses_nothing(name, huge, last):
    """1 - mask has no error, and a constant that is nowhere chosen is no term."""
    proto = network(
        f"(float[2,3,4,5] x, float[2,3,4,5] m) => (float y) {{ q = Cos(x) e = Sin(q) {MASKED[name]} {last} }}",
        one=np.float32(1),
        huge=np.float32(huge),
        form=np.array([2, 3, 4, 5]),
    )
    mask = MASK.copy()
    mask[..., 0] = 1
    found, _ = sizes(proto, {"x": X, "m": mask})
    assert found[mask == 1].max() < 2


# -- verdicts -----------------------------------------------------------------------------------------------------


def test_terms_count_for_four_times_the_rms_or_twice_the_element():
    values = np.full(1000, 1e-6)
    values[0] = 0.9
    scale = Scale(values, np.full(1000, 10.0), 4.0).block(0, 1000)
    assert scale[0] == pytest.approx(1.8)
    assert scale[1:] == pytest.approx(4 * 0.9 / 1000**0.5, rel=1e-3)


@pytest.mark.parametrize(("number_format", "u"), [(FP32, 2.0**-24), (FP16, 2.0**-11), (BF16, 2.0**-8)])
def test_one_layer_has_its_share_of_t(number_format, u):
    made = rule([FP32, number_format], F32, 50, 4000)
    assert made.t * made.share(2) == pytest.approx(4 * u * 2**0.5)
    assert made.t * made.share(0, 100) == pytest.approx(4 * 2.0**-24 * 50**0.5)
    assert made.share(50, 4000) == made.share(51, 5000) == 1
    wide = rule([FP64, FP64], np.dtype(np.float64), 50)
    assert wide.t * wide.share(0, 2) == pytest.approx(4 * 2.0**-53)


# -- comparisons --------------------------------------------------------------------------------------------------

NEARLY_DEAD = "(float[N,8,24,24] x) => (float[N,8,24,24] y) { z = Conv<pads=[1,1,1,1]>(x, w, b) y = Relu(z) }"


@pytest.fixture
def nearly_dead():
    """A network whose channels are zero but for one element in five thousand, and three samples."""
    w = normal(8, 8, 3, 3, size=72**-0.5)
    feeds = [{"x": normal(2, 8, 24, 24)} for _ in range(3)]
    many = np.concatenate([inner(network(NEARLY_DEAD, w=w, b=np.zeros(8, "f")), f, ["z"])["z"] for f in feeds])
    bias = -np.quantile(many, 1 - 2e-4, axis=(0, 2, 3)).astype(np.float32)
    return network(NEARLY_DEAD, w=w, b=bias), feeds


def test_a_healthy_pair_passes_where_nearly_nothing_is_alive(nearly_dead):
    proto, feeds = nearly_dead
    runners = [OnnxrtRunner(optimization="disable"), OnnxrtRunner(optimization="all")]
    report = Comparator(proto, runners, data_loader=feeds).compare()
    assert [o.verdict for o in report.outputs] == ["pass"]
    assert max(o.use for o in report.outputs) < 1
    kept = Comparator.run(runners, data_loader=feeds, model=proto)
    assert Comparator.compare_accuracy(kept).outputs == report.outputs


def test_a_wrong_weight_still_fails_there(nearly_dead):
    proto, feeds = nearly_dead
    wrong = edited(proto, scaled("w", 1.001))
    report = Comparator(proto, [OnnxrtRunner()], candidate_model=wrong, data_loader=feeds).compare()
    assert [o.verdict for o in report.outputs] == ["fail"]


class Watched:
    """A candidate and a reference of functions; the names that the reference was asked for."""

    def __init__(self, function_runner, proto, error, hidden=False):
        asked = self.asked = []

        def right(feed):
            return networks.run(proto, feed)

        class Reference(function_runner):
            def open(self, model, **more):
                session = super().open(model, **more)

                def infer(feed, fetch=None):
                    if fetch is None:
                        return right(feed)
                    asked.append(tuple(fetch))
                    if hidden:
                        raise RunnerError("inner tensors stay inside.")
                    return inner(proto, feed, fetch)

                session.infer = infer
                return session

        def wrong(feed):
            y = right(feed)["y"].copy()
            y[0, 3, 0, 0] += error
            return {"y": y}

        self.runners = [Reference(label="a", rank=0), function_runner(function=wrong, label="b")]

    def compare(self, proto, feeds):
        (output,) = (report := Comparator(proto, self.runners, data_loader=feeds).compare()).outputs
        return output, report


# error of an element that is zero, verdict, how often the reference is asked: never where the values say enough, for
# every sample that only terms excuse, and not where the error is too large for any terms
ASKED = [(0.0, "pass", 0), (1e-6, "pass", 3), (1.0, "fail", 0)]


@pytest.mark.parametrize(("error", "verdict", "times"), ASKED)
def test_the_reference_is_asked_where_values_do_not_tell(function_runner, nearly_dead, error, verdict, times):
    proto, feeds = nearly_dead
    watched = Watched(function_runner, proto, np.float32(error))
    output, report = watched.compare(proto, feeds)
    assert output.verdict == verdict
    assert watched.asked == [("z", "x")] * times
    assert not report.warnings


def test_a_reference_that_hides_its_terms_still_has_a_bias(function_runner, nearly_dead):
    proto, feeds = nearly_dead
    watched = Watched(function_runner, proto, np.float32(1e-6), hidden=True)
    output, report = watched.compare(proto, feeds)
    assert output.verdict == "pass"
    assert any("does not show: inner tensors stay inside. Where they are larger" in w for w in report.warnings)


def test_the_users_tolerance_asks_for_nothing(function_runner, nearly_dead):
    proto, feeds = nearly_dead
    watched = Watched(function_runner, proto, np.float32(1e-6))
    report = Comparator(proto, watched.runners, data_loader=feeds, rtol=1e-9, atol=1e-9).compare()
    assert report.verdict == "fail"
    assert not watched.asked


def test_an_index_that_nearly_dead_scores_decided_is_a_tie(function_runner):
    """Scores of 4e-6 and 5e-6 behind a Relu, of terms of size 1, may change places; they do not become 0."""
    w = np.zeros((4, 3), np.float32)
    w[0] = 1
    b = np.float32([-1.0, -1.0 + 2.0**-20, -2.0])
    proto = network(
        "(float[N,4] x) => (int64[N] y) { z = Gemm(x, w, b) r = Relu(z) y = ArgMax<axis=1, keepdims=0>(r) }", w=w, b=b
    )
    feed = {"x": np.float32([[1 + 2.0**-18, 0, 0, 0]])}
    assert networks.run(proto, feed)["y"].tolist() == [1]
    for chosen, verdict in ((0, "pass"), (1, "pass"), (2, "fail")):
        candidate = function_runner(function=lambda feed, y=chosen: {"y": np.array([y])}, label="candidate")
        (output,) = Comparator(proto, [OnnxrtRunner(), candidate], data_loader=[feed]).compare().outputs
        assert (output.verdict, output.ties) == (verdict, int(chosen == 0))


@pytest.mark.parametrize(("alive", "share"), [(1.0, 1.0), (0.01, 10.0), (0.0, 1.0)])
def test_zeros_say_nothing_of_how_large_an_output_is(alive, share):
    """Terms count for four times the values that are there: a heatmap is zero nearly everywhere."""
    y = np.where(np.arange(10_000) < 10_000 * alive, 1.0, 0.0).astype(np.float32)
    made = rule([FP32, FP16], F32, 50)
    scale = made.allowed(y, np.full(10_000, 1e6)).scale
    assert scale.smallest == pytest.approx(4 * share * np.sqrt(np.square(y).mean()))
