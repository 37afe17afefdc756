"""A healthy rewriting, whose tensors are others until both files come to the same values again, is no culprit beside a
fault somewhere else."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner

from support.models import normal, parsed
from support.runners import Off

ATTENTION = """g (float[2,16,64] x) => (float[2,16,64] y) {{
    [up] h = MatMul(x, w) [q] q = MatMul(h, wq) [k] k = MatMul(h, wk) [turn] t = Transpose<perm=[0,2,1]>(k)
    [qk] s = MatMul(q, t) {scaled} [soft] p = Softmax({read}) [mix] m = MatMul(p, h) [down] y = MatMul(m, v)
}}"""
FIRST = ATTENTION.format(scaled="[scale] z = Mul(s, c)", read="z")
FOLDED = ATTENTION.format(scaled="", read="s")
C = np.float32(0.125)
WEIGHTS = {"w": normal(64, 64, seed=1) / 8, "wk": normal(64, 64, seed=2) / 8, "v": normal(64, 64, seed=3) / 8}
WQ = normal(64, 64, seed=4) / 8


@pytest.mark.parametrize(("fault", "guilty"), [(1.0, []), (1.01, ["up"])])
def test_a_folded_scale_is_no_culprit(fault, guilty):
    wrong = WEIGHTS["w"].copy()
    wrong[:, 5] *= np.float32(fault)
    first = parsed(FIRST, c=C, wq=WQ, **WEIGHTS)
    second = parsed(FOLDED, wq=WQ * C, **{**WEIGHTS, "w": wrong})
    report = Comparator(
        first, [OnnxrtRunner()], candidate_model=second, data_loader=[{"x": normal(2, 16, 64)}], layers="all"
    ).compare()
    assert report.verdict == ("fail" if guilty else "pass")
    assert [c.node for c in report.culprits] == guilty


def told(first, second, shape=(2, 16, 64), **options):
    """The verdict, the culprits' nodes, and the report."""
    data = [{"x": normal(*shape)}, {"x": normal(*shape, seed=9)}]
    options = {"data_loader": data, "layers": "all", **options}
    report = Comparator(first, [OnnxrtRunner()], candidate_model=second, **options).compare()
    return report.verdict, [c.node for c in report.culprits], report


HEADS = """g (float[2,16,64] x) => (float[2,16,64] y) {
    [q] qm = MatMul(x, wq) [q_bias] q = Add(qm, bq) [k] km = MatMul(x, wk) [k_bias] k = Add(km, bk)
    [v] v = MatMul(x, wv) q4 = Reshape(q, split) k4 = Reshape(k, split) v4 = Reshape(v, split)
    qh = Transpose<perm=[0,2,1,3]>(q4) kh = Transpose<perm=[0,2,3,1]>(k4) vh = Transpose<perm=[0,2,1,3]>(v4)
    [qk] s = MatMul(qh, kh) [masked] sm = Add(s, mask) [soft] p = Softmax(sm) [mix] m = MatMul(p, vh)
    back = Transpose<perm=[0,2,1,3]>(m) flat = Reshape(back, join) [o] o = MatMul(flat, wo) [sum] r = Add(o, x)
    [up] u = MatMul(r, w1) [up_bias] b = Add(u, b1) [act] a = Relu(b) [down] d = MatMul(a, w2) [out] y = Add(d, r)
}"""
LAYERS = {
    **{name: normal(64, 64, seed=seed) / 8 for seed, name in enumerate(("wq", "wk", "wv", "wo", "w1", "w2"))},
    **{name: normal(64, seed=seed) / 8 for seed, name in enumerate(("bq", "bk", "b1"), 20)},
    "split": np.array([2, 16, 4, 16]), "join": np.array([2, 16, 64]),
    "mask": np.where(np.arange(16) > 11, np.float32(-1e4), np.float32(0)),
}  # fmt: skip
ORDER = np.arange(64).reshape(4, 16)[[2, 0, 3, 1]].reshape(-1)
"""Four heads in another order."""


def heads_in_another_order(weights):
    turned = {name: weights[name][..., ORDER] for name in ("wq", "bq", "wk", "bk", "wv")}
    return {**weights, **turned, "wo": weights["wo"][ORDER]}


