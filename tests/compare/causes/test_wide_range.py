"""A range far wider than the data: of the levels, next to none are left for the values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.compare.causes import wide_range
from layerdiff.graph.quantized.quantizers import Grid

from support import networks
from support.layer_cases import layer_case
from support.layerwise import compare, only
from support.models import normal
from support.quantized import KINDS, exact, quantized

IMAGES = [{"x": normal(2, 3, 12, 12, seed=i).clip(-1, 1)} for i in range(2)]
WIDE = [{"x": 127 * feed["x"]} for feed in IMAGES]
STATIC = [kind for kind in KINDS if kind != "dynamic"]


def convolutions() -> onnx.ModelProto:
    w = networks.Writer(5)
    x = w.node("Transpose", ["x"], "turned", perm=[0, 1, 3, 2])
    for name, channels in (("one", (3, 8)), ("two", (8, 8))):
        x = w.node("Relu", [w.conv(x, name, channels)], f"{name}_relu")
    w.node("GlobalAveragePool", [x], "y")
    return w.model({"x": (networks.FLOAT, [2, 3, 12, 12])}, ["y"])


@pytest.mark.parametrize("kind", STATIC)
def test_a_range_far_wider_than_the_data_is_told_once_for_an_input_and_what_is_behind_it(kind):
    proto = convolutions()
    file = quantized(proto, kind, WIDE)
    culprit = only(compare(proto, file, IMAGES, ort=exact(file)))
    assert culprit.cause == "quantization"
    assert culprit.evidence.startswith("'x', an input of the graph: the calibrated range, -127")
    assert " is 127 times that of the data, -1 to 1, which have 3 of 256 levels" in culprit.evidence
    assert culprit.evidence.endswith("behind it")
    assert "preprocessed as those that are fed" in culprit.remedies[0].text


def test_one_range_that_is_too_wide_is_told_where_it_is():
    proto = convolutions()
    file = quantized(proto, "qdq", IMAGES)
    scale = next(w for w in file.graph.initializer if w.name == "one_relu_scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(100 * onnx.numpy_helper.to_array(scale), scale.name))
    culprit = compare(proto, file, IMAGES, ort=exact(file)).culprits[0]
    assert culprit.cause == "quantization"
    assert culprit.evidence.startswith("'one_relu': the calibrated range")
    assert culprit.remedies[0].text == "quantize 'one_relu' with the range that the data take of it"


@pytest.mark.parametrize("smaller", [1, 4])
def test_ranges_that_leave_levels_enough_are_none(smaller):
    proto = convolutions()
    file = quantized(proto, "qdq", IMAGES)
    fed = [{"x": feed["x"] / np.float32(smaller)} for feed in IMAGES]
    report = compare(proto, file, fed, ort=exact(file))
    assert not [c for c in report.culprits if "calibrated range" in c.evidence]


def test_kernels_that_saturate_are_not_blamed_for_what_the_range_does():
    """By exact kernels, the layer is as lost."""

    class Saturating(OnnxrtRunner):
        def open(self, model, **options):
            session = super().open(model, **options)
            if not self.exact_int8 and {"Conv", "DequantizeLinear"} <= {n.op_type for n in model.index.nodes}:
                infer = session.infer
                session.infer = lambda feed, fetch=None: {
                    n: a if n.startswith("turned") or a.dtype != np.float32 else 50 * a
                    for n, a in infer(feed, fetch).items()
                }
            return session

    proto = convolutions()
    report = compare(proto, quantized(proto, "qdq", WIDE), IMAGES, ort=Saturating(threads=1))
    assert report.culprits[0].cause == "quantization"
    assert "narrow-accumulator" not in {c.cause for c in report.culprits}


def attention(mask: float) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """Scores, a mask on the last third of them, and what they choose."""
    w = networks.Writer(3)
    q, k, v = (w.linear("x", name, (16, 16)) for name in "qkv")
    w.node("Transpose", [k], "turned", perm=[0, 2, 1])
    w.node("MatMul", [q, "turned"], "scores")
    w.node("Add", ["scores", "mask"], "masked")
    w.node("Softmax", ["masked"], "chosen", axis=-1)
    w.node("MatMul", ["chosen", v], "y")
    model = w.model({"x": (networks.FLOAT, [2, 12, 16]), "mask": (networks.FLOAT, [2, 1, 12])}, ["y"])
    masks = np.where(np.arange(12) < 8, 0, mask).astype(np.float32) * np.ones((2, 1, 1), np.float32)
    return model, [{"x": normal(2, 12, 16, seed=i), "mask": masks} for i in range(2)]


def test_a_mask_that_takes_the_whole_range_is_told_at_what_reads_the_scores():
    proto, feeds = attention(-3e38)
    file = quantized(proto, "qdq", feeds)
    culprit = compare(proto, file, feeds, ort=exact(file)).culprits[0]
    assert culprit.cause == "quantization"
    assert culprit.evidence.startswith("'masked': the calibrated range, -3e+38 to ")
    assert "192 of 288 values lie between " in culprit.evidence
    assert culprit.evidence.endswith("and become the same")
    assert culprit.remedies[0].text.startswith("leave 'masked' a float")


def test_a_mask_that_leaves_the_scores_levels_enough_is_no_culprit():
    proto, feeds = attention(-10)
    file = quantized(proto, "qdq", feeds)
    assert not compare(proto, file, feeds, ort=exact(file)).culprits


def test_of_steps_that_could_make_more_than_the_error_the_one_that_makes_it_is_told():
    """What steps may make counts each of them; what is on a grid already, or zero, is not rounded."""
    y = np.abs(0.02 * normal(2, 64))
    grid = Grid.symmetric(3.0)
    rounded = (np.rint(y / grid.step) * grid.step).astype(np.float32)
    off = float(np.linalg.norm(rounded - y) / np.linalg.norm(y))
    case = layer_case(y, rounded, tensors={"x": y}, grids={"y": grid}, reason="range")
    for times in (1, 3):
        judgement = replace(case.judgement, relative=off, expected=times * off)
        found = wide_range.find(replace(case, judgement=judgement))
        assert found is not None
        assert found.facts[0].text.startswith("'y': the calibrated range, -3 to 3")
