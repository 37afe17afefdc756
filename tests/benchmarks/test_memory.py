"""The benchmark of memory, on a small scale: peaks are those of a few pieces, not of the model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.kit.process import measure
from benchmarks.memory.networks import large_pair

MIB = 1 << 20


@pytest.mark.slow
def test_peak_memory_of_int8_is_a_few_pieces_and_not_the_model(tmp_path: Path) -> None:
    """768 MiB of weights in two models, in 640 MiB."""
    path, _ = large_pair(tmp_path, layers=48, width=2048, stale=3)
    command = [sys.executable, "-m", "layerdiff", str(path), "--onnxrt", "--emulate", "int8", "--layers"]
    found = measure([*command, "--samples", "2", "--memory", "128MB"])
    assert found.status == 1, found.stderr  # no tolerance is given for INT8
    assert found.peak < 640 * MIB, f"{found.peak / MIB:.0f} MiB"


@pytest.mark.slow
def test_peak_memory_is_a_few_pieces_and_not_the_model(tmp_path: Path) -> None:
    """1.25 GiB of weights, two models of them, in 384 MiB: the interpreter, and 36 MiB a layer in three sessions."""
    layers, width = 36, 3072
    paths = large_pair(tmp_path, layers=layers, width=width, stale=20)
    result = tmp_path / "report.json"
    command = [sys.executable, "-m", "layerdiff", *map(str, paths), "--onnxrt", "--layers", "--samples", "2"]
    found = measure([*command, "--memory", "128MB", "--json", str(result)])
    assert found.status == 1, found.stderr
    assert [c["node"] for c in json.loads(result.read_text())["culprits"]] == ["product20"]
    assert layers * 4 * width * width > 1200 * MIB
    assert found.peak < 384 * MIB, f"{found.peak / MIB:.0f} MiB"
