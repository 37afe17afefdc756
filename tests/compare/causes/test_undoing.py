"""A difference of two files is the cause where the layer's error goes away without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from layerdiff import Comparator
from layerdiff.compare.causes.undoing import weights_stay
from layerdiff.graph.pairing.differences import Difference
from layerdiff.graph.pairing.weight_changes import WeightChange

from support import networks
from support.layer_cases import layer_case
from support.layerwise import ORT, compare, only
from support.models import normal, parsed
from support.quantized import exact, quantized
from support.runners import Off

IMAGES = [{"x": normal(2, 3, 12, 12, seed=i)} for i in range(2)]


def one_convolution() -> onnx.ModelProto:
    w = networks.Writer(5)
    made = w.node("Conv", ["x", w.weight("c.w", 8, 3, 3, 3), w.weight("c.b", 8)], "c", pads=[1] * 4)
    w.node("Relu", [made], "y")
    return w.model({"x": (networks.FLOAT, [2, 3, 12, 12])}, ["y"])


def multiplied(file: onnx.ModelProto, factors: dict[str, float]) -> None:
    for stored in file.graph.initializer:
        if stored.name in factors:
            before = onnx.numpy_helper.to_array(stored)
            after = (
                np.rint(before * factors[stored.name]) if before.dtype.kind == "i" else before * factors[stored.name]
            )
            stored.CopyFrom(onnx.numpy_helper.from_array(np.asarray(after, before.dtype), stored.name))


def of_quantized(factors: dict[str, float], integers: int = 0):
    """The one culprit where constants of a quantized file are multiplied, and ``integers`` are added to its bias."""
    proto = one_convolution()
    file = quantized(proto, "qdq", IMAGES)
    multiplied(file, factors)
    bias = next(stored for stored in file.graph.initializer if stored.name == "c.b_quantized")
    off = onnx.numpy_helper.to_array(bias) + np.int32(integers)
    bias.CopyFrom(onnx.numpy_helper.from_array(off, bias.name))
    return only(compare(proto, file, IMAGES, ort=exact(file)))


@pytest.mark.parametrize(
    ("biases", "integers"),
    [({}, 0), ({"c.b_quantized_scale": 1 / 6, "c.b_quantized": 6}, 3)],
    ids=["another scale of the bias", "a bias steps off"],
)
def test_what_is_cut_off_is_the_cause_where_a_bias_makes_little_of_the_error(biases, integers):
    culprit = of_quantized({"x_scale": 1 / 6, **biases}, integers)
    assert culprit.cause == "saturation"
    assert "are cut off" in culprit.evidence


def test_a_bias_with_another_scale_is_the_cause_where_it_makes_the_error():
    assert of_quantized({"c.b_quantized_scale": 8}).cause == "bias"


TEXT = "g (float[N, 8] x) => (float[N, 8] y) { [p] p = MatMul(x, w) [y] y = Tanh(p) }"
W = normal(8, 8) / 4


@pytest.mark.parametrize(("factor", "cause"), [(1.0001, "scale"), (1.5, "weights")])
def test_weights_are_the_cause_where_the_error_goes_away_with_the_reference_s(factor, cause):
    """Of a runtime that is off in the same node."""
    other = W.copy()
    other[2, 3] *= factor
    runners = [ORT, Off(node="p", factor=1.02, threads=1)]
    models = parsed(TEXT, w=W), parsed(TEXT, w=other)
    data = [{"x": normal(16, 8, seed=3)}]
    report = Comparator(models[0], runners, candidate_model=models[1], data_loader=data, layers="guilty").compare()
    assert [c.cause for c in report.culprits if c.candidate.startswith("off")] == [cause]


@pytest.mark.parametrize(
    ("other", "stays"),
    [(W + 1, True), (W, False), (np.rint(9 * W).astype(np.int8), False)],
    ids=["two files", "a program and its export", "integers"],
)
def test_weights_that_the_graphs_do_not_show_cannot_be_undone(other, stays):
    y = normal(4, 8)
    differs = Difference(0, 0, WeightChange(W.shape, W.shape, 1, 0.1, (0, 0), (0.1, 0.2)), "b")
    models = parsed(TEXT, w=W), parsed(TEXT, w=other)
    case = layer_case(y, 1.01 * y, model=models[0], candidate=models[1], differences=(differs,))
    assert (
        weights_stay(
            replace(case, altered=lambda alter, given: case.made, judged=lambda made: case.judgement), [differs]
        )
        == stays
    )
