"""What is allowed: NumPy's sum for the user's tolerance, t (|r| + scale) for the automatic one."""

import itertools
import math

import ml_dtypes
import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.comparison import Rules
from layerdiff.compare.outputs import tolerance
from layerdiff.compare.outputs.decide import decide
from layerdiff.compare.outputs.judge import Judge
from layerdiff.compare.outputs.tolerance import EXACT, SLICE, Scale, Tolerance, automatic, depth, depths, rule, user
from layerdiff.compare.sides import choose_sides
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.cutting.fusion import fused_groups
from layerdiff.graph.errors import UsageError
from layerdiff.graph.formats import BF16, E4M3, E5M2, FP16, FP32, FP64, INT8, TF32
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.model import Model
from onnx import helper, parser

from support.edits import edited, scaled
from support.models import assembled, parsed

F32 = np.dtype(np.float32)
RNG = np.random.default_rng(0)


def index_of(text, **constants):
    model = parsed(f"g {text}", **constants)
    onnx.checker.check_model(model)
    return GraphIndex(model)


# -- the user's -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rtol", "atol"), [(0, 0), (1e-3, 0), (0, 1e-3), (1e-2, 1e-5), (0.5, 2)])
def test_the_users_tolerance_is_numpys_sum(rtol, atol):
    """Tolerances add up: what numpy.allclose accepts passes."""
    reference = RNG.standard_normal(4000)
    candidate = reference + RNG.standard_normal(4000) * (atol + rtol * np.abs(reference))
    expected = int((~np.isclose(candidate, reference, rtol, atol)).sum())
    for full in (True, False):
        assert Statistics(full).update(reference, candidate, user(rtol, atol).allowed(reference)).mismatched == expected


def test_abs_or_rel_alone_would_fail_what_the_sum_passes():
    reference = np.array([1.0])
    candidate = np.array([1.0015])
    assert Statistics().update(reference, candidate, user(1e-3, 1e-3).allowed(reference)).agree
    assert not Statistics().update(reference, candidate, user(1e-3, 0).allowed(reference)).agree
    assert not Statistics().update(reference, candidate, user(0, 1e-3).allowed(reference)).agree


def test_both_numbers_or_neither():
    assert user(None, None) is None
    for pair in ((1e-3, None), (None, 1e-3), (-1, 0), (0, math.nan)):
        with pytest.raises(UsageError):
            user(*pair)


# -- t ----------------------------------------------------------------------------------------------------------

# formats in play, dtype of the output, depth, terms, t
T = [
    ([FP32, FP32], "float32", 100, 0, 40 * 2.0**-24),
    ([FP32, FP16], "float32", 100, 0, 40 * 2.0**-11),
    ([FP16, FP32], "float32", 100, 0, 40 * 2.0**-11),
    ([FP32, TF32], "float32", 100, 0, 40 * 2.0**-11),
    ([FP32, BF16], "float32", 100, 0, 40 * 2.0**-8),
    ([FP32, FP32], "float32", 100, 2 * 96 * 100, 40 * math.sqrt(97) * 2.0**-24),
    ([FP64, FP64], "float64", 100, 0, 40 * 2.0**-53),
    ([FP32, FP64], "float64", 100, 0, 40 * 2.0**-24),
    ([FP32, FP32], "float32", 1, 0, 8 * 2.0**-24),
    ([FP32, FP32], "float16", 1, 0, 8 * 2.0**-11),
    ([FP32, FP32], "bfloat16", 1, 0, 8 * 2.0**-8),
    ([FP32], "complex64", 100, 0, 40 * 2.0**-24),
]


@pytest.mark.parametrize(("formats", "dtype", "layers", "terms", "t"), T)
def test_t(formats, dtype, layers, terms, t):
    made = rule(formats, np.dtype(getattr(ml_dtypes, dtype, None) or dtype), layers, terms)
    assert made.t == pytest.approx(t)
    assert made.decidable


