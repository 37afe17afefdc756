"""Is a layer's local error more than rounding? One output against its expected noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from layerdiff.compare.causes.judgement import CHANNELS, channel_axis, judge, worst_entry
from layerdiff.graph.formats import FP16, FP32
from layerdiff.graph.rounding.roundings import roundings

from support import networks

NETWORKS = {f.__name__: f for f in networks.FEEDS}
HALF, SINGLE = roundings(FP32, FP16), roundings(FP32, FP32)
RNG = np.random.default_rng(0)
Y = RNG.standard_normal((32, 64)).astype(np.float32)
NOISE = (HALF.gain * HALF.operand * Y * RNG.standard_normal(Y.shape)).astype(np.float32)
ERROR = (HALF.operand * Y * RNG.standard_normal(Y.shape)).astype(np.float32)


# ---- judging one layer ----------------------------------------------------------------------------------------------


def changed(index, value) -> np.ndarray:
    y = (Y + ERROR).astype(np.float32)
    y[index] = value
    return y


@pytest.mark.parametrize(
    ("what", "candidate", "reason"),
    [
        ("equal", Y, None),
        ("rounded", Y + ERROR, None),
        ("three times the noise", Y + 3 * ERROR, None),
        ("nine times the noise", Y + 9 * ERROR, "noise"),
        ("one NaN", changed((3, 4), np.nan), "finite"),
        ("one infinity", changed((3, 4), np.inf), "finite"),
        ("one row is off", changed(4, 1.005 * Y[4]), "slice"),
        ("what is small is off", np.where(np.abs(Y) < 0.1, 1.02 * Y, Y + ERROR), "slice"),
        ("all larger by 0.1 %", Y + ERROR + 1e-3 * Y, "gain"),
        ("another shape", Y[:16], "shape"),
        ("transposed", Y.T, "shape"),
    ],
)
def test_a_layer_is_beyond_its_noise_for_a_reason(what, candidate, reason):
    verdict = judge(Y, candidate.astype(np.float32), NOISE, HALF, sample=3)
    assert verdict.reason == reason
    assert verdict.exceeds_noise == (reason is not None)
    assert verdict.sample == 3


def test_the_same_infinities_and_nans_on_both_sides_are_equal():
    y, c = Y.copy(), (Y + ERROR).astype(np.float32)
    y[0, :3] = c[0, :3] = [np.inf, -np.inf, np.nan]
    assert not judge(y, c, NOISE, HALF).exceeds_noise
    c[0, 1] = np.inf
    assert judge(y, c, NOISE, HALF).reason == "finite"


def test_what_a_relu_cut_off_may_be_lifted_over_zero_by_rounding_but_not_by_more():
    y = np.maximum(RNG.standard_normal((4, 8, 16, 16)), 0).astype(np.float32)
    y[:, 3] = 0  # a dead channel: no noise is expected there
    noise = (HALF.gain * HALF.operand * y * RNG.standard_normal(y.shape)).astype(np.float32)
    for lifted, beyond in ((2 * HALF.operand, False), (0.05, True)):
        c = y.copy()
        c[:, 3, 8, 8] = lifted
        assert judge(y, c, noise, HALF).exceeds_noise == beyond


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_verdict_does_not_depend_on_the_scale_between_fp32_runtimes(scale):
    y = Y.astype(np.float64) * scale
    noise = SINGLE.gain * SINGLE.inner * y * np.random.default_rng(1).standard_normal(y.shape)
    error = SINGLE.inner * y * np.random.default_rng(2).standard_normal(y.shape)
    y32 = y.astype(np.float32)
    assert not judge(y32, (y + error).astype(np.float32), noise.astype(np.float32), SINGLE).exceeds_noise
    assert judge(y32, (y + 30 * error).astype(np.float32), noise.astype(np.float32), SINGLE).exceeds_noise


def test_subnormals_of_the_format_are_no_error():
    y = (1e-7 * Y).astype(np.float32)
    rounded = y.astype(np.float16).astype(np.float32)
    assert not judge(y, rounded, 1e-7 * NOISE, HALF).exceeds_noise


@pytest.mark.parametrize(
    ("reference", "candidate", "beyond"),
    [
        (np.arange(4000), np.arange(4000), False),
        (np.arange(4000), np.where(np.arange(4000) == 7, 8, np.arange(4000)), True),
        (np.arange(4000) > 9, np.arange(4000) > 10, True),
        (np.zeros(4000, np.int8), np.eye(1, 4000, 7, dtype=np.int8)[0], False),  # a quantizer at the border of a step
        (np.zeros(4000, np.int8), 2 * np.eye(1, 4000, 7, dtype=np.int8)[0], True),
        (np.zeros(4000, np.int8), np.ones(4000, np.int8), True),
    ],
)
def test_integers_are_equal_but_for_a_quantizers_rounding(reference, candidate, beyond):
    verdict = judge(reference, candidate, None, SINGLE)
    assert verdict.exceeds_noise == beyond
    assert verdict.reason == ("integer" if beyond else None)
    assert math.isinf(verdict.excess) == beyond


def test_without_known_noise_only_what_is_plainly_wrong_is_beyond():
    assert not judge(Y, 3 * Y, None, HALF, known=False).exceeds_noise
    assert judge(Y, 3 * Y, None, HALF, known=False).relative == pytest.approx(2)
    assert judge(Y, changed((0, 0), np.nan), None, HALF, known=False).exceeds_noise
    assert judge(Y, Y[:1], None, HALF, known=False).exceeds_noise


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((2, 16, 4, 4), 1),
        ((2, 8, 4, 4), None),
        ((8, 32), 1),
        ((8, 9, 32), 2),
        ((8, 9), None),
        ((32,), None),
        ((), None),
    ],
)
def test_channels_are_where_the_weights_belong(shape, axis):
    assert channel_axis(shape) == axis


@pytest.mark.parametrize(("distinct", "reason"), [(64, "gain"), (CHANNELS - 1, None), (1, None)])
def test_channels_of_the_same_values_are_rounded_alike_and_count_once(distinct: int, reason: str | None) -> None:
    """Networks with constant weights: one rounding that is seen in all channels."""
    y = np.random.default_rng(3).standard_normal((2, distinct, 8, 8)).astype(np.float32)
    y = np.take(y, np.arange(64) % distinct, axis=1)
    noise = (HALF.gain * HALF.operand * y).astype(np.float32)
    found = judge(y, y + noise / np.float32(HALF.gain), noise, HALF, sample=0)
    assert found.reason == reason


# ---- one entry in place of all --------------------------------------------------------------------------------------


def test_what_is_wrong_of_small_values_is_not_hidden_by_the_rounding_of_large_ones():
    y = np.stack([1000 * Y, Y, Y])
    rounded = y + np.stack([1000 * ERROR, ERROR, ERROR])
    assert worst_entry(y, rounded) == 0
    wrong = rounded.copy()
    wrong[2] *= 1.01
    assert worst_entry(y, wrong) == 2


def test_one_element_that_is_off_is_in_the_entry_that_is_judged():
    wrong = np.stack([Y, Y, Y])
    wrong[1, 3, 4] += 5
    assert worst_entry(np.stack([Y, Y, Y]), wrong) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_entry_that_is_not_finite_is_judged(value):
    wrong = np.stack([Y, Y, Y])
    wrong[1, 3, 4] = value
    assert worst_entry(np.stack([Y, Y, Y]), wrong) == 1


def test_an_entry_of_zeros_that_are_none_any_longer_is_judged():
    y = np.stack([1000 * Y, np.zeros_like(Y)])
    assert worst_entry(y, y + np.stack([1000 * ERROR, np.full_like(Y, 1e-6)])) == 1
