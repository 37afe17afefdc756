"""An error is explained if it looks like the draws, and is not if it stands out of them anywhere."""

import numpy as np
import pytest
from layerdiff.compare.outputs.by_expectation import tips_over
from layerdiff.compare.outputs.evidence import Measured
from layerdiff.compare.outputs.expectation import CLEAR
from layerdiff.compare.outputs.explained import FLOORS, floors, hold, limits, moderated

SHAPE = (4, 32, 50)


def case(seed=0, draws=16, shape=SHAPE, tails=0):
    """A tensor, the error of a healthy candidate, draws of it and their deviation; ``tails``: of Student's t."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(shape)
    deviation = 1e-3 * np.exp(rng.standard_normal(shape) / 2)
    noise = rng.standard_t(tails, (draws + 1, *shape)) if tails else rng.standard_normal((draws + 1, *shape))
    noise *= deviation
    return y, noise[0], noise[1:], deviation


@pytest.mark.parametrize("draws", [4, 16])
@pytest.mark.parametrize("tails", [0, 5])
@pytest.mark.parametrize("shape", [SHAPE, (7,), (1, 1000), (3, 3), (200000,)], ids=str)
def test_a_healthy_error_is_explained(draws, tails, shape):
    for seed in range(8):
        y, error, noise, _ = case(seed, draws, shape, tails)
        assert hold(error, y, noise).use(limits(y, noise))[0] <= 1


def correlated(seed, draws=16):
    """Whole channels move together, by as much as they like."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((draws + 1, 1, 200, 1)) * np.ones((1, 4, 200, 50)) * 1e-3
    return rng.standard_normal((4, 200, 50)), noise[0], noise[1:]


def test_errors_that_move_together_are_explained_by_draws_that_do():
    for seed in range(10):
        y, error, noise = correlated(seed)
        assert hold(error, y, noise).use(limits(y, noise))[0] <= 1


def block(error, y, deviation):
    """64 neighbours off by five times their noise."""
    error = error.copy()
    error.reshape(-1)[640:704] += 5 * deviation.reshape(-1)[640:704]
    return error


