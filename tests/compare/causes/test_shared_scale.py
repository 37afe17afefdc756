"""One scale over channels of very different size: which sets it, and how many are left with too few levels."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes.shared_scale import levels_of, shared_scale

from support.models import normal

STEP = np.asarray(1.0)


def channels(axis: int, sizes: list[float], *shape: int) -> np.ndarray:
    """Values of which the channels along an axis reach up to ``sizes``."""
    values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    values[:, :, 0] = 1.0
    return values * np.array(sizes, np.float32).reshape([-1 if i == axis else 1 for i in range(len(shape))])


@pytest.mark.parametrize("axis", [1, 2])
def test_the_axis_whose_channels_lose_most_is_told(axis):
    sizes = [3.0, 127.0, 1.0, 100.0]
    shape = (2, 4, 50) if axis == 1 else (2, 50, 4)
    found = shared_scale("h", channels(axis, sizes, *shape), STEP, 255)
    assert (found.axis, found.channel, found.channels, found.few) == (axis, 1, 4, 2)
    assert found.reach == pytest.approx(127, rel=0.05)


def test_scores_beside_boxes_are_left_with_nothing():
    boxes, scores = 640 * np.abs(normal(1, 4, 100)).clip(0, 1), np.abs(normal(1, 80, 100)).clip(0, 1)
    found = shared_scale("out", np.concatenate([boxes, scores], 1), np.asarray(640 / 255), 256)
    assert (found.axis, found.channels, found.few, found.none) == (1, 84, 80, 80)
    assert "'out' has one scale for 84 channels (axis 1)" in found.text


def test_an_outlier_is_told_with_what_a_percentile_would_give():
    values = normal(4, 8, 400)
    values[0, 3, 7] = 1000.0
    found = shared_scale("h", values, np.asarray(1000 / 127), 255)
    assert found.channel == 3
    assert found.few == 7
    assert 100 < found.sharper < 500
    assert "a range of 99.9 % of the values makes the step" in found.text


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        (0, "weights 'w' have one scale for 6 output channels: channel 3 sets the range, 10, and 2 others are left "
            "with fewer than 16 of 255 levels; a scale for each gives each of them all"),
        (1, "one scale for 6 input channels: channel 3 sets the range, 10, and 2 others are left with fewer than 16 of "
            "255 levels; level them before quantizing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scales", ["one", "each output"])
def test_weights_are_told_what_helps(axis, scales, says):
    sizes = np.array([1, 1, 1e-3, 1, 1e-3, 1], np.float32).reshape([-1 if i == axis else 1 for i in range(4)])
    weights = normal(6, 6, 3, 3).clip(-3, 3) * sizes
    weights[3, 3] = 10.0
    axes = None if scales == "one" else (1, 2, 3)
    step = np.abs(weights).max(axis=axes, keepdims=True) / 127
    if axes is not None and axis == 1:
        weights[:, 3] = 10.0
        step = np.abs(weights).max(axis=axes, keepdims=True) / 127
    found = shared_scale("w", weights, step, 255, weights=True, output_axis=0)
    if axes is not None and axis == 0:
        assert found is None
    else:
        assert says in found.text


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (channels(1, [100, 127, 90], 2, 3, 40), STEP),
        (channels(1, [3, 127, 90], 2, 3, 40), np.array([0.1, 1, 1]).reshape(1, 3, 1)),
        (channels(1, [0, 127, 90], 2, 3, 40), STEP),
        (np.ones(7, np.float32), STEP),
        (channels(1, [3, 127, 90], 2, 3, 40), np.asarray(0.0)),
    ],
    ids=["alike", "scales of their own", "dead", "a vector", "no step"],
)
def test_nothing_is_said_where_nothing_is_lost(values, step):
    assert shared_scale("h", values, step, 255) is None


@pytest.mark.parametrize(
    ("end", "block", "levels"), [(127, None, 255), (7, None, 15), (8, None, 16), (8, 4, 16)], ids=str
)
def test_levels_are_those_of_the_format_whatever_the_scales(end, block, levels):
    weights = normal(16, 16)
    if block is not None:
        weights[:block] *= 2
    step = np.abs(weights).max() / end if block is None else _blocks(weights, block, end)
    weights[0, :2] = end * np.broadcast_to(step, weights.shape)[0, :2] * [1, -1]
    assert levels_of(weights, np.asarray(step)) == levels


def _blocks(weights, size, end):
    """The steps of weights whose first axis has a scale for each block."""
    rows = np.abs(weights).reshape(-1, size, weights.shape[1]).max(axis=1)
    return np.repeat(rows, size, axis=0) / end


def test_blocks_of_channels_that_have_scales_of_their_own_share_none():
    weights = normal(32, 8).clip(-3, 3) * np.where(np.arange(32) < 16, 1, 1e-3)[:, None]
    assert shared_scale("w", weights, np.asarray(3 / 8), 16, weights=True, output_axis=1).few == 16
    assert shared_scale("w", weights, _blocks(weights, 16, 8), 16, weights=True, output_axis=1) is None


def test_few_levels_of_four_bits_are_fewer_than_of_eight():
    values = channels(1, [2.0, 7.0, 1.0], 2, 3, 50)
    found = shared_scale("h", values, STEP, 16)
    assert found.few == 1
    assert "1 other is left with fewer than 4 of 16 levels" in found.text
