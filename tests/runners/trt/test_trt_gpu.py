"""The TensorRT runner on a real GPU with the real library. Run with: pytest -m gpu tests/runners/trt/test_trt_gpu.py

``LAYERDIFF_TACTIC_SOURCES`` names the tactic sources to use, where cuBLAS and cuDNN are not installed.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.cli.command import main
from layerdiff.graph.engine import facts_path
from layerdiff.graph.errors import BuildError, RunnerError
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.runners.contract.workload import ShapeRange, Workload
from layerdiff.runners.trt import cuda, inspector
from layerdiff.runners.trt.runner import TrtRunner
from onnx import TensorProto, helper, numpy_helper

from support.models import assembled
from support.paths import SUPPORT

pytestmark = pytest.mark.gpu

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
SOURCES = os.environ.get("LAYERDIFF_TACTIC_SOURCES")
BASE = TrtRunner(tactic_sources=SOURCES, optimization_level=2)
OPTIONS = ["--trt-optimization-level", "2", *(["--tactic-sources", SOURCES] if SOURCES else [])]


@pytest.fixture(scope="module", autouse=True)
def tensorrt():
    pytest.importorskip("onnxruntime")
    trt = pytest.importorskip("tensorrt")
    if not cuda.gpu():
        pytest.skip(cuda.why_no_gpu())
    return trt


def model_of(nodes, inputs, outputs, weights=(), opset=17):
    return Model(assembled(nodes, inputs, outputs, dict(weights), opset=opset))


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


def ranges(*batches):
    low, best, high = batches if len(batches) == 3 else batches * 3
    return ShapeRange((low, 3, 32, 32), (best, 3, 32, 32), (high, 3, 32, 32))


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
    with replace(BASE, fp16=True, keep=every).open(model) as session:
        assert distance(session.infer(feed)["y"], want) < 2e-6
    with replace(BASE, fp16=True).open(model) as session:
        assert distance(session.infer(feed)["y"], want) > 1e-5, "FP16 was not used"


def test_an_unknown_operator_is_named():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="fine"),
        helper.make_node("Mystery", ["r"], ["y"], name="odd", domain="example"),
    ]
    proto = assembled(nodes, [("x", FLOAT, [4])], [("y", FLOAT, [4])], domains=["example"])
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
        result = session.latency(feed, 50)
    assert result.runs == 50
    assert 0 < result.gpu.min <= result.gpu.median <= result.gpu.p99
    assert result.gpu.median <= result.device.median <= result.host.median * 1.5
    assert {"conv1", "fc"} <= {node for kernel in result.kernels for node in kernel.nodes}
    assert 0 < sum(kernel.milliseconds for kernel in result.kernels) <= 10 * result.gpu.median


def test_many_builds_give_their_memory_back():
    """Ten engines in one process, no two alike: modes, profiles, inner tensors, latency."""
    import psutil

    options = [{}, {"fp16": True}, {"int8": True}, {"tf32": True}, {"fp16": True, "int8_qdq": "max"}]
    free, resident = [], []
    for number in range(10):
        model, data = network("n" if number % 2 else 4, channels=16 + 8 * number), samples(4, 4)
        sets = tuple({"x": ranges(n)} for n in (4, 8)) if number % 4 == 1 else ()
        runner = replace(BASE, optimization_level=0, **options[number % len(options)])
        with runner.open(model, workload=Workload(samples=data, profiles=sets)) as session:
            (feed, _) = data()
            session.infer(feed)
            if number % 5 == 0:
                session.infer(feed, ["c1", "y"])
            if number % 7 == 0:
                session.latency(feed, 3)
        free.append(cuda.runtime().memory()[0])
        resident.append(psutil.Process().memory_info().rss)
    print("free device memory, MB:", [f >> 20 for f in free], "resident, MB:", [r >> 20 for r in resident])
    assert free[-1] >= free[4] - (16 << 20), free
    assert resident[-1] <= resident[4] + (64 << 20), resident


def test_pieces_of_an_int8_engine_reuse_its_calibration():
    model, data = network(8), samples(8, 8)
    runner = replace(BASE, int8=True)
    (feed, _) = data()
    with runner.open(model, workload=Workload(samples=data)) as session:
        whole = session.infer(feed)["y"]
        deployed = session.info
    with runner.for_pieces(deployed).open(model.derive(model.proto)) as piece:
        assert distance(piece.infer(feed)["y"], whole) < 0.02


# --- several profiles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fp16": True}, {"int8": True}], ids=str)
def test_several_profiles_in_one_engine(tmp_path, options):
    model, file = network(), tmp_path / "m.engine"
    sets = tuple({"x": ranges(*r)} for r in ((1,), (2, 4, 8), (1, 16, 32)))
    workload = Workload(samples=samples(4, 4), profiles=sets)
    expected = {1: 0, 4: 1, 8: 1, 16: 2, 9: 2}
    results = {}
    with replace(BASE, save_engine=str(file), **options).open(model, workload=workload) as session:
        assert len(session.info.options["profiles"]) == 3
        told = session.info.options["by_profile"]
        print(told, [layer["Name"] for layer in json.loads(session.inspector_text(), strict=False)["Layers"]])
        assert {layer.profile for layer in session.layers()} == {0, 1, 2}
        assert all(0 < one["layers_engine"] <= len(model.index.nodes) for one in told)
        for mode in options:
            assert all(mode.upper() in one["formats"] for one in told), "formats are told of dynamic shapes"
        for batch in (1, 8, 16, 1, 9, 4, 32, 1):
            (feed,) = samples(batch)()
            result = session.infer(feed)["y"]
            assert distance(result, reference(model, feed)["y"]) < (0.2 if "int8" in options else 3e-3)
            if batch in expected:
                assert session._context.active_optimization_profile == expected[batch]
            results.setdefault(batch, result)
            assert same(results[batch], result), "a profile that was left and chosen again gives the same bits"
        with pytest.raises(RunnerError, match=r"fits none of the engine's 3 profiles \(x: 1x3x32x32; x: 2x3.*; x: 1x3"):
            session.infer(next(samples(33)()))
        result = session.latency(next(samples(8)()), 10)
        assert result.runs == 10
    with BASE.for_model(load(file)).open(load(file)) as session:
        for batch, before in results.items():
            assert same(session.infer(next(samples(batch)()))["y"], before)


def test_samples_of_several_shapes_layer_by_layer():
    runners = [OnnxrtRunner(), replace(BASE, fp16=True)]
    data = list(samples(1, 8, 3)())
    sets = [{"x": ranges(*r)} for r in ((1,), (2, 4, 8))]
    report = Comparator(network(), runners, data_loader=data, shapes=sets, layers="guilty").compare()
    print(report.fidelity, [(layer.node, layer.expected) for layer in report.layers])
    assert report.verdict == "pass"
    assert report.culprits == ()
    assert 0.5 < report.fidelity[0].share < 2, "pieces run in the formats of the deployed engine"


# --- engines in files -------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """An ONNX file and the FP16 engine built from it by the command."""
    source, engine = tmp_path / "net.onnx", tmp_path / "net.engine"
    onnx.save(network(8).proto, source)
    assert main([str(source), "--onnxrt", "--trt=fp16", "--save-engine", str(engine), *OPTIONS]) == 0
    return source, engine


def test_an_engine_is_a_model(saved, capsys):
    source, engine = saved
    capsys.readouterr()
    assert main([str(engine), "--trt", "--onnxrt", "--layers", "--json", "-", *OPTIONS]) == 0
    out, err = capsys.readouterr()
    print(err)
    report = json.loads(out)
    assert [r["name"] for r in report["runners"]] == ["onnxrt", "trt:fp16"]
    assert report["runners"][1]["options"]["engine"] == str(engine)
    assert report["layers"], "pieces are built in the formats of the engine"
    assert report["fidelity"][0]["share"] > 0.5
    assert main([str(engine), str(engine), "--trt", *OPTIONS]) == 0  # the same engine twice
    assert main([str(engine), str(source), "--trt", *OPTIONS]) in (0, 1)  # the engine against a fresh FP32 build
    facts_path(engine).unlink()
    assert main([str(engine), "--trt", "--trt", *OPTIONS]) == 0
    assert main([str(engine), "--trt", "--onnxrt", *OPTIONS]) == 2
    assert "nothing beside net.engine says which ONNX file" in capsys.readouterr().err
    assert main([str(engine), str(source), "--trt", "--fp16", "--onnxrt", *OPTIONS]) == 0
    capsys.readouterr()
    other = onnx.load(source)
    weight = next(t for t in other.graph.initializer if t.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.1), "w2"))
    onnx.save(other, source)
    assert main([str(engine), str(source), "--trt", "--fp16", "--onnxrt", *OPTIONS]) == 1, "never a false pass"


def test_pieces_of_a_loaded_int8_engine_are_calibrated_as_it_was(tmp_path):
    model, data = network(8), samples(8, 8)
    file = tmp_path / "m.engine"
    source = tmp_path / "m.onnx"
    onnx.save(model.proto, source)
    (feed, _) = data()
    with replace(BASE, int8=True, save_engine=str(file)).open(load(source), workload=Workload(samples=data)) as session:
        whole = session.infer(feed)["y"]
    loaded = load(file)
    runner = BASE.for_model(loaded)
    assert runner.name == "trt:int8"
    with runner.open(loaded) as session:
        assert same(session.infer(feed)["y"], whole)
        deployed = session.info
    with runner.for_pieces(deployed).open(loaded.derive(loaded.proto)) as piece:
        assert distance(piece.infer(feed)["y"], whole) < 0.02


# --- what is observed and what is deployed ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fp16": True}, {"int8": True}], ids=str)
def test_observed_runs_say_how_much_they_show(options):
    runners = [OnnxrtRunner(), replace(BASE, **options)]
    report = Comparator(network(8), runners, data_loader=list(samples(8, 8)()), layers="guilty").compare()
    (found,) = report.fidelity
    print(found, [r.repeat for r in report.runners], [r.notes for r in report.runners])
    assert found.share is not None
    assert found.share > 0.1
    if options == {"fp16": True}:
        assert 0.5 < found.share < 2
    assert report.runners[1].repeat["bit_identical"]
    assert any("ONNX nodes" in note and "fused into" in note for note in report.runners[1].notes)


def test_two_builds_without_a_timing_cache_are_compared_on_request():
    runners = [replace(BASE, fp16=True, timing_cache="off")] * 2
    report = Comparator(network(8), runners, data_loader=list(samples(8)())).compare()
    print([(o.verdict, o.metrics["max_abs"], o.metrics["rel_l2"]) for o in report.outputs])
    assert [r.name for r in report.runners] == ["trt:fp16", "trt:fp16#2"]
    assert report.verdict == "pass"


# --- failures of the builder and of the loader ------------------------------------------------------------------------


def _top_k():
    k = ("k", np.array([3000], np.int64))
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="before"),
        helper.make_node("TopK", ["r", "k"], ["v", "i"], name="choose"),
    ]
    return model_of(nodes, [("x", FLOAT, [64, 200000])], [("v", FLOAT, [64, 3000]), ("i", INT64, [64, 3000])], [k])


def _lstm():
    rng = np.random.default_rng(0)
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="memory", hidden_size=256)
    weights = [
        (n, (rng.normal(size=s) / 16).astype(np.float32)) for n, s in (("w", (1, 1024, 64)), ("r", (1, 1024, 256)))
    ]
    return model_of([node], [("x", FLOAT, [32, 64, 64])], [("y", FLOAT, [32, 1, 64, 256])], weights)


FAILURES = [
    # name, model, fields of TrtRunner, the node that has to be named
    ("TopK without workspace", _top_k, {"workspace": 1}, "choose"),
    ("LSTM without workspace", _lstm, {"workspace": 1}, "memory"),
]

DAMAGED = {
    "text": lambda data: b"this is not an engine\n" * 100,
    "half": lambda data: data[: len(data) // 2],
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of every failure: ``built``, the error, or ``crashed``."""
    folder, jobs = tmp_path_factory.mktemp("failures"), []
    for name, make, options, _ in FAILURES:
        path = folder / f"{name.replace(' ', '_')}.onnx"
        onnx.save(make().proto, path)
        jobs.append([name, str(path), {"optimization_level": 2, "tactic_sources": SOURCES, **options}])
    source, engine = folder / "net.onnx", folder / "net.engine"
    onnx.save(network(2, channels=16).proto, source)
    replace(BASE, save_engine=str(engine)).open(load(source)).close()
    for name, damage in DAMAGED.items():
        path = folder / f"{name.replace(' ', '_')}.engine"
        path.write_bytes(damage(engine.read_bytes()))
        jobs.append([name, str(source), {"engine": str(path)}])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    found = {}
    while jobs:
        command = [sys.executable, str(SUPPORT / "trt_child.py")]
        done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, env=environment)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        found.update(lines)
        jobs = jobs[len(lines) :]
        if jobs:  # it crashed on the next one
            found[jobs.pop(0)[0]] = f"crashed with status {done.returncode}: {done.stderr[-300:]}"
    for name, text in found.items():
        print(f"{name}: {text}")
    return found


