"""Statistics on a device: the numbers that NumPy finds. The device is host memory, the library NumPy or PyTorch."""

from __future__ import annotations

import ctypes
import sys

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.statistics import device as ondevice
from layerdiff.compare.statistics import libraries
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.errors import RunnerError
from layerdiff.runners.contract.device import DeviceArray, Lease

from support.statistics_cases import PAIRS, RULES, assert_same, normal


def _memory(array):
    return np.frombuffer((ctypes.c_uint8 * array.nbytes).from_address(array.address), np.uint8)


class HostNumpy(libraries.Library):
    """What CuPy is on a GPU, since CuPy has NumPy's functions and methods."""

    def bytes(self, array):
        return _memory(array)

    def download(self, x):
        return np.asarray(x)

    def release(self):
        """NumPy keeps nothing."""


class HostTorch(libraries._Torch):
    def bytes(self, array):
        return self.xp.from_numpy(_memory(array))

    def release(self):
        """It keeps nothing in host memory."""


def _host_torch(device):
    import torch

    return HostTorch(torch, device)


@pytest.fixture(params=["numpy", "torch"])
def device(request, monkeypatch):
    """A device in host memory, where arrays of a few elements are worth it and blocks are small."""
    if request.param == "torch":
        pytest.importorskip("torch")
        monkeypatch.setitem(libraries.MAKERS, "cpu", {"torch": _host_torch})
    else:
        monkeypatch.setitem(libraries.MAKERS, "numpy", {"numpy": lambda device: HostNumpy(np, device)})
    monkeypatch.setattr(ondevice, "SMALL", 1)
    monkeypatch.setattr(ondevice, "BLOCK", 1000)
    libraries.LIBRARIES.clear()
    yield "cpu" if request.param == "torch" else "numpy:0"
    libraries.LIBRARIES.clear()


def put(array, device, lease=None):
    """An array in a device's memory."""
    array = np.array(array)  # a copy, in C order
    return DeviceArray(array.ctypes.data, array.shape, array.dtype, device, array.copy, array, lease)


def both(reference, candidate, tolerance, device, **flags):
    """Statistics in host memory, and on the device."""
    plain, found = Statistics(**flags), Statistics(**flags)
    plain.update(reference, candidate, tolerance, 3)
    there = put(reference, device), put(candidate, device)
    found.update(*there, tolerance, 3)
    assert found.device.startswith(device)
    assert not plain.device
    return plain, found


@pytest.mark.parametrize("tolerance", RULES)
@pytest.mark.parametrize("name", PAIRS)
def test_the_numbers_are_those_of_host_memory(name, tolerance, device):
    reference, candidate = PAIRS[name]
    plain, found = both(reference, candidate, RULES[tolerance], device)
    assert_same(found, plain)


@pytest.mark.parametrize("name", ["float32", "not finite", "not finite on one side", "all NaN"])
def test_nan_can_equal_nan(name, device):
    plain, found = both(*PAIRS[name], RULES["user"], device, equal_nan=True)
    assert_same(found, plain)


@pytest.mark.parametrize("name", ["float32", "not finite", "int64", "bool"])
def test_the_cheap_statistics_leave_out_the_same(name, device):
    plain, found = both(*PAIRS[name], RULES["user"], device, full=False)
    assert list(found.metrics()) == list(plain.metrics())
    assert not found.histogram
    assert found.mismatched == plain.mismatched
    assert found.measures()["rmse"] == pytest.approx(plain.measures()["rmse"], rel=1e-5)


@pytest.mark.parametrize("places", [(10, 20), (20, 10), (10, 1500), (1500, 10)], ids=str)
def test_the_greatest_error_of_64_bits_is_exact_wherever_it_stands(places, device):
    """2^60 + 1 and 2^60 + 5 are one float64, in one block and in two."""
    reference, candidate = np.zeros(2000, np.int64), np.zeros(2000, np.int64)
    candidate[list(places)] = 2**60 + 1, 2**60 + 5
    plain, found = both(reference, candidate, None, device)
    assert (plain.max_abs_at.value, plain.max_abs_at.index) == (2**60 + 5, (places[1],))
    assert found.max_abs_at == plain.max_abs_at


def test_several_samples_add_up(device):
    plain, found = Statistics(), Statistics()
    for sample, name in enumerate(["float32", "outliers", "not finite on one side"]):
        reference, candidate = PAIRS[name]
        plain.update(reference, candidate, RULES["user"], sample)
        found.update(put(reference, device), put(candidate, device), RULES["user"], sample)
    assert_same(found, plain)


