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