@pytest.mark.parametrize(("name", "make", "options", "node"), FAILURES, ids=[f[0] for f in FAILURES])
def test_a_builder_failure_names_the_node(outcomes, name, make, options, node):
    text = outcomes[name]
    assert text.startswith(f"BuildError: TensorRT {tensorrt_version()} cannot build node {node!r} of "), text
    assert "\n" not in text


def tensorrt_version():
    import tensorrt

    return tensorrt.__version__


@pytest.mark.parametrize("name", DAMAGED)
def test_an_engine_that_cannot_be_loaded_is_refused_in_one_line(outcomes, name):
    text = outcomes[name]
    assert text.startswith("RunnerError: TensorRT "), text
    assert "\n" not in text
    assert " cannot load " in text


def test_an_engine_in_a_process_of_its_own_gives_the_same_report(tmp_path, capsys):
    """Isolated, TensorRT builds the same kernels (one timing cache) and gives the same bits, layer by layer too."""
    path, cache = tmp_path / "net.onnx", str(tmp_path / "timings")
    onnx.save(network().proto, path)
    words = [str(path), "--onnxrt", "--trt=fp16", "--shape", "x:8x3x32x32", "--layers=all", "--json", "-", *OPTIONS]
    reports = []
    for isolate in ("off", "off", "on"):  # the first fills the cache
        assert main([*words, "--timing-cache", cache, "--isolate", isolate]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[2]["outputs"] == reports[1]["outputs"]
    assert reports[2]["layers"] == reports[1]["layers"]


def test_a_culprit_on_tensorrt_is_reduced(tmp_path, capsys):
    """An overflow between two scales: one or two nodes, and a script that shows it with TensorRT alone."""
    path = tmp_path / "net.onnx"
    proto = onnx.ModelProto.FromString(network().serialized())
    for tensor in proto.graph.initializer:
        if tensor.name in ("w1", "b1", "w3"):
            factor = np.float32(1e-6 if tensor.name == "w3" else 1e6)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, tensor.name))
    onnx.save(proto, path)
    report, bundle = str(tmp_path / "report.json"), tmp_path / "bundle"
    words = [str(path), "--onnxrt", "--trt=fp16", "--shape", "x:8x3x32x32", "--layers", "--json", report, "-q"]
    assert main([*words, *OPTIONS]) == 1
    capsys.readouterr()
    assert main(["reduce", report, "-o", str(bundle)]) == 0
    print((bundle / "ISSUE.md").read_text())
    assert len(onnx.load(bundle / "reference.onnx").graph.node) <= 5
    done = subprocess.run([sys.executable, "reproduce.py"], cwd=bundle, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "DIFFERENT")


