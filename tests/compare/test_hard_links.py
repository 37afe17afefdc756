"""A model file that has a second hard link, as caches and copies of folders make them, is one like any other."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import load
from layerdiff.compare import stages
from layerdiff.compare.cli.command import main

from support.models import parsed


@pytest.fixture
def linked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = np.linspace(-1, 1, 512, dtype=np.float32).reshape(32, 16)
    proto = parsed("g (float[2,32] x) => (float[2,16] y) { z = MatMul(x, w) y = Relu(z) }", w=weights)
    onnx.save(proto, "m.onnx")
    onnx.save(proto, "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0)
    for name in ("m.onnx", "apart.data"):
        os.link(name, f"second-{name}")
    np.savez("d.npz", x=np.ones((2, 32), np.float32))
    return weights


@pytest.mark.parametrize("name", ["m.onnx", "apart.onnx"])
def test_its_weights_are_read(linked, name):
    (weights,) = load(name).copied().graph.initializer
    assert (onnx.numpy_helper.to_array(weights) == linked).all()


@pytest.mark.parametrize("name", ["m.onnx", "apart.onnx"])
def test_other_readers_take_it(linked, name):
    assert main([name, "--onnxrt", "--reference-evaluator", "--data", "d.npz", "-q"]) == 0
    assert main(["extract", name, "--to", "z", "-o", "part.onnx"]) == 0
    (weights,) = onnx.load("part.onnx").graph.initializer
    assert (onnx.numpy_helper.to_array(weights) == linked).all()


@pytest.mark.parametrize("words", [["--fix", "p.json"], ["--apply-remedy", "r.onnx"], ["--layers"]])
def test_what_fails_behind_the_verdict_does_not_cost_it(linked, words, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise KeyError("no such thing")

    for stage in ("localized", "fix"):
        monkeypatch.setattr(stages, stage, broken)
    command = ["m.onnx", "--onnxrt", "--emulate", "fp16", "--data", "d.npz", "--rtol", "0", "--atol", "0"]
    assert main([*command, *words, "--json", "r.json"]) == 3
    assert "fail: " in capsys.readouterr().out
    said = Path("r.json").read_text("utf-8")
    assert '"verdict": "fail"' in said
    assert "Unexpected error while" in said