def equalised(weights):
    """A scale is moved from one product to the next, through the Relu between them."""
    scale = (1 + np.arange(64, dtype=np.float32) / 16)[::-1]
    return {**weights, "w1": weights["w1"] * scale, "b1": weights["b1"] * scale, "w2": weights["w2"] / scale[:, None]}


def bias_dropped(weights):
    """Softmax does not see what is the same for all keys."""
    return {**weights, "bk": np.zeros(64, np.float32)}


def rotated(weights):
    """The values of each head are rotated, and turned back by the next product."""
    turn = np.linalg.qr(normal(16, 16, seed=30).astype(np.float64))[0]
    whole = np.kron(np.eye(4), turn)
    return {
        **weights,
        "wv": (weights["wv"] @ whole).astype(np.float32),
        "wo": (whole.T @ weights["wo"]).astype(np.float32),
    }


HEALTHY = [heads_in_another_order, equalised, bias_dropped, rotated]


@pytest.mark.parametrize("rewritten", HEALTHY)
def test_what_layers_behind_take_back_is_no_culprit(rewritten):
    verdict, nodes, report = told(parsed(HEADS, **LAYERS), parsed(HEADS, **rewritten(LAYERS)))
    assert (verdict, nodes) == ("pass", [])
    assert any("the next layers agree again" in warning for warning in report.warnings)


BEFORE = HEADS.replace("(float[2,16,64] x)", "(float[2,16,64] x0)").replace("[q] qm", "[first] x = Mul(x0, c) [q] qm")


@pytest.mark.parametrize("rewritten", HEALTHY)
def test_what_layers_behind_take_back_is_no_culprit_behind_a_fault_either(rewritten):
    off = np.ones(64, np.float32)
    first = parsed(BEFORE, c=off, **LAYERS)
    off = off.copy()
    off[3] = 1.1
    second = parsed(BEFORE, c=off, **rewritten(LAYERS))
    report = Comparator(
        first, [OnnxrtRunner()], candidate_model=second, data_loader=[{"x0": normal(2, 16, 64)}], layers="all"
    ).compare()
    assert (report.verdict, [c.node for c in report.culprits]) == ("fail", ["first"])


def test_a_second_fault_behind_the_first_is_named_too():
    second = {**LAYERS, "wo": LAYERS["wo"] * np.float32(1.01), "w2": LAYERS["w2"] * np.float32(1.01)}
    verdict, nodes, _ = told(parsed(HEADS, **LAYERS), parsed(HEADS, **second))
    assert (verdict, sorted(nodes)) == ("fail", ["down", "o"])


def test_two_faults_that_meet_do_not_hide_each_other():
    """Little of either is left beside the large values that are added behind, and each could be the other's."""
    small = {**LAYERS, "wo": LAYERS["wo"] / 32}
    wrong = {**small, **{name: small[name][:, ORDER] for name in ("wk", "wv")}}
    values = ("[v] v = MatMul(x, wv)", "v4 = Reshape(v, split)", "vh = Transpose<perm=[0,2,1,3]>(v4)")
    text = HEADS
    for line in values:  # they come behind the weights that they are multiplied by
        text = text.replace(line, "")
    text = text.replace("[mix]", f"{' '.join(values)} [mix]")
    verdict, culprits, _ = told(parsed(text, **small), parsed(text, **wrong))
    assert (verdict, set(culprits)) == ("fail", {"k", "v"})


@pytest.mark.parametrize("turned", [heads_in_another_order, rotated], ids=["heads in another order", "rotated"])
def test_what_the_next_product_does_not_take_back_is_one_culprit_that_tells_of_it(turned):
    wrong = {**turned(LAYERS), "wo": LAYERS["wo"]}
    verdict, nodes, report = told(parsed(HEADS, **LAYERS), parsed(HEADS, **equalised(wrong)))
    assert (verdict, len(nodes)) == ("fail", 1)
    how = "in another order" if turned is heads_in_another_order else "turned"
    assert f"MatMul o then reads the reference's values {how}: if that is meant" in report.culprits[0].evidence
    assert nodes[0].startswith("q" if turned is heads_in_another_order else "v")