def test_an_engine_with_the_weights_of_others_computes_what_theirs_does():
    rng = np.random.default_rng(3)

    def block():
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
            helper.make_node("Add", ["p", "b"], ["s"], name="sum"),
            helper.make_node("LayerNormalization", ["s", "g", "o"], ["n"], name="norm"),
            helper.make_node("Softmax", ["n"], ["y"], name="softmax"),
        ]
        shapes = {"w": (256, 256), "b": (256,), "g": (256,), "o": (256,)}
        weights = {name: rng.normal(size=shape).astype(np.float32) / 16 for name, shape in shapes.items()}
        return model_of(nodes, [("x", FLOAT, [64, 256])], [("y", FLOAT, [64, 256])], weights)

    one, other, runner = block(), block(), replace(BASE, fp16=True)
    feed = {"x": rng.normal(size=(64, 256)).astype(np.float32)}
    work = Workload(shapes={"x": ShapeRange(*(3 * [(64, 256)]))})
    made = runner.build(one, work, True)
    again = runner.refit(other, made, one)
    results = {}
    for name, engine, model in (
        ("one", made, one),
        ("again", again, other),
        ("other", runner.build(other, work), other),
    ):
        with runner.opened_on(engine).open(model, workload=work) as session:
            results[name] = session.infer(feed)["y"]
    assert distance(results["again"], results["other"]) < 1e-3
    assert distance(results["one"], results["other"]) > 1e-2
