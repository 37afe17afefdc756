"""Types and Q/DQ nodes written into the graph, as TensorRT 11 takes them; run by ONNX Runtime on the CPU."""

import numpy as np
import onnx
import pytest
from layerdiff.graph.errors import UsageError
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.qdq import activations, products, quantize
from layerdiff.graph.rounding.rewrite import Note
from layerdiff.graph.rounding.typed import narrow_weight, typed
from onnx import TensorProto, helper, numpy_helper

from support import networks
from support.models import assembled

FLOAT, FLOAT16, INT64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL


def model_of(nodes, inputs, outputs, weights=(), opset=17):
    return Model(assembled(nodes, inputs, outputs, dict(weights), opset=opset, ir=9))


def run(model, feed):
    onnx.checker.check_model(model.proto)
    return networks.run(model.proto, feed)


def elem_type(model, name):
    inferred = onnx.shape_inference.infer_shapes(model.proto, strict_mode=True, data_prop=True)
    infos = (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input)
    return {i.name: i.type.tensor_type.elem_type for i in infos}[name]


def distance(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def network():
    """Conv, Relu, Resize (float scales), Conv with a residual, pooling, MatMul, an integer path and a comparison."""
    rng = np.random.default_rng(0)
    w = [
        ("w1", (rng.normal(size=(4, 3, 3, 3)) / 5).astype(np.float32)),
        ("w2", (rng.normal(size=(4, 4, 3, 3)) / 6).astype(np.float32)),
        ("w3", (rng.normal(size=(4, 5)) / 2).astype(np.float32)),
        ("scales", np.array([1, 1, 2, 2], np.float32)),
        ("zero", np.float32(0)),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Resize", ["r1", "", "scales"], ["u"], name="resize", mode="nearest"),
        helper.make_node("Conv", ["u", "w2"], ["c2"], name="conv2", pads=[1] * 4),
        helper.make_node("Add", ["c2", "u"], ["s"], name="add"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "w3"], ["y"], name="fc"),
        helper.make_node("ArgMax", ["y"], ["best"], name="best", axis=1),
        helper.make_node("Greater", ["y", "zero"], ["positive"], name="greater"),
    ]
    outputs = [("y", FLOAT, ["n", 5]), ("best", INT64, ["n", 1]), ("positive", BOOL, ["n", 5])]
    return model_of(nodes, [("x", FLOAT, ["n", 3, 8, 8])], outputs, w)


FEED = {"x": np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype(np.float32)}


# --- types ------------------------------------------------------------------------------------------------------------


def test_fp16_is_computed_in_and_the_borders_stay_fp32():
    model = network()
    narrow = typed(model, "fp16").model
    want, got = run(model, FEED), run(narrow, FEED)
    assert [(n, a.dtype) for n, a in got.items()] == [(n, a.dtype) for n, a in want.items()]
    assert 1e-6 < distance(got["y"], want["y"]) < 5e-3
    for inner in ("c1", "r1", "u", "c2", "s", "p", "f"):
        assert elem_type(narrow, inner) == FLOAT16, inner
    assert elem_type(narrow, "x") == elem_type(narrow, "y") == FLOAT
    types = {t.name: t.data_type for t in narrow.proto.graph.initializer}
    assert types["scales"] == FLOAT, "Resize takes its scales in FP32 alone"
    assert {types[n] for n in types if n.startswith("w")} == {FLOAT16}


def test_kept_nodes_stay_fp32():
    model = network()
    every = typed(model, "fp16", keep=model.index.names).model
    np.testing.assert_array_equal(run(every, FEED)["y"], run(model, FEED)["y"])
    kept = typed(model, "fp16", keep=["conv2"])
    one = kept.model
    assert "conv1" in kept.nodes
    assert "conv2" not in kept.nodes
    assert (elem_type(one, "c2"), elem_type(one, "s"), elem_type(one, "u")) == (FLOAT, FLOAT16, FLOAT16)


def test_bf16_is_written():
    narrow = typed(network(), "bf16").model
    types = {t.name: t.data_type for t in narrow.proto.graph.initializer}
    assert {types[n] for n in types if n.startswith("w")} == {TensorProto.BFLOAT16}


def test_a_tensor_that_a_subgraph_captures_keeps_its_name_and_type():
    def branch(op):
        out = helper.make_tensor_value_info("z", FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["m"], ["z"])], op, [], [out])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="mm"),
        helper.make_node("If", ["flag"], ["i"], name="if", then_branch=branch("Relu"), else_branch=branch("Neg")),
        helper.make_node("MatMul", ["i", "w"], ["y"], name="mm2"),
    ]
    w = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    model = model_of(nodes, [("x", FLOAT, [2, 4]), ("flag", BOOL, [])], [("y", FLOAT, [2, 4])], [("w", w)])
    narrow = typed(model, "fp16").model
    for flag in (True, False):
        feed = {"x": np.ones((2, 4), np.float32), "flag": np.array(flag)}
        assert 0 < distance(run(narrow, feed)["y"], run(model, feed)["y"]) < 5e-3


