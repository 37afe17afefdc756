"""Saturation: values that stop at an end of the candidate's range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layerdiff.compare.causes import saturation
from layerdiff.graph.pairing.changes import OperatorChange
from layerdiff.graph.pairing.differences import Difference
from layerdiff.graph.pairing.weight_changes import WeightChange
from layerdiff.graph.quantized.quantizers import Grid

from support.layer_cases import layer_case, told
from support.layerwise import compare
from support.models import normal, parsed
from support.quantized import exact, quantized

Y = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
QUANTIZER = parsed("g (float[N] x) => (int8[N] y) { y = QuantizeLinear(x, s, z) }", s=np.float32(0.01), z=np.int8(0))
SCALE_DIFFERS = (Difference(0, 0, WeightChange((), (), 1, 0.01, (), (0.01, 1e-4)), "s"),)


@pytest.mark.parametrize(("low", "high"), [(-1, 9), (-9, 1), (-1, 1)])
def test_the_end_is_told_with_what_the_reference_has_there(low, high):
    found = saturation.find(layer_case(Y, Y.clip(low, high)))
    assert found.cause == "saturation"
    fact = found.facts[0]
    assert fact.end in (low, high)
    assert fact.count == np.count_nonzero(high < Y if fact.end == high else low > Y)
    assert abs(fact.reference) > 1
    assert told(found).startswith(f"{fact.count} of 1,000 values stop at {fact.end:g}, first at [{fact.at[0]}]: ")


@pytest.mark.parametrize(
    ("what", "c"),
    [
        ("a relu", np.maximum(Y, 0)),
        ("one value", np.where(Y.max() == Y, np.float32(1), Y)),
        ("most of the error is elsewhere", Y.clip(-3, 3) + np.where(np.arange(1000) % 2, 1, 0).astype(np.float32)),
        ("empty", Y[:0]),
    ],
)
def test_other_ends_are_none(what, c):
    assert saturation.find(layer_case(Y[: c.size], c)) is None


OTHER = (Difference(0, 0, OperatorChange((("Mul", "a"),), (("Clip", "b"), ("Reciprocal", "c")))),)


@pytest.mark.parametrize(
    ("least", "differs", "saturates"), [(2.5, OTHER, True), (2.5, (), True), (-2.5, (), True), (-2.5, OTHER, False)]
)
def test_most_of_what_another_operator_makes_is_no_end_of_a_range(least, differs, saturates):
    found = saturation.find(layer_case(Y, Y.clip(None, least), differences=differs))
    assert (found is not None) == saturates


def test_a_quantizer_is_judged_by_what_its_integers_stand_for():
    y = np.rint(Y[:500] * 20).astype(np.int8)
    theirs = parsed("g (float[N] x) => (int8[N] y) { y = QuantizeLinear(x, s, z) }", s=np.float32(1e-4), z=np.int8(0))
    c = (100 * y.astype(np.int32)).clip(-128, 127).astype(np.int8)
    case = layer_case(y, c, model=QUANTIZER, candidate=theirs, differences=SCALE_DIFFERS, reason="integer")
    found = saturation.of_quantizer(case)
    assert found.cause == "saturation"
    assert found.facts[0].end == pytest.approx(0.0127) or found.facts[0].end == pytest.approx(-0.0128)
    assert abs(found.facts[0].reference) > 0.0127


def test_a_quantizer_that_does_not_differ_is_not_asked():
    assert saturation.of_quantizer(layer_case(Y, Y.clip(-1, 1), model=QUANTIZER)) is None
    assert saturation.of_quantizer(layer_case(Y, Y.clip(-1, 1), differences=SCALE_DIFFERS)) is None


RELU = parsed("g (float[N] x) => (float[N] y) { h = Relu(x)  y = Relu(h) }")


def beyond(x, grid, model=RELU):
    return saturation.of_operand(layer_case(Y, Y, model=model, tensors={"x": x}, grids={"x": grid}))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (255 * np.abs(Y) / np.abs(Y).max(), "data reach 255 at"),
        (
            np.append(Y.clip(-1, 1), [-9]).astype(np.float32),
            "data reach -9 at [1000], calibration saw at least -1; 1 of",
        ),
    ],
)
def test_values_beyond_the_calibrated_range_are_told_with_the_range(x, text):
    found = beyond(x.astype(np.float32), Grid.symmetric(1.0))
    assert found.cause == "saturation"
    assert found.facts[0].given
    assert told(found).startswith("'x', an input of the graph: ")
    assert text in told(found)


INSIDE = parsed("g (float[N] x) => (float[N] y) { h = Neg(x) y = Add(h, x) }")
NOTHING_ABOVE = Grid(np.asarray(0.01), np.asarray(-2.55), np.asarray(0.0), 256)


def inside(c, made_with):
    """A quantizer inside, of what is ``Y``, that holds nothing above zero."""
    case = layer_case(Y, c, model=INSIDE, tensors={"x": Y, "h": Y.clip(-2, 2)}, grids={"h": NOTHING_ABOVE})
    return saturation.of_operand(replace(case, reweighted=made_with))


def test_what_a_node_inside_makes_stops_at_the_ends_of_its_range():
    """A zero point at the end: whatever is positive becomes zero."""
    found = inside(Y.clip(None, 0), lambda inner: inner["h"])
    assert (found.cause, found.node) == ("saturation", 0)
    assert "calibration saw at most 0" in told(found)


@pytest.mark.parametrize("made", [lambda inner: Y, lambda inner: None], ids=["a Relu behind it", "not known"])
def test_where_the_ends_inside_do_not_make_the_error_they_are_none(made):
    assert inside(Y.clip(None, 0), made) is None


@pytest.mark.parametrize(
    ("x", "grid"),
    [
        (Y, Grid.symmetric(10.0)),
        (Y, Grid.measured(Y)),
        (Y, Grid.symmetric(float(np.abs(Y).max()) * 0.995)),  # less than two steps
        (np.append(Y, [4.2]).astype(np.float32), Grid.symmetric(4.0, levels=8)),  # the step rounds more than that
    ],
    ids=["within", "measured", "two steps", "coarse"],
)
def test_what_the_step_rounds_is_no_saturation(x, grid):
    assert beyond(x, grid) is None


@pytest.mark.parametrize(("op", "saturates"), [("ArgMax", False), ("NonZero", True)])
def test_numbers_of_what_is_chosen_stop_nowhere(op, saturates):
    model = parsed(f"g (float[16,8] x) => (int64[16,1] y) {{ y = {op}(x) }}")
    chosen = np.arange(16).reshape(16, 1) % 8
    assert (saturation.find(layer_case(chosen, chosen.clip(0, 2), model=model)) is not None) == saturates


def test_rows_that_are_all_but_the_same_do_not_stop_at_the_end_of_a_range():
    rows = normal(1, 1, 16, seed=0) + 1e-4 * normal(1, 20, 16, seed=50)
    text = "g (float[1, 20, 16] x) => (float[1, 20, 4] y) { h = MatMul(x, w) y = Sigmoid(h) }"
    model = parsed(text, w=normal(16, 4, seed=100))
    file = quantized(model, "dynamic", [{"x": rows}])
    assert not compare(model, file, [{"x": rows}], ort=exact(file)).culprits


def test_what_a_relu_cuts_off_behind_a_range_is_not_counted():
    """A range from zero on, of what a Relu is given: of the values beyond it, the greatest alone are lost."""
    text = """g (float[32,16] x) => (float[32,4] y) {{
        [up] p = MatMul(x, w) {} [act] r = Relu({}) [down] y = MatMul(r, v) }}"""
    weights = {"w": normal(16, 16, seed=1), "v": normal(16, 4, seed=2)}
    grid = {"s": np.float32(4 / 255), "z": np.uint8(0)}
    first = parsed(text.format("", "p"), **weights)
    ends = "q = QuantizeLinear(p, s, z) d = DequantizeLinear(q, s, z)"
    second = parsed(text.format(ends, "d"), **weights, **grid)
    culprits = compare(first, second, [{"x": normal(32, 16, seed=3)}]).culprits
    (beyond,) = (f for c in culprits for f in c.facts if type(f).__name__ == "BeyondCalibration")
    assert beyond.reach > 4
    made = normal(32, 16, seed=3) @ weights["w"]
    assert beyond.count == int((made > 4 + 2 * 4 / 255).sum())
