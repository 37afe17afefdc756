"""Layout: the same values in other places, or channels in another order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layerdiff.compare.causes import permutation

from support.layer_cases import layer_case, told
from support.models import parsed

RNG = np.random.default_rng(0)
Y = RNG.standard_normal((8, 8)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 16, 4, 4)).astype(np.float32)
NOISE = 1e-4 * RNG.standard_normal(IMAGE.shape).astype(np.float32)
ORDER = np.roll(np.arange(16), 3)


@pytest.mark.parametrize("c", [Y.T, Y[::-1], Y[:, ::-1].copy()], ids=["transposed", "upside down", "mirrored"])
def test_the_same_values_in_other_places(c):
    found = permutation.find(layer_case(Y, c))
    assert found.cause == "layout"
    at = found.facts[0].first.at
    assert told(found) == (
        f"the same values in other places, first at [{at[0]}, {at[1]}]: {Y[at]:.6g} against {c[at]:.6g}"
    )


def test_channels_in_another_order_may_have_other_noise():
    found = permutation.find(layer_case(IMAGE, IMAGE[:, ORDER] + NOISE))
    assert told(found) == "the channels of axis 1 stand in another order: 16 of 16 moved, e.g. 13 to 0"
    assert (found.facts[0].axis, found.facts[0].count, found.facts[0].example) == (1, 16, (13, 0))


@pytest.mark.parametrize(("expected", "same"), [(1e-4, True), (1e-6, False), (None, True)])
def test_values_are_the_same_to_within_what_rounding_explains(expected, same):
    case = layer_case(IMAGE, IMAGE[:, ORDER] + NOISE)
    case = replace(case, judgement=replace(case.judgement, expected=expected))
    assert (permutation.find(case) is not None) == same


def test_few_channels_are_told_element_by_element():
    found = permutation.find(layer_case(IMAGE[:, :8], IMAGE[:, 7::-1] + NOISE[:, :8]))
    assert told(found).startswith("the same values in other places, first at [0, 0, 0, 0]: ")


@pytest.mark.parametrize(
    ("what", "y", "c"),
    [
        ("scaled", Y, 2 * Y),
        ("one number", Y[:1, 0], Y[:1, 1]),
        ("other values", Y, RNG.standard_normal((8, 8)).astype(np.float32)),
        ("channels that are copies", IMAGE, np.repeat(IMAGE[:, :1], 16, axis=1)),
    ],
)
def test_other_errors_are_no_other_layout(what, y, c):
    assert permutation.find(layer_case(y, c)) is None


def test_the_transpose_that_moves_values_otherwise_is_named():
    graphs = [
        parsed(f"g (float[2,3,3] x) => (float[2,9] y) {{ t = Transpose<perm = {p}>(x) y = Flatten(t) }}")
        for p in ("[0, 1, 2]", "[0, 2, 1]")
    ]
    x = RNG.standard_normal((2, 3, 3)).astype(np.float32)
    found = permutation.find(
        layer_case(x.reshape(2, 9), x.swapaxes(1, 2).reshape(2, 9), model=graphs[0], candidate=graphs[1])
    )
    assert (found.cause, found.node) == ("layout", 0)
    assert told(found).startswith("perm [0, 1, 2] against [0, 2, 1]; ")
