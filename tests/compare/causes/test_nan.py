"""Finite on one side only, or a number on neither."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import nan

from support.layer_cases import layer_case, told
from support.layerwise import compare, only
from support.models import normal, parsed

Y = np.array([1, 2, 3, 4], np.float32)


@pytest.mark.parametrize(
    ("places", "value", "text"),
    [
        ([2], np.nan, "1 of 4 values are finite on one side only, first at [2]: 3 against nan"),
        ([1, 3], np.inf, "2 of 4 values are finite on one side only, first at [1]: 2 against inf"),
    ],
)
def test_the_first_element_is_told_with_both_values(places, value, text):
    c = Y.copy()
    c[places] = value
    found = nan.find(layer_case(Y, c, reason="finite"))
    assert (found.cause, told(found)) == ("nan", text)


def test_infinite_on_one_side_and_no_number_on_the_other():
    found = nan.find(layer_case(np.array([np.inf, 1]), np.array([np.nan, 1]), reason="finite"))
    assert told(found) == "1 of 2 values are infinite on one side and NaN on the other, first at [0]: inf against nan"


def test_infinities_of_opposite_signs():
    found = nan.find(layer_case(np.array([1, -np.inf]), np.array([1, np.inf]), reason="finite"))
    assert told(found) == "1 of 2 values are infinite on both sides with opposite signs, first at [1]: -inf against inf"


def test_what_is_finite_is_no_case_of_it():
    assert nan.find(layer_case(Y, Y + 1, reason="noise")) is None


def test_nan_on_both_sides_is_counted_on_both():
    found = nan.on_both_sides("log", 1234, 5)
    assert found.cause == "nan"
    assert told(found) == "1,234 values of 'log' are NaN in the reference itself, 5 in the candidate"


@pytest.mark.parametrize("nan", ["made inside", "in the input"])
def test_a_fault_beside_nan_that_counts_as_equal_is_one_of_the_deployed_outputs(nan):
    made = "l = Log(a)" if nan == "made inside" else "l = Identity(a)"
    data = [{"x": normal(4, 8, seed=i)} for i in range(2)]
    if nan == "in the input":
        data[0]["x"][0, 0] = np.nan
    mine, theirs = (
        parsed(
            f"g (float[4,8] x) => (float[4,8] y) {{ a = MatMul(x, w) {made} [scale] y = Mul(l, k) }}",
            w=normal(8, 8),
            k=np.float32(k),
        )
        for k in (1, 1.5)
    )
    report = compare(mine, theirs, data, nan_equal=True)
    culprit = only(report)
    assert (culprit.node, culprit.cause, culprit.deployed) == ("scale", "scale", None)
    assert culprit.evidence == "value 1 against 1.5"
    assert culprit.local["rel_l2"] == pytest.approx(0.5, abs=1e-6)
