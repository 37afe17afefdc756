"""How weights differ, which changes explain it, and the sentences that are made of what is known."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.changes import AttributeChange, InputsExchanged, OperatorChange, WeightsAbsent
from layerdiff.graph.pairing.differences import Change, Difference
from layerdiff.graph.pairing.matching import match
from layerdiff.graph.pairing.weight_changes import stored_scaled, weight_change, within_steps
from layerdiff.graph.pairing.weight_patterns import Clamped, FewValues, Pattern, Reordered, Scaled, Transposed, Zeroed

from support.models import parsed


@pytest.mark.parametrize(
    ("x", "y", "detail", "stored"),
    [
        (np.arange(6.0), np.arange(6.0), None, None),
        (np.arange(6.0), np.arange(6.0).reshape(1, 6), None, None),
        (np.zeros((2, 3)), np.zeros((2, 4)), "shape 2x3 against 2x4", None),
        (
            np.arange(6.0).reshape(2, 3),
            np.arange(6.0).reshape(2, 3).T,
            "shape 2x3 against 3x2: equal to the transpose",
            None,
        ),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), None, None),
        (
            np.array([1.0, 2.0]),
            np.array([1.0, np.nan]),
            "1 of 2 weights differ, greatest inf at [1], 2 against nan",
            None,
        ),
        (
            np.array([1, 2, 3], np.int8),
            np.array([1, 2, 4], np.int8),
            "1 of 3 weights differ, greatest 1 at [2], 3 against 4",
            None,
        ),
        (
            np.array([0, 255], np.uint8),
            np.array([255, 255], np.uint8),
            "1 of 2 weights differ, greatest 255 at [0], 0 against 255",
            None,
        ),
        (
            np.array([1e6], np.float32),
            np.array([65504], np.float16),
            "1 of 1 value beyond the greatest number of FP16, 65504: 1e+06 became 65504",
            None,
        ),
        (
            np.array([1.0001, 2.0001, 3.0001], np.float32),
            np.array([1, 2, 4], np.float16),
            "1 of 3 weights differ by more than rounding to FP16, greatest 1 at [2], 3.0001 against 4",
            None,
        ),
        (
            np.array([1.0001, 2.0001, 3.0001], np.float32),
            np.array([2, 3, 4], np.float32),
            "3 of 3 weights differ, greatest 1 at [1], 2.0001 against 3",
            None,
        ),
        (
            np.array([1e-9], np.float32),
            np.array([6e-8], np.float16),
            "all 1 value equal to the reference's rounded to FP16",
            "fp16",
        ),
    ],
)
def test_weights_say_how_they_differ(x: np.ndarray, y: np.ndarray, detail: str | None, stored: str | None) -> None:
    change = weight_change(x, y)
    if detail is None:
        assert change is None
    else:
        assert change is not None
        assert str(change).startswith(detail)
        assert change.explained_by_format == stored


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (np.int64(2654435761), np.int64(2654435769), "value 2654435761 against 2654435769"),
        (np.float32(1), np.float32(1.000002), "value 1 against 1.00000203"),
        (np.float32(0.5), np.float32(0.25), "value 0.5 against 0.25"),
    ],
)
def test_values_are_told_with_the_digits_in_which_they_differ(x: np.ndarray, y: np.ndarray, text: str) -> None:
    assert str(weight_change(np.asarray(x), np.asarray(y))) == text


ONE, TWO = np.ones(1, np.float32), np.full(1, 2, np.float32)
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
GRID = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)


@pytest.mark.parametrize(
    ("x", "y", "pattern"),
    [
        (np.outer([1, 2, 4], [1, 3, 5]), np.outer([1, 3, 5], [1, 2, 4]), Transposed()),
        (ROWS, ROWS[[1, 0, 2, 3]], Reordered(0)),
        (ROWS, ROWS[:, [0, 2, 1]], Reordered(1)),
        (ROWS, ROWS * 3, Scaled(3.0)),
        (GRID, np.round(GRID * 8).clip(-16, 16) / 8, FewValues(33, 0.125)),
        (ROWS, ROWS * 0, Zeroed()),
        (ROWS, ROWS.clip(0, 8), Clamped(8.0, 3, 1.0, 0)),
        (ROWS, ROWS.clip(0, 8).astype(np.float16), Clamped(8.0, 3, 1.0, 0)),
        (ROWS, np.where(ROWS > 0, ROWS.clip(4, 9), 0), Clamped(9.0, 2, 4.0, 3)),
    ],
)
def test_a_change_of_all_weights_has_a_pattern(x: np.ndarray, y: np.ndarray, pattern: Pattern) -> None:
    change = weight_change(x, y)
    assert change is not None
    assert change.patterns == (pattern,)


MIXED = np.float32([1e-6, 1e6]) * (1 + ROWS[:, :2])


@pytest.mark.parametrize(
    ("x", "y"),
    [(ROWS + 1, np.full_like(ROWS, 5)), (MIXED, np.where(MIXED < 1, 1.01 * MIXED, MIXED).astype(np.float32))],
    ids=["one value for all", "small values beside large ones"],
)
def test_some_other_values_are_neither_clamped_nor_times_one(x: np.ndarray, y: np.ndarray) -> None:
    change = weight_change(x, y)
    assert change is not None
    assert change.patterns == ()


STEP = np.full((1, 1), 0.05, np.float32)
STEPS = np.geomspace(0.01, 0.1, 32).astype(np.float32).reshape(1, 32)


def stored(x: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(x / step), np.float32)


@pytest.mark.parametrize(
    ("y", "step", "axis", "count"),
    [
        (stored(GRID, STEP) * 0.07, STEP * 1.4, None, 0),  # another scale
        (stored(GRID, STEP).clip(-40, 40) * 0.07, STEP * 1.4, None, 0),  # what is cut off at the ends says nothing
        (stored(GRID, STEPS) * STEPS * 1.4, STEPS * 1.4, None, 0),
        (stored(GRID, STEPS) * np.r_[[0.04] * 3, STEPS[0, 3:]], np.r_[[0.04] * 3, STEPS[0, 3:]].reshape(1, 32), 1, 3),
        (stored(GRID, STEP) * STEP, STEP, "no factor", 0),
        (stored(GRID[::-1], STEP) * STEP, STEP, "no factor", 0),  # other weights
        (np.floor(GRID / STEP) * STEP, STEP, "no factor", 0),  # rounded otherwise
    ],
)
def test_a_factor_tells_a_wrong_scale_from_wrong_weights(
    y: np.ndarray, step: np.ndarray, axis: int | str | None, count: int
) -> None:
    found = stored_scaled(GRID, y, step)
    if axis == "no factor":
        assert found is None
    else:
        assert found is not None
        assert (found.axis, found.count) == (axis, count)
        assert axis is not None or found.factor == pytest.approx(1.4, rel=2e-2)


def _columns(places: list[int], factor: float) -> np.ndarray:
    changed = W.copy()
    changed[:, places] *= factor
    return changed


def _holding(value: float) -> np.ndarray:
    changed = W.copy()
    changed[::5, 3] = value
    return changed


W = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (_columns([4, 5, 6], 1.5), "; they are at indices 4 to 6 of axis 1 (3 of 16), all 1.5 times the reference's"),
        (_columns([2], 0.0), "; they are at index 2 of axis 1 (1 of 16), all zero in the candidate"),
        (
            _columns([1, 3, 8, 9], -1.0),
            "; they are at indices 1, 3, 8 and 1 more of axis 1 (4 of 16), all -1 times the reference's",
        ),
        (
            _columns([1, 3, 8], 2).astype(np.float16),
            "; they are at indices 1, 3, 8 of axis 1 (3 of 16), all 2 times the reference's",
        ),
        (W + np.float32(1), None),
        (_holding(2.0), None),  # few values of that column
    ],
)
def test_channels_that_hold_all_of_a_difference_are_told(y: np.ndarray, told: str | None) -> None:
    text = str(weight_change(W, y))
    assert text.endswith(told) if told else "they are at" not in text


def test_what_the_reference_alone_rounds_is_no_difference() -> None:
    wide = np.linspace(0.1, 0.9, 16, dtype=np.float32)
    assert weight_change(wide.astype(np.float16), wide) is None
    other = weight_change(wide.astype(np.float16), np.where(np.arange(16) == 3, np.float32(2), wide))
    assert other is not None


def test_a_factor_that_fits_one_weight_says_nothing() -> None:
    x = np.arange(1, 9, dtype=np.float32).reshape(8, 1)
    assert stored_scaled(x, np.rint(x[::-1]), np.full((8, 1), 0.1)) is None


@pytest.mark.parametrize(
    ("change", "one_value"),
    [
        (weight_change(ONE, TWO), True),
        (weight_change(ONE * 0.1, (ONE * 0.1).astype(np.float16)), False),  # rounding explains it
        (weight_change(np.r_[ONE, TWO], np.r_[ONE, ONE]), False),
        (WeightsAbsent("const", 1, 0.5, in_candidate=True), False),
        (AttributeChange("alpha", 1.0, 2.0), False),
    ],
)
def test_one_number_that_is_another_one_is_told_from_other_changes(change: Change, one_value: bool) -> None:
    assert Difference(0, 0, change).of_one_value == one_value


@pytest.mark.parametrize(
    ("difference", "detail"),
    [
        (Difference(0, 0, AttributeChange("alpha", 1.0, None), "alpha"), "alpha 1 against absent"),
        (
            Difference(0, 0, AttributeChange("axis", 1, 2), "axis", inside="Softmax"),
            "in its body: Softmax axis 1 against 2",
        ),
        (Difference(0, 0, WeightsAbsent("b", 64, None, in_candidate=True), "b"), "b 64 values against absent"),
        (Difference(0, 0, WeightsAbsent("c", 64, None, in_candidate=True, noun="biases")), "64 biases against none"),
        (Difference(0, 0, WeightsAbsent("c", 1, 0.5, in_candidate=False, noun="biases")), "none against bias 0.5"),
        (Difference(0, 0, WeightsAbsent("const", 1, 0.5, in_candidate=False), "const"), "const absent against 0.5"),
        (Difference(0, 0, OperatorChange((("Mul", "m"),), ())), "Mul m is missing in the candidate"),
        (
            Difference(0, 0, OperatorChange((), (("Mul", "m"),)), inside=""),
            "in its body: Mul m is in the candidate alone",
        ),
        (
            Difference(0, 0, InputsExchanged("Concat", (("inputs0", "inputs2"), ("inputs2", "inputs0")))),
            "inputs 0 and 2 of Concat exchanged",
        ),
        (Difference(0, 0, InputsExchanged("Where", (("x", "y"),))), "Where reads input x as input y"),
        (
            Difference(0, 0, InputsExchanged("Slice", (("starts", "steps"), ("steps", "starts")))),
            "inputs starts and steps of Slice exchanged",
        ),
        (Difference(0, 0, OperatorChange((("Erf", "e"),) * 9, (("Tanh", "t"),))), f"{'Erf, ' * 8}... against Tanh"),
        (
            Difference(0, 0, OperatorChange((("Add", ""),) * 5, ()), inside=""),
            "in its body: Add, Add, Add and 2 more are missing in the candidate",
        ),
    ],
)
def test_a_difference_is_told_with_its_values(difference: Difference, detail: str) -> None:
    assert difference.detail == detail


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        ((), (1,), "value 2 against 3"),
        ((1,), (), "value 2 against 3"),
        ((1, 2), (2,), "2 of 2 weights differ, greatest 1 at [0,0], 2 against 3; all 1.5 times the reference's"),
        ((2, 1), (1, 1, 2), "2 of 2 weights differ, greatest 1 at [0,0], 2 against 3; all 1.5 times the reference's"),
    ],
)
def test_dimensions_of_one_hide_no_value(one, other, text):
    assert str(weight_change(np.full(one, 2, np.float32), np.full(other, 3, np.float32))) == text


def test_dimensions_of_one_are_no_change():
    assert weight_change(np.full((), 2, np.float32), np.full((1, 1), 2, np.float32)) is None


def test_other_shapes_are_told_as_shapes():
    assert str(weight_change(np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32))) == "shape 2x3 against 3x3"


@pytest.mark.parametrize(
    ("x", "y", "steps", "within"),
    [
        ([[0.14, 1.26], [0.26, -0.4]], [[0.1, 1.3], [0.3, -0.4]], [[0.1], [0.1]], True),
        ([[0.14, 1.9], [0.26, -0.4]], [[0.1, 1.3], [0.3, -0.4]], [[0.1], [0.1]], True),  # cut off at the end
        ([[0.34, 1.3], [0.26, -0.4]], [[0.1, 1.3], [0.3, -0.4]], [[0.1], [0.1]], False),
        ([0.14, -0.26], [0.1, -0.3], [0.1, 0.1], True),
        ([0.5, -0.7], [0.0, 0.0], [0.1, 0.1], False),  # channels of one value: no end is seen
        ([0.5, -0.7], [0.2, -0.3], [0.1, 0.1], False),
        ([0.5, -0.7], [0.0, 0.0], [0.1], False),
        ([0.04, -0.04], [0.0, 0.0], [0.1], True),
    ],
)
def test_what_is_stored_within_half_a_step(x, y, steps, within):
    assert within_steps(*(np.array(a, np.float64) for a in (x, y, steps))) == within


def test_a_slice_whose_start_is_computed_has_steps_of_one_where_it_gives_none() -> None:
    text = """g (float[4,6] x, int64[1] s) => (float[n,6] y) {{ y = Slice(x, s, ends, axes{0}) }}"""
    given = {"ends": np.array([3]), "axes": np.array([0])}
    mine = GraphIndex(parsed(text.format(""), **given))
    theirs = GraphIndex(parsed(text.format(", steps"), **given, steps=np.array([1])))
    assert match(mine, theirs).differences == ()
    backwards = GraphIndex(parsed(text.format(", steps"), **given, steps=np.array([-1])))
    assert [str(d) for d in match(mine, backwards).differences]
