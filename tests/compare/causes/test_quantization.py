"""Quantization: more error than a step explains."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import quantization
from layerdiff.graph.formats import BF16, E4M3, E5M2, FP16, FP32, INT8

from support.layer_cases import layer_case, told

Y = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("z", "text"),
    [(12.34, "relative error 0.1 in INT8, 12.3 times what its step explains"), (None, "relative error 0.1 in INT8")],
)
def test_a_layer_that_the_file_quantizes(z, text):
    found = quantization.in_file(layer_case(Y, 2 * Y, quantized=True, rms_z=z))
    assert (found.cause, told(found)) == ("quantization", text)
    assert quantization.in_file(layer_case(Y, 2 * Y)) is None


@pytest.mark.parametrize(("fmt", "scaled"), [(INT8, True), (E4M3, True), (E5M2, True), (FP16, False), (BF16, False),
                                             (FP32, False)], ids=str)  # fmt: skip
def test_a_candidate_that_computes_in_a_scaled_format(fmt, scaled):
    found = quantization.find(layer_case(Y, 2 * Y, arithmetic=fmt))
    assert (found is not None) == scaled
    assert found is None or f"in {fmt}" in told(found)
