"""ONNX files that say what cannot be: refused before anything is allocated, read or run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, ModelError, OnnxrtRunner, load
from layerdiff.compare.cli.command import main
from onnx import TensorProto, helper, numpy_helper

from support.models import parsed

W = np.arange(9, dtype=np.float32).reshape(3, 3)


def network(**changes) -> onnx.ModelProto:
    """``y = x w``, and something else of the weights."""
    model = parsed("g (float[N, 3] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=W)
    (weights,) = model.graph.initializer
    for name, value in changes.items():
        if name == "dims":
            weights.dims[:] = value
        else:
            setattr(weights, name, value)
    return model


def external(location: str, **more: str) -> onnx.ModelProto:
    model = network(raw_data=b"")
    (weights,) = model.graph.initializer
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        weights.external_data.add(key=key, value=value)
    return model


def in_an_attribute(tensor: TensorProto) -> onnx.ModelProto:
    model = parsed("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    return model


def in_a_body(tensor: TensorProto) -> onnx.ModelProto:
    model = parsed("g (float[N, 3] x, bool b) => (float[N, 3] y) { y = Relu(x) }")
    body = helper.make_graph([helper.make_node("Identity", ["w"], ["o"])], "body", [], [onnx.ValueInfoProto(name="o")])
    body.initializer.append(tensor)
    model.graph.node.append(helper.make_node("If", ["b"], ["z"], then_branch=body, else_branch=body))
    return model


def doubling(levels: int) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    functions = []
    for level in range(levels):
        op, domain = ("Add", "") if not level else (f"F{level - 1}", "my")
        nodes = [helper.make_node("Add", ["a", "a"], ["b"])]
        if level:
            nodes = [
                helper.make_node(op, ["a"], ["t"], domain=domain),
                helper.make_node(op, ["t"], ["b"], domain=domain),
            ]
        functions.append(helper.make_function("my", f"F{level}", ["a"], ["b"], nodes, imports))
    node = helper.make_node(f"F{levels - 1}", ["x"], ["y"], domain="my")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    graph = helper.make_graph([node], "g", [x], [y])
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)


def recursive() -> onnx.ModelProto:
    model = doubling(2)
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "F1", "my"
    del model.functions[0].node[0].input[1:]
    return model


def odd_input(elem_type: int) -> onnx.ModelProto:
    model = network()
    model.graph.input[0].type.tensor_type.elem_type = elem_type
    return model


BAD = numpy_helper.from_array(W, "w")
BAD.raw_data = b"123"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (network(data_type=99), "'w' has the element type 99, which is not known"),
        (odd_input(77), "'x' has the element type 77"),
        (network(dims=(3, -3)), r"has a negative dimension: \[3, -3\]"),
        (network(dims=(1 << 40, 1 << 20)), "elements"),
        (network(dims=(3, 4)), "holds 36 bytes, and 48 follow from its shape"),
        (network(raw_data=b"12345"), "holds 5 bytes, and 36 follow"),
        (network(data_type=TensorProto.STRING), "holds strings as raw bytes"),
        (in_an_attribute(BAD), "holds 3 bytes"),
        (in_a_body(BAD), "holds 3 bytes"),
        (external("w.bin", offset="-4"), "has the offset '-4'"),
        (external("w.bin", offset="four"), "has the offset 'four'"),
        (external("w.bin", length="3.5"), r"has the length '3\.5'"),
        (external("w.bin", length="9" * 30), "has the length '999"),
        (external("w.bin", length="12"), "has 12 bytes in 'w.bin', and 36 follow from its shape"),
        (external("w.bin", offset="4096"), "'w.bin' is cut short: 'w' ends at byte 4,132 of 36"),
        (external(""), "which is not beside it"),
        (external("a\0b"), "which is not beside it"),
        (external("."), "which is not beside it"),
        (doubling(30), "calls of functions come to 536,870,912 nodes"),
        (recursive(), "calls itself"),
    ],
    ids=lambda value: None if isinstance(value, onnx.ModelProto) else value[:40],
)
def test_what_is_refused(model, message, tmp_path, capsys):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message):
        load(path)
    assert main([str(path), "--onnxrt", "--onnxrt"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("compare: ")]) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", "complex64"])
@pytest.mark.parametrize("raw", [True, False])
def test_what_is_right_is_read(dtype, raw, tmp_path):
    value = W.astype(dtype)
    tensor = numpy_helper.from_array(value, "c")
    if not raw:
        tensor = helper.make_tensor("c", tensor.data_type, value.shape, value.reshape(-1).tolist())
    path = tmp_path / "m.onnx"
    onnx.save(in_an_attribute(tensor), path)
    assert load(path)


SECRET = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32) * 1000


@pytest.fixture
def beside(tmp_path) -> Path:
    """A folder with a model, beside a file that is none of its business."""
    (tmp_path / "secret").write_bytes(SECRET.tobytes())
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def place_of(kind: str, folder: Path) -> str:
    secret = folder.parent / "secret"
    if kind == "absolute":
        return str(secret)
    if kind == "parent":
        return "../secret"
    if kind == "through a folder":
        (folder / "inner").mkdir()
        return "inner/../../secret"
    if kind == "link":
        (folder / "w.bin").symlink_to(secret)
        return "w.bin"
    (folder / "out").symlink_to(folder.parent)
    return "out/secret"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("kind", ["absolute", "parent", "through a folder", "link", "linked folder"])
def test_weights_stay_in_the_models_folder(kind, beside):
    path = beside / "m.onnx"
    path.write_bytes(external(place_of(kind, beside)).SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)
    report = Comparator(path, [OnnxrtRunner(), OnnxrtRunner()], allow_external=beside.parent).compare()
    assert report.verdict == "pass"
    assert not any("--allow-external" in note for note in report.data.notes)


def test_a_folder_for_external_weights_of_a_model_that_has_none_is_told(tmp_path):
    model = parsed("g (float[N, 4] x) => (float[N, 4] y) { y = Neg(x) }")
    report = Comparator(model, [OnnxrtRunner(), OnnxrtRunner()], allow_external=tmp_path).compare()
    assert f"--allow-external {tmp_path} changes nothing: no model has external weights." in report.data.notes


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_the_cache_of_a_model_hub_is_one_folder(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(external("w.bin").SerializeToString())
    (tmp_path / "blobs" / "2").write_bytes(W.tobytes())
    (tmp_path / "snapshot" / "m.onnx").symlink_to("../blobs/1")
    (tmp_path / "snapshot" / "w.bin").symlink_to("../blobs/2")
    report = Comparator(tmp_path / "snapshot" / "m.onnx", [OnnxrtRunner(), OnnxrtRunner()]).compare()
    assert report.verdict == "pass"
