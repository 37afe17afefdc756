"""Recorded outputs as a side: what is compared, and what is no pass because the recording is not of these samples."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner, RecordedRunner, RunnerError, UsageError
from layerdiff.compare.cli.command import main
from layerdiff.graph import recordings
from layerdiff.graph.formats import BF16, FP16, FP32
from layerdiff.graph.model import Model
from layerdiff.graph.numpy_files import write_npz
from layerdiff.runners.contract.workload import Workload

from support.models import parsed

NETWORK = "g (float[N, 4] x) => (float[N, 4] y) { r = Relu(x) h = Mul(r, k) y = Tanh(h) }"
HALF = np.full(4, 0.5, np.float32)
SAMPLES = [{"x": np.linspace(low, low + 3, 8, dtype=np.float32).reshape(2, 4)} for low in (-2, -1, 0)]


def computed(x, factor=HALF):
    relu = np.maximum(x, 0)
    return {"r": relu, "h": relu * factor, "y": np.tanh(relu * factor)}


@pytest.fixture
def network():
    return parsed(NETWORK, k=HALF)


@pytest.fixture
def against(network):
    """Compares ONNX Runtime with a recording."""

    def run(path, samples=SAMPLES, settings=None, **rules):
        recorded = RecordedRunner(path=path, **(settings or {}))
        return Comparator(network, [OnnxrtRunner(), recorded], data_loader=samples, **rules).compare()

    return run


def folder_of(path, outputs):
    path.mkdir()
    for number, arrays in enumerate(outputs):
        write_npz(path / f"sample{number}.npz", arrays)
    return path


# ---- what is compared -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["run.json", "run"])
def test_what_was_saved_is_a_side_of_the_next_comparison(form, network, against, tmp_path):
    path = tmp_path / form
    Comparator(
        network, [OnnxrtRunner(), OnnxrtRunner(threads=1)], data_loader=SAMPLES, save_outputs=str(path)
    ).compare()
    report = against(path, settings={"runner": "onnxrt"})
    assert (report.verdict, report.data.samples, report.outputs[0].metrics["max_abs"]) == ("pass", 3, 0)


def test_a_file_is_read_once_for_a_comparison_and_again_when_it_changed(network, against, tmp_path, monkeypatch):
    read = []
    load = recordings.load_recordings
    monkeypatch.setattr(recordings, "load_recordings", lambda path: read.append(path) or load(path))
    path = tmp_path / "run.json"
    for factor, verdict in ((HALF, "pass"), (2 * HALF, "fail")):
        other = parsed(NETWORK, k=factor)
        Comparator(other, [OnnxrtRunner(), OnnxrtRunner()], data_loader=SAMPLES, save_outputs=str(path)).compare()
        assert against(path, settings={"runner": "onnxrt"}, layers="guilty").verdict == verdict
    assert len(read) == 2


def test_one_archive_is_one_sample(against, tmp_path):
    write_npz(tmp_path / "phone.npz", {"y": computed(SAMPLES[0]["x"])["y"]})
    assert against(tmp_path / "phone.npz", SAMPLES[:1]).verdict == "pass"


def test_samples_are_read_in_the_order_of_their_numbers(against, tmp_path):
    samples = SAMPLES * 4
    assert against(folder_of(tmp_path / "run", [computed(s["x"]) for s in samples]), samples).verdict == "pass"


def test_samples_with_the_same_inputs_keep_their_own_outputs(against, tmp_path):
    good, bad = computed(SAMPLES[0]["x"])["y"], computed(SAMPLES[0]["x"])["y"] + 1
    report = against(folder_of(tmp_path / "run", [{"y": good}, {"y": bad}]), SAMPLES[:1] * 2)
    assert (report.verdict, report.outputs[0].worst_sample) == ("fail", 1)


def test_another_result_fails(against, tmp_path):
    path = folder_of(tmp_path / "run", [computed(s["x"], HALF * 1.01) for s in SAMPLES])
    assert against(path).verdict == "fail"


def test_a_missing_output_is_no_pass(tmp_path):
    network = parsed("g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) { y = Relu(x) z = Abs(x) }")
    path = folder_of(tmp_path / "run", [{"y": np.maximum(SAMPLES[0]["x"], 0)}])
    report = Comparator(network, [OnnxrtRunner(), RecordedRunner(path=path)], data_loader=SAMPLES[:1]).compare()
    assert {o.tensor: o.verdict for o in report.outputs} == {"y": "pass", "z": "missing"}
    assert report.verdict == "fail"


def test_what_no_tensor_of_the_network_is_called_is_an_extra_output(against, tmp_path):
    report = against(folder_of(tmp_path / "run", [{**computed(SAMPLES[0]["x"]), "w": HALF}]), SAMPLES[:1])
    assert {o.tensor: o.verdict for o in report.outputs} == {"y": "pass", "w": "extra"}


@pytest.mark.parametrize("recorded_as", ["fp16", ""])
def test_errors_are_held_against_the_format_that_was_recorded(recorded_as, network, tmp_path):
    path = folder_of(tmp_path / "run", [computed(SAMPLES[0]["x"])])
    (path / "recording.json").write_text(json.dumps({"runner": "phone", "format": recorded_as}))
    runner = RecordedRunner(path=path).for_model(Model(network))
    assert runner.arithmetic == (FP16 if recorded_as else FP32)
    assert RecordedRunner(path=path, format=recorded_as).for_model(Model(network)).arithmetic == runner.arithmetic
    other = RecordedRunner(path=path, format="bf16")
    if recorded_as:
        with pytest.raises(UsageError, match=r"format=bf16, and the recording says that it was computed in fp16"):
            other.for_model(Model(network))
    else:
        assert other.for_model(Model(network)).arithmetic == BF16


def test_bfloat16_is_read_as_the_network_has_it(tmp_path):
    network = parsed("g (bfloat16[4] x) => (bfloat16[4] y) { y = Identity(x) }", opset=21)
    x = np.arange(4).astype(ml_dtypes.bfloat16)
    path = folder_of(tmp_path / "run", [{"y": x}])
    workload = Workload(samples=lambda: iter([{"x": x}]))
    with RecordedRunner(path=path).session(Model(network), workload=workload) as session:
        assert session.infer({"x": x})["y"].dtype == x.dtype


# ---- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "culprits"), [(HALF, []), (HALF * 1.01, ["h"])])
@pytest.mark.parametrize("reference", ["onnxrt", "recorded:run"])
def test_recorded_inner_tensors_are_compared_layer_by_layer(reference, factor, culprits, against, tmp_path):
    path = folder_of(tmp_path / "run", [computed(s["x"], factor) for s in SAMPLES])
    report = against(path, layers="all", reference=reference)
    assert [tensor for culprit in report.culprits for tensor in culprit.tensors] == culprits
    assert {layer.tensor for layer in report.layers} == {"r", "h", "y"}


def test_that_the_references_layers_were_run_is_said(against, tmp_path):
    report = against(folder_of(tmp_path / "run", [computed(s["x"]) for s in SAMPLES]), layers="all")
    assert [notice.code for notice in report.notices] == ["layers-swapped"]


@pytest.mark.parametrize(
    ("names", "told"), [("h", "'h', onnxrt makes another 'y'"), ("r", "'r', onnxrt makes another 'h'")]
)
def test_a_recording_that_contradicts_itself_is_named(names, told, against, tmp_path):
    arrays = [computed(s["x"]) for s in SAMPLES]
    path = folder_of(tmp_path / "run", [{**a, **{n: np.zeros_like(a[n]) for n in names}} for a in arrays])
    report = against(path, layers="all")
    (notice,) = (n for n in report.notices if n.code not in ("layers-swapped",))
    assert (notice.code, notice.subject) == ("contradicts-itself", "recorded:run")
    assert told in notice.text


def test_without_inner_tensors_no_layers_are_seen(against, tmp_path):
    path = folder_of(tmp_path / "run", [{"y": computed(s["x"])["y"]} for s in SAMPLES])
    assert [notice.code for notice in against(path, layers="all").notices] == ["layers-not-seen"]


# ---- what is no pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [SAMPLES[:2], [*SAMPLES, SAMPLES[0]]])
def test_another_number_of_samples_is_an_error(samples, against, tmp_path):
    report = against(folder_of(tmp_path / "run", [computed(s["x"]) for s in SAMPLES]), samples)
    assert (report.verdict, report.exit_status) == ("error", 3)
    assert f"holds 3 recorded samples, and {len(samples)} are compared" in report.runners[1].error


@pytest.mark.parametrize("form", ["run.json", "run"])
def test_other_inputs_are_an_error(form, network, against, tmp_path):
    Comparator(
        network, [OnnxrtRunner(), OnnxrtRunner()], data_loader=SAMPLES, save_outputs=str(tmp_path / form)
    ).compare()
    report = against(tmp_path / form, list(reversed(SAMPLES)), {"runner": "onnxrt"})
    assert report.verdict == "error"
    assert "was made on other inputs: those of sample 0" in report.runners[1].error


def test_a_recording_that_does_not_tell_its_inputs_is_believed_and_that_is_said(against, tmp_path):
    report = against(folder_of(tmp_path / "run", [computed(s["x"]) for s in SAMPLES]))
    assert "does not tell its inputs" in report.runners[1].notes[0]


@pytest.mark.parametrize(
    ("change", "error"),
    [(lambda x: x, None), (np.float64, None), (lambda x: x + 1, "'x' of sample 0 has other values")],
)
def test_arrays_that_are_called_as_inputs_are_held_against_these(change, error, against, tmp_path):
    path = folder_of(tmp_path / "run", [{**computed(s["x"]), "x": change(s["x"])} for s in SAMPLES])
    report = against(path)
    assert report.verdict == ("pass" if error is None else "error")
    if error is None:
        assert not report.runners[1].notes
    else:
        assert error in report.runners[1].error


def test_outputs_of_another_network_are_an_error(against, tmp_path):
    report = against(folder_of(tmp_path / "run", [{"logits": HALF}]), SAMPLES[:1])
    assert "holds none of the outputs y; it holds logits" in report.runners[1].error


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "it is of 2 runners (onnxrt, onnxrt#2); say which"), ({"runner": "trt"}, "there is no 'trt' in it")],
)
def test_of_several_runners_one_is_named(settings, message, network, against, tmp_path):
    path = tmp_path / "run.json"
    Comparator(network, [OnnxrtRunner(), OnnxrtRunner()], data_loader=SAMPLES, save_outputs=str(path)).compare()
    with pytest.raises(UsageError) as raised:
        against(path, settings=settings)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "found inputs (--save-inputs)"),
        ("{", "not JSON"),
        ('{"lst": [["a", [{}]]]}', "an iteration of a has no outputs"),
        ('{"lst": ["a"]}', "expected a runner's name and its iterations"),
        ('{"lst": []}', "it is of 0 runners (none)"),
    ],
)
def test_what_is_no_recording_is_refused(content, message, against, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError) as raised:
        against(tmp_path / "run.json")
    assert message in str(raised.value)
    assert str(raised.value).startswith("--load-outputs ")


def test_a_missing_file_is_refused(against, tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        against(tmp_path / "absent.json")


def test_inputs_that_are_no_sample_cannot_be_computed(network, tmp_path):
    path = folder_of(tmp_path / "run", [computed(SAMPLES[0]["x"])])
    workload = Workload(samples=lambda: iter(SAMPLES[:1]))
    with (
        RecordedRunner(path=path).session(Model(network), workload=workload) as session,
        pytest.raises(RunnerError, match="computes nothing"),
    ):
        session.infer(SAMPLES[1])


def test_nothing_is_timed_or_run_twice(against, tmp_path):
    path = folder_of(tmp_path / "run", [computed(s["x"], HALF * 2) for s in SAMPLES])
    report = against(path, layers="all", latency=1)
    assert [notice.code for notice in report.notices if notice.subject == "recorded:run"][:1] == ["not-timed"]
    assert [runner.latency is None for runner in report.runners] == [False, True]


# ---- saving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "count"), [("in.json", 3), ("in", 3), ("in.npz", 1)])
def test_saved_inputs_are_data_again(form, count, onnx_file, tmp_path, capsys):
    model, path = onnx_file("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"), tmp_path / form
    two = [str(model), "--onnxrt", "--onnxrt", "-q"]
    assert main([*two, "--samples", str(count), "--save-inputs", str(path), "--json", str(tmp_path / "a.json")]) == 0
    assert main([*two, "--data", str(path), "--json", str(tmp_path / "b.json")]) == 0
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first["data_sha256"] == second["data_sha256"]


@pytest.mark.parametrize(
    ("option", "path"), [("--save-inputs", "x.npz"), ("--save-inputs", "x.txt"), ("--save-outputs", "x.npz")]
)
def test_a_form_that_cannot_hold_it_is_refused(option, path, onnx_file, tmp_path, capsys):
    model = onnx_file("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    assert main([str(model), "--onnxrt", "--onnxrt", "--samples", "2", option, str(tmp_path / path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"compare: {option} ")
    assert not (tmp_path / path).exists()


def test_a_runner_that_fails_leaves_what_it_gave(network, function_runner, tmp_path):
    def once(feed):
        if feed["x"][0, 0] > -2:
            raise RunnerError("no more")
        return {"y": computed(feed["x"])["y"]}

    runners = [OnnxrtRunner(), function_runner(function=once, label="flaky")]
    report = Comparator(network, runners, data_loader=SAMPLES, save_outputs=str(tmp_path / "run.json")).compare()
    assert report.verdict == "error"
    content = json.loads((tmp_path / "run.json").read_text())
    assert {name: len(iterations) for name, iterations in content["lst"]} == {"onnxrt": 2, "flaky": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json"]


# ---- Polygraphy's own package ---------------------------------------------------------------------------------------

polygraphy = pytest.importorskip("polygraphy.comparator")


def test_outputs_that_polygraphy_saved_are_read(against, tmp_path):
    results = polygraphy.RunResults()
    for name, factor in (("trt-runner-N0", HALF), ("onnxrt-runner-N0", HALF * 2)):
        results.append(
            (name, [polygraphy.IterationResult(computed(s["x"], factor), runner_name=name) for s in SAMPLES])
        )
    results.save(str(tmp_path / "results.json"))
    assert against(tmp_path / "results.json", settings={"runner": "trt-runner-N0"}).verdict == "pass"
    assert against(tmp_path / "results.json", settings={"runner": "onnxrt-runner-N0"}).verdict == "fail"


def test_polygraphy_reads_outputs_that_were_saved(network, tmp_path):
    path = str(tmp_path / "results.json")
    Comparator(network, [OnnxrtRunner(), OnnxrtRunner()], data_loader=SAMPLES, save_outputs=path).compare()
    results = polygraphy.RunResults.load(path)
    assert list(results.keys()) == ["onnxrt", "onnxrt#2"]
    for iteration, sample in zip(results["onnxrt"], SAMPLES, strict=True):
        np.testing.assert_allclose(iteration["y"], computed(sample["x"])["y"], rtol=1e-5)


def test_polygraphy_reads_inputs_that_were_saved(network, tmp_path):
    from polygraphy.json import load_json

    path = str(tmp_path / "inputs.json")
    Comparator(network, [OnnxrtRunner(), OnnxrtRunner()], data_loader=SAMPLES, save_inputs=path).compare()
    for loaded, sample in zip(load_json(path), SAMPLES, strict=True):
        np.testing.assert_array_equal(loaded["x"], sample["x"])


def test_polygraphy_compares_with_what_was_saved(network, tmp_path):
    """``polygraphy run --load-inputs --load-outputs`` judges a run of ours."""
    from polygraphy.tools import main as tool

    onnx.save(network, tmp_path / "model.onnx")
    inputs, outputs = str(tmp_path / "inputs.json"), str(tmp_path / "outputs")
    runners = [OnnxrtRunner(), OnnxrtRunner(threads=1)]
    Comparator(network, runners, data_loader=SAMPLES, save_inputs=inputs, save_outputs=f"{outputs}.json").compare()
    words = ["run", str(tmp_path / "model.onnx"), "--onnxrt", "--load-inputs", inputs, "--load-outputs"]
    assert tool([*words, f"{outputs}.json"]) in (0, None)


def test_a_recording_is_not_compared_with_itself(network, tmp_path):
    folder_of(tmp_path / "run", [computed(sample["x"]) for sample in SAMPLES])
    (tmp_path / "link").symlink_to(tmp_path / "run")
    runners = [RecordedRunner(path=tmp_path / name) for name in ("run", "link")]
    with pytest.raises(
        UsageError, match=r"recorded outputs are named twice and would be compared with themselves: .*run"
    ):
        Comparator(network, [OnnxrtRunner(), *runners], data_loader=SAMPLES).compare()
    folder_of(tmp_path / "copy", [computed(sample["x"]) for sample in SAMPLES])
    both = [runners[0], RecordedRunner(path=tmp_path / "copy")]
    assert Comparator(network, both, data_loader=SAMPLES).compare().verdict == "pass"
