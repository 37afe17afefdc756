"""Products of quantized weights in FP32, whose kernels round what they are given to 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import rounded_operand

from support.layer_cases import layer_case, told
from support.models import normal, parsed

BLOCK = 32
X = normal(8, 64)
W = np.random.default_rng(1).integers(-7, 8, (64, 48)).astype(np.int8)
SCALES = (0.01 + 0.01 * np.abs(normal(2, 48))).astype(np.float32)
REAL = W * np.repeat(SCALES, BLOCK, axis=0)
STORED = parsed(
    "g (float[8,64] x) => (float[8,48] y) { w = DequantizeLinear <axis=0, block_size=32> (q, s)  y = MatMul(x, w) }",
    q=W, s=SCALES,
)  # fmt: skip
FLOAT = parsed("g (float[8,64] x) => (float[8,48] y) { y = MatMul(x, w) }", w=REAL)


def rounded(x: np.ndarray, steps: int) -> np.ndarray:
    """An operand with one step for each block."""
    blocks = x.reshape(-1, BLOCK)
    step = np.abs(blocks).max(axis=1, keepdims=True) / steps
    return (np.rint(blocks / step) * step).reshape(x.shape).astype(np.float32)


def found(c: np.ndarray, model=STORED, **more):
    y = X @ REAL
    relative = float(np.linalg.norm(c - y) / np.linalg.norm(y))
    return rounded_operand.find(layer_case(y, c, model=model, tensors={"x": X}, relative=relative, **more))


def test_an_operand_of_8_bits_is_told_with_the_weights_and_the_block():
    one = found(rounded(X, 127) @ REAL)
    assert (one.cause, one.facts[0].weights, one.facts[0].block) == ("quantization", "q", 32)
    assert "to 8 bits in blocks of 32" in told(one)


@pytest.mark.parametrize(
    ("c", "more"),
    [
        (rounded(X, 7) @ REAL, {}),
        (rounded(X, 2000) @ REAL, {}),
        (rounded(X, 127) @ REAL, {"model": FLOAT}),
        (rounded(X, 127) @ REAL, {"coarse": True}),
        (rounded(X, 127) @ REAL, {"quantized": True}),
    ],
    ids=["4 bits", "FP16", "weights in float", "a coarse side", "activations in integers in the file"],
)
def test_other_errors_are_not_of_that(c, more):
    assert found(c, **more) is None