@pytest.mark.parametrize(
    ("formats", "layers"), [([FP32, INT8], 3), ([FP32, E4M3], 1), ([FP32, E5M2], 1), ([FP32, BF16], 300)]
)
def test_what_the_arithmetic_cannot_decide(formats, layers):
    made = rule(formats, F32, layers)
    assert not made.decidable
    assert made.reason


def test_a_float8_output_is_undecided():
    assert not rule([FP32], np.dtype(ml_dtypes.float8_e4m3fn), 1).decidable


# -- depth ------------------------------------------------------------------------------------------------------

W = np.ones((4, 4), np.float32)
DEPTHS = {
    "moves do not round": ("t = Transpose(x) r = Relu(t) y = Reshape(r, shape)", 0, 0),
    "a chain": ("a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) y = Exp(c)", 3, 8),
    "the longest path": ("a = MatMul(x, w) b = MatMul(a, w) y = Add(x, b)", 3, 8),
    "constants are free": ("v = Add(w, w) u = Mul(v, v) y = MatMul(x, u)", 1, 4),
    "integers are free": ("s = Cast<to=7>(x) i = Add(s, s) f = Cast<to=1>(i) y = MatMul(f, w)", 1, 4),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth(name):
    nodes, layers, terms = DEPTHS[name]
    index = index_of(f"(float[4,4] x) => (float[4,4] y) {{ {nodes} }}", w=W, shape=np.array([4, 4]))
    found = depth(index, "y")
    assert (found, found.terms) == (layers, terms)


def test_fused_groups_round_once():
    nodes = "a = MatMul(x, w) b = Add(a, v) c = Relu(b) d = MatMul(c, w) e = Add(d, v) f = Add(e, c) y = Relu(f)"
    index = index_of(f"(float[4,4] x) => (float[4,4] y) {{ {nodes} }}", w=W, v=np.ones(4, np.float32))
    assert depth(index, "y") == 5
    assert depth(index, "y", fused_groups(index)) == 2
    assert depth(index, "nothing") == 0


def test_a_recurrent_layer_rounds_at_every_step():
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)
    weights = {"w": np.ones((1, 12, 5), np.float32), "r": np.ones((1, 12, 3), np.float32)}
    model = assembled([node], [("x", 1, [17, 1, 5])], [("y", 1, None)], weights)
    assert depth(GraphIndex(model), "y") == 17


