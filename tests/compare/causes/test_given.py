"""A layer that is given what the candidate's format cannot hold is not to blame: who made it is."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import given
from layerdiff.graph.formats import BF16, E4M3, FP16, FP32, INT8, TF32

from support.layer_cases import layer_case, told
from support.models import parsed

Y = np.ones(4, np.float32)
LARGE, TINY = np.array([1, 2, 7e4], np.float32), np.full(4, 1e-7, np.float32)


def find(x, arithmetic=FP16):
    return given.find(layer_case(Y, Y, tensors={"x": x}, arithmetic=arithmetic))


@pytest.mark.parametrize(
    ("x", "cause", "text"),
    [
        (LARGE, "overflow", "'x': 1 of 3 values are above FP16's greatest, 65504: 70000 at [2]"),
        (
            TINY,
            "underflow",
            "'x': 4 of 4 values are below FP16's smallest normal, 6.1e-05, 0 of them become zero",
        ),
    ],
)
def test_the_tensor_is_named(x, cause, text):
    found = find(x)
    assert (found.cause, found.producer, found.node) == (cause, "x", None)
    assert told(found).startswith(text)


@pytest.mark.parametrize("arithmetic", [FP32, BF16, TF32, INT8], ids=str)
def test_a_format_that_holds_it_blames_nobody(arithmetic):
    assert find(LARGE, arithmetic) is None


def test_scaled_formats_of_8_bits_have_a_range_too():
    assert find(LARGE, E4M3).cause == "overflow"


DIVIDED = parsed("g (float[4] c) => (float[4] y) { y = Reciprocal(c) }")
SMALL = np.array([1, 1e-12, 1, 1e-12], np.float32)


def broken(name, array, model, c, **more):
    return given.find(
        layer_case(Y, np.asarray(c, np.float32), model=model, tensors={name: array}, reason="finite", **more)
    )


def test_a_number_that_becomes_zero_under_a_division_is_named():
    found = broken("c", SMALL, DIVIDED, [1, np.inf, 1, np.inf], narrow=FP16, arithmetic=FP32)
    assert (found.cause, found.producer) == ("underflow", "c")
    assert "1e-12" in told(found)
    assert "6e-08" in told(found)


@pytest.mark.parametrize(
    ("c", "more"),
    [([1, np.inf, 1, 1], {"narrow": BF16}), ([1, 2, 1, 1], {"narrow": None}), ([1, np.inf, 1, 1], {"narrow": None})],
    ids=["a format with small numbers", "finite", "no narrow format"],
)
def test_what_has_a_number_there_is_not(c, more):
    assert broken("c", SMALL, DIVIDED, c, arithmetic=FP32, **more) is None
