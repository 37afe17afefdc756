"""Integers that differ: the mistake that gives exactly these differences is named."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import integers

from support.layer_cases import layer_case, told
from support.layerwise import compare, only
from support.models import parsed

Y = np.array([-26, -3, 0, 7, 1 << 25, -(1 << 25) - 1], np.int64)


def find(y, c):
    return integers.find(layer_case(np.asarray(y), np.asarray(c), reason="integer"))


@pytest.mark.parametrize(
    ("name", "c", "cause", "says"),
    [
        ("truncated", Y + (Y % 5 != 0) * (Y < 0), "wrong-op", "rounded toward zero"),
        ("cut to 8 bits", Y.astype(np.int8).astype(np.int64), "overflow", "lowest 16 bits|lowest 8 bits"),
        ("in FP32", Y.astype(np.float32).astype(np.int64), "narrow-accumulator", "does not hold every integer"),
    ],
)
def test_the_mistake_is_named(name, c, cause, says):
    found = find(Y, c)
    assert found.cause == cause, name
    assert any(word in told(found) for word in says.split("|")), told(found)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_a_narrower_type_keeps_the_lowest_bits(bits):
    y = np.array([5, (1 << bits) + 3, -(1 << bits) - 9, 1 << (bits - 1)], np.int64)
    c = ((y + (1 << (bits - 1))) % (1 << bits)) - (1 << (bits - 1))
    assert f"lowest {bits} bits" in told(find(y, c))


@pytest.mark.parametrize(
    ("y", "c"),
    [
        (Y, Y),
        (Y, Y[::-1].copy()),
        (Y, Y + 2),
        (Y.astype(np.float32), Y.astype(np.float32) + 1),
        (np.array([True, False]), np.array([True, True])),
        (Y[:0], Y[:0]),
    ],
    ids=["equal", "in another order", "off by two", "floats", "truth values", "empty"],
)
def test_other_differences_are_not(y, c):
    assert find(y, c) is None


def test_integers_that_are_as_good_as_equal_are_not():
    def hashed(factor):
        text = "g (int64[2,12] x) => (int64[2,12] y) { [mul] h = Mul(x, factor) [mod] y = Mod(h, n) }"
        return parsed(text, factor=np.int64(factor), n=np.int64(97))

    data = [{"x": np.arange(24, dtype=np.int64).reshape(2, 12) * 1009 - 7}]
    culprit = only(compare(hashed(2654435761), hashed(2654435769), data))
    assert (culprit.node, culprit.cause) == ("mul", "weights")
    assert culprit.evidence == "value 2654435761 against 2654435769"
