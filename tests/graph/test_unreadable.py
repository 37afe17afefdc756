"""What is said of files that are no models: what is wrong with them, and not something else."""

from __future__ import annotations

import os

import onnx
import pytest
from layerdiff.graph.errors import ModelError
from layerdiff.graph.load import load
from onnx import TensorProto, helper

from support.models import parsed
from support.paths import DIGITS


def refused(path) -> str:
    with pytest.raises(ModelError) as raised:
        _ = load(path).inputs
    return str(raised.value)


def test_a_graph_without_outputs(tmp_path):
    model = parsed("g (float[3] x) => (float[3] y) { y = Relu(x) }")
    del model.graph.output[:]
    onnx.save(model, tmp_path / "m.onnx")
    assert "a graph of 1 node and no output: add what it gives to graph.output." in refused(tmp_path / "m.onnx")


def test_an_empty_name():
    assert refused("") == "the name of a model is empty; name a file."


@pytest.mark.parametrize(
    ("content", "told"), [(b"no", "or cut short (2 bytes)."), (b"\x89HDF\r\n\x1a\nmore", "has to end in .h5).")]
)
def test_a_keras_file_that_is_no_archive(content, told, tmp_path):
    pytest.importorskip("tensorflow")
    (tmp_path / "m.keras").write_bytes(content)
    text = refused(tmp_path / "m.keras")
    assert "not a zip archive, as .keras files are" in text
    assert text.endswith(told)


def test_an_optional_input(tmp_path):
    model = parsed("g (float[3] x) => (float[3] y) { y = Relu(x) }")
    element = helper.make_tensor_type_proto(TensorProto.FLOAT, [3])
    model.graph.input[0].type.CopyFrom(helper.make_optional_type_proto(element))
    model.opset_import[0].version = 18
    model.graph.node[0].op_type = "OptionalGetElement"
    onnx.save(model, tmp_path / "m.onnx")
    assert refused(tmp_path / "m.onnx").endswith("'x' is an optional; only tensors are compared.")


def test_a_name_that_is_no_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"m\xfc.onnx")
    path.write_bytes((DIGITS / "digits.onnx").read_bytes())
    assert refused(path).endswith("the name is no UTF-8, and ONNX opens no other: rename the file.")
