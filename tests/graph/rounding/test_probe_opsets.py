"""One network in every opset: the probe gives one answer, also where weights are computed by the graph."""

import numpy as np
import onnx
import pytest
from layerdiff.graph.cutting.slices import backward, exploded_name
from layerdiff.graph.formats import FP16, FP32
from layerdiff.graph.index import is_fill
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.noise_probe import drawing, drawn, perturbed, recut
from layerdiff.graph.rounding.roundings import Roundings, roundings
from layerdiff.graph.specs import TensorSpec
from layerdiff.runners.onnxrt.runner import OnnxrtRunner

from support.models import infer, normal, parsed

OPSETS = [6, 7, 9, 10, 11, 12, 13, 17, 18, 21, 22, 23]
FEED = {"x": normal(2, 8, 12, 12)}
WEIGHTS = {"w": normal(16, 8, 3, 3, seed=1), "b": normal(16, seed=2)}
NETWORKS = {
    "a convolution": "c = Conv<pads=[1,1,1,1]>(x, w, b) y = Relu(c)",
    "with a pool": "c = Conv(x, w, b) r = Relu(c) p = MaxPool<kernel_shape=[2,2]>(r) y = Sigmoid(p)",
}


def network(body: str, opset: int, **weights: np.ndarray) -> Model:
    return Model(parsed(f"t (float[2,8,12,12] x) => (float[a,b,c,d] y) {{ {body} }}", opset=opset, **weights))


def noise(model: Model, candidate, alike: bool = False) -> tuple[np.ndarray, Roundings]:
    rounding = roundings(FP32, candidate)
    specs = {n: TensorSpec(n, a.dtype, a.shape) for n, a in FEED.items()}
    drawing_model = drawing(model)
    parts = recut(drawing_model, [(0, backward(model.index, ["y"], ["x"]))])
    probe = perturbed(drawing_model, parts, specs, rounding, alike=alike).model
    made = drawn(probe, FEED, 1, lambda m, f: infer(OnnxrtRunner(), m, f))
    return made[exploded_name("y", 0)] - infer(OnnxrtRunner(), model, FEED)["y"], rounding


@pytest.mark.parametrize("candidate", [FP32, FP16], ids=str)
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_expected_noise_does_not_depend_on_the_opset(name: str, opset: int, candidate) -> None:
    here, _ = noise(network(NETWORKS[name], opset, **WEIGHTS), candidate)
    there, _ = noise(network(NETWORKS[name], 17, **WEIGHTS), candidate)
    np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(here) > 0


def test_models_of_old_opsets_are_converted_once_they_need_to_be() -> None:
    assert drawing(network(NETWORKS["a convolution"], 9, **WEIGHTS)).index.opset[""] == 13
    model = network(NETWORKS["a convolution"], 10, **WEIGHTS)
    assert drawing(model) is model


@pytest.mark.parametrize("opset", [9, 17])
def test_a_fill_is_a_weight_of_one_value(opset: int) -> None:
    value = onnx.numpy_helper.from_array(np.float32([0.1]))
    model = network("w = Identity(shape) y = Conv(x, w)", opset, shape=np.asarray([16, 8, 3, 3]))
    node = onnx.helper.make_node("ConstantOfShape", ["shape"], ["w"], value=value)
    model.proto.graph.node[0].CopyFrom(node)
    weight = model.index.computed_weight("w")
    assert weight.shape == (16, 8, 3, 3)
    assert is_fill(weight)
    alike, rounding = noise(model, FP16, alike=True)
    apart, _ = noise(model, FP16)
    # a gain of all channels at once, where independent roundings average out
    y = infer(OnnxrtRunner(), model, FEED)["y"]
    gain = abs(float(np.vdot(alike, y) / np.vdot(y, y))) / rounding.gain
    assert gain > 3 * abs(float(np.vdot(apart, y) / np.vdot(y, y))) / rounding.gain
    assert 0.3 < gain / rounding.operand < 3
