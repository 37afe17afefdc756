"""The same command gives the same report but for times, whatever the hash seed and the number of threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support.models import parsed

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
EXAMPLES = Path(__file__).parents[3] / "examples" / "digits"
NETWORK = """g (float[N, 32] x) => (float[N, 8] y, float[N, 8] z) {
  h = MatMul(x, w) a = Relu(h) b = MatMul(a, v) y = Softmax<axis = 1>(b) c = Exp(h) d = MatMul(c, v) z = Tanh(d) }"""
COMMANDS = {
    "outputs": "m.onnx --onnxrt --onnxrt=optimization=disable",
    "layers": "m.onnx --onnxrt --emulate fp16 --layers=all",
    "two files": "digits.onnx broken.onnx --onnxrt --layers",
    "layers, INT8": "m.onnx --onnxrt --emulate int8 --layers --rtol 0 --atol 0.01",
    "plan": "m.onnx --onnxrt --emulate int8 --fix plan.json --rtol 0 --atol 0.003",
}
CIRCUMSTANCES = ({"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}, {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "4"})


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    draw = np.random.default_rng(0)
    w, v = (draw.standard_normal(shape).astype(np.float32) / 3 for shape in ((32, 64), (64, 8)))
    onnx.save(parsed(NETWORK, w=w, v=v), tmp_path / "m.onnx")
    for name in ("digits.onnx", "broken.onnx"):
        (tmp_path / name).symlink_to(EXAMPLES / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_times(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: without_times(value) for key, value in found.items() if key not in ("date", "seconds")}
    return [without_times(value) for value in found] if isinstance(found, list) else found


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_same_command_gives_the_same_report(kind, folder):
    seen = []
    for environment in CIRCUMSTANCES:
        (folder / "plan.json").unlink(missing_ok=True)  # a search goes on where it was
        words = [*COMMANDS[kind].split(), "--samples", "3", "--json", "r.json", "-q"]
        cores = CORES[: int(environment["OMP_NUM_THREADS"])]  # threads of a runtime are as many as these
        done = subprocess.run(
            [sys.executable, "-m", "layerdiff", *words],
            env={**os.environ, **environment},
            preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
        )
        assert done.returncode in (0, 1)
        seen.append(without_times(json.loads(Path("r.json").read_text())))
    assert seen[0] == seen[1]
