"""Files that another program cuts short while they are read: one message, where a memory map would end the program."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from layerdiff.compare.cli.command import main
from layerdiff.graph.errors import ModelError
from layerdiff.graph.load import load

from support.models import parsed


@pytest.mark.parametrize("samples", [1, 3])
def test_a_file_cut_short_between_two_passes_is_told(samples, tmp_path, monkeypatch, capsys):
    """Inputs are read once to be bound and again to be run; the runner's first call cuts them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    onnx.save(parsed("g (float[N, 65536] x) => (float[N, 65536] y) { y = Relu(x) }"), "m.onnx")
    (tmp_path / "data").mkdir()
    for i in range(samples):
        (tmp_path / "data" / str(i)).mkdir()
        np.save(tmp_path / "data" / str(i) / "x.npy", np.ones((64, 65536), np.float32))
    (tmp_path / "cutting.py").write_text(
        "import glob, os\nimport numpy as np\n\ndef cuts(feed):\n    for name in glob.glob('data/*/x.npy'):\n"
        "        os.truncate(name, 4096)\n    return {'y': np.maximum(feed['x'], 0)}\n"
    )
    words = "m.onnx --onnxrt --runner cutting:cuts --isolate off --data data --json r.json"
    status = main(words.split())
    assert status == 2
    assert "cut short: 3,968 of 16,777,216 bytes" in capsys.readouterr().err
    assert not os.path.exists("r.json")


def test_weights_cut_short_are_told(tmp_path):
    w = np.ones((64, 64), np.float32)
    proto = parsed("g (float[1, 64] x) => (float[1, 64] y) { y = MatMul(x, w) }", w=w)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = load(tmp_path / "m.onnx")
    os.truncate(tmp_path / "w.bin", 100)
    with pytest.raises(ModelError, match="the weights 'w' cannot be read"):
        model.index.weight("w")
