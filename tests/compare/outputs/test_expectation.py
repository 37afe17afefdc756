"""Two ONNX files, or a format, whole: what is broken fails, and what is not passes, without a tolerance from anybody.

Each fault is a kind that people met: what is large beside it, a narrow type that nobody reads, and few elements used to
excuse it.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, ReferenceEvaluatorRunner
from layerdiff.compare.outputs import drawing
from layerdiff.graph.model import Model
from layerdiff.graph.rounding import noise_pool
from layerdiff.graph.rounding.typed import typed
from onnx import numpy_helper, parser

from support.models import normal, parsed
from support.runners import FunctionRunner

RNG = np.random.default_rng(5)
W = (RNG.standard_normal((32, 200)) / 6).astype(np.float32)
V = (RNG.standard_normal((200, 60)) / 14).astype(np.float32)


def model_of(text, ir=9, opset=17, **constants):
    model = parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]> g {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    onnx.checker.check_model(model)
    return model


def feeds(samples=2, rows=8, seed=1):
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((rows, 32)).astype(np.float32)} for _ in range(samples)]


def outputs(reference, candidate=None, runners=None, data=None, **rules):
    comparator = Comparator(
        reference, runners or [OnnxrtRunner()], candidate_model=candidate, data_loader=data or feeds(), **rules
    )
    return comparator.compare().outputs


HEAD = "a = MatMul(x, w) b = Relu(a) s = MatMul(b, v)"
MASK = np.where(np.arange(60) == 7, 1.0, 0.0).astype(np.float32)
BIG = [-1e4, -65504.0, -1e9, -3.4e38]


def scores(end, shape="float[8,60] y", **constants):
    return model_of(f"(float[8,32] x) => ({shape}) {{ {HEAD} {end} }}", w=W, v=V, **constants)


def masked(change, value, end=""):
    """One suppressed token among sixty logits, and a change of the others."""
    changes = {
        "": "t = Identity(s)",
        "zeroed": "t = Mul(s, zero)",
        "scaled": "t = Mul(s, factor)",
        "shuffled": "t = Gather<axis=1>(s, order)",
    }
    order = np.arange(60)
    order[np.arange(60) != 7] = np.roll(order[np.arange(60) != 7], 1)
    shape = "int64[8] y" if end else "float[8,60] y"
    text = f"{changes[change]} m = Mul(mask, big) l = Where(hidden, m, t) {end or 'y = Identity(l)'}"
    return scores(
        text,
        shape,
        mask=MASK,
        hidden=MASK > 0,
        big=np.float32(value),
        zero=np.float32(0),
        factor=np.float32(1.001),
        order=order,
    )


@pytest.mark.parametrize("value", BIG)
@pytest.mark.parametrize("change", ["zeroed", "scaled", "shuffled"])
def test_one_large_value_excuses_nobody_beside_it(value, change):
    (found,) = outputs(masked("", value), masked(change, value))
    assert found.verdict == "fail"


@pytest.mark.parametrize("value", BIG)
def test_one_large_value_accuses_nobody_either(value):
    (found,) = outputs(masked("", value), runners=[OnnxrtRunner(), OnnxrtRunner(optimization="disable")])
    assert found.verdict == "pass"


@pytest.mark.parametrize("value", BIG)
def test_another_token_is_no_tie(value):
    end = "y = ArgMax<axis=1, keepdims=0>(l)"
    (found,) = outputs(masked("", value, end), masked("shuffled", value, end))
    assert found.verdict == "fail"
    assert "where rounding changes none" in found.reason


@pytest.mark.parametrize("fmt", ["fp32", "fp16", "bf16", "tf32"])
@pytest.mark.parametrize("end", ["y = ArgMax<axis=1, keepdims=0>(s)", "q, y = TopK<axis=1>(s, five)"])
def test_healthy_decisions_pass_in_every_format(fmt, end):
    shape = "int64[8] y" if "ArgMax" in end else "int64[8,5] y"
    runner = OnnxrtRunner(optimization="disable") if fmt == "fp32" else EmulateRunner(format=fmt)
    model = scores(end, shape, five=np.array([5]))
    (found,) = outputs(model, runners=[OnnxrtRunner(), runner], data=feeds(12))
    assert found.verdict in ("pass", "undecided")


def test_a_choice_that_rounding_exchanges_is_a_tie():
    """Columns 3 and 4 of the weights are all but the same: which of them wins is for rounding to say."""
    v = np.abs(V)
    v[:, 3] = 3 * v.max()
    v[:, 4] = v[:, 3] * (1 + 1e-5)
    text = f"(float[8,32] x) => (int64[8] y) {{ {HEAD} y = ArgMax<axis=1, keepdims=0>(s) }}"
    data = [{"x": np.abs(feeds(1)[0]["x"])}]
    model = model_of(text, w=np.abs(W), v=v)
    (found,) = outputs(model, runners=[OnnxrtRunner(), EmulateRunner(format="fp16")], data=data)
    assert found.verdict in ("pass", "undecided")
    assert found.ties
    v[:, [4, 5]] = v[:, [5, 4]]
    (found,) = outputs(model, model_of(text, w=np.abs(W), v=v), data=data)
    assert found.verdict == "fail"


NARROW = {
    "a cast that nobody reads": "d = Cast<to=16>(s) y = Mul(s, k)",
    "a weight that nobody reads": "d = Identity(half) y = Mul(s, k)",
    "another output": "z = Cast<to=10>(s) y = Mul(s, k)",
}


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("factor", [1.02, 1.001, 1.0001, 1.00001])
def test_a_narrow_type_elsewhere_loosens_nothing(name, factor):
    shape = "float[8,60] y, float16[8,60] z" if "other" in name else "float[8,60] y"
    models = [scores(NARROW[name], shape, k=np.float32(k), half=np.ones(3, np.float16)) for k in (1, factor)]
    assert outputs(*models)[0].verdict == "fail"
    assert outputs(models[0], models[0])[0].verdict == "pass"


def test_trips_that_a_loop_may_make_do_not_count_as_made():
    body = "l (int64 i, bool go, float[8,60] p) => (bool more, float[8,60] q) { more = Less(i, one) q = Mul(p, k) }"
    text = f"(float[8,32] x) => (float[8,60] y) {{ {HEAD} y = Loop (most, yes, s) <body = {body}> }}"
    models = [
        model_of(text, w=W, v=V, most=np.array(10**8), yes=np.array(True), one=np.array(1), k=np.float32(k))
        for k in (1, 1.0005)
    ]
    assert outputs(*models)[0].verdict == "fail"


# -- small heads in coarse formats ------------------------------------------------------------------------------

BOX = RNG.uniform(0, 500, 200).astype(np.float32)


def head(change=None):
    """60 detections of 4 coordinates in pixels, a score, and a class id as a float."""
    text = (
        f"(float[8,32] x) => (float[8,60,6] y) {{ {HEAD} t = Reshape(s, column) c = MatMul(t, wide) box = Exp(c)"
        " pixels = Mul(box, hundred) score = Sigmoid(t) id = Identity(ids) "
        f"{change or 'p = Identity(score) i = Identity(id)'} y = Concat<axis=2>(pixels, p, i) }}"
    )
    return model_of(
        text,
        w=W,
        v=V,
        column=np.array([8, 60, 1]),
        wide=np.array([[0.1, 0.2, 0.3, 0.4]], np.float32),
        hundred=np.float32(300),
        ids=np.broadcast_to(RNG.integers(0, 80, (8, 60, 1)), (8, 60, 1)).astype(np.float32),
        zero=np.float32(0),
        one=np.float32(1),
        less=np.float32(0.98),
    )


HEADS = {
    "all scores zero": "p = Mul(score, zero) i = Identity(id)",
    "scores 2 % lower": "p = Mul(score, less) i = Identity(id)",
    "class ids off by one": "p = Identity(score) i = Add(id, one)",
}


@pytest.mark.parametrize("fmt", ["fp16", "bf16", "tf32", "fp32"])
@pytest.mark.parametrize("name", HEADS)
def test_small_heads_are_held_against_their_own_size(fmt, name):
    if (fmt, name) == ("bf16", "scores 2 % lower"):
        pytest.skip("2 % is what BF16 may do to a score")
    runner = OnnxrtRunner() if fmt == "fp32" else EmulateRunner(format=fmt)
    right, wrong = head(), head(HEADS[name])
    wrong.graph.initializer[4].CopyFrom(right.graph.initializer[4])
    for model in (right, wrong):
        ids = next(t for t in model.graph.initializer if t.name == "ids")
        ids.CopyFrom(numpy_helper.from_array(np.full((8, 60, 1), 17, np.float32), "ids"))
    assert outputs(right, right, [OnnxrtRunner(), runner])[-1].verdict == "pass"
    found = Comparator(right, [OnnxrtRunner(), runner], candidate_model=wrong, data_loader=feeds()).compare()
    assert {o.verdict for o in found.outputs} == {"fail"}


POSE = "p = MatMul(s, pose) q = MatMul(s, turn) n = ReduceL2<axes=[1], keepdims=1>(q) u = Div(q, n)"


@pytest.mark.parametrize("fmt", ["fp16", "bf16", "tf32"])
def test_a_conjugated_quaternion_beside_a_position_fails(fmt):
    text = f"(float[8,32] x) => (float[8,7] y) {{ {HEAD} {POSE} c = Mul(u, sign) y = Concat<axis=1>(p, c) }}"
    constants = {
        "pose": (100 * RNG.standard_normal((60, 3))).astype(np.float32),
        "turn": RNG.standard_normal((60, 4)).astype(np.float32),
    }
    right, wrong = (model_of(text, w=W, v=V, sign=np.array([1, s, s, s], np.float32), **constants) for s in (1, -1))
    runners = [OnnxrtRunner(), EmulateRunner(format=fmt)]
    assert outputs(right, runners=runners)[0].verdict == "pass"
    found = Comparator(right, runners, candidate_model=wrong, data_loader=feeds()).compare()
    assert {o.verdict for o in found.outputs} == {"fail"}


# -- other ways to be right or wrong ----------------------------------------------------------------------------


def test_inputs_that_are_handed_through_are_equal_or_wrong():
    text = "(float[8,32] x, bool[8] m) => (float[8,32] y, bool[8] n) {{ y = Relu(x) {} }}"
    right, wrong = model_of(text.format("n = Identity(m)")), model_of(text.format("n = Not(m)"))
    data = [{**feed, "m": np.ones(8, bool)} for feed in feeds()]
    found = {o.tensor: o.verdict for o in outputs(right, wrong, data=data)}
    assert found == {"y": "pass", "n": "fail"}


def test_a_scalar_output_is_judged_by_its_own_noise():
    text = f"(float[8,32] x) => (float y) {{ {HEAD} m = ReduceMean<keepdims=0>(s) y = Mul(m, k) }}"
    right, wrong = (model_of(text, w=W, v=V, k=np.float32(k)) for k in (1, 1.001))
    assert outputs(right, runners=[OnnxrtRunner(), OnnxrtRunner(optimization="disable")])[0].verdict == "pass"
    assert outputs(right, wrong)[0].verdict == "fail"


def test_rounding_that_ruins_an_output_is_undecided_and_says_so():
    """(x w + 100) - 100: in FP16 little of x w is left, though no layer is broken."""
    text = f"(float[8,32] x) => (float[8,60] y) {{ {HEAD} t = Add(s, hundred) y = Sub(t, hundred) }}"
    model = model_of(text, w=W, v=V, hundred=np.float32(100))
    (found,) = outputs(model, runners=[OnnxrtRunner(), EmulateRunner(format="fp16", every_node=True)])
    assert found.verdict == "undecided"
    assert "too coarse" in found.reason
    assert found.expected["explained"]


def test_an_error_larger_than_the_signal_fails_in_any_format():
    nodes = f"{HEAD} l = Mul(s, few) t = Add(l, much) u = Mul(t, third) y = Sub(u, part)"
    much, third = np.float32(1000), np.float32(1 / 3)
    constants = {"few": np.float32(0.03), "much": much, "third": third, "part": much * third}
    model = model_of(f"(float[8,32] x) => (float[8,60] y) {{ {nodes} }}", w=W, v=V, **constants)
    (found,) = outputs(model, runners=[OnnxrtRunner(), EmulateRunner(format="fp16", every_node=True)])
    assert found.verdict == "fail"
    assert "0 dB or less" in found.reason


def test_a_graph_with_narrow_types_of_its_own_is_judged_by_its_own_roundings():
    """Weights and activations of the second file are FP16 from the second product on."""
    text = "a = MatMul(x, w) b = Relu(a) c = Cast<to=10>(b) h = MatMul(c, v) y = Cast<to=1>(h)"
    narrow = [
        model_of(f"(float[8,32] x) => (float[8,60] y) {{ {text} }}", w=W, v=(V * k).astype(np.float16))
        for k in (1, 1.02)
    ]
    wide = scores("y = Identity(s)")
    assert outputs(wide, narrow[0])[0].verdict == "pass"
    assert outputs(wide, narrow[1])[0].verdict == "fail"


def test_what_cannot_be_measured_is_judged_by_the_formula_and_said():
    model = model_of(f"(float[8,32] x) => (float[8,60] y) {{ {HEAD} y = Identity(s) }}", w=W, v=V)
    model.graph.node[-1].domain, model.graph.node[-1].op_type = "nowhere", "Unheard"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))

    def run(factor):
        return lambda feed: {"y": np.maximum(feed["x"] @ W, 0) @ V * np.float32(factor)}

    for factor, verdict in ((1 + 1e-6, "pass"), (1.01, "fail")):
        runners = [
            FunctionRunner(function=run(1), label="one", rank=1),
            FunctionRunner(function=run(factor), label="other"),
        ]
        report = Comparator(model, runners, data_loader=feeds()).compare()
        assert report.outputs[0].verdict == verdict
        assert any("judged by a formula" in text for text in report.warnings)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_outputs_are_judged_by_the_formula(dtype):
    model = model_of("(float[8,32] x) => (float[8,32] y) { y = Relu(x) }")

    def run(factor):
        return lambda feed: {"y": (feed["x"] * (1 + 1j) * factor).astype(dtype)}

    for factor, verdict in ((1 + 2e-7, "pass"), (1.01, "fail")):
        runners = [
            FunctionRunner(function=run(1), label="one", rank=1),
            FunctionRunner(function=run(factor), label="other"),
        ]
        assert Comparator(model, runners, data_loader=feeds()).compare().outputs[0].verdict == verdict


TINY = np.where(np.arange(60) % 9 == 0, 1e-12, 1.0).astype(np.float32)


def test_subnormal_weights_that_hardly_matter_pass():
    """Dead channels of a normalization: their weights are lifted to FP16's smallest number, or become zero."""
    model = scores("l = Mul(s, twenty) y = Mul(l, g)", g=TINY, twenty=np.float32(20))
    (found,) = outputs(model, runners=[OnnxrtRunner(), EmulateRunner(format="fp16")])
    assert found.verdict == "pass", found.reason
    assert found.expected["subnormals"]
    (wider,) = outputs(model, runners=[OnnxrtRunner(), EmulateRunner(format="bf16")])
    assert wider.verdict == "pass"


