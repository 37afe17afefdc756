"""``layerdiff inspect`` and ``layerdiff extract``: what a network is made of, and a part of it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from layerdiff.compare.cli.command import main
from layerdiff.graph.numpy_files import write_npz

from support.models import parsed

W = np.arange(12, dtype=np.float32).reshape(4, 3)
NETWORK = """g (float[N, 4] x, int64[N] ids) => (float[N, 3] y, float[N, 3] e) <float big = {70000}> {
    [product] a = MatMul(x, w)
    [bias] b = Add(a, c)
    [act] r = Relu(b)
    [look] e = Gather(table, ids)
    [scale] s = Mul(r, big)
    [sum] y = Add(s, e) }"""
WEIGHTS = {"w": W, "c": np.ones(3, np.float32), "table": np.eye(5, 3, dtype=np.float32)}
X, IDS = np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.float32), np.array([0, 4])


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(parsed(NETWORK, **WEIGHTS), "net.onnx")
    write_npz(tmp_path / "in.npz", {"x": X, "ids": IDS})
    return tmp_path / "net.onnx"


def inspected(*words):
    assert main(["inspect", "net.onnx", *words, "--json", "out.json"]) == 0
    return json.loads(open("out.json").read())


# ---- inspect --------------------------------------------------------------------------------------------------------


def test_layers_are_fused_groups(model):
    found = inspected()
    assert [layer["nodes"] for layer in found["layers"]] == [["MatMul", "Add", "Relu"], ["Gather"], ["Mul", "Add"]]
    assert [layer["name"] for layer in found["layers"]][:2] == ["product", "look"]


def test_every_node_is_a_layer_if_asked(model):
    assert [layer["name"] for layer in inspected("--nodes")["layers"]] == [
        "product",
        "bias",
        "act",
        "look",
        "scale",
        "sum",
    ]


def test_interface_and_weights(model):
    found = inspected()
    assert [(i["name"], i["dtype"], i["shape"]) for i in found["inputs"]] == [
        ("x", "float32", ["N", 4]),
        ("ids", "int64", ["N"]),
    ]
    assert found["inputs"][1]["values"].startswith("[0, 5): indexes 'table'")
    assert found["weights"] == {"values": 12 + 3 + 15 + 1, "bytes": 124}
    assert found["opset"] == {"": 17}
    assert found["layers"][0]["weights"] == 15
    assert found["layers"][0]["weight_extent"] == {"lo": 0.0, "hi": 11.0, "not_finite": 0}


def test_ranges_of_values_on_data(model):
    extents = [layer["extent"] for layer in inspected("--data", "in.npz")["layers"]]
    assert extents[0] == {"lo": 1.0, "hi": 12.0, "not_finite": 0}
    assert extents[2]["hi"] == pytest.approx(12 * 70000)


@pytest.mark.parametrize("columns", ["200", "60"])
def test_the_terminal_shows_it_and_what_fp16_cannot_hold(columns, model, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["inspect", "net.onnx", "--data", "in.npz"]) == 0
    told = capsys.readouterr().out
    for text in ("6 nodes, opset 17, 31 weights in 124 bytes", "MatMul+Add+Relu", "8.4e+05 (beyond FP16)"):
        assert text in told
    assert max(map(len, told.splitlines())) <= int(columns) or columns == "60"


def test_json_alone_on_standard_output(model, capsys):
    assert main(["inspect", "net.onnx", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"] == 6


# ---- extract --------------------------------------------------------------------------------------------------------


def ran(path, **feed):
    session = ort.InferenceSession(path)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


def test_a_part_between_two_tensors(model, capsys):
    assert main(["extract", "net.onnx", "-o", "part.onnx", "--from", "a", "--to", "s"]) == 0
    assert capsys.readouterr().out == "part.onnx: 3 of 6 nodes, from a\n"
    np.testing.assert_allclose(ran("part.onnx", a=np.zeros((1, 3), np.float32))["s"], [[70000] * 3])


def test_from_the_inputs_to_the_outputs_unless_told(model):
    assert main(["extract", "net.onnx", "-o", "part.onnx", "--to", "r"]) == 0
    assert ran("part.onnx", x=X).keys() == {"r"}
    assert main(["extract", "net.onnx", "-o", "part.onnx", "--from", "s"]) == 0
    assert ran("part.onnx", s=np.zeros((2, 3), np.float32), ids=IDS).keys() == {"y", "e"}


def test_a_part_can_be_compared_on_what_it_is_fed(model):
    words = ["extract", "net.onnx", "-o", "part.onnx", "--from", "r", "--to", "y"]
    assert main([*words, "--data", "in.npz", "--save-inputs", "fed.npz"]) == 0
    assert main(["part.onnx", "--onnxrt", "--onnxrt", "--data", "fed.npz", "-q"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "aa", "--to", "y"], "--from aa: net.onnx makes no such tensor; did you mean a?"),
        (["--to", "nothing_like_it"], "layerdiff inspect net.onnx --nodes lists them"),
        (["--from", "e", "--to", "r"], "--from e: r does not depend on it"),
        (["--from", "a", "--data", "in.npz"], "--data and --save-inputs go together"),
    ],
)
def test_what_cannot_be_extracted_is_refused(words, message, model, capsys):
    assert main(["extract", "net.onnx", "-o", "part.onnx", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_there(model, capsys):
    assert main(["extract", "net.onnx", "-o", "nowhere/part.onnx", "--to", "r"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["extract", "net.onnx", "-o", "net.onnx", "--to", "r"],
        ["extract", "net.onnx", "-o", "./in.npz", "--to", "r", "--data", "in.npz", "--save-inputs", "fed.npz"],
        ["extract", "net.onnx", "-o", "part.onnx", "--to", "r", "--data", "in.npz", "--save-inputs", "in.npz"],
        ["inspect", "net.onnx", "--json", "net.onnx"],
    ],
)
def test_nothing_is_written_over_what_is_read(words, model, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(words) == 2
    assert "that is an input" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
