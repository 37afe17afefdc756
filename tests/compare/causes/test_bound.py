"""The hard bound is broken: no rounding does that."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layerdiff.compare.causes import bound
from layerdiff.compare.causes.expected_noise import Expected
from layerdiff.graph.formats import FP32
from layerdiff.graph.pairing.changes import AttributeChange
from layerdiff.graph.pairing.differences import Difference
from layerdiff.graph.rounding.roundoff import ErrorBound, roundoff_model

from support.layer_cases import layer_case, told
from support.models import parsed

Y = np.ones((2, 4), np.float32)
OFF = Y.copy()
OFF[1, 2] = 1.5
PROVEN = roundoff_model(FP32, FP32)
PRODUCT = parsed("g (float[2,4] x) => (float[2,4] y) { y = MatMul(x, w) }", w=np.ones((4, 4), np.float32))


def expected(precision=PROVEN) -> Expected:
    """A bound of about a millionth of the result."""
    return Expected(forms={"y": ErrorBound("size", 1e-6, None, 4)}, made={"size": Y}, precision=precision)


def find(**more):
    return bound.find(layer_case(Y, OFF, **{"bound_use": 5e5, "expected": expected(), **more}))


def test_the_worst_element_is_told_with_its_bound():
    found = find()
    assert found.cause == "wrong-op"
    assert told(found).startswith(
        "no rounding does this: 1 in the reference, 1.5 in the candidate at [1, 2], a difference of 0.5 where rounding "
        "explains "
    )
    assert told(found).endswith("at most; 1 of 8 values are beyond that")
    fact = found.facts[0]
    assert (fact.worst.at, fact.difference, fact.count, fact.proven) == ((1, 2), 0.5, 1, True)
    assert 1e-6 < fact.bound < 1e-5


@pytest.mark.parametrize(("use", "found"), [(2.0, False), (15.9, False), (16.1, True)])
def test_where_it_is_not_proven_it_is_evidence_from_sixteen_times_on(use, found):
    unproven = expected(dataclasses.replace(PROVEN, proven=False))
    result = find(expected=unproven, bound_use=use)
    assert (result is not None) == found
    assert result is None or "Winograd" in told(result)


@pytest.mark.parametrize(
    "more",
    [
        {"bound_use": 0.9},
        {"bound_use": None},
        {"expected": Expected()},
        {"differences": (Difference(0, 0, AttributeChange("axis", 0, 1), "axis"),)},
        {"candidate": parsed("g (float[2,4] x) => (float[2,4] y) { y = Tanh(x) }")},
    ],
    ids=["kept", "unknown", "nothing known", "the graphs differ", "other operators"],
)
def test_otherwise_it_says_nothing(more):
    assert find(**more) is None


def test_sums_that_are_narrower_than_they_are_said_to_be_may_break_it():
    """Of the size of FP16's sums, and within what they may do."""
    more = {"model": PRODUCT, "rms_z": 6000.0, "relative": 1e-3, "bound_use": 300.0}
    near = Y + np.float32(1e-3)
    assert bound.find(layer_case(Y, near, expected=expected(), **more)) is None
    assert bound.find(layer_case(Y, OFF, expected=expected(), **more)) is not None
