"""From a culprit to a few nodes that fail alone, shown by a script that needs nothing of layerdiff."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, UsageError
from layerdiff.compare.cli.command import main
from layerdiff.compare.reduce.bundle import reduce
from layerdiff.compare.reduce.part import relative
from layerdiff.compare.reduce.script import script
from layerdiff.graph.numpy_files import write_npz
from layerdiff.runners.reference_evaluator import ReferenceEvaluatorRunner
from layerdiff.runners.trt import TrtRunner

from support.models import parsed

RNG = np.random.default_rng(3)
W1, W2 = (RNG.standard_normal((16, 16)).astype(np.float32) / 4 for _ in range(2))
X = RNG.standard_normal((4, 16)).astype(np.float32)
NETWORK = """g (float[N, 16] x) => (float[N, 16] y) {
    a = MatMul(x, w1)  b = Relu(a)  c = MatMul(b, w2)  d = Tanh(c)  e = Add(d, x)  y = Sigmoid(e) }"""
WITHOUT_RESIDUAL = NETWORK.replace("e = Add(d, x)", "e = Identity(d)")
HUGE = """g (float[N, 16] x) => (float[N, 16] y) {
    a = MatMul(x, w1)  b = Mul(a, k)  c = MatMul(b, w2)  d = Div(c, k)  y = Tanh(d) }"""
HUGE_WEIGHTS = {"w1": W1, "w2": W2, "k": np.float32(1e6)}
NORMALIZED = """g (float[N, 16] x) => (float[N, 16] y) {
    p = MatMul(x, w1)  m = ReduceMean <axes = [1]> (p)  s = Sub(p, m)  q = Pow(s, two)  v = ReduceMean <axes = [1]> (q)
    t = Add(v, epsilon)  r = Sqrt(t)  n = Div(s, r)  g1 = Mul(n, gain)  y = Add(g1, shift) }"""
LOOPED = """g (float[4, 16] x) => (float[4, 16] y) <int64 count = {3}, bool go = {1}> {
    y = Loop (count, go, x) <body = body (int64 i, bool c, float[4, 16] h) => (bool c2, float[4, 16] h2) {
        c2 = Identity(c)  z = MatMul(h, w1)  t = Tanh(z)  h2 = Mul(t, k) }> }"""


def normalized(epsilon):
    ones = np.ones(16, np.float32)
    return {"w1": W1, "two": np.float32(2), "epsilon": np.float32(epsilon), "gain": ones, "shift": ones * 0}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes models and the sample into the present folder."""
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "x.npz", {"x": X})

    def write(**models):
        for name, proto in models.items():
            onnx.save(proto, tmp_path / f"{name}.onnx")
        return tmp_path

    return write


@pytest.fixture
def reduced(files, tmp_path, capsys):
    """Compares two files or one, and reduces the first culprit: (exit status, folder)."""

    def run(words, **models):
        files(**models)
        main([*words, "--data", "x.npz", "--layers", "-q", "--json", "report.json"])
        status = main(["reduce", "report.json", "-o", "bundle"])
        return status, tmp_path / "bundle"

    return run


def shown(folder):
    """Exit status and output of the script, in a Python that cannot import layerdiff."""
    code = "import runpy, sys; sys.modules['layerdiff'] = None; runpy.run_path('reproduce.py', run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout


def nodes(folder, side):
    return [node.op_type for node in onnx.load(folder / f"{side}.onnx").graph.node]


