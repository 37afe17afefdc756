"""PyTorch as a side: what is compared by which name, that a planted fault is found, and what is refused."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner, RunnerError, TorchRunner, UsageError, load
from layerdiff.compare.cli.command import main
from layerdiff.runners.pytorch import runner
from onnx import numpy_helper

from support.models import parsed
from support.torch_networks import SAMPLES, SOURCE

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

ORT = OnnxrtRunner(threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network as its source, exported to ONNX by both exporters, as .pt2 and as TorchScript."""
    folder = tmp_path_factory.mktemp("torch")
    (folder / "torch_network.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    import torch_network

    network, x = torch_network.build(), torch.from_numpy(SAMPLES[0]["image"])
    torch.onnx.export(network, (x,), dynamo=True, verbose=False).save(str(folder / "today.onnx"))
    torch.onnx.export(network, (x,), str(folder / "older.onnx"), dynamo=False, input_names=["image"])
    torch.export.save(torch.export.export(network, (x,)), folder / "network.pt2")
    torch.jit.trace(network, (x,), check_trace=False).save(folder / "network.pt")
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("torch_network")


def program(folder, which):
    return which if ":" in which else str(folder / which)


def compare(model, which, folder, samples=SAMPLES, **rules):
    runners = [ORT, TorchRunner(program=program(folder, which))]
    return Comparator(model, runners, data_loader=samples, **rules).compare()


def planted(folder, file, weight):
    """The ONNX file with one weight changed."""
    proto = onnx.load(folder / file)
    (tensor,) = (t for t in proto.graph.initializer if t.name == weight)
    value = numpy_helper.to_array(tensor).copy()
    value.reshape(-1)[-1] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(value, weight))
    return proto


# ---- what is compared -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["network.pt2", "network.pt", "torch_network:build"])
@pytest.mark.parametrize("file", ["today.onnx", "older.onnx"])
def test_a_network_agrees_with_its_exports(file, which, folder):
    report = compare(folder / file, which, folder)
    assert (report.verdict, report.reference) == ("pass", "torch")
    assert report.runners[0].source == program(folder, which)


def test_a_changed_weight_fails(folder):
    assert compare(planted(folder, "today.onnx", "fc1.weight"), "network.pt2", folder).verdict == "fail"


def test_inputs_of_other_names_go_by_position_and_that_is_said(folder):
    proto = onnx.load(folder / "today.onnx")
    for node in proto.graph.node:
        node.input[:] = ["pixels" if name == "image" else name for name in node.input]
    proto.graph.input[0].name = "pixels"
    report = compare(proto, "network.pt2", folder, [{"pixels": SAMPLES[0]["image"]}])
    (note,) = (note for runner in report.runners for note in runner.notes if "position" in note)
    assert report.verdict == "pass"
    assert note.endswith("pixels is image.")


def test_a_dict_of_outputs_goes_by_its_keys(folder):
    text = "<ir_version: 9, opset_import: ['' : 17]> g (float[2] x) => (float[2] a, float[2] b)"
    proto = onnx.parser.parse_model(
        text.replace("'", '"') + " { a = Add(x, x) one = Constant<value_float = 1.0>() b = Add(x, one) }"
    )
    report = compare(proto, "torch_network:Two", folder, [{"x": np.ones(2, np.float32)}])
    assert {o.tensor: o.verdict for o in report.outputs} == {"a": "pass", "b": "pass"}


def test_a_module_in_training_mode_is_evaluated_and_that_is_said(folder):
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[9] input) => (float[9] y) { y = Identity(input) }'
    )
    report = compare(proto, "torch_network:training", folder, [{"input": np.ones(9, np.float32)}])
    assert report.verdict == "pass"
    assert any("training mode" in note for runner in report.runners for note in runner.notes)


def test_products_are_fp32_whatever_the_program_sets_and_that_is_put_back(folder):
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[3] x) => (float[3] y) { y = Identity(x) }'
    )
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    try:
        report = compare(proto, "torch_network:telling", folder, [{"x": np.ones(3, np.float32)}])
        after = torch.get_float32_matmul_precision(), cudnn.benchmark, cudnn.deterministic
    finally:
        torch.set_float32_matmul_precision(before)
        cudnn.benchmark = False
    assert (report.verdict, after) == ("pass", ("high", True, False))


# ---- half precision -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_fp32(folder):
    """The network of `Half`, its parameters turned to FP32, as an ONNX file."""
    import torch_network

    def write(name):
        module = getattr(torch_network, name)().float()
        module.dtype = torch.float32
        path = folder / f"{name}.onnx"
        torch.onnx.export(module, (torch.zeros(4, 64),), dynamo=True, verbose=False).save(str(path))
        return path

    return {name: write(name) for name in ("bf16", "fp16")}


