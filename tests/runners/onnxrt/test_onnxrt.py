"""The onnxrt runner: what it computes, what it carries, and that it never answers from another provider."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import types
import weakref
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from layerdiff.graph.errors import BuildError, MissingPackage, ProviderUnavailable, RunnerError, UsageError
from layerdiff.graph.formats import FP16, FP32, TF32
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.graph.specs import dtype_from_onnx
from layerdiff.runners import discover
from layerdiff.runners.contract.options import options_of
from layerdiff.runners.onnxrt import config, loading
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from onnx import TensorProto, helper, numpy_helper

from support.models import infer, parsed

ort = pytest.importorskip("onnxruntime")
info = helper.make_tensor_value_info


def make(nodes, inputs, outputs, weights=(), opset=21):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.fixture
def chain():
    """y = -relu(x @ w + b)."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=s).astype("f"), n) for n, s in (("w", (4, 3)), ("b", (3,)))]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["mm"], name="product"),
        helper.make_node("Add", ["mm", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["act"]),
        helper.make_node("Neg", ["act"], ["y"]),
    ]
    return make(nodes, [info("x", 1, ["N", 4])], [info("y", 1, ["N", 3])], weights)


def identity(elem_type):
    return make(
        [helper.make_node("Identity", ["x"], ["y"])], [info("x", elem_type, None)], [info("y", elem_type, None)]
    )


# -- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runner", "name", "trust", "arithmetic"),
    [
        (OnnxrtRunner(), "onnxrt", 10, FP32),
        (OnnxrtRunner(tf32=True), "onnxrt", 10, FP32),
        (OnnxrtRunner(provider="cuda"), "onnxrt:cuda", 30, FP32),
        (OnnxrtRunner(provider="cuda", tf32=True), "onnxrt:cuda", 30, TF32),
        (OnnxrtRunner(provider="tensorrt"), "onnxrt:tensorrt", 30, TF32),
    ],
)
def test_configuration(runner, name, trust, arithmetic, monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    assert (runner.name, runner.trust, runner.arithmetic) == (name, trust, arithmetic)
    assert pickle.loads(pickle.dumps(runner)) == runner
    assert eval(repr(runner)) == runner


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"provider": "vulkan"}, "provider=vulkan: expected cpu, cuda, tensorrt"),
        ({"optimization": "most"}, "optimization=most: expected disable, basic"),
        ({"threads": -1}, "threads=-1: expected a whole number from 0 to"),
    ],
)
def test_illegal_configuration(arguments, message):
    with pytest.raises(UsageError, match=message):
        OnnxrtRunner(**arguments)


def test_from_the_command_line():
    assert discover(third_parties=False)["onnxrt"] is OnnxrtRunner
    assert OnnxrtRunner.from_value("cuda", tf32=True) == OnnxrtRunner(provider="cuda", tf32=True)
    flags = {known.flag for known in options_of(OnnxrtRunner).values()}
    assert flags == {
        "",
        "--ort-optimization",
        "--ort-tf32",
        "--ort-disabled-optimizers",
        "--ort-exact-int8",
        "--ort-custom-ops",
        "--ort-provider-options",
        "--ort-threads",
    }
    with pytest.raises(UsageError, match="--onnxrt=gpu: expected cpu, cuda, tensorrt"):
        OnnxrtRunner.from_value("gpu")


# -- results ------------------------------------------------------------------------------------------------------


def expected(proto, x):
    w, b = (numpy_helper.to_array(t) for t in proto.graph.initializer)
    total = x @ w + b
    return {"mm": x @ w, "sum": total, "act": np.maximum(total, 0), "y": -np.maximum(total, 0)}


