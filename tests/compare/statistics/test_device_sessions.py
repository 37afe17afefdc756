"""Sessions that leave their outputs on the device, and comparisons that never download them.

The device is host memory: ONNX Runtime binds outputs on the CPU by the calls that bind them on CUDA, and TensorRT is
the stand-in, whose device memory is host memory. What computes there is NumPy.
"""

import ctypes
import sys

import numpy as np
import pytest
from layerdiff import Comparator
from layerdiff.compare.statistics import device as ondevice
from layerdiff.compare.statistics import libraries
from layerdiff.graph.errors import RunnerError
from layerdiff.graph.model import Model
from layerdiff.runners.contract.device import DeviceArray
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from layerdiff.runners.onnxrt.session import OnnxrtSession
from layerdiff.runners.trt import cuda as cuda_module
from layerdiff.runners.trt.runner import TrtRunner

from support import trt_standin as standin
from support.models import parsed

pytest.importorskip("onnxruntime")

NETWORK = """network (float[n, 3, 8, 8] x) => (float[n, 3, 8, 8] y, float[n] s) {
    two = Constant <value = float {2.0}> ()
    h = Mul(x, two)
    y = Relu(h)
    s = ReduceMax <keepdims = 0, axes = [1, 2, 3]> (h)
}"""


@pytest.fixture
def model():
    return Model(parsed(NETWORK))


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def cuda(monkeypatch):
    """TensorRT's stand-in, on a GPU made of host memory."""
    fake = standin.FakeCuda()
    monkeypatch.setitem(sys.modules, "tensorrt", standin.make("8.6"))
    monkeypatch.setattr(cuda_module, "gpu", lambda: "Stand-in GPU")
    monkeypatch.setattr(cuda_module, "runtime", lambda: fake)
    return fake


class HostNumpy(libraries.Library):
    def bytes(self, array):
        return np.frombuffer((ctypes.c_uint8 * array.nbytes).from_address(array.address), np.uint8)

    def upload(self, array):
        return np.array(array)

    def download(self, x):
        return np.asarray(x)

    def address(self, x):
        return x.ctypes.data

    def finish(self):
        """Nothing runs on its own."""

    def release(self):
        """NumPy keeps nothing."""


@pytest.fixture
def library(monkeypatch):
    """NumPy computes on the device, arrays of few elements too."""
    monkeypatch.setitem(libraries.MAKERS, "cuda", {"numpy": lambda device: HostNumpy(np, device)})
    monkeypatch.setattr(ondevice, "SMALL", 1)
    libraries.LIBRARIES.clear()
    yield f"cuda:0 (numpy {np.__version__})"
    libraries.LIBRARIES.clear()


class Bound(OnnxrtSession):
    """ONNX Runtime on the CPU that says it is on CUDA, and counts its downloads."""

    downloads = 0

    def __init__(self, *args):
        super().__init__(*args)
        self.device = "cuda:0"

    def infer_on_device(self, feed, fetch=None):
        names = list(fetch or [spec.name for spec in self.outputs])
        bound = self._session.run_bound(names, feed, "cpu:0", "onnxrt")
        return {name: self._as_cuda(array) for name, array in bound.items()}

    def _as_cuda(self, array):
        def download():
            Bound.downloads += 1
            return array.download().copy()

        return DeviceArray(array.address, array.shape, array.dtype, "cuda:0", download, array)


class BoundRunner(OnnxrtRunner):
    flag = ""
    label = "bound"
    shift = 0.0

    @property
    def name(self):
        return self.label

    def open(self, model, *, fetch=(), workload=None, progress=None):
        return Bound(self, model, fetch, lambda stage: None)


@pytest.fixture
def downloads(monkeypatch):
    monkeypatch.setattr(Bound, "downloads", 0)
    return lambda: Bound.downloads


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_onnxruntime_leaves_outputs_where_they_are(model, x):
    with OnnxrtRunner().open(model) as session:
        plain = session.infer({"x": x})
        bound = session._session.run_bound(["s", "y"], {"x": x}, "cpu:0", "onnxrt")
        again = session._session.run_bound(["y"], {"x": bound["y"]}, "cpu:0", "onnxrt")
    assert list(bound) == ["s", "y"]
    for name, array in bound.items():
        assert isinstance(array, DeviceArray)
        assert array.shape == plain[name].shape
        assert array.dtype == plain[name].dtype
        assert np.array_equal(np.asarray(array), plain[name])
    assert np.array_equal(np.asarray(again["y"]), 2 * plain["y"])  # what lies on the device is fed from there


def test_bound_outputs_outlive_the_next_run_and_the_session(model, x):
    with OnnxrtRunner().open(model) as session:
        first = session._session.run_bound(["y"], {"x": x}, "cpu:0", "onnxrt")["y"]
        session._session.run_bound(["y"], {"x": -x}, "cpu:0", "onnxrt")
    assert np.array_equal(np.asarray(first), np.maximum(2 * x, 0))


