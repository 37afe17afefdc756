"""Engines in files, several profiles in one engine, and what observing an engine tells of it, on the stand-in."""

import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx.parser
import pytest
from layerdiff import Comparator, DataLoader, EmulateRunner, OnnxrtRunner
from layerdiff.compare.cli.arguments import parse
from layerdiff.compare.cli.command import main
from layerdiff.compare.layers.fidelity import fidelity, fidelity_notice
from layerdiff.compare.lockstep.kernels import kernel_groups
from layerdiff.compare.lockstep.shapes import profiles_of, sets_for
from layerdiff.compare.report.json import to_json
from layerdiff.compare.runs.deployed import Deployed, fingerprints
from layerdiff.compare.runs.repeatability import repeat
from layerdiff.compare.sides import Side
from layerdiff.graph.cutting.slices import Slice, slice_model
from layerdiff.graph.engine import Engine, facts_path
from layerdiff.graph.errors import ModelError, RunnerError, UsageError
from layerdiff.graph.load import load, load_engine
from layerdiff.graph.model import Model
from layerdiff.runners.contract.session import SessionInfo
from layerdiff.runners.contract.workload import ShapeRange, Workload, seen_ranges
from layerdiff.runners.trt import inspector, log, profiles, session, summary
from layerdiff.runners.trt.runner import TrtRunner
from onnx import TensorProto, helper

from support.models import assembled, parsed
from support.trt_cases import ALL, ELEVEN, OLD, expected, network, samples

pytest.importorskip("onnxruntime")


def shape(*batches):
    """A range of the batch of `network`."""
    low, best, high = batches if len(batches) == 3 else batches * 3
    return ShapeRange((low, 3, 8, 8), (best, 3, 8, 8), (high, 3, 8, 8))


@pytest.fixture
def files(tensorrt, tmp_path):
    """Saves a network and the engine built from it; returns (module, ONNX path, engine path)."""

    def make(runner=None, workload=None, batch=2, version=OLD, folder="."):
        module, _ = tensorrt(version)
        source, engine = tmp_path / "models" / "net.onnx", tmp_path / folder / "net.engine"
        for path in (source, engine):
            path.parent.mkdir(exist_ok=True)
        onnx.save(network(batch).proto, source)
        runner = replace(runner or TrtRunner(), save_engine=str(engine))
        runner.open(load(source), workload=workload or Workload(samples=samples(2))).close()
        module.calls.clear()
        return module, source, engine

    return make


# --- several profiles -------------------------------------------------------------------------------------------------

ONE, FEW, MANY, ANY = shape(1), shape(2, 4, 8), shape(1, 32, 64), shape(1, 4, 64)


def _profiles(*ranges):
    return [{"x": (r.min, r.opt, r.max)} for r in ranges]


@pytest.mark.parametrize(
    ("ranges", "batch", "chosen"),
    [
        ((ONE, FEW, MANY), 1, 0),
        ((ONE, FEW, MANY), 5, 1),
        ((ONE, FEW, MANY), 9, 2),
        ((MANY, FEW, ONE), 1, 2),
        ((MANY, FEW), 4, 1),
        ((ANY, MANY), 3, 0),
        ((ANY, MANY), 40, 1),
        ((ONE, FEW), 9, None),
        ((), 9, 0),
    ],
)
def test_the_narrowest_profile_that_fits_is_chosen_and_of_equals_the_one_made_for_the_shape(ranges, batch, chosen):
    assert profiles.narrowest(_profiles(*ranges), {"x": (batch, 3, 8, 8)}) == chosen


@pytest.mark.parametrize("version", ALL)
def test_several_profiles_in_one_engine(tensorrt, version):
    module, cuda = tensorrt(version)
    model = network()
    workload = Workload(shapes={"x": ONE}, profiles=({"x": ONE}, {"x": FEW}, {"x": MANY}))
    with TrtRunner().open(model, workload=workload) as opened:
        assert opened.info.options["profiles"] == [
            {"x": [list(r.min), list(r.opt), list(r.max)]} for r in (ONE, FEW, MANY)
        ]
        switched = []
        for batch in (1, 8, 1, 64, 64, 3):
            (feed,) = samples(batch)()
            module.calls.clear()
            np.testing.assert_allclose(opened.infer(feed)["y"], expected(model, feed), rtol=1e-5, atol=1e-6)
            switched += [c[2][0] for c in module.calls if c[1] == "set_optimization_profile_async"]
        assert switched == [1, 0, 2, 1], "a profile that is in use is not chosen again"
        with pytest.raises(RunnerError) as refusal:
            opened.infer(next(samples(65)()))
        text = str(refusal.value)
        assert "x of shape 65x3x8x8 fits none of the engine's 3 profiles" in text
        for one in ("x: 1x3x8x8;", "x: 2x3x8x8..4x3x8x8..8x3x8x8;", "x: 1x3x8x8..32x3x8x8..64x3x8x8)"):
            assert one in text
        assert "\n" not in text
    assert cuda.held == 0