@pytest.mark.parametrize("optimization", ["disable", "basic", "extended", "all"])
@pytest.mark.parametrize("declared", [(), ("mm",), ("act", "mm")])
@pytest.mark.parametrize("asked", [None, ["y"], ["act", "y"], ["sum", "mm", "x", "w"]])
def test_any_tensor_can_be_fetched(chain, optimization, declared, asked):
    x = np.random.default_rng(1).normal(size=(5, 4)).astype("f")
    x.flags.writeable = False
    with OnnxrtRunner(optimization=optimization).open(Model(chain), fetch=declared) as session:
        result = session.infer({"x": x}, asked)
        again = session.infer({"x": x}, asked)
    assert list(result) == (asked or ["y"])
    truth = expected(chain, x) | {"x": x, "w": numpy_helper.to_array(chain.graph.initializer[0])}
    for name, value in result.items():
        np.testing.assert_allclose(value, truth[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(value, again[name])


def test_a_file_runs_as_it_lies_there(chain, tmp_path, monkeypatch):
    onnx.save(chain, tmp_path / "m.onnx")
    opened = []
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", lambda source, *a, **k: opened.append(source) or real(source, *a, **k))
    with OnnxrtRunner().open(load(tmp_path / "m.onnx")) as session:
        session.infer({"x": np.ones((1, 4), "f")})
    assert opened == [os.fspath(tmp_path / "m.onnx")]


def test_undeclared_tensors_open_one_more_session_and_keep_it(chain, monkeypatch):
    opened = []
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", lambda source, *a, **k: opened.append(source) or real(source, *a, **k))
    feed = {"x": np.ones((1, 4), "f")}
    with OnnxrtRunner().open(Model(chain)) as session:
        for fetch in (None, ["y"], ["mm"], ["mm", "y"], ["x", "b"]):
            session.infer(feed, fetch)
        assert len(opened) == 2
        session.infer(feed, ["act"])
        session.infer(feed, ["mm", "act"])
        assert len(opened) == 3


def test_arrays_outlive_the_session(chain):
    x = np.ones((2, 4), "f")
    session = OnnxrtRunner().open(Model(chain))
    y = session.infer({"x": x})["y"]
    session.close()
    session.close()
    gc.collect()
    np.testing.assert_allclose(y, expected(chain, x)["y"], rtol=1e-5)
    with pytest.raises(RunnerError, match="closed"):
        session.infer({"x": x})


def test_results_are_not_overwritten_by_the_next_run(chain):
    a, b = np.ones((2, 4), "f"), np.full((2, 4), -3, "f")
    with OnnxrtRunner().open(Model(chain)) as session:
        first = session.infer({"x": a})["y"]
        second = session.infer({"x": b})["y"]
    np.testing.assert_allclose(first, expected(chain, a)["y"], rtol=1e-5)
    np.testing.assert_allclose(second, expected(chain, b)["y"], rtol=1e-5)
    first += 1  # and are the caller's to change


def test_closing_frees_the_runtime(chain):
    before = {id(o) for o in gc.get_objects()}
    session = OnnxrtRunner().open(Model(chain))
    session.infer({"x": np.ones((1, 4), "f")}, ["mm"])
    made = [o for o in gc.get_objects() if isinstance(o, ort.InferenceSession) and id(o) not in before]
    inner = [weakref.ref(o) for o in made]
    assert len(inner) == 2  # the outputs', and that of inner tensors
    del made
    session.close()
    gc.collect()
    assert [r() for r in inner] == [None, None]


# -- every type that ONNX Runtime knows ---------------------------------------------------------------------------

CARRIED = ["FLOAT", "DOUBLE", "FLOAT16", "BOOL", "STRING", "BFLOAT16"]
CARRIED += [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
CARRIED += ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"]


foreign_types = pytest.mark.skipif(
    not hasattr(ort.OrtValue, "ortvalue_from_numpy_with_onnx_type"), reason="this ONNX Runtime cannot be given them"
)


@foreign_types
@pytest.mark.parametrize("shape", [(5,), (), (0, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("elem_type", CARRIED)
def test_types_arrive_unchanged(elem_type, shape):
    number = TensorProto.DataType.Value(elem_type)
    dtype = dtype_from_onnx(number)
    x = np.resize(np.array([1, 0, 2, 3, 1.5]), shape)
    x = np.vectorize(lambda v: f"é{v}", otypes=[object])(x) if dtype.kind == "O" else x.astype(dtype)
    with OnnxrtRunner().open(Model(identity(number))) as session:
        y = session.infer({"x": x})["y"]
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert isinstance(y, np.ndarray)
    assert y.tolist() == x.tolist()


@foreign_types
@pytest.mark.parametrize(
    ("elem_type", "values"),
    [(TensorProto.INT4, [-8, -1, 0, 7, 3]), (TensorProto.UINT4, [0, 15, 1, 8, 3]), (TensorProto.INT4, [5, -3])],
)
def test_four_bit_integers_arrive_unchanged(elem_type, values):
    one, zero = numpy_helper.from_array(np.float32(1), "s"), helper.make_tensor("z", elem_type, [], [0])
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["d"]),
        helper.make_node("QuantizeLinear", ["d", "s", "z"], ["y"]),
    ]
    proto = make(nodes, [info("x", elem_type, ["N"])], [info("y", elem_type, ["N"]), info("d", 1, ["N"])], [one, zero])
    x = np.array(values).astype(dtype_from_onnx(elem_type))
    # ORT fuses the pair away and has no 4-bit Identity: as deployed it runs without optimization only
    with OnnxrtRunner(optimization="disable").open(Model(proto)) as session:
        result = session.infer({"x": x})
    assert result["d"].tolist() == values
    assert result["y"].dtype == x.dtype
    assert result["y"].astype(int).tolist() == values


@foreign_types
def test_strings_beside_bfloat16():
    nodes = [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Cast", ["x"], ["y"], to=1)]
    proto = make(
        nodes,
        [info("s", TensorProto.STRING, ["N"]), info("x", TensorProto.BFLOAT16, ["N"])],
        [info("t", TensorProto.STRING, ["N"]), info("y", 1, ["N"])],
    )
    feed = {"s": np.array(["a", "b"], object), "x": np.array([1, 2], ml_dtypes.bfloat16)}
    with OnnxrtRunner().open(Model(proto)) as session:
        result = session.infer(feed)
    assert result["t"].tolist() == ["a", "b"]
    assert result["y"].tolist() == [1, 2]


def test_inputs_that_are_not_contiguous(chain):
    x = np.ones((4, 6), "f").T[::2]
    with OnnxrtRunner().open(Model(chain)) as session:
        np.testing.assert_allclose(session.infer({"x": x})["y"], expected(chain, x)["y"], rtol=1e-5)


# -- weights beside the model -------------------------------------------------------------------------------------


@pytest.fixture
def external(chain, tmp_path):
    moved = onnx.ModelProto()
    moved.CopyFrom(chain)  # onnx.save empties the weights of what it is given
    onnx.save(moved, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return tmp_path / "m.onnx"


@pytest.mark.parametrize("fetch", [None, ["mm", "y"], ["w"]])
def test_external_weights(chain, external, fetch):
    x = np.ones((2, 4), "f")
    with OnnxrtRunner().open(load(external)) as session:
        result = session.infer({"x": x}, fetch)
    truth = expected(chain, x) | {"w": numpy_helper.to_array(chain.graph.initializer[0])}
    for name, value in result.items():
        np.testing.assert_allclose(value, truth[name], rtol=1e-5)


def test_external_weights_of_a_derived_model(chain, external):
    model = load(external)
    x = np.ones((2, 4), "f")
    with OnnxrtRunner().open(model.derive(model.proto)) as session:
        np.testing.assert_allclose(session.infer({"x": x})["y"], expected(chain, x)["y"], rtol=1e-5)


def test_weights_behind_links(chain, external, tmp_path):
    """As caches of model hubs keep them: every file a link to a blob in another folder."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in ("m.onnx", "w.bin"):
        (snapshot / file).symlink_to(Path("..") / file)
    x = np.ones((2, 4), "f")
    with OnnxrtRunner().open(load(snapshot / "m.onnx")) as session:
        for fetch in (["y"], ["mm", "y"]):
            np.testing.assert_allclose(session.infer({"x": x}, fetch)["y"], expected(chain, x)["y"], rtol=1e-5)


def test_an_error_in_a_model_with_external_weights_is_told_as_it_is(external):
    model = load(external)
    broken = onnx.ModelProto()
    broken.CopyFrom(model.proto)
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(BuildError, match="Node input 'nowhere' is not a graph input"):
        OnnxrtRunner().open(model.derive(broken))


@pytest.mark.slow
@pytest.mark.parametrize("linked", [False, True])
def test_weights_of_more_than_2_gib_stay_on_disk(tmp_path, linked):
    """Three tables of 0.8 GB, of which a few rows are read: the process itself grows by less than a tenth of one."""
    rows, columns, count = 200_000, 1024, 3
    size = rows * columns * 4
    (tmp_path / "store").mkdir()
    with (tmp_path / "store" / "w").open("wb") as file:
        file.truncate(size * count)  # a sparse file: it takes no space
        for i in range(count):
            file.seek(size * i + 5 * columns * 4)
            file.write(np.full(columns, i + 1, "f").tobytes())
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "w").symlink_to(Path("..") / "store" / "w") if linked else (tmp_path / "store" / "w").rename(folder / "w")
    tables = []
    for i in range(count):
        tensor = TensorProto(name=f"w{i}", data_type=1, dims=[rows, columns], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "w"), ("offset", size * i), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        tables.append(tensor)
    nodes = [helper.make_node("Gather", [f"w{i}", "x"], [f"g{i}"]) for i in range(count)]
    nodes.append(helper.make_node("Sum", [f"g{i}" for i in range(count)], ["y"]))
    onnx.save(make(nodes, [info("x", 7, ["N"])], [info("y", 1, ["N", columns])], tables), folder / "m.onnx")

    before = own_memory()
    model = load(folder / "m.onnx")
    with OnnxrtRunner(threads=1).open(model) as session:
        result = session.infer({"x": np.array([5, 6])}, ["g1", "y"])
    with OnnxrtRunner(threads=1).open(model.derive(model.proto)) as piece:
        assert piece.infer({"x": np.array([5])})["y"][0, 0] == 6
        assert own_memory() - before < size / 10
    assert result["y"][:, 0].tolist() == [6, 0]
    assert result["g1"][:, 0].tolist() == [2, 0]


def own_memory() -> int:
    """Bytes that this process holds and that are on no disk."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs Linux")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_an_error(chain, provider, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderUnavailable, match=rf"onnxrt:{provider}: .* offers CPU\. .*layerdiff\[gpu\]"):
        OnnxrtRunner(provider=provider).open(Model(chain))


@pytest.mark.parametrize(
    ("provider", "remedy"),
    [
        ("openvino", "pip install onnxruntime-openvino"),
        ("dml", r"\(Windows\): .*onnxruntime-directml"),
        ("rocm", r"\(Linux with an AMD GPU\): .*onnxruntime-rocm"),
        ("migraphx", "onnxruntime-migraphx"),
        ("coreml", r"CoreMLExecutionProvider is in the package onnxruntime \(macOS\)\."),
    ],
)
def test_another_provider_that_is_not_there_is_an_error_with_its_package(chain, provider, remedy, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderUnavailable, match=rf"onnxrt:{provider}: .* offers CPU\. .*{remedy}"):
        OnnxrtRunner(provider=provider).open(Model(chain))


@pytest.mark.parametrize(
    ("runner", "name", "options"),
    [
        (
            OnnxrtRunner(provider="openvino", provider_options=("device_type=CPU", "precision=FP32")),
            "OpenVINOExecutionProvider",
            {"device_type": "CPU", "precision": "FP32"},
        ),
        (OnnxrtRunner(provider="dml"), "DmlExecutionProvider", {}),
        (
            OnnxrtRunner.from_value("cuda,provider_options=cudnn_conv_use_max_workspace=0"),
            "CUDAExecutionProvider",
            {"use_tf32": "0", "cudnn_conv_use_max_workspace": "0"},
        ),
    ],
    ids=["openvino", "dml", "cuda"],
)
def test_the_provider_and_its_options_are_what_onnx_runtime_is_asked_for(chain, runner, name, options, monkeypatch):
    asked = {}

    def refuse(source, session_options, providers, **rest):
        asked["first"] = providers[0]
        raise RuntimeError("no such device")

    monkeypatch.setattr(ort, "get_available_providers", lambda: [name, "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", refuse)
    with pytest.raises(BuildError, match="no such device"):
        runner.open(Model(chain))
    assert asked["first"] == (name, options)


@pytest.mark.parametrize(
    ("options", "arithmetic"),
    [
        ({"provider": "openvino"}, FP32),
        ({"provider": "openvino", "provider_options": ("device_type=GPU",)}, FP16),
        ({"provider": "openvino", "provider_options": ("device_type=GPU", "precision=FP32")}, FP32),
        ({"provider": "coreml"}, FP16),
        ({"provider": "coreml", "provider_options": ("MLComputeUnits=CPUOnly",)}, FP32),
        ({"provider": "rocm"}, FP32),
    ],
)
def test_a_provider_is_judged_by_the_format_that_it_computes_in(options, arithmetic):
    assert OnnxrtRunner(**options).arithmetic is arithmetic


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "openvino", "provider_options": ("device_type",)}, "device_type: expected KEY=VALUE"),
        ({"provider_options": ("a=b",)}, "the CPU provider has no options"),
    ],
)
def test_provider_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        OnnxrtRunner(**options)


def test_a_provider_that_does_not_start_is_an_error(chain, monkeypatch):
    """ORT lists CUDA when its library is there, warns that it did not load, and goes on with the CPU."""
    real = ort.InferenceSession

    def on_the_cpu(source, options, providers, **rest):
        return real(source, options, providers=["CPUExecutionProvider"], **rest)

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", on_the_cpu)
    with pytest.raises(ProviderUnavailable, match="could not start CUDAExecutionProvider"):
        OnnxrtRunner(provider="cuda").open(Model(chain))


def pretend_cuda(monkeypatch, placed):
    """A session on the CPU that says it has CUDA, and that its nodes lie where ``placed`` says."""
    real = ort.InferenceSession
    seen = {}

    class Pretended(real):
        def __init__(self, source, options, providers, **rest):
            seen["providers"] = providers
            super().__init__(source, options, providers=["CPUExecutionProvider"], **rest)

        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_provider_graph_assignment_info(self):
            return [
                types.SimpleNamespace(ep_name=ep, get_nodes=lambda op=op: [types.SimpleNamespace(op_type=op)])
                for ep, op in placed
            ]

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", Pretended)
    return seen


def test_nodes_that_fell_back_are_counted(chain, monkeypatch):
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    seen = pretend_cuda(monkeypatch, [(cuda, "Conv"), (cuda, "Relu"), (cpu, "Shape"), (cpu, "Shape"), (cpu, "Gather")])
    with OnnxrtRunner(provider="cuda").open(Model(chain)) as session:
        assert session.info.options["nodes"] == 5
        assert session.info.options["nodes_on_cpu"] == 3
        assert session.info.notes[-1] == "onnxrt:cuda: 3 of 5 nodes run on the CPU (2 Shape, 1 Gather)."
    assert seen["providers"] == [(cuda, {"use_tf32": "0"}), cpu]


def test_a_model_of_which_everything_fell_back_is_an_error(chain, monkeypatch, tmp_path):
    onnx.save(chain, tmp_path / "m.onnx")
    pretend_cuda(monkeypatch, [("CPUExecutionProvider", "Relu")])
    with pytest.raises(ProviderUnavailable, match="1 of 1 nodes run on the CPU"):
        OnnxrtRunner(provider="cuda").open(load(tmp_path / "m.onnx"))


def test_nothing_is_noted_where_nothing_fell_back(chain, monkeypatch):
    pretend_cuda(monkeypatch, [("CUDAExecutionProvider", "Relu")])
    monkeypatch.setattr(loading, "installed", lambda: ["onnxruntime-gpu 1"])
    assert OnnxrtRunner(provider="cuda").open(Model(chain)).info.notes == ()


def test_two_distributions_at_once_are_named(chain, monkeypatch):
    monkeypatch.setattr(loading, "installed", lambda: ["onnxruntime 1.31", "onnxruntime-gpu 1.31"])
    with OnnxrtRunner().open(Model(chain)) as session:
        assert "onnxruntime 1.31 and onnxruntime-gpu 1.31 are installed on top of each other" in session.info.notes[0]
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderUnavailable, match="overwrite each other: uninstall both"):
        OnnxrtRunner(provider="cuda").open(Model(chain))


@pytest.mark.parametrize(("provider", "extra"), [("cpu", "cpu"), ("cuda", "gpu")])
def test_without_the_package(chain, monkeypatch, provider, extra):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(loading, "installed", list)
    with pytest.raises(MissingPackage, match=rf"pip install 'layerdiff\[{extra}\]'"):
        OnnxrtRunner(provider=provider).open(Model(chain))


BAD_MODELS = {
    "no such operator": ([helper.make_node("Nope", ["x"], ["y"], name="n1", domain="zz")], "zz.Nope 'n1': No opset"),
    "attribute": ([helper.make_node("Concat", ["x", "x"], ["y"], name="n2")], "Concat 'n2': Required attribute 'axis'"),
    "dangling": ([helper.make_node("Add", ["x", "q"], ["y"], name="n3")], "Node input 'q' is not a graph input"),
    "shapes": ([helper.make_node("Add", ["x", "w"], ["y"], name="n4")], r"n4.*Incompatible dimensions"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_build_errors_take_one_line_and_name_the_node(case, capfd):
    nodes, message = BAD_MODELS[case]
    proto = make(nodes, [info("x", 1, ["N", 4])], [info("y", 1, None)], [numpy_helper.from_array(np.ones(7, "f"), "w")])
    with pytest.raises(BuildError, match=message) as caught:
        OnnxrtRunner().open(Model(proto, source="bad.onnx"))
    assert str(caught.value).startswith("onnxrt: bad.onnx: ")
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_failing_run_names_the_node(capfd):
    shape = numpy_helper.from_array(np.array([7, 3]), "w")
    proto = make(
        [helper.make_node("Reshape", ["x", "w"], ["y"], name="fold")],
        [info("x", 1, ["N"])],
        [info("y", 1, None)],
        [shape],
    )
    with (
        OnnxrtRunner().open(Model(proto)) as session,
        pytest.raises(RunnerError, match="onnxrt: Reshape 'fold': ") as e,
    ):
        session.infer({"x": np.ones(5, "f")})
    assert "{5}" in str(e.value)
    assert "/onnxruntime" not in str(e.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("feed", "fetch", "message"),
    [
        ({}, None, "no value for input 'x'"),
        ({"x": np.ones((1, 4), "f"), "z": np.ones(1)}, None, "'z': no such input; .* has 'x'"),
        ({"x": np.ones((1, 4))}, None, "input 'x' is float32, the value given float64"),
        ({"x": np.ones((1, 5), "f")}, None, "onnxrt: .*5"),
        ({"x": np.ones((1, 4), "f")}, ["actt"], "no tensor 'actt'. Did you mean 'act'"),
    ],
)
def test_calls_that_do_not_fit(chain, feed, fetch, message):
    with OnnxrtRunner().open(Model(chain)) as session, pytest.raises(RunnerError, match=message):
        session.infer(feed, fetch)


def test_declared_tensor_that_is_not_there(chain):
    with pytest.raises(RunnerError, match="no tensor 'mmm'"):
        OnnxrtRunner().open(Model(chain), fetch=["mmm"])


def test_custom_operator_libraries_are_loaded(chain, tmp_path):
    (tmp_path / "not_a_library.so").write_bytes(b"text")
    for library, message in ((tmp_path / "gone.so", "no such file"), (tmp_path / "not_a_library.so", "not_a_library")):
        with pytest.raises(RunnerError, match=message):
            OnnxrtRunner(custom_ops=(library,)).open(Model(chain))


def test_info_tells_the_settings_in_force(chain):
    with OnnxrtRunner(threads=1, optimization="basic").open(Model(chain)) as session:
        assert session.info.options == {"provider": "cpu", "optimization": "basic", "threads": 1}
        assert session.info.versions == {"onnxruntime": ort.__version__}


@pytest.mark.gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_on_a_gpu(chain, provider):
    if config.PROVIDERS[provider] not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider}")
    x = np.random.default_rng(1).normal(size=(5, 4)).astype("f")
    with OnnxrtRunner(provider=provider).open(Model(chain)) as session:
        np.testing.assert_allclose(session.infer({"x": x})["y"], expected(chain, x)["y"], rtol=1e-3, atol=1e-3)
        assert session.info.options["nodes_on_cpu"] == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [("ConvAddFusion", None), ("ConvAddFuson", "did you mean ConvAddFusion?"), ("Other", "may have left out none.")],
)
def test_an_optimization_that_is_not_known_may_have_left_out_none(chain, name, said):
    with OnnxrtRunner(threads=1, disabled_optimizers=(name,)).open(Model(chain)) as session:
        assert [note.endswith(said) for note in session.info.notes] == ([] if said is None else [True])


def test_a_part_whose_constant_has_the_name_that_a_fusion_gives_is_opened():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal((4, 4)).astype(np.float32)
    body = "{ r = Reshape(x, gemm_input_shape) m = MatMul(r, w) y = Add(m, b) }"
    shape = np.array([2, 3, 4])
    model = Model(parsed(f"g (float[6,4] x) => (float[2,3,4] y) {body}", w=w, b=w[0], gemm_input_shape=shape))
    made = infer(OnnxrtRunner(), model, {"x": x})["y"]
    np.testing.assert_allclose(made, x.reshape(shape) @ w + w[0], rtol=1e-5, atol=1e-6)
