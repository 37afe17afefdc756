"""A bias of integers: at the ends of INT32, and with another scale than its operands together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layerdiff.compare.causes import bias

from support.layer_cases import layer_case, told
from support.models import normal, parsed

FLOATS = parsed("g (float[N, 4] x) => (float[N, 3] y) { y = Gemm(x, w, b) }", w=normal(4, 3), b=normal(3))
TEXT = """g (float[N, 4] x) => (float[N, 3] y) {
    xq = QuantizeLinear(x, xs, xz)  xf = DequantizeLinear(xq, xs, xz)
    wf = DequantizeLinear <axis=1> (w, ws)  bf = DequantizeLinear <axis=0> (b, bs)
    y = Gemm(xf, wf, bf) }"""
W = np.ones((4, 3), np.int8)


def found(integers, scale, weight_scale=0.5, beside=0.0, left=None):
    """``beside``: what the layer is off by besides its bias, relative to its output; ``left``: the share of its error
    that is left with another bias."""
    other = parsed(
        TEXT, xs=np.float32(0.1), xz=np.int8(0), w=W, ws=np.asarray(weight_scale, np.float32),
        b=np.asarray(integers, np.int32), bs=np.asarray(scale, np.float32),
    )  # fmt: skip
    y = normal(2, 3)
    off = np.asarray(integers) * (np.asarray(scale) - 0.1 * np.asarray(weight_scale))
    c = (1 + beside) * y + off.astype(np.float32)
    relative = float(np.linalg.norm(c - y) / np.linalg.norm(y))
    case = layer_case(y, c, model=FLOATS, candidate=other, quantized=True, relative=relative)
    if left is not None:
        judged = replace(case.judgement, relative=left * relative)
        case = replace(case, altered=lambda alter, given: case.made, judged=lambda made: judged)
    return bias.find(case)


@pytest.mark.parametrize("scale", [0.05, [0.05, 0.1, 0.15]])
def test_the_product_of_the_scales_is_right(scale):
    assert found([1, 2, 3], scale, 0.5 if np.ndim(scale) == 0 else [0.5, 1.0, 1.5]) is None


@pytest.mark.parametrize(("scale", "at"), [(0.5, 0.5), ([0.05, 0.05, 0.07], 0.07)])
def test_another_scale_is_told_with_both(scale, at):
    one = found([1, 2, 3], scale, 0.5 if np.ndim(scale) == 0 else [0.5, 0.5, 0.5])
    assert one.cause == "bias"
    assert told(one) == (
        f"bias 'bf' has the scale {at:g}, and its operands 0.05 together, with which integer kernels add it"
    )


@pytest.mark.parametrize(("beside", "cause"), [(0.01, "bias"), (1.0, None)])
def test_another_scale_is_the_cause_where_it_makes_the_error(beside, cause):
    one = found([1, 2, 3], 0.07, beside=beside)
    assert (one and one.cause) == cause


@pytest.mark.parametrize(("left", "cause"), [(0.1, "bias"), (0.9, None)])
@pytest.mark.parametrize(("integers", "scale"), [([1, 2, 3], 0.5), ([1, 2**31 - 1, 3], 0.05)])
def test_a_bias_without_which_most_of_the_error_is_left_is_not_the_cause(integers, scale, left, cause):
    one = found(integers, scale, beside=0.1, left=left)
    assert (one and one.cause) == cause


@pytest.mark.parametrize("end", [-(2**31), 2**31 - 1])
def test_an_end_of_32_bits_is_told_with_what_it_stands_for(end):
    one = found([1, end, 3], 0.05)
    assert one.cause == "bias"
    assert told(one).startswith("bias 'bf': 1 of 3 values stop at an end of INT32, whose scale there, at most 0.05, ")


def test_the_scale_that_is_told_is_of_a_value_that_stops():
    one = found([1, 2**31 - 1, 3], [0.05, 1e-12, 0.07], [0.5, 1e-11, 0.7])
    assert "at most 1e-12, reaches 0.00215" in told(one)


def test_files_that_are_not_quantized_are_not_asked():
    y = normal(2, 3)
    assert bias.find(layer_case(y, 2 * y, model=FLOATS)) is None
