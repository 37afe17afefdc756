"""What is added to what weights make is no weight: in what is told of it, and in what is to be done."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

BIAS = normal(16, seed=3)
GEMM, ADD, SUB = "p = Gemm(x, w, b)", "m = MatMul(x, w) p = Add(m, b)", "m = MatMul(x, w) p = Sub(m, b)"
NORM, SCALED = "p = LayerNormalization(x, w1, b)", "m = MatMul(x, w) p = Mul(m, b)"


def network(nodes: str, bias: np.ndarray, weights: np.ndarray | None = None):
    text = f"g (float[4,16] x) => (float[4,16] y) {{ {nodes} y = Tanh(p) }}"
    known = {"w": normal(16, 16, seed=1) if weights is None else weights, "w1": normal(16, seed=2), "b": bias}
    return parsed(text, **{name: value for name, value in known.items() if f" {name}" in nodes})


def convolution(bias: np.ndarray):
    text = "g (float[2,4,8,8] x) => (float[2,8,6,6] y) { p = Conv(x, w, b) y = Tanh(p) }"
    return parsed(text, w=normal(8, 4, 3, 3, seed=1), b=bias)


def with_another(bias: np.ndarray) -> np.ndarray:
    bias = bias.copy()
    bias[3] += 1
    return bias


DATA = [{"x": normal(4, 16, seed=i)} for i in range(2)]


@pytest.mark.parametrize(
    ("nodes", "noun"), [(GEMM, "biases"), (ADD, "biases"), (SUB, "biases"), (NORM, "biases"), (SCALED, "weights")]
)
def test_biases_are_called_so(nodes, noun):
    culprit = only(compare(network(nodes, BIAS), network(nodes, with_another(BIAS)), DATA))
    assert culprit.cause == "weights"
    assert culprit.evidence.startswith(f"1 of 16 {noun} differ, greatest 1 at [3], ")
    assert culprit.remedies[0].text == f"take the first file's {noun}, or export the model again"


def test_biases_of_a_convolution_are_called_so():
    culprit = only(
        compare(convolution(BIAS[:8]), convolution(with_another(BIAS[:8])), [{"x": normal(2, 4, 8, 8, seed=5)}])
    )
    assert culprit.evidence.startswith("1 of 8 biases differ, ")
    assert culprit.remedies[0].text == "take the first file's biases, or export the model again"


def test_a_constant_of_more_axes_that_is_added_is_neither():
    mine, theirs = (network(ADD, normal(4, 16, seed=seed)) for seed in (3, 4))
    culprit = only(compare(mine, theirs, DATA))
    assert culprit.evidence.startswith("64 of 64 values differ, ")
    assert culprit.remedies[0].text == "take the first file's values, or export the model again"


def test_both_are_told_and_what_is_missing_too():
    theirs = network(GEMM, with_another(BIAS), normal(16, 16, seed=9))
    both = only(compare(network(GEMM, BIAS), theirs, DATA))
    assert both.remedies[0].text == "take the first file's weights and biases, or export the model again"
    missing = only(compare(network(GEMM, BIAS), network("p = Gemm(x, w)", BIAS), DATA))
    assert missing.remedies[0].text == "take the first file's biases, or export the model again"


def test_biases_that_are_stored_in_steps_and_are_others_are_to_be_quantized_again():
    text = """g (float[4,16] x) => (float[4,16] y) { v = DequantizeLinear(q, s, z) c = DequantizeLinear(i, s, z)
        [product] p = Gemm(x, v, c) y = Tanh(p) }"""
    step = np.float32(0.02)
    weights, wrong = (np.round(v / step).clip(-127, 127).astype(np.int8) for v in (normal(16, 16, seed=1), BIAS / 2))
    theirs = parsed(text, q=weights, s=step, z=np.int8(0), i=wrong)
    mine = network(GEMM, BIAS, weights.astype(np.float32) * step)
    remedy = only(compare(mine, theirs, DATA)).remedies[0].text
    assert remedy.startswith("quantize the first file's biases of Gemm_0 again: ")