INPUT = [{"x": np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32)}]


@pytest.mark.parametrize(("which", "dtype"), [("bf16", "bf16"), ("fp16", "fp16")])
def test_a_module_in_half_precision_is_judged_by_its_own_format(which, dtype, folder, in_fp32):
    report = compare(in_fp32[which], f"torch_network:{which}", folder, INPUT)
    (output,) = report.outputs
    assert (report.verdict, report.runners[0].format) == ("pass", dtype)
    assert output.metrics["rel_l2"] > 1e-4  # FP32 would not explain it


def test_what_half_precision_does_not_explain_fails(folder, in_fp32):
    assert compare(in_fp32["bf16"], "torch_network:bf16_wrong", folder, INPUT).verdict == "fail"


def test_a_program_in_fp32_is_judged_as_such(folder):
    assert compare(folder / "today.onnx", "network.pt2", folder).runners[0].format == "fp32"


# ---- complex numbers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spectrum(folder):
    """A network with a Fourier transform inside, as an ONNX graph."""
    import torch_network

    x = torch.from_numpy(WAVE[0]["x"])
    path = folder / "spectrum.onnx"
    torch.onnx.export(torch_network.spectrum(), (x,), dynamo=True, opset_version=20, verbose=False).save(str(path))
    return onnx.load(path)


WAVE = [{"x": np.random.default_rng(6).standard_normal((1, 512)).astype(np.float32)}]


@pytest.mark.filterwarnings("error:Casting complex")
def test_complex_numbers_are_compared_with_the_pairs_that_a_file_has_of_them(folder, spectrum):
    report = compare(spectrum, "torch_network:spectrum", folder, WAVE, layers="all")
    assert (report.verdict, report.culprits) == ("pass", ())
    assert not [notice for notice in report.notices if notice.code == "layer-not-built"]
    assert ("STFT", "ok") in {(layer.op, layer.verdict) for layer in report.layers}


def test_another_window_is_the_culprit(folder, spectrum):
    other = onnx.ModelProto.FromString(spectrum.SerializeToString())
    (window,) = (t for t in other.graph.initializer if list(t.dims) == [64])
    window.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(window) * np.float32(1.01), window.name))
    report = compare(other, "torch_network:spectrum", folder, WAVE, layers="guilty")
    assert [(culprit.op, report.verdict) for culprit in report.culprits] == [("STFT", "fail")]


# ---- layers ---------------------------------------------------------------------------------------------------------

CULPRITS = [
    ("today.onnx", "network.pt2", "fc1.weight", "fc1"),
    ("today.onnx", "network.pt2", "body.1.conv.weight", "body.1.bn"),  # whose arithmetic the convolution does
    ("today.onnx", "torch_network:build", "body.0.conv.bias", "body.0.bn"),
    ("older.onnx", "network.pt2", "fc1.weight", "fc1"),
    ("older.onnx", "torch_network:build", "fc2.bias", "fc2"),
]


@pytest.mark.parametrize(("file", "which", "weight", "path"), CULPRITS)
def test_the_layer_of_a_changed_weight_is_the_culprit_with_its_module(file, which, weight, path, folder):
    report = compare(planted(folder, file, weight), which, folder, layers="guilty")
    assert [culprit.origin.partition(",")[0] for culprit in report.culprits] == [path]


@pytest.mark.parametrize(("file", "which", "weight", "path"), CULPRITS)
def test_a_changed_weight_is_the_cause_with_its_numbers(file, which, weight, path, folder):
    (culprit,) = compare(planted(folder, file, weight), which, folder, layers="guilty").culprits
    assert (culprit.cause, " differ" in culprit.evidence) == ("weights", True)
    assert culprit.remedies[0].text.startswith("export the model again")


def nameless(proto):
    """A file in which nothing has the name any more that the exporter gave it, as some optimizers leave it."""
    graph, kept = proto.graph, {v.name for v in (*proto.graph.input, *proto.graph.output)}
    made = [*(t.name for t in graph.initializer), *(o for n in graph.node for o in n.output)]
    names = {name: f"t{i}" for i, name in enumerate(made) if name and name not in kept}
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for i, node in enumerate(graph.node):
        node.name = f"n{i}"
        del node.metadata_props[:]
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.value_info[:]
    return proto


