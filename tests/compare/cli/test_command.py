"""The command: what a line asks for, how it ends, what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, UsageError, __version__
from layerdiff.compare.cli.arguments import GROUPS, parse
from layerdiff.compare.cli.command import main
from layerdiff.compare.comparison import Rules
from layerdiff.graph.options import Kind, Named, Size, options
from layerdiff.runners.contract.workload import ShapeRange

from support.models import parsed

RELU = "g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"
ABS = "g (float[N, 3] x) => (float[N, 3] y) { y = Abs(x) }"
HALF = "g (float[N, 3] x) => (float[N, 3] y) { h = Constant <value_float = 0.5> () y = Mul(x, h) }"

RUNNERS = '''
import os, signal
from layerdiff import Runner, RunnerError, Session
from layerdiff.graph.formats import FP32
from dataclasses import dataclass
from typing import ClassVar
from layerdiff.graph.options import option

@dataclass(frozen=True)
class Negative(Runner):
    """Says the opposite."""
    value_field: ClassVar[str] = "how"
    how: str = "gently"
    loud: bool = option(False, "--loud", "say it loudly")
    name = property(lambda self: f"negative:{self.how}" + ("!" if self.loud else ""))
    trust = property(lambda self: 45)
    arithmetic = property(lambda self: FP32)
    def open(self, model, **more):
        return Negated(model)

class Negated(Session):
    def __init__(self, model):
        self.inputs, self.outputs = model.inputs, model.outputs
    def infer(self, feed, fetch=None):
        return {"y": -feed["x"]}

class Interrupted(Negative):
    def open(self, model, **more):
        os.kill(os.getppid(), signal.SIGINT)  # the user's Ctrl-C, while a runner of a process of its own computes
        return Negated(model)

class Broken(Negative):
    def open(self, model, **more):
        raise RunnerError("no such device: gpu 7.\\nTry another one.")

class Odd(Negative):
    def open(self, model, **more):
        raise ValueError("an odd error")

class Plain(Negative):
    value_field = ""

class NotARunner:
    pass
'''


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """A module ``third_party`` with runners, importable."""
    (tmp_path / "third_party.py").write_text(RUNNERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "third_party", raising=False)
    yield
    sys.modules.pop("third_party", None)


def names(words: str) -> list[str]:
    return [runner.name for runner in parse(words.split()).runners]


# ---- reading the line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "models", "runners"),
    [
        ("m.onnx --onnxrt --onnxrt", ["m.onnx"], ["onnxrt", "onnxrt"]),
        ("--onnxrt --onnxrt m.onnx", ["m.onnx"], ["onnxrt", "onnxrt"]),
        ("--onnxrt m.onnx --onnxrt=cuda", ["m.onnx"], ["onnxrt", "onnxrt:cuda"]),
        ("m.onnx --onnxrt --emulate fp16", ["m.onnx"], ["onnxrt", "emulate:fp16"]),
        ("--emulate fp16 m.onnx --onnxrt", ["m.onnx"], ["emulate:fp16", "onnxrt"]),
        ("--emulate=fp16 --onnxrt m.onnx", ["m.onnx"], ["emulate:fp16", "onnxrt"]),
        ("a.onnx b.onnx --onnxrt", ["a.onnx", "b.onnx"], ["onnxrt"]),
        ("a.onnx --onnxrt b.onnx", ["a.onnx", "b.onnx"], ["onnxrt"]),
        ("--onnxrt a.onnx --rtol 1 b.onnx --atol 2", ["a.onnx", "b.onnx"], ["onnxrt"]),
        ("--layers m.onnx --onnxrt --tf", ["m.onnx"], ["onnxrt", "tf"]),
        ("--onnxrt --reference-evaluator=float64 m.onnx", ["m.onnx"], ["onnxrt", "reference-evaluator"]),
    ],
)
def test_options_stand_anywhere_and_never_swallow_the_model(words, models, runners):
    request = parse(words.split())
    assert list(request.models) == models
    assert [r.name.split(":float64")[0] for r in request.runners] == runners


@pytest.mark.parametrize(
    ("words", "runners"),
    [
        ("m --trt --fp16 --onnxrt", ["trt:fp16", "onnxrt"]),
        ("m --fp16 --trt --onnxrt", ["trt:fp16", "onnxrt"]),
        ("m --trt=fp16 --trt --onnxrt", ["trt:fp16", "trt", "onnxrt"]),
        ("m --trt=bf16 --trt --fp16", ["trt:bf16", "trt:fp16"]),
    ],
)
def test_a_mode_applies_to_every_runner_without_a_value(words, runners):
    assert names(words) == runners


def test_options_reach_the_runners_that_declare_them():
    runners = parse(
        ["m", "--onnxrt", "--onnxrt", "--ort-optimization", "basic", "--ort-custom-ops", "a", "--ort-custom-ops", "b"]
    ).runners
    assert [r.optimization for r in runners] == ["basic", "basic"]
    assert [r.custom_ops for r in runners] == [("a", "b"), ("a", "b")]


def test_runners_of_other_packages(third_party):
    assert names("--runner third_party:Negative m --onnxrt") == ["negative:gently", "onnxrt"]
    assert names("--runner=third_party:Negative=hard m --loud --onnxrt") == ["negative:hard!", "onnxrt"]


def test_runners_by_entry_point(third_party, tmp_path, capsys):
    metadata = tmp_path / "third_party-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: third-side\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[layerdiff.runners]\nnegative = third_party:Negative\nbroken = nowhere:Nobody\n"
    )
    assert names("m --negative=hard --onnxrt --loud") == ["negative:hard!", "onnxrt"]
    with pytest.raises(UsageError, match="unknown option --broken"):
        parse(["m", "--broken"])


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("x:0,1", "x", "0,1"),
        ("x=0,1", "x", "0,1"),
        ("x:0:0,1", "x:0", "0,1"),
        ("x:0=0,1", "x:0", "0,1"),
        ("fc:out:1x3", "fc:out", "1x3"),
        ("/a/b=c:1", "/a/b=c", "1"),
        ("x:", "x", ""),
    ],
)
def test_names_may_hold_colons(text, name, value):
    assert Named(Kind(), "NAME:VALUE").read(text) == (name, value)


def test_values():
    words = (
        "--float-range -1,1 m --int-range -5,6 --range x:-2,2 --range big:0,9007199254740993 --range=f:-.5,.5 "
        "--shape x:1x3x224x224 --shape y:1x3..4x3..8x3 --shape s: --tolerance fc:out:1e-3,1e-5 "
        "--samples 3 --seed 7 --memory 512MB --onnxrt --onnxrt"
    )
    request = parse(words.split())
    assert request.random == {
        "float_range": (-1, 1),
        "int_range": (-5, 6),
        "ranges": {"x": (-2, 2), "big": (0, 9007199254740993), "f": (-0.5, 0.5)},
        "samples": 3,
        "seed": 7,
    }
    (shapes,) = request.rules.shapes
    assert shapes == {
        "x": ShapeRange((1, 3, 224, 224), (1, 3, 224, 224), (1, 3, 224, 224)),
        "y": ShapeRange((1, 3), (4, 3), (8, 3)),
        "s": ShapeRange((), (), ()),
    }
    assert request.rules.tolerances == {"fc:out": (1e-3, 1e-5)}
    assert request.rules.memory == 512_000_000


@pytest.mark.parametrize(("words", "layers"), [("", None), ("--layers", "guilty"), ("--layers=all", "all")])
def test_layers_takes_no_next_word(words, layers):
    request = parse([*words.split(), "m", "--onnxrt", "--onnxrt"])
    assert (request.models, request.rules.layers) == (("m",), layers)


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("2k", 2000), ("512MB", 512 * 10**6), ("2GiB", 2 << 30), ("1.5g", 1.5e9)]
)
def test_sizes(text, number):
    assert Size().read(text) == number


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no model was named"),
        ("--onnxrt --onnxrt", "no model was named"),
        ("a b c --onnxrt", "at most two models"),
        ("m --onnxr", r"unknown option --onnxr; did you mean --onnxrt\?"),
        ("m --florp", "unknown option --florp"),
        ("m --onnxrt cuda", "attach it: --onnxrt=cuda"),
        ("m --onnxrt=npu --onnxrt", "--onnxrt=npu: expected cpu, cuda"),
        ("m --onnxrt --emulate", "--emulate needs a value: fp16"),
        ("m --onnxrt --emulate=fp17", "--emulate=fp17: expected fp16, .*; did you mean fp16"),
        ("m --runner third_party:Plain=fast --onnxrt", "--runner third_party:Plain=fast: expected loud"),
        ("m --onnxrt --fp16", "--fp16 is for --trt"),
        ("m --runner nowhere", "expected package.module:Class"),
        ("m --runner nowhere:Nobody", "nowhere"),
        ("m --runner third_party:NotARunner", "not a subclass of layerdiff.Runner, nor a function"),
        ("m --samples 0", "--samples 0: expected a whole number, 1 or more"),
        ("m --samples many", "--samples many"),
        ("m --seed -1", "--seed -1"),
        ("m --latency 0", "--latency 0"),
        ("m --rtol tight --atol 1", "--rtol tight: expected a number"),
        ("m --range x", "--range x: expected NAME:LO,HI"),
        ("m --range x:1", "expected NAME:LO,HI"),
        ("m --range x:2,1", "the range is empty"),
        ("m --float-range 0,inf", "must be finite"),
        ("m --int-range 0,1.5", "two whole numbers"),
        ("m --shape x:1y2", "expected NAME:1x3x224x224"),
        ("m --shape x:1x2..3x4", "three of them"),
        ("m --shape x:4x2..3x2..8x2", "min <= opt <= max"),
        ("m --shape x:1..1x2..1", "same rank"),
        ("m --tolerance y:1e-3", "expected NAME:RTOL,ATOL"),
        ("m --memory lots", "expected a size"),
        ("m --layers=some", "--layers"),
        ("m -q -v", "contradict"),
        ("m --json", "expected one argument"),
    ],
)
def test_what_cannot_be_understood_is_refused(words, message, third_party):
    with pytest.raises(UsageError, match=message):
        parse(words.split())


def test_every_rule_is_a_flag_a_line_of_help_and_a_keyword(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    comparator = Comparator("m.onnx", [], nan_equal=True, rules=Rules(memory=7, nan_equal=False))
    assert comparator.rules == Rules(memory=7, nan_equal=True)
    for f in options(Rules):
        assert f"\n  {f.metadata['flag']}" in shown
        assert f.metadata["group"] in GROUPS
        assert " ".join(f.metadata["help"].split()[:2]) in " ".join(shown.split())


def test_an_option_that_does_not_exist_is_refused_with_the_one_that_does():
    with pytest.raises(UsageError, match=r"no option is called 'layer'; did you mean 'layers'\?"):
        Comparator("m.onnx", [], layer="guilty")
    with pytest.raises(UsageError, match="layers=some: expected guilty or all"):
        Comparator("m.onnx", [], layers="some")


def test_help_needs_no_heavy_package():
    code = (
        "import sys\nfrom layerdiff.compare.cli.command import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert not e.code\n"
        "heavy = {'numpy', 'onnx', 'rich', 'onnxruntime', 'tensorflow', 'ml_dtypes'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--onnxrt[=cpu|cuda|tensorrt|" in done.stdout
    assert "exit status: 0 agree" in done.stdout


@pytest.mark.parametrize("command", [["-m", "layerdiff"], ["-c", "from layerdiff.compare.cli import main; main()"]])
def test_version(command, tmp_path):
    done = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == f"layerdiff {__version__}"


# ---- how it ends ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    """Runs the command; (exit status, standard output, standard error)."""

    def run(*words) -> tuple[int, str, str]:
        status = main([str(w) for w in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_agreement_ends_with_0_and_one_sentence_that_names_the_data(run, onnx_file):
    status, out, err = run(onnx_file(RELU), "--onnxrt", "--onnxrt", "--samples", "3", "--seed", "5")
    assert status == 0
    assert "reference: onnxrt on" in out
    assert "candidate: onnxrt#2 on" in out
    assert "pass: onnxrt#2 agrees with onnxrt in output y, on 3 random samples, seed 5" in out
    assert out.count("prove little about deployment") == 1
    assert "loading" in err
    assert "\x1b" not in out + err


def test_disagreement_ends_with_1_and_shows_the_values(run, onnx_file):
    one, other = onnx_file(RELU, "a.onnx"), onnx_file(ABS, "b.onnx")
    status, out, _ = run(one, other, "--onnxrt", "--float-range", "-1,1")
    assert status == 1
    assert "a signal-to-noise ratio of 0 dB or less" in out
    assert "expected," in out
    assert "fail: onnxrt@b.onnx disagrees with onnxrt in output y" in out


def test_quiet_prints_the_verdict_alone(run, onnx_file):
    one, other = onnx_file(RELU, "a.onnx"), onnx_file(HALF, "b.onnx")
    assert run(one, "--onnxrt", "--onnxrt", "-q") == (0, "pass\n", "")
    assert run(one, other, "--onnxrt", "-q") == (1, "fail\n", "")


def test_verbose_prints_options_versions_and_all_statistics(run, onnx_file):
    _, out, _ = run(onnx_file(RELU), onnx_file(HALF, "b.onnx"), "--onnxrt", "-v")
    for word in (
        "onnxruntime",
        "optimization=",
        "snr_db",
        "max_ulp",
        "expected of rounding",
        "worst sample",
        "|difference| by size",
    ):
        assert word in out


@pytest.mark.parametrize("columns", ["40", "60", "200"])
def test_a_narrow_terminal_cuts_nothing(run, onnx_file, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    text = RELU.replace(" y", " a_long_output_name_that_needs_room").replace(
        "{ y", "{ a_long_output_name_that_needs_room"
    )
    status, out, _ = run(onnx_file(text), "--onnxrt", "--onnxrt")
    assert status == 0
    joined = "".join(out.split())
    assert "a_long_output_name_that_needs_room" in joined
    assert "…" not in out


@pytest.mark.parametrize(
    ("runner", "status", "message"),
    [
        ("third_party:Broken", 3, "no such device: gpu 7."),
        ("third_party:Odd", 3, "ValueError: an odd error"),
        ("third_party:Interrupted", 130, "compare: interrupted."),
    ],
)
def test_a_runner_that_fails_or_a_user_who_stops_it(run, onnx_file, third_party, runner, status, message):
    got, out, err = run(onnx_file(RELU), "--onnxrt", "--runner", runner, "--onnxrt")
    assert got == status
    assert message in out + err
    assert "Traceback" not in out + err
    if status == 3:  # the others are still compared
        assert "onnxrt#2" in out
        assert "failed" in out


def test_a_failure_outranks_a_disagreement(run, onnx_file, third_party):
    words = ("--onnxrt", "--runner", "third_party:Broken", "--runner", "third_party:Negative", "--float-range", "1,2")
    status, out, _ = run(onnx_file(RELU), *words)
    assert status == 3
    assert "error: third_party:Broken" in out
    assert "fail" in out


def test_debug_shows_where(run, onnx_file, third_party, tmp_path):
    _, _, err = run(tmp_path / "nothing.onnx", "--onnxrt", "--onnxrt", "--debug")
    assert "Traceback" in err


def bad_model(folder: Path, how: str) -> Path:
    path = folder / "bad.onnx"
    x = np.ones((3, 3), np.float32)
    model = parsed("g (float[N, 3] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=x)
    if how == "text":
        path.write_text("this is not a model")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(model.SerializeToString()[:-20])
    else:
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        if how == "no external data":
            (folder / "weights.bin").unlink()
        else:
            (folder / "weights.bin").write_bytes(b"short")
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("text", "not an ONNX model"),
        ("empty", "not an ONNX model"),
        ("truncated", "not an ONNX model, or cut short"),
        ("no external data", "'weights.bin', which is not beside it"),
        ("short external data", "cut short"),
    ],
)
def test_models_that_cannot_be_read(run, tmp_path, how, message):
    status, out, err = run(bad_model(tmp_path, how), "--onnxrt", "--onnxrt", "-q")
    assert (status, out) == (2, "")
    assert message in err
    assert_short(err)


def assert_short(err: str) -> None:
    lines = err.strip().splitlines()
    assert 1 <= len(lines) <= 2, err
    assert lines[0].startswith("compare: ")
    assert "Traceback" not in err


@pytest.fixture
def folder(tmp_path, onnx_file):
    """A folder with models and data, the good and the bad."""
    onnx_file(RELU, "m.onnx")
    onnx_file("g (float[N, 3] q) => (float[N, 3] y) { y = Relu(q) }", "other.onnx")
    onnx_file("g (int8[N] x) => (int8[N] y) { y = Identity(x) }", "int8.onnx")
    np.savez(tmp_path / "lacks.npz", z=np.ones((1, 3), np.float32))
    np.savez(tmp_path / "text.npz", x=np.array([["a", "b", "c"]]))
    np.savez(tmp_path / "shape.npz", x=np.ones((1, 4), np.float32))
    np.savez(tmp_path / "good.npz", x=np.ones((1, 3), np.float32))
    (tmp_path / "junk.npz").write_text("junk")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("none.onnx --onnxrt --onnxrt", "no such file"),
        ("m.onnx", "no runner was named"),
        ("m.onnx --onnxrt", "has nothing to be compared with"),
        ("m.onnx --onnxrt --onnxrt --reference tf", "no runner is called 'tf'"),
        ("m.onnx --onnxrt --onnxrt --range q:0,1", "q"),
        ("m.onnx --onnxrt --onnxrt --shape q:1", "q"),
        ("m.onnx --onnxrt --onnxrt --shape x:2x4", "x"),
        ("m.onnx --onnxrt --onnxrt --shape x:2", "x"),
        ("m.onnx --onnxrt --onnxrt --tolerance q:1,1", "no such output; there are: y"),
        ("m.onnx --onnxrt --onnxrt --rtol 1e-3", "atol"),
        ("m.onnx --onnxrt --onnxrt --atol 1e-3", "rtol"),
        ("int8.onnx --onnxrt --onnxrt --range x:0,1000", "int8"),
        ("m.onnx other.onnx --onnxrt", "'q' is not an input of"),
        ("m.onnx --onnxrt --onnxrt --data lacks.npz", "x"),
        ("m.onnx --onnxrt --onnxrt --data text.npz", "x"),
        ("m.onnx --onnxrt --onnxrt --data shape.npz", "x"),
        ("m.onnx --onnxrt --onnxrt --data junk.npz", "junk.npz"),
        ("m.onnx --onnxrt --onnxrt --data empty", "empty"),
        ("m.onnx --onnxrt --onnxrt --data nowhere", "nowhere"),
        ("m.onnx --onnxrt --onnxrt --data good.npz --seed 3", "--seed is for random data"),
        ("m.onnx --onnxrt --onnxrt --inputs x", "TensorFlow models only"),
        ("m.onnx --onnxrt --onnxrt --json none/report.json", "cannot be written"),
        ("m.onnx other.onnx --onnxrt --save-worst m.onnx", "m.onnx"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line_or_two(run, folder, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    status, _, err = run(*words.split(), "-q")
    assert status == 2
    assert message in err
    assert_short(err)


def test_a_provider_that_is_not_there_is_an_error(run, onnx_file):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a GPU here")
    status, out, _ = run(onnx_file(RELU), "--onnxrt", "--onnxrt=cuda")
    assert status == 3
    assert "onnxrt:cuda" in out
    assert "nothing was compared" in out


def test_tensorrt_that_is_not_there_is_an_error_with_a_way_out(run, onnx_file):
    pytest.importorskip("layerdiff.runners.trt.runner")
    import importlib.util

    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    status, out, _ = run(onnx_file(RELU), "--onnxrt", "--trt")
    assert status == 3
    assert "pip install" in out
    assert "--emulate" in out


# ---- files ----------------------------------------------------------------------------------------------------------


def test_json_holds_the_contract(run, onnx_file, tmp_path):
    one, other = onnx_file(RELU, "a.onnx"), onnx_file(ABS, "b.onnx")
    path = tmp_path / "report.json"
    status, _, _ = run(one, other, "--onnxrt", "--json", path, "--float-range", "-1,1", "--seed", "3", "-q")
    assert status == 1

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    report = json.loads(path.read_text(), parse_constant=refuse)
    assert report["schema"] == "layerdiff.report/1"
    assert (report["verdict"], report["reference"], report["seed"]) == ("fail", "onnxrt", 3)
    assert report["model"]["source"] == str(one)
    assert len(report["model"]["sha256"]) == 64
    assert report["model"]["nodes"] == 1
    assert [r["name"] for r in report["runners"]] == ["onnxrt", "onnxrt@b.onnx"]
    assert set(report["runners"][0]["seconds"]) == {"open", "infer"}
    (output,) = report["outputs"]
    assert (output["candidate"], output["tensor"], output["verdict"]) == ("onnxrt@b.onnx", "y", "fail")
    assert output["tolerance"] is None
    assert output["expected"]["explained"] is False
    assert {"rel_l2", "rms_z", "statistic", "value", "limit", "draws"} <= set(output["expected"])
    assert (output["transposed"], output["ties"]) == (None, 0)
    keys = "count mismatched max_abs max_rel mean_abs rmse rel_l2 snr_db cosine bias max_ulp nan inf"
    assert list(output["metrics"]) == keys.split()
    assert (report["layers"], report["culprits"]) == ([], [])
    assert isinstance(report["warnings"], list)
    assert [p for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_latency_stands_beside_the_accuracy(run, onnx_file, tmp_path):
    words = ("--onnxrt", "--emulate", "fp16", "--latency", "3", "--json", tmp_path / "r.json")
    status, out, _ = run(onnx_file(RELU), *words)
    assert status == 0
    assert "milliseconds a run" in out
    for runner in json.loads((tmp_path / "r.json").read_text())["runners"]:
        times = runner["latency"]
        assert times["runs"] == 3
        assert 0 < times["host"]["min"] <= times["host"]["median"] <= times["host"]["p99"]
        assert times["gpu"] is None


def test_json_on_standard_output_stands_alone(run, onnx_file):
    status, out, err = run(onnx_file(RELU), "--onnxrt", "--onnxrt", "--json", "-")
    assert status == 0
    assert json.loads(out)["verdict"] == "pass"
    assert "pass: onnxrt#2 agrees" in err


def test_json_of_identical_tensors_has_no_signal_to_noise_ratio(run, onnx_file, tmp_path):
    run(onnx_file(RELU), "--onnxrt", "--onnxrt", "--json", tmp_path / "r.json", "-q")
    (output,) = json.loads((tmp_path / "r.json").read_text())["outputs"]
    assert output["metrics"]["snr_db"] is None
    assert output["metrics"]["max_abs"] == 0


def test_the_worst_sample_is_saved_and_can_be_run_again(run, onnx_file, tmp_path):
    one, other = onnx_file(RELU, "a.onnx"), onnx_file(HALF, "b.onnx")
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    run(one, other, "--onnxrt", "--samples", "5", "--save-worst", tmp_path / "worst", "--json", first, "-q")
    (saved,) = (tmp_path / "worst").iterdir()
    status, _, _ = run(one, other, "--onnxrt", "--data", saved, "--json", again, "-q")
    assert status == 1
    before, after = (json.loads(p.read_text())["outputs"][0] for p in (first, again))
    assert before["use"] == after["use"]
    assert f"sample{before['worst_sample']}." in saved.name


def test_output_into_a_closed_pipe_is_no_traceback(onnx_file):
    command = f"{sys.executable} -m layerdiff {onnx_file(RELU)} --onnxrt --onnxrt -v | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=os.path.dirname(onnx_file(RELU)))
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
