"""What differs between two nodes is called as ONNX writes it: transB, K."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.load import load
from layerdiff.graph.pairing.matching import match

from support.models import normal, parsed

GEMM = "g (float[4,4] x, float[4,4] c) => (float[4,4] y) { [n] h = Gemm<TRANSPOSED>(x, w MORE) y = Tanh(h) }"
TOPK = "g (float[4,8] x) => (float[4,N] y) { [n] h, i = TopK(x, count) y = Tanh(h) }"


def gemm(attribute, more=""):
    return parsed(GEMM.replace("TRANSPOSED", attribute).replace(" MORE", more), w=normal(4, 4))


def top(count):
    return parsed(TOPK, count=np.array([count]))


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (gemm("transA = 0"), gemm("transA = 1"), "transA 0 against 1"),
        (gemm("transB = 1"), gemm("transB = 0"), "transB 1 against 0"),
        (top(2), top(3), "K [2] against [3]"),
        (gemm("transB = 0", ", c"), gemm("transB = 0"), "Gemm reads 'c' as C in the reference, and has no C"),
    ],
)
def test_a_difference_is_called_as_onnx_writes_it(first, second, text):
    (found,) = match(load(first).index, load(second).index).differences
    assert found.detail.startswith(text)


POOL = (
    "g (float[1,1,6,6] x) => (float[1,1,H,W] y) { [n] h = AveragePool<kernel_shape = [2, 2], SETTINGS>(x) y = Tanh(h) }"
)


@pytest.mark.parametrize(
    ("settings", "differ"),
    [
        ("pads = [0, 0, 0, 0]", False),
        ("pads = [1, 1, 0, 0]", True),
        ("ceil_mode = 1", True),  # whose last windows may reach over the edge
    ],
)
def test_padding_that_is_counted_is_a_difference_where_something_is_padded(settings, differ):
    files = [parsed(POOL.replace("SETTINGS", f"count_include_pad = {c}, {settings}")) for c in (0, 1)]
    assert bool(match(*(load(f).index for f in files)).differences) == differ
