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
from support.models import assembled

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
