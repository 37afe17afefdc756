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
    assert turning(X, y) < 1e-5


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
    assert turning(x, y) > 0.1
