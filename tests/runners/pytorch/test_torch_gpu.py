"""PyTorch on a real GPU. Run with: pytest -m gpu tests/runners/pytorch/test_torch_gpu.py"""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner, TorchRunner
from onnx import numpy_helper

from support.torch_networks import SAMPLES, SOURCE

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network as its source, as .pt2 and as ONNX."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    folder = tmp_path_factory.mktemp("torch")
    (folder / "torch_network_gpu.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    import torch_network_gpu

    network, x = torch_network_gpu.build(), torch.from_numpy(SAMPLES[0]["image"])
    torch.onnx.export(network, (x,), dynamo=True, verbose=False).save(str(folder / "network.onnx"))
    torch.export.save(torch.export.export(network, (x,)), folder / "network.pt2")
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("torch_network_gpu")


@pytest.mark.parametrize("program", ["network.pt2", "torch_network_gpu:build"])
def test_the_gpu_agrees_with_onnx_runtime_layer_by_layer(folder, program):
    side = TorchRunner(program=str(folder / program) if program.endswith(".pt2") else program, device="cuda")
    model = folder / "network.onnx"
    report = Comparator(model, [OnnxrtRunner(), side], data_loader=SAMPLES, layers="all").compare()
    assert [runner.error for runner in report.runners] == [None, None]
    assert report.verdict == "pass"
    assert report.layers
    assert not report.culprits


def test_a_changed_weight_is_named_on_the_gpu(folder):
    proto = onnx.load(folder / "network.onnx")
    weight = next(t for t in proto.graph.initializer if t.name.endswith("body.1.conv.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.02), weight.name))
    onnx.save(proto, folder / "changed.onnx")
    side = TorchRunner(program=str(folder / "network.pt2"), device="cuda")
    report = Comparator(folder / "changed.onnx", [OnnxrtRunner(), side], data_loader=SAMPLES, layers="guilty").compare()
    assert report.verdict == "fail"
    assert "body.1" in str(report.culprits[0])