WEIGHTS = [
    # value, what FP16 holds of it
    (1.0, 1.0),
    (1e6, 65504.0),
    (-1e6, -65504.0),
    (1e-9, 2.0**-24),
    (-1e-9, -(2.0**-24)),
    (0.0, 0.0),
    (np.inf, np.inf),
]


@pytest.mark.parametrize(("value", "stored"), WEIGHTS)
def test_weights_out_of_range_are_clamped_and_lifted(value, stored):
    tensor = narrow_weight(np.array([value], np.float32), "fp16", "w")
    assert numpy_helper.to_array(tensor)[0] == np.float16(stored)


def test_nan_stays_nan():
    assert np.isnan(numpy_helper.to_array(narrow_weight(np.array([np.nan], np.float32), "fp16", "w"))).all()


def test_another_format_is_refused():
    with pytest.raises(UsageError, match="int4: graphs can be typed as fp16 or bf16"):
        typed(network(), "int4")


# --- Q/DQ -------------------------------------------------------------------------------------------------------------


def ranges(model):
    proto = onnx.ModelProto.FromString(model.serialized())
    for name in activations(model.index):
        if name not in FEED:
            proto.graph.output.append(
                helper.make_tensor_value_info(name, FLOAT, [None] * len(model.index.specs[name].shape))
            )
    values = {**run(Model(proto), FEED), **FEED}
    return {name: float(np.abs(values[name]).max()) for name in activations(model.index)}


@pytest.mark.parametrize(("fmt", "bound"), [("int8", 0.05), ("fp8", 0.2)])
def test_quantized_products_give_nearly_the_same(fmt, bound):
    model = network()
    assert activations(model.index) == ["x", "u", "f"]
    rewritten = quantize(model, fmt, ranges(model))
    assert rewritten.notes == (Note("Q/DQ nodes stand before 3 of 3 matrix products."),)
    assert rewritten.nodes == {"conv1", "conv2", "fc"}
    error = distance(run(rewritten.model, FEED)["y"], run(model, FEED)["y"])
    assert 1e-4 < error < bound


def test_weights_have_a_scale_per_output_channel_and_values_at_its_ends():
    model = network()
    narrow = quantize(model, "int8", ranges(model)).model
    scales = {t.name: numpy_helper.to_array(t) for t in narrow.proto.graph.initializer if t.name.endswith("_scale")}
    w1 = numpy_helper.to_array(model.index.initializers["w1"])
    np.testing.assert_allclose(scales["w1_axis0_scale"], np.abs(w1).max((1, 2, 3)) / 127)
    assert scales["x_scale"].shape == ()
    assert scales["w3_axis1_scale"].shape == (5,)
    convs = [n for n in narrow.proto.graph.node if n.op_type == "Conv"]
    for node in convs:  # TensorRT cannot see the weights behind Q/DQ nodes
        assert [list(a.ints) for a in node.attribute if a.name == "kernel_shape"] == [[3, 3]]


def test_kept_nodes_and_tensors_without_a_range_stay_unquantized():
    model = network()
    assert products(model.index, ["conv1"]) == [3, 7]
    known = {**ranges(model), "u": float("nan")}
    rewritten = quantize(model, "int8", known, keep=["conv1"])
    assert rewritten.notes == (Note("Q/DQ nodes stand before 1 of 2 matrix products."),)
    assert sum(n.op_type == "QuantizeLinear" for n in rewritten.model.proto.graph.node) == 2


def test_int8_and_fp16_types_together():
    model = network()
    quantized = quantize(model, "int8", ranges(model), opset=19).model
    narrow = typed(quantized, "fp16").model
    assert distance(run(narrow, FEED)["y"], run(model, FEED)["y"]) < 0.05
    assert elem_type(narrow, "c1") == FLOAT16


def test_a_quantized_model_is_left_alone():
    model = network()
    once = quantize(model, "int8", ranges(model)).model
    again = quantize(once, "int8", {})
    assert again.model is once
    assert "already" in again.notes[0].text


@pytest.mark.parametrize(
    ("fmt", "known", "message"),
    [("int4", {}, "int4: graphs can be quantized to int8 or fp8"), ("int8", {}, "nothing to quantize")],
)
def test_what_cannot_be_quantized_is_refused(fmt, known, message):
    with pytest.raises(UsageError, match=message):
        quantize(network(), fmt, known)
