"""The user's tolerance is NumPy's sum, and what an output's own last rounding explains is asked about no further."""

import math

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.outputs.tolerance import EXACT, Tolerance, finer, last_place, user
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.errors import UsageError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("rtol", "atol"), [(0, 0), (1e-3, 0), (0, 1e-3), (1e-2, 1e-5), (0.5, 2)])
def test_the_users_tolerance_is_numpys_sum(rtol, atol):
    """Tolerances add up: what numpy.allclose accepts passes."""
    reference = RNG.standard_normal(4000)
    candidate = reference + RNG.standard_normal(4000) * (atol + rtol * np.abs(reference))
    expected = int((~np.isclose(candidate, reference, rtol, atol)).sum())
    for full in (True, False):
        assert Statistics(full).update(reference, candidate, user(rtol, atol)).mismatched == expected


def test_abs_or_rel_alone_would_fail_what_the_sum_passes():
    reference = np.array([1.0])
    candidate = np.array([1.0015])
    assert Statistics().update(reference, candidate, user(1e-3, 1e-3)).agree
    assert not Statistics().update(reference, candidate, user(1e-3, 0)).agree
    assert not Statistics().update(reference, candidate, user(0, 1e-3)).agree


def test_both_numbers_or_neither():
    assert user(None, None) is None
    for pair in ((1e-3, None), (None, 1e-3), (-1, 0), (0, math.nan)):
        with pytest.raises(UsageError):
            user(*pair)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.complex64], ids=str)
def test_a_unit_in_the_last_place_is_an_outputs_own_rounding(dtype):
    eps = {"bfloat16": 2.0**-7, "complex64": 2.0**-23}.get(np.dtype(dtype).name) or float(np.finfo(dtype).eps)
    assert last_place(np.dtype(dtype)).rtol == pytest.approx(eps)


@pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn], ids=str)
def test_of_two_types_the_finer_ones_rounding_counts(narrow):
    one, other = np.dtype(narrow), np.dtype(np.float32)
    assert finer(one, other) == finer(other, one) == other


def test_in_eight_bits_no_difference_is_small():
    assert last_place(np.dtype(ml_dtypes.float8_e4m3fn)).exact


def test_how_it_reads():
    assert (str(EXACT), str(Tolerance(1e-3, 1e-5))) == ("exact", "1e-05 + 0.001 |r|")
