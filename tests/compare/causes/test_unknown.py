"""None of the causes: what exceeds the noise, and where."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import unknown

from support.layer_cases import layer_case, told

Y = np.array([[1, 2], [3, 4]], np.float32)
OFF = Y + np.float32([[0, 0], [0.5, 0]])


@pytest.mark.parametrize(
    ("judgement", "text"),
    [
        ({"rms_z": 1234.5}, "1.23e+03 times the expected noise; greatest difference 0.5 at [1, 0]: 3 in the reference, "
                            "3.5 in the candidate"),
        ({"rms_z": None}, "greatest difference 0.5 at [1, 0]: 3 in the reference, 3.5 in the candidate"),
        ({"reason": "gain", "gain": 3e-4, "gain_sigma": 13.7}, "all channels are larger by 0.030%, 14 standard errors"),
    ],
)  # fmt: skip
def test_the_test_that_failed_is_told_with_its_numbers(judgement, text):
    found = unknown.find(layer_case(Y, OFF, **judgement))
    assert (found.cause, told(found)) == ("unknown", text)


def test_what_is_no_number_differs_most():
    found = unknown.find(layer_case(Y, np.float32([[1, 9], [np.nan, 4]]), rms_z=None))
    assert found.facts[0].element.at == (1, 0)
    assert found.facts[0].difference == np.inf
