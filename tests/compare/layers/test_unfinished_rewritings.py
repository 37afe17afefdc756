"""Rewritings that move something from one layer into others, and of which one piece is missing: which one is told."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from onnxruntime.quantization import QuantType, quantize_dynamic

from support.models import parsed

RNG = np.random.default_rng(0)
WIDE = 16
# a gain in front of three products; the third goes through another one; what these make is added to what came in
TEXT = """g (float[N, 16] x) => (float[N, 16] y) {
  h = MatMul(x, e) g = Mul(h, gain)
  q = MatMul(g, wq) k = MatMul(g, wk) v = MatMul(g, wv)
  s = Sigmoid(q) t = Tanh(k) a = Mul(s, t) b = MatMul(v, wo) c = MatMul(a, wa)
  r = Add(h, b) m = Add(r, c) y = MatMul(m, wy)
}"""
NAMES = ("e", "wq", "wk", "wv", "wo", "wa", "wy")
WEIGHTS = {name: (RNG.normal(size=(WIDE, WIDE)) / 4).astype(np.float32) for name in NAMES}
WEIGHTS["gain"] = RNG.uniform(0.5, 2, WIDE).astype(np.float32)
SCALE = np.exp(RNG.normal(size=WIDE)).astype(np.float32)
TURN = np.linalg.qr(RNG.normal(size=(WIDE, WIDE)))[0].astype(np.float32)
DATA = [{"x": RNG.normal(size=(32, WIDE)).astype(np.float32)}]


def scaled(**others: np.ndarray) -> dict[str, np.ndarray]:
    """A scale moved out of the gain into its three readers, and one out of the third into the product behind it."""
    moved = {"gain": WEIGHTS["gain"] / SCALE, **{n: SCALE[:, None] * WEIGHTS[n] for n in ("wq", "wk", "wv")}}
    return {**WEIGHTS, **moved, "wv": moved["wv"] / 2, "wo": WEIGHTS["wo"] * 2, **others}


def turned(**others: np.ndarray) -> dict[str, np.ndarray]:
    """What is added up in other axes: who makes it turns it, and who reads it turns it back."""
    ones = np.ones(WIDE, np.float32)
    into = {n: WEIGHTS[n] @ TURN for n in ("e", "wo", "wa")}
    gain = np.diag(WEIGHTS["gain"])
    out = {n: TURN.T @ (gain @ WEIGHTS[n]) for n in ("wq", "wk", "wv")}
    return {**WEIGHTS, **into, **out, "gain": ones, "wy": TURN.T @ WEIGHTS["wy"], **others}


def compared(weights):
    candidate = parsed(TEXT, **{name: value.astype(np.float32) for name, value in weights.items()})
    runners = [OnnxrtRunner(optimization="disable")]
    whole = parsed(TEXT, **WEIGHTS)
    return Comparator(whole, runners, candidate_model=candidate, data_loader=DATA, layers="all").compare()


@pytest.mark.parametrize("rewritten", [scaled, turned])
def test_a_finished_one_has_no_culprit(rewritten):
    report = compared(rewritten())
    assert report.verdict == "pass"
    assert not report.culprits


SAME = "its own weights, which are the first file's, do not"


@pytest.mark.parametrize(
    ("weights", "tensor", "text", "remedy"),
    [
        (
            scaled(wk=WEIGHTS["wk"]),
            "k",
            SAME,
            "let the weights of MatMul_3 in the second file take back .* in Mul_1, as",
        ),
        (
            scaled(wo=WEIGHTS["wo"]),
            "b",
            SAME,
            "let the weights of MatMul_8 in the second file take back .* in Mul_1, as",
        ),
        (scaled(wv=WEIGHTS["wv"]), "v", "", ""),
        (turned(wy=WEIGHTS["wy"]), "y", SAME, "let the weights of MatMul_12 .* take back what is changed in"),
        (turned(wa=WEIGHTS["wa"]), "c", "it adds the first file's values to what is changed", "change the weights of"),
        (turned(wq=WEIGHTS["wq"] * 1.5), "q", "its own do not", "let the weights of MatMul_2"),
        (turned(wa=WEIGHTS["wa"].T @ TURN), "c", "adds to it, is changed otherwise", "change the weights of"),
    ],
    ids=[
        "a reader",
        "a product further on",
        "two changes of one",
        "the last reader",
        "what is added",
        "another fault",
        "what is added, changed otherwise",
    ],
)
def test_the_piece_that_is_missing_is_the_culprit(weights, tensor, text, remedy):
    report = compared(weights)
    first = report.culprits[0]
    assert report.verdict == "fail"
    assert first.tensors == (tensor,)
    assert first.cause == "weights"
    if text:
        assert len(report.culprits) == 1
        assert text in first.evidence
        assert [r.text for r in first.remedies if re.search(remedy, r.text)]


# a second gain, with two readers, behind what is added up
DEEP = """g (float[N, 16] x) => (float[N, 16] y) {
  h = MatMul(x, e) g = Mul(h, gain) q = MatMul(g, wq) s = Tanh(q) b = MatMul(s, wo) r = Add(h, b)
  f = Mul(r, gain) k = MatMul(f, wk) v = MatMul(f, wv) t = Sigmoid(k) a = Mul(t, v) c = MatMul(a, wa) m = Add(r, c)
  y = MatMul(m, wy)
}"""


def deep(**others: np.ndarray):
    """That network with weights of its own for the second gain, as turned."""
    weights = turned(**{"other": np.ones(WIDE, np.float32), **others})
    made = {name: value.astype(np.float32) for name, value in weights.items()}
    return parsed(DEEP.replace("f = Mul(r, gain)", "f = Mul(r, other)"), **made)


GAIN = np.where(np.arange(WIDE) < 3, 2, 1).astype(np.float32)


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize(
    ("others", "tensor"),
    [({}, None), ({"other": GAIN}, "f"), ({"wo": WEIGHTS["wo"].T @ TURN}, "b"), ({"wa": WEIGHTS["wa"].T @ TURN}, "c")],
    ids=["none", "a gain", "what is added first", "what is added last"],
)
def test_a_fault_in_what_is_turned_is_told_in_place_of_all_that_read_it(others, tensor, bits, tmp_path):
    onnx.save(deep(**others), tmp_path / "turned.onnx")
    made = in_8_bits(tmp_path / "turned.onnx") if bits == 8 else str(tmp_path / "turned.onnx")
    whole = parsed(DEEP, **WEIGHTS)
    report = Comparator(whole, [OnnxrtRunner()], candidate_model=made, data_loader=DATA, layers="all").compare()
    found = [c.tensors for c in report.culprits if c.cause != "quantization"]
    assert found == ([(tensor,)] if tensor else [])


# a scale and a shift in front of one product, as in a LayerNormalization and the product behind it
SHIFTED = """g (float[N, 16] x) => (float[N, 16] y) {
  n = LayerNormalization(x, gain, shift) f = MatMul(n, wq) g = Sigmoid(f) y = MatMul(g, wy)
}"""
SHIFT = {**WEIGHTS, "shift": RNG.normal(size=WIDE).astype(np.float32)}
SMOOTH = {"gain": WEIGHTS["gain"] / SCALE, "shift": SHIFT["shift"] / SCALE, "wq": SCALE[:, None] * WEIGHTS["wq"]}
FEW = np.where(RNG.uniform(size=(WIDE, WIDE)) < 0.05, 1.3, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("others", "tensor", "text"),
    [
        ({}, None, ""),
        ({"wq": SMOOTH["wq"] * FEW}, "f", "once the first file's weights are rewritten as the layers beside it are"),
        ({"shift": SMOOTH["shift"] + 0.1}, "n", "beside it are, 16 of 16 biases differ, greatest 0.1 at"),
        ({"gain": SMOOTH["gain"] * 1.1}, "n", "beside it are, scale: 16 of 16 weights differ, greatest 1.17 at [5]"),
    ],
    ids=["none", "the product", "the shift", "the gain"],
)
def test_of_two_that_are_rewritten_together_the_wrong_one_is_told(others, tensor, text):
    candidate = parsed(SHIFTED, **{**SHIFT, **SMOOTH, **others})
    whole, runners = parsed(SHIFTED, **SHIFT), [OnnxrtRunner(optimization="disable")]
    report = Comparator(whole, runners, candidate_model=candidate, data_loader=DATA, layers="all").compare()
    assert [c.tensors for c in report.culprits] == ([(tensor,)] if tensor else [])
    assert all(text in c.evidence for c in report.culprits)


# what comes from one layer that is rewritten goes through a number and a Softmax to the one that takes it back
INSIDE = """g (float[N, 8, 16] x) => (float[N, 8, 16] y) {
  q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) t = Transpose<perm = [0, 2, 1]>(k)
  p = MatMul(q, t) s = Mul(p, scale) a = Softmax(s) c = MatMul(a, v) o = MatMul(c, wo) y = Tanh(o)
}"""
SEQUENCES = [{"x": RNG.normal(size=(4, 8, WIDE)).astype(np.float32)}]


@pytest.mark.parametrize(
    ("others", "tensor"),
    [
        ({}, None),
        ({"scale": np.float32(0.3)}, "s"),
        ({"wk": WEIGHTS["wk"] @ TURN + 0.05 * np.eye(WIDE)}, "k"),
        ({"wo": TURN.T @ WEIGHTS["wo"] + 0.01 * np.eye(WIDE)}, "y"),
    ],
    ids=["none", "a number between", "another one of them", "who takes it back"],
)
def test_of_a_rewriting_with_a_fault_inside_the_fault_is_told(others, tensor):
    whole = {**{n: WEIGHTS[n] for n in ("wq", "wk", "wv", "wo")}, "scale": np.float32(0.25)}
    turned_in = {n: WEIGHTS[n] @ TURN for n in ("wq", "wk", "wv")}
    weights = {**whole, **turned_in, "wo": TURN.T @ WEIGHTS["wo"], **others}
    candidate = parsed(INSIDE, **{name: np.float32(value) for name, value in weights.items()})
    runners = [OnnxrtRunner(optimization="disable")]
    comparator = Comparator(
        parsed(INSIDE, **whole), runners, candidate_model=candidate, data_loader=SEQUENCES, layers="guilty"
    )
    report = comparator.compare()
    assert [c.tensors for c in report.culprits] == ([(tensor,)] if tensor else [])
    if tensor == "s":  # what a number calls for, not what weights do
        assert [r.text for r in report.culprits[0].remedies] == [
            "set the constant of Mul_5 to 0.25, as in the first file, or export the model again"
        ]


def test_a_product_that_takes_back_all_but_one_weight_is_told_with_that_weight():
    wk = scaled()["wk"]
    report = compared(scaled(wk=wk + np.eye(WIDE)[2][:, None] * np.eye(WIDE)[1]))
    (culprit,) = report.culprits
    assert culprit.tensors == ("k",)
    assert "as the layers beside it are, 1 of 256 weights differ" in culprit.evidence
    assert [r.text.startswith("set the weight of MatMul_3 at [2,1] to") for r in culprit.remedies] == [True]


def in_8_bits(path):
    """A file quantized dynamically; 7 bits of weights, with which no CPU's products saturate."""
    made = str(path.with_suffix(".8.onnx"))
    quantize_dynamic(path, made, weight_type=QuantType.QInt8, reduce_range=True)
    return made


