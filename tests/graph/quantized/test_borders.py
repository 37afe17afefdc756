"""Quantized graphs with one float tensor wherever operators hand each other integers: the same network, bit by bit."""

from __future__ import annotations

import numpy as np
from layerdiff import OnnxrtRunner
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.model import Model
from layerdiff.graph.operators import operator
from layerdiff.graph.pairing.matching import match
from layerdiff.graph.quantized.borders import with_float_borders
from layerdiff.graph.quantized.float_form import float_form

from support.models import normal, parsed

S, T = np.float32(0.02), np.float32(0.04)
ZERO, OTHER = np.uint8(120), np.uint8(130)


def made(model: Model, feed):
    with OnnxrtRunner(threads=1, optimization="disable").session(model) as session:
        return session.infer(feed)


def test_floats_that_are_made_twice_of_the_same_integers_are_one_tensor():
    graph = parsed(
        """g (float[4, 4] x) => (float[4, 4] y, float[4, 4] v) {
        q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) b = DequantizeLinear(q, s2, z2)
        c = DequantizeLinear(q, t, z) v = DequantizeLinear(q, s, z)
        d = Add(a, b) y = Add(d, c) }""",
        s=S, s2=S, t=T, z=ZERO, z2=ZERO,
    )  # fmt: skip
    whole = with_float_borders(Model(graph))
    reads = {n.output[0]: list(n.input) for n in whole.index.nodes}
    assert reads["d"] == ["a", "a"]
    assert reads["y"] == ["d", "c"]  # by another scale
    assert reads["v"][0] == "q"  # an output of the graph
    feed = {"x": normal(4, 4)}
    one, other = made(Model(graph), feed), made(whole, feed)
    assert all(np.array_equal(one[name], other[name]) for name in ("y", "v"))


CHANNELS_LAST = """g (float[1, 4, 5, 5] x) => (float[1, 6, 5, 5] y) {
    q = QuantizeLinear(x, s, z) a = Transpose<perm=[0,2,3,1]>(q)
    [one] b = com.microsoft.QLinearConv<channels_last=1, pads=[1,1,1,1]>(a, s, z, w, k, wz, t, u, bias)
    [two] c = com.microsoft.QLinearConv<channels_last=1, pads=[1,1,1,1]>(b, t, u, v, k, wz, t, u)
    d = Transpose<perm=[0,3,1,2]>(c) y = DequantizeLinear(d, t, u) }"""
PAIRS = """g (float[1, 4, 5, 5] x) => (float[1, 6, 5, 5] y) { q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z)
    fw = DequantizeLinear(w, k, wz) fv = DequantizeLinear(v, k, wz) fb = DequantizeLinear(bias, sk)
    [one] b = Conv<pads=[1,1,1,1]>(a, fw, fb) r = QuantizeLinear(b, t, u) c = DequantizeLinear(r, t, u)
    [two] d = Conv<pads=[1,1,1,1]>(c, fv) e = QuantizeLinear(d, t, u) y = DequantizeLinear(e, t, u) }"""
INTEGERS = np.random.default_rng(0).integers
CONSTANTS = {
    "s": S, "t": T, "z": ZERO, "u": OTHER, "k": np.float32(0.01), "wz": np.int8(0), "sk": np.float32(S * 0.01),
    "w": INTEGERS(-9, 9, (6, 4, 3, 3)).astype(np.int8), "v": INTEGERS(-9, 9, (6, 6, 3, 3)).astype(np.int8),
    "bias": INTEGERS(-99, 99, 6).astype(np.int32),
}  # fmt: skip


def test_channels_that_are_last_are_where_others_have_them_in_the_tensors_to_look_at():
    last, pairs = parsed(CHANNELS_LAST, domains=["com.microsoft"], **CONSTANTS), parsed(PAIRS, **CONSTANTS)
    whole, feed = with_float_borders(Model(last)), {"x": normal(1, 4, 5, 5)}
    assert np.array_equal(made(Model(last), feed)["y"], made(whole, feed)["y"])
    form = float_form(whole.index).index
    assert not any(operator(node).startswith("QLinear") for node in form.nodes)
    found = match(GraphIndex(pairs), whole.index)
    assert found.differences == ()
    assert {found.tensors.get(name) for name in ("a", "c", "y")} == {"q__float", "b__float", "y"}
    shape = whole.index.specs["b__float"].shape
    assert shape is None or len(shape) == 4
