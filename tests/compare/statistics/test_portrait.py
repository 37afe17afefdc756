"""Pictures of a tensor: plain values that add up, whatever its dtype and shape."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.statistics.portrait import CELLS, SAMPLED, close_up, distribution

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.uint64, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 3, 5, 7), (1, 1, 70000)])
def test_every_element_is_counted_once(dtype, shape):
    x = np.asarray(RNG.integers(0, 5, shape)).astype(dtype)
    found = distribution(x, x)
    assert found["shape"] == list(shape)
    for side in found["sides"].values():
        assert side["elements"] == side["not_finite"] + side["zero"] + sum(side["magnitudes"].values())
        assert side["elements"] <= SAMPLED
        assert (side["least"], side["greatest"]) == (float(x.min()), float(x.max()))
    json.dumps([found, close_up(x, x)], allow_nan=False)


def test_magnitudes_are_powers_of_two():
    x = np.array([0.0, -1.0, 1.5, 2.0, 0.25, np.inf, np.nan], np.float32)
    side = distribution(x, x)["sides"]["reference"]
    assert side["magnitudes"] == {"-2": 1, "0": 2, "1": 1}
    assert (side["zero"], side["not_finite"], side["negative"]) == (1, 2, 1)
    assert (side["least"], side["greatest"]) == (-1.0, 2.0)


@pytest.mark.parametrize("x", [np.array(["a"]), np.array([1j]), np.array([True]), np.zeros((0, 3), np.float32)])
def test_what_has_no_magnitude_has_no_picture(x):
    assert distribution(x, x) is None
    assert close_up(x, x) == {}


def test_a_close_up_shows_the_channel_and_the_place():
    x = np.ones((2, 4, 8, 8), np.float32)
    wrong = x.copy()
    wrong[1, 2, 5, 6] = 3.0
    found = close_up(x, wrong)
    assert (found["axis"], found["rows"], found["columns"]) == (1, 64, 8)
    assert [i for i, share in enumerate(found["channels"]) if share] == [2]
    heat = np.array(found["heatmap"])
    assert (heat.max(), heat.sum()) == (2.0, 2.0)
    assert max(heat.shape) <= CELLS


def test_what_is_not_finite_is_none():
    x = np.ones((2, 3), np.float32)
    wrong = np.array([[1, np.inf, 1], [1, 1, 1]], np.float32)
    found = close_up(x, wrong)
    assert found["channels"] == [0.0, None, 0.0]
    assert found["heatmap"] == [[0.0, None, 0.0], [0.0, 0.0, 0.0]]
