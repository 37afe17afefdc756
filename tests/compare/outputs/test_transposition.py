"""A transposed candidate is recognized, and nothing else is called transposed."""

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.outputs.transposition import transposition

RNG = np.random.default_rng(0)


def values(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def smooth(*shape):
    """Neighbours resemble each other, as in pictures and feature maps."""
    x = values(*shape)
    for axis in range(1, len(shape)):
        for _ in range(3):
            x = x + np.roll(x, 1, axis)
    return x


# shape of the reference, the order in which the candidate holds its axes
CASES = [
    ((3, 5), (1, 0)),
    ((6, 6), (1, 0)),
    ((1, 3, 8, 9), (0, 2, 3, 1)),
    ((2, 3, 8, 8), (0, 2, 3, 1)),
    ((2, 8, 8, 3), (0, 3, 1, 2)),
    ((4, 4, 4, 4), (0, 2, 3, 1)),
    ((2, 8, 8, 3), (0, 2, 1, 3)),
    ((2, 3, 4, 5, 6), (0, 4, 1, 2, 3)),
    ((1, 32, 64, 64), (0, 2, 3, 1)),
]


@pytest.mark.parametrize(("shape", "order"), CASES)
@pytest.mark.parametrize("noise", [0, 1e-3])
@pytest.mark.parametrize("make", [values, smooth])
def test_a_transposed_candidate_is_recognized(shape, order, noise, make):
    reference = make(*shape)
    candidate = reference.transpose(order)
    candidate = candidate + np.float32(noise * reference.std()) * values(*candidate.shape)
    axes = transposition(reference, candidate)
    assert axes is not None
    assert axes == tuple(np.argsort(order))
    assert np.abs(candidate.transpose(axes) - reference).max() <= 10 * noise * reference.std()


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8", "complex64", ml_dtypes.bfloat16])
def test_every_numeric_dtype(dtype):
    reference = np.abs(values(2, 6, 6, 3) * 50).astype(dtype)
    assert transposition(reference, reference.transpose(0, 3, 1, 2)) == (0, 2, 3, 1)


def test_nan_and_infinities_move_along():
    reference = values(4, 5, 6)
    reference[1, 2, 3], reference[0, 0, 0] = np.nan, np.inf
    assert transposition(reference, reference.transpose(2, 0, 1)) == (1, 2, 0)


SQUARE = values(6, 6)
REFUSED = {
    "the same": (SQUARE, SQUARE),
    "the same with noise": (SQUARE, SQUARE + 1e-3 * values(6, 6)),
    "unrelated": (SQUARE, values(6, 6)),
    "unrelated, another shape": (values(3, 5), values(5, 3)),
    "constant": (np.full((4, 5), 2.0), np.full((5, 4), 2.0)),
    "nearly constant": (1e3 + 1e-6 * values(4, 5), 1e3 + 1e-6 * values(5, 4)),
    "zeros": (np.zeros((4, 5)), np.zeros((5, 4))),
    "symmetric": (SQUARE + SQUARE.T, SQUARE + SQUARE.T),
    "symmetric with noise": (SQUARE + SQUARE.T, SQUARE + SQUARE.T + 1e-3 * values(6, 6)),
    "two orders fit": (np.stack([SQUARE + SQUARE.T] * 2), np.stack([SQUARE + SQUARE.T] * 2, -1)),
    "reshaped, not transposed": (np.arange(15.0).reshape(3, 5), np.arange(15.0).reshape(5, 3)),
    "axes of length 1": (values(1, 8, 1), values(8, 1, 1)),
    "a vector": (values(8), values(8)[::-1]),
    "other sizes": (values(3, 4), values(3, 5)),
    "other rank": (values(3, 4), values(4, 3, 1)),
    "strings": (np.array([["a", "b"], ["c", "d"]], object), np.array([["a", "c"], ["b", "d"]], object)),
    "empty": (np.zeros((0, 3)), np.zeros((3, 0))),
    "all NaN": (np.full((2, 3), np.nan), np.full((3, 2), np.nan)),
    "one infinity": (np.array([[np.inf, 0], [0, 0]]), np.array([[0, 0], [0, np.inf]])),
    "shifted": (SQUARE, np.roll(SQUARE, 1, 0)),
    "scaled": (SQUARE, 2 * SQUARE.T),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_else_is_called_transposed(name):
    assert transposition(*REFUSED[name]) is None


def test_axes_of_length_one():
    reference = values(1, 3, 8)
    assert transposition(reference, reference.transpose(0, 2, 1)) == (0, 2, 1)
    pooled = values(1, 64, 1, 1)
    assert transposition(pooled, pooled.transpose(0, 2, 3, 1)) == (0, 3, 2, 1)  # as good as (0, 3, 1, 2)
    assert transposition(pooled, values(1, 1, 1, 64)) is None