FAULTS = {
    "weights": (parsed(NETWORK, w1=W1, w2=W2), parsed(NETWORK, w1=W1, w2=W2 * 1.02), ["MatMul"]),
    "a residual that is missing": (parsed(NETWORK, w1=W1, w2=W2), parsed(WITHOUT_RESIDUAL, w1=W1, w2=W2), None),
    "an epsilon inside a fused normalization": (
        parsed(NORMALIZED, **normalized(1e-5)),
        parsed(NORMALIZED, **normalized(0.1)),
        None,
    ),
    "a weight in the body of a loop": (
        parsed(LOOPED, w1=W1, k=np.float32(1)),
        parsed(LOOPED, w1=W1, k=np.float32(1.05)),
        None,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_second_file_fails_alone(fault, reduced):
    good, bad, expected = FAULTS[fault]
    status, folder = reduced(["good.onnx", "bad.onnx", "--onnxrt"], good=good, bad=bad)
    assert (status, shown(folder)[0]) == (0, 1)
    assert max(len(nodes(folder, side)) for side in ("reference", "candidate")) <= 5
    assert expected is None or nodes(folder, "candidate") == expected


def test_an_emulated_format_is_written_with_casts(reduced):
    status, folder = reduced(["net.onnx", "--onnxrt", "--emulate", "fp16"], net=parsed(HUGE, **HUGE_WEIGHTS))
    assert (status, shown(folder)[0]) == (0, 1)
    assert "Values differ by infinity or NaN, which no rounding explains." in (folder / "ISSUE.md").read_text()
    assert "values differ by infinity or NaN" in (folder / "ISSUE.md").read_text().split("```")[1]
    assert "error inf" not in (folder / "ISSUE.md").read_text()
    assert "Cast" in nodes(folder, "candidate")
    assert "Cast" not in nodes(folder, "reference")


def test_values_that_an_evaluator_gave_are_kept(reduced):
    words = ["net.onnx", "--reference-evaluator=float64", "--emulate=fp16"]
    status, folder = reduced(words, net=parsed(HUGE, **HUGE_WEIGHTS))
    assert (status, shown(folder)[0]) == (0, 1)
    assert (folder / "expected.npz").exists()


def test_two_levels_of_one_runtime_run_one_file(files, tmp_path):
    """Where only the runtime differs, the script gives it the same file twice."""
    text = script("Different.", 1e-6, "a test", OnnxrtRunner(), OnnxrtRunner(optimization="disable"), True)
    assert text.count("'reference.onnx'") == 2
    assert "ORT_DISABLE_ALL" in text


@pytest.mark.parametrize(
    ("runner", "providers"),
    [
        (
            OnnxrtRunner(provider="openvino", provider_options=("device_type=GPU",)),
            "[('OpenVINOExecutionProvider', {'device_type': 'GPU'})]",
        ),
        (OnnxrtRunner(provider="cuda"), "[('CUDAExecutionProvider', {'use_tf32': '0'})]"),
    ],
)
def test_the_script_gives_a_provider_the_options_that_it_had(runner, providers):
    text = script("Different.", 1e-3, "a test", OnnxrtRunner(), runner, True)
    compile(text, "reproduce.py", "exec")
    assert f"onnxruntime_on('reference.onnx', 'ORT_ENABLE_ALL', {providers})" in text


def test_the_script_is_valid_for_tensorrt():
    runner = TrtRunner(fp16=True, tactic_sources="jit_convolutions", optimization_level=1)
    text = script("Different.", 1e-3, "a test", OnnxrtRunner(), runner, True)
    compile(text, "reproduce.py", "exec")
    settings = "fp16=True, tactic_sources=[trt.TacticSource.JIT_CONVOLUTIONS], builder_optimization_level=1"
    assert f"tensorrt_on('reference.onnx', {settings})" in text
    text = script("Different.", 1e-3, "a test", OnnxrtRunner(), runner, True, "fp16")
    compile(text, "reproduce.py", "exec")
    assert f"tensorrt_on('reference.onnx', trt.float16, {settings})" in text


@pytest.mark.parametrize("runner", [ReferenceEvaluatorRunner(), TrtRunner(int8=True)])
def test_a_runner_that_no_script_can_call_is_refused(runner):
    with pytest.raises(UsageError, match="cannot be run by a script"):
        script("Different.", 1e-3, "a test", OnnxrtRunner(), runner, True)


def test_the_text_tells_versions_kernel_and_what_was_seen(reduced):
    good, bad, _ = FAULTS["weights"]
    _, folder = reduced(["good.onnx", "bad.onnx", "--onnxrt"], good=good, bad=bad)
    text = (folder / "ISSUE.md").read_text()
    for told in ("onnxruntime ", "weights differ", "Kernel: ", "Python 3", "DIFFERENT", "1 node"):
        assert told in text


def test_the_script_passes_where_nothing_differs(reduced):
    good, bad, _ = FAULTS["weights"]
    _, folder = reduced(["good.onnx", "bad.onnx", "--onnxrt"], good=good, bad=bad)
    (folder / "candidate.onnx").write_bytes((folder / "reference.onnx").read_bytes())
    status, text = shown(folder)
    assert (status, text.splitlines()[-1]) == (0, "the same")


def test_from_python(tmp_path):
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    comparator = Comparator(parsed(HUGE, **HUGE_WEIGHTS), runners, data_loader=[{"x": X}], layers="guilty")
    bundle = reduce(comparator.prepare(), comparator.compare(), tmp_path / "bundle")
    assert bundle.nodes <= 5
    assert bundle.shown.endswith("DIFFERENT")


# ---- what cannot be reduced -----------------------------------------------------------------------------------------


def test_a_report_without_culprits_is_refused(files, capsys):
    files(net=parsed(NETWORK, w1=W1, w2=W2))
    main(["net.onnx", "--onnxrt", "--onnxrt", "--data", "x.npz", "-q", "--json", "report.json"])
    assert main(["reduce", "report.json", "-o", "bundle"]) == 2
    assert "names no culprit: run the comparison with --layers" in capsys.readouterr().err


@pytest.fixture
def report(files):
    good, bad, _ = FAULTS["weights"]
    folder = files(good=good, bad=bad)
    main(["good.onnx", "bad.onnx", "--onnxrt", "--data", "x.npz", "--layers", "-q", "--json", "report.json"])
    return folder / "report.json"


def change(report, **keys):
    content = json.loads(report.read_text())
    report.write_text(json.dumps({**content, **keys}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "bundle", "--culprit", "2"], "there is no culprit 2: the report names 1"),
        (["-o", "."], "is there already, and is not an empty folder"),
        ([], "-o/--output"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(words, message, report, capsys):
    assert main(["reduce", "report.json", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_changed_is_refused(report, capsys):
    onnx.save(parsed(NETWORK, w1=W1, w2=W2 * 3), report.parent / "bad.onnx")
    assert main(["reduce", "report.json", "-o", "bundle"]) == 2
    assert "bad.onnx is not the file that the report was made on" in capsys.readouterr().err


def test_the_folder_of_the_comparison_is_asked_for(report, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["reduce", str(tmp_path / "report.json"), "-o", "bundle"]) == 2
    assert "no such file here; run this in the folder that compare ran in." in capsys.readouterr().err


def test_data_that_changed_are_refused(report, capsys):
    with np.load(report.parent / "x.npz") as stored:
        np.savez(report.parent / "x.npz", **{name: array * 2 for name, array in stored.items()})
    assert main(["reduce", "report.json", "-o", "bundle"]) == 2
    assert "x.npz is not what the report was made on" in capsys.readouterr().err
    assert not (report.parent / "bundle").exists()


def test_a_report_without_a_command_is_refused(report, capsys):
    change(report, command=None)
    assert main(["reduce", "report.json", "-o", "bundle"]) == 2
    assert "tells no command" in capsys.readouterr().err


def test_a_culprit_that_is_not_found_again_is_refused(report, capsys):
    content = json.loads(report.read_text())
    change(report, culprits=[{**content["culprits"][0], "node": "elsewhere"}])
    assert main(["reduce", "report.json", "-o", "bundle"]) == 2
    assert "elsewhere on onnxrt@bad.onnx is not to blame when the comparison is run again" in capsys.readouterr().err


def test_an_error_of_all_layers_is_no_layer(report, capsys):
    content = json.loads(report.read_text())
    change(report, culprits=[{**content["culprits"][0], "cause": "spread"}])
    assert main(["reduce", "report.json", "-o", "bundle"]) == 2
    assert "no single layer (spread)" in capsys.readouterr().err


# ---- how an error is told -------------------------------------------------------------------------------------------

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        ([3, 4], [3, 4], 0),
        ([3, 4], [3, 9], 1),
        ([3, 4], [3, NAN], INF),
        ([3, INF], [3, INF], 0),
        ([3, NAN], [3, NAN], 0),
        ([3, INF], [3, -INF], INF),
        ([0, 0], [0, 2], 2),
        ([[3, 4]], [3, 4], INF),
        (["a", "b"], ["a", "c"], 0.5),
    ],
)
def test_relative_error(expected, found, error):
    def array(values):
        return np.array(values, object if isinstance(values[0], str) else np.float32)

    assert relative(array(expected), array(found)) == error


def test_of_two_tensors_that_are_one_in_the_second_file_the_bundle_has_the_one_that_is_read(reduced):
    text = """g (float[N, 16] x) => (float[N, 16] y, float[N, 16] z) {
        a = MatMul(x, w1)  r = Round(a)  i = Cast <to = 7> (r)  b = MatMul(a, w2)  y = Tanh(b)
        z = Cast <to = 1> (i) }"""
    good, bad = parsed(text, w1=W1, w2=W2), parsed(text.replace("<to = 7> (r)", "<to = 7> (a)"), w1=W1, w2=W2 * 9)
    del bad.graph.node[1]
    status, folder = reduced(["good.onnx", "bad.onnx", "--onnxrt"], good=good, bad=bad)
    sides = [onnx.load(folder / f"{side}.onnx").graph for side in ("reference", "candidate")]
    assert status == 0
    assert [side.node[0].op_type for side in sides] == ["MatMul", "MatMul"]
    assert [[i.name for i in side.input] for side in sides] == [["a"], ["a"]]
