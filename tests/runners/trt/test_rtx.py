"""TensorRT for RTX: what it shares with TensorRT 11, and what it does without a GPU. On a stand-in of its bindings."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from layerdiff.graph.engine import Engine
from layerdiff.graph.errors import BuildError, MissingPackage, ProviderUnavailable, RunnerError, UsageError
from layerdiff.graph.model import Model
from layerdiff.runners import discover
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.trt import cuda as cuda_module
from layerdiff.runners.trt.engines import check_version
from layerdiff.runners.trt.failures import why_not_built
from layerdiff.runners.trt.log import failed_node, reason
from layerdiff.runners.trt.trt_rtx import RtxRunner
from layerdiff.runners.trt.versions import Library
from onnx import TensorProto, helper

from support import trt_standin as standin
from support.trt_cases import ELEVEN, RTX, expected, network, samples

pytest.importorskip("onnxruntime")


@pytest.fixture
def without_a_gpu(tensorrt, monkeypatch):
    module, _ = tensorrt(RTX)
    monkeypatch.setattr(cuda_module, "gpu", lambda: "")
    monkeypatch.setattr(cuda_module, "why_no_gpu", lambda: "no NVIDIA driver is installed")
    return module


def called(module, name):
    return [arguments for _, method, arguments in module.calls if method == name]


# --- configuration ----------------------------------------------------------------------------------------------------


def test_the_runner_is_found_by_its_flag():
    assert discover(third_parties=False)["trt-rtx"] is RtxRunner


@pytest.mark.parametrize(
    ("value", "name", "arithmetic"),
    [
        (None, "trt-rtx", "fp32"),
        ("fp16", "trt-rtx:fp16", "fp16"),
        ("int8,fp16", "trt-rtx:fp16+int8", "int8"),
        ("int8,qdq-max", "trt-rtx:int8+qdq-max", "int8"),
    ],
)
def test_a_value_names_the_modes(value, name, arithmetic):
    runner = RtxRunner.from_value(value)
    assert (runner.name, runner.arithmetic.name) == (name, arithmetic)


@pytest.mark.parametrize("value", ["int8,minmax", "calibrator=minmax", "timing-cache=t", "strongly-typed"])
def test_what_only_tensorrt_has_is_no_option(value):
    with pytest.raises(UsageError, match="--trt-rtx"):
        RtxRunner.from_value(value)


def test_compute_capabilities_are_given_one_by_one():
    found = RtxRunner.from_value("fp16,compute-capability=8.9,compute-capability=12.0")
    assert found == RtxRunner(fp16=True, compute_capability=("8.9", "12.0"))


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        (RtxRunner(fp16=True, bf16=True), r"TensorRT for RTX 1\.7\.1\.116: a typed graph .* Choose --fp16 or --bf16"),
        (RtxRunner(tactic_sources="cublas"), r"TensorRT for RTX 1\.7\.1\.116 lacks cuBLAS and cuDNN tactics\. Leave"),
        (RtxRunner(compute_capability=("8.9", "9.0")), r"--compute-capability 9\.0: .* 7\.5, 8\.0, 8\.6, 8\.9, 12\.0"),
    ],
)
def test_what_this_library_lacks_is_refused(without_a_gpu, runner, message):
    with pytest.raises(UsageError, match=message):
        runner.open(network(batch=2))


def test_without_the_package_the_extra_is_named(monkeypatch):
    class Finder:
        def find_spec(self, name, *_):
            if name == "tensorrt_rtx":
                raise ModuleNotFoundError("No module named 'tensorrt_rtx'", name="tensorrt_rtx")

    monkeypatch.delitem(sys.modules, "tensorrt_rtx", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(MissingPackage, match=r"TensorRT for RTX.*layerdiff\[rtx\]"):
        RtxRunner().open(network())


def test_a_version_whose_bindings_nobody_looked_at_is_refused():
    module = standin.make(RTX)
    module.__version__ = "1.6.0.1"
    with pytest.raises(ProviderUnavailable, match=r"1\.6\.0\.1 is too old: 1\.7"):
        Library.of(module, rtx=True)


# --- with a GPU -------------------------------------------------------------------------------------------------------

MODES = [
    (RtxRunner(), 1e-6),
    (RtxRunner(tf32=True), 1e-6),
    (RtxRunner(fp16=True), 5e-3),
    (RtxRunner(int8=True), 5e-2),
    (RtxRunner(int8_qdq="percentile", fp16=True), 5e-2),
]


@pytest.mark.parametrize(("runner", "error"), MODES)
def test_modes_are_types_in_the_graph_and_run_as_those_of_tensorrt_11(tensorrt, runner, error):
    module, cuda = tensorrt(RTX)
    model, data = network(), samples(2, 3)
    with runner.open(model, workload=Workload(samples=data)) as session:
        for feed in data():
            result, wanted = session.infer(feed)["y"], expected(model, feed)
            distance = np.linalg.norm(result - wanted) / np.linalg.norm(wanted)
            assert (distance > 1e-6) == (error > 1e-6)
            assert distance <= error
        assert session.info.versions == {"tensorrt_rtx": "1.7.1.116", "gpu": "Stand-in GPU"}
        assert not session.info.not_run
    assert {flag.name for (flag,) in called(module, "set_flag")} == ({"TF32"} if runner.tf32 else set())
    assert not called(module, "create_timing_cache")
    assert cuda.held == 0


# --- without one ------------------------------------------------------------------------------------------------------


def test_without_a_gpu_the_engine_is_built_for_what_is_asked_and_not_loaded(without_a_gpu):
    runner = RtxRunner(fp16=True, compute_capability=("8.6", "12.0"))
    with runner.open(network(), workload=Workload(samples=samples(2))) as session:
        assert session.info.not_run == (
            "its engine was built for compute capability 8.6 and 12.0, and there is no NVIDIA GPU to run it on: "
            "no NVIDIA driver is installed"
        )
        assert session.info.options["compute_capability"] == ["8.6", "12.0"]
        assert session.info.options["layers_computing"] > 0
        with pytest.raises(RunnerError, match="nothing can be run"):
            session.infer(next(samples(2)()))
    assert [(c.name, at) for c, at in called(without_a_gpu, "set_compute_capability")] == [("SM86", 0), ("SM120", 1)]
    assert len(called(without_a_gpu, "build_serialized_network")) == 1
    assert not called(without_a_gpu, "deserialize_cuda_engine")
    assert runner.only_builds


def test_without_a_gpu_the_library_chooses_what_to_build_for(without_a_gpu):
    with RtxRunner().open(network(batch=2)) as session:
        assert session.info.not_run.startswith("its engine was built, and there is no NVIDIA GPU")
    assert not called(without_a_gpu, "set_compute_capability")


def test_without_a_gpu_refusals_name_the_node(without_a_gpu):
    with pytest.raises(BuildError, match=r"TensorRT for RTX 1\.7\.1\.116 cannot build node 'act' of "):
        RtxRunner().open(network(batch=1, op="Hardmax"))


def test_without_a_gpu_an_engine_is_saved_with_what_it_was_built_from(without_a_gpu, tmp_path):
    path = tmp_path / "net.engine"
    RtxRunner(fp16=True, save_engine=str(path)).open(network(batch=2)).close()
    by = json.loads((tmp_path / "net.engine.json").read_text())["built_by"]
    assert (by["tensorrt_rtx"], by["gpu"]) == ("1.7.1.116", None)
    with pytest.raises(ProviderUnavailable, match=r"TensorRT for RTX 1\.7\.1\.116 is installed, but there is no"):
        RtxRunner(engine=str(path)).open(network(batch=2))


@pytest.mark.parametrize(
    ("made_by", "loaded_by", "message"),
    [
        (RTX, ELEVEN, r"built by TensorRT for RTX 1\.7\.1\.116, and this is TensorRT 11\.4\.0\.106"),
        (ELEVEN, RTX, r"built by TensorRT 11\.4\.0\.106, and this is TensorRT for RTX 1\.7\.1\.116"),
        (RTX, RTX, ""),
    ],
)
def test_engines_of_the_one_are_not_loaded_by_the_other(tmp_path, made_by, loaded_by, message):
    maker, loader = (Library.of(standin.make(version), version == RTX) for version in (made_by, loaded_by))
    path = tmp_path / "net.engine"
    path.write_bytes(b"engine")
    engine = replace(Engine.at(str(path)), facts={"built_by": {maker.package: str(maker.trt.__version__)}})
    if not message:
        check_version(engine, loader)
        return
    with pytest.raises(RunnerError, match=message):
        check_version(engine, loader)


# --- its log ----------------------------------------------------------------------------------------------------------

REFUSED = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check_turing_op_compatibility] Cannot "
    "compile operation 'logits/MatMul' for Turing (SM75): FP32 GEMM is not supported. In compileGraph at "
    "/_src/optimizer/myelin/codeGenerator.cpp:2012)"
)


def test_the_operation_that_cannot_be_compiled_is_found_in_the_log():
    assert failed_node([REFUSED]) == "logits/MatMul"


@pytest.mark.parametrize(
    "text",
    [
        "Error Code 3: API Usage Error (IConditionalOutputLayer a/b: Must have inputs with equal ranks)",
        "Error Code 3: API Usage Error (IQuantizeLayer/IDequantizeLayer a/b has `zero_point` which is no initializer.)",
        "Error Code 2: Internal Error (Assertion !layerImpls.empty() failed. a/b has no runners that implement it.)",
        "Error Code 3: API Usage Error (Tensor a/b has datatype FP8 but is not produced by IQuantizeLayer)",
    ],
)
def test_the_layer_or_tensor_that_the_log_names_is_found(text):
    assert failed_node([text]) == "a/b"


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        ("Conv operation was not supported by a dedicated kernel.", "node 'conv' of"),
        ("Identity operation was not supported", "one of 2 nodes of Identity, the first of them 'first' of"),
        ("Softmax operation was not supported", "cannot build <memory>: "),
    ],
)
def test_where_the_log_names_an_operator_alone_its_nodes_are_named(log, wanted):
    nodes = [helper.make_node(op, [a], [b], name=n) for op, a, b, n in TWO_ALIKE]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    model = Model(helper.make_model(helper.make_graph(nodes, "g", [x], [y])))
    assert wanted in why_not_built(model, Library.of(standin.make(RTX), rtx=True), [log], None)


TWO_ALIKE = [("Identity", "x", "a", "first"), ("Conv", "a", "b", "conv"), ("Identity", "b", "y", "second")]


def test_a_reason_is_told_without_places_in_the_librarys_source():
    wanted = "Cannot compile operation 'logits/MatMul' for Turing (SM75): FP32 GEMM is not supported"
    assert reason([REFUSED]) == wanted