@pytest.mark.parametrize(("file", "which", "weight", "path"), CULPRITS)
def test_in_a_file_without_names_layers_are_found_by_what_the_program_is_exported_as(file, which, weight, path, folder):
    told = compare(planted(folder, file, weight), which, folder, layers="all")
    report = compare(nameless(planted(folder, file, weight)), which, folder, layers="all")
    assert [(c.op, c.cause, c.evidence) for c in report.culprits] == [
        (c.op, c.cause, c.evidence) for c in told.culprits
    ]
    assert [layer.verdict for layer in report.layers] == [layer.verdict for layer in told.layers]
    assert all(f"{folder / 'torch_network.py'}:" in culprit.origin for culprit in (*report.culprits, *told.culprits))


@pytest.mark.parametrize("file", ["today.onnx", "older.onnx"])
def test_tensors_that_the_program_has_no_values_of_are_said_to_be_the_files(file, folder):
    report = compare(nameless(onnx.load(folder / file)), "network.pt2", folder, layers="all")
    unmatched = [layer for layer in report.layers if layer.verdict == "unmatched"]
    told = [notice.text for notice in report.notices if notice.kind == "no-counterpart"]
    assert [" of the file (" in text and " no counterpart in torch: " in text for text in told] == [True] * bool(
        unmatched
    )


def test_weights_that_are_the_same_are_no_cause(folder):
    proto = onnx.load(folder / "today.onnx")
    (gelu,) = (node for node in proto.graph.node if node.op_type == "Gelu")
    gelu.op_type = "Relu"
    del gelu.attribute[:]
    (culprit,) = compare(proto, "network.pt2", folder, layers="guilty").culprits
    assert culprit.cause != "weights"


def test_a_culprit_names_its_line(folder):
    report = compare(planted(folder, "today.onnx", "fc1.weight"), "network.pt2", folder, layers="guilty")
    line = next(i for i, text in enumerate(SOURCE.splitlines(), 1) if "self.fc1(x)" in text)
    assert report.culprits[0].origin == f"fc1, {folder / 'torch_network.py'}:{line} in forward"


@pytest.mark.parametrize("file", ["today.onnx", "older.onnx"])
def test_a_right_export_has_no_culprit(file, folder):
    report = compare(folder / file, "network.pt2", folder, layers="all")
    assert report.culprits == ()
    assert sum(layer.verdict == "ok" for layer in report.layers) > 4


def test_torchscript_shows_outputs_alone_and_that_is_said(folder):
    report = compare(folder / "today.onnx", "network.pt", folder, layers="guilty")
    assert [notice.code for notice in report.notices if notice.code.startswith("layers")] == ["layers-stood-in-for"]


def test_an_inner_tensor_may_be_given_in_place_of_what_computes_it(folder):
    model = load(folder / "today.onnx")
    with TorchRunner(program=str(folder / "network.pt2")).session(model) as session:
        whole = session.infer(SAMPLES[0], ["gelu", "linear_1"])
        given = session.infer({"gelu": whole["gelu"] * 0}, ["linear_1"])
    assert np.ptp(whole["linear_1"], axis=0).max() > 0
    assert np.ptp(given["linear_1"], axis=0).max() == 0  # the bias alone


# ---- arguments whose nodes PyTorch names otherwise ------------------------------------------------------------------


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", ["input", "x"])
def test_an_argument_may_have_the_name_of_a_function_of_python(name, dynamo, folder, tmp_path):
    """As that of every `Sequential` has: its node is ``input_1``."""
    import torch_network

    module, x = torch_network.sequence(), torch.linspace(-1, 1, 18).reshape(2, 9)
    torch.onnx.export(module, (x,), tmp_path / "n.onnx", dynamo=dynamo, verbose=False, input_names=[name])
    samples, rules = [{name: x.numpy()}], {"layers": "guilty"}
    right = compare(tmp_path / "n.onnx", "torch_network:sequence", folder, samples, **rules)
    wrong = compare(planted(tmp_path, "n.onnx", "2.bias"), "torch_network:sequence", folder, samples, **rules)
    assert (right.verdict, right.culprits) == ("pass", ())
    assert [culprit.origin.partition(",")[0] for culprit in wrong.culprits] == ["2"]
    assert not [notice for notice in (*right.notices, *wrong.notices) if notice.code.startswith("layers")]


