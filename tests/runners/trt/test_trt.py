"""The TensorRT runner's own logic, on a stand-in made from the bindings of 8.6, 10.16 and 11.4."""

import logging
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnx.parser
import pytest
from layerdiff.graph.cutting.slices import Slice, explode
from layerdiff.graph.errors import (
    BuildError,
    DataError,
    MissingPackage,
    ModelError,
    ProviderUnavailable,
    RunnerError,
    UsageError,
)
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.runners import discover
from layerdiff.runners.contract.latency import Times
from layerdiff.runners.contract.session import STEPS, SessionInfo
from layerdiff.runners.contract.workload import ShapeRange, Workload
from layerdiff.runners.trt import cuda as cuda_module
from layerdiff.runners.trt import failures, inspector, log
from layerdiff.runners.trt import network as network_module
from layerdiff.runners.trt.plan import Plan, resolve
from layerdiff.runners.trt.runner import TrtRunner
from layerdiff.runners.trt.versions import FEATURES, Library
from onnx import TensorProto, helper

from support import trt_standin as standin
from support.models import assembled, parsed
from support.paths import SUPPORT
from support.trt_cases import ALL, ELEVEN, OLD, RTX, TEN, expected, network, samples

pytest.importorskip("onnxruntime")


def flags(module):
    """Builder flags that were set, and those that were cleared."""
    found = {"set_flag": [], "clear_flag": []}
    for owner, name, arguments in module.calls:
        if owner == "IBuilderConfig" and name in found:
            found[name].append(arguments[0].name)
    return sorted(found["set_flag"]), sorted(found["clear_flag"])


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "options", "name", "arithmetic"),
    [
        (None, {}, "trt", "fp32"),
        ("fp32", {"fp16": True}, "trt", "fp32"),
        ("fp16", {}, "trt:fp16", "fp16"),
        (None, {"fp16": True}, "trt:fp16", "fp16"),
        ("fp16,int8", {}, "trt:fp16+int8", "int8"),
        ("int8+fp16", {"bf16": True}, "trt:fp16+int8", "int8"),
        ("tf32", {}, "trt:tf32", "tf32"),
        ("bf16,tf32", {}, "trt:tf32+bf16", "bf16"),
        ("fp8", {}, "trt:fp8", "e4m3"),
        (None, {"int8_qdq": "max"}, "trt:int8+qdq-max", "int8"),
        ("fp16", {"int8_qdq": "max"}, "trt:fp16", "fp16"),
        ("int8,entropy", {}, "trt:int8+entropy", "int8"),
        ("int8+minmax", {"int8_qdq": "max"}, "trt:int8+minmax", "int8"),
        ("fp16,int8,qdq-entropy", {"calibrator": "minmax"}, "trt:fp16+int8+qdq-entropy", "int8"),
        ("int8", {"calibrator": "minmax"}, "trt:int8+minmax", "int8"),
        ("fp16", {"calibrator": "minmax"}, "trt:fp16", "fp16"),
    ],
)
def test_a_value_names_the_modes_and_options_apply_where_there_is_none(value, options, name, arithmetic):
    runner = TrtRunner.from_value(value, **options)
    assert (runner.name, runner.arithmetic.name) == (name, arithmetic)
    assert pickle.loads(pickle.dumps(runner)) == runner


@pytest.mark.parametrize("value", ["", "fp17", "fp16,best", ","])
def test_an_unknown_mode_is_refused(value):
    with pytest.raises(
        UsageError, match="expected fp32, entropy2, entropy, minmax, qdq-max, qdq-percentile, qdq-entropy, fp16"
    ):
        TrtRunner.from_value(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [("minmax", "write --trt=int8,minmax"), ("int8,entropy,qdq-max", "in one way")],
)
def test_how_int8_finds_its_ranges_is_said_beside_int8_and_once(value, message):
    with pytest.raises(UsageError, match=message):
        TrtRunner.from_value(value)


def test_the_runner_is_found_by_its_flag():
    assert discover(third_parties=False)["trt"] is TrtRunner


# --- the table of versions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*ALL, RTX])
@pytest.mark.parametrize("feature", FEATURES)
def test_the_table_agrees_with_the_bindings(feature, version):
    entry, module = FEATURES[feature], standin.make(version)
    listed = [_has(module, member) for member in entry.members]
    if Library.of(module, version == RTX).has(feature):
        assert all(listed), f"{feature} needs {entry.members}, which {version} lacks"
    elif (feature, version) not in LISTED_WITHOUT_USE:
        assert not all(listed), f"{version} has {entry.members}, which the table denies"


LISTED_WITHOUT_USE = {
    ("fp8", OLD),  # the enumerations have it, the ONNX parser has not
    ("fp8-flag", OLD),
    ("explicit-batch", TEN),  # kept there, to no effect
}


def _has(module, member):
    owner, name = member.split(".")
    holder = getattr(module, owner, None)
    if holder is None:
        return False
    return name in (getattr(holder, "__members__", None) or standin.API[_key(module)]["classes"].get(owner, {}))


def _key(module):
    return next(k for k, api in standin.API.items() if api["version"] == module.__version__)


