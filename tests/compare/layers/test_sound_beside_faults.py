"""What one file writes otherwise, and rightly, is no culprit beside a fault somewhere else; the fault is told."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

W, V = normal(16, 16, seed=1) / 4, normal(16, 16, seed=2) / 4
BIAS = normal(16, seed=3)


def changed(value: np.ndarray, by: float = 3.0) -> np.ndarray:
    value = value.copy()
    value.reshape(-1)[5] += np.float32(by)
    return value


LEFT_OUT = """g (float[2,3,16] x) => (float[2,3,16] y) {{
    [first] a = MatMul(x, w) [norm] n = LayerNormalization(a, one, bias) {flat} [last] y = MatMul({read}, v) }}"""


def left_out(flat: str = "", read: str = "n", bias: np.ndarray = BIAS, **weights: np.ndarray) -> onnx.ModelProto:
    """A network in which something may stand behind a normalization."""
    return parsed(LEFT_OUT.format(flat=flat, read=read), w=W, v=V, one=np.ones(16, np.float32), bias=bias, **weights)


@pytest.mark.parametrize(
    ("flat", "weights"),
    [
        ("[flat] f = Reshape(n, shape)", {"shape": np.array([-1, 3, 16])}),
        ("[flat] f = Add(n, none)", {"none": np.zeros(16, np.float32)}),
        ("[flat] f = Mul(n, all)", {"all": np.ones(16, np.float32)}),
    ],
)
@pytest.mark.parametrize("fault", [False, True])
def test_what_is_left_out_and_does_nothing_is_no_culprit_behind_a_fault(flat, weights, fault):
    first = left_out(flat, "f", **weights)
    second = left_out(bias=changed(BIAS) if fault else BIAS)
    report = compare(first, second, [{"x": normal(2, 3, 16)}], layers="all")
    assert [c.node for c in report.culprits] == (["norm"] if fault else [])


def test_what_is_left_out_and_does_something_is_a_culprit_behind_a_fault():
    first = left_out("[flat] f = Mul(n, two)", "f", two=np.full(16, 2.0, np.float32))
    report = compare(first, left_out(bias=changed(BIAS)), [{"x": normal(2, 3, 16)}], layers="all")
    assert sorted(c.node for c in report.culprits) == ["flat", "norm"]


@pytest.mark.parametrize(
    ("flat", "weights"),
    [
        ("[flat] f = Add(n, x)", {}),
        ("[flat] f = Add(n, bias)", {}),
        ("[flat] f = Tanh(n)", {}),
        ("[flat] f = Softmax(n)", {}),
        ("[flat] f = Slice(n, begin, end, axes, back)", {"begin": [-1], "end": [-(2**63)], "axes": [2], "back": [-1]}),
        ("[g] g = LayerNormalization(n, three, bias) [flat] f = Mul(g, x)", {"three": np.full(16, 3, np.float32)}),
    ],
)
@pytest.mark.parametrize("layers", ["guilty", "all"])
def test_what_is_left_out_is_told(flat, weights, layers):
    numbers = {name: np.array(value) if isinstance(value, list) else value for name, value in weights.items()}
    report = compare(left_out(flat, "f", **numbers), left_out(), [{"x": normal(2, 3, 16)}], layers=layers)
    assert "missing in the candidate" in only(report).evidence or "does not" in only(report).evidence


THEN = """g (float[2,3,16] x) => (float[2,3,16] y) {{
    [first] a = MatMul(x, w) {flat} [up] u = MatMul({read}, v) [act] t = Tanh(u) [down] y = MatMul(t, d) }}"""


def test_channels_in_another_order_are_no_culprit_behind_what_is_missing():
    v, d = V * 0.1, normal(16, 16, seed=4) / 4
    order = np.random.default_rng(0).permutation(16)
    first = parsed(THEN.format(flat="[flat] f = Mul(a, two)", read="f"), w=W, v=v, d=d, two=np.float32(3))
    second = parsed(THEN.format(flat="", read="a"), w=W, v=np.ascontiguousarray(v[:, order]), d=d[order])
    report = compare(first, second, [{"x": normal(2, 3, 16)}], layers="all")
    assert [c.node for c in report.culprits] == ["flat"]


KEYS = """g (float[2,6,16] x) => (float[2,4,6,6] y) {{
    {first} [q] q = MatMul(h, wq) q4 = Reshape(q, split) qh = Transpose<perm=[0,2,1,3]>(q4)
    [k] k = MatMul(h, wk) k4 = Reshape(k, split) {keys} [scale] ks = {scaled}
    [qk] s = MatMul(qh, ks) [masked] sm = Add(s, mask) [soft] p = Softmax(sm) [last] y = MatMul(p, v) }}"""
PLAIN = "[turn] kt = Transpose<perm=[0,2,3,1]>(k4)"
ROUND_ABOUT = """[turn] kh = Transpose<perm=[0,2,1,3]>(k4) kf = Reshape(kh, flat) ks3 = Transpose<perm=[0,2,1]>(kf)
    kz = Reshape(ks3, back)"""
WRONG = "[turn] kh = Transpose<perm=[0,2,1,3]>(k4) kz = Reshape(kh, back)"
SHAPES = {"split": np.array([2, 6, 4, 4]), "flat": np.array([8, 6, 4]), "back": np.array([2, 4, 4, 6])}
MASK = np.where(np.arange(6) > 3, np.float32(-3e38), np.float32(0))


def keys(text: str, v: np.ndarray) -> onnx.ModelProto:
    """Scores of an attention, with a mask, and what is made of them. ``text``: how keys are transposed."""
    weights = {"wq": normal(16, 16, seed=5) / 4, "wk": normal(16, 16, seed=6) / 4, "third": np.float32(1 / 3)}
    numbers = {"three": np.float32(3), "one": np.float32(1)}
    first, scaled = "[in] h = Softplus(x)", "Mul(kt, third)"
    if text != PLAIN:  # which rounds otherwise
        first, scaled = "ex = Exp(x) more = Add(ex, one) [in] h = Log(more)", "Div(kz, three)"
    return parsed(KEYS.format(keys=text, first=first, scaled=scaled), **weights, **numbers, **SHAPES, mask=MASK, v=v)


@pytest.mark.parametrize(
    ("text", "fault", "guilty"),
    [
        (ROUND_ABOUT, False, []),
        (ROUND_ABOUT, True, ["last"]),
        (WRONG, False, ["turn"]),
        (WRONG, True, ["last", "turn"]),
    ],
)
def test_a_transposition_that_is_written_otherwise_before_a_mask_is_no_culprit_beside_a_fault(text, fault, guilty):
    v = normal(6, 6, seed=7)
    report = compare(keys(PLAIN, v), keys(text, changed(v) if fault else v), [{"x": normal(2, 6, 16)}], layers="all")
    found = sorted({"turn" if c.node in ("turn", "scale") else c.node for c in report.culprits})
    assert found == guilty


FEED_FORWARD = """g (float[4,8] x) => (float[4,8] y) {
    [up] u = MatMul(x, w1) [bias] b = Add(u, b1) [act] a = Tanh(b) [down] y = MatMul(a, w2) }"""
W1, W2, B1 = normal(8, 24, seed=8), normal(24, 8, seed=9) / 4, normal(24, seed=10)
ORDER = np.random.default_rng(0).permutation(24)


def test_channels_in_another_order_stay_right_behind_a_product_of_which_a_part_is_wrong():
    wrong = W1[:, ORDER].copy()
    wrong[:2] *= -1
    second = {"w1": wrong, "b1": B1[ORDER], "w2": np.ascontiguousarray(W2[ORDER])}
    report = compare(
        parsed(FEED_FORWARD, w1=W1, b1=B1, w2=W2), parsed(FEED_FORWARD, **second), [{"x": normal(4, 8)}], layers="all"
    )
    culprit = only(report)
    assert culprit.node == "up"
    assert "once the first file's weights are rewritten as the layers beside it are" in culprit.evidence
    assert "indices 0 to 1 of axis 0 (2 of 8), all -1 times" in culprit.evidence


# -- one constant that several layers read


ROTARY = """g (float[2,10,16] x) => (float[2,10,16] y) {{
    {tables} [q] q = MatMul(x, wq) [k] k = MatMul(x, wk)
    [q_cos] qc = Mul(q, cos) [q_turn] qt = MatMul(q, turn) [q_sin] qs = Mul(qt, sin) [q_sum] qr = Add(qc, qs)
    [k_cos] kc = Mul(k, cos) [k_turn] kt = MatMul(k, turn) [k_sin] ks = Mul(kt, sin) [k_sum] kr = Add(kc, ks)
    kx = Transpose<perm=[0,2,1]>(kr) [qk] s = MatMul(qr, kx) [soft] p = Softmax(s) [mix] y = MatMul(p, x) }}"""
COMPUTED = "a = MatMul(positions, frequencies) [cosine] cos = Cos(a) [sine] sin = Sin(a)"
POSITIONS = np.arange(10, dtype=np.float32)[:, None]


def frequencies(base: float) -> np.ndarray:
    return np.tile(base ** (-np.arange(8, dtype=np.float32) / 8), 2)[None].astype(np.float32)


def rotary(base: float, computed: bool) -> onnx.ModelProto:
    """An attention with rotary positions, of which the tables are computed or stored."""
    angles = POSITIONS @ frequencies(base)
    tables = {"positions": POSITIONS, "frequencies": frequencies(base)}
    if not computed:
        tables = {"cos": np.cos(angles), "sin": np.sin(angles)}
    weights = {
        "wq": normal(16, 16, seed=5) / 4,
        "wk": normal(16, 16, seed=6) / 4,
        "turn": np.eye(16, k=8) - np.eye(16, k=-8),
    }
    weights["turn"] = weights["turn"].astype(np.float32)
    return parsed(ROTARY.format(tables=COMPUTED if computed else ""), **weights, **tables)


DATA = [{"x": normal(2, 10, 16)}]


@pytest.mark.parametrize(
    ("computed", "node", "told"),
    [
        ((True, True), "MatMul", "14 of 16 values differ"),
        ((True, False), "cosine", "the reference computes them at Cos cosine and Sin sine from "),
        (
            (False, True),
            "cosine",
            "the reference stores them, the candidate computes them at Cos cosine and Sin sine from ",
        ),
        ((False, False), "q_cos", "Mul q_cos, Mul q_sin and 2 more read them"),
    ],
)
def test_other_rotary_frequencies_are_one_fault(computed, node, told):
    first, second = (rotary(base, c) for base, c in zip((10000.0, 100.0), computed, strict=True))
    culprit = only(compare(first, second, DATA, layers="all"))
    assert culprit.cause == "weights"
    assert told in culprit.evidence
    assert node in (culprit.node, culprit.op)
    assert culprit.contribution == pytest.approx(1, abs=0.01)  # that of all readers together


def test_two_tables_that_have_nothing_to_do_with_each_other_are_two_faults():
    text = """g (float[4,8] x) => (float[4,8] y) {
        [one] a = Add(x, t) [tanh] b = Tanh(a) [mid] m = MatMul(b, w) [two] c = Add(m, u) [sig] d = Sigmoid(c)
        [last] y = MatMul(d, w) }"""
    t, u, w = normal(4, 8, seed=1), normal(4, 8, seed=2), normal(8, 8, seed=3)
    report = compare(
        parsed(text, t=t, u=u, w=w), parsed(text, t=t + t[::-1], u=u + u[::-1], w=w), [{"x": normal(4, 8)}]
    )
    assert sorted(c.node for c in report.culprits) == ["one", "two"]


def test_a_stored_table_that_two_layers_read_is_one_fault():
    text = """g (float[4,8] x) => (float[4,8] y) {
        [one] a = Mul(x, t) [tanh] b = Tanh(a) [two] c = Mul(b, t) [sig] d = Sigmoid(c) [last] y = MatMul(d, w) }"""
    t, w = normal(4, 8, seed=1), normal(8, 8, seed=3)
    culprit = only(
        compare(parsed(text, t=t, w=w), parsed(text, t=t + t[::-1], w=w), [{"x": normal(4, 8)}], layers="all")
    )
    assert culprit.node == "one"
    assert "Mul one, Mul two read it" in culprit.evidence
