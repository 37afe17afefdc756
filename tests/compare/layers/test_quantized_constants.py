"""Constants of a quantized file that are not stored in steps are the first file's, or are told."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from support.models import normal, parsed

TEXT = """g (float[N, 64] x) => (float[N, 64] y) {
  [m0] a = MatMul(x, w0) [b0] b = Add(a, bias) [t0] c = Tanh(b) [m1] y = MatMul(c, w1)
}"""
BIAS = np.random.default_rng(1).normal(size=64).astype(np.float32) / 12
WEIGHTS = {"w0": normal(64, 64) / 8, "w1": normal(64, 64, seed=1) / 8, "bias": BIAS}


def culprits(tmp_path, change):
    """Of a file that is quantized dynamically, with another bias; 7 bits of weights, with which no CPU saturates."""
    onnx.save(parsed(TEXT, **WEIGHTS), tmp_path / "whole.onnx")
    quantize_dynamic(tmp_path / "whole.onnx", tmp_path / "q.onnx", weight_type=QuantType.QInt8, reduce_range=True)
    made = onnx.load(tmp_path / "q.onnx")
    bias = next(t for t in made.graph.initializer if t.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(change(BIAS).astype(np.float32), "bias"))
    onnx.save(made, tmp_path / "other.onnx")
    data = [{"x": normal(64, 64, seed=2)}]
    paths = str(tmp_path / "whole.onnx"), str(tmp_path / "other.onnx")
    report = Comparator(
        paths[0], [OnnxrtRunner()], candidate_model=paths[1], data_loader=data, layers="guilty"
    ).compare()
    return [(c.node, c.cause) for c in report.culprits]


@pytest.mark.parametrize("change", [np.zeros_like, np.negative, np.flip], ids=["zero", "negative", "another order"])
def test_another_bias_is_no_rounding(tmp_path, change):
    assert ("b0", "weights") in culprits(tmp_path, change)


@pytest.mark.parametrize("change", [np.array, lambda b: b + 0.002 * np.sin(np.arange(64))], ids=["none", "corrected"])
def test_what_corrects_rounding_is_no_other_bias(tmp_path, change):
    assert all(cause != "weights" for _, cause in culprits(tmp_path, change))
