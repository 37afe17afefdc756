"""What holds only because a normalization is one kernel, which computes in FP32 inside."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes.one_kernel import overflow_inside
from layerdiff.graph.formats import BF16, FP16

from support.layer_cases import layer_case
from support.models import parsed

LAYER = parsed("g (float[2,8] x) => (float[2,8] y) { y = LayerNormalization<axis=-1>(x, s) }", s=np.ones(8, np.float32))
PIECES = parsed(
    "g (float[2,8] x) => (float[2,8] y) { q = Mul(x, x) m = ReduceMean<axes=[1]>(q) r = Sqrt(m) y = Div(x, r) }"
)
NO_NORMALIZATION = parsed("g (float[2,8] x) => (float[2,8] y) { q = Mul(x, x) y = Sqrt(q) }")
RAMP = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)


def found(model, x, fmt=FP16):
    case = layer_case(x, x, model=model, tensors={"x": x, "q": np.square(x), "m": np.square(x).mean(1, keepdims=True)})
    return overflow_inside(case.pair, case.graphs[0], case.values, fmt, lambda: case.inner)


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (LAYER, 1000 * RAMP, "the squares of"),
        (PIECES, 1000 * RAMP, "at Mul_0"),
    ],
)
def test_the_value_inside_is_told(model, x, says):
    fact = found(model, x)
    assert says in fact.text
    assert "65504" in fact.text


@pytest.mark.parametrize(
    ("model", "x", "fmt"),
    [
        (LAYER, RAMP, FP16),
        (LAYER, RAMP + 1000, FP16),
        (LAYER, 1000 * RAMP, BF16),
        (PIECES, 100 * RAMP, FP16),
        (NO_NORMALIZATION, 1000 * RAMP, FP16),
    ],
    ids=["small", "a large mean", "a wide range", "in pieces, small", "no normalization"],
)
def test_what_fits_is_not(model, x, fmt):
    assert found(model, x, fmt) is None