FALLING_BACK = {
    "different dtypes": (np.ones(50, np.float32), np.ones(50, np.float16)),
    "uint64": (np.arange(50, dtype=np.uint64), np.arange(1, 51, dtype=np.uint64)),
    "complex": (np.ones(50, np.complex64), np.full(50, 1j, np.complex64)),
    "float8": (np.ones(50, ml_dtypes.float8_e4m3fn), np.zeros(50, ml_dtypes.float8_e4m3fn)),
    "shapes": (np.ones((2, 25), np.float32), np.ones((25, 2), np.float32)),
    "nothing": (np.ones((0, 3), np.float32), np.ones((0, 3), np.float32)),
}


@pytest.mark.parametrize("name", FALLING_BACK)
def test_what_the_device_cannot_do_is_downloaded(name, device):
    reference, candidate = FALLING_BACK[name]
    found = Statistics().update(put(reference, device), put(candidate, device))
    assert_same(found, Statistics().update(reference, candidate))
    assert not found.device


def test_small_arrays_are_downloaded(device, monkeypatch):
    monkeypatch.setattr(ondevice, "SMALL", 3000)
    reference, candidate = PAIRS["float32"]
    found = Statistics().update(put(reference, device), put(candidate, device))
    assert_same(found, Statistics().update(reference, candidate))
    assert not found.device


@pytest.mark.parametrize("error", [MemoryError("out of memory"), RuntimeError("CUDA error: out of memory")], ids=repr)
def test_what_the_device_has_no_memory_for_is_downloaded(error, device, monkeypatch):
    blocks = []

    def fail(self, start, stop):
        blocks.append(start)
        self._into.count += 1  # what was taken in before must not count
        if start:
            raise error

    monkeypatch.setattr(ondevice._Reader, "_block", fail)
    reference, candidate = PAIRS["float32"]
    found = Statistics().update(put(reference, device), put(candidate, device))
    assert len(blocks) == 2
    assert_same(found, Statistics().update(reference, candidate))


def test_without_a_library_arrays_are_downloaded(monkeypatch):
    def missing(device):
        raise ModuleNotFoundError("No module named 'cupy'")

    monkeypatch.setitem(libraries.MAKERS, "none", {"cupy": missing})
    monkeypatch.setattr(ondevice, "SMALL", 1)
    libraries.LIBRARIES.clear()
    reference, candidate = PAIRS["float32"]
    found = Statistics().update(put(reference, "none:0"), put(candidate, "none:0"), RULES["relative"])
    assert_same(found, Statistics().update(reference, candidate, RULES["relative"]))
    assert libraries.library("none:0") is None


def test_a_library_that_is_imported_already_is_taken_first(monkeypatch):
    """Its start is paid for."""
    made = []

    def maker(name):
        def make(device):
            made.append(name)
            raise ImportError

        return make

    monkeypatch.setitem(libraries.MAKERS, "some", {name: maker(name) for name in ("not_imported", "json")})
    monkeypatch.setitem(sys.modules, "json", sys.modules["json"])
    assert libraries.library("some:0") is None
    assert made == ["json", "not_imported"]


def test_an_array_is_downloaded_once():
    downloads = []
    x = normal(3, 4)

    def download():
        downloads.append(1)
        return x.copy()

    array = DeviceArray(x.ctypes.data, x.shape, x.dtype, "cuda:0", download)
    assert np.array_equal(np.asarray(array), x)
    assert np.array_equal(np.asarray(array), x)
    assert len(downloads) == 1
    assert np.asarray(array, np.float64).dtype == np.float64
    assert (array.size, array.ndim, array.nbytes) == (12, 2, 48)


def test_other_libraries_find_an_array_by_its_interface():
    x = normal(3, 4)
    interface = put(x, "cuda:0").__cuda_array_interface__
    assert interface["shape"] == (3, 4)
    assert interface["typestr"] == "<f4"
    assert interface["data"][0] % 4 == 0
    assert not hasattr(put(x.astype(ml_dtypes.bfloat16), "cuda:0"), "__cuda_array_interface__")


def test_an_array_cannot_be_read_when_its_session_has_run_again():
    """What lies there now is another sample's."""
    lease = Lease()
    array = put(normal(3000), "numpy:0", lease)
    lease.end()
    for read in (np.asarray, lambda a: a.address, lambda a: a.__cuda_array_interface__):
        with pytest.raises((RunnerError, AttributeError)):
            read(array)
    with pytest.raises(RunnerError, match="had run again"):
        Statistics().update(array, array)
