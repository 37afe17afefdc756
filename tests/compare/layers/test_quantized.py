"""Quantized files beside the float files that they were made from, layer by layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.report.model import Culprit
from layerdiff.graph.errors import BuildError
from layerdiff.graph.model import Model

from support import networks
from support.layerwise import FP16, INT8, compare, data_of, only, two_products
from support.models import normal, parsed
from support.quantized import KINDS, exact, quantized, saturates


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["residual", "transformer", "unet"])
def test_the_steps_in_the_file_are_the_expected_error(name, kind):
    """No layer is at fault, none is an invalid model, and what the steps explain is the error that is made."""
    proto, data = getattr(networks, name)(), data_of(name, 3)
    file = quantized(proto, kind, data)
    report = compare(proto, file, data, ort=exact(file))
    assert [
        (c.node, c.cause, c.evidence) for c in report.culprits if c.cause in ("wrong-op", "weights", "unknown")
    ] == []
    judged = [layer.expected["rms_z"] for layer in report.layers if layer.expected and (layer.local or {})["rel_l2"]]
    assert len(judged) > 4
    assert all(z < 2 for z in judged)
    assert np.median(judged) > 0.3


def int4(weight: np.ndarray, block: int) -> tuple[onnx.TensorProto, np.ndarray]:
    """A weight of K x N in 4 bits, with a scale for each block of K."""
    blocks = np.abs(weight.reshape(-1, block, weight.shape[1])).max(1) / 7
    integers = np.rint(weight / np.repeat(blocks, block, 0)).astype(np.int8)
    packed = onnx.helper.make_tensor("q", onnx.TensorProto.INT4, weight.shape, integers.reshape(-1).tolist())
    return packed, blocks.astype(np.float32)


@pytest.mark.parametrize(("off", "cause"), [(0.0, "quantization"), (0.5, "weights")])
def test_four_bits_are_expected_to_err_by_their_step_and_no_more(off, cause):
    weight = normal(64, 48)
    mine = parsed("g (float[N, 64] x) => (float[N, 48] y) { y = MatMul(x, w) }", opset=21, w=weight)
    packed, scale = int4(weight, 32)
    text = "v = DequantizeLinear <axis=0, block_size=32> (q, s)  y = MatMul(x, v)"
    other = parsed(f"g (float[N, 64] x) => (float[N, 48] y) {{ {text} }}", opset=21, s=scale * np.float32(1 + off))
    other.graph.initializer.append(packed)
    report = compare(mine, other, [{"x": normal(16, 64, seed=3)}])
    (layer,) = report.layers
    assert layer.local["rel_l2"] > 0.03
    assert (layer.expected["rms_z"] < 1.5) == (not off)
    assert only(report).cause == cause


def test_a_table_of_integers_is_no_weight_of_floats():
    """quantize_dynamic stores an embedding as integers, and takes its rows back to floats behind the Gather."""
    w = networks.Writer(3)
    x = w.node("Gather", [w.weight("table", 40, 16), "ids"], "rows")
    w.linear(w.node("Sub", [x, w.node("ReduceMean", [x], "mean", axes=[-1])], "centred"), "y", (16, 4))
    proto = w.model({"ids": (networks.INT64, [2, 6])}, ["y"])
    data = [{"ids": np.random.default_rng(i).integers(0, 40, (2, 6))} for i in range(2)]
    report = compare(proto, quantized(proto, "dynamic", data), data)
    assert [c.node for c in report.culprits if c.cause not in ("quantization", "spread")] == []
    assert {layer.tensor for layer in report.layers} >= {"rows", "mean", "centred", "y"}


def test_two_products_find_each_other_in_every_format():
    proto = two_products().model({"x": (networks.FLOAT, ["N", 16])}, ["y"])
    data = [{"x": normal(8, 16, seed=i)} for i in range(2)]
    for kind in KINDS:
        report = compare(proto, quantized(proto, kind, data), data)
        assert not [layer for layer in report.layers if layer.verdict == "unmatched"], kind


@pytest.mark.parametrize("kind", ["qdq", "qdq per channel"])
def test_a_product_of_integers_stays_one_where_it_is_cut_off(kind):
    """By itself, ONNX Runtime quantizes the activations of a product whose weights alone are dequantized."""
    proto = two_products().model({"x": (networks.FLOAT, ["N", 16])}, ["y"])
    data = [{"x": normal(64, 16, seed=i)} for i in range(2)]
    mine = quantized(proto, kind, data)
    other = onnx.ModelProto()
    other.CopyFrom(mine)
    first = min(
        (w for w in other.graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) == 2),
        key=lambda w: w.name,
    )
    values = onnx.numpy_helper.to_array(first).copy()
    values[3] = -values[3]
    first.CopyFrom(onnx.numpy_helper.from_array(values, first.name))
    assert only(compare(mine, other, data)).cause == "weights"


# ---- what a file's steps do to its outputs --------------------------------------------------------------------------


def channels_of_all_sizes(seed: int = 4) -> onnx.ModelProto:
    """A depthwise convolution whose channels differ a thousandfold, taken back to one size by what reads them."""
    w = networks.Writer(seed)
    sizes = np.geomspace(1e-3, 10, 16).astype(np.float32)
    x = w.node("Relu", [w.conv("x", "stem", (3, 16))], "stem_relu")
    x = w.node("Relu", [w.conv(x, "depthwise", (1, 16), group=16)], "depthwise_relu")
    x = w.conv(x, "pointwise", (16, 16), 1)
    w.weights["depthwise.w"] *= sizes.reshape(-1, 1, 1, 1)
    w.weights["pointwise.w"] /= sizes.reshape(1, -1, 1, 1)
    w.node("GlobalAveragePool", [x], "y")
    return w.model({"x": (networks.FLOAT, [2, 3, 12, 12])}, ["y"])


IMAGES = [{"x": normal(2, 3, 12, 12, seed=i)} for i in range(3)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_scale_over_channels_of_all_sizes_is_named_with_what_it_leaves_of_them(kind):
    proto = channels_of_all_sizes()
    file = quantized(proto, kind, IMAGES)
    report = compare(proto, file, IMAGES, ort=exact(file))
    culprit = only(report)
    assert culprit.cause == "quantization"
    assert culprit.node in ("n_depthwise", "n_depthwise_relu", "n_pointwise")
    assert "one scale for 16 " in culprit.evidence
    ranked = report.costliest(report.candidates[0].name)
    assert ranked[0].node in ("n_depthwise", "n_pointwise")
    assert {"n_depthwise", "n_pointwise"} & {n for layer in ranked[:2] for n in layer.quantized}


def test_an_outlier_channel_is_named_where_it_is_made_and_who_rounds_it_is_ranked():
    w = networks.Writer(2)
    x = w.node("Relu", [w.conv("x", "stem", (3, 16))], "stem_relu")
    gain = np.ones((1, 16, 1, 1), np.float32)
    gain[0, 5] = 500.0
    x = w.node("Mul", [x, w.value("gain", gain)], "scaled")
    w.conv(x, "y", (16, 4), 1)
    w.weights["y.w"][:, 5] = 1e-4
    report = compare(w.model({"x": (networks.FLOAT, [2, 3, 12, 12])}, ["y"]), INT8, IMAGES)
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("n_scaled", "quantization")
    assert "channel 5 sets the range" in culprit.evidence
    assert report.costliest("emulate:int8")[0].quantized == ("n_y",)


@pytest.mark.parametrize("kind", ["qdq", "qoperator"])
def test_data_beyond_the_calibrated_range_are_one_fault_at_the_input(kind):
    w = networks.Writer(3)
    x = w.node("Relu", [w.conv("x", "one", (3, 8))], "one_relu")
    x = w.node("Relu", [w.conv(x, "two", (8, 8))], "two_relu")
    w.node("GlobalAveragePool", [x], "y")
    proto = w.model({"x": (networks.FLOAT, [2, 3, 12, 12])}, ["y"])
    calibration = [{"x": np.abs(feed["x"]).clip(0, 1)} for feed in IMAGES]
    deployed = [{"x": 255 * feed["x"]} for feed in calibration]
    report = compare(proto, quantized(proto, kind, calibration), deployed)
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("n_one", "saturation")
    assert "where 'x', an input of the graph, takes " in culprit.evidence
    assert " to 255 on these inputs" in culprit.evidence
    assert "calibration saw smaller values or its scale is 255 times too small" in culprit.evidence


def test_scales_along_another_axis_are_an_attribute_that_differs():
    scale = np.geomspace(0.01, 1, 8).astype(np.float32)
    weights = {"q": np.random.default_rng(0).integers(-127, 128, (8, 8)).astype(np.int8), "s": scale}
    text = "g (float[N, 8] x) => (float[N, 8] y) {{ w = DequantizeLinear <{}> (q, s)  y = MatMul(x, w) }}"
    one, other = (parsed(text.format(axis), **weights) for axis in ("axis=1", "axis=0"))
    culprit = only(compare(one, other, [{"x": normal(16, 8)}]))
    assert culprit.cause == "attribute"
    assert "of the weights: axis 1 against 0" in culprit.evidence


def test_coordinates_that_hold_all_the_error_are_named():
    base = np.stack(np.meshgrid(np.linspace(-1, 1, 256), np.linspace(-1, 1, 8)), -1)[None].astype(np.float32)
    proto = parsed(
        """g (float[1, 3, 8, 512] image, float[1, 8, 256, 2] flow) => (float[1, 3, 8, 256] y) {
            moved = Mul(flow, small)  grid = Add(base, moved)
            warped = GridSample <align_corners=1> (image, grid)  y = Conv(warped, w) }""",
        base=base, small=np.float32(1e-3), w=normal(3, 3, 1, 1),
    )  # fmt: skip
    report = compare(proto, FP16, [{"image": 100 * normal(1, 3, 8, 512), "flow": normal(1, 8, 256, 2)}])
    assert report.outputs[0].verdict == "undecided"
    culprit = only(report)
    assert (culprit.op, culprit.cause) == ("Add", "amplified")
    assert "(GridSample) reads as coordinates" in culprit.evidence
    assert "keep it in FP32" in culprit.evidence


def test_undecided_outputs_rank_their_layers_and_say_neither_that_they_agree_nor_that_none_is_at_fault(capsys):
    proto, data = networks.residual(), data_of("residual", 3)
    report = compare(proto, quantized(proto, "qdq", data), data)
    assert {output.verdict for output in report.outputs} == {"undecided"}
    ranked = report.costliest(report.candidates[0].name)
    assert len(ranked) >= 3
    assert [layer.contribution for layer in ranked] == sorted((la.contribution for la in ranked), reverse=True)
    shown = str(report)
    assert "nodes_to_exclude=['n_" in shown
    assert "the layers that cost the outputs of" in shown
    assert "no culprit among" not in shown
    assert not any("outputs agree" in warning for warning in report.warnings)


def with_biases() -> onnx.ModelProto:
    """Two convolutions with biases."""
    w = networks.Writer(5)
    x = "x"
    for name, channels in (("one", (3, 8)), ("two", (8, 8))):
        weights = w.weight(f"{name}.w", channels[1], channels[0], 3, 3), w.weight(f"{name}.b", channels[1])
        x = w.node("Relu", [w.node("Conv", [x, *weights], name, pads=[1] * 4)], f"{name}_relu")
    w.node("GlobalAveragePool", [x], "y")
    return w.model({"x": (networks.FLOAT, [2, 3, 12, 12])}, ["y"])


def with_a_scale_times(factor: object, name: str, kind: str) -> Culprit:
    """The first culprit of a quantized file in which one scale, or what is stored, is multiplied."""
    proto = with_biases()
    file = quantized(proto, kind, IMAGES)
    scale = next(w for w in file.graph.initializer if w.name == name)
    before = onnx.numpy_helper.to_array(scale)
    scale.CopyFrom(onnx.numpy_helper.from_array(np.asarray(before * factor, before.dtype), name))
    return compare(proto, file, IMAGES, ort=exact(file)).culprits[0]


@pytest.mark.parametrize(
    ("kind", "factor", "evidence"),
    [
        ("qdq", 1.3, "all 1.3 times the reference's"),
        ("qdq per channel", 0.7, "all 0.7 times the reference's"),
        ("qdq per channel", np.where(np.arange(8) % 4, 1, 2), "2 of 8 channels (axis 0) are multiples of the"),
    ],
)
def test_a_wrong_scale_of_weights_is_told_from_the_bias_whose_scale_no_longer_fits(kind, factor, evidence):
    culprit = with_a_scale_times(factor, "two.w_scale", kind)
    assert (culprit.node, culprit.cause) == ("n_two", "weights")
    assert evidence in culprit.evidence
    assert "scale of the weights" in culprit.remedies[0].text


def test_a_wrong_scale_of_a_bias_is_told_from_the_weights():
    culprit = with_a_scale_times(8, "two.b_quantized_scale", "qdq")
    assert (culprit.node, culprit.cause) == ("n_two", "bias")


@pytest.mark.parametrize("kind", ["qdq", "qdq per channel"])
def test_a_bias_that_was_dropped_is_told(kind):
    culprit = with_a_scale_times(0, "one.b_quantized", kind)
    assert (culprit.node, culprit.cause) == ("n_one", "weights")
    assert culprit.evidence.startswith("8 of 8 biases differ")


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_a_wrong_scale_of_a_quantizer_makes_the_error_that_it_makes_with_its_dequantizer(factor):
    file = quantized(with_biases(), "qdq", IMAGES)
    other = onnx.ModelProto()
    other.CopyFrom(file)
    scale = next(w for w in other.graph.initializer if w.name == "one_relu_scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(factor * onnx.numpy_helper.to_array(scale), scale.name))
    report = compare(file, other, IMAGES)
    culprit = only(report)
    assert culprit.op == "QuantizeLinear"
    assert culprit.contribution == pytest.approx(1, abs=0.05)
    assert all(layer.contribution is None for layer in report.layers if layer.op == "DequantizeLinear")


# -- CPUs whose 8-bit products saturate --------------------------------------------------------------------------------


class SaturatingRunner(OnnxrtRunner):
    """ONNX Runtime on a CPU without VNNI, wherever it runs: large values are wrong unless it is told otherwise."""

    def open(self, model, **options):
        session = super().open(model, **options)
        if not self.exact_int8 and any(n.op_type == "QuantizeLinear" for n in model.index.nodes):
            infer = session.infer
            session.infer = lambda feed, fetch=None: {
                n: np.where(a > 0.3, a * 0.8, a) if a.dtype == np.float32 else a for n, a in infer(feed, fetch).items()
            }
        return session


def report_of_saturating(reference, candidate, runners):
    return Comparator(
        reference, runners, candidate_model=candidate, data_loader=data_of("residual", 2), layers="guilty"
    ).compare()


def test_products_that_saturate_on_a_cpu_are_told_from_what_is_wrong_in_the_file():
    proto = networks.residual()
    file = quantized(proto, "qdq per channel", data_of("residual", 2))
    report = report_of_saturating(proto, file, [SaturatingRunner(threads=1)])
    found = [c for c in report.culprits if c.cause == "narrow-accumulator"]
    assert {"n_stem", "n_a1", "n_a2"} <= {c.node for c in found}  # what n_y makes is too small to saturate
    culprit = found[0]
    assert "add two products in 16 bits, where large ones saturate" in culprit.evidence
    assert "--ort-exact-int8" in culprit.remedies[0].text
    assert report_of_saturating(proto, file, [SaturatingRunner(threads=1, exact_int8=True)]).culprits == ()


def test_a_reference_that_saturates_is_named():
    file = quantized(networks.residual(), "qdq per channel", data_of("residual", 2))
    runners = [SaturatingRunner(threads=1), OnnxrtRunner(threads=1, optimization="basic")]
    report = report_of_saturating(file, None, runners)
    found = {c.evidence.partition(" add two")[0] for c in report.culprits if c.cause == "narrow-accumulator"}
    assert found == {f"on this CPU, 8-bit kernels of {report.runners[0].name}"}


@pytest.mark.skipif(not saturates(), reason="this CPU multiplies 8-bit integers without saturating")
def test_a_cpu_without_vnni_saturates():
    proto, data = networks.residual(), data_of("residual", 3)
    file = quantized(proto, "qdq per channel", data)
    report = Comparator(
        proto, [OnnxrtRunner(threads=1)], candidate_model=file, data_loader=data, layers="guilty"
    ).compare()
    assert {c.cause for c in report.culprits} == {"narrow-accumulator"}


@pytest.mark.skipif(not saturates(), reason="this CPU multiplies 8-bit integers without saturating")
def test_a_file_that_cannot_be_run_exactly_is_told_from_one_that_cannot_be_run():
    model = Model(quantized(networks.residual(), "qoperator", data_of("residual", 2)))
    OnnxrtRunner(threads=1).session(model).close()
    with pytest.raises(BuildError, match="may do so without --ort-exact-int8"):
        OnnxrtRunner(threads=1, exact_int8=True).session(model)
