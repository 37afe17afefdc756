"""The formula that decides where the expected error cannot be measured: t (|r| + scale)."""

import math

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.outputs.formula import SLICE, rule
from layerdiff.graph.formats import BF16, FP16, FP32, FP64, TF32
from layerdiff.graph.rounding.depth import Depth

F32 = np.dtype(np.float32)
RNG = np.random.default_rng(0)

# formats in play, dtype of the output, depth, terms, t
T = [
    ([FP32, FP32], "float32", 100, 0, 40 * 2.0**-24),
    ([FP32, FP16], "float32", 100, 0, 40 * 2.0**-11),
    ([FP16, FP32], "float32", 100, 0, 40 * 2.0**-11),
    ([FP32, TF32], "float32", 100, 0, 40 * 2.0**-11),
    ([FP32, BF16], "float32", 100, 0, 40 * 2.0**-8),
    ([FP32, FP32], "float32", 100, 2 * 96 * 100, 40 * math.sqrt(97) * 2.0**-24),
    ([FP64, FP64], "float64", 100, 0, 40 * 2.0**-53),
    ([FP32, FP64], "float64", 100, 0, 40 * 2.0**-24),
    ([FP32, FP32], "float32", 1, 0, 8 * 2.0**-24),
    ([FP32, FP32], "float16", 1, 0, 8 * 2.0**-11),
    ([FP32, FP32], "bfloat16", 1, 0, 8 * 2.0**-8),
    ([FP32], "complex64", 100, 0, 40 * 2.0**-24),
]


@pytest.mark.parametrize(("formats", "dtype", "layers", "terms", "t"), T)
def test_t(formats, dtype, layers, terms, t):
    made = rule(Depth(layers, terms), formats, np.dtype(getattr(ml_dtypes, dtype, None) or dtype))
    assert made.t == pytest.approx(t)


def test_an_element_is_allowed_its_own_size_and_that_of_its_smallest_slice():
    x = RNG.standard_normal((2, 3, SLICE, 5)).astype(np.float32)
    x[0] *= 1e-3
    made = rule(Depth(9), [FP32, FP16], F32)
    squares = np.square(x.astype(np.float64))
    slices = [math.sqrt(squares.mean())]  # an index of axis 2 has fewer than 64 elements
    slices += [np.sqrt(squares.mean(axis=tuple(a for a in range(4) if a != axis), keepdims=True)) for axis in (0, 1, 3)]
    expected = np.broadcast_to(math.inf, x.shape)
    for part in slices:
        expected = np.minimum(expected, part)
    assert made.allowed(x) == pytest.approx(made.t * (np.abs(x) + expected), rel=1e-6)


def test_values_that_are_not_finite_have_no_size():
    x = np.ones(200, np.float32)
    x[3], x[7] = math.inf, math.nan
    allowed = rule(Depth(1), [FP32], F32).allowed(x)
    assert np.isfinite(np.delete(allowed, [3, 7])).all()


@pytest.mark.parametrize("number_format", [FP32, FP16, BF16])
@pytest.mark.parametrize("last", [True, False])
def test_boxes_do_not_excuse_scores_that_became_zero(number_format, last):
    reference = np.concatenate([RNG.uniform(100, 600, (1, 500, 4)), RNG.beta(0.3, 3, (1, 500, 80))], -1)
    reference = np.ascontiguousarray(reference if last else reference.transpose(0, 2, 1), F32)
    candidate = reference.copy()
    candidate[(..., slice(4, None)) if last else (slice(None), slice(4, None))] = 0
    allowed = rule(Depth(60), [FP32, number_format], F32).allowed(reference)
    assert (np.abs(candidate - reference) > allowed).any()


def test_underflow_of_the_format_is_allowed():
    """A probability of 1e-9 is 0 in FP16."""
    reference = np.repeat(np.array([[1.0], [1e-9], [1e-12]], np.float32), 100, 1)
    error = np.abs(reference.astype(np.float16).astype(np.float64) - reference)
    assert (error <= rule(Depth(10), [FP32, FP16], F32).allowed(reference)).all()
    assert (error > rule(Depth(10), [FP32, FP32], F32).allowed(reference)).any()
