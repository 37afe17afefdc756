"""A narrow accumulator: an FP32 product whose error is that of sums in FP16 or BF16."""

from __future__ import annotations

import math

import numpy as np
import pytest
from layerdiff.compare.causes import accumulator
from layerdiff.graph.formats import BF16, FP16, FP32, INT8
from layerdiff.graph.pairing.changes import OperatorChange
from layerdiff.graph.pairing.differences import Difference

from support.layer_cases import layer_case, told
from support.models import parsed

Y = np.ones((2, 4), np.float32)
PRODUCT = parsed("g (float[2,4] x) => (float[2,4] y) { y = MatMul(x, w) }", w=np.ones((4, 4), np.float32))
TRUNCATED = parsed(
    "g (float[2,4] x) => (float[2,4] y) { a = Cast<to=7>(x) b = Cast<to=1>(a) y = MatMul(b, w) }",
    w=np.ones((4, 4), np.float32),
)
ADDED = Difference(0, 0, OperatorChange((), (("Add", "added"),)))


def z_of(u: float) -> float:
    """RMS z of an FP32 product whose sums have this unit roundoff."""
    return u / (FP32.u * math.sqrt(2))


def find(u: float, **more):
    settings = {"model": PRODUCT, "rms_z": z_of(u), "relative": 1e-3, **more}
    return accumulator.find(layer_case(Y, settings.pop("c", 1.001 * Y), **settings))


@pytest.mark.parametrize("fmt", [FP16, BF16], ids=str)
def test_the_error_speaks_for_a_unit_roundoff(fmt):
    found = find(fmt.u)
    assert found.cause == "narrow-accumulator"
    assert found.facts[0].format == fmt
    assert found.facts[0].roundoff == pytest.approx(fmt.u)
    assert told(found).startswith(f"error as of sums with unit roundoff {fmt.u:.1e} ({fmt}: {fmt.u:.1e}), ")


def test_where_a_narrow_format_is_in_play_an_operator_that_differs_excuses_no_sums():
    assert find(FP16.u, narrow=FP16, differences=(ADDED,)).cause == "narrow-accumulator"


@pytest.mark.parametrize(
    "more",
    [
        {"arithmetic": FP16},
        {"arithmetic": INT8},
        {"coarse": True},
        {"rms_z": None},
        {"relative": 0.3},
        {"rms_z": z_of(FP16.u / 20)},
        {"rms_z": z_of(8 * BF16.u)},
        {"model": parsed("g (float[2,4] x) => (float[2,4] y) { y = Relu(x) }")},
        {"candidate": TRUNCATED},
        {"narrow": FP16, "rms_z": z_of(BF16.u)},
        {"c": np.where(np.arange(8).reshape(2, 4) < 3, 1.001 * Y, Y)},
        {"differences": (ADDED,)},
    ],
    ids=lambda more: ", ".join(more),
)
def test_other_errors_speak_for_none(more):
    assert find(FP16.u, **more) is None
