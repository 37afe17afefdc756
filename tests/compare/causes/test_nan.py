"""Finite on one side only, or a number on neither."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import nan

from support.layer_cases import layer_case, told

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
    assert told(found) == "1 of 2 values are finite on one side only, first at [0]: inf against nan"


def test_what_is_finite_is_no_case_of_it():
    assert nan.find(layer_case(Y, Y + 1, reason="noise")) is None


def test_nan_on_both_sides_is_counted_on_both():
    found = nan.on_both_sides("log", 1234, 5)
    assert found.cause == "nan"
    assert told(found) == "1,234 values of 'log' are NaN in the reference itself, 5 in the candidate"
