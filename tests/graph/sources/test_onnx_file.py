"""Reading an .onnx file leaves its large weights in the file, and changes nothing else."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.graph.errors import ModelError
from layerdiff.graph.load import load
from layerdiff.graph.sources import onnx_file as onnxfile
from onnx import TensorProto, helper, numpy_helper

LARGE = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
SMALL = np.arange(8, dtype=np.float32)


def saved(path, initializers, name="odd name so that offsets are no multiple of four"):
    node = helper.make_node("MatMul", ["x", "large"], ["y"], name="product")
    graph = helper.make_graph(
        [node],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 64])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"made": "here"})
    onnx.save(model, path)
    return model


@pytest.fixture(params=range(1, 6))
def file(request, tmp_path):
    """A file in which the weights begin at every kind of offset."""
    path = tmp_path / "model.onnx"
    weights = [numpy_helper.from_array(SMALL, "small"), numpy_helper.from_array(LARGE, "large")]
    saved(path, weights, "n" * request.param)
    return path


def test_large_weights_stay_in_the_file(file):
    found = {t.name: t for t in onnxfile.read(file).graph.initializer}
    assert found["large"].data_location == TensorProto.EXTERNAL
    assert not found["large"].raw_data
    assert found["small"].raw_data == SMALL.tobytes()


def test_they_are_what_they_were(file):
    np.testing.assert_array_equal(load(file).index.weight("large"), LARGE)
    assert load(file).index.weight("large").flags.aligned


def test_everything_else_is_as_the_parser_reads_it(file):
    ours, whole = onnxfile.read(file), onnx.load(file)
    assert [t.name for t in ours.graph.initializer] == [t.name for t in whole.graph.initializer]
    assert [(t.dims, t.data_type) for t in ours.graph.initializer] == [
        (t.dims, t.data_type) for t in whole.graph.initializer
    ]
    for proto in (ours, whole):
        del proto.graph.initializer[:]
    assert ours == whole


def test_weights_that_are_no_bytes_are_read(tmp_path):
    numbers = helper.make_tensor("large", TensorProto.FLOAT, LARGE.shape, LARGE.reshape(-1))
    saved(tmp_path / "m.onnx", [numbers])
    (found,) = onnxfile.read(tmp_path / "m.onnx").graph.initializer
    assert found == numbers


def test_external_weights_stay_where_they_are(tmp_path):
    model = saved(tmp_path / "m.onnx", [numpy_helper.from_array(LARGE, "large")])
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (found,) = onnxfile.read(tmp_path / "m.onnx").graph.initializer
    assert found == onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer[0]


@pytest.mark.parametrize(
    "content",
    [b"\x08", b"no model", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 30],
    ids=["a tag alone", "text", "a graph longer than the file", "no number"],
)
def test_what_is_no_model_is_said_to_be_none(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(DecodeError):
        onnxfile.read(tmp_path / "m.onnx")


def test_a_model_cut_short_at_any_byte_is_no_model(file):
    content = file.read_bytes()
    whole = onnxfile.read(file)
    for size in range(0, len(content), 997):
        file.write_bytes(content[:size])
        with contextlib.suppress(DecodeError):
            assert onnxfile.read(file) != whole


def test_pieces_of_it_run(file):
    comparator = Comparator(file, runners=[OnnxrtRunner(), OnnxrtRunner(optimization="disable")], layers="all")
    report = comparator.compare()
    assert report.verdict == "pass"
    assert [layer.verdict for layer in report.layers] == ["ok"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_into_a_hubs_cache_is_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    saved(tmp_path / "blobs" / "0123abcd", [numpy_helper.from_array(LARGE, "large")])
    link = tmp_path / "model.onnx"
    link.symlink_to(tmp_path / "blobs" / "0123abcd")
    model = load(link)
    assert model.folder == (tmp_path / "blobs").resolve()
    np.testing.assert_array_equal(model.index.weight("large"), LARGE)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device")
@pytest.mark.parametrize("suffix", ["", ".onnx", ".tflite", ".pb"])
def test_a_device_is_refused_before_it_is_read(suffix, tmp_path):
    path = tmp_path / f"endless{suffix}"
    path.symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="neither a regular file nor a folder, but a device or a pipe"):
        load(path)
