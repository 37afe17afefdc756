"""A scale that is not that of its tensor: many times too large, too small, or beside another zero point."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff.compare.causes.coarse_scale import TakenOf, coarse
from layerdiff.compare.causes.stored_scale import StoredScale
from layerdiff.graph.model import Model

from support import networks
from support.layerwise import compare
from support.models import normal, parsed
from support.quantized import exact, quantized

NAMED = "the scale of QuantizeLinear two_relu_QuantizeLinear ('two_relu_scale') to "
IMAGES = [{"x": normal(2, 3, 12, 12, seed=i)} for i in range(2)]


def convolutions() -> onnx.ModelProto:
    """Five convolutions in a row."""
    w = networks.Writer(5)
    x, before = "x", 3
    for name in ("one", "two", "three", "four", "five"):
        x, before = w.node("Relu", [w.conv(x, name, (before, 8))], f"{name}_relu"), 8
    w.node("GlobalAveragePool", [x], "y")
    return w.model({"x": (networks.FLOAT, [2, 3, 12, 12])}, ["y"])


def altered(file: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    stored = next(w for w in file.graph.initializer if w.name == name)
    stored.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(stored)), name))
    return file


def culprits(name: str = "", change=None):
    proto = convolutions()
    file = quantized(proto, "qdq", IMAGES)
    if name:
        altered(file, name, change)
    return compare(proto, file, IMAGES, ort=exact(file)).culprits


@pytest.mark.parametrize("times", [4, 16])
def test_a_scale_that_is_too_large_is_named_with_what_it_represents_and_what_its_tensor_takes(times):
    found = culprits("two_relu_scale", lambda scale: scale * np.float32(times))[0]
    assert (found.node, found.cause) == ("n_two_relu", "quantization")
    assert found.evidence.startswith("QuantizeLinear two_relu_QuantizeLinear (scale ")
    assert f"{times} times too coarse" in found.evidence
    assert "sets the range" not in found.evidence
    assert found.remedies[0].text.startswith(
        "set the scale of QuantizeLinear two_relu_QuantizeLinear ('two_relu_scale')"
    )


def test_scales_that_fit_are_none():
    assert not [c for c in culprits() if "too coarse" in c.evidence]


def test_a_scale_that_is_too_small_is_named_with_what_it_would_have_to_be():
    found = culprits("two_relu_scale", lambda scale: scale / np.float32(3))[0]
    assert found.cause == "saturation"
    assert "its scale is 3 times too small or calibration saw smaller values" in found.evidence
    assert found.remedies[0].text.startswith(
        "set the scale of QuantizeLinear two_relu_QuantizeLinear ('two_relu_scale')"
    )


def test_a_zero_point_that_does_not_fit_is_told_as_one():
    found = culprits("two_relu_zero_point", lambda zero: zero + np.asarray(30, zero.dtype))[0]
    assert found.cause == "saturation"
    assert "30 of 256 levels are below all that it takes" in found.evidence
    assert "set the zero point of QuantizeLinear two_relu_QuantizeLinear to " in found.remedies[0].text


INDEX = Model(parsed("g (float[N] x) => (float[N] y) { p = Softmax(x) y = Relu(p) }")).index


def scale(step: float, zero: int = 0) -> StoredScale:
    return StoredScale("QuantizeLinear n", "", step, zero, (0, 255))


FITTING = [TakenOf(f"t{i}", scale(0.01), 0.0, 2.55) for i in range(4)]


@pytest.mark.parametrize(
    ("others", "more", "found"),
    [
        (FITTING, TakenOf("x", scale(0.04), 0.0, 2.55), {"x"}),
        (FITTING, TakenOf("x", scale(0.02), 0.0, 2.55), set()),
        (FITTING[:3], TakenOf("x", scale(0.04), 0.0, 2.55), set()),
        (FITTING, TakenOf("p", scale(1 / 256), 0.0, 0.1), set()),
        ([TakenOf(f"t{i}", scale(0.05), 0.0, 2.55) for i in range(4)], TakenOf("x", scale(0.05), 0.0, 2.55), set()),
    ],
    ids=["four times", "twice", "too few beside it", "of a Softmax", "as wide as all"],
)
def test_a_scale_stands_out_beside_those_that_fit(others, more, found):
    assert {*coarse(INDEX, [*others, more])} == found


def test_a_symmetric_scale_is_held_against_the_end_that_is_farther_from_zero():
    assert StoredScale("", "", 0.02, 0, (-128, 127)).times(0.0, 2.54) == pytest.approx(1.0)
    assert StoredScale("", "", 0.02, 0, (-128, 127)).times(-0.64, 0.0) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("zero", "low", "high", "fits"),
    [(30, 0.0, 2.55, 0), (0, 0.0, 2.55, None), (0, -1.0, 1.0, 100), (30, 0.0, 5.0, None)],
)
def test_another_zero_point_is_known_where_the_scale_would_do(zero, low, high, fits):
    assert scale(0.01, zero).other_zero(low, high) == fits
