"""Where reports go: never over what is compared, and never at the cost of what is shown."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from layerdiff.compare.cli.command import main

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


def test_a_report_that_cannot_be_written_costs_neither_the_verdict_nor_another_report(folder, capsys):
    assert main([*WORDS[:-1], "--json", "/dev/full", "--json", "r.json"]) == 2
    shown = capsys.readouterr()
    assert "pass: " in shown.out
    assert "/dev/full: cannot be written" in shown.err
    assert json.loads((folder / "r.json").read_text())["verdict"] == "pass"