def test_another_sign_is_told_as_that_and_no_other_order():
    """Of what a table of imaginary parts has with the other sign (a Fourier transform, conjugated)."""
    text = """g (float[8,16] x) => (float[8,4] y) { [table] a = Mul(x, f) [join] t = Concat<axis=1>(a, x)
        [down] y = MatMul(t, w) }"""
    signs = np.where(np.arange(16) % 2, 1, -1).astype(np.float32)
    w, f = normal(32, 4), np.full(16, 8, np.float32)
    data = [{"x": normal(8, 16)}]
    _, nodes, report = told(parsed(text, w=w, f=f), parsed(text, w=w, f=f * signs), data_loader=data)
    assert nodes == ["table"]
    assert "reads the reference's values with the other sign in some places" in report.culprits[0].evidence


def test_places_that_are_shifted_are_nothing_that_a_convolution_takes_back():
    text = """g (float[2,6,32] x) => (float[2,4,32] y) { [pad] p = Pad(x, ends) [conv] y = Conv(p, w) }"""
    data = [{"x": normal(2, 6, 32)}]
    first, second = (np.array([0, 0, *ends], np.int64) for ends in ((4, 0, 0, 0), (2, 0, 0, 2)))
    w = normal(4, 6, 5)
    _, nodes, report = told(parsed(text, w=w, ends=first), parsed(text, w=w, ends=second), data_loader=data)
    assert nodes == ["pad"]
    assert "reads the reference's values" not in report.culprits[0].evidence


def test_other_values_of_one_length_are_not_told_to_be_turned():
    """The sine and cosine of other frequencies are as long as any."""
    text = """g (float[1,1] x) => (float[1,16] y) { [times] a = Mul(x, f) [sin] s = Sin(a) [cos] c = Cos(a)
        [join] t = Concat<axis=1>(s, c) [down] y = MatMul(t, w) }"""
    first, second = ({"f": np.float32(e) ** np.arange(-16, 0, dtype=np.float32)[None]} for e in (1.5, 3.0))
    data = [{"x": np.full((1, 1), 500, np.float32)}]
    w = normal(32, 16)
    verdict, nodes, report = told(parsed(text, w=w, **first), parsed(text, w=w, **second), data_loader=data)
    assert (verdict, nodes) == ("fail", ["times"])
    assert "turned" not in report.culprits[0].evidence


def test_no_share_of_an_error_is_told_that_rounding_explains():
    text = """g (float[2,16,64] x) => (float[2,16,64] y) {
        [up] a = MatMul(x, w) [act] b = Relu(a) [norm] y = LayerNormalization<epsilon: float = 1e-20>(b, one)
    }"""
    model = parsed(text, w=WQ, one=np.ones(64, np.float32))
    runners = [OnnxrtRunner(), Off(node="up", factor=1.5)]
    report = Comparator(model, runners, data_loader=[{"x": normal(2, 16, 64)}], layers="all").compare()
    assert report.verdict == "pass"
    assert [(c.node, c.contribution) for c in report.culprits] == [("up", None)]
    assert all(layer.contribution is None for layer in report.layers)


@pytest.mark.parametrize("pick", ["Gather<axis=1>(s, zero)", "Slice(s, zero, one, one)"], ids=["Gather", "Slice"])
def test_what_reads_a_place_that_others_have_moved_is_told_with_them(pick):
    """A class token is put behind the patches, with its positions, and the first place is read all the same."""
    text = f"""g (float[4,6,16] x) => (float[4,K,16] y) {{ [join] t = Concat<axis=1>(ORDER) [place] a = Add(t, p)
        [up] u = MatMul(a, w) [act] s = Tanh(u) [first] y = {pick} }}"""
    wrong = text.replace("ORDER", "x, cls")
    values = {"cls": normal(4, 1, 16, seed=1), "w": normal(16, 16, seed=2)}
    values |= {"zero": np.zeros(1, np.int64), "one": np.ones(1, np.int64)}
    p = normal(1, 7, 16, seed=3)
    first = parsed(text.replace("ORDER", "cls, x"), **values, p=p)
    data = [{"x": normal(4, 6, 16)}]
    _, nodes, report = told(first, parsed(wrong, **values, p=np.roll(p, -1, axis=1)), data_loader=data)
    assert nodes == ["join"]
    told_of = f"{pick.split('<')[0].split('(')[0]} first then reads the reference's values in another order"
    assert f"{told_of}: if that is meant, its indices lack the same" in report.culprits[0].evidence