@pytest.mark.parametrize("type", ["float16", "double", "bool", "int8", "uint16", "int64"])
def test_onnxruntime_binds_every_type_that_numpy_has(type):
    model = Model(parsed(f"g ({type}[2, n] a) => ({type}[2, n] b) {{ b = Identity(a) }}"))
    feed = {"a": np.array([[0, 1, 1], [1, 0, 1]]).astype(model.inputs[0].dtype)}
    with OnnxrtRunner().open(model) as session:
        bound = session._session.run_bound(["b"], feed, "cpu:0", "onnxrt")["b"]
    assert bound.dtype == feed["a"].dtype
    assert np.array_equal(np.asarray(bound), feed["a"])


@pytest.mark.parametrize(
    "text",
    [
        "g (string[n] a) => (string[n] b) { b = Identity(a) }",
        "g (float[n] a) => (bfloat16[n] b) { b = Cast <to = 16> (a) }",
    ],
    ids=["string", "bfloat16"],
)
def test_what_cannot_be_bound_is_told_apart(text):
    with OnnxrtRunner().open(Model(parsed(text))) as session:
        assert not session._session.binds(["b"])


def test_a_session_on_the_cpu_gives_host_memory(model, x):
    with OnnxrtRunner().open(model) as session:
        assert session.device == ""
        outputs = session.infer_on_device({"x": x})
    assert all(type(array) is np.ndarray for array in outputs.values())


def test_tensorrt_leaves_outputs_in_the_engines_memory(cuda, model, x):
    with TrtRunner().open(model, workload=Workload(samples=lambda: [{"x": x}])) as session:
        assert session.device == "cuda:0"
        plain = session.infer({"x": x})
        left = session.infer_on_device({"x": x})
        mallocs = cuda.mallocs
        for name, array in left.items():
            assert isinstance(array, DeviceArray)
            assert array.address in cuda.device
            assert array.shape == plain[name].shape
            assert np.array_equal(np.asarray(array), plain[name])
        there = DeviceArray(x.ctypes.data, x.shape, x.dtype, "cuda:0", lambda: pytest.fail("fed from host memory"))
        again = session.infer_on_device({"x": there}, ["y"])
        assert np.array_equal(np.asarray(again["y"]), plain["y"])
        assert cuda.mallocs == mallocs


@pytest.mark.parametrize(
    "next_thing",
    [
        lambda session, feed: session.infer(feed),
        lambda session, feed: session.infer_on_device(feed),
        lambda session, feed: session.latency(feed, 1),
        lambda session, feed: session.close(),
    ],
    ids=["infer", "infer_on_device", "latency", "close"],
)
def test_the_engines_memory_cannot_be_read_once_it_holds_something_else(cuda, model, x, next_thing):
    with TrtRunner().open(model, workload=Workload(samples=lambda: [{"x": x}])) as session:
        left = session.infer_on_device({"x": x})["y"]
        next_thing(session, {"x": -x})
        with pytest.raises(RunnerError, match="run again or was closed"):
            np.asarray(left)


def test_tensorrt_downloads_what_it_computes_in_another_dtype(cuda):
    """INT64 is INT32 before TensorRT 10: the model's dtype comes back."""
    model = Model(
        parsed("g (float[2, 3] x) => (int64[2, 1] i, float[2, 3] y) { i = ArgMax <axis = 1> (x)  y = Relu(x) }")
    )
    x = np.array([[0, 5, 1], [7, 2, 3]], np.float32)
    with TrtRunner().open(model, workload=Workload(samples=lambda: [{"x": x}])) as session:
        outputs = session.infer_on_device({"x": x})
    assert type(outputs["i"]) is np.ndarray
    assert outputs["i"].dtype == np.int64
    assert outputs["i"].ravel().tolist() == [1, 0]
    assert isinstance(outputs["y"], DeviceArray)


# -- comparisons ------------------------------------------------------------------------------------------------------


def report(model, runners, x, **options):
    found = Comparator(model, runners, data_loader=[{"x": x}, {"x": 3 * x}], **options).compare()
    return found, {runner.name: runner for runner in found.runners}


def test_a_comparison_on_the_device_downloads_nothing_and_finds_the_same(cuda, library, downloads, model, x):
    found, runners = report(model, [BoundRunner(), TrtRunner()], x, reference="bound")
    assert downloads() == 0
    plain, _ = report(model, [OnnxrtRunner(), TrtRunner()], x)
    assert runners["trt"].options["statistics_on"] == library
    assert "statistics_on" not in runners["bound"].options
    assert [(o.tensor, o.verdict, o.tolerance) for o in found.outputs] == [
        (o.tensor, o.verdict, o.tolerance) for o in plain.outputs
    ]
    for one, other in zip(found.outputs, plain.outputs, strict=True):
        assert list(one.metrics) == list(other.metrics)
        for key, value in other.metrics.items():
            assert one.metrics[key] == (value if value is None or key in ("nan", "inf") else pytest.approx(value)), key
        assert one.values == other.values