def test_several_profiles_are_calibrated_in_one_shape(tensorrt):
    module, _ = tensorrt(OLD)
    workload = Workload(samples=samples(2, 2), profiles=({"x": ONE}, {"x": FEW}))
    TrtRunner(int8=True).open(network(), workload=workload).close()
    calls = [c for c in module.calls if c[1] in ("add_optimization_profile", "set_calibration_profile")]
    assert [c[1] for c in calls] == ["add_optimization_profile"] * 2 + ["set_calibration_profile"]


@pytest.mark.parametrize(
    ("options", "profiles"),
    [
        (["x:1x3"], [{"x": (1, 1)}]),
        (["x:1x3", "x:2x3..4x3..8x3"], [{"x": (1, 1)}, {"x": (2, 8)}]),
        (["x:1x3", "y:5", "x:2x3"], [{"x": (1, 1), "y": (5, 5)}, {"x": (2, 2), "y": (5, 5)}]),
        (["x:1", "x:2", "y:3", "y:4"], [{"x": (1, 1), "y": (3, 3)}, {"x": (2, 2), "y": (4, 4)}]),
        ([], [{}]),
    ],
)
def test_an_input_that_is_named_again_is_one_more_profile(options, profiles):
    words = [word for text in options for word in ("--shape", text)]
    request = parse(["m.onnx", "--trt", "--onnxrt", *words])
    assert [{n: (r.min[0], r.max[0]) for n, r in one.items()} for one in request.rules.shape_sets] == profiles


def test_two_inputs_with_different_numbers_of_profiles_are_refused():
    words = [word for text in ("x:1", "x:2", "x:3", "y:1", "y:2") for word in ("--shape", text)]
    with pytest.raises(UsageError, match=r"3 profiles for x and 2 for y: give y once, for all of them, or 3 times"):
        parse(["m.onnx", "--trt", "--onnxrt", *words])


def test_random_samples_take_the_shapes_of_the_profiles_in_turn():
    loader = DataLoader(samples=5, shapes={"x": (1, 3, 8, 8)}, more_shapes=[{"x": (4, 3, 8, 8)}])
    assert [feed["x"].shape[0] for feed in loader.bind(network())] == [1, 4, 1, 4, 1]


