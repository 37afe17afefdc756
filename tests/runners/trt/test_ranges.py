"""Ranges of the tensors that Q/DQ nodes are written for, as ONNX Runtime's calibrators measure them."""

import numpy as np
import pytest
from layerdiff.graph.errors import UsageError
from layerdiff.graph.model import Model
from layerdiff.runners.trt.ranges import METHODS, find_ranges

from support.models import parsed

pytest.importorskip("onnxruntime.quantization")
X = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
MASKED = """g (float[2,64] x, float[2,64] mask) => (float[2,64] y)
    { a = MatMul(x, w) m = Add(a, mask) p = Softmax(m) y = MatMul(p, w) }"""


def ranges(model: Model, method: str, *feeds: dict[str, np.ndarray]) -> dict[str, float]:
    return find_ranges(model, method, None, lambda: iter(feeds), lambda _: None)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("far", [np.finfo(np.float32).min, -np.inf])
def test_a_mask_that_nobody_quantizes_has_no_range(method, far):
    mask = np.where(np.arange(64) < 40, 0, far).astype(np.float32) * np.ones((2, 1), np.float32)
    model = Model(parsed(MASKED, w=W))
    found = ranges(model, method, {"x": X, "mask": np.nan_to_num(mask, nan=0, neginf=far)})
    assert {"x", "p"} <= set(found)
    assert "m" not in found
    assert 0 < found["x"] <= np.abs(X).max() * 1.01


def test_the_greatest_magnitude_of_all_samples_is_the_range():
    model = Model(parsed(MASKED, w=W))
    none = np.zeros((2, 64), np.float32)
    assert ranges(model, "max", {"x": X, "mask": none}, {"x": 3 * X, "mask": none})["x"] == pytest.approx(
        3 * np.abs(X).max()
    )


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_values_that_no_histogram_holds_are_an_error_in_one_line(method):
    model = Model(parsed(MASKED, w=W))
    x = X.copy()
    x[0, 0] = np.finfo(np.float32).max
    with pytest.raises(UsageError, match=rf"^qdq-{method} cannot count values as large .*qdq-max takes the greatest"):
        ranges(model, method, {"x": x, "mask": np.zeros((2, 64), np.float32)})


def test_a_network_without_products_has_no_ranges():
    assert ranges(Model(parsed("g (float[2,64] x) => (float[2,64] y) { y = Relu(x) }")), "entropy") == {}
