"""Stored data that are damaged or mean harm: nothing is imported, run, or unpacked without end."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from layerdiff.dataloaders import open_data
from layerdiff.graph.errors import DataError
from layerdiff.graph.model import Model
from onnx import TensorProto, helper

from support.models import assembled


def model(*inputs: tuple[str, int, list]) -> Model:
    return Model(assembled([helper.make_node("Identity", [inputs[0][0]], ["y"])], inputs, inputs[:1]))


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran code from a data file')",))


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_no_code_in_a_data_file_is_run(tmp_path, suffix):
    file = tmp_path / f"x.{suffix}"
    trap = np.array([Trap()], object)
    np.savez(file, x=trap) if suffix == "npz" else np.save(file, trap)
    with pytest.raises(DataError, match="only arrays of strings are unpickled"):
        list(open_data(file).bind(model(("x", TensorProto.STRING, [1]))))


def test_no_module_is_imported_for_a_data_file(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    file = tmp_path / "x.npy"
    file.write_bytes(header.getvalue() + b"cnumpy.f2py.__main__\ndtype\n.")
    with pytest.raises(DataError, match="only arrays of strings are unpickled"):
        list(open_data(file).bind(model(("x", TensorProto.STRING, [1]))))


def test_damaged_strings_are_read_or_refused_and_crash_nobody(tmp_path):
    """Bytes changed one by one: what is then unpickled has other shapes, flags, lengths and names."""
    stored = io.BytesIO()
    np.save(stored, np.array(["a", "é"], object), allow_pickle=True)
    content, start = stored.getvalue(), stored.getvalue().index(b"\n") + 1
    bound = model(("x", TensorProto.STRING, [2]))
    for position in range(start, len(content)):
        for value in (0, 255, content[position] ^ 1, content[position] ^ 128):
            changed = content[:position] + bytes([value]) + content[position + 1 :]
            (tmp_path / "x.npy").write_bytes(changed)
            with contextlib.suppress(DataError):
                for sample in open_data(tmp_path / "x.npy").bind(bound):
                    assert all(isinstance(text, str) for text in sample["x"])


def test_an_archive_that_unpacks_to_more_than_its_header_says(tmp_path):
    stored = io.BytesIO()
    np.save(stored, np.zeros((2, 3), np.float32))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", stored.getvalue() + bytes(1 << 27))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"holds more than the .* bytes that its header says"):
        list(open_data(tmp_path / "x.npz").bind(model(("x", TensorProto.FLOAT, [2, 3]))))
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()


@pytest.mark.parametrize(
    "header",
    [
        {"descr": "<f4", "fortran_order": False, "shape": (1 << 60,)},
        {"descr": "<f4", "fortran_order": False, "shape": (-1,)},
        {"descr": "no such type", "fortran_order": False, "shape": (1,)},
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_headers_that_cannot_be(tmp_path, header, suffix):
    stored = io.BytesIO()
    np.lib.format.write_array_header_1_0(stored, header)
    file = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        file.write_bytes(stored.getvalue() + bytes(4))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.npy", stored.getvalue() + bytes(4))
    with pytest.raises(DataError):
        list(open_data(file).bind(model(("x", TensorProto.FLOAT, ["n"]))))
