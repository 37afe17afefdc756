"""A tensor that is the reference's in another order, or turned, and one that is only as long."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.layers.turning import turning

from support.models import normal

X = normal(2, 4, 16, 8)  # batch, heads, places, values
TURN = np.linalg.qr(normal(8, 8, seed=1))[0].astype(np.float32)
HEADS = [2, 0, 3, 1]


@pytest.mark.parametrize(
    "y",
    [X @ TURN, X[..., ::-1], X[:, HEADS], (X @ TURN)[:, HEADS], -X],
    ids=["turned", "in another order", "heads in another order", "both", "negative"],
)
def test_what_weights_behind_can_take_back_is_told(y):
    assert turning(X, y).along() < 1e-5


SIGNS = np.where(np.arange(8) % 3, 1, -1).astype(np.float32)


@pytest.mark.parametrize(
    ("y", "how"),
    [
        (X @ TURN, "turned"),
        (X[..., ::-1], "in another order"),
        (X[:, HEADS], "in another order"),
        (X * SIGNS, "with the other sign in some places"),
        ((X * SIGNS)[..., ::-1], "in another order and with the other sign in some places"),
        ((X @ TURN)[:, HEADS], "turned"),
    ],
)
def test_which_of_these_it_is_is_told(y, how):
    assert turning(X, y).how == how


def test_what_is_done_to_places_is_nothing_that_is_done_to_channels():
    x = normal(2, 6, 32)
    moved = turning(x, np.roll(x, 3, axis=2))
    assert moved.along() < 1e-5
    assert moved.along([(1,)]) > 0.1


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X, normal(2, 4, 16, 8, seed=3)),
        (X, X[::-1]),
        (normal(3, 8), normal(3, 8) @ TURN),
        (X, X[:1]),
        (np.ones((8, 8), np.float32), np.ones((8, 8), np.float32)),
    ],
    ids=["others", "batch in another order", "few rows", "another shape", "all the same"],
)
def test_what_they_cannot_is_not(x, y):
    assert turning(x, y).along() > 0.1