FAULTS = {
    "one element": lambda e, y, s: e + 40 * s * (np.arange(y.size).reshape(y.shape) == 777),
    "64 neighbours": block,
    "a channel": lambda e, y, s: e + 6 * s * (np.arange(y.shape[1]) == 3)[:, None],
    "a sample": lambda e, y, s: e + 5 * s * (np.arange(len(y)) == 2)[:, None, None],
    "everything": lambda e, y, s: 4 * e,
    "small values": lambda e, y, s: e + 6 * s * (np.abs(y) < 0.1),
    "zeros where values are small": lambda e, y, s: np.where(np.abs(y) < 0.1, -y, e),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", range(4))
def test_what_stands_out_is_not_explained(name, seed):
    y, error, noise, deviation = case(seed)
    wrong = FAULTS[name](error, y, deviation)
    assert hold(wrong, y, noise).use(limits(y, noise))[0] > 1


def test_no_error_uses_nothing_and_an_error_without_noise_is_infinite():
    y, _, noise, _ = case()
    assert hold(np.zeros(SHAPE), y, noise).use(FLOORS)[0] == 0
    assert hold(np.full(SHAPE, 1e-9), y, np.zeros_like(noise)).use(FLOORS)[0] == np.inf


def test_what_is_large_does_not_excuse_what_is_small():
    """A timestamp beside features: each has its own noise."""
    y = np.array([1.7e9, *np.linspace(-1, 1, 19)])
    deviation = 1e-7 * np.abs(y) + 1e-9
    noise = np.random.default_rng(0).standard_normal((16, 20)) * deviation
    wrong = np.where(np.abs(y) > 2, 0.0, -y)
    assert hold(wrong, y, noise).use(limits(y, noise))[0] > 1e3


def test_limits_are_never_below_the_floors():
    y, _, noise, _ = case()
    assert all(value >= FLOORS[name] for name, value in limits(y, noise).items())


def test_variances_of_like_elements_are_pooled_and_of_unlike_ones_are_not():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((4, 5000))
    variance = np.square(draws).mean(axis=0)
    like = moderated(variance, np.ones(5000), 4)
    assert like.std() / like.mean() < 0.05
    sizes = np.exp(5 * rng.standard_normal(5000))
    unlike = moderated(variance * sizes, np.ones(5000), 4)
    assert np.median(np.abs(np.log(unlike / (variance * sizes)))) < 0.3


@pytest.mark.parametrize(("size", "rms"), [(0, 8.0), (1, 8.0), (16, 4.0), (51, 3.0), (10_000, 3.0)])
def test_the_root_mean_square_of_few_elements_may_scatter_as_they_do(size, rms):
    assert floors(size)["rms"] == pytest.approx(rms, abs=0.01)
    assert {n: v for n, v in floors(size).items() if n != "rms"} == {n: v for n, v in FLOORS.items() if n != "rms"}


def rectified(seed, slope=0.0, size=0.05):
    """A Relu of 600 elements, of which many are barely below zero."""
    rng = np.random.default_rng(seed)
    before = rng.standard_normal(600)
    before[:200] = -size * rng.uniform(1, 4, 200)
    noise = size * rng.standard_normal((3, 600)) / 2
    after = [np.where(x > 0, x, slope * x) for x in (before, *(before + noise))]
    return after[0], after[1] - after[0], np.stack([after[2] - after[0], after[3] - after[0]])


@pytest.mark.parametrize("slope", [0.0, 0.01])
def test_what_comes_out_barely_above_zero_in_no_draw_is_explained(slope):
    for seed in range(20):
        y, error, draws = rectified(seed, slope)
        assert hold(error, y, draws).use(limits(y, draws))[0] <= 1


def test_what_is_far_above_zero_or_in_many_places_is_not():
    y, error, draws = rectified(0)
    quiet = np.flatnonzero((y == 0) & ~draws.any(axis=0) & (error == 0))
    one, many = error.copy(), error.copy()
    one[quiet[0]] = 1.0
    many[quiet] = 0.03
    for broken in (one, many):
        assert hold(broken, y, draws).use(limits(y, draws))[0] > 1


# -- few draws of a batch

BATCH = (8, 25, 40)


def clear(error, y, noise) -> bool:
    """Whether few draws of a batch decide that an error is explained."""
    held = hold(error, y, noise, entries=True)
    return all(value <= CLEAR[name] * FLOORS[name] for name, value in held.statistics.items())


def test_one_draw_of_a_batch_explains_an_error_that_looks_like_it():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        places = 1e-3 * np.exp(rng.standard_normal(BATCH[1:]) / 10)
        noise = rng.standard_normal((2, *BATCH)) * places
        assert clear(noise[0], rng.standard_normal(BATCH), noise[1:])


@pytest.mark.parametrize("draws", [1, 2, 3])
@pytest.mark.parametrize("name", FAULTS)
def test_few_draws_of_a_batch_excuse_nothing(name, draws):
    for seed in range(5):
        y, error, noise, deviation = case(seed, draws, BATCH)
        assert not clear(FAULTS[name](error, y, deviation), y, noise)


def test_noise_of_large_elements_is_not_lent_to_small_ones_of_their_place():
    """Probabilities: what is large in one entry of a batch is small in the others."""
    rng = np.random.default_rng(0)
    y = np.exp(8 * rng.standard_normal(BATCH))
    noise = 1e-3 * y * rng.standard_normal((2, *BATCH))
    wrong = np.where(y < 1e-3, 30.0, 1.0) * noise[0]
    assert not clear(wrong, y, noise[1:])


def found(**changes):
    """A slice that errs 2.3 times as much as is explained, where rounding makes 12 % of error."""
    usual = {"use": 2.3, "statistic": "slice", "value": 57.0, "limit": 25.0, "expected": 0.12, "relative": 0.16}
    statistics = {"rms": 1.4, "slice": 57.0, "magnitude": 1.4, "element": 58.0}
    return Measured(**{**usual, "sample": 1, "index": (0,), "draws": 16, "statistics": statistics, **changes})


def test_a_slice_that_tips_over_in_a_format_that_is_far_too_coarse_is_no_proof():
    assert tips_over(found())
    assert tips_over(found(statistic="element"))
    assert not tips_over(found(expected=0.05))
    assert not tips_over(found(use=4.5))
    assert not tips_over(found(statistic="rms"))
    assert not tips_over(found(statistics={"rms": 3.1}))
    assert not tips_over(found(unexplained=1))