PLANS = [
    # runner, version, plan or refusal
    (TrtRunner(), OLD, Plan()),
    (TrtRunner(), ELEVEN, Plan(strongly_typed=True)),
    (TrtRunner(tf32=True), OLD, Plan(flags=("TF32",))),
    (TrtRunner(fp16=True), OLD, Plan(flags=("FP16",))),
    (TrtRunner(fp16=True), ELEVEN, Plan(strongly_typed=True, rewrite="fp16")),
    (TrtRunner(fp16=True, strongly_typed=True), TEN, Plan(strongly_typed=True, rewrite="fp16")),
    (TrtRunner(fp16=True, int8=True), OLD, Plan(flags=("FP16", "INT8"), calibrator="entropy2")),
    (TrtRunner(int8=True, calibrator="minmax"), TEN, Plan(flags=("INT8",), calibrator="minmax")),
    (TrtRunner(int8_qdq="max"), OLD, Plan(flags=("INT8",), quantize="int8", method="max")),
    (TrtRunner(int8=True), ELEVEN, Plan(strongly_typed=True, quantize="int8", method="entropy")),
    (TrtRunner(bf16=True), TEN, Plan(flags=("BF16",))),
    (TrtRunner(bf16=True), ELEVEN, Plan(strongly_typed=True, rewrite="bf16")),
    (TrtRunner(fp8=True, fp16=True), TEN, Plan(flags=("FP16", "FP8"), quantize="fp8", method="max")),
    (TrtRunner(fp8=True), ELEVEN, Plan(strongly_typed=True, quantize="fp8", method="max")),
    (TrtRunner(fp16=True, keep=("a",)), OLD, Plan(flags=("FP16",))),
    (TrtRunner(bf16=True), OLD, "8.6.0 lacks BF16, which came with 9.0. Use --fp16"),
    (TrtRunner(fp8=True), OLD, "8.6.0 lacks FP8 from ONNX, which came with 9.0. Use --int8"),
    (TrtRunner(strongly_typed=True), OLD, "8.6.0 lacks a strongly typed network, which came with 10.0. Leave"),
    (
        TrtRunner(int8=True, calibrator="entropy"),
        ELEVEN,
        "lacks INT8 calibration by TensorRT, which 11.0 removed. Use --int8-qdq",
    ),
    (TrtRunner(int8=True, calibrator="entropy", strongly_typed=True), TEN, "Use --int8-qdq"),
    (TrtRunner(tactic_sources="cublas"), ELEVEN, "lacks cuBLAS and cuDNN tactics, which 11.0 removed. Leave them out"),
    (TrtRunner(fp16=True, bf16=True), ELEVEN, "Choose --fp16 or --bf16"),
    (TrtRunner(int8=True, fp8=True), TEN, "INT8 and FP8 cannot both be chosen"),
]


@pytest.mark.parametrize(("runner", "version", "result"), PLANS)
def test_what_a_configuration_means_for_a_version(runner, version, result):
    library = Library.of(standin.make(version))
    if isinstance(result, Plan):
        assert resolve(runner, library) == result
        return
    with pytest.raises(UsageError) as refusal:
        resolve(runner, library)
    assert result in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_version_before_8_5_is_refused():
    module = standin.make(OLD)
    module.__version__ = "8.4.3"
    with pytest.raises(ProviderUnavailable, match="too old"):
        Library.of(module)


# --- what is missing --------------------------------------------------------------------------------------------------


def test_without_tensorrt_the_extra_and_emulation_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    class Finder:
        def find_spec(self, name, *_):
            if name == "tensorrt":
                raise ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt")

    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(MissingPackage, match=r"layerdiff\[gpu\][^\n]*\n.*--emulate fp16"):
        TrtRunner().open(network())


def test_without_a_gpu_that_is_said_and_emulation_offered(tensorrt, monkeypatch):
    tensorrt(OLD)
    monkeypatch.setattr(cuda_module, "gpu", lambda: "")
    monkeypatch.setattr(cuda_module, "why_no_gpu", lambda: "no NVIDIA driver is installed")
    with pytest.raises(
        ProviderUnavailable, match=r"8\.6\.0 is installed, but there is no NVIDIA GPU.*\n.*--emulate fp16"
    ):
        TrtRunner().open(network())


# --- build and run ----------------------------------------------------------------------------------------------------

MODES = [
    # runner, version, flags set, flags cleared, error allowed
    (TrtRunner(), OLD, [], ["TF32"], 1e-6),
    (TrtRunner(), TEN, [], ["TF32"], 1e-6),
    (TrtRunner(), ELEVEN, [], ["TF32"], 1e-6),
    (TrtRunner(tf32=True), OLD, ["TF32"], [], 1e-6),
    (TrtRunner(fp16=True), OLD, ["FP16"], ["TF32"], 1e-6),
    (TrtRunner(fp16=True), ELEVEN, [], ["TF32"], 5e-3),
    (TrtRunner(fp16=True, strongly_typed=True), TEN, [], ["TF32"], 5e-3),
    (TrtRunner(int8=True), OLD, ["INT8"], ["TF32"], 1e-6),
    (TrtRunner(int8_qdq="max"), OLD, ["INT8"], ["TF32"], 5e-2),
    (TrtRunner(int8=True, fp16=True), ELEVEN, [], ["TF32"], 5e-2),
    (TrtRunner(int8_qdq="percentile"), ELEVEN, [], ["TF32"], 5e-2),
]


@pytest.mark.parametrize(("runner", "version", "set_", "cleared", "error"), MODES)
def test_modes_end_to_end(tensorrt, runner, version, set_, cleared, error):
    module, cuda = tensorrt(version)
    model, data = network(), samples(2, 2)
    with runner.open(model, workload=Workload(samples=data)) as session:
        for feed in data():
            result = session.infer(feed)
            wanted = expected(model, feed)
            assert list(result) == ["y"]
            assert result["y"].dtype == np.float32
            distance = np.linalg.norm(result["y"] - wanted) / np.linalg.norm(wanted)
            assert distance <= error
            # The types and Q/DQ nodes were really written: the result is not FP32's.
            assert (distance > 1e-6) == (error > 1e-6)
    assert flags(module) == (set_, cleared)
    assert cuda.held == 0


