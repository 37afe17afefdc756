"""Where reports go: never over what is compared, and never at the cost of what is shown."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from layerdiff import TorchRunner, UsageError
from layerdiff.compare.cli.command import main
from layerdiff.compare.cli.reading import reads_of
from layerdiff.compare.cli.report_options import check_reports

from support.models import parsed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(parsed("g (float[2,4] x) => (float[2,4] y) { y = Relu(x) }"), "m.onnx")
    np.savez("d.npz", x=np.ones((2, 4), np.float32))
    (tmp_path / "link.json").symlink_to("m.onnx")
    return tmp_path


WORDS = ["m.onnx", "--onnxrt", "--onnxrt", "--data", "d.npz", "-q"]


@pytest.mark.parametrize(
    ("reports", "says"),
    [
        (["--json", "m.onnx"], "is an input of the comparison"),
        (["--json", "./m.onnx"], "is an input of the comparison"),
        (["--json", "link.json"], "is an input of the comparison"),
        (["--text", "d.npz"], "is an input of the comparison"),
        (["--text", "r", "--json", "r"], "another report goes there"),
    ],
)
def test_a_report_replaces_nothing_that_is_read_and_no_other_report(folder, capsys, reports, says):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main([*WORDS, *reports]) == 2
    assert says in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def _read(folder):
    """Files of every kind that a command reads besides models and data."""
    weights = np.ones(512, np.float32)
    proto = parsed("g (float[512] x) => (float[512] y) { y = Add(x, w) }", w=weights)
    onnx.save(proto, "apart.onnx", save_as_external_data=True, location="apart.weights", size_threshold=0)
    np.savez("labels.npz", a=np.zeros(2, np.int64))
    np.savez("recorded.npz", y=np.ones((2, 4), np.float32))
    (folder / "samples").mkdir()
    np.savez(folder / "samples" / "sample0.npz", x=np.ones((2, 4), np.float32))
    (folder / "rec.json").write_text("[]")
    (folder / "c.lib").write_text("library")
    (folder / "tokenizer.json").write_text("{}")
    code = "def good(*given):\n    return given[0]\n"
    (folder / "mine_read.py").write_text(code)
    (folder / "pkg_read").mkdir()
    for name in ("__init__", "inner"):
        (folder / "pkg_read" / f"{name}.py").write_text(code)
    (folder / "m.engine").write_bytes(b"engine")
    (folder / "m.engine.json").write_text("{}")


ONE = ["m.onnx", "--onnxrt"]


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["apart.onnx", "--onnxrt", "--onnxrt"], "apart.weights"),
        ([*ONE, "--load-outputs", "rec.json,runner=onnxrt"], "rec.json"),
        ([*ONE, "--torch", "rec.json"], "rec.json"),
        ([*ONE, "--torch", "mine_read:good"], "mine_read.py"),
        ([*ONE, "--runner", "mine_read:good"], "mine_read.py"),
        ([*ONE, "--runner", "pkg_read.inner:good"], "pkg_read/inner.py"),
        ([*ONE, "--runner", "pkg_read.inner:good"], "pkg_read/__init__.py"),
        ([*ONE, "--onnxrt", "--metric", "mine_read:good"], "mine_read.py"),
        ([*ONE, "--onnxrt", "--labels", "labels.npz:a", "--metric", "top1"], "labels.npz"),
        ([*ONE, "--onnxrt=custom_ops=c.lib"], "c.lib"),
        ([*ONE, "--onnxrt", "--tokenizer", ".", "--data", "d.npz"], "tokenizer.json"),
        ([*ONE, "--onnxrt", "--data", "samples"], "samples/sample0.npz"),
        ([*ONE, "--trt=engine=m.engine"], "m.engine"),
        ([*ONE, "--trt=engine=m.engine"], "m.engine.json"),
        ([*ONE, "--trt=timing_cache=rec.json"], "rec.json"),
    ],
)
@pytest.mark.parametrize("flag", ["--json", "--save-inputs"])
def test_nothing_that_a_command_reads_is_replaced(folder, capsys, words, written, flag):
    _read(folder)
    assert main([*words, "-q", flag, written]) == 2
    assert f"{flag} {written}: that is an input of the comparison" in capsys.readouterr().err
    assert (folder / written).exists()


@pytest.mark.parametrize("words", [["--save-inputs", "samples"], ["--save-worst", "samples"]])
@pytest.mark.parametrize("data", ["samples", "samples/sample0.npz"])
def test_samples_are_not_saved_over_those_that_are_read(folder, capsys, words, data):
    _read(folder)
    assert main([*ONE, "--onnxrt", "--data", data, *words]) == 2
    assert "would be replaced" in capsys.readouterr().err


def test_what_a_runner_is_not_given_is_not_the_present_folder(folder):
    """A report of an earlier run is replaced; ``--torch`` alone has options that are empty."""
    (folder / "r.json").write_text("{}")
    check_reports([("--json", "r.json")], reads_of({"models": ["m.onnx"]}, [TorchRunner()]))
    with pytest.raises(UsageError, match="is an input of the comparison"):
        check_reports([("--json", "r.json")], reads_of({"models": ["m.onnx"]}, [TorchRunner(program="r.json")]))


def test_a_cache_is_written_but_over_no_model(folder, capsys):
    assert main([*ONE, "--trt=timing_cache=m.onnx"]) == 2
    assert "m.onnx: that is an input" in capsys.readouterr().err


def test_other_commands_replace_no_weights(folder, capsys):
    _read(folder)
    before = (folder / "apart.weights").read_bytes()
    for words in (["extract", "apart.onnx", "-o"], ["inspect", "apart.onnx", "--json"]):
        assert main([*words, "apart.weights"]) == 2
        assert "that is an input" in capsys.readouterr().err
    assert (folder / "apart.weights").read_bytes() == before


def test_a_report_replaces_no_file_that_is_called_as_none_is(folder, capsys):
    (folder / "other.onnx").write_bytes(b"a model that the command does not name")
    assert main([*WORDS, "--json", "other.onnx"]) == 2
    assert "other.onnx: that file is no report by its name" in capsys.readouterr().err
    assert (folder / "other.onnx").read_bytes()


def test_a_report_replaces_an_earlier_one(folder):
    for _ in range(2):
        assert main([*WORDS, "--json", "r.json", "--text", "r.txt"]) == 0


@pytest.mark.parametrize("name", ["a/0.npz", "m.graph"])
def test_merged_shares_replace_nothing_that_these_read(folder, capsys, name):
    (folder / "a").mkdir()
    for number in range(2):
        np.savez(folder / "a" / f"{number}.npz", x=np.ones((2, 4), np.float32))
    (folder / "m.graph").write_bytes((folder / "m.onnx").read_bytes())
    before = (folder / name).read_bytes()
    for share in (1, 2):
        words = ["m.graph", "--onnxrt", "--onnxrt", "--data", "a", "-q"]
        main([*words, "--shard", f"{share}/2", "--json", f"s{share}.json"])
    assert main(["merge", "s1.json", "s2.json", "-o", name, "-q"]) == 2
    assert f"-o {name}: that " in capsys.readouterr().err
    assert (folder / name).read_bytes() == before


def test_a_suite_replaces_nothing_that_its_checks_read(folder, capsys):
    check = '[[check]]\nname = "{}"\nmodel = "{}"\nrunners = ["onnxrt", "onnxrt"]\n'
    (folder / "m.graph").write_bytes((folder / "m.onnx").read_bytes())
    (folder / "s.toml").write_text(check.format("a", "m.graph") + check.format("b", "m.onnx") + 'json = "m.graph"\n')
    assert main(["--suite", "s.toml"]) == 2
    assert "check b: --json m.graph: that is an input" in capsys.readouterr().err
    (folder / "s.toml").write_text(check.format("a", "m.graph"))
    assert main(["--suite", "s.toml", "--json", "m.graph"]) == 2
    assert "--json m.graph: that is an input" in capsys.readouterr().err
    assert (folder / "m.graph").read_bytes()


def test_a_report_that_cannot_be_written_costs_neither_the_verdict_nor_another_report(folder, capsys):
    assert main([*WORDS[:-1], "--json", "/dev/full", "--json", "r.json"]) == 2
    shown = capsys.readouterr()
    assert "pass: " in shown.out
    assert "/dev/full: cannot be written" in shown.err
    assert json.loads((folder / "r.json").read_text())["verdict"] == "pass"
