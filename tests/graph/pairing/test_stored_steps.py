"""In what steps the candidate stores weights of the reference, whatever stands between the two files."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.differences import DifferenceKind
from layerdiff.graph.pairing.matching import match

from support.models import normal, parsed

W = normal(4, 6)
S = (np.abs(W).max(0) / 127).astype(np.float32)
Q = np.rint(W / S).astype(np.int8)
G = np.array([0.5, 2.0, 1.0, 3.0, 0.25, 1.5], np.float32)
FLOATS = "(float[N, 4] x) => (float[N, 6] y)"


@pytest.mark.parametrize(
    ("mine", "theirs", "weights"),
    [
        ("y = MatMul(x, w)", "v = DequantizeLinear <axis=1> (q, s)  y = MatMul(x, v)", {"w": W}),
        ("h = MatMul(x, w)  y = Add(h, b)", "v = DequantizeLinear <axis=1> (q, s)  h = MatMul(x, v)  y = Add(h, b)",
         {"w": W}),
        ("y = Gemm <transB=1> (x, w, b)", "v = DequantizeLinear <axis=1> (q, s)  h = MatMul(x, v)  y = Add(h, b)",
         {"w": np.ascontiguousarray(W.T)}),
        ("h = MatMul(x, w)  g = Mul(h, k)  y = Add(g, b)",
         "v = DequantizeLinear <axis=1> (q, s)  y = Gemm(x, v, b)", {"w": W / G, "k": G}),
    ],
    ids=["same product", "with a bias", "transposed", "a factor multiplied in"],
)  # fmt: skip
def test_each_channel_has_the_step_that_its_values_were_rounded_by(mine, theirs, weights):
    bias = normal(6, seed=2)
    reference = parsed(f"g {FLOATS} {{ {mine} }}", opset=21, b=bias, **weights)
    candidate = parsed(f"g {FLOATS} {{ {theirs} }}", opset=21, b=bias, q=Q, s=S)
    steps = np.broadcast_to(match(GraphIndex(reference), GraphIndex(candidate)).steps["w"], weights["w"].shape)
    stored = (Q * S).astype(np.float32)
    exact = stored / G if "k" in weights else stored if weights["w"].shape == W.shape else stored.T
    assert np.abs(weights["w"] - exact).max() <= 0.501 * steps.max()
    np.testing.assert_array_less(np.abs(weights["w"] - exact), 0.501 * steps)
    assert np.all(steps < 2.1 * np.abs(weights["w"]).max() / 127 * (16 if "k" in weights else 1))


def test_weights_that_are_stored_as_floats_have_no_steps():
    model = parsed(f"g {FLOATS} {{ y = MatMul(x, w) }}", w=W)
    other = parsed(f"g {FLOATS} {{ y = MatMul(x, w) }}", w=W.astype(np.float32) * 1.001)
    assert match(GraphIndex(model), GraphIndex(other)).steps == {}


def test_a_table_that_constants_are_taken_from_has_its_steps():
    """Position embeddings: rows that do not depend on the data, of a table that the candidate stores as integers."""
    table = normal(8, 4)
    scale = (np.abs(table).max(1, keepdims=True) / 127).astype(np.float32)
    floats = "g (float[3, 4] x) => (float[3, 4] y) { r = Gather(t, i)  y = Add(x, r) }"
    integers = (
        "g (float[3, 4] x) => (float[3, 4] y) { c = Cast <to=1> (q)  t = Mul(c, s)  r = Gather(t, i)  y = Add(x, r) }"
    )
    ids = np.arange(3)
    mine = GraphIndex(parsed(floats, t=table, i=ids))
    theirs = GraphIndex(parsed(integers, q=np.rint(table / scale).astype(np.int8), s=scale, i=ids))
    np.testing.assert_allclose(match(mine, theirs).steps["t"], scale)


def test_a_table_whose_rows_are_made_floats_after_they_are_taken_has_its_steps():
    """As ONNX Runtime's quantizer leaves position embeddings: the rows are chosen by a shape, and scaled behind."""
    table = normal(8, 4)
    scale = np.float32(np.abs(table).max() / 127)
    head = "g (float[N, 4] x) => (float[N, 4] y) { s = Shape <end=1> (x)  n = Squeeze(s)  r = Range(zero, n, one)"
    ints = {"zero": np.array(0), "one": np.array(1)}
    mine = parsed(f"{head}  p = Gather(t, r)  h = Add(x, p)  y = MatMul(h, w) }}", t=table, w=normal(4, 4), **ints)
    theirs = parsed(
        f"{head}  i = Gather(q, r)  p = DequantizeLinear(i, k)  h = Add(x, p)  y = MatMul(h, w) }}",
        q=np.rint(table / scale).astype(np.int8), k=scale, w=normal(4, 4), **ints,
    )  # fmt: skip
    found = match(GraphIndex(mine), GraphIndex(theirs))
    assert found.steps["t"] == scale
    assert found.tensors["p"] == "p"


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_along_the_wrong_axis_of_a_square_weight_are_an_attribute(axis):
    weight = normal(6, 6) * np.array([1, 5, 0.2, 3, 0.5, 8], np.float32)
    scale = (np.abs(weight).max(0) / 127).astype(np.float32)
    stored = np.rint(weight / scale).astype(np.int8)
    square = "(float[N, 6] x) => (float[N, 6] y)"
    reference = parsed(f"g {square} {{ y = MatMul(x, w) }}", opset=21, w=weight)
    text = f"g {square} {{ [deq] v = DequantizeLinear <axis={axis}> (q, s)  y = MatMul(x, v) }}"
    found = match(GraphIndex(reference), GraphIndex(parsed(text, opset=21, q=stored, s=scale))).differences
    told = [d.detail for d in found if d.kind is DifferenceKind.ATTRIBUTE]
    assert told == ([] if axis else ["DequantizeLinear deq of the weights: axis 1 against 0"])


def test_a_constant_that_the_reference_computes_has_the_steps_of_the_one_that_is_stored():
    token, scale = normal(1, 1, 4, seed=5), np.float32(0.02)
    text = "g (float[1, 3, 4] x) => (float[1, 4, 4] y) {{ {0}  a = Mul(x, x)  y = Concat <axis = 1> (c, a) }}"
    computed = "k = Shape(x)  o = Div(k, k)  c = Expand(token, o)"
    stored = "c = DequantizeLinear(q, scale)"
    reference = parsed(text.format(computed), opset=21, token=token)
    candidate = parsed(text.format(stored), opset=21, q=np.rint(token / scale).astype(np.int8), scale=scale)
    steps = match(GraphIndex(reference), GraphIndex(candidate)).steps
    assert steps["c"].item() == pytest.approx(0.02)
