"""Operators that ONNX Runtime writes into the models that it saves: types behind them, and comparing such models."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from layerdiff import Comparator, DataLoader, OnnxrtRunner
from layerdiff.graph.load import load
from onnx import TensorProto, helper
from packaging.version import Version

from support import networks
from support.models import assembled, parsed

FLOAT = TensorProto.FLOAT
MICROSOFT, BLOCKED = "com.microsoft", "com.microsoft.nchwc"
WEIGHTS = {"w": (8, 4, 3, 3), "m": (6, 5), "v": (5,)}


@pytest.mark.parametrize(
    ("op", "domain", "inputs", "attributes", "shape"),
    [
        ("FusedConv", MICROSOFT, ["x", "w"], {"activation": "Relu", "pads": [1, 1, 1, 1]}, (2, 8, 7, 7)),
        ("Gelu", MICROSOFT, ["x"], {}, (2, 4, 7, 7)),
        ("QuickGelu", MICROSOFT, ["x"], {"alpha": 1.702}, (2, 4, 7, 7)),
        ("SkipLayerNormalization", MICROSOFT, ["x", "x", "v"], {}, (2, 4, 7, 7)),
        ("SimplifiedLayerNormalization", "", ["x", "v"], {}, (2, 4, 7, 7)),
        ("FusedGemm", MICROSOFT, ["a", "m"], {"activation": "Relu", "transA": 1}, (3, 5)),
        ("FusedMatMul", MICROSOFT, ["q", "q"], {"transB": 1}, (9, 2, 3, 3)),
        ("FusedMatMul", MICROSOFT, ["q", "q"], {"transB": 1, "transBatchA": 1, "transBatchB": 1}, (2, 3, 9, 9)),
        ("Conv", BLOCKED, ["x", "w"], {"strides": [2, 2]}, (2, 8, 3, 3)),
        ("ReorderOutput", BLOCKED, ["x"], {"channels": 3}, (2, 3, 7, 7)),
        ("ReorderOutput", BLOCKED, ["x"], {"channels": 3, "channels_last": 1}, (2, 7, 7, 3)),
        ("Attention", MICROSOFT, ["x", "v"], {"num_heads": 1}, None),
    ],
)
def test_shapes_go_on_behind_operators_of_onnx_runtime(op, domain, inputs, attributes, shape) -> None:
    nodes = [
        helper.make_node(op, inputs, ["t"], domain=domain, **attributes),
        helper.make_node("Relu", ["t"], ["u"]),
        helper.make_node("Shape", ["u"], ["n"]),
        helper.make_node("Identity", ["u"], ["y"]),
    ]
    shapes = {"x": [2, 4, 7, 7], "a": [6, 3], "q": [9, 2, 3, 6]}
    given = [(n, FLOAT, s) for n, s in shapes.items()]
    weights = {n: np.ones(s, np.float32) for n, s in WEIGHTS.items()}
    outputs = [("y", FLOAT, None), ("n", TensorProto.INT64, None)]
    specs = load(assembled(nodes, given, outputs, weights)).index.specs
    assert {specs[n].dtype for n in "tu"} == {np.dtype(np.float32)}
    assert specs["n"].dtype == np.int64
    if op == "FusedMatMul" and Version(onnx.__version__) < Version("1.17"):
        shape = specs["t"].shape  # its shape inference does not know Einsum's ellipsis yet
    assert specs["t"].shape == specs["u"].shape == shape


@pytest.mark.parametrize(
    ("op", "inputs", "dtype"),
    [
        ("QGemm", "q s z w s z b s z", np.uint8),
        ("QGemm", "q s z w s z b", np.float32),
        ("QLinearAdd", "q s z q s z s z", np.uint8),
        ("QLinearMul", "q s z q s z s z", np.uint8),
        ("QLinearConcat", "s z q s z q s z", np.uint8),
        ("QLinearConv", "q s z w s z s i", np.int8),
        ("QLinearWhere", "c q s z q s z s z", np.uint8),
        ("QLinearSigmoid", "q s z s z", np.uint8),
        ("QLinearSoftmax", "q s z s z", np.uint8),
        ("QLinearLeakyRelu", "q s z s z", np.uint8),
        ("QLinearGlobalAveragePool", "q s z s z", np.uint8),
        ("QOrderedMatMul", "i s i s s", np.int8),
        ("MatMulIntegerToFloat", "q w s s z z", np.float32),
        ("DynamicQuantizeMatMul", "x w s z", np.float32),
    ],
)
def test_operators_on_scaled_integers_give_integers_unless_their_output_has_no_scale(op, inputs, dtype) -> None:
    nodes = [helper.make_node(op, inputs.split(), ["t"], domain=MICROSOFT), helper.make_node("Identity", ["t"], ["y"])]
    given = [("q", TensorProto.UINT8, [4, 4]), ("c", TensorProto.BOOL, [4, 4]), ("x", FLOAT, [4, 4])]
    weights = {
        "s": np.float32(0.5), "z": np.uint8(3), "i": np.zeros((), np.int8), "b": np.zeros(4, np.int32),
        "w": np.ones((4, 4), np.uint8),
    }  # fmt: skip
    outputs = [("y", onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)]
    assert load(assembled(nodes, given, outputs, weights)).index.specs["t"].dtype == dtype


def test_the_mask_that_an_embedding_gives_is_of_integers() -> None:
    inputs = ["n", "", "w", "w", "", "v", "v"]
    nodes = [
        helper.make_node("EmbedLayerNormalization", inputs, ["t", "m"], domain=MICROSOFT),
        helper.make_node("Identity", ["m"], ["y"]),
    ]
    weights = {"w": np.ones((4, 4), np.float32), "v": np.ones(4, np.float32)}
    model = assembled(nodes, [("n", TensorProto.INT32, [1, 4])], [("y", TensorProto.INT32, None)], weights)
    specs = load(model).index.specs
    assert [specs[name].dtype for name in "tm"] == [np.float32, np.int32]


@pytest.mark.parametrize(("integers", "opset"), [(np.int16, 21), (np.uint8, 17)])
def test_quantizers_of_onnx_runtimes_domain_are_those_of_onnx(integers, opset) -> None:
    # what quantize_static writes with UseQDQContribOps, and for 16 bits before opset 21
    rng = np.random.default_rng(0)
    top = np.iinfo(integers).max
    text = "g (float[N, 8] x) => (float[N, 8] y) {{ {} h = MatMul({}, v) a = Relu(h) {} y = MatMul({}, w) }}"
    pair = "{0}q = {2}QuantizeLinear({0}, {1}, z) {0}d = {2}DequantizeLinear({0}q, {1}, z)"
    weights = {n: rng.normal(size=(8, 8)).astype(np.float32) / 3 for n in "vw"}
    steps = {n: np.float32(4 / top) for n in "st"}
    zero = np.array(0 if integers == np.int16 else top // 2 + 1, integers)
    whole = parsed(text.format("", "x", "", "a"), **weights)
    data = [{"x": rng.normal(size=(64, 8)).astype(np.float32) / 4}]
    reports = []
    for domain in ("", f"{MICROSOFT}."):
        inner = [pair.format(name, step, domain) for name, step in (("x", "s"), ("a", "t"))]
        quantized = text.format(inner[0], "xd", inner[1], "ad")
        other = parsed(quantized, opset=opset, domains=[MICROSOFT] * bool(domain), **weights, **steps, z=zero)
        runners = [OnnxrtRunner()]
        report = Comparator(whole, runners, candidate_model=other, data_loader=data, layers="all").compare()
        specs = load(other).index.specs
        assert specs["xq"].dtype == integers
        assert specs["xd"].shape == specs["xq"].shape == ("N", 8)
        reports.append([(layer.tensor, layer.verdict, layer.cause) for layer in report.layers])
    assert reports[0] == reports[1]
    assert [tensor for tensor, verdict, _ in reports[0] if verdict != "unmatched"] == ["h", "a", "y"]


@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
@pytest.mark.parametrize("name", [f.__name__ for f in networks.FEEDS])
def test_no_layer_of_a_model_that_onnx_runtime_optimized_and_saved_is_guilty(name, level, tmp_path) -> None:
    """The file is run as it is: its operators are those of ONNX Runtime, and its tensors have other layouts."""
    make = next(f for f in networks.FEEDS if f.__name__ == name)
    before, after = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    onnx.save(make(), before)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(after)
    options.log_severity_level = 4
    ort.InferenceSession(before, options, providers=["CPUExecutionProvider"])
    report = Comparator(
        str(before), [OnnxrtRunner()], candidate_model=str(after), data_loader=DataLoader(), layers="guilty"
    ).compare()
    assert [(c.node, c.cause, c.evidence) for c in report.culprits] == []
    assert not [w for w in report.warnings if "stopped" in w]
