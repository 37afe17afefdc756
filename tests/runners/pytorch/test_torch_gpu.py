"""PyTorch on a real GPU. Run with: pytest -m gpu tests/runners/pytorch/test_torch_gpu.py"""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner, TorchRunner, load
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


def test_inner_tensors_are_computed_and_fed_on_the_gpu(folder):
    """Each is close to what the CPU gives, and is believed in place of what computes it."""
    model = load(folder / "network.onnx")
    names = [
        n for n in TorchRunner(program=str(folder / "network.pt2")).tensors_shown(model) if n in model.index.producer
    ]
    with (
        TorchRunner(program=str(folder / "network.pt2")).session(model, fetch=names) as cpu,
        TorchRunner(program=str(folder / "network.pt2"), device="cuda").session(model, fetch=names) as gpu,
    ):
        expected, found = cpu.infer(SAMPLES[0], names), gpu.infer(SAMPLES[0], names)
        again = gpu.infer(SAMPLES[0], names)
        (output,) = (spec.name for spec in model.outputs)
        middle = names[len(names) // 2]
        given = gpu.infer({**SAMPLES[0], middle: 0 * found[middle]}, [output])[output]
        info = gpu.info
    assert len(names) > 5
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(again[name], found[name])
    assert not np.allclose(given, expected[output])
    assert (info.options["device"], info.options["tf32"], bool(info.options["gpu"])) == ("cuda", False, True)


class Product(torch.nn.Module):
    """One product of many terms."""

    def forward(self, x):
        return x @ x.T


def test_products_are_fp32_unless_tf32_is_asked_for(folder):
    x = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    export = (torch.from_numpy(x),)
    torch.onnx.export(Product(), export, dynamo=True, verbose=False).save(str(folder / "product.onnx"))
    torch.export.save(torch.export.export(Product(), export), folder / "product.pt2")
    model = load(folder / "product.onnx")
    (given,), (output,) = model.inputs, model.outputs
    exact = x.astype(np.float64) @ x.T.astype(np.float64)
    errors = []
    for tf32 in (False, True):
        with TorchRunner(program=str(folder / "product.pt2"), device="cuda", tf32=tf32).session(model) as session:
            found = session.infer({given.name: x})[output.name]
        errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
    assert errors[0] < 1e-5 < errors[1]


def test_a_changed_weight_is_named_on_the_gpu(folder):
    proto = onnx.load(folder / "network.onnx")
    weight = next(t for t in proto.graph.initializer if t.name.endswith("body.1.conv.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.02), weight.name))
    onnx.save(proto, folder / "changed.onnx")
    side = TorchRunner(program=str(folder / "network.pt2"), device="cuda")
    report = Comparator(folder / "changed.onnx", [OnnxrtRunner(), side], data_loader=SAMPLES, layers="guilty").compare()
    assert report.verdict == "fail"
    assert "body.1" in str(report.culprits[0])
