"""The TensorRT runner on a real GPU with the real library. Run with: pytest -m gpu tests/test_trt_gpu.py

``LAYERDIFF_TACTIC_SOURCES`` names the tactic sources to use, where cuBLAS and cuDNN are not installed.
"""

import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
from layerdiff.graph.errors import BuildError, RunnerError
from layerdiff.graph.model import Model
from layerdiff.runners._trt import cuda, inspector
from layerdiff.runners.base import ShapeRange, Workload
from layerdiff.runners.latency import measure
from layerdiff.runners.trt import TrtRunner
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.gpu

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
BASE = TrtRunner(tactic_sources=os.environ.get("LAYERDIFF_TACTIC_SOURCES"), optimization_level=2)


@pytest.fixture(scope="module", autouse=True)
def tensorrt():
    pytest.importorskip("onnxruntime")
    trt = pytest.importorskip("tensorrt")
    if not cuda.gpu():
        pytest.skip(cuda.why_no_gpu())
    return trt


def model_of(nodes, inputs, outputs, weights=(), opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(v, n) for n, v in weights],
    )
    return Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


def network(batch="n", channels=128):
    """Two convolutions with Relu, one residual, global pooling, Gemm: large enough that narrow formats are faster."""
    rng = np.random.default_rng(0)

    def w(*shape):
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    c = channels
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b1"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s"], name="add"),
        helper.make_node("Relu", ["s"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="fc", transB=1),
    ]
    weights = [
        ("w1", w(c, 3, 3, 3)),
        ("b1", w(c, 1)[:, 0]),
        ("w2", w(c, c, 3, 3)),
        ("w3", w(10, c)),
        ("b3", w(10, 1)[:, 0]),
    ]
    return model_of(nodes, [("x", FLOAT, [batch, 3, 32, 32])], [("y", FLOAT, [batch, 10])], weights)


def samples(*batches):
    rng = np.random.default_rng(1)
    made = [{"x": rng.normal(size=(b, 3, 32, 32)).astype(np.float32)} for b in batches]
    return lambda: iter(made)


def reference(model, feed, fetch=None):
    import onnxruntime

    proto = onnx.ModelProto.FromString(model.serialized())
    for name in fetch or ():
        proto.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feed)), strict=True))


def distance(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def same(a, b):
    return np.asarray(a).shape == np.asarray(b).shape and bool(np.all(np.asarray(a) == np.asarray(b)))


MODES = [
    ({}, 2e-6),
    ({"tf32": True}, 3e-3),
    ({"fp16": True}, 3e-3),
    ({"int8": True}, 0.1),
    ({"int8": True, "fp16": True}, 0.1),
    ({"int8": True, "calibrator": "entropy"}, 0.1),
    ({"int8": True, "calibrator": "minmax"}, 0.1),
    ({"int8_qdq": "max"}, 0.1),
    ({"int8_qdq": "percentile"}, 0.1),
    ({"int8_qdq": "entropy"}, 0.2),
]


@pytest.mark.parametrize(("options", "bound"), MODES, ids=lambda v: str(v))
def test_modes(options, bound):
    model, data = network(), samples(8, 8)
    with replace(BASE, **options).open(model, workload=Workload(samples=data)) as session:
        for feed in data():
            error = distance(session.infer(feed)["y"], reference(model, feed)["y"])
            assert error <= bound
            if "int8" in str(options):
                assert error > 1e-5, "INT8 was not used"


def test_dynamic_batch_saved_and_loaded(tmp_path):
    model, file = network(), tmp_path / "m.engine"
    shapes = {"x": ShapeRange((1, 3, 32, 32), (4, 3, 32, 32), (32, 3, 32, 32))}
    runner = replace(BASE, save_engine=str(file))
    with runner.open(model, workload=Workload(shapes=shapes)) as session:
        built = [session.infer(feed)["y"] for feed in samples(1, 4, 32)()]
        with pytest.raises(RunnerError, match="outside the engine's profile"):
            session.infer(next(samples(33)()))
    with replace(BASE, engine=str(file)).open(model) as session:
        for feed, before in zip(samples(1, 4, 32)(), built, strict=True):
            result = session.infer(feed)["y"]
            assert same(result, before)
            assert distance(result, reference(model, feed)["y"]) < 2e-6


def test_the_same_engine_twice_is_bit_identical():
    model, (feed,) = network(8), samples(8)()
    with replace(BASE, fp16=True).open(model) as session:
        first = session.infer(feed)["y"]
        assert same(session.infer(feed)["y"], first)


def test_inner_tensors():
    model, (feed,) = network(8), samples(8)()
    with BASE.open(model) as session:
        got = session.infer(feed, ["c1", "s", "y"])
    want = reference(model, feed, ["c1", "s"])
    assert list(got) == ["c1", "s", "y"]
    for name, value in got.items():
        assert distance(value, want[name]) < 2e-6


def test_layers_are_fused_groups_of_onnx_nodes():
    model = network(8)
    with replace(BASE, fp16=True).open(model) as session:
        layers = session.layers()
        groups = inspector.groups(layers, model)
    names = model.index.names
    named = [{names[i] for i in group} for group in groups]
    assert any({"conv1", "relu1"} <= group for group in named), named
    assert any({"conv2", "add"} <= group for group in named), named
    assert set().union(*named) >= {"conv1", "relu1", "conv2", "add", "relu2", "pool", "fc"}
    assert 0 < inspector.computing(layers) <= len(model.index.nodes)
    assert any(layer.precision == "FP16" for layer in layers)


def test_kept_layers_stay_fp32():
    model, (feed,) = network(8), samples(8)()
    want = reference(model, feed)["y"]
    every = tuple(model.index.names)
    with replace(BASE, fp16=True, keep_fp32=every).open(model) as session:
        assert distance(session.infer(feed)["y"], want) < 2e-6
    with replace(BASE, fp16=True).open(model) as session:
        assert distance(session.infer(feed)["y"], want) > 1e-5, "FP16 was not used"


def test_an_unknown_operator_is_named():
    node = helper.make_node("Mystery", ["x"], ["y"], name="odd", domain="example")
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Relu", ["x"], ["r"], name="fine"),
                helper.make_node("Mystery", ["r"], ["y"], name="odd", domain="example"),
            ],
            "g",
            [helper.make_tensor_value_info("x", FLOAT, [4])],
            [helper.make_tensor_value_info("y", FLOAT, [4])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("example", 1)],
        ir_version=8,
    )
    assert node.name == "odd"
    with pytest.raises(BuildError, match=r"'odd' \(Mystery\)"):
        BASE.open(Model(proto))