def test_values_that_underflow_and_are_scaled_back_fail():
    """No rounding of normal numbers explains it; a rounding of subnormal ones does, and it is a fault all the same."""
    model = scores("a1 = Mul(s, small) r = Relu(a1) y = Mul(r, large)", small=np.float32(1e-7), large=np.float32(1e7))
    (found,) = outputs(model, runners=[OnnxrtRunner(), EmulateRunner(format="fp16", every_node=True)])
    assert found.verdict == "fail"
    assert "too small for the candidate's format" in found.reason, found.reason


@pytest.mark.parametrize("fmt", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize(("op", "gates"), [("GRU", 3), ("LSTM", 4), ("RNN", 1)])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_state_rounds_at_every_step(fmt, op, gates, direction):
    n = 2 if direction == "bidirectional" else 1
    node = f'{op}<hidden_size=24, direction="{direction}">(x, w, r)'
    text = f"(float[40,2,16] x) => (float[40,{n},2,24] y) {{ y = {node} }}"
    w = RNG.standard_normal((n, gates * 24, 16)).astype(np.float32) / 4
    r = RNG.standard_normal((n, gates * 24, 24)).astype(np.float32) / 5
    data = [{"x": RNG.standard_normal((40, 2, 16)).astype(np.float32)} for _ in range(2)]
    model = model_of(text, w=w, r=r)
    (found,) = outputs(model, runners=[OnnxrtRunner(), EmulateRunner(format=fmt)], data=data)
    assert found.verdict == "pass", found.reason
    assert 1 / 3 < found.expected["rms_z"] < 2


CANCELLING = {
    "BatchNormalization": ("float[4,8,6]", "y = BatchNormalization<epsilon=0.0>(x, ones, ones, ones, ones)"),
    "MeanVarianceNormalization": ("float[4,8,6]", "y = MeanVarianceNormalization<axes=[0, 1]>(x)"),
    "Gelu": ("float[4,8,6]", 'y = Gelu<approximate="tanh">(x)'),
    "DFT": ("float[4,8,2]", "axis = Constant<value_int=1>() y = DFT(x, , axis)"),
    "Resize": ("float[1,1,8,6]", 'y = Resize<mode="cubic">(x, , scales)'),
}


@pytest.mark.parametrize("name", CANCELLING)
def test_operators_that_cancel_inside_agree_between_two_implementations(name):
    """The steps inside one operator leave more than the rounding of its result."""
    shape, text = CANCELLING[name]
    result = {"DFT": "float[4,8,2]", "Resize": "float[1,1,16,12]"}.get(name, shape)
    constants = {"ones": np.ones(8, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    read = {k: v for k, v in constants.items() if k in text}
    model = model_of(f"({shape} x) => ({result} y) {{ {text} }}", opset=20, **read)
    dims = [int(d) for d in shape[6:-1].split(",")]
    values = (1 + np.linspace(-4, 1, int(np.prod(dims)))).reshape(dims).astype(np.float32)
    (found,) = outputs(model, runners=[OnnxrtRunner(), ReferenceEvaluatorRunner()], data=[{"x": values}])
    assert found.verdict == "pass", found.reason


@pytest.mark.parametrize("stored", [np.int8, np.uint8, np.int16])
def test_a_file_of_integer_weights_is_no_fault_and_no_pass(stored):
    step = np.float32(np.abs(V).max() / 20)
    zero = 128 if stored is np.uint8 else 0
    quantized = (np.rint(V / step) + zero).astype(stored)
    text = "f = Cast<to=1>(q) d = Sub(f, zero) v = Mul(d, step) a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)"
    whole = scores("y = Identity(s)")
    weights = {"w": W, "q": quantized, "step": step, "zero": np.float32(zero)}
    coarse = model_of(f"(float[8,32] x) => (float[8,60] y) {{ {text} }}", **weights)
    (found,) = outputs(whole, coarse)
    assert found.verdict == "undecided"
    assert "scaled integers" in found.reason


def test_an_error_far_beyond_every_limit_asks_for_no_more_draws():
    wrong = scores("y = Mul(s, factor)", factor=np.float32(1.5))
    (found,) = outputs(scores("y = Identity(s)"), wrong)
    assert found.verdict == "fail"
    assert found.expected["draws"] <= 4


@pytest.mark.parametrize(("rows", "draws"), [(8, 1), (1, 4)])
def test_entries_of_a_batch_are_samples_of_which_few_draws_decide(rows, draws):
    model = scores("y = Identity(s)", shape=f"float[{rows},60] y")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = rows
    (found,) = outputs(model, runners=[OnnxrtRunner(), EmulateRunner(format="fp16")], data=feeds(1, rows))
    assert found.verdict == "pass"
    assert found.expected["draws"] == draws


GATHERED = """(float[64] x) => (float[N] y) {
    i = NonZero(x) f = Reshape(i, all) p = Gather(x, f) c = Concat<axis = 0>(p, p, p, p) q = Mul(c, c) y = Exp(q) }"""


def test_the_pool_grows_where_a_tensor_of_unknown_size_is_larger(monkeypatch):
    monkeypatch.setattr(drawing, "SIZE", 8)
    monkeypatch.setattr(noise_pool, "SPREAD", 1)
    model = model_of(GATHERED, all=np.array([-1]))
    feed = {"x": np.linspace(0.1, 1, 64, dtype=np.float32)}
    report = Comparator(model, [OnnxrtRunner(threads=1), EmulateRunner(format="bf16")], data_loader=[feed]).compare()
    assert report.outputs[0].expected, report.notices


def test_the_pool_does_not_grow_for_a_reshape_that_fails_for_another_reason(monkeypatch):
    """Noise on the scale 1 of a batch makes it 0.9999, and the batch empty: the formula decides, without gigabytes."""
    sizes = []

    class Pools(noise_pool.Pools):
        def __init__(self, scales, size):
            sizes.append(size)
            super().__init__(scales, size)

    monkeypatch.setattr(drawing, "Pools", Pools)
    model = model_of("(float[1, 1, 4, 4] x, float[4] s) => (float[A, B, C, D] y) { y = Resize(x, , s) }")
    feed = {"x": RNG.standard_normal((1, 1, 4, 4)).astype(np.float32), "s": np.array([1, 1, 1.5, 1.5], np.float32)}
    Comparator(model, [OnnxrtRunner(threads=1), EmulateRunner(format="fp16")], data_loader=[feed]).compare()
    assert len({*sizes}) == 1


# -- inputs that repeat a value ----------------------------------------------------------------------------------------

TABLE = RNG.standard_normal((300, 64)).astype(np.float32)
INNER = (RNG.standard_normal((64, 96)) / 8).astype(np.float32)
POOLED = model_of(
    "(int64[1,512] ids) => (float[1,96] y) { e = Gather(table, ids) a = MatMul(e, w) b = Add(a, big) c = Sub(b, big) "
    "y = ReduceMean<axes=[1], keepdims=0>(c) }",
    table=TABLE,
    w=INNER,
    big=np.float32(100),
)


def pooled(share, factor=1.0):
    """Tokens of which a share is the same one; the candidate computes in FP64, so that the reference's errors show."""
    ids = np.random.default_rng(3).integers(0, 300, (1, 512))
    ids[0, : int(512 * share)] = 7

    def exact(feed):
        inner = TABLE[feed["ids"]].astype(np.float64) @ INNER.astype(np.float64)
        return {"y": (inner.mean(axis=1) * factor).astype(np.float32)}

    (found,) = outputs(POOLED, runners=[OnnxrtRunner(), FunctionRunner(function=exact)], data=[{"ids": ids}])
    return found


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_equal_tokens_make_equal_errors_that_add_up(share):
    found = pooled(share)
    assert found.verdict == "pass"
    assert 0.2 < found.expected["rms_z"] < 2


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_a_fault_fails_on_equal_tokens_too(share):
    assert pooled(share, factor=1.0002).verdict == "fail"


@pytest.mark.parametrize("seed", [11, 12])
def test_an_element_that_a_relu_cuts_off_and_the_first_draw_does_not_show_takes_more_draws(seed):
    """One element of the first input is barely above zero, zero in FP16, and has no noise in the first draw."""
    text = """g (float[8,64] x) => (float[8,256] y) {
        m = MatMul(x, w) r = Relu(m) s = Mul(r, r) t = ReduceSum(s, axis) q = Sqrt(t) y = Div(r, q)
    }"""
    good = parsed(text, w=normal(64, 256) / 8, axis=np.array([1]))
    report = Comparator(
        good,
        [OnnxrtRunner()],
        candidate_model=typed(Model(good), "fp16").model.proto,
        data_loader=[{"x": normal(8, 64, seed=seed)}],
    ).compare()
    assert report.verdict == "pass"