def test_inputs_are_uploaded_once_for_both_sides(cuda, library, model, x, monkeypatch):
    uploads = []
    upload = HostNumpy.upload
    monkeypatch.setattr(HostNumpy, "upload", lambda self, array: uploads.append(array.nbytes) or upload(self, array))
    found, _ = report(model, [BoundRunner(), TrtRunner()], x, reference="bound")
    assert all(o.verdict == "pass" for o in found.outputs)
    assert uploads.count(x.nbytes) == 1  # the library is at work from the first sample's outputs on


def test_what_the_library_keeps_is_given_back(cuda, library, model, x, monkeypatch):
    released = []
    monkeypatch.setattr(HostNumpy, "release", lambda self: released.append(self.device))
    report(model, [BoundRunner(), TrtRunner()], x, reference="bound")
    assert released == ["cuda:0"]


def test_without_a_library_a_comparison_downloads(cuda, downloads, model, x, monkeypatch):
    monkeypatch.setitem(libraries.MAKERS, "cuda", {})
    monkeypatch.setattr(ondevice, "SMALL", 1)
    libraries.LIBRARIES.clear()
    found, runners = report(model, [BoundRunner(), TrtRunner()], x, reference="bound")
    libraries.LIBRARIES.clear()
    assert downloads() == 4  # two outputs, two samples, once each
    assert all(o.verdict == "pass" for o in found.outputs)
    assert "statistics_on" not in runners["trt"].options


def test_a_third_runner_elsewhere_reads_the_same_outputs(cuda, library, downloads, model, x):
    found, runners = report(model, [BoundRunner(), TrtRunner(), OnnxrtRunner()], x, reference="bound")
    assert all(o.verdict == "pass" for o in found.outputs)
    assert {o.candidate for o in found.outputs} == {"trt", "onnxrt"}
    assert "statistics_on" in runners["trt"].options
    assert "statistics_on" not in runners["onnxrt"].options
    assert downloads() == 4


def test_nothing_stays_where_the_reference_is_elsewhere(cuda, library, model, x):
    found, runners = report(model, [OnnxrtRunner(), TrtRunner()], x)
    assert all(o.verdict == "pass" for o in found.outputs)
    assert "statistics_on" not in runners["trt"].options


def test_a_wrong_output_fails_on_the_device(cuda, library, x):
    right = Model(parsed(NETWORK))
    wrong = Model(parsed(NETWORK.replace("2.0", "2.001")))
    comparator = Comparator(right, [BoundRunner(), TrtRunner()], candidate_model=wrong, data_loader=[{"x": x}])
    found = comparator.compare()
    assert {o.tensor: o.verdict for o in found.outputs} == {"y": "fail", "s": "fail"}
    worst = next(o for o in found.outputs if o.tensor == "s").values["worst"]
    assert worst["candidate"] == pytest.approx(worst["reference"] * 1.0005, rel=1e-6)


def test_outputs_are_read_before_the_reference_runs_again_for_their_terms(cuda, library, x):
    """The engine's memory holds something else once inner tensors were fetched: the output that comes next too."""
    right = Model(parsed(NETWORK))
    wrong = Model(parsed(NETWORK.replace("2.0", "2.001")))
    runners = [TrtRunner(), BoundRunner()]
    data = [{"x": x}, {"x": 3 * x}]
    found = Comparator(right, runners, candidate_model=wrong, data_loader=data, reference="trt").compare()
    assert [(o.tensor, o.verdict) for o in found.outputs] == 2 * [("y", "fail"), ("s", "fail")]
    plain = Comparator(right, [OnnxrtRunner()], candidate_model=wrong, data_loader=data).compare()
    for one, other in zip(found.outputs, 2 * plain.outputs, strict=True):
        assert one.metrics["mismatched"] == other.metrics["mismatched"]
        assert one.values["max_abs"]["value"] == pytest.approx(other.values["max_abs"]["value"])


def test_transposed_outputs_are_recognized_on_the_device(cuda, library, x):
    right = Model(parsed("g (float[n, 3, 8, 8] x) => (float[n, 3, 8, 8] y) { y = Neg(x) }"))
    turned = Model(
        parsed(
            "g (float[n, 3, 8, 8] x) => (float[n, 3, 8, 8] y) { h = Neg(x) y = Transpose <perm = [0, 1, 3, 2]> (h) }"
        )
    )
    found = Comparator(right, [BoundRunner(), TrtRunner()], candidate_model=turned, data_loader=[{"x": x}]).compare()
    assert {o.transposed for o in found.outputs} == {(0, 1, 3, 2)}


def test_kept_results_are_arrays_in_host_memory(cuda, library, model, x):
    results = Comparator.run([BoundRunner(), TrtRunner()], [{"x": x}], model=model, reference="bound")
    assert all(type(a) is np.ndarray for name in results for sample in results[name] for a in sample.values())


def test_neither_library_is_imported_for_host_memory(model, x):
    before = {"cupy", "torch"} & set(sys.modules)
    report(model, [OnnxrtRunner(), OnnxrtRunner(optimization="disable")], x)
    assert {"cupy", "torch"} & set(sys.modules) == before
