"""Networks whose layers are rewritten together, with one fault among them: that one is told."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner

from support.models import parsed

WIDE = 8


def drawn(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def compared(text, weights, others, feed):
    first, second = (parsed(text, **{n: np.float32(w) for n, w in ws.items()}) for ws in (weights, others))
    runners = [OnnxrtRunner()]
    return Comparator(first, runners, candidate_model=second, data_loader=[feed], layers="guilty").compare()


def told(report):
    return [c.tensors for c in report.culprits]


# ---- convolutions, one behind the other ------------------------------------------------------------------------------

CHAIN = """g (float[N, 3, 10, 10] x) => (float[N, 5] y) {
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1) r1 = Relu(c1) c2 = Conv<pads=[1,1,1,1]>(r1, w2, b2) r2 = Relu(c2)
  c3 = Conv<pads=[1,1,1,1]>(r2, w3, b3) r3 = Relu(c3) c4 = Conv<pads=[1,1,1,1]>(r3, w4, b4) r4 = Relu(c4)
  p = GlobalAveragePool(r4) f = Flatten(p) y = Gemm(f, wy, by)
}"""
CONVS = {f"w{i}": drawn(WIDE, 3 if i == 1 else WIDE, 3, 3, seed=i) / 5 for i in range(1, 5)}
CONVS |= {f"b{i}": drawn(WIDE, seed=10 + i) / 3 for i in range(1, 5)}
CONVS |= {"wy": drawn(WIDE, 5, seed=20), "by": drawn(5, seed=21)}
IMAGES = {"x": drawn(4, 3, 10, 10, seed=30).astype(np.float32)}


def equalized():
    """Cross-layer equalization: what leaves one convolution is divided by factors, and multiplied in the next one."""
    made = dict(CONVS)
    for i in (1, 2, 3):
        s = np.exp(drawn(WIDE, seed=40 + i))
        made[f"w{i}"], made[f"b{i}"] = made[f"w{i}"] / s[:, None, None, None], made[f"b{i}"] / s
        made[f"w{i + 1}"] = made[f"w{i + 1}"] * s[:, None, None]
    return made


def permuted():
    """Channels between the convolutions in another order."""
    made = dict(CONVS)
    for i in (1, 2, 3):
        order = np.random.default_rng(50 + i).permutation(WIDE)
        made[f"w{i}"], made[f"b{i}"] = made[f"w{i}"][order], made[f"b{i}"][order]
        made[f"w{i + 1}"] = made[f"w{i + 1}"][:, order]
    return made


def changed(weights, name, where, by):
    value = np.array(weights[name])
    value[where] += by
    return {**weights, name: value}


@pytest.mark.parametrize("rewrite", [equalized, permuted])
def test_a_chain_that_is_rewritten_as_a_whole_has_no_culprit(rewrite):
    report = compared(CHAIN, CONVS, rewrite(), IMAGES)
    assert (report.verdict, told(report)) == ("pass", [])


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("rewrite", [equalized, permuted])
def test_one_weight_in_a_rewritten_chain_is_told_with_its_value(rewrite, layer):
    report = compared(CHAIN, CONVS, changed(rewrite(), f"w{layer}", (2, 1, 1, 1), 0.9), IMAGES)
    assert told(report) == [(f"r{layer}",)]
    if layer > 1:  # what the first one reads is not rewritten
        assert "as the layers beside it are, 1 of 576 weights differ" in report.culprits[0].evidence
        value = float(rewrite()[f"w{layer}"][2, 1, 1, 1])
        start, _, number = report.culprits[0].remedies[0].text.removesuffix(" in the second file").rpartition(" ")
        assert start == f"set the weight of Conv_{2 * layer - 2} at [2,1,1,1] to"
        assert float(number) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("piece", ["w", "b"])
@pytest.mark.parametrize("rewrite", [equalized, permuted])
def test_a_piece_of_a_rewritten_chain_that_is_forgotten_is_told(rewrite, piece, layer):
    report = compared(CHAIN, CONVS, {**rewrite(), f"{piece}{layer}": CONVS[f"{piece}{layer}"]}, IMAGES)
    assert told(report) == [(f"r{layer}",)]


# ---- scales moved through attention and feed-forward layers ----------------------------------------------------------

DEEP = 16
BLOCK = """g (float[N, 12, 16] x) => (float[N, 12, 16] y) {
  n1 = LayerNormalization<axis=-1>(x, g1, b1)
  q0 = MatMul(n1, wq) q1 = Add(q0, bq) k = MatMul(n1, wk) v = MatMul(n1, wv) q = Mul(q1, scale)
  t = Transpose<perm=[0,2,1]>(k) s = MatMul(q, t) a = Softmax(s) c = MatMul(a, v) o = MatMul(c, wo) h1 = Add(x, o)
  n2 = LayerNormalization<axis=-1>(h1, g2, b2)
  u0 = MatMul(n2, wu) u1 = Add(u0, bu) u = Relu(u1) d = MatMul(u, wd) h2 = Add(h1, d)
  n3 = LayerNormalization<axis=-1>(h2, g3, b3) y = MatMul(n3, wy)
}"""
SCALES = {n: drawn(DEEP, DEEP, seed=i) / 4 for i, n in enumerate(("wq", "wk", "wv", "wo", "wy"))}
SCALES |= {"wu": drawn(DEEP, 32, seed=6) / 4, "wd": drawn(32, DEEP, seed=7) / 5, "scale": np.array(0.25)}
SCALES |= {"bu": drawn(32, seed=8) / 10, "bq": drawn(DEEP, seed=9) / 10}
SCALES |= {f"g{i}": np.exp(drawn(DEEP, seed=10 + i) / 2) for i in (1, 2, 3)}
SCALES |= {f"b{i}": drawn(DEEP, seed=20 + i) / 5 for i in (1, 2, 3)}
TOKENS = {"x": drawn(4, 12, DEEP, seed=31).astype(np.float32)}


def smoothed():
    """SmoothQuant: factors from normalizations into products, from values into what reads them, from queries into
    keys, through a Relu."""
    made = dict(SCALES)

    def moved(seed, out, into, size=DEEP):
        s = np.exp(drawn(size, seed=seed))
        made.update({n: made[n] / s for n in out})
        made.update({n: made[n] * s[:, None] for n in into})
        return s

    for i, into in ((1, ("wq", "wk", "wv")), (2, ("wu",)), (3, ("wy",))):
        moved(60 + i, (f"g{i}", f"b{i}"), into)
    moved(64, ("wu", "bu"), ("wd",), 32)
    moved(65, ("wv",), ("wo",))
    made["wk"] = made["wk"] * moved(66, ("wq", "bq"), ())
    return made


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        (None, None),
        *(("wq", "q"), ("bq", "q"), ("wk", "k"), ("wv", "v"), ("wo", "h1"), ("wu", "u"), ("bu", "u"), ("wd", "h2")),
        *(("g1", "n1"), ("b1", "n1"), ("b3", "n3"), ("wy", "y"), ("scale", "q")),
    ],
)
def test_of_scales_that_are_moved_everywhere_the_wrong_weight_is_told(name, tensor):
    made = smoothed()
    if name is not None:
        made = changed(made, name, (2, 1)[: made[name].ndim], np.abs(SCALES[name]).max())
    report = compared(BLOCK, SCALES, made, TOKENS)
    assert told(report) == ([] if tensor is None else [(tensor,)])


def test_gains_that_are_merged_into_the_next_products_are_no_culprits_and_one_that_is_left_is():
    made = dict(SCALES)
    for i, into in ((1, ("wq", "wk", "wv")), (2, ("wu",)), (3, ("wy",))):
        made.update({f"g{i}": np.ones(DEEP), f"b{i}": made[f"b{i}"] / made[f"g{i}"]})
        made.update({n: made[n] * SCALES[f"g{i}"][:, None] for n in into})
    assert told(compared(BLOCK, SCALES, made, TOKENS)) == []
    assert told(compared(BLOCK, SCALES, {**made, "g1": SCALES["g1"]}, TOKENS)) == [("n1",)]


# ---- a scale that several layers read --------------------------------------------------------------------------------

SHARED = """g (float[N, 16] x) => (float[N, 16] y) {
  a = Mul(x, sh) p = MatMul(a, w1) pa = Tanh(p) b = Mul(pa, sh) q = MatMul(b, w2) qa = Tanh(q)
  c = Mul(qa, sh) r = MatMul(c, w3) y = Tanh(r)
}"""
READ = {**{f"w{i}": drawn(DEEP, DEEP, seed=i) / 3 for i in (1, 2, 3)}, "sh": np.exp(drawn(DEEP, seed=4) / 2)}


@pytest.mark.parametrize("off", [None, 2.0, SCALES["g1"]], ids=["none", "one element", "all"])
def test_a_scale_that_several_layers_read_is_one_fault_and_named(off):
    s = np.exp(drawn(DEEP, seed=5) / 2)
    made = {"sh": READ["sh"] / s, **{n: READ[n] * s[:, None] for n in ("w1", "w2", "w3")}}
    if off is not None:
        made["sh"] = made["sh"] * np.where(np.arange(DEEP) == 3, off, 1 if np.ndim(off) == 0 else off)
    report = compared(SHARED, READ, made, {"x": drawn(32, DEEP, seed=6).astype(np.float32)})
    assert told(report) == ([] if off is None else [("a",)])
    assert all("'sh', which 3 nodes read" in r.text for c in report.culprits for r in c.remedies)


# ---- a rotated residual stream ---------------------------------------------------------------------------------------

STREAM = """g (int64[N, 12] ids) => (float[N, 12, 16] y) {
  e = Gather(table, ids) h0 = Add(e, places) n1 = LpNormalization<axis=-1, p=2>(h0)
  q = MatMul(n1, wq) k = MatMul(n1, wk) v = MatMul(n1, wv) t = Transpose<perm=[0,2,1]>(k)
  s = MatMul(q, t) a = Softmax(s) c = MatMul(a, v) o = MatMul(c, wo) h1 = Add(h0, o)
  n2 = LpNormalization<axis=-1, p=2>(h1) u0 = MatMul(n2, wu) u = Sigmoid(u0) d = MatMul(u, wd) h2 = Add(h1, d)
  n3 = LpNormalization<axis=-1, p=2>(h2) y = MatMul(n3, wy)
}"""
ROTATED = {n: drawn(DEEP, DEEP, seed=i) for i, n in enumerate(("wq", "wk", "wv", "wo", "wu", "wd", "wy"))}
ROTATED |= {"table": drawn(50, DEEP, seed=8), "places": drawn(12, DEEP, seed=9) / 2}
IDS = {"ids": np.random.default_rng(3).integers(0, 50, size=(4, 12))}


@pytest.mark.parametrize(
    ("forgotten", "tensor"),
    [(None, None), ("table", "e"), ("places", "h0"), ("wq", "q"), ("wo", "h1"), ("wd", "h2"), ("wy", "y")],
)
def test_of_a_rotated_stream_the_one_piece_that_is_not_is_told(forgotten, tensor):
    turn = np.linalg.qr(drawn(DEEP, DEEP, seed=12))[0]
    made = {n: w @ turn if n in ("table", "places", "wo", "wd") else turn.T @ w for n, w in ROTATED.items()}
    made |= {} if forgotten is None else {forgotten: ROTATED[forgotten]}
    report = compared(STREAM, ROTATED, made, IDS)
    assert told(report) == ([] if tensor is None else [(tensor,)])
    if forgotten == "places":
        assert "it adds the first file's values to what is changed" in report.culprits[0].evidence


# ---- one constant that is forgotten ----------------------------------------------------------------------------------

UNITS = """g (float[N, 6, 8, 8] x) => (float[N, 5] y) {
  c = Conv<pads=[1,1,1,1]>(x, w, b) n = BatchNormalization(c, gain, shift, mean, var) s = PRelu(n, slope)
  d = Conv<pads=[1,1,1,1], group=12>(s, kernels) e = BatchNormalization(d, gain2, shift2, mean2, var2) r = Relu(e)
  f = Conv(r, wf, bf) g = Tanh(f) p = GlobalAveragePool(g) h = Flatten(p) m = MatMul(h, wm) a = Add(m, bm)
  i = Sigmoid(a) y = Gemm(i, wy, by)
}"""
IN_ORDER = {
    "w": drawn(12, 6, 3, 3, seed=1) / 5,
    "kernels": drawn(12, 1, 3, 3, seed=2),
    "wf": drawn(12, 12, 1, 1, seed=3),
}
IN_ORDER |= {"wm": drawn(12, 16, seed=4) / 3, "wy": drawn(16, 5, seed=5) / 3, "by": drawn(5, seed=6)}
IN_ORDER |= {n: drawn(12, seed=10 + i) / 3 for i, n in enumerate(("b", "shift", "mean", "shift2", "mean2", "bf"))}
IN_ORDER |= {n: np.exp(drawn(12, seed=20 + i) / 3) for i, n in enumerate(("gain", "var", "gain2", "var2"))}
IN_ORDER |= {"slope": drawn(12, 1, 1, seed=30) / 3, "bm": drawn(16, seed=31)}
CHANNELS, HIDDEN = np.random.default_rng(40).permutation(12), np.random.default_rng(41).permutation(16)


def in_another_order(*forgotten):
    """Channels and hidden units in another order, but in some constants, which are as they were."""
    made = {n: v if n in ("wf", "bf", "wm", "wy", "by", "bm") else v[CHANNELS] for n, v in IN_ORDER.items()}
    made |= {"wf": IN_ORDER["wf"][:, CHANNELS], "wm": IN_ORDER["wm"][:, HIDDEN]}
    made |= {"wy": IN_ORDER["wy"][HIDDEN], "bm": IN_ORDER["bm"][HIDDEN]}
    return {**made, **{name: IN_ORDER[name] for name in forgotten}}


@pytest.mark.parametrize(
    ("name", "node", "text"),
    [
        ("b", "Conv_0", " biases differ"),
        ("mean", "BatchNormalization_1", "input_mean: "),
        ("shift", "BatchNormalization_1", " biases differ"),
        ("slope", "PRelu_2", " weights differ"),
        ("kernels", "Conv_3", " weights differ"),
        ("var2", "BatchNormalization_4", "input_var: "),
        ("bm", "Add_11", " biases differ"),
    ],
)
def test_one_constant_that_is_not_in_the_other_order_is_told_alone(name, node, text):
    images = {"x": drawn(4, 6, 8, 8, seed=50).astype(np.float32)}
    report = compared(UNITS, IN_ORDER, in_another_order(name), images)
    assert [c.node for c in report.culprits] == [node]
    assert report.culprits[0].evidence.startswith("once the first file's ")
    assert text in report.culprits[0].evidence


def test_constants_that_are_all_in_another_order_are_none():
    images = {"x": drawn(4, 6, 8, 8, seed=50).astype(np.float32)}
    assert told(compared(UNITS, IN_ORDER, in_another_order(), images)) == []


# ---- heads that several read -----------------------------------------------------------------------------------------

GROUPS = """g (float[N, 6, 24] x) => (float[N, 6, 24] y) {
  v = MatMul(x, wv) r = Reshape(v, split) t = Transpose<perm=[0, 2, 1, 3]>(r) u = Unsqueeze(t, axis)
  e = Expand(u, twice) h = Reshape(e, joined) b = Transpose<perm=[0, 2, 1, 3]>(h) m = Reshape(b, merged)
  o = MatMul(m, wo) y = Tanh(o)
}"""
SIZES = {"split": np.array([0, 6, 2, 6]), "axis": np.array([2]), "twice": np.array([1, 1, 2, 1, 1])}
SIZES |= {"joined": np.array([0, 4, 6, 6]), "merged": np.array([0, 6, 24])}
HEADS = {"wv": drawn(24, 12, seed=1) / 5, "wo": drawn(24, 24, seed=2) / 5}


@pytest.mark.parametrize(("how", "tensor"), [(np.repeat, None), (np.tile, "y")], ids=["repeated", "tiled"])
def test_of_scales_of_heads_that_several_read_the_reader_is_told_that_has_them_in_another_order(how, tensor):
    s = np.exp(drawn(2, 6, seed=3))
    each = np.repeat(s, 2, axis=0) if how is np.repeat else np.tile(s, (2, 1))
    changed_too = {"wv": HEADS["wv"] / s.reshape(-1), "wo": HEADS["wo"] * each.reshape(-1, 1)}

    def file(weights):
        return parsed(GROUPS, **{n: np.float32(w) for n, w in weights.items()}, **SIZES)

    feed = {"x": drawn(3, 6, 24, seed=4).astype(np.float32)}
    runners = [OnnxrtRunner()]
    report = Comparator(
        file(HEADS), runners, candidate_model=file(changed_too), data_loader=[feed], layers="guilty"
    ).compare()
    assert told(report) == ([] if tensor is None else [(tensor,)])