def test_an_input_of_a_saved_program_has_the_name_of_the_argument(folder, tmp_path):
    import torch_network

    module, x = torch_network.sequence(), torch.ones(2, 9)
    torch.onnx.export(module, (x,), dynamo=True, verbose=False).save(str(tmp_path / "n.onnx"))
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "n.pt2")
    report = compare(tmp_path / "n.onnx", str(tmp_path / "n.pt2"), folder, [{"input": x.numpy()}])
    assert report.verdict == "pass"
    assert not [note for runner in report.runners for note in runner.notes if "position" in note]


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("gone.pt2", "no such file"),
        ("torch_network:gone", "no attribute 'gone'"),
        ("torch_network:number", "int is no function"),
        ("torch_network:SOURCE", "has no attribute"),
    ],
)
def test_what_is_no_program_is_a_usage_error(which, message, folder):
    with pytest.raises(UsageError, match=message):
        TorchRunner(program=program(folder, which)).open(load(folder / "today.onnx"))


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("weights.pt", UsageError, "--torch=module:function"),
        ("weights.pt2", UsageError, "not an exported program"),
        ("torch_network:fails", RunnerError, "ValueError: no weights here"),
    ],
)
def test_what_pytorch_cannot_read_is_told_in_a_line(which, error, message, folder):
    """A file that is no program is unreadable input, exit status 2; a function that fails has failed, 3."""
    for name in ("weights.pt", "weights.pt2"):
        torch.save({"w": torch.ones(2)}, folder / name)
    with pytest.raises(error, match=message):
        TorchRunner(program=program(folder, which)).open(load(folder / "today.onnx"))


def test_another_shape_than_was_exported_is_told_with_the_shapes(folder):
    session = TorchRunner(program=str(folder / "network.pt2")).open(load(folder / "today.onnx"))
    with session, pytest.raises(RunnerError, match="image 2x3x6x6"):
        session.infer({"image": np.zeros((2, 3, 6, 6), np.float32)})


def test_another_number_of_outputs_is_no_pass(folder):
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[2] x) => (float[2] z) { z = Identity(x) }'
    )
    report = compare(proto, "torch_network:Two", folder, [{"x": np.ones(2, np.float32)}])
    assert report.verdict == "error"


def test_the_command_takes_the_program_behind_the_flag(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["today.onnx", "--onnxrt", "--torch", "network.pt2", "--shape", "image:2x4x6x6", "--samples", "1"]) == 0
    assert "onnxrt agrees with torch" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "status"), [(["--layers"], 3), ([], 0)])
def test_a_missing_exporter_is_told_in_a_line_before_anything_runs(words, status, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    there = importlib.util.find_spec
    monkeypatch.setattr(runner, "find_spec", lambda name: None if name == "onnxscript" else there(name))
    given = ["today.onnx", "--onnxrt", "--torch", "network.pt2", "--shape", "image:2x4x6x6", "--samples", "1"]
    assert main([*given, *words]) == status
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if "onnxscript" in line]
    assert len(lines) == bool(status)
    assert all(line.endswith("is not installed. Install it with: pip install 'layerdiff[torch]'") for line in lines)
    assert bool(told.out) != bool(status)


@pytest.mark.parametrize("which", ["network.pt2", "torch_network:build"])
def test_a_module_that_is_a_candidate_is_run_from_inner_tensors(which, folder):
    """Beside a reference that is chosen, its layers are fed the reference's values alone."""
    runners = [ORT, TorchRunner(program=program(folder, which))]
    rules = {"layers": "all", "reference": "onnxrt"}
    report = Comparator(folder / "today.onnx", runners, data_loader=SAMPLES, **rules).compare()
    assert (report.verdict, report.reference) == ("pass", "onnxrt")
    assert len([layer for layer in report.layers if layer.local]) > 5
    assert not report.culprits


def test_a_program_that_decides_by_values_is_told_with_the_line_that_does(tmp_path, monkeypatch):
    """A graph holds one of its ways."""
    (tmp_path / "deciding.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        if x.mean() > 0:\n            return x * 2\n        return torch.tanh(x)\n"
        "\n\ndef net():\n    return Net().eval()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = parsed("g (float[2,3] x) => (float[2,3] y) { a = Tanh(x) y = Identity(a) }")
    data = [{"x": np.ones((2, 3), np.float32)}]
    runners = [TorchRunner(program="deciding:net"), OnnxrtRunner()]
    report = Comparator(model, runners, data_loader=data, layers="guilty").compare()
    told = next(n.text for n in report.notices if n.code == "layers-not-compared")
    assert "the program decides by values what it computes ('if x.mean() > 0:' in line 6 of " in told
    assert "torch.cond" in told


def test_why_torchscript_fails_is_told_and_not_its_traceback():
    from layerdiff.runners.pytorch.library import cause

    @torch.jit.script
    def product(a: torch.Tensor):
        return a @ a

    with pytest.raises(RuntimeError) as caught:
        product(torch.zeros(2, 3))
    assert cause(caught.value).startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert cause(ValueError("first\nsecond")) == "first"
