"""A program of PyTorch is loaded in its runner's process alone: whatever loading does, the rest of the report stays."""

from __future__ import annotations

import json
import sys

import onnx
import pytest
from layerdiff.compare.cli.command import main

from support.models import parsed

pytest.importorskip("torch")

MODULE = """
import ctypes, os, pathlib, sys
import torch

def noted(): pathlib.Path("loaded").open("a").write(f"{os.getpid()} "); return torch.nn.ReLU()
def half(): return torch.nn.Sequential(torch.nn.Linear(4, 4)).half()
def segfault(): ctypes.string_at(0)
def hangs(): ctypes.CDLL(None).sleep(1000)
def exits(): sys.exit(0)
"""


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Runs a command that names a program of the module, and gives its status and its report."""
    onnx.save(parsed("g (float[4] x) => (float[4] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    (tmp_path / "torch_program.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)

    def run(program: str, *words: str) -> tuple[int, dict]:
        runners = ["--onnxrt", "--onnxrt", f"--torch=torch_program:{program}"]
        status = main(["m.onnx", *runners, "--samples", "1", *words, "--json", "report.json"])
        return status, json.loads((tmp_path / "report.json").read_text())

    return run


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("segfault", [], "SIGSEGV (a segmentation fault)"),
        ("hangs", ["--timeout", "15"], "no answer within 15 s (--timeout)"),
        ("exits", [], "it called sys.exit(0)"),
    ],
)
def test_a_program_that_does_harm_when_it_is_loaded_costs_its_own_runner_alone(program, words, said, report):
    status, found = report(program, *words)
    assert (status, found["verdict"]) == (3, "error")
    assert [said in r["error"] for r in found["runners"] if r["error"]] == [True]
    assert {o["candidate"]: o["verdict"] for o in found["outputs"]}["onnxrt#2"] == "pass"


def test_nothing_of_it_is_loaded_in_the_command_itself(report, tmp_path):
    status, _ = report("noted", "--layers")
    assert status == 0
    assert "torch_program" not in sys.modules
    assert len(set((tmp_path / "loaded").read_text().split())) == 1


def test_the_number_format_of_its_parameters_is_told_by_the_process(report):
    _, found = report("half")
    assert [r["format"] for r in found["runners"] if r["name"].startswith("torch")] == ["fp16"]
