"""What stands in a quantizer: step, least and greatest value, levels."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.quantized.quantizers import Grid, quantizer

from support.models import parsed

X = np.array([[-1.0, 2.0, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("zero", "low", "high", "levels"),
    [
        (np.int8(0), -12.8, 12.7, 256),
        (np.uint8(100), -10.0, 15.5, 256),
        (np.int16(0), -3276.8, 3276.7, 65536),
        (None, 0.0, 25.5, 256),
    ],
)
def test_ends_follow_from_scale_and_zero_point(zero, low, high, levels):
    weights = {"s": np.float32(0.1)} | ({} if zero is None else {"z": zero})
    inputs = "x, s" if zero is None else "x, s, z"
    kind = "uint8" if zero is None else zero.dtype.name
    model = parsed(f"g (float[N, 3] x) => ({kind}[N, 3] q) {{ q = QuantizeLinear({inputs}) }}", opset=21, **weights)
    found = quantizer(GraphIndex(model), 0)
    grid = found.grid(X)
    assert found.tensor == "x"
    assert grid.calibrated
    np.testing.assert_allclose([grid.step, grid.low, grid.high], [0.1, low, high], rtol=1e-6)
    assert grid.levels == levels


def test_scales_of_an_axis_broadcast_against_the_tensor():
    scales, zeros = np.array([0.1, 0.2, 0.3], np.float32), np.zeros(3, np.int8)
    model = parsed("g (float[N, 3] x) => (int8[N, 3] q) { q = QuantizeLinear <axis=-1> (x, s, z) }", s=scales, z=zeros)
    assert quantizer(GraphIndex(model), 0).grid(X).step.shape == (1, 3)


def test_a_range_that_is_measured_holds_zero():
    model = parsed("g (float[N, 3] x) => (uint8[N, 3] q) { q, s, z = DynamicQuantizeLinear(x) }")
    grid = quantizer(GraphIndex(model), 0).grid(X + 5)
    assert (grid.low, grid.high, grid.calibrated) == (0, 7, False)
    np.testing.assert_allclose(grid.step, 7 / 255)


def test_small_floats_have_steps_relative_to_their_size():
    weights = {"s": np.float32(0.5), "z": np.zeros((), ml_dtypes.float8_e4m3fn)}
    model = parsed("g (float[N, 3] x) => (q) { q = QuantizeLinear(x, s, z) }", opset=21, **weights)
    found = quantizer(GraphIndex(model), 0)
    grid = found.grid(X * 100)
    np.testing.assert_array_equal(grid.step, [[8, 16, 4]])
    assert (grid.low, grid.high) == (-224, 224)
    assert found.typical().step == 4  # a quarter of the range, 56


@pytest.mark.parametrize("text", ["q = QuantizeLinear(x, t)", "s = Mul(x, x)  q = Relu(s)"])
def test_no_grid_is_told_of_computed_scales_and_other_nodes(text):
    made = "" if "(x, t)" not in text else "t = ReduceMax <keepdims=0> (x)  "
    model = parsed(f"g (float[N, 3] x) => (q) {{ {made}{text} }}", opset=17, s=np.float32(0.1))
    assert quantizer(GraphIndex(model), len(model.graph.node) - 1) is None


def test_the_deviation_of_rounding_is_a_step_over_the_root_of_twelve():
    grid = Grid.symmetric(127.0)
    x = np.random.default_rng(0).uniform(-100, 100, 100_000)
    assert grid.step == 1
    assert abs(np.std(np.rint(x) - x) / grid.deviation - 1) < 0.01
