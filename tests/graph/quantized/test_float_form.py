"""Quantized graphs in float operators: they compute the same, and look like the graph that was quantized."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.model import Model
from layerdiff.graph.operators import QUANTIZED, QUANTIZERS, operator
from layerdiff.graph.pairing.matching import match
from layerdiff.graph.quantized.borders import with_float_borders
from layerdiff.graph.quantized.float_form import ScaledOperands, float_form, is_quantized, scaled_operands

from support import networks
from support.models import normal, parsed
from support.quantized import KINDS, exact, quantized

SMALL = (networks.residual, networks.transformer, networks.recurrent, networks.unet)


@pytest.fixture(scope="module", params=[f.__name__ for f in SMALL])
def network(request):
    make = getattr(networks, request.param)
    feeds = [networks.FEEDS[make](np.random.default_rng(i)) for i in range(3)]
    return make(), feeds


@pytest.fixture(scope="module", params=KINDS)
def pair(request, network):
    proto, feeds = network
    return proto, quantized(proto, request.param, feeds), feeds[0]


def test_operators_of_integers_become_float_ones_that_compute_the_same(pair):
    _, other, feed = pair
    form = float_form(GraphIndex(other))
    assert {operator(n) for n in form.index.nodes} & QUANTIZED <= QUANTIZERS
    with exact(other).session(Model(other)) as session:
        mine = session.infer(feed)
    theirs = networks.run(form.index.proto, feed)
    for name, value in mine.items():
        if value.dtype.kind == "f":  # a sum on the border between two steps may tip over
            assert np.abs(theirs[name] - value).max() < 0.05 * np.abs(value).max(), name


def test_float_borders_change_no_bit(pair):
    _, other, feed = pair
    bordered = with_float_borders(Model(other))
    mine, theirs = networks.run(other, feed), networks.run(bordered.proto, feed)
    assert all(np.array_equal(mine[n], theirs[n]) for n in mine)


def test_between_operators_of_integers_stands_a_float(pair):
    _, other, _ = pair
    index = with_float_borders(Model(other)).index
    made = {o for n in index.nodes if operator(n) not in QUANTIZERS for o in n.output}
    for node in index.nodes:
        if operator(node) in QUANTIZED - QUANTIZERS:
            wrong = [n for n in node.input if n in made and index.specs[n].dtype.name in ("int8", "uint8")]
            assert not wrong, node.name


def test_float_tensors_are_matched_with_their_quantized_selves_and_never_with_integers(pair):
    proto, other, feed = pair
    bordered = with_float_borders(Model(other)).proto
    found = match(GraphIndex(proto), GraphIndex(bordered))
    mine, theirs = networks.run_all(proto, feed), networks.run_all(bordered, feed)
    compared = 0
    for a, b in found.tensors.items():
        if a not in mine or b not in theirs or mine[a].dtype.kind != "f":
            continue
        assert theirs[b].dtype.kind == "f", (a, b)
        x, y = mine[a].astype(np.float64), theirs[b].astype(np.float64)
        assert x.shape == y.shape
        assert _near(x, y), (a, b)
        compared += 1
    assert compared >= 10


def _near(x: np.ndarray, y: np.ndarray) -> bool:
    """What a quantizer whose range begins at zero cuts off may be a Relu that the candidate leaves out."""
    power = max(float(np.square(x).sum()), 1e-12)
    either = min(float(np.square(x - y).sum()), float(np.square(np.maximum(x, 0) - np.maximum(y, 0)).sum()))
    return either < 0.1 * power


def test_what_the_steps_explain_is_no_difference(pair):
    proto, other, _ = pair
    found = match(GraphIndex(proto), GraphIndex(with_float_borders(Model(other)).proto))
    beyond = [d for d in found.differences if d.kind == "weights" and d.expected_by_format != "int8"]
    assert beyond == []


INTEGERS = np.array([[1, -2], [3, 4], [-5, 6]], np.int8)
WEIGHT = 0.25 * INTEGERS.astype(np.float32)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("a = Cast <to=1> (q)  w = Mul(a, s)  y = MatMul(x, w)", {"q": INTEGERS, "s": np.float32(0.25)}),
        (
            "a = Cast <to=1> (q)  b = Sub(a, z)  w = Mul(b, s)  y = MatMul(x, w)",
            {"q": INTEGERS + np.int8(3), "z": np.float32(3), "s": np.array([0.25, 0.25], np.float32)},
        ),
        ("w = DequantizeLinear <axis=1> (q, s)  y = MatMul(x, w)", {"q": INTEGERS, "s": np.full(2, 0.25, np.float32)}),
        ("w = DequantizeLinear (q, s)  y = MatMul(x, w)", {"q": INTEGERS, "s": np.float32(0.25)}),
        (
            "w = DequantizeLinear <axis=0, block_size=3> (q, s)  y = MatMul(x, w)",
            {"q": INTEGERS, "s": np.full((1, 2), 0.25, np.float32)},
        ),
        (
            "u = DequantizeLinear (q, s)  w = Transpose <perm=[1, 0]> (u)  y = MatMul(x, w)",
            {"q": np.ascontiguousarray(INTEGERS.T), "s": np.float32(0.25)},
        ),
    ],
    ids=["cast", "zero point", "axis", "tensor", "blocks", "transposed"],
)
def test_weights_are_compared_as_what_they_stand_for(text, weights):
    """Half a step off is quantization; more is another weight."""
    other = parsed(f"g (float[N, 3] x) => (float[N, 2] y) {{ {text} }}", opset=21, **weights)
    for off, quantization in ((0.12, True), (0.6, False)):
        weight = WEIGHT + np.array([[0, 0], [0, off], [0, 0]], np.float32)
        mine = parsed("g (float[N, 3] x) => (float[N, 2] y) { y = MatMul(x, w) }", opset=21, w=weight)
        (found,) = match(GraphIndex(mine), GraphIndex(other)).differences
        assert found.kind == "weights"
        assert (found.expected_by_format == "int8") == quantization
        assert abs(found.change.greatest - off) < 1e-6


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_blocks_are_unpacked(bits):
    x, w = normal(4, 64), normal(64, 8, seed=1)
    scale = (np.abs(w.T.reshape(8, 2, 32)).max(2) / (2 ** (bits - 1) - 1)).astype(np.float32)
    integers = np.rint(w.T.reshape(8, 2, 32) / scale[..., None]) + 2 ** (bits - 1)
    integers = np.clip(integers, 0, 2**bits - 1).astype(np.uint8)
    packed = integers if bits == 8 else (integers[..., ::2] | integers[..., 1::2] << 4)
    node = onnx.helper.make_node("MatMulNBits", ["x", "packed", "scale"], ["y"], domain="com.microsoft", K=64, N=8,
                                 bits=bits, block_size=32)  # fmt: skip
    plain = parsed("g (float[N, 64] x) => (float[N, 8] y) { y = MatMul(x, w) }", opset=21, w=w)
    other = parsed("g (float[N, 64] x) => (float[N, 8] y) { y = Identity(x) }", opset=21, domains=("com.microsoft",),
                   packed=packed, scale=scale)  # fmt: skip
    other.graph.node[0].CopyFrom(node)
    form = float_form(GraphIndex(other))
    assert [n.op_type for n in form.index.nodes] == ["DequantizeLinear", "Transpose", "MatMul"]
    np.testing.assert_allclose(
        networks.run(form.index.proto, {"x": x})["y"], networks.run(other, {"x": x})["y"], atol=2e-2
    )
    (found,) = match(GraphIndex(plain), GraphIndex(other)).differences
    assert found.expected_by_format == "int8"


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("y = Relu(x)", False),
        ("q = QuantizeLinear(x, s)  y = DequantizeLinear(q, s)", True),
        ("q, t, z = DynamicQuantizeLinear(x)  y = DequantizeLinear(q, t, z)", True),
    ],
)
def test_which_graphs_are_quantized(text, yes):
    model = parsed(f"g (float[N] x) => (float[N] y) {{ {text} }}", s=np.float32(0.1))
    assert is_quantized(GraphIndex(model)) == yes
    assert with_float_borders(Model(model)).proto is not None


def test_a_kernel_that_cuts_off_below_zero_makes_what_is_behind_the_relu():
    """A QLinear operator whose range begins at zero does a Relu too; what stands before it, nothing makes."""
    plain = parsed("g (float[N, 4] x) => (float[N, 4] y) { h = MatMul(x, w)  r = Relu(h)  y = Mul(r, two) }",
                   w=normal(4, 4), two=np.float32(2))  # fmt: skip
    feeds = [{"x": normal(16, 4, seed=i)} for i in range(2)]
    other = with_float_borders(Model(quantized(plain, "qoperator", feeds))).proto
    found = match(GraphIndex(plain), GraphIndex(other)).tensors
    theirs = networks.run_all(other, feeds[0])
    assert "h" not in found or theirs[found["h"]].min() < 0
    assert theirs[found["r"]].min() >= 0


def test_how_many_layers_are_scaled_does_not_depend_on_how_a_file_writes_them(network):
    proto, feeds = network
    qdq, qoperator = (scaled_operands(GraphIndex(quantized(proto, kind, feeds))) for kind in ("qdq", "qoperator"))
    assert qdq.layers == qoperator.layers > 0
    assert not qdq.differ(qoperator)
    floats = scaled_operands(GraphIndex(proto))
    assert (floats.layers, floats.scaled) == (0, 0)
    assert floats.differ(qdq)


TWO = "g (float[N, 4] x) => (float[N, 4] y) { v = DequantizeLinear(q, s)  u = DequantizeLinear(p, s)  BODY }"
INTS = {"q": np.ones((4, 4), np.int8), "p": np.ones((4, 4), np.int8), "s": np.float32(0.1), "w": normal(4, 4)}
INPUT = "a = QuantizeLinear(x, s)  b = DequantizeLinear(a, s)"


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("h = MatMul(b, v)  y = MatMul(h, u)", "h = MatMul(b, v)  y = MatMul(h, w)", True),
        ("h = MatMul(b, v)  y = MatMul(h, u)", "h = MatMul(b, w)  y = MatMul(h, w)", True),
        ("h = MatMul(b, v)  y = MatMul(h, u)", "h = MatMul(x, v)  y = MatMul(h, u)", True),
        ("h = MatMul(b, v)  y = MatMul(b, u)", "h = MatMul(b, v)  g = MatMul(b, u)  y = Add(g, h)", False),
        ("y = MatMul(b, v)", "h = MatMul(b, v)  g = MatMul(b, v)  y = Add(g, h)", False),
    ],
    ids=["a layer in floats", "two layers in floats", "an operand in floats", "the same", "a product in parts"],
)
def test_files_differ_where_an_operand_is_scaled_in_one_alone(one, other, differ):
    graphs = [GraphIndex(parsed(TWO.replace("BODY", f"{INPUT}  {body}"), **INTS)) for body in (one, other)]
    mine, theirs = map(scaled_operands, graphs)
    assert mine.differ(theirs) == theirs.differ(mine) == differ


def test_rows_of_a_table_of_integers_are_scaled():
    looked_up = parsed(
        "g (int64[N] x) => (float[N, 4] y) { r = Gather(q, x)  v = DequantizeLinear(r, s)  y = MatMul(v, w) }",
        q=np.ones((4, 4), np.int8), s=np.float32(0.1), w=normal(4, 4),
    )  # fmt: skip
    assert scaled_operands(GraphIndex(looked_up)) == ScaledOperands(layers=1, scaled=2, others=1)
