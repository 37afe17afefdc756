"""Decisions that differ are ties where rounding decides otherwise, whoever is the reference, and if they are few."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.outputs.decisions import hold_decisions, numbers, relative_error
from layerdiff.graph.index import GraphIndex
from onnx import numpy_helper, parser

from support.runners import FunctionRunner

RNG = np.random.default_rng(3)
W = (RNG.standard_normal((16, 10)) / 4).astype(np.float32)
X = RNG.standard_normal((64, 16)).astype(np.float32)
IDS = RNG.integers(-500, 500, (4, 16))


def model_of(text, **constants):
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    onnx.checker.check_model(model)
    return model


def scores(end, kind="int64[64] y", **constants):
    return model_of(f"(float[64,16] x) => ({kind}) {{ s = MatMul(x, w) {end} }}", w=W, **constants)


def judged(model, *runners, data):
    (found,) = Comparator(model, runners, data_loader=data).compare().outputs
    return found


def against(right, model, data):
    """An ONNX file beside a program of which nothing but its outputs is known, and which is the reference."""
    program = FunctionRunner(function=lambda feed: {"y": right(feed["x"])}, label="program", rank=1)
    return judged(model, program, OnnxrtRunner(), data=[{"x": data}])


def integers(nodes, **constants):
    return model_of(f"(int64[4,16] x) => (int64[4,16] y) {{ {nodes} }}", **constants)


HALF = "h = Sigmoid(s) y = Greater(h, edge)"
OTHERS = {
    "ArgMin": (lambda x: (x @ W).argmax(1), scores("y = ArgMin<axis=1, keepdims=0>(s)"), X),
    "ascending": (
        lambda x: np.argsort(-(x @ W), 1)[:, :5],
        scores("v, y = TopK<axis=1, largest=0>(s, five)", "int64[64,5] y", five=np.array([5])),
        X,
    ),
    "another threshold": (lambda x: x @ W > 0, scores(HALF, "bool[64,10] y", edge=np.float32(0.6)), X),
    "another constant": (
        lambda x: x * 31 % 97,
        integers("m = Mul(x, k) y = Mod(m, n)", k=np.array(29), n=np.array(97)),
        IDS,
    ),
    "off by one": (lambda x: x + 1, integers("y = Identity(x)"), IDS),
    "a quotient that is cut off": (lambda x: x // 8, integers("y = Div(x, k)", k=np.array(8)), IDS),
    "a quotient in FP32 that is cut off": (
        lambda x: x // 7,
        integers(
            "f = Cast<to=1>(x) q = Div(f, k) a = Abs(q) d = Floor(a) s = Sign(q) m = Mul(d, s) y = Cast<to=7>(m)",
            k=np.float32(7),
        ),
        IDS,
    ),
    "halves that are rounded up": (
        lambda x: np.round(x / 2).astype(np.int64),
        integers(
            "f = Cast<to=1>(x) h = Div(f, two) m = Add(h, half) d = Floor(m) y = Cast<to=7>(d)",
            two=np.float32(2),
            half=np.float32(0.5),
        ),
        IDS,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_decisions_of_a_file_beside_a_program_that_decides_otherwise_are_no_ties(name):
    found = against(*OTHERS[name])
    assert (found.verdict, found.ties) == ("fail", 0), found.reason


def test_another_shape_than_that_of_a_program_is_no_tie():
    model = model_of(
        "(float[64,16] x) => (int64[n,2] y) { b = Greater(x, one) p = NonZero(b) y = Transpose(p) }", one=np.float32(1)
    )
    found = against(lambda x: np.argwhere(x > 0), model, X)
    assert found.verdict == "fail", found.reason


CHOOSES = {
    "topk": ("v, y = TopK<axis=1>(r, five)", lambda v: np.argsort(-v, 1, kind="stable")[:, :5]),
    "argmax": ("y = ArgMax<axis=1, keepdims=0>(r)", lambda v: v.argmax(1)),
}


@pytest.mark.parametrize("name", CHOOSES)
def test_a_program_may_choose_any_of_equal_values(name):
    """Rounded scores have many equal values; ONNX takes the first of them, the program the last."""
    end, first = CHOOSES[name]
    kind = "int64[64,5] y" if name == "topk" else "int64[64] y"
    model = scores(f"r = Round(s) {end}", kind, five=np.array([5]))
    last = against(lambda x: 9 - first(np.rint(x @ W)[:, ::-1]), model, X)
    assert (last.verdict, "by values that are equal" in last.reason) == ("undecided", True)
    other = against(lambda x: (first(np.rint(x @ W)) + 1) % 10, model, X)
    assert other.verdict == "fail"
    beside = FunctionRunner(function=lambda feed: {"y": 9 - first(np.rint(feed["x"] @ W)[:, ::-1])})
    assert judged(model, OnnxrtRunner(), beside, data=[{"x": X}]).verdict == "fail"


def test_a_tie_of_a_file_beside_a_program_is_one():
    """Columns 3 and 4 are equal but for rounding, and the greatest of all; the program takes the other one once."""
    w = np.abs(W)
    w[:, 3] = 5
    w[:, 4] = np.nextafter(np.float32(5), np.float32(6))
    x = np.abs(X)
    model = model_of("(float[64,16] x) => (int64[64] y) { s = MatMul(x, w) y = ArgMax<axis=1, keepdims=0>(s) }", w=w)

    def program(x):
        choice = np.full(64, 4)
        choice[np.flatnonzero((x @ w).argmax(1) == 4)[0]] = 3
        return choice

    made = judged(
        model, OnnxrtRunner(), FunctionRunner(function=lambda feed: {"y": program(feed["x"])}), data=[{"x": x}]
    )
    assert made.verdict in ("pass", "undecided")
    found = against(program, model, x)
    assert found.verdict in ("pass", "undecided"), found.reason
    assert found.ties


BASE = np.arange(6)


@pytest.mark.parametrize(
    ("reference", "candidate", "drawn", "unexplained", "unseen"),
    [
        (1, 0, 1, 0, 0),  # the reference has what the drawn network gives now and then
        (1, 0, 0, 1, 0),  # it never does
        (2, 0, 1, 0, 1),  # it gives something else now and then
        (1, 2, 1, 0, 1),  # the candidate has what it never gives
        (0, 1, 1, 0, 0),  # the reference is what is drawn
    ],
)
def test_both_values_of_a_tie_are_those_that_the_drawn_network_gives(reference, candidate, drawn, unexplained, unseen):
    y, c, d = BASE.copy(), BASE.copy(), BASE.copy()
    y[4], c[4], d[4] = 4 + reference, 4 + candidate, 4 + drawn
    found = hold_decisions(y, c, [BASE] * 12 + [d] * 4, BASE)
    assert (found.different, found.unexplained, found.unseen) == (1, unexplained, unseen)


def fp16(model, x):
    return judged(model, OnnxrtRunner(), EmulateRunner(format="fp16", every_node=True), data=[{"x": x}])


FAR = "o = Add(s, far)"
RUINED = {
    "classes": scores(f"{FAR} y = ArgMax<axis=1, keepdims=0>(o)", far=np.float32(3000)),
    "truth values": scores(f"{FAR} y = Greater(o, far)", "bool[64,10] y", far=np.float32(3000)),
    "classes as floats": scores(
        f"{FAR} i = ArgMax<axis=1, keepdims=0>(o) y = Cast<to=1>(i)", "float[64] y", far=np.float32(3000)
    ),
}


@pytest.mark.parametrize("name", RUINED)
def test_decisions_that_rounding_ruins_are_undecided_and_counted(name):
    found = fp16(RUINED[name], X)
    assert found.verdict == "undecided", found.reason
    assert f"of {640 if 'truth' in name else 64} places are decided differently" in found.reason
    assert found.reason.startswith("at least ") == ("floats" in name)
    assert ("--tolerance" in found.reason) == ("floats" in name)


def test_few_ties_pass_in_a_coarse_format():
    """Two of 640 values are within what FP16 rounds of the threshold."""
    values = np.sort((X @ W).reshape(-1))
    model = scores("y = Greater(s, edge)", "bool[64,10] y", edge=np.float32(values[400] * (1 + 1e-5)))
    found = fp16(model, X)
    assert found.verdict == "pass", found.reason


@pytest.mark.parametrize(("close", "verdict"), [(1, "pass"), (20, "undecided")])
def test_samples_with_one_decision_each_are_counted_together(close, verdict):
    """One plus a ten-thousandth is one in FP16, and no longer greater."""
    rows = [*X[: 30 - close], *np.full((close, 16), 1e-4 / 16, np.float32)]
    text = "(float[1,16] x) => (bool[1,1] y) { s = MatMul(x, v) f = Add(s, one) y = Greater(f, one) }"
    model = model_of(text, v=np.ones((16, 1), np.float32), one=np.float32(1))
    half = EmulateRunner(format="fp16", every_node=True)
    found = judged(model, OnnxrtRunner(), half, data=[{"x": row[None]} for row in rows])
    assert (found.verdict, found.ties) == (verdict, close), found.reason
    only = judged(model, OnnxrtRunner(), half, data=[{"x": rows[-1][None]}])
    assert only.verdict == "undecided"


def test_pixels_may_differ_in_more_places_than_decisions():
    """A picture in UINT8, in FP16: one in twenty pixels is off by one, an error of a thousandth."""
    x = np.random.default_rng(8).standard_normal((64, 16)).astype(np.float32)
    picture = "h = Sigmoid(s) p = Mul(h, white) y = Cast<to=2>(p)"
    model = scores(picture, "uint8[64,10] y", white=np.float32(255))
    found = fp16(model, x)
    assert found.verdict == "pass", found.reason
    assert found.ties > 640 / 64


GRAPHS = {
    "pixels": ("y = Cast<to=2>(x)", True),
    "pixels moved": ("c = Cast<to=7>(x) t = Transpose(c) y = Add(t, k)", True),
    "a class": ("y = ArgMax(x)", False),
    "a class as a float": ("i = ArgMax(x) y = Cast<to=1>(i)", False),
    "a class as a float as an integer": ("i = ArgMax(x) f = Cast<to=1>(i) y = Cast<to=7>(f)", False),
    "the values of a TopK": ("y, i = TopK(x, k)", True),
    "the places of a TopK": ("v, y = TopK(x, k)", False),
    "what is looked up": ("c = Cast<to=7>(x) y = Gather(table, c)", False),
    "a hash": ("c = Cast<to=7>(x) y = Mod(c, k)", False),
    "truth values": ("y = Cast<to=9>(x)", False),
    "floats": ("y = Floor(x)", True),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_which_outputs_are_numbers(name):
    nodes, expected = GRAPHS[name]
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g (float[4,4] x) => (y) {{ {nodes} }}')
    constants = {"k": np.array([3]), "table": np.arange(100)}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    model.graph.output[0].ClearField("type")
    found = numbers(GraphIndex(onnx.shape_inference.infer_shapes(model)))
    assert ("y" in found) == expected


def test_integers_at_the_edges_between_them_have_no_small_error():
    y = np.full(64, 200)
    assert relative_error(y, y + 1, 2**-11) == pytest.approx(1 / 200)
    assert relative_error(y, y + 1, 2**-24) == np.inf
    assert relative_error(y, y, 2**-24) == 0