@pytest.mark.parametrize("rewritten", [scaled, turned])
def test_one_that_is_quantized_has_no_other_culprits_than_what_was_written(rewritten, tmp_path):
    found = []
    for name, weights in (("plain", WEIGHTS), ("rewritten", rewritten())):
        network = parsed(TEXT, **{n: value.astype(np.float32) for n, value in weights.items()})
        onnx.save(network, tmp_path / f"{name}.onnx")
        quantize_dynamic(
            tmp_path / f"{name}.onnx", tmp_path / f"{name}-8.onnx", weight_type=QuantType.QInt8, reduce_range=True
        )
        paths = [str(tmp_path / "plain.onnx"), str(tmp_path / f"{name}-8.onnx")]
        runners = [OnnxrtRunner()]
        report = Comparator(paths[0], runners, candidate_model=paths[1], data_loader=DATA, layers="all").compare()
        assert report.verdict == "undecided"
        found.append([c for c in report.culprits if c.cause != "quantization"])
    assert found == [[], []]


CONV = """g (float[N, 3, 8, 8] x) => (float[N, 4, 8] y) {
  c = Conv<strides = [4, 4]>(x, w) f = Reshape(c, s) y = Transpose<perm = [0, 2, 1]>(f)
}"""
PATCHES = """g (float[N, 3, 8, 8] x) => (float[N, 4, 8] y) {
  a = Reshape(x, s) b = Transpose<perm = [0, 2, 4, 1, 3, 5]>(a) c = Reshape(b, t) y = MatMul(c, w)
}"""