def test_integers_and_booleans():
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["g"], name="gather"),
        helper.make_node("Greater", ["g", "zero"], ["b"], name="greater"),
        helper.make_node("ArgMax", ["g"], ["a"], name="argmax", axis=1, keepdims=0),
        helper.make_node("Add", ["a", "i"], ["o"], name="add"),
    ]
    table = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    model = model_of(
        nodes,
        [("i", INT64, [5])],
        [("g", FLOAT, [5, 6]), ("b", BOOL, [5, 6]), ("o", INT64, [5])],
        [("table", table), ("zero", np.zeros((), np.float32))],
    )
    feed = {"i": np.array([0, 49, 3, 7, 7])}
    want = reference(model, feed)
    with BASE.open(model) as session:
        got = session.infer(feed)
        for name, value in got.items():
            assert value.dtype == want[name].dtype
            assert same(value, want[name])
        assert list(got) == ["g", "b", "o"]


def test_a_shape_that_depends_on_the_data():
    model = model_of(
        [
            helper.make_node("NonZero", ["x"], ["nz"], name="nonzero"),
            helper.make_node("Transpose", ["nz"], ["y"], name="t"),
        ],
        [("x", FLOAT, [4, 5])],
        [("y", INT64, ["k", 2])],
    )
    rng = np.random.default_rng(0)
    with BASE.open(model) as session:
        for density in (0.3, 0.9, 0.0):
            x = (rng.random((4, 5)) < density).astype(np.float32)
            assert same(session.infer({"x": x})["y"], np.argwhere(x))


def test_an_input_that_is_a_shape():
    model = model_of(
        [
            helper.make_node("Reshape", ["x", "s"], ["r"], name="reshape"),
            helper.make_node("Relu", ["r"], ["y"], name="relu"),
        ],
        [("x", FLOAT, [4, 6]), ("s", INT64, [2])],
        [("y", FLOAT, ["a", "b"])],
    )
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    feeds = [{"x": x, "s": np.array(s)} for s in ((8, 3), (3, 8), (2, 12))]
    with BASE.open(model, workload=Workload(samples=lambda: iter(feeds))) as session:
        for feed in feeds:
            assert same(session.infer(feed)["y"], np.maximum(x.reshape(feed["s"]), 0))


def test_latency():
    model, (feed,) = network(8), samples(8)()
    with BASE.open(model) as session:
        result = measure(session, feed, 50)
    assert result.runs == 50
    assert 0 < result.gpu.min <= result.gpu.median <= result.gpu.p99
    assert result.gpu.median <= result.device.median <= result.host.median * 1.5


def test_many_builds_give_their_memory_back():
    import psutil

    model, (feed,) = network(8), samples(8)()
    free, resident = [], []
    for _ in range(12):
        with replace(BASE, fp16=True).open(model) as session:
            session.infer(feed)
        free.append(cuda.runtime().memory()[0])
        resident.append(psutil.Process().memory_info().rss)
    assert free[-1] >= free[3] - (8 << 20), free
    assert resident[-1] <= resident[5] + (24 << 20), resident


def test_pieces_of_an_int8_engine_reuse_its_calibration():
    model, data = network(8), samples(8, 8)
    runner = replace(BASE, int8=True)
    (feed, _) = data()
    with runner.open(model, workload=Workload(samples=data)) as session:
        whole = session.infer(feed)["y"]
    with runner.open(model.derive(model.proto)) as piece:
        assert distance(piece.infer(feed)["y"], whole) < 0.02
