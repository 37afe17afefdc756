"""Overflow: not finite in the candidate, where the reference shows what its format cannot hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layerdiff.compare.causes import overflow
from layerdiff.graph.formats import BF16, FP16

from support.layer_cases import layer_case, told
from support.models import parsed

CHAIN = parsed("g (float[N] x) => (float[N] y) { a = Mul(x, x) b = Exp(a) y = Log(b) }")
WEIGHTED = parsed("g (float[N,16] x) => (float[N,16] y) { y = Mul(x, w) }", w=np.full(16, 1e6, np.float32))
LARGE = np.array([1, 7e4, 2, 8e4], np.float32)
BROKEN = np.array([1, np.inf, 2, np.inf], np.float32)


def find(y, c=BROKEN, narrow=FP16, **more):
    return overflow.find(layer_case(y, c, narrow=narrow, reason="finite", **more))


def test_values_of_the_output_above_the_formats_greatest():
    found = find(LARGE)
    assert found.cause == "overflow"
    assert told(found) == "2 of 4 values are above FP16's greatest, 65504: 80000 at [3]"
    assert (found.facts[0].count, found.facts[0].greatest, found.facts[0].format) == (2, 80000, FP16)


def test_a_place_is_one_of_the_whole_batch():
    found = find(LARGE.reshape(1, 4), BROKEN.reshape(1, 4), entry=5)
    assert found.facts[0].at == (5, 3)


def test_the_node_is_the_first_that_overflows_where_the_main_one_fits():
    inner = {"a": np.array([8.0], np.float32), "b": np.array([1e5], np.float32)}
    found = find(np.array([7e4], np.float32), np.array([np.inf], np.float32), model=CHAIN, tensors=inner)
    assert found.node is None  # the main node, which ends the chain, overflows itself
    inner["a"] = np.array([9e4], np.float32)
    assert told(find(np.ones(4, np.float32), model=CHAIN, tensors=inner)).startswith("inside, at Mul_0: 1 of 1 values")


def test_weights_are_named_with_the_node_that_reads_them():
    found = find(np.ones((2, 16), np.float32), np.full((2, 16), np.inf, np.float32), model=WEIGHTED)
    assert found.node == 0
    assert told(found).startswith("weights 'w': 16 of 16 values are above FP16's greatest, 65504: 1e+06")


@pytest.mark.parametrize(
    ("y", "more"),
    [
        (LARGE, {"narrow": None}),
        (LARGE, {"narrow": BF16}),
        (LARGE / 10, {}),
        (np.array([1, np.inf, 2, np.inf], np.float32), {}),
    ],
    ids=["no narrow format", "a wide range", "values that fit", "infinite in the reference itself"],
)
def test_what_the_format_can_hold_does_not_overflow(y, more):
    assert find(y, **more) is None


def test_finite_values_do_not_overflow():
    assert overflow.find(layer_case(LARGE, LARGE, narrow=FP16, reason="noise")) is None


RMS = parsed(
    "g (float[2,4] x) => (float[2,4] y) { q = Mul(x, x) m = ReduceMean<axes=[1]>(q) r = Sqrt(m) y = Div(x, r) }"
)
SQUARES = np.full((2, 4), 9e4, np.float32)


def test_an_overflow_inside_that_ends_in_zero_is_one():
    """One over infinity is zero: a normalization whose squares overflow."""
    y = np.ones((2, 4), np.float32)
    case = layer_case(y, np.zeros_like(y), model=RMS, narrow=FP16, tensors={"x": y * 300, "q": SQUARES})
    found = overflow.find(case)
    assert found.cause == "overflow"
    assert found.node == 0
    assert told(found).startswith("inside, at Mul_0: 8 of 8 values")


@pytest.mark.parametrize(
    ("c", "squares"), [(np.full((2, 4), 1.1), SQUARES), (np.zeros((2, 4)), SQUARES / 10)], ids=["no zeros", "they fit"]
)
def test_a_finite_error_of_another_kind_is_no_overflow(c, squares):
    case = layer_case(np.ones((2, 4), np.float32), c.astype(np.float32), model=RMS, narrow=FP16, tensors={"q": squares})
    assert overflow.find(case) is None


BIASED = parsed(
    "g (float[2,4] x) => (float[2,4] y) "
    "{ q = Mul(x, x) m = ReduceMean<axes=[1]>(q) r = Sqrt(m) d = Div(x, r) y = Add(d, b) }",
    b=np.array([0.1, -0.1, 0.2, -0.2], np.float32),
)  # fmt: skip


def biased(squares, c):
    """A normalization that ends in a bias, and that the candidate gives as ``c``."""
    x = 300 * np.array([[1, -1, 1, -1], [1, 1, -1, -1]], np.float32)
    b = np.array([0.1, -0.1, 0.2, -0.2], np.float32)

    def made_with(inner):
        return x / np.sqrt(inner["q"].mean(axis=1, keepdims=True)) + b

    case = layer_case(x / 300 + b, c(b), model=BIASED, narrow=FP16, tensors={"x": x, "q": squares})
    return overflow.find(replace(case, reweighted=made_with))


def test_an_overflow_inside_that_ends_in_the_bias_is_one():
    """Nothing is left of a normalization whose squares overflow but the bias behind it."""
    found = biased(SQUARES, lambda b: np.stack([b, b]))
    assert (found.cause, found.node) == ("overflow", 0)
    assert told(found).startswith("inside, at Mul_0: 8 of 8 values")


@pytest.mark.parametrize(
    ("squares", "c"),
    [(SQUARES / 10, lambda b: np.stack([b, b])), (SQUARES, lambda b: np.stack([b, b])[:, ::-1] + 3)],
    ids=["they fit", "infinity does not make it"],
)
def test_what_an_infinite_value_inside_does_not_make_is_no_overflow(squares, c):
    assert biased(squares, c) is None


def test_a_constant_that_a_target_clamps_is_no_overflow_inside():
    """A mask of -1e9, which stops at the end of the range."""
    model = parsed("g (float[2,4] x) => (float[2,4] y) { m = Constant<value_float=-1000000000.0>() y = Add(x, m) }")
    y = np.full((2, 4), -1e9, np.float32)
    case = layer_case(y, np.full_like(y, -65504), model=model, narrow=FP16, tensors={"x": y, "m": y[0, :1]})
    assert overflow.find(replace(case, reweighted=lambda inner: np.full_like(y, -65504))) is None
