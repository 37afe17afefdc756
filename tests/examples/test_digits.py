"""The network that ships with the examples: small, real, and right about images it was not trained on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from support.paths import DIGITS


def test_it_reads_held_out_digits():
    ort = pytest.importorskip("onnxruntime")
    data, labels = np.load(DIGITS / "heldout.npz"), np.load(DIGITS / "labels.npy")
    session = ort.InferenceSession(DIGITS / "digits.onnx", providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], dict(data))
    assert labels.dtype == np.int64
    assert len(labels) == 360
    assert (probabilities.argmax(1) == labels).mean() >= 0.97


def test_the_data_are_one_batch_under_the_name_of_the_input():
    data = np.load(DIGITS / "heldout.npz")
    assert list(data) == ["image"]
    assert (data["image"].dtype, data["image"].shape) == (np.float32, (360, 8, 8, 1))
    assert (data["image"].min(), data["image"].max()) == (0, 1)


def test_the_graph_is_one_that_older_runtimes_read():
    model = onnx.load(DIGITS / "digits.onnx")
    assert model.ir_version == 8
    assert {o.domain: o.version for o in model.opset_import}[""] == 17
    assert [i.name for i in model.graph.input] == ["image"]
    assert [o.name for o in model.graph.output] == ["probabilities"]
    assert all(v.type.tensor_type.shape.dim[0].dim_param == "batch" for v in (*model.graph.input, *model.graph.output))
    onnx.checker.check_model(model, full_check=True)


def test_it_is_small():
    assert sum(f.stat().st_size for f in DIGITS.iterdir() if f.is_file()) < 1_000_000