@pytest.mark.parametrize("version", ALL)
def test_a_dynamic_batch_gets_a_profile_and_is_refused_outside_it(tensorrt, version):
    module, cuda = tensorrt(version)
    model = network()
    shapes = {"x": ShapeRange((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}
    with TrtRunner().open(model, workload=Workload(shapes=shapes)) as session:
        assert (
            "IOptimizationProfile",
            "set_shape",
            ("x", *[getattr(shapes["x"], k) for k in ("min", "opt", "max")]),
        ) in module.calls
        for batch in (1, 8, 3):
            (feed,) = samples(batch)()
            np.testing.assert_allclose(session.infer(feed)["y"], expected(model, feed), rtol=1e-5, atol=1e-6)
        with pytest.raises(RunnerError, match=r"x of shape 9x3x8x8 is outside .*1x3x8x8\.\.4x3x8x8\.\.8x3x8x8"):
            session.infer(samples(9)().__next__())
    assert cuda.held == 0


def test_dimensions_without_a_name_are_not_one_dimension(tensorrt):
    tensorrt(OLD)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["?", 3, "?", "?"]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="act")], "g", [x], [y])
    model = Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    (feed,) = made = [{"x": np.ones((2, 3, 4, 6), np.float32)}]
    with TrtRunner().open(model, workload=Workload(samples=lambda: iter(made))) as session:
        assert session.infer(feed)["y"].shape == (2, 3, 4, 6)