def test_a_loop_counts_its_body_for_every_trip():
    body = parser.parse_graph(
        "body (int64 i, bool go, float[4] s) => (bool more, float[4] t) { more = Identity(go) u = Exp(s) t = Sin(u) }"
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    model = assembled([node], [("x", 1, [4])], [("y", 1, [4])], {"trips": np.array(5)})
    assert depth(GraphIndex(model), "y") == 10


def test_automatic_takes_depth_and_dtype_from_the_graph():
    index = index_of("(float[4,4] x) => (float[4,4] y, int64[4] k) { y = MatMul(x, w) k = ArgMax<keepdims=0>(y) }", w=W)
    made = automatic(index, "y", [FP32, FP16])
    assert (made.depth, made.terms, made.format, made.source) == (1, 4, "fp16", "auto")
    assert automatic(index, "y", [FP32, FP16], F32, depths=depths(index)) == made
    assert automatic(index, "k", [FP32, FP16]) is EXACT


# -- sums in FP16 -----------------------------------------------------------------------------------------------

# products of a sum; rel. error of kernels that add them in FP16, measured on a GPU (graph/accumulate.py)
ADDED = [(144, 5.4e-4), (256, 6.8e-4), (1152, 1.3e-3), (4608, 2.4e-3)]


@pytest.mark.parametrize(("products", "measured"), ADDED)
def test_sums_in_fp16_may_explain_what_kernels_were_measured_to_err_by_and_not_twice_that(products, measured):
    index = index_of(f"(float[4,{products}] x) => (float[4,4] y) {{ y = MatMul(x, w) }}", w=W)
    deep = depths(index, narrow=index.names)
    made = automatic(index, "y", [FP32, FP16], depths=deep)
    assert 1 < made.sums / (measured / 3.6e-4) < 2
    assert made.t == automatic(index, "y", [FP32, FP16]).t
    assert made.explained.t == pytest.approx(made.t * made.sums)


STEPS = "[p] a = MatMul(x, w) [q] b = MatMul(a, w) r = Relu(b) [s] c = Mul(r, r) [l] y = MatMul(c, w)"


@pytest.mark.parametrize(
    ("narrow", "steps"), [((), 0), (("p",), 3), (("p", "q", "l"), 9), (("s", "r"), 0), (("nobody",), 0)]
)
def test_partial_sums_count_where_products_are_known_to_add_in_fp16(narrow, steps):
    index = index_of(f"(float[64,64] x) => (float[64,64] y) {{ {STEPS} }}", w=np.ones((64, 64), np.float32))
    found = depths(index, narrow=narrow)["y"]
    assert (found, found.terms, found.steps) == (4, 192, steps)
    made = automatic(index, "y", [FP32, FP16], depths={"y": found})
    assert made.sums == pytest.approx(math.sqrt(1 + steps / 2 / 4))
    assert made.explained.share(4) == pytest.approx(1 / made.sums)


def decided(share, narrow, samples=1):
    """What becomes of an output y where every element errs by ``share`` of what is allowed, and of k, which y decides
    between two values that are twice that apart."""
    index = index_of(
        "(float[8,1024] x) => (float[8,64] y, int64[8] k) "
        "{ [sum] y = MatMul(x, w) [first] k = ArgMax<axis=1,keepdims=0>(y) }",
        w=np.zeros((1024, 64), np.float32),
    )
    model = Model(index.proto)
    sides = choose_sides([OnnxrtRunner(), EmulateRunner()], [model, model])
    judge = Judge(sides, {"emulate:fp16": (FP32, FP16)}, Rules(), {"emulate:fp16": frozenset(narrow)})
    rule = automatic(index, "y", [FP32, FP16])
    y = np.random.default_rng(0).uniform(1, 2, (8, 64)).astype(np.float32)
    y[:, 0] = 3
    error = share * rule.allowed(y).block(0, y.size, np.abs(y).reshape(-1)).reshape(y.shape)
    y[:, 1] = 3 - 1.985 * error[:, 0]
    k = np.zeros(8, np.int64)
    for sample in range(samples):
        judge.take("onnxrt", sample, {"y": y, "k": k}, lambda names: dict.fromkeys(names, y))
        judge.take("emulate:fp16", sample, {"y": y + error, "k": k + 1})
    evidence = judge.evidence(samples, {"onnxrt": samples, "emulate:fp16": samples})
    return {e.tensor: decide(e) for e in evidence}


@pytest.mark.parametrize(
    ("share", "narrow", "verdict"),
    [
        (0.9, (), "pass"),
        (0.9, ("sum",), "pass"),
        (1.1, (), "fail"),
        (1.1, ("first",), "fail"),
        (1.1, ("sum",), "undecided"),
        (5.6, ("sum",), "undecided"),
        (5.6, (), "fail"),
        (5.8, ("sum",), "fail"),  # sqrt(1 + 63 / 2) is 5.70
    ],
)
def test_what_only_sums_in_fp16_explain_neither_passes_nor_fails_by_the_tolerance(share, narrow, verdict, monkeypatch):
    monkeypatch.setattr(Judge, "_sizes", lambda *_: None)
    found = decided(share, narrow)
    assert (found["y"].verdict, found["k"].verdict) == (verdict, verdict)
    if verdict == "undecided":
        assert (
            f"{found['y'].use:.2f} times what is allowed, and sums in FP16 may explain up to 5.70 times"
            in found["y"].reason
        )
        assert "sums in FP16 may make them ties" in found["k"].reason
        assert "--tolerance y:RTOL,ATOL" in found["y"].reason


@pytest.mark.parametrize(("narrow", "times"), [((), 1), (("sum",), 3)])
def test_terms_are_asked_for_until_an_element_has_failed(narrow, times, monkeypatch):
    asked = []
    monkeypatch.setattr(Judge, "_sizes", lambda *_: asked.append("y"))
    monkeypatch.setattr(Judge, "_ties", lambda *_: (0, 0))
    decided(1.5, narrow, samples=3)
    assert len(asked) == times


def long_sum(wrong=1.0):
    """One product of 4608 terms, with its last weight of every column ``wrong`` times what it should be."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((4608, 64)) / np.sqrt(4608)).astype(np.float32)
    weight[-1] *= wrong
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    return assembled(nodes, [("x", 1, [16, 4608])], [("y", 1, [16, 64])], {"w": weight})


LONG_FEED = [{"x": np.random.default_rng(seed).standard_normal((16, 4608)).astype(np.float32)} for seed in (1, 2)]


def compared(narrow, wrong, emulated=EmulateRunner, **options):
    """A candidate whose file holds a wrong weight, beside the right one."""
    runners = [OnnxrtRunner(), emulated(fp16_accumulation=narrow)]
    return Comparator(long_sum(), runners, candidate_model=long_sum(wrong), data_loader=LONG_FEED, **options).compare()


@pytest.mark.parametrize(
    ("narrow", "wrong", "verdict", "by"),
    [
        (False, 1, "pass", None),
        (True, 1, "pass", "emulated sums in FP16"),
        (False, 1.3, "fail", None),
        (True, 1.3, "fail", None),  # 5.4 times what is allowed: sums in FP16 may explain 12, and make 1.9
        (True, 2, "fail", None),
    ],
)
def test_who_errs_as_emulated_sums_do_passes_and_who_errs_by_more_fails(narrow, wrong, verdict, by):
    report = compared(narrow, wrong)
    (output,) = (o for o in report.outputs if "emulate" in o.candidate)
    assert (output.verdict, output.decided_by) == (verdict, by)
    assert (output.use > 1) == (narrow or wrong != 1)
    told = [w for w in report.warnings if "emulated with sums in FP16 on the same inputs" in w]
    assert len(told) == (by is not None)
    if narrow and wrong == 1.3:
        assert "the network errs by 1.88 times that, this by 5." in output.reason


class Unlike(EmulateRunner):
    """Nobody emulates it."""

    flag = ""

    def cpu_emulations(self):
        return None


class Ruined(Unlike):
    """What should be like it overflows."""

    def cpu_emulations(self):
        return Overflowing(fp16_accumulation=True), EmulateRunner()


class Overflowing(EmulateRunner):
    flag = ""

    def open(self, model, **more):
        session = super().open(model, **more)
        session.infer = lambda feed, fetch=None: {"y": np.full((16, 64), np.inf, np.float32)}
        return session


class Refusing(Unlike):
    """What should be like it does not run."""

    def cpu_emulations(self):
        return Broken(), EmulateRunner()


class Broken(EmulateRunner):
    flag = ""

    def open(self, model, **more):
        raise RuntimeError("no such operator")


class Harmed(Unlike):
    """FP16 harms the network with sums in FP32, too."""

    def cpu_emulations(self):
        return EmulateRunner(fp16_accumulation=True), EmulateRunner(fp16_accumulation=True)


def test_sums_excuse_nobody_whom_fp16_harms_without_them():
    (output,) = (o for o in compared(True, 1, Harmed).outputs if "emulate" in o.candidate)
    assert (output.verdict, output.decided_by) == ("fail", None)
    assert "emulated with sums in FP32, the network errs by 1.88 times that" in output.reason


@pytest.mark.parametrize("runner", [Unlike, Ruined, Refusing])
def test_nothing_is_decided_where_the_sums_cannot_be_emulated(runner):
    (output,) = (o for o in compared(True, 1, runner).outputs if "emulate" in o.candidate)
    assert (output.verdict, output.decided_by) == ("undecided", None)
    assert "sums in FP16 may explain up to 12.02 times" in output.reason


# -- scale ------------------------------------------------------------------------------------------------------


def plain_scale(x):
    """The definition, element by element."""
    x = np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)
    finite = np.isfinite(x)

    def rms(part, fits):
        values = np.abs(part[fits])
        return math.sqrt((values**2).mean()) if values.size else math.nan

    whole = rms(x, finite) if finite.any() else 0.0
    result = np.full(x.shape, whole)
    for place in np.ndindex(x.shape):
        slices = [tuple(place[a] if a == axis else slice(None) for a in range(x.ndim)) for axis in range(x.ndim)]
        if x.ndim > 2:
            slices.append((*place[:-1], slice(None)))
        for s in slices:
            part, fits = np.atleast_1d(x[s]), np.atleast_1d(finite[s])
            if part.size >= SLICE and fits.sum() >= SLICE:
                size = rms(part, fits)
                if 0 < size < whole:
                    size *= 1 + math.log(whole / size)
                result[place] = min(result[place], size)
    return result


SHAPES = [(), (5,), (64,), (100,), (3, 70), (70, 3), (2, 3, 70), (2, 70, 3), (2, 3, 8, 9), (1, 1, 80), (80, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, ml_dtypes.bfloat16])
def test_scale_is_its_definition(shape, dtype):
    x = RNG.standard_normal(shape) * np.exp(2 * RNG.standard_normal(shape[-1:] or ()))
    x = np.asarray(x).astype(dtype)
    wide = x.astype(np.complex128 if dtype is np.complex64 else np.float64)
    assert Scale(x).block(0, x.size) == pytest.approx(plain_scale(wide).reshape(-1), rel=1e-9)


def test_values_that_are_not_finite_are_left_out():
    x = RNG.standard_normal((4, 80)).astype(np.float32)
    x[1, 3], x[2, 5], x[3] = np.nan, np.inf, np.nan
    assert Scale(x).block(0, x.size) == pytest.approx(plain_scale(x).reshape(-1), rel=1e-9)
    assert Scale(np.full(5, np.nan)).smallest == 0


@pytest.mark.parametrize("trailing", [1, 10, 80, 1 << 16])
def test_blocks_are_pieces_of_the_whole(trailing, monkeypatch):
    monkeypatch.setattr(tolerance, "TRAILING", trailing)
    x = RNG.standard_normal((3, 5, 80)).astype(np.float32) * np.arange(1, 81, dtype=np.float32)
    expected = plain_scale(x).reshape(-1)
    scale = Scale(x)
    for start, stop in itertools.pairwise([0, 1, 79, 80, 81, 399, 640, 1200]):
        assert scale.block(start, stop) == pytest.approx(expected[start:stop], rel=1e-9)
    assert scale.smallest == pytest.approx(expected.min())


def test_large_tensors_are_read_in_pieces():
    x = RNG.standard_normal((9, 300, 200)).astype(np.float32)
    x[4] *= 1e-3
    squares = x.astype(np.float64) ** 2
    whole = math.sqrt(squares.mean())
    small = math.sqrt(squares[4].mean())
    assert Scale(x).block(4 * 60000, 5 * 60000).max() <= small * (1 + math.log(whole / small)) * (1 + 1e-9)


# -- verdicts ---------------------------------------------------------------------------------------------------


def agrees(reference, candidate, made):
    answers = {Statistics(f).update(reference, candidate, made.allowed(reference)).agree for f in (True, False)}
    assert len(answers) == 1
    return answers.pop()


@pytest.mark.parametrize("number_format", [FP32, FP16, BF16])
@pytest.mark.parametrize("last", [True, False])
def test_boxes_do_not_excuse_scores_that_became_zero(number_format, last):
    reference = np.concatenate([RNG.uniform(100, 600, (1, 500, 4)), RNG.beta(0.3, 3, (1, 500, 80))], -1)
    reference = np.ascontiguousarray(reference if last else reference.transpose(0, 2, 1), F32)
    candidate = reference.copy()
    candidate[(..., slice(4, None)) if last else (slice(None), slice(4, None))] = 0
    made = rule([FP32, number_format], F32, 60)
    assert not agrees(reference, candidate, made)
    noisy = reference * (1 + 0.5 * made.t * RNG.uniform(-1, 1, reference.shape))
    assert agrees(reference, noisy.astype(np.float32), made)


FAULTS = {
    "three times too large": lambda x: 3 * x,
    "0.5 % garbage": lambda x: np.where(np.arange(x.size).reshape(x.shape) % 200 == 7, 5, x),
    "40 % garbage": lambda x: np.where(np.arange(x.size).reshape(x.shape) % 5 < 2, 5, x),
    "one element": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 777, x + 1, x),
    "one sample zero": lambda x: x * (np.arange(len(x)) != 2)[:, None],
    "one channel zero": lambda x: x * (np.arange(x.shape[1]) != 2),
    "shifted": lambda x: np.roll(x, 1, 1),
    "1 % too large": lambda x: 1.01 * x,
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_that_means_and_quantiles_pass(name):
    """A median passes 40 % garbage, a 0.99 quantile 0.5 %, a cosine any scale."""
    reference = RNG.standard_normal((8, 500)).astype(np.float32)
    candidate = FAULTS[name](reference).astype(np.float32)
    assert not agrees(reference, candidate, rule([FP32, FP32], F32, 100, 40_000))


def test_every_element_counts_whatever_the_others_are():
    """Beyond t (|r| + scale) there is no pass, on whichever side of it the rest is."""
    made = rule([FP32, FP16], F32, 50)
    reference = np.ones(1000, np.float32)
    for error, expected in ((1.9 * made.t, True), (2.1 * made.t, False)):
        candidate = reference.copy()
        candidate[123] += error
        assert agrees(reference, candidate, made) == expected


def test_underflow_of_the_format_is_no_mismatch():
    """A probability of 1e-9 is 0 in FP16."""
    reference = np.array([1.0, 1e-9, 1e-12], np.float32)
    reference = np.repeat(reference[:, None], 100, 1)
    candidate = reference.astype(np.float16).astype(np.float32)
    assert agrees(reference, candidate, rule([FP32, FP16], F32, 10))
    assert not agrees(reference, candidate, rule([FP32, FP32], F32, 10))


def test_an_undecidable_tolerance_allows_nothing():
    made = rule([FP32, INT8], F32, 3)
    x = np.ones(100, np.float32)
    assert Statistics().update(x, x + np.float32(1e-6), made.allowed(x)).mismatched == 100


def test_what_the_report_says():
    x = np.full((2, 100), 2.0, np.float32)
    made = rule([FP32, FP16], F32, 100)
    report = made.json(made.allowed(x))
    assert report == {"rtol": made.t, "atol": pytest.approx(2 * made.t), "source": "auto"}
    assert user(1e-3, 1e-5).json() == {"rtol": 1e-3, "atol": 1e-5, "source": "user"}
    assert EXACT.json() == {"rtol": 0, "atol": 0, "source": "auto"}
    assert (str(EXACT), str(Tolerance(1e-3, 1e-5))) == ("exact", "1e-05 + 0.001 |r|")


def cancelling(offset):
    """(x w + offset) - offset: in FP16 little of x w is left."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((64, 64)).astype(np.float32) / 8, "offset": np.full(64, offset, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
        helper.make_node("Add", ["p", "offset"], ["a"], name="there"),
        helper.make_node("Sub", ["a", "offset"], ["y"], name="back"),
    ]
    return assembled(nodes, [("x", 1, [32, 64])], [("y", 1, [32, 64])], weights)


def test_rounding_that_ruins_an_output_does_not_pass_however_large_its_terms_are():
    feed = [{"x": np.random.default_rng(1).standard_normal((32, 64)).astype(np.float32)}]
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16", every_node=True)]
    report = Comparator(cancelling(1000.0), runners, data_loader=feed).compare()
    assert report.outputs[0].metrics["rel_l2"] > 0.1
    assert report.verdict == "fail"


def test_what_no_terms_could_excuse_is_not_asked_about_its_terms(monkeypatch):
    asked = []
    monkeypatch.setattr(Judge, "_sizes", lambda *a: asked.append(a))
    model = cancelling(1.0)
    report = Comparator(model, [OnnxrtRunner()], candidate_model=edited(model, scaled("w", 1.01))).compare()
    assert report.verdict == "fail"
    assert not asked