def test_other_operators_of_scaled_integers_are_no_culprit(tmp_path):
    w = RNG.normal(size=(8, 3, 4, 4)).astype(np.float32) / 7
    whole = parsed(CONV, w=w, s=np.array([0, 8, 4]))
    shapes = {"s": np.array([0, 3, 2, 4, 2, 4]), "t": np.array([0, 4, 48])}
    onnx.save(parsed(PATCHES, w=w.reshape(8, 48).T.copy(), **shapes), tmp_path / "patches.onnx")
    made = in_8_bits(tmp_path / "patches.onnx")
    data = [{"x": RNG.normal(size=(16, 3, 8, 8)).astype(np.float32)}]
    report = Comparator(whole, [OnnxrtRunner()], candidate_model=made, data_loader=data, layers="all").compare()
    assert report.verdict == "undecided"
    assert [layer.verdict for layer in report.layers if layer.node == "Conv_0"][:1] == ["ok"]
    assert not [c for c in report.culprits if c.cause not in ("quantization", "spread")]


def test_many_ways_from_a_change_to_its_readers_are_followed_once():
    """40 forks that meet again are 2^40 ways."""
    forks = [f"p{i} = Relu(h{i}) q{i} = LeakyRelu(h{i}) h{i + 1} = Max(p{i}, q{i})" for i in range(40)]
    text = f"""g (float[N, 16] x) => (float[N, 16] y, float[N, 16] z) {{
      h0 = MatMul(x, e) {" ".join(forks)} y = MatMul(h40, wq) z = MatMul(h40, wk) }}"""
    weights = {name: WEIGHTS[name] for name in ("e", "wq", "wk")}
    changed = {**weights, "e": 2 * weights["e"], "wq": weights["wq"] / 2}
    whole, candidate = parsed(text, **weights), parsed(text, **changed)
    runners = [OnnxrtRunner(optimization="disable")]
    report = Comparator(whole, runners, candidate_model=candidate, data_loader=DATA, layers="all").compare()
    assert [culprit.tensors for culprit in report.culprits] == [("z",)]
