"""Data that stay on a real GPU. Run with: pytest -m gpu tests/compare/statistics/test_device_gpu.py

Each test needs what it names: onnxruntime-gpu, TensorRT, CuPy or PyTorch; it is skipped where that is missing.
"""

import os

import numpy as np
import pytest
from layerdiff import Comparator
from layerdiff.compare.statistics import device as ondevice
from layerdiff.compare.statistics import libraries
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.errors import RunnerError
from layerdiff.graph.model import Model
from layerdiff.runners.contract.device import DeviceArray
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from layerdiff.runners.trt import cuda
from layerdiff.runners.trt.runner import TrtRunner

from support import statistics_cases as cases
from support.models import parsed

pytestmark = pytest.mark.gpu

ORT = OnnxrtRunner(provider="cuda")
TRT = TrtRunner(tactic_sources=os.environ.get("LAYERDIFF_TACTIC_SOURCES"), optimization_level=1)
SHAPE = (2, 3, 512, 512)


@pytest.fixture(scope="module", autouse=True)
def gpu():
    if not cuda.gpu():
        pytest.skip(cuda.why_no_gpu())


@pytest.fixture
def ort():
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has no CUDA provider")


@pytest.fixture
def trt():
    pytest.importorskip("tensorrt")


@pytest.fixture(params=["cupy", "torch"])
def library(request, monkeypatch):
    """One of the libraries alone, for arrays of any size, in small blocks."""
    pytest.importorskip(request.param)
    monkeypatch.setitem(libraries.MAKERS, "cuda", {request.param: libraries.MAKERS["cuda"][request.param]})
    monkeypatch.setattr(ondevice, "SMALL", 1)
    libraries.LIBRARIES.clear()
    found = libraries.library("cuda:0")
    assert found is not None
    assert found.name.startswith(request.param)
    yield found
    libraries.LIBRARIES.clear()


@pytest.fixture
def model():
    text = """g (float[n, 3, a, b] x) => (float[n, 3, a, b] y) {
        k = Constant <value = float {0.7}> ()
        h = Mul(x, k)
        y = Tanh(h)
    }"""
    return Model(parsed(text))


@pytest.fixture
def x():
    return np.random.default_rng(2).standard_normal(SHAPE).astype(np.float32)


def put(array, library):
    """A copy on the GPU."""
    raw = library.upload(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    library.finish()
    return DeviceArray(library.address(raw), array.shape, array.dtype, "cuda:0", array.copy, raw)


TELLING = [
    "float32",
    "outliers",
    "the same maximum twice",
    "all zero against small",
    "subnormal",
    "not finite",
    "all NaN",
    "nothing finite in a block",
    "float16 at its end",
    "bfloat16",
    "float64, differences that overflow",
    "uint16, a few",
    "uint32",
    "int64, neighbours of 2^53",
    "int64, end to end",
    "bool",
    "one element",
]
"""Of all cases: a kernel for every new dtype is compiled, which takes longer than to run it."""


@pytest.mark.parametrize("name", TELLING)
def test_the_numbers_are_those_of_host_memory(library, name, monkeypatch):
    monkeypatch.setattr(ondevice, "BLOCK", 1000)
    reference, candidate = cases.PAIRS[name]
    for rule in (cases.RULES[r] for r in ("none", "user", "relative")):
        plain, found = Statistics(), Statistics()
        plain.update(reference, candidate, rule)
        there = put(reference, library), put(candidate, library)
        found.update(*there, rule)
        assert found.device == f"cuda:0 ({library.name})"
        cases.assert_same(found, plain)


def test_large_arrays_with_several_blocks(library):
    rng = np.random.default_rng(3)
    reference = rng.standard_normal((3, 100, 300, 200)).astype(np.float32)
    candidate = reference * (1 + 1e-6 * rng.standard_normal(reference.shape).astype(np.float32))
    rule = cases.RULES["relative"]
    plain = Statistics().update(reference, candidate, rule)
    there = put(reference, library), put(candidate, library)
    found = Statistics().update(*there, rule)
    assert found.device
    cases.assert_same(found, plain)


def test_a_library_takes_an_array_by_its_interface(ort, library, model, x):
    with ORT.open(model) as session:
        left = session.infer_on_device({"x": x})["y"]
        taken = getattr(library.xp, "as_tensor", None) or library.xp.asarray
        assert np.array_equal(library.download(taken(left)), session.infer({"x": x})["y"])


def test_onnxruntime_leaves_outputs_on_the_gpu(ort, model, x):
    with ORT.open(model) as session:
        plain = session.infer({"x": x})["y"]
        left = session.infer_on_device({"x": x})["y"]
        session.infer_on_device({"x": -x})
        again = session.infer_on_device({"x": left})["y"]  # fed from the GPU
        assert isinstance(left, DeviceArray)
        assert np.array_equal(np.asarray(left), plain)
        assert np.asarray(again) == pytest.approx(np.tanh(0.7 * plain), abs=1e-5)


def test_tensorrt_leaves_outputs_on_the_gpu(trt, model, x):
    with TRT.open(model, workload=Workload(samples=lambda: [{"x": x}])) as session:
        plain = session.infer({"x": x})["y"]
        left = session.infer_on_device({"x": x})["y"]
        assert isinstance(left, DeviceArray)
        assert np.array_equal(np.asarray(left), plain)
        stale = session.infer_on_device({"x": x})["y"]
        session.infer({"x": -x})
        with pytest.raises(RunnerError, match="run again"):
            np.asarray(stale)


def test_outputs_of_onnxruntime_are_fed_to_tensorrt(ort, trt, model, x):
    with ORT.open(model) as one, TRT.open(model, workload=Workload(samples=lambda: [{"x": x}])) as two:
        first = one.infer_on_device({"x": x})["y"]
        second = two.infer_on_device({"x": first})["y"]
        assert np.asarray(second) == pytest.approx(np.tanh(0.7 * np.tanh(0.7 * x)), abs=1e-5)


@pytest.mark.parametrize("candidate", ["trt", "onnxrt"])
def test_a_comparison_on_the_gpu_finds_the_same(ort, library, candidate, model, x, monkeypatch, request):
    if candidate == "trt":
        request.getfixturevalue("trt")
    other = TRT if candidate == "trt" else OnnxrtRunner(provider="cuda", optimization="disable")
    data = [{"x": x}, {"x": 2 * x}]
    here = Comparator(model, [ORT, other], data_loader=data).compare()
    assert here.runners[1].options["statistics_on"] == f"cuda:0 ({library.name})"
    monkeypatch.setitem(libraries.MAKERS, "cuda", {})
    libraries.LIBRARIES.clear()
    there = Comparator(model, [ORT, other], data_loader=data).compare()
    assert "statistics_on" not in there.runners[1].options
    for one, two in zip(here.outputs, there.outputs, strict=True):
        assert (one.verdict, one.values.get("histogram")) == (two.verdict, two.values.get("histogram"))
        for key, value in two.metrics.items():
            expected = value if value is None or isinstance(value, list) else pytest.approx(value, rel=1e-10, abs=1e-18)
            assert one.metrics[key] == expected, key
