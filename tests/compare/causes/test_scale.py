"""Scale: the candidate is the reference times a gain, plus an offset."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import scale
from layerdiff.graph.pairing.changes import OperatorChange
from layerdiff.graph.pairing.differences import Difference

from support.layer_cases import layer_case, told
from support.models import parsed

RNG = np.random.default_rng(0)
Y = RNG.standard_normal((4, 64)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 16, 8, 8)).astype(np.float32)
GAINS = np.linspace(0.5, 2, 16, dtype=np.float32).reshape(16, 1, 1)
OFFSETS = np.linspace(-1, 1, 16, dtype=np.float32).reshape(16, 1, 1)


@pytest.mark.parametrize(
    ("gain", "offset", "text"),
    [
        (1.01, 0, "candidate = 1.01 x reference"),
        (1, 0.5, "candidate = reference + 0.5"),
        (-2, -0.25, "candidate = -2 x reference - 0.25"),
        (1 / 255, 0, "candidate = 0.00392157 (1/255) x reference"),
        (1 / 32768, 0, "candidate = 3.05176e-05 (1/32768) x reference"),
    ],
)
def test_a_gain_and_an_offset(gain, offset, text):
    found = scale.find(layer_case(Y.astype(np.float64), gain * Y.astype(np.float64) + offset))
    assert (found.cause, told(found)) == ("scale", text)
    assert (found.facts[0].gain, found.facts[0].offset) == pytest.approx((gain, offset))


def test_a_gain_and_an_offset_for_each_channel():
    found = scale.find(layer_case(IMAGE, IMAGE * GAINS + OFFSETS))
    assert told(found) == "each channel is scaled and shifted: gains 0.5 to 2, offsets -1 to 1"
    assert found.facts[0].gains == pytest.approx((0.5, 2))


@pytest.mark.parametrize(
    ("what", "y", "c"),
    [
        ("equal", Y, Y),
        ("few values", Y[0, :7], 2 * Y[0, :7]),
        ("lost", Y, np.zeros_like(Y)),
        ("lost but for a trace", Y, 1e-4 * Y + 1e-6 * RNG.standard_normal(Y.shape)),
        ("noise", Y, Y + RNG.standard_normal(Y.shape).astype(np.float32)),
        ("squared", Y, Y * Y),
        ("next to nothing", Y, 0.1 * Y + 0.05 * RNG.standard_normal(Y.shape)),
    ],
)
def test_what_no_gain_explains(what, y, c):
    assert scale.find(layer_case(y, c)) is None


@pytest.mark.parametrize(
    ("operator", "scaled"),
    [("y = Mul(x, w)", True), ("y = Add(x, w)", True), ("y = MatMul(x, x)", True), ("y = Relu(x)", False),
     ("y = Mul(x, x)", False)],
)  # fmt: skip
def test_another_operator_is_a_matter_of_scale_where_a_constant_is_missing(operator, scaled):
    model = parsed(f"g (float[64,64] x) => (float[64,64] y) {{ {operator} }}", w=np.float32(2))
    replaced = (Difference(0, 0, OperatorChange((("Mul", "n"),), (("Relu", "m"),))),)
    case = layer_case(Y, 2 * Y, model=model, differences=replaced)
    assert (scale.find(case) is not None) == scaled


@pytest.mark.parametrize(("missing", "scaled"), [(("Mul",), True), (("Div", "Mul"), True), (("Tanh", "Mul"), False)])
def test_missing_nodes_are_a_matter_of_scale_where_all_of_them_scale(missing, scaled):
    model = parsed("g (float[64,64] x) => (float[64,64] y) { y = Mul(x, w) }", w=np.float32(2))
    absent = (Difference(0, 0, OperatorChange(tuple((op, "n") for op in missing), ())),)
    case = layer_case(Y, 2 * Y, model=model, differences=absent)
    assert (scale.find(case) is not None) == scaled
