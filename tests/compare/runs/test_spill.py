"""Arrays that are kept for later: in memory up to a limit, beyond it in files."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.runs.spill import Store
from layerdiff.graph.errors import UsageError

ARRAYS = [
    np.arange(10.0).reshape(2, 5),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.arange(12, dtype=np.float32)[::2],
    np.array(3.5, np.float32),
    np.array(3.5),
    np.array([], np.int64),
    np.zeros((0, 4)),
    np.array([True, False]),
    np.array([[1, 2]], ml_dtypes.bfloat16),
    np.array(1.5, ml_dtypes.bfloat16),
    np.array([1, 2], ml_dtypes.float8_e4m3fn),
    np.array([1, -2], ml_dtypes.int4),
    np.array([1 + 2j]),
    np.array(["a", "bc"], object),
]


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_an_array_comes_back_as_it_was_from_memory_and_from_disk(limit, array):
    with Store(limit) as store:
        store.put("reference", 0, "t", array)
        for _ in range(2):
            back = store.get("reference", 0, "t")
            assert (back.dtype, back.shape) == (array.dtype, array.shape)
            assert np.array_equal(back, array)
            assert not back.flags.writeable
        assert (store.on_disk > 0) == (limit == 0 and array.dtype != object and array.size > 0)


def test_a_dropped_array_makes_room_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = np.zeros(100, np.float32)
    with Store(500) as store:
        store.put("reference", 0, "a", array)
        store.put("reference", 0, "b", array)
        assert store.in_memory == 400
        assert store.on_disk == 400
        assert len(list(tmp_path.glob("*/*"))) == 1
        store.drop("reference", 0, ["a", "b", "never"])
        assert store.in_memory == 0
        assert store.on_disk == 0
        assert list(tmp_path.glob("*/*")) == []
        assert not store.has("reference", 0, "a")
        store.put("reference", 1, "a", array)
        assert store.in_memory == 400
    assert list(tmp_path.iterdir()) == []


def test_streams_and_samples_are_apart():
    with Store(1 << 20) as store:
        for stream in ("reference", "candidate"):
            for sample in (0, 1):
                store.put(stream, sample, "t", np.array([stream == "reference", sample]))
        assert store.get("candidate", 1, "t").tolist() == [0, 1]
        store.drop("candidate", 1, ["t"])
        assert store.has("candidate", 0, "t")
        assert store.has("reference", 1, "t")


def test_a_temporary_folder_without_room_is_told_in_one_line(monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    with Store(0) as store:
        monkeypatch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(UsageError, match=r"No space left on device; name a folder with more room by TMPDIR$"):
            store.put("reference", 0, "x", np.arange(9.0))
