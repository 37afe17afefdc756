"""What perturbed weights leave in a result at least, and what is left out beside it."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.graph.formats import FP16
from layerdiff.graph.model import Model
from layerdiff.graph.rounding import noise_probe, random_rounding
from layerdiff.graph.rounding.least_noise import least_noise
from layerdiff.graph.rounding.noise_pool import Pools
from layerdiff.graph.rounding.random_rounding import randomized
from layerdiff.graph.rounding.rounding_sides import Roundoff
from layerdiff.graph.rounding.roundings import together
from onnx import helper

from support.models import infer, normal, parsed

SIZE, DRAWS = 1e-3, 400
X, W, B = normal(6, 50), normal(50, 7, seed=1), normal(7, seed=2)


def noise(made) -> np.ndarray:
    """Standard deviation of each element over draws of what ``made`` makes of weights that are perturbed."""
    rng = np.random.default_rng(0)
    moved = [made(lambda w: w * (1 + SIZE * rng.standard_normal(w.shape))) for _ in range(DRAWS)]
    return np.std(moved, axis=0)


@pytest.mark.parametrize(
    ("op", "inputs", "perturbed", "before", "made"),
    [
        ("MatMul", 2, {1: SIZE}, 0.0, lambda p: X @ p(W)),
        ("Gemm", 3, {1: SIZE, 2: SIZE}, 0.0, lambda p: X @ p(W) + p(B)),
        ("BatchNormalization", 5, {1: SIZE, 2: SIZE, 3: SIZE}, 0.0, lambda p: (X[:, :7] - p(B)) * p(W[0]) + p(W[1])),
        ("Mul", 2, {1: SIZE}, 0.0, lambda p: X[:, :7] * p(B)),
        ("Add", 2, {0: SIZE}, SIZE / 50**0.5, lambda p: p(100 * B) + X @ p(W)),
    ],
)
def test_noise_is_no_less_than_that(op, inputs, perturbed, before, made):
    node = helper.make_node(op, [f"i{n}" for n in range(inputs)], ["y"])
    least = least_noise(node, perturbed, 50, before)
    assert least > 0
    assert (noise(made) > 0.85 * least * np.abs(made(lambda w: w))).all()  # of 400 draws, a deviation is that sure


@pytest.mark.parametrize(
    ("op", "inputs", "perturbed"),
    [("Gemm", 3, {1: SIZE}), ("BatchNormalization", 5, {1: SIZE}), ("Add", 2, {1: SIZE}), ("Sub", 2, {1: SIZE}),
     ("Conv", 2, {})],
)  # fmt: skip
def test_where_something_exact_may_be_most_of_a_result_nothing_is_known(op, inputs, perturbed):
    node = helper.make_node(op, [f"i{n}" for n in range(inputs)], ["y"])
    assert least_noise(node, perturbed, 50) == 0


def test_roundings_come_together_unless_one_is_negligible():
    assert together(3.0, 4.0) == 5.0
    assert together(1.0, 0.05) == together(0.05, 1.0) == 1.0
    assert together(0.0, 0.0) == 0.0


NETWORK = Model(
    parsed(
        """g (float[N, 50] x) => (float[N, 50] y) {
            [a] a = MatMul(x, w) [b] b = Add(a, k) [c] c = Relu(b)
            [d] d = MatMul(c, w) [e] e = Add(d, k) [y] y = Add(e, x)
        }""",
        w=normal(50, 50, seed=3) / 7,
        k=normal(50, seed=4),
    )
)


def rms_of_draws() -> tuple[float, int]:
    network, feed = randomized(NETWORK, Roundoff(candidate=FP16)), {"x": normal(64, 50)}
    pools = Pools(network.scales, 1 << 12)
    exact = infer(OnnxrtRunner(), network.model, network.feed(feed, pools.neutral()))["y"]
    drawn = [infer(OnnxrtRunner(), network.model, network.feed(feed, pools.draw(n)))["y"] - exact for n in range(8)]
    return float(np.sqrt(np.mean(np.square(drawn)))), network.sites


def test_what_is_left_out_of_a_network_does_not_show(monkeypatch):
    found, sites = rms_of_draws()
    for module in (random_rounding, noise_probe):
        monkeypatch.setattr(module, "NEGLIGIBLE", 0.0)
    whole, all_sites = rms_of_draws()
    assert sites < all_sites
    assert found == pytest.approx(whole, rel=0.05)
