"""What the command says to somebody who does not know it yet, and that nothing is passed over in silence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from layerdiff import UsageError
from layerdiff.compare import stages
from layerdiff.compare.cli import command
from layerdiff.compare.cli.arguments import in_columns, parse
from layerdiff.compare.cli.command import main
from layerdiff.compare.cli.commands import COMMANDS
from layerdiff.graph.numpy_files import write_npz

RELU = "g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"
ABS = "g (float[N, 3] x) => (float[N, 3] y) { y = Abs(x) }"
X = np.array([[1, -2, 3]], np.float32)


@pytest.fixture
def here(onnx_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx_file(RELU, "m.onnx")
    onnx_file(ABS, "other.onnx")
    (tmp_path / "data").mkdir()
    for number in range(3):
        write_npz(tmp_path / "data" / f"{number}.npz", {"x": X + number})
    return tmp_path


def report_of(*words):
    main([*words, "-q", "--json", "report.json"])
    return json.loads(Path("report.json").read_text())


# ---- --samples beside --data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "taken", "description"),
    [(2, 2, "the first 2 of 3 samples of data"), (3, 3, "3 samples of data"), (9, 3, "3 samples of data")],
)
def test_samples_beside_data_are_the_first(asked, taken, description, here):
    report = report_of("m.onnx", "--onnxrt", "--onnxrt", "--data", "data", "--samples", str(asked))
    assert (report["samples"], report["data"], report["representative"]) == (taken, description, True)


# ---- the help -------------------------------------------------------------------------------------------------------


def test_the_help_says_what_undecided_means_and_which_other_commands_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for text in (
        "undecided rounding explains the difference",
        "layerdiff report",
        "layerdiff plan",
        "--model-explorer DIR",
    ):
        assert text in told


def test_a_folder_is_not_offered_on_standard_output(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    help_of = capsys.readouterr().out.split("--model-explorer DIR")[1].split("--")[0]
    assert "standard output" not in help_of


LONG = ("--onnxrt[=", "onnx.reference.ReferenceEvaluator", "package.module:function", "--ort-optimization,")
"""What is wider than 60 columns, and whole."""


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["--suite"]], ids="".join)
def test_help_is_folded_between_words(command, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if len(line) > width and not line.strip().startswith(LONG)]


def test_a_comment_stands_under_its_example_where_both_do_not_fit(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["merge", "--help"])
    told = capsys.readouterr().out
    assert (
        "\n  compare model.onnx --onnxrt --trt --data samples --shard\n      1/2 --json a.json\n          on one"
        in told
    )
    assert "the same files;\nwhat was run is not run again.\n" in told


def test_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "42")
    assert in_columns({"a": "one two three four five six seven", "bcd": "eight"}) == [
        "  a     one two three four five six",
        "        seven",
        "  bcd   eight",
    ]


# ---- messages name options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rtol 0.1", "--rtol and --atol go together: allowed is atol + rtol * |reference|. --atol is missing."),
        ("--fixed-model f.onnx", "--fixed-model is written with --fix, which was not asked for."),
        ("--fix-budget 3", "--fix-budget is for --fix, which was not asked for."),
        ("--fix q.json --plan p.json", "--fix makes a plan and --plan applies one: ask for one of the two."),
        ("--csv layers.csv", "--csv holds layers alone, and there are none: add --layers."),
        ("--model-explorer nodes", "--model-explorer holds layers alone, and there are none: add --layers."),
        ("--layers --model-explorer -", "--model-explorer writes a folder, which standard output is not: name one."),
    ],
)
def test_what_does_not_go_together(words, message):
    with pytest.raises(UsageError) as raised:
        parse(["m.onnx", "--onnxrt", "--emulate=fp16", *words.split()])
    assert str(raised.value) == message


def test_behind_two_dashes_stand_files():
    assert parse(["--onnxrt", "--emulate", "fp16", "--", "-m.onnx", "n.onnx"]).models == ("./-m.onnx", "n.onnx")


@pytest.mark.parametrize("words", ["m.onnx", "--onnxrt", "--data=x.npz"])
def test_what_stands_in_a_file_of_checks_is_not_beside_it(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([words, "--suite", "s.toml"]) == 2
    assert f"--suite does not take {words}: models, runners, data" in capsys.readouterr().err


def test_a_saved_report_without_layers_makes_no_csv(here, capsys):
    report_of("m.onnx", "--onnxrt", "--onnxrt")
    assert main(["report", "report.json", "--csv", "layers.csv"]) == 2
    assert "there are none: report.json was made without --layers" in capsys.readouterr().err
    assert not os.path.exists("layers.csv")


# ---- nothing is passed over in silence ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["terminal", "--markdown", "--html"])
def test_that_nothing_changed_is_said(form, here, capsys):
    if form == "--html":
        pytest.importorskip("jinja2")
        pytest.importorskip("plotly")
    report_of("m.onnx", "--onnxrt", "--onnxrt")
    written = [] if form == "terminal" else [form, "out"]
    assert main(["report", "report.json", "--baseline", "report.json", *written]) == 0
    told = capsys.readouterr().out if form == "terminal" else Path("out").read_text()
    assert "hange since" in told
    assert "every output passes, as it did" in told


def test_that_a_remedy_was_not_written_is_said(here):
    words = ("m.onnx", "other.onnx", "--onnxrt", "--layers", "--apply-remedy", "r.onnx")
    assert [n["code"] for n in report_of(*words)["notices"] if n["subject"] == "r.onnx"] == ["nothing-applied"]
    assert not os.path.exists("r.onnx")


# ---- plans ----------------------------------------------------------------------------------------------------------

FIX = ("--onnxrt", "--emulate=bf16", "--tolerance", "y:0,1e-9", "--fix", "plan.json")


@pytest.fixture
def product(here, onnx_file):
    weights = {"w": np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)}
    onnx_file("g (float[N, 3] x) => (float[N, 3] y) { y = MatMul(x, w) }", "product.onnx", **weights)
    return here


def test_every_layer_in_fp32_is_no_plan(product):
    plan = report_of("product.onnx", *FIX)["plan"]
    assert (plan["status"], plan["kept"]) == ("none", [])
    assert plan["why"] == "emulate:bf16 passes only with every layer in FP32"


def test_the_plan_of_another_model_is_not_overwritten(product, onnx_file, capsys):
    report_of("product.onnx", *FIX)
    kept = Path("plan.json").read_text()
    weights = {"w": np.eye(3, dtype=np.float32) / 3}
    onnx_file("g (float[N, 3] x) => (float[N, 3] y) { y = MatMul(x, w) }", "another.onnx", **weights)
    assert main(["another.onnx", *FIX]) == 2
    assert "--fix plan.json: holds the plan of another model (product.onnx)" in capsys.readouterr().err
    assert Path("plan.json").read_text() == kept


def test_an_interrupted_search_keeps_the_verdict(product, monkeypatch, capsys):
    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(stages, "fix", interrupted)
    assert main(["product.onnx", *FIX]) == 130
    told = " ".join(capsys.readouterr().out.split())
    assert "The search for a plan was interrupted; with --resume DIR its runs would be kept." in told
    assert "fail: emulate:bf16 disagrees" in told


# ---- what is named wrongly, or twice --------------------------------------------------------------------------------

COMPARE = ["m.onnx", "--onnxrt", "--emulate=fp16"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nosuch"], "nosuch: neither a file nor a command; the commands are: report, merge,"),
        (["inpsect", "m.onnx", "--nodes"], "inpsect: neither a file nor a command; did you mean inspect?"),
        (["nosuch.onnx"], "nosuch.onnx: no such file."),
        ([*COMPARE, "--unknown"], "unknown option --unknown. See compare --help."),
        ([*COMPARE, "--on"], "unknown option --on. See compare --help."),
        ([*COMPARE, "--layer"], "unknown option --layer; did you mean --layers?"),
        (["", *COMPARE[1:]], "the name of a model is empty"),
        ([*COMPARE, "--save-inputs", "mine.py"], "--save-inputs mine.py: inputs are saved as a .json, an .npz"),
        ([*COMPARE, "--save-inputs", "in.npz"], "--save-inputs in.npz: 4 samples, and an .npz holds one"),
        ([*COMPARE, "--data", "data", "--save-inputs", "in.npz"], "3 samples, and an .npz holds one"),
        ([*COMPARE, "--isolate", "off", "--timeout", "3"], "which --isolate off forbids"),
        ([*COMPARE, "--reference", "a", "--reference", "b"], "--reference is given twice, as a and b: say which."),
        ([*COMPARE, "--data", "a", "--data", "b"], "--data is given twice, as a and b: say which."),
        ([*COMPARE, "--data", "data", "--shape", "x:2x3"], "--shape x:2x3: 'x' is 1x3 in 3 samples of data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_at_once(words, message, here, capsys):
    assert main(words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "running" not in told


def test_an_option_given_twice_with_one_value_is_that_value():
    assert parse([*COMPARE, "--reference", "a", "--reference=a"]).rules.reference == "a"


def test_a_range_that_holds_the_data_goes_with_them(here):
    assert report_of(*COMPARE, "--data", "data", "--shape", "x:1x3..1x3..4x3")["verdict"] == "pass"


def test_merge_speaks_of_its_own_option(here, capsys):
    for number in (1, 2):
        assert main([*COMPARE, "--data", "data", f"--shard={number}/2", f"--json={number}.json"]) in (0, 1)
    capsys.readouterr()
    assert main(["merge", "1.json", "2.json", "-o", "/dev/full"]) == 2
    assert "-o /dev/full: cannot be written" in capsys.readouterr().err


def test_files_of_a_folder_that_are_not_read_are_named(here):
    for name in ("readme.txt", ".hidden"):
        (here / "data" / name).touch()
    np.save(here / "data" / "x.npy", X)
    notes = report_of(*COMPARE, "--data", "data")["data_notes"]
    assert "data: readme.txt, x.npy are not read." in notes


# ---- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_can_complete_options(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    told = capsys.readouterr().out
    assert "emulate-every-node" in told
    assert "layerdiff" in told


COMPLETED = {
    "layerdiff re": {"report", "reduce"},
    "layerdiff mo": {"model.onnx"},
    "layerdiff model.onnx --emulate-c": {"--emulate-cast-weights"},
    "layerdiff report --ht": {"--html"},
    "layerdiff report model.onnx --model-": {"--model-explorer"},
    "layerdiff merge a.json --q": {"--quiet"},
    "layerdiff reduce r.json --c": {"--culprit"},
    "layerdiff inspect --no": {"--nodes"},
    "layerdiff extract --fr": {"--from"},
    "layerdiff plan p.json --as po": {"polygraphy"},
    "layerdiff completion z": {"zsh"},
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_their_options_and_files(capsys, tmp_path):
    pytest.importorskip("shtab")
    (tmp_path / "model.onnx").touch()
    assert main(["completion", "bash"]) == 0
    script = [capsys.readouterr().out]
    for line in COMPLETED:
        words = line.split()
        script.append(f"COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}; _shtab_layerdiff; echo ${{COMPREPLY[*]}}")
    done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert dict(zip(COMPLETED, map(set, map(str.split, done.stdout.splitlines())), strict=True)) == COMPLETED


def test_another_shell_is_refused(capsys):
    assert main(["completion", "fish"]) == 2
    assert "fish" in capsys.readouterr().err


def test_numpy_says_nothing_on_the_terminal(here, recwarn, capsys, monkeypatch):
    """Infinities and what is not a number are told as what they are, and not by the line of code that met them."""

    def compared(*_):
        np.log(np.zeros(1, np.float32))
        raise UsageError("that is all.")

    monkeypatch.setattr(command, "compare", compared)
    assert main(["m.onnx", "other.onnx", "--onnxrt"]) == 2
    assert "that is all" in capsys.readouterr().err
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