def opened(*nodes):
    """A session on nodes that make y and z of x, and values of x."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in "xyz"]
    graph = helper.make_graph(
        [helper.make_node(op, [a], [b], name=op) for op, a, b in nodes], "g", infos[:1], infos[1:]
    )
    model = Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    feed = {"x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}
    return TrtRunner().open(model, workload=Workload(samples=lambda: iter([feed]))), feed


@pytest.mark.parametrize("version", ALL)
def test_an_input_that_is_handed_on_keeps_its_name(tensorrt, version):
    tensorrt(version)
    session, feed = opened(("Dropout", "x", "y"), ("Relu", "x", "z"))
    with session:
        assert np.array_equal(session.infer(feed)["y"], feed["x"])


@pytest.mark.parametrize("version", ALL)
def test_of_two_outputs_that_are_one_tensor_both_are_given(tensorrt, version):
    tensorrt(version)
    session, feed = opened(("Relu", "x", "y"), ("Dropout", "y", "z"))
    with session:
        assert [spec.name for spec in session.outputs] == ["y", "z"]
        for found in (session.infer(feed), session.infer_on_device(feed), session.infer(feed, ["y"])):
            assert all(np.array_equal(np.asarray(a), np.maximum(feed["x"], 0)) for a in found.values())


def test_profiles_come_from_the_samples_where_nobody_gave_one(tensorrt):
    module, _ = tensorrt(OLD)
    TrtRunner().open(network(), workload=Workload(samples=samples(4, 1, 7))).close()
    assert ("IOptimizationProfile", "set_shape", ("x", (1, 3, 8, 8), (4, 3, 8, 8), (7, 3, 8, 8))) in module.calls


def test_a_dynamic_shape_without_samples_or_range_is_refused(tensorrt):
    tensorrt(OLD)
    with pytest.raises(UsageError, match=r"x has a dynamic shape.*--shape"):
        TrtRunner().open(network())


@pytest.mark.parametrize("shape", [(1, 3, 9, 8), (1, 3, 8)])
def test_a_range_that_contradicts_the_model_is_refused(tensorrt, shape):
    tensorrt(OLD)
    shapes = {"x": ShapeRange(shape, shape, shape)}
    with pytest.raises(UsageError, match=r"contradicts the model: x is \?x3x8x8"):
        TrtRunner().open(network(), workload=Workload(shapes=shapes))


def test_nothing_is_remembered_between_builds_but_what_is_handed_on(tensorrt):
    module, _ = tensorrt(OLD)
    model, data = network(batch=2), Workload(samples=samples(2))
    runner, piece = TrtRunner(fp16=True, int8=True), model.derive(model.proto)
    with runner.open(model, workload=data) as whole:
        deployed = whole.info
    module.calls.clear()
    runner.open(piece, workload=data).close()
    assert "PREFER_PRECISION_CONSTRAINTS" not in flags(module)[0]
    with pytest.raises(UsageError, match="needs samples to calibrate on"):
        runner.open(piece)
    runner.for_pieces(deployed).open(piece).close()
    assert "PREFER_PRECISION_CONSTRAINTS" in flags(module)[0]


def test_memory_is_allocated_once_per_shape_and_builds_do_not_grow(tensorrt):
    module, cuda = tensorrt(OLD)
    model, data = network(batch=2), samples(2)
    runner = TrtRunner(fp16=True)
    (feed,) = data()
    for _ in range(5):
        with runner.open(model) as session:
            session.infer(feed)
            before = cuda.mallocs
            for _ in range(3):
                session.infer(feed)
            assert cuda.mallocs == before
            session.close()
        assert cuda.held == 0
    assert len(log.log_of(module).errors) <= 100


def test_what_one_thread_is_told_is_not_forgotten_when_another_begins(tensorrt):
    module, _ = tensorrt(OLD)
    kept = log.log_of(module)
    kept.begin()
    kept.log(module.ILogger.ERROR, "mine")

    def elsewhere():
        kept.begin()
        kept.log(module.ILogger.ERROR, "theirs")
        return list(kept.errors)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() == ["theirs"]
    with ThreadPoolExecutor(1) as pool:  # a thread of TensorRT's own
        pool.submit(kept.log, module.ILogger.ERROR, "of whoever began last").result()
    assert list(kept.errors) == ["mine"]


def test_settings_reach_the_builder(tensorrt):
    module, _ = tensorrt(OLD)
    runner = TrtRunner(
        workspace=1 << 20, optimization_level=2, tactic_sources="jit_convolutions, EDGE_MASK_CONVOLUTIONS"
    )
    runner.open(network(batch=1)).close()
    sources = module.TacticSource
    assert ("IBuilderConfig", "set_memory_pool_limit", (module.MemoryPoolType.WORKSPACE, 1 << 20)) in module.calls
    assert ("IBuilderConfig", "builder_optimization_level", 2) in module.calls
    wanted = 1 << int(sources.JIT_CONVOLUTIONS) | 1 << int(sources.EDGE_MASK_CONVOLUTIONS)
    assert ("IBuilderConfig", "set_tactic_sources", (wanted,)) in module.calls


def test_an_unknown_tactic_source_is_refused_with_those_there_are(tensorrt):
    tensorrt(ELEVEN)
    with pytest.raises(UsageError, match="edge_mask_convolutions, jit_convolutions"):
        TrtRunner(tactic_sources="winograd").open(network(batch=1))


@pytest.mark.parametrize("version", ALL)
def test_progress_is_told(tensorrt, version):
    tensorrt(version)
    told = []
    TrtRunner().open(network(batch=1), progress=told.append).close()
    assert told[:2] == ["parsing the network", "building the engine"]
    assert ("building the engine (100 %)" in told) == (version != OLD)


def test_pieces_begin_with_the_timings_of_the_deployed_engine(tensorrt):
    tensorrt(OLD)
    model, runner = network(batch=1), TrtRunner()
    with runner.open(model) as whole, runner.for_pieces(whole.info).open(model.derive(model.proto)) as piece:
        assert (whole.info.timing_cache, piece.info.timing_cache) == (b".", b"..")


def test_the_timing_cache_is_kept_between_builds_in_the_file(tensorrt, tmp_path):
    module, _ = tensorrt(OLD)
    file = tmp_path / "t.cache"
    runner = TrtRunner(timing_cache=str(file))
    for grown in (b".", b".."):
        runner.open(network(batch=1)).close()
        assert file.read_bytes() == grown
    file.write_bytes(b"other version")
    runner.open(network(batch=1)).close()
    assert file.read_bytes() == b"."
    TrtRunner(timing_cache="off").open(network(batch=1)).close()
    assert "DISABLE_TIMING_CACHE" in flags(module)[0]


@pytest.mark.parametrize("version", ALL)
def test_an_engine_that_was_built_elsewhere_is_opened_and_not_built_again(tensorrt, version):
    module, _ = tensorrt(version)
    runner, model = TrtRunner(), network(batch=1)
    made = pickle.loads(pickle.dumps(runner.build(model, Workload())))
    builds = sum(call[1] == "build_serialized_network" for call in module.calls)
    feed = next(iter(samples(1)()))
    with runner.opened_on(made).open(model) as session:
        np.testing.assert_allclose(session.infer(feed)["y"], expected(model, feed), rtol=1e-5, atol=1e-6)
        assert session.info.timing_cache == made.info.timing_cache
    assert sum(call[1] == "build_serialized_network" for call in module.calls) == builds


def test_timings_of_a_build_elsewhere_go_to_the_file_when_its_engine_is_opened(tensorrt, tmp_path):
    tensorrt(OLD)
    file, model = tmp_path / "t.cache", network(batch=1)
    file.write_bytes(b".")
    runner = TrtRunner(timing_cache=str(file))
    made = runner.build(model, Workload())
    assert (file.read_bytes(), made.info.timing_cache) == (b".", b"..")
    runner.opened_on(made).open(model).close()
    assert file.read_bytes() == b".."


def shapeless(whole):
    """A network as a piece of one, whose input has no shape."""
    proto = onnx.ModelProto()
    proto.CopyFrom(whole.proto)
    for dim in proto.graph.input[0].type.tensor_type.shape.dim:
        dim.Clear()
    return whole.derive(proto)


def test_a_piece_is_built_for_its_shapes_without_samples(tensorrt):
    module, _ = tensorrt(OLD)
    shapes = {"x": ShapeRange((2, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}
    TrtRunner().build(shapeless(network()), Workload(shapes=shapes))
    assert ("IOptimizationProfile", "set_shape", ("x", (2, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))) in module.calls


def test_a_piece_without_shapes_gets_those_of_its_samples_except_the_first_dimension(tensorrt):
    module, _ = tensorrt(OLD)
    whole = network()
    piece, data = shapeless(whole), samples(2, 4)
    with TrtRunner().open(piece, workload=Workload(samples=data)) as session:
        for feed in data():
            np.testing.assert_allclose(session.infer(feed)["y"], expected(whole, feed), rtol=1e-5, atol=1e-6)
    assert ("IOptimizationProfile", "set_shape", ("x", (2, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))) in module.calls
    built = network_module.specialized(piece, data, {})
    assert [d.dim_value for d in built.proto.graph.input[0].type.tensor_type.shape.dim] == [0, 3, 8, 8]
    assert network_module.specialized(whole, data, {}) is whole


def _nonzero():
    node = helper.make_node("NonZero", ["x"], ["y"], name="nz")
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 5])]
    out = helper.make_tensor_value_info("y", TensorProto.INT64, [2, "k"])
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(helper.make_graph([node], "g", infos, [out]), opset_imports=opset, ir_version=8))


def test_a_shape_that_depends_on_the_data_gets_a_profile_from_tensorrt_8():
    old, ten = (Library.of(standin.make(v)) for v in (OLD, TEN))
    model, shapes = network_module.loosened(_nonzero(), old)
    assert shapes == {"x": ShapeRange((4, 5), (4, 5), (4, 5))}
    assert [d.dim_value for d in model.proto.graph.input[0].type.tensor_type.shape.dim] == [0, 5]
    for untouched, library in ((_nonzero(), ten), (network(batch=2), old)):
        assert network_module.loosened(untouched, library) == (untouched, {})


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ALL)
def test_a_parser_failure_names_the_node(tensorrt, version):
    tensorrt(version)
    with pytest.raises(BuildError, match=r"cannot parse node 'nms' \(NonMaxSuppression\) of <memory>: No importer"):
        TrtRunner().open(_nms())


def _nms():
    infos = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 6, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, 6]),
    ]
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["kept"], name="nms")
    out = helper.make_tensor_value_info("kept", TensorProto.INT64, ["k", 3])
    return Model(
        helper.make_model(
            helper.make_graph([node], "g", infos, [out]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
        )
    )


def test_a_builder_failure_names_the_node_even_one_without_a_name(tensorrt):
    tensorrt(OLD)
    with pytest.raises(BuildError, match=r"cannot build node 'act' of <memory>: .*Could not find any implementation"):
        TrtRunner().open(network(batch=1, op="Hardmax"))
    with pytest.raises(BuildError, match=r"cannot build node 'Hardmax_1'"):
        TrtRunner().open(network(batch=1, op="Hardmax", unnamed=True))


LOGS = [
    (
        "10: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error "
        "(Could not find any implementation for node a/b + c.)",
        "a/b + c",
    ),
    (
        "10: Could not find any implementation for node {ForeignNode[/l/MatMul.../l/Softmax]}.",
        "{ForeignNode[/l/MatMul.../l/Softmax]}",
    ),
    ("4: [network.cpp::validate::3031] Error Code 4: Internal Error (Network must have at least one output)", ""),
]


@pytest.mark.parametrize(("text", "node"), LOGS)
def test_the_node_in_a_log_line(text, node):
    assert log.failed_node([text]) == node


@pytest.mark.parametrize(
    ("node", "what"),
    [
        ("conv", "cannot build node 'conv' of <memory>: "),
        ("conv + act", "cannot build node 'conv + act' of <memory>: "),
        ("(Unnamed Layer* 3) [Shuffle] + act", "cannot build node 'act' of <memory>: "),
        ("{ForeignNode[conv...pool]}", "cannot build nodes 'conv' to 'pool' of <memory>: "),
        ("{ForeignNode[conv\x1f3...pool\x1f3]}", "cannot build nodes 'conv' to 'pool' of <memory>: "),
    ],
)
def test_what_could_not_be_built_is_said_in_onnx_nodes(node, what):
    text = f"10: [optimizer.cpp::computeCosts::3869] Error Code 10: Could not find any implementation for node {node}."
    model, library = network(), Library.of(standin.make(OLD))
    for line in (text, text.rstrip(".") + " due to insufficient workspace. See verbose log for requested sizes."):
        assert what in failures.why_not_built(model, library, [line], read_by_parser(library, model))


def read_by_parser(library, model):
    """The network that the parser makes of a model."""
    network = library.trt.Builder(None).create_network(0)
    network_module.parse(library.trt.OnnxParser(network, None), model, library)
    return network


def recurrent():
    """A product, an LSTM whose weights another product reads too, and a nameless tail."""
    rng = np.random.default_rng(0)
    shapes = {"v": (8, 8), "w": (1, 32, 8), "r": (1, 32, 8)}
    proto = parsed(
        """g (float[6, 2, 8] x) => (float[6, 1, 2, 8] y, float[6, 2, 8] z) {
            a = MatMul(x, v)
            y, h = LSTM <hidden_size = 8> (a, w, r)
            z = MatMul(a, v)
        }""",
        **{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
    )
    for node, name in zip(proto.graph.node, ("before", "memory", "behind"), strict=True):
        node.name = name
    return Model(proto)


@pytest.mark.parametrize(
    ("node", "what"),
    [
        # weights stand for the first node that reads them; nameless layers for the node whose outputs come next
        ("{ForeignNode[w...(Unnamed Layer* 6) [LoopOutput]]}", "cannot build node 'memory' of "),
        ("{ForeignNode[v...(Unnamed Layer* 4) [MatrixMultiply]]}", "cannot build nodes 'before' to 'memory' of "),
        ("{ForeignNode[before...behind]}", "cannot build nodes 'before' to 'behind' of "),
        ("(Unnamed Layer* 5) [Activation]", "cannot build node 'memory' of "),
        ("(Unnamed Layer* 5) [Activation] + (Unnamed Layer* 6) [LoopOutput]", "cannot build node 'memory' of "),
        ("{ForeignNode[w...(Unnamed Layer* 99) [Shuffle]]}", "cannot build nodes around 'memory' of "),
        (
            "{ForeignNode[odd...(Unnamed Layer* 99) [Shuffle]]}",
            "in a region whose nodes cannot be told ({ForeignNode[odd...(Unnamed Layer* 99) [Shuffle]]}): ",
        ),
        (
            "(Unnamed Layer* 99) [Shuffle]",
            "at a layer whose node cannot be told ((Unnamed Layer* 99) [Shuffle]): ",
        ),
    ],
)
def test_weights_and_nameless_layers_are_said_in_onnx_nodes_or_not_at_all(node, what):
    model, library = recurrent(), Library.of(standin.make(OLD))
    line = (
        f"10: [optimizer.cpp::computeCosts::3869] Error Code 10: (Could not find any implementation for node {node}.)"
    )
    text = failures.why_not_built(model, library, [line], read_by_parser(library, model))
    assert what in text
    assert "'w'" not in text
    assert "'v'" not in text


def test_a_region_that_cannot_be_built_is_named_by_its_nodes(tensorrt):
    tensorrt(OLD)
    with pytest.raises(BuildError, match=r"cannot build node 'memory' of <memory>: Myelin \(Myelin error"):
        TrtRunner(workspace=1).open(recurrent())


# --- observing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ALL)
def test_inner_tensors_are_given_by_a_second_engine(tensorrt, version):
    module, cuda = tensorrt(version)
    model, data = network(), samples(2)
    (feed,) = data()
    with TrtRunner(fp16=version == ELEVEN).open(model, workload=Workload(samples=data)) as session:
        session.infer(feed)
        marked = [c for c in module.calls if c[:2] == ("INetworkDefinition", "mark_output")]
        assert not marked, "the deployed engine must not be marked"
        result = session.infer(feed, ["r", "y"])
        assert list(result) == ["r", "y"]
        assert result["r"].shape == (2, 4, 6, 6)
        assert result["r"].dtype == np.float32
        assert (result["r"] >= 0).all()
        assert (result["r"] > 0).any()
        with pytest.raises(RunnerError, match="no tensor 'nowhere'"):
            session.infer(feed, ["nowhere"])
    assert cuda.held == 0


def test_unfused_tensors_through_the_debug_listener(tensorrt):
    tensorrt(TEN)
    (feed,) = samples(2)()
    with TrtRunner(debug_tensors=True).open(network(batch=2)) as session:
        seen = session.unfused(feed)
        assert set(seen) == {"c", "r", "p", "y"}
        np.testing.assert_allclose(np.maximum(seen["c"], 0), seen["r"])
    with TrtRunner().open(network(batch=2)) as session, pytest.raises(RunnerError, match="debug_tensors=True"):
        session.unfused(feed)
    tensorrt(OLD)
    with pytest.raises(UsageError, match="lacks observing unfused tensors"):
        TrtRunner(debug_tensors=True).open(network(batch=2))


def test_kept_nodes_are_pinned_to_fp32(tensorrt):
    module, _ = tensorrt(OLD)
    TrtRunner(fp16=True, keep=("conv",)).open(network(batch=1)).close()
    pinned = [c for c in module.calls if c[:2] == ("ILayer", "precision")]
    assert pinned == [("ILayer", "precision", module.DataType.FLOAT)]
    assert "OBEY_PRECISION_CONSTRAINTS" in flags(module)[0]


def test_a_piece_gets_the_formats_that_the_deployed_engine_chose(tensorrt):
    module, _ = tensorrt(OLD)
    model, runner = network(batch=1), TrtRunner(fp16=True)
    formats = {"conv": ("FP16", "FP16"), "act": ("FP16", "FP16"), "fc": ("FP32", "FP32")}
    runner = runner.for_pieces(SessionInfo(node_formats=formats))
    runner.open(model).close()
    assert not [c for c in module.calls if c[:2] == ("ILayer", "precision")], "the deployed engine is left alone"
    runner.open(model.derive(model.proto)).close()
    kinds = [c[2].name for c in module.calls if c[:2] == ("ILayer", "precision")]
    assert kinds == ["HALF", "HALF", "FLOAT"]
    outputs = [c[2][1].name for c in module.calls if c[:2] == ("ILayer", "set_output_type")]
    assert outputs == ["HALF", "HALF", "FLOAT"]
    assert "PREFER_PRECISION_CONSTRAINTS" in flags(module)[0]
    module.calls.clear()
    spec = model.index.specs["c"]
    parts = [(3, Slice(("r",), (1,), ("c",)))]
    runner.open(explode(model, parts, {"c": spec})).close()
    assert ("ILayer", "precision", module.DataType.HALF) in module.calls, "a layer run on its own is the same layer"


@pytest.mark.parametrize(
    ("asked", "formats", "left"),
    [
        (("fp16",), {"FP32": 3}, ()),
        (("fp16",), {"FP32": 3, "FP16": 1}, ("fp16",)),
        (("fp16", "int8"), {"INT8": 2, "FP32": 1}, ("int8",)),
        (("fp16",), {}, ("fp16",)),
    ],
)
def test_a_piece_may_not_take_a_format_that_no_layer_of_the_deployed_engine_runs_in(asked, formats, left):
    runner = TrtRunner(**dict.fromkeys(asked, True))
    pieces = runner.for_pieces(SessionInfo(options={"modes": list(asked), "formats": formats}))
    assert pieces.modes == left


def test_a_format_that_one_profile_alone_uses_stays():
    several = [{"formats": {"FP32": 1}}, {"formats": {"FP16": 1}}]
    info = SessionInfo(options={"modes": ["fp16"], "formats": {"FP32": 1}, "by_profile": several})
    assert TrtRunner(fp16=True).for_pieces(info).modes == ("fp16",)


# --- INT8 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["entropy2", "entropy", "minmax"])
def test_calibrators_read_the_shared_samples_and_keep_a_cache(tensorrt, tmp_path, kind):
    _, cuda = tensorrt(OLD)
    file = tmp_path / "calibration"
    runner = TrtRunner(int8=True, calibrator=kind, calibration_cache=str(file))
    reads = []

    def data():
        for feed in samples(2, 2, 2)():
            reads.append(1)
            yield feed

    runner.open(network(batch=2), workload=Workload(samples=data)).close()
    assert file.read_bytes() == b"TRT-scales"
    count = len(reads)
    assert count >= 3
    runner.open(network(batch=2), workload=Workload(samples=data)).close()
    assert len(reads) == count, "the cache makes reading the samples again unnecessary"
    assert cuda.held == 0


@pytest.mark.parametrize("options", [{}, {"int8_qdq": "max"}], ids=["calibrator", "Q/DQ"])
def test_int8_is_calibrated_on_other_samples_where_they_are_given(tensorrt, options):
    tensorrt(OLD)
    reads = {"compared": 0, "calibration": 0}

    def counted(name):
        def give():
            for feed in samples(2, 2)():
                reads[name] += 1
                yield feed

        return give

    workload = Workload(samples=counted("compared"), calibration=counted("calibration"))
    TrtRunner(int8=True, **options).open(network(batch=2), workload=workload).close()
    assert reads["calibration"] >= 2
    assert reads["compared"] == 0


def test_a_piece_reuses_the_calibration_of_the_whole(tensorrt):
    tensorrt(OLD)
    model = network(batch=2)
    runner = TrtRunner(int8=True)
    with runner.open(model, workload=Workload(samples=samples(2))) as whole:
        pieces = runner.for_pieces(whole.info)
    pieces.open(model.derive(model.proto)).close()
    with pytest.raises(UsageError, match="--int8 needs samples"):
        runner.open(model.derive(model.proto))


def test_what_the_samples_raise_comes_out_of_the_build(tensorrt):
    _, cuda = tensorrt(OLD)
    calls = []

    def broken():
        calls.append(1)
        yield from samples(2)()
        if len(calls) > 1:
            raise DataError("sample 1 is unreadable")

    with pytest.raises(DataError, match="sample 1 is unreadable"):
        TrtRunner(int8=True).open(network(batch=2), workload=Workload(samples=broken))
    assert cuda.held == 0


def test_samples_of_another_shape_are_left_out_and_counted(tensorrt):
    tensorrt(OLD)
    with TrtRunner(int8=True).open(network(), workload=Workload(samples=samples(2, 5, 2))) as session:
        assert any("1 samples of another shape" in note for note in session.info.notes)


# --- engines ----------------------------------------------------------------------------------------------------------


def test_an_engine_is_saved_and_loaded(tensorrt, tmp_path):
    module, _ = tensorrt(OLD)
    file, model, (feed,) = tmp_path / "m.engine", network(batch=2), samples(2)()
    with TrtRunner(save_engine=str(file)).open(model) as session:
        built = session.infer(feed)["y"]
    module.calls.clear()
    with TrtRunner(engine=str(file)).open(model) as session:
        assert not any(owner == "Builder" for owner, *_ in module.calls)
        np.testing.assert_array_equal(session.infer(feed)["y"], built)


def test_a_piece_never_overwrites_nor_loads_the_engine(tensorrt, tmp_path):
    tensorrt(OLD)
    model, file = network(batch=2), tmp_path / "m.engine"
    TrtRunner(save_engine=str(file)).open(model.derive(model.proto)).close()
    assert not file.exists()
    file.write_bytes(b"nonsense")
    TrtRunner(engine=str(file)).open(model.derive(model.proto)).close()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, ModelError, "no such engine file"),
        (b"nonsense", RunnerError, "m.engine: it is no engine, or cut short: bad"),
    ],
)
def test_a_bad_engine_is_refused_in_one_line(tensorrt, tmp_path, content, error, message):
    _, cuda = tensorrt(OLD)
    file = tmp_path / "m.engine"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=message) as refusal:
        TrtRunner(engine=str(file)).open(network(batch=2))
    assert "\n" not in str(refusal.value)
    assert cuda.held == 0


def test_an_engine_of_another_model_is_refused(tensorrt, tmp_path):
    tensorrt(OLD)
    file = tmp_path / "m.engine"
    TrtRunner(save_engine=str(file)).open(network(batch=2)).close()
    with pytest.raises(ModelError, match="The engine takes 'x', which is no input"):
        TrtRunner(engine=str(file)).open(_nms())


# --- integers ---------------------------------------------------------------------------------------------------------


def _integers():
    node = helper.make_node("Add", ["i", "i"], ["o"], name="add")
    return Model(assembled([node], [("i", TensorProto.INT64, [3])], [("o", TensorProto.INT64, [3])]))


@pytest.mark.parametrize("version", ALL)
def test_int64_is_narrowed_where_tensorrt_has_none_and_never_wraps(tensorrt, version):
    tensorrt(version)
    with TrtRunner().open(_integers()) as session:
        result = session.infer({"i": np.array([1, -2, 3])})["o"]
        assert result.dtype == np.int64
        np.testing.assert_array_equal(result, [2, -4, 6])
        if version == OLD:
            with pytest.raises(RunnerError, match="i: 4294967296 does not fit int32"):
                session.infer({"i": np.array([1, 2, 1 << 32])})


# --- latency, layers --------------------------------------------------------------------------------------------------


def test_latency_gives_host_and_gpu_time(tensorrt):
    _, cuda = tensorrt(OLD)
    (feed,) = samples(2)()
    with TrtRunner().open(network(batch=2)) as session:
        result = session.latency(feed, 7)
        assert (result.runs, result.gpu, result.device) == (7, Times(1, 1, 1, 1), Times(3, 3, 3, 3))
        assert 0 < result.host.min <= result.host.median <= result.host.p99
        assert result.throughput > 0
        assert result.as_dict()["gpu"]["median"] == 1
    assert cuda.held == 0


def test_latency_tells_what_kernels_take_by_their_onnx_nodes(tensorrt):
    tensorrt(OLD)
    (feed,) = samples(2)()
    with TrtRunner(fp16=True, keep=("fc",)).open(network(batch=2)) as session:
        kernels = session.latency(feed, 3).kernels
        (output,) = session.infer(feed).values()
    assert {k.nodes: k.milliseconds for k in kernels} == {("conv",): 1, ("act",): 1, ("pool",): 1, ("fc",): 3}
    assert np.isfinite(output).all()


def test_a_profiler_that_fails_costs_no_times_of_whole_runs(tensorrt, monkeypatch):
    tensorrt(OLD)
    (feed,) = samples(2)()
    monkeypatch.setattr("layerdiff.runners.trt.session.make_profiler", lambda *a: _Failing())
    with TrtRunner().open(network(batch=2)) as session:
        result = session.latency(feed, 3)
        assert session.infer(feed)
    assert result.kernels == ()
    assert result.gpu == Times(1, 1, 1, 1)


class _Failing:
    def report_layer_time(self, *args):
        raise TypeError("incompatible function arguments")


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([3.0], Times(3, 3, 3, 3)),
        ([4.0, 1.0, 2.0, 3.0], Times(1, 2.5, 2.5, 4)),
        (list(range(1, 201)), Times(1, 100.5, 100.5, 198)),
    ],
)
def test_times(values, times):
    assert Times.of(values) == times


def test_layers_of_an_engine_are_told_by_onnx_nodes(tensorrt):
    tensorrt(OLD)
    with TrtRunner().open(network(batch=2)) as session:
        assert [layer.nodes for layer in session.layers()] == [("conv",), ("act",), ("pool",), ("fc",)]


DETAILED = (
    '{"Layers": [{"Name": "conv + act", "LayerType": "CaskConvolution", "Inputs": [{"Name": "x",'
    ' "Dimensions": [1,3,8,8], "Format/Datatype": "Row major linear FP32"}],'
    ' "Outputs": [{"Name": "r", "Dimensions": [1,4,6,6],'
    ' "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}], "TacticName": "sm90_xmma",'
    ' "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: act]\x1f"},'
    '{"Name": "Reformatting CopyNode for Input Tensor 0 to pool", "LayerType": "Reformat", "Inputs": []},'
    '{"Name": "w", "LayerType": "Constant", "Inputs": [], "Outputs": []},'
    '{"Name": "pool", "LayerType": "Reduce", "Inputs": [], "Outputs": [], "Metadata": "[ONNX Layer: pool]"},'
    '{"Name": "pool_2", "LayerType": "Reduce", "Inputs": [], "Outputs": [],'
    ' "Metadata": "[ONNX Layer: pool]\x1e[ONNX Layer: fc]"}]}'
)


def test_the_inspectors_json_is_read_with_its_control_characters():
    layers = inspector.read(DETAILED)
    assert layers[0].nodes == ("conv", "act")
    assert (layers[0].precision, layers[0].inputs[0].precision, layers[0].tactic) == ("FP16", "FP32", "sm90_xmma")
    assert layers[0].inputs[0].shape == (1, 3, 8, 8)
    assert inspector.computing(layers) == 3
    assert inspector.groups(layers, network()) == [frozenset({0, 1}), frozenset({2, 3})]


def test_a_real_engine_of_8_6_is_read():
    layers = inspector.read((SUPPORT / "data" / "inspector_8.6.0.json").read_text())
    assert [(layer.nodes, layer.passive) for layer in layers] == [
        (("conv1", "relu1"), False),
        (("conv2", "add", "relu2"), False),
        (("pool",), False),
        (("fc",), False),
        (("fc",), True),
    ]
    assert layers[1].inputs[0].shape == (8, 16, 32, 32)
    assert inspector.formats(layers) == {"FP32": 4}
    every = ("conv1", "relu1", "conv2", "add", "relu2", "pool", "fc")
    assert inspector.node_formats(layers) == dict.fromkeys(every, ("FP32", "FP32"))
    assert inspector.accumulators(layers) == {"FP32": 2}


TACTICS = [
    ("sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x32_stage4", "FP16"),
    ("sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x64x32_stage4", "FP32"),
    ("sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x64x16_stage4", "FP32"),
    ("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw_tilesize32x32x8_stage3", "FP32"),
    ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32", "INT32"),
    ("sm50_xmma_pooling_fw_4d_FP32FP32NCHW_Average_FastDiv", ""),
    ("0x0000000000000000", ""),
]


@pytest.mark.parametrize(("tactic", "accumulator"), TACTICS)
def test_the_accumulator_is_read_off_the_kernels_name(tactic, accumulator):
    layer = inspector.EngineLayer("a", "CaskConvolution", ("a", "b"), (), (), tactic)
    assert layer.accumulator == accumulator
    assert inspector.fp16_accumulation([layer]) == frozenset({"a", "b"} if accumulator == "FP16" else ())


WEIGHTS = [
    (
        " - 56 weights are affected by this issue: Detected subnormal FP16 values.",
        "56 weights hold values that are subnormal",
    ),
    (
        " - 16 weights are affected by this issue: Detected values less than smallest positive FP16 subnormal value "
        "and converted them to the FP16 minimum subnormalized value.",
        "16 weights held values below FP16's smallest subnormal: TensorRT lifted them",
    ),
]


@pytest.mark.parametrize(("warning", "note"), WEIGHTS)
def test_what_happened_to_weights_is_noted(warning, note):
    (found,) = log.weight_notes(["Something else.", warning])
    assert found.startswith(note)


@pytest.mark.parametrize(
    ("metadata", "nodes"),
    [
        ("", ()),
        ("[ONNX Layer: a]", ("a",)),
        ("[ONNX Layer: a]\x1e[ONNX Layer: b/c]\x1e[ONNX Layer: a]", ("a", "b/c")),
        ("[ONNX Layer: a]\x1f[ONNX Layer: b]", ("a", "b")),
        ("[ONNX Layer: a\x1f3]", ("a\x1f3",)),
    ],
)
def test_onnx_nodes_in_metadata(metadata, nodes):
    assert inspector.onnx_nodes(metadata) == nodes


def test_names_alone_are_read_too():
    assert [layer.name for layer in inspector.read('{"Layers": ["conv + act", "pool"]}')] == ["conv + act", "pool"]
    assert inspector.read("") == ()


def test_external_weights_are_found(tensorrt, tmp_path):
    tensorrt(OLD)
    model, (feed,) = network(batch=2, unnamed=True), samples(2)()
    path = tmp_path / "m.onnx"
    onnx.save(onnx.ModelProto.FromString(model.serialized()), path, save_as_external_data=True, size_threshold=0)
    with TrtRunner().open(load(path)) as session:
        np.testing.assert_allclose(session.infer(feed)["y"], expected(model, feed), rtol=1e-5, atol=1e-6)


def test_the_node_that_is_being_parsed_is_told_before_the_parser_may_crash(tensorrt, caplog):
    module, _ = tensorrt(OLD)
    caplog.set_level(logging.DEBUG, STEPS)
    log.log_of(module).log(module.ILogger.VERBOSE, "Parsing node: conv1 [Conv]")
    assert [record.getMessage() for record in caplog.records] == ["parsing conv1 [Conv]"]