def test_the_command_builds_and_runs_several_profiles(files, capsys):
    _, source, _ = files(batch="n", workload=Workload(shapes={"x": ANY}))
    words = ["--shape", "x:1x3x8x8", "--shape", "x:2x3x8x8..4x3x8x8..8x3x8x8", "--json", "-", "-q"]
    assert main([str(source), "--trt", "--onnxrt", *words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["runners"][1]["options"]["profiles"]) == 2
    assert report["outputs"][0]["metrics"]["count"] == 5 * (1 + 4 + 2 + 8), "random samples come in all profiles"


# --- profiles of pieces -----------------------------------------------------------------------------------------------


def test_every_profile_of_the_whole_model_becomes_one_of_each_piece():
    model = network()
    workload = Workload(samples=samples(3), profiles=({"x": ONE}, {"x": FEW}))
    first, second = profiles_of(Side("trt", TrtRunner(), model), workload)
    assert first["c"] == ShapeRange((1, 4, 6, 6), (1, 4, 6, 6), (1, 4, 6, 6))
    assert second["p"] == ShapeRange((2, 4), (4, 4), (8, 4))
    seen = profiles_of(Side("trt", TrtRunner(), model), Workload(samples=samples(3, 1, 9)))
    assert [one["y"] for one in seen] == [ShapeRange((1, 5), (3, 5), (9, 5))]
    for side in (Side("onnxrt", OnnxrtRunner(), model), Side("trt", TrtRunner(), network(2))):
        assert profiles_of(side, workload) == ()


def test_a_piece_is_opened_for_what_it_is_fed_and_wider_when_that_was_not_enough():
    feed = {"x": np.zeros((4, 2))}
    r = ShapeRange((1, 2), (4, 2), (8, 2))
    assert sets_for(feed, (), ()) == [{"x": ShapeRange((4, 2), (4, 2), (4, 2))}]
    assert sets_for(feed, [{"x": r, "y": r}], ()) == [{"x": r}]
    (wider,) = sets_for({"x": np.zeros((9, 2))}, (), [{"x": r}])
    assert wider == {"x": ShapeRange((1, 2), (4, 2), (9, 2))}


def test_ranges_that_are_seen():
    assert seen_ranges(samples(3, 1, 5)(), ["x"]) == {"x": ShapeRange((1, 3, 8, 8), (3, 3, 8, 8), (5, 3, 8, 8))}
    assert seen_ranges([{"x": np.zeros(2)}, {"x": np.zeros((2, 2))}], ["x"]) == {}


@pytest.mark.parametrize("profiles", [None, [{"x": shape(1)}, {"x": shape(2, 4, 8)}]], ids=["seen", "named"])
def test_samples_of_several_shapes_make_no_culprit(tensorrt, profiles):
    tensorrt(OLD)
    data = list(samples(1, 4, 2)())
    runners = [OnnxrtRunner(), TrtRunner()]
    report = Comparator(network(), runners, data_loader=data, shapes=profiles, layers="guilty").compare()
    assert report.verdict == "pass"
    assert report.culprits == ()
    assert {layer.verdict for layer in report.layers} == {"ok"}
    assert [f.share is not None for f in report.fidelity] == [True]


# --- engines in files -------------------------------------------------------------------------------------------------


def test_what_an_engine_was_built_from_is_kept_beside_it(files):
    _, source, engine = files(TrtRunner(fp16=True, keep=("fc",)), folder="engines")
    facts = json.loads(facts_path(engine).read_text())
    assert facts["schema"] == "layerdiff.engine/1"
    assert facts["model"] == {"path": "../models/net.onnx", "sha256": load(source).sha256, "external": {}}
    assert facts["built_by"]["tensorrt"] == "8.6.0"
    assert (facts["choices"]["fp16"], facts["choices"]["keep"]) == (True, ["fc"])
    assert [item["name"] for item in facts["inputs"] + facts["outputs"]] == ["x", "y"]
    assert facts["layers"] == {"nodes": 4, "layers_parsed": 4, "layers_computing": 4}
    model = load(engine)
    assert (model.source, model.label, model.opaque) == (str(source.resolve()), str(engine), False)


def test_an_engine_is_a_model_and_the_onnx_file_it_came_from_is_run_by_the_others(files, capsys):
    module, _, engine = files(TrtRunner(fp16=True))
    assert main([str(engine), "--trt", "--onnxrt", "--emulate", "fp16", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert [r["name"] for r in report["runners"]] == ["onnxrt", "trt:fp16", "emulate:fp16"]
    assert report["runners"][1]["options"]["engine"] == str(engine)
    assert report["model"]["source"].endswith("net.onnx")
    assert f"trt:fp16 on {engine}, built from" in err
    assert not any(owner == "Builder" for owner, *_ in module.calls), "the engine is run, not built again"


def test_a_model_that_was_moved_with_its_engine_is_found(files, tmp_path):
    _, source, engine = files()
    new = tmp_path / "elsewhere"
    new.mkdir()
    for path in (source, engine, facts_path(engine)):
        shutil.move(path, new / path.name)
    assert load(new / engine.name).source == str(new / "net.onnx")


CHANGES = [
    # what happened, what is said by a runner that needs the ONNX file
    (lambda source, engine: source.write_bytes(source.read_bytes() + b"\x3a\x00"), "net.onnx has changed since"),
    (lambda source, engine: source.unlink(), "which net.engine was built from, is not there"),
    (lambda source, engine: facts_path(engine).unlink(), "nothing beside net.engine says which ONNX file"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=["changed", "gone", "unknown"])
def test_an_engine_whose_model_is_not_known_stands_alone(files, capsys, change, said):
    _, source, engine = files(TrtRunner(fp16=True))
    change(source, engine)
    assert main([str(engine), "--trt", "--onnxrt"]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("loading")]
    assert len(err) == 2
    assert "onnxrt runs the ONNX file behind" in err[0]
    assert said in err[0]
    assert f"Name both: compare {engine} MODEL.onnx --trt --onnxrt" in err[1]
    # two engines are compared by their outputs; that they are the same is no matter of tolerance
    assert main([str(engine), "--trt", "--trt"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert main([str(engine), "--trt", "--trt", "--layers"]) == 2
    assert "--layers needs the ONNX file behind" in capsys.readouterr().err


def test_the_user_may_name_both_in_any_order_and_a_change_is_said(files, capsys):
    _, source, engine = files()
    facts_path(engine).unlink()
    for models in ([engine, source], [source, engine]):
        assert main([*map(str, models), "--trt", "--onnxrt"]) == 0
        assert "built from" in capsys.readouterr().out
    _, source, engine = files()
    other = onnx.load(source)
    other.producer_name = "somebody else"
    onnx.save(other, source)
    for words in ([str(engine), str(source), "--trt"], [str(source), "--trt", "--engine", str(engine)]):
        assert main([*words, "--onnxrt"]) == 0
        assert "net.engine was not built from" in " ".join(capsys.readouterr().out.split())


def test_engines_that_stand_alone_are_not_passed_by_a_tolerance_that_nobody_knows(files, tmp_path, capsys):
    _, source, engine = files()
    other = onnx.load(source)
    weight = next(t for t in other.graph.initializer if t.name == "v")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1 + 1e-6), "v"))
    onnx.save(other, tmp_path / "other.onnx")
    second = tmp_path / "other.engine"
    TrtRunner(save_engine=str(second)).open(load(tmp_path / "other.onnx")).close()
    for path in (engine, second):
        facts_path(path).unlink()
    assert main([str(engine), str(second), "--trt"]) == 1
    assert "undecided" in capsys.readouterr().out
    assert main([str(engine), str(second), "--trt", "--rtol", "1e-4", "--atol", "1e-4"]) == 0
    assert "trt@other.engine agrees with trt" in capsys.readouterr().out


def test_number_formats_come_from_the_engine(files):
    _, _, engine = files(TrtRunner(int8=True, fp16=True))
    model = load(engine)
    settled = TrtRunner().for_model(model)
    assert settled.name == "trt:fp16+int8"
    assert settled.arithmetic.name == "int8"
    assert TrtRunner.from_value("int8,fp16").for_model(model) == settled
    for other in (TrtRunner(fp16=True), TrtRunner(int8=True, fp16=True, calibrator="minmax")):
        with pytest.raises(UsageError, match=r"was built with fp16\+int8, and .* was asked for: write --trt alone"):
            other.for_model(model)


@pytest.mark.parametrize("options", [{}, {"int8_qdq": "max"}], ids=["calibrator", "Q/DQ"])
def test_pieces_of_a_loaded_engine_are_calibrated_as_it_was(files, tensorrt, options):
    _, _, engine = files(TrtRunner(int8=True, **options))
    tensorrt(OLD)  # another process: nothing is remembered
    model = load(engine)
    runner = TrtRunner().for_model(model)
    with runner.open(model) as opened:
        (feed,) = samples(2)()
        whole = opened.infer(feed)["y"]
        pieces = runner.for_pieces(opened.info)
    with pieces.open(model.derive(model.proto)) as piece:  # without samples it could not be calibrated
        np.testing.assert_array_equal(piece.infer(feed)["y"], whole)


@pytest.mark.parametrize("version", [OLD, ELEVEN])
def test_a_piece_without_products_is_built_as_it_is(tensorrt, version):
    tensorrt(version)
    model, feed = network(batch=2), next(samples(2)())
    runner = TrtRunner(int8=True, int8_qdq="max")
    with runner.open(model, workload=Workload(samples=samples(2))) as whole:
        pieces = runner.for_pieces(whole.info)
    relu = slice_model(model, Slice(("r",), (1,), ("c",)), {"c": model.index.specs["c"]})
    with pieces.open(relu, workload=Workload(samples=samples(2))) as piece:
        found = piece.infer({"c": feed["x"][:, :1].repeat(4, 1)[:, :, :6, :6]})["r"]
    assert found.min() == 0 < found.max()


def test_external_weights_that_changed_are_noticed(tensorrt, tmp_path):
    tensorrt(OLD)
    path, engine = tmp_path / "net.onnx", tmp_path / "net.engine"
    onnx.save(
        onnx.ModelProto.FromString(network(2).serialized()),
        path,
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    TrtRunner(save_engine=str(engine)).open(load(path)).close()
    assert not load(engine).opaque
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    assert load(engine).opaque
    assert "w.bin, weights of net.onnx, has changed" in Engine.at(engine).origin[1]


def test_an_engine_is_run_as_it_is_where_the_model_does_not_fit_in_memory(tensorrt, tmp_path):
    module, _ = tensorrt(OLD)
    path, engine = tmp_path / "net.onnx", tmp_path / "net.engine"
    proto = onnx.ModelProto.FromString(network(2).serialized())
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=64)
    TrtRunner(save_engine=str(engine)).open(load(path)).close()
    module.calls.clear()
    report = Comparator(str(engine), [TrtRunner(), OnnxrtRunner()], memory=100).compare()
    assert report.verdict == "pass", [r.failure for r in report.runners]
    assert any("run in" in note and "pieces" in note for note in report.runners[0].notes), "the reference has to be"
    assert not any(owner == "Builder" for owner, *_ in module.calls)


def test_an_engine_alone_is_asked_for_its_inputs_and_outputs(files):
    _, _, engine = files(batch="n", workload=Workload(shapes={"x": FEW}))
    facts_path(engine).unlink()
    model = load(engine)
    assert model.opaque
    assert model.outputs == ()
    inputs, outputs = TrtRunner().engine_io(model)
    assert [str(s) for s in (*inputs, *outputs)] == ["x (float32, ?x3x8x8)", "y (float32, scalar)"]


def test_outputs_that_the_model_does_not_have_are_compared_too(files):
    _, source, engine = files()
    model = load(source)
    smaller = onnx.ModelProto.FromString(model.serialized())
    extra = network(2).proto
    extra.graph.output.append(onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, [2, 4]))
    TrtRunner(save_engine=str(engine)).open(Model(extra)).close()
    with TrtRunner().open(load_engine(engine, smaller)) as opened:
        assert [s.name for s in opened.outputs] == ["y", "p"]


BROKEN = [
    # what happened to the engine, where it is said, in which words
    (lambda e: e.write_bytes(e.read_bytes()[:100]), ModelError, "cut short, 100 of"),
    (lambda e: e.write_bytes(b""), ModelError, "empty, not an engine"),
    (lambda e: e.write_bytes(e.read_bytes() + b"x"), ModelError, "is not the engine that net.engine.json"),
    (lambda e: e.write_bytes(e.read_bytes()[:-1] + b"?"), ModelError, "is not the engine that net.engine.json"),
    (lambda e: facts_path(e).write_text("{}"), ModelError, "not the facts of an engine"),
    (lambda e: facts_path(e).write_text("nonsense"), ModelError, "not the facts of an engine"),
    (
        lambda e: facts_path(e).write_text(facts_path(e).read_text().replace('"8.6.0"', '"10.3.0"')),
        RunnerError,
        "was built by TensorRT 10.3.0, and this is 8.6.0, which cannot load it",
    ),
]


@pytest.mark.parametrize(("damage", "error", "said"), BROKEN)
def test_a_damaged_engine_is_refused_in_one_line(files, damage, error, said):
    _, _, engine = files()
    damage(engine)
    with pytest.raises(error) as refusal:
        TrtRunner().open(load(engine))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


UNLOADABLE = [
    (
        "1: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: Serialization (Serialization assertion "
        "magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
        "it is no TensorRT engine, or a damaged one",
    ),
    (
        "6: The engine plan file is not compatible with this version of TensorRT, expecting library version 8.6.0 got "
        "8.5.1, please rebuild.",
        "it was built by TensorRT 8.5.1, and this is 8.6.0",
    ),
    (
        "6: The engine plan file is generated on an incompatible device, expecting compute 9.0 got compute 8.0, please "
        "rebuild.",
        "it was built for a GPU of compute capability 8.0, and this one has 9.0",
    ),
    ("4: [runtime.cpp::deserializeCudaEngine::65] Error Code 4: nothing else", "it is no engine, or cut short: "),
]


@pytest.mark.parametrize(("text", "why"), UNLOADABLE)
def test_why_an_engine_cannot_be_loaded(text, why):
    assert log.why_unloadable([text, "2: something behind"]).startswith(why)


def test_layers_are_counted_before_and_after_fusion(tensorrt):
    tensorrt(OLD)
    with TrtRunner().open(network(2)) as opened:
        assert "4 ONNX nodes, 4 layers when parsed; fused into 4 layers of the engine (4 in FP32)." in opened.info.notes


@pytest.mark.parametrize("sets", [(FEW,), (ONE, FEW, MANY)], ids=["one profile", "three profiles"])
def test_layers_of_several_profiles_are_counted_once_with_their_formats(tensorrt, sets):
    module, _ = tensorrt(OLD)
    model, runner = network(), TrtRunner(fp16=True)
    with runner.open(model, workload=Workload(profiles=tuple({"x": r} for r in sets))) as opened:
        assert opened.inspector_text().count('"[ONNX Layer: conv]"') == len(sets)
        assert [layer.profile for layer in opened.layers()] == [p for p in range(len(sets)) for _ in range(4)]
        assert opened.info.options["layers_engine"] == 4
        # of the first profile of several, only the weights tell: the pooling has none
        several = len(sets) > 1
        assert opened.info.options["formats"] == {"FP16": 3 if several else 4}
        each = "(3 in FP16) in profile 0; 4 (4 in FP16) in profile 1; 4" if several else "(4 in FP16)"
        assert any(f"fused into 4 layers of the engine {each}" in note for note in opened.info.notes), opened.info.notes
        deployed = opened.info
    assert deployed.node_formats == dict.fromkeys(("conv", "act", "pool", "fc"), ("FP16", "FP16"))
    assert deployed.kernels == tuple(frozenset({p}) for p in range(4))
    module.calls.clear()
    runner.for_pieces(deployed).open(model.derive(model.proto), workload=Workload(profiles=({"x": FEW},))).close()
    pins = [c[2] for c in module.calls if c[:2] == ("ILayer", "precision")]
    assert pins == [module.DataType.HALF] * 4, "a piece runs in the deployed engine's formats"


@pytest.mark.parametrize(("other", "unnamed"), [("FP16", ("FP16", "")), ("FP32", None)])
def test_where_all_layers_run_in_one_format_so_do_nodes_that_none_names(other, unnamed):
    def layer(name: str, precision: str) -> inspector.EngineLayer:
        tensors = (inspector.EngineTensor(name, (1,), f"Row major linear {precision} format"),)
        return inspector.EngineLayer(name, "CaskConvolution", (name,), tensors, tensors, "")

    layers = [layer("conv", "FP16"), layer("fc", other)]
    assert {found.precision for found in layers} == {"FP16", other}
    formats = inspector.deployed_info(SessionInfo(), layers, network()).node_formats
    assert formats.get("act") == unnamed
    assert (formats["conv"], formats["fc"]) == (("FP16", "FP16"), (other, other))


def test_nodes_whose_kernels_add_in_fp16_are_told(tensorrt, monkeypatch):
    tensorrt(OLD)
    kernels = {"conv": "f16f16_f16f16_f16", "fc": "f16f16_f16f32_f32"}
    layers = session.TrtSession.layers

    def named(opened):
        told = {node: f"sm80_xmma_fprop_implicit_gemm_{kind}_nhwckrsc" for node, kind in kernels.items()}
        return tuple(replace(layer, tactic=told.get(layer.name, "")) for layer in layers(opened))

    monkeypatch.setattr(session.TrtSession, "layers", named)
    with TrtRunner(fp16=True).open(network(2)) as opened:
        assert opened.info.fp16_accumulation == {"conv"}
        assert any("1 of 2 matrix products add in FP16" in note for note in opened.info.notes)
    report = Comparator(network(2), [OnnxrtRunner(), TrtRunner(fp16=True)]).compare()
    assert report.runners[1].options["accumulators"] == {"FP16": 1, "FP32": 1}


PROFILES = [
    # layers of each profile, what the note says
    ([(4, {"FP16": 4})], "fused into 4 layers of the engine (4 in FP16)."),
    ([(4, {"FP16": 4})] * 2, "fused into 4 layers of the engine (4 in FP16) in each of its 2 profiles."),
    (
        [(4, {"FP16": 4}), (3, {"FP16": 2, "FP32": 1})],
        "fused into 4 layers of the engine (4 in FP16) in profile 0; 3 (2 in FP16, 1 in FP32) in profile 1.",
    ),
    ([(4, {}), (4, {})], "fused into 4 layers of the engine in each of its 2 profiles."),
    ([(1, {"FP16": 1})], "fused into 1 layer of the engine (1 in FP16)."),
]


@pytest.mark.parametrize(("told", "note"), PROFILES)
def test_what_fuses_differently_in_two_profiles_is_told(told, note):
    assert summary.fused_note({"nodes": 5}, told) == (f"5 ONNX nodes; {note}",)


def test_profiles_that_no_name_tells_are_one_after_the_other():
    layers = [inspector.EngineLayer(n, "", (), (), (), "") for n in "abab"]
    assert [layer.profile for layer in inspector._marked(layers, 2)] == [0, 0, 1, 1]
    assert [layer.profile for layer in inspector._marked(layers, 1)] == [0, 0, 0, 0]
    assert [layer.profile for layer in inspector._marked(layers, 3)] == [0, 0, 0, 0], "not to be told apart"


UNTOLD = {"Name": "t", "Dimensions": [-1, 8], "Format/Datatype": "N/A due to dynamic shapes"}
KERNEL = "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize32x32x64_stage"


@pytest.mark.parametrize(
    ("more", "formats"),
    [
        ({}, None),
        ({"Weights": {"Type": "Half", "Count": 64}}, ("FP16", "")),
        ({"TacticName": KERNEL}, ("FP16", "FP32")),
        ({"Weights": {"Type": "Int8", "Count": 64}, "TacticName": KERNEL}, ("INT8", "FP32")),
    ],
)
def test_where_no_format_is_told_weights_and_kernels_tell_it(more, formats):
    layer = {"Name": "a [profile 1]", "LayerType": "Cask", "Metadata": "[ONNX Layer: a]", "Inputs": [UNTOLD]}
    (found,) = inspector.read(json.dumps({"Layers": [{**layer, "Outputs": [UNTOLD], **more}]}))
    assert (found.name, found.profile, found.nodes) == ("a", 1, ("a",))
    assert inspector.node_formats([found]).get("a") == formats


def test_an_engine_with_marked_tensors_is_held_against_the_deployed_one(tensorrt):
    tensorrt(OLD)
    (feed,) = samples(2)()
    with TrtRunner().open(network(2)) as opened:
        opened.infer(feed, ["r", "y"])
        opened.infer(feed, ["r", "y"])
        found = [note for note in opened.info.notes if "marked to be observed" in note]
        assert len(found) == 1
        assert found[0].startswith("Tensor 'r' was marked")
        assert "bit by bit" in found[0]
    near, value = {"y": np.ones(4, np.float32)}, {"y": np.ones(4, np.float32) * np.float32(1.01)}
    assert "'y' differs from the deployed one by 1.0e-02" in session._marked(("a", "b"), near, value)


KERNELS = [
    # kernels by node names, groups that come out
    ([], [["conv", "act"], ["pool"], ["fc"]]),
    ([["conv", "act"], ["pool", "fc"]], [["conv", "act"], ["pool", "fc"]]),
    ([["conv"], ["act"]], [["conv"], ["act"], ["pool"], ["fc"]]),
    ([["conv"]], [["conv", "act"], ["pool"], ["fc"]]),
    ([["act"], ["fc"]], [["conv", "act"], ["pool"], ["fc"]]),
    ([["conv", "act", "pool", "fc"]], [["conv", "act", "pool", "fc"]]),
]


@pytest.mark.parametrize(("kernels", "groups"), KERNELS)
def test_layers_are_the_kernels_that_a_runtime_tells_of(kernels, groups):
    index = network(2).index
    found = kernel_groups(index, [{index.names.index(n) for n in kernel} for kernel in kernels])
    assert [[index.names[p] for p in group.nodes] for group in found] == groups


def test_two_tensors_that_leave_a_kernel_end_two_layers():
    text = """g (float[2, 8] x) => (float[2, 8] y, float[2, 8] z) {
        a = Sigmoid(x)
        b = Tanh(x)
        c = Relu(a)
        y = Add(c, x)
        z = Mul(b, b)
    }"""
    index = Model(parsed(text)).index
    found = kernel_groups(index, [{0, 1, 2}, {3}, {4}])
    assert [group.nodes for group in found] == [(0, 1), (2,), (3,), (4,)]


def test_the_engine_that_is_deployed_tells_its_kernels(tensorrt):
    tensorrt(OLD)
    model, runner = network(2), TrtRunner()
    with runner.open(model) as opened:
        assert runner.kernels(model, opened.info) == tuple(frozenset({p}) for p in range(4))
    report = Comparator(model, [OnnxrtRunner(), runner], layers="guilty").compare()
    assert [layer.nodes for layer in report.layers] == [("conv",), ("act",), ("pool",), ("fc",)]


def test_two_runners_do_not_write_one_engine():
    with pytest.raises(UsageError, match=r"--save-engine a.engine: 2 runners would write it"):
        parse(["m.onnx", "--trt", "--trt=fp16", "--save-engine", "a.engine"])


# --- the observed program and the deployed one ------------------------------------------------------------------------


@dataclass(frozen=True)
class HalfDeployed(OnnxrtRunner):
    """FP16 as a whole and FP32 in pieces: what is observed is not what is deployed."""

    @property
    def name(self):
        return "half"

    @property
    def arithmetic(self):
        return EmulateRunner(format="fp16").arithmetic

    def open(self, model, **rest):
        runner = OnnxrtRunner() if model.derived else EmulateRunner(format="fp16")
        return runner.open(model, **rest)


def test_pieces_that_show_little_of_the_deployed_error_are_warned_of():
    report = Comparator(network(2), [OnnxrtRunner(), HalfDeployed()], layers="guilty").compare()
    (found,) = report.fidelity
    assert (found.candidate, found.tensor, found.bit_identical) == ("half", "y", False)
    assert found.share < 0.01
    assert found.deployed_error > 1e-5
    assert any(
        "less than 1% of the deployed one: layers explain nothing of it" in warning for warning in report.warnings
    )
    data = to_json(report)["fidelity"][0]
    assert set(data) == {"candidate", "tensor", "deployed_error", "observed_error", "share", "bit_identical"}


@dataclass(frozen=True)
class OrdersOtherwise(OnnxrtRunner):
    """FP32 throughout, whose last bits are others as a whole."""

    @property
    def name(self):
        return "orders"

    def open(self, model, **rest):
        session = super().open(model, **rest)
        if model.derived:
            return session
        return lambda feed: {n: np.nextafter(y, np.float32(np.inf)) for n, y in session.infer(feed).items()}


def test_of_plain_rounding_in_an_output_that_passes_nothing_is_explained():
    report = Comparator(network(2), [OnnxrtRunner(), OrdersOtherwise()], layers="guilty").compare()
    (found,) = report.fidelity
    assert (report.verdict, found.share, found.bit_identical) == ("pass", 0, False)
    assert "fidelity" not in {notice.code for notice in report.notices}


def test_pieces_that_are_the_deployed_program_say_so(capsys, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(network(2).proto, path)
    assert main([str(path), "--onnxrt", "--emulate", "fp16", "--layers"]) == 0
    assert "gives the outputs of the deployed run, bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("deployed", "observed", "bits", "share", "identical", "warned"),
    [
        (1e-3, 1e-3, [True, True], 1.0, True, ""),
        (1e-3, 1e-3, [True, False], 1.0, False, ""),
        (1e-3, 4e-4, [False], 0.4, False, "40% of the deployed one: layers explain it in part only"),
        (1e-3, 3e-3, [False], 3.0, False, "errors that it does not make"),
        (0.0, 0.0, [False], 1.0, False, ""),
        (0.0, 1e-6, [False], None, False, "the deployed one has none"),
        (None, 1e-6, [False], None, False, ""),
        (1e-3, float("inf"), [], None, None, ""),
    ],
)
def test_how_much_of_the_deployed_error_is_shown(deployed, observed, bits, share, identical, warned):
    found = fidelity("c", "y", deployed, observed, bits)
    assert found.share == (None if share is None else pytest.approx(share))
    assert found.bit_identical is identical
    notice = fidelity_notice(found)
    assert (notice is not None) == bool(warned)
    assert not warned or warned in str(notice)


def test_outputs_are_remembered_bit_by_bit():
    value, words = np.array([[1.0, np.nan, 0.0]], np.float32), np.array(["a", "b"], object)
    deployed = Deployed({**fingerprints("trt", 0, {"y": value}), **fingerprints("trt", 2, {"s": words})})
    assert deployed.same("trt", 0, "y", value.copy()) is True
    for other in (value * -1, value.astype(np.float64), value.reshape(3), np.nan_to_num(value)):
        assert deployed.same("trt", 0, "y", other) is False
    assert deployed.same("trt", 1, "y", value) is None
    assert deployed.same("trt", 2, "s", words.copy()) is True
    assert deployed.same("trt", 2, "s", np.array(["a", "c"], object)) is False


# --- the same twice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "identical", "tensor"),
    [
        ({"y": [1.0, 2.0]}, {"y": [1.0, 2.0]}, True, ""),
        ({"y": [1.0], "z": [2.0]}, {"y": [1.0], "z": [2.5]}, False, "z"),
        ({"y": [np.nan]}, {"y": [np.nan]}, True, ""),
        ({"y": [1.0]}, {"y": [np.inf]}, False, "y"),
        ({"y": [1.0]}, {"y": [1.0, 1.0]}, False, "y"),
        ({"y": [1.0]}, {}, False, "y"),
    ],
)
def test_two_runs_of_the_same_inputs(first, second, identical, tensor):
    found = repeat({n: np.array(v) for n, v in first.items()}, {n: np.array(v) for n, v in second.items()})
    assert (found.identical, found.tensor) == (identical, tensor)
    assert (found.max_abs == 0) == identical


@dataclass(frozen=True)
class Shaky(OnnxrtRunner):
    """ONNX Runtime, and every run errs by another small amount."""

    believed: int = 45

    @property
    def name(self):
        return "shaky"

    @property
    def trust(self):
        return self.believed

    def open(self, model, **rest):
        opened = OnnxrtRunner().open(model, **rest)
        infer, rng = opened.infer, np.random.default_rng(0)

        def shaken(feed, fetch=None):
            found = infer(feed, fetch)
            return {n: (a * (1 + 1e-3 * rng.normal(size=a.shape))).astype(a.dtype) for n, a in found.items()}

        opened.infer = shaken
        return opened


@pytest.mark.parametrize("trust", [45, 0], ids=["candidate", "reference"])
def test_a_runner_that_does_not_repeat_itself_is_named_before_anything_is_blamed(trust):
    report = Comparator(network(2), [OnnxrtRunner(), Shaky(believed=trust)], layers="guilty").compare()
    by = {r.name: r.repeat for r in report.runners}
    assert by["onnxrt"]["bit_identical"] is True
    assert by["shaky"]["bit_identical"] is False
    assert 1e-5 < by["shaky"]["rel_l2"] < 1e-2
    (warning,) = [w for w in report.warnings if "not deterministic" in w]
    assert warning.startswith("shaky is not deterministic: run twice on the same inputs, 'y' differs by ")
    assert ("of its error; what is blamed for it may be chance" in warning) == (trust == 45)
    assert ("it is the reference" in warning) == (trust == 0)
    shaken = next(r for r in to_json(report)["runners"] if r["name"] == "shaky")
    assert shaken["repeat"].keys() == {"bit_identical", "tensor", "max_abs", "rel_l2"}


def test_what_draws_random_values_is_run_twice_on_every_runtime():
    node = helper.make_node("RandomUniformLike", ["x"], ["r"], name="draw")
    add = helper.make_node("Add", ["x", "r"], ["y"], name="add")
    x, y = ((n, TensorProto.FLOAT, [2, 8]) for n in "xy")
    model = assembled([node, add], [x], [y])
    report = Comparator(model, [OnnxrtRunner(), OnnxrtRunner()], layers="guilty").compare()
    assert [r.repeat["bit_identical"] for r in report.runners] == [False, False]


def test_without_layers_nothing_is_run_twice(function_runner, identity_model):
    runs = []
    steady = function_runner(function=lambda feed: runs.append(1) or {"y": feed["x"]}, label="steady")
    Comparator(identity_model, [steady, steady], data_loader=[{"x": np.zeros(2, np.float32)}]).compare()
    assert len(runs) == 2


def test_the_builds_of_a_comparison_share_their_timings(tensorrt):
    module, _ = tensorrt(OLD)
    Comparator(network(2), [TrtRunner(), TrtRunner()]).compare()
    begun = [call[2] for call in module.calls if call[1] == "create_timing_cache"]
    assert begun == [(b"",), (b".",), (b".",)]  # the last takes those of the second build besides


def test_pieces_are_one_engine_each_and_begin_with_the_timings_of_those_before(tensorrt):
    module, _ = tensorrt(OLD)
    runners = [OnnxrtRunner(), TrtRunner()]
    report = Comparator(network(2), runners, data_loader=list(samples(2, 2)()), layers="all", memory=1).compare()
    pieces = {layer.piece for layer in report.layers}
    builds = [call for call in module.calls if call[1] == "build_serialized_network"]
    assert len(pieces) > 1
    assert len(builds) == 1 + len(pieces)
    assert all(layer.cumulative["rel_l2"] is not None for layer in report.layers)
    begun = [call[2][0] for call in module.calls if call[1] == "create_timing_cache"]
    assert [len(b) for b in begun if b][::2] == list(range(1, len(builds)))


def test_a_builder_that_chooses_otherwise_is_seen_by_two_runners_without_a_timing_cache(tensorrt):
    tensorrt(OLD)
    runners = [TrtRunner(timing_cache="off"), TrtRunner(timing_cache="off")]
    report = Comparator(network(2), runners, layers="guilty").compare()
    assert [r.name for r in report.runners] == ["trt", "trt#2"]
    assert report.verdict == "pass"
