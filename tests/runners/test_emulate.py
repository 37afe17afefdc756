"""The emulating runner: its configuration, its sessions, and the ranges that INT8 and FP8 need."""

import dataclasses
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import onnx
import onnx.parser
import pytest
from layerdiff.graph.cutting.fusion import fused_groups
from layerdiff.graph.errors import BuildError, MissingPackage, ProviderUnavailable, RunnerError, UsageError
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.emulation import needed_ranges
from layerdiff.graph.rounding.round_array import round_array
from layerdiff.runners.contract.options import options_of
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.emulate import EmulateRunner, _Magnitudes
from layerdiff.runners.onnxrt.runner import OnnxrtRunner

from support.models import parsed
from support.paths import DIGITS


def uniform(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).uniform(-1, 1, shape) * scale).astype(np.float32)


def residual_network(blocks: int = 3, channels: int = 8) -> Model:
    """Conv, BatchNormalization, Relu and residual sums, pooled into ten numbers."""
    nodes, weights = [], {"w_in": uniform(channels, 3, 3, 3, seed=1), "w_out": uniform(channels, 10, seed=2)}
    lines = ["t0 = Conv<pads=[1,1,1,1]>(x, w_in)"]
    for i in range(blocks):
        scale = 1 / np.sqrt(9 * channels / 3)
        weights |= {f"w{i}": uniform(channels, channels, 3, 3, seed=10 + i, scale=scale)}
        for name, value in (("g", uniform(channels, seed=i) + 1.5), ("b", uniform(channels, seed=20 + i))):
            weights[f"{name}{i}"] = value.astype(np.float32)
        weights[f"m{i}"], weights[f"v{i}"] = uniform(channels, seed=30 + i), np.full(channels, 0.8, np.float32)
        lines.append(f"c{i} = Conv<pads=[1,1,1,1]>(t{i}, w{i})")
        lines.append(f"n{i} = BatchNormalization(c{i}, g{i}, b{i}, m{i}, v{i})")
        lines.append(f"s{i} = Add(n{i}, t{i}) t{i + 1} = Relu(s{i})")
    lines.append(f"p = GlobalAveragePool(t{blocks}) f = Flatten(p) y = MatMul(f, w_out)")
    nodes = "\n".join(lines)
    return Model(parsed(f"r (float[N,3,12,12] x) => (float[N,10] y) {{ {nodes} }}", **weights))


MODEL = residual_network()
FEED = {"x": uniform(4, 3, 12, 12, seed=5)}
WORKLOAD = Workload(samples=lambda: iter([FEED]))


def error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))


@pytest.mark.parametrize(
    ("fmt", "low", "high"),
    [
        ("fp16", 1e-4, 1e-3),
        ("bf16", 1e-3, 8e-3),
        ("tf32", 1e-4, 1e-3),
        ("fp8", 5e-3, 0.12),
        ("e5m2", 1e-2, 0.25),
        ("int8", 2e-3, 4e-2),
    ],
)
def test_the_error_of_a_network_is_the_format_s(fmt: str, low: float, high: float) -> None:
    (want,) = OnnxrtRunner().open(MODEL).infer(FEED).values()
    with EmulateRunner(format=fmt).open(MODEL, workload=WORKLOAD) as session:
        (got,) = session.infer(FEED).values()
    assert low < error(got, want) < high
    (again,) = EmulateRunner(format=fmt).open(MODEL, workload=WORKLOAD).infer(FEED).values()
    np.testing.assert_array_equal(got, again)


def convolution(channels: int) -> tuple[Model, dict[str, np.ndarray]]:
    """A convolution of ``9 * channels`` products on random data."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(64, channels, 3, 3)).astype(np.float32) / np.float32(3 * np.sqrt(channels))
    x = np.maximum(rng.normal(size=(1, channels, 16, 16)), 0).astype(np.float32)
    text = f"g (float[1, {channels}, 16, 16] x) => (float[1, 64, 14, 14] y) {{ y = Conv (x, w) }}"
    return Model(parsed(text, w=w)), {"x": x}


@pytest.mark.parametrize(("channels", "measured"), [(16, 5.4e-4), (128, 1.3e-3), (512, 2.4e-3)])
def test_narrow_sums_make_the_error_that_kernels_with_fp16_accumulators_made(channels: int, measured: float) -> None:
    model, feed = convolution(channels)
    (want,) = OnnxrtRunner().open(model).infer(feed).values()
    errors = {}
    for narrow in (False, True):
        runner = EmulateRunner(fp16_accumulation=narrow)
        assert runner.accumulator.name == ("fp16" if narrow else "fp32")
        with runner.open(model) as session:
            assert session.info.fp16_accumulation == frozenset(model.index.names if narrow else ())
            errors[narrow] = error(next(iter(session.infer(feed).values())), want)
            assert session.info.options["sums"].startswith("FP16" if narrow else "FP32")
    assert errors[True] == pytest.approx(measured, rel=0.15)
    assert errors[False] == pytest.approx(3.6e-4, rel=0.15)


def test_products_that_add_in_fp32_all_the_same_are_named() -> None:
    model, feed = convolution(3)
    with EmulateRunner(fp16_accumulation=True).open(model) as session:
        assert any("1 products add in FP32 all the same (the first are Conv_0)" in note for note in session.info.notes)
        assert not session.info.fp16_accumulation
        session.infer(feed)


def test_the_nodes_that_add_in_fp16_are_told_by_their_own_names() -> None:
    shapes = {"v": (16, 16, 3, 3), "u": (32, 16, 1, 1), "w": (32, 4)}
    proto = parsed(
        """g (float[1, 16, 8, 8] x) => (float[1, 4] y) {
        a = Conv (x, v) b = Relu (a) c = Conv (b, v) d = Conv (c, u)
        e = GlobalAveragePool (d) f = Flatten (e) y = MatMul (f, w) }""",
        **{name: np.ones(shape, np.float32) for name, shape in shapes.items()},
    )
    for node, name in zip(proto.graph.node, ["fused", "act", "last", "short", "pool", "flat", "dense"], strict=True):
        node.name = name
    with EmulateRunner(fp16_accumulation=True).open(Model(proto)) as session:
        assert session.info.fp16_accumulation == {"fused", "last", "dense"}


def test_configuration() -> None:
    runner = EmulateRunner.from_value("fp8", every_node=True)
    assert runner.name == "emulate:fp8"
    assert runner.arithmetic.name == "e4m3"
    assert runner.trust == 50
    assert pickle.loads(pickle.dumps(runner)) == runner
    assert hash(runner) == hash(dataclasses.replace(runner))
    flags = {known.flag for known in options_of(EmulateRunner).values()}
    assert {"--emulate-every-node", "--emulate-decomposed", "--emulate-percentile"} <= flags


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "fp4"}, "format=fp4: expected fp16, bf16, tf32, fp8, e4m3, e5m2 or int8"),
        ({"percentile": 12.0}, "percentile=12.0: expected a number from 50 to 100"),
        ({"threads": -1}, "threads=-1: expected a whole number from 0 to"),
        ({"format": "bf16", "fp16_accumulation": True}, "fp16_accumulation is for FP16"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EmulateRunner(**options)


def test_the_format_is_required() -> None:
    with pytest.raises(UsageError, match=r"--emulate needs a value: fp16\|bf16"):
        EmulateRunner.from_value(None)


def test_any_tensor_is_fetched_by_its_own_name() -> None:
    names = [o for n in MODEL.index.nodes for o in n.output]
    with EmulateRunner(format="fp16").open(MODEL) as session:
        everything = session.infer(FEED, names)
        late = session.infer(FEED, ["t1", "y"])
        assert [s.name for s in session.outputs] == ["y"]
    assert list(everything) == names
    np.testing.assert_array_equal(everything["t1"], late["t1"])
    borders = {MODEL.index.nodes[g.nodes[-1]].output[0] for g in fused_groups(MODEL.index)}
    for name in names:
        held = np.array_equal(everything[name], round_array(everything[name], "fp16"))
        assert held == (name in borders), name


def test_observing_does_not_change_what_is_computed() -> None:
    names = [o for n in MODEL.index.nodes for o in n.output]
    plain = EmulateRunner(format="bf16").open(MODEL).infer(FEED)["y"]
    observed = EmulateRunner(format="bf16").open(MODEL, fetch=names).infer(FEED)["y"]
    np.testing.assert_array_equal(plain, observed)


def test_int8_is_calibrated_once_for_all_pieces() -> None:
    passes = []

    def samples() -> Iterator[dict]:
        passes.append(1)
        yield from (FEED, {"x": FEED["x"] * 2})

    runner = EmulateRunner(format="int8").calibrated(MODEL, Workload(samples=samples))
    assert passes == [1]
    assert runner.ranges is not None
    assert list(dict(runner.ranges)) == needed_ranges(MODEL.index, "int8")
    assert dict(runner.ranges)["x"] == pytest.approx(2 * np.abs(FEED["x"]).max())
    assert runner.calibrated(MODEL, Workload()) is runner
    assert pickle.loads(pickle.dumps(runner)) == runner
    with runner.open(MODEL, workload=Workload(samples=samples)) as session:
        session.infer(FEED)
        assert session.info.options["ranges"] == "maximum"
    assert passes == [1]


def test_int8_without_samples_is_refused() -> None:
    with pytest.raises(UsageError, match="emulate:int8 measures the ranges of activations on samples"):
        EmulateRunner(format="int8").open(MODEL)
    with pytest.raises(UsageError, match="was given none"):
        EmulateRunner(format="int8").open(MODEL, workload=Workload(samples=lambda: iter(())))
    assert EmulateRunner(format="fp8", unscaled=True).open(MODEL).info.options["ranges"] == "none"


def test_a_percentile_leaves_out_the_largest_values() -> None:
    x = np.zeros((1, 3, 12, 12), np.float32)
    x.flat[:] = np.linspace(-1, 1, x.size)
    x.flat[0] = 1000
    measured, work = {}, Workload(samples=lambda: [{"x": x}])
    for percentile in (100.0, 99.0):
        runner = EmulateRunner(format="int8", percentile=percentile).calibrated(MODEL, work)
        measured[percentile] = dict(runner.ranges or ())["x"]
    assert measured[100.0] == 1000
    assert 0.9 < measured[99.0] < 2  # the bins of a histogram that reaches 1024 are 0.5 wide


def test_magnitudes_merge_exactly_when_the_range_grows() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(10_000)).astype(np.float32) * 3
    histogram = _Magnitudes()
    for part in np.array_split(np.sort(values), 7):
        histogram.add(part)
    assert histogram.percentile(99) == pytest.approx(np.percentile(values, 99), rel=0.01)
    zeros = _Magnitudes()
    zeros.add(np.zeros(5, np.float32))
    assert zeros.percentile(99) == 0


def test_what_is_clamped_is_reported() -> None:
    proto = onnx.ModelProto.FromString(MODEL.proto.SerializeToString())
    (out,) = [t for t in proto.graph.initializer if t.name == "w_out"]
    out.CopyFrom(onnx.numpy_helper.from_array(uniform(8, 10) * np.float32(1e6), "w_out"))
    (note,) = EmulateRunner(format="fp16").open(Model(proto)).info.notes
    assert "weights in 'w_out' beyond its range are clamped to its largest value." in note


def test_errors_speak_of_the_emulation() -> None:
    with EmulateRunner(format="bf16").open(MODEL) as session:
        with pytest.raises(RunnerError, match="emulate:bf16: no value for input 'x'"):
            session.infer({})
        with pytest.raises(RunnerError, match=r"emulate:bf16: .*has no tensor 'z'"):
            session.infer(FEED, ["z"])


def test_onnxruntime_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("layerdiff.runners.onnxrt.loading.installed", list)
    with pytest.raises(MissingPackage, match=r"pip install 'layerdiff\[cpu\]'"):
        EmulateRunner(format="fp16").open(MODEL)


@pytest.mark.parametrize("module", ["emulate", "reference_evaluator"])
def test_options_do_not_cost_numpy(module: str) -> None:
    code = f"import sys, layerdiff.runners.{module}; sys.exit(any(m in sys.modules for m in ('numpy', 'onnx')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not (DIGITS / "digits.onnx").is_file(), reason="the digits network is not built")
@pytest.mark.parametrize(("fmt", "high"), [("fp16", 2e-3), ("bf16", 2e-2), ("tf32", 2e-3), ("fp8", 0.2), ("int8", 0.1)])
def test_a_trained_network_keeps_its_answers(fmt: str, high: float) -> None:
    model = load(DIGITS / "digits.onnx")
    stored = np.load(next(DIGITS.glob("*.npz")))
    name = model.inputs[0].name
    feed = {name: stored[name if name in stored else stored.files[0]][:64].astype(np.float32)}
    (want,) = OnnxrtRunner().open(model).infer(feed).values()
    (got,) = EmulateRunner(format=fmt).open(model, workload=Workload(samples=lambda: iter([feed]))).infer(feed).values()
    assert error(got, want) < high
    assert np.mean(got.argmax(-1) == want.argmax(-1)) > 0.95


def test_modules_are_where_the_package_says() -> None:
    import layerdiff

    assert layerdiff.EmulateRunner is EmulateRunner
    assert importlib.util.find_spec("layerdiff.graph.rounding.emulation") is not None


def test_a_model_in_float64_is_refused_since_nothing_would_be_rounded():
    proto = parsed("wide (double[4] x) => (double[4] y) { y = Add(x, x) }")
    with pytest.raises(BuildError, match="computes in float64, of which emulation rounds nothing"):
        EmulateRunner(format="fp16").open(Model(proto))


# ---- nodes that stay FP32 --------------------------------------------------------------------------------------------


def test_what_is_kept_as_a_whole_is_fp32_bit_by_bit():
    with OnnxrtRunner().open(MODEL) as session:
        exact = session.infer(FEED)["y"]
    with EmulateRunner(keep=("*",)).open(MODEL) as session:
        np.testing.assert_array_equal(session.infer(FEED)["y"], exact)
        assert session.info.idle, "nothing was rounded, which nobody may take for a pass"


def test_a_kept_node_keeps_its_fused_group_and_no_other():
    """Alone in FP16, the groups err as the whole does, all together."""
    model, groups = MODEL, fused_groups(MODEL.index)
    names = model.index.names
    with OnnxrtRunner().open(model) as session:
        exact = session.infer(FEED)["y"]
    for group in groups[:4]:
        others = tuple(names[p] for g in groups if g is not group for p in g.nodes)
        alone = EmulateRunner(keep=others)
        without = EmulateRunner(keep=(names[group.main],))
        with alone.open(model) as one, without.open(model) as rest, EmulateRunner().open(model) as whole:
            errors = [error(s.infer(FEED)["y"], exact) for s in (one, rest, whole)]
        assert 0 < errors[0] < errors[2] * 1.2
        assert errors[1] != errors[2]


def test_a_large_value_in_a_kept_layer_does_not_overflow():
    model = Model(
        parsed(
            "g (float[1,4] x) => (float[1,4] y) { [big] a = Exp(x) [log] y = Log(a) }",
        )
    )
    feed = {"x": np.full((1, 4), 20, np.float32)}
    for keep, finite in (((), False), (("big", "log"), True)):
        with EmulateRunner(every_node=True, keep=keep).open(model) as session:
            assert np.isfinite(session.infer(feed)["y"]).all() == finite


def test_nodes_are_kept_in_pieces_too_and_unknown_ones_are_refused_on_whole_models():
    piece = MODEL.derive(MODEL.proto)
    with EmulateRunner(keep=("nowhere",)).open(piece) as session:
        assert "keep" in session.info.options
    with pytest.raises(UsageError, match="no such node"):
        EmulateRunner(keep=("nowhere",)).open(MODEL)


def test_sums_of_kept_nodes_are_fp32():
    model = Model(parsed("g (float[1,256] x) => (float[1,4] y) { [fc] y = MatMul(x, w) }", w=uniform(256, 4)))
    with EmulateRunner(fp16_accumulation=True, keep=("fc",)).open(model) as session:
        assert not session.info.fp16_accumulation


def test_what_is_emulated_can_be_computed_elsewhere():
    """The provider is ONNX Runtime's own, and one that is not there is refused under the emulation's name."""
    import onnxruntime

    runner = EmulateRunner(format="fp16", provider="cuda")
    assert (runner.gpus, runner.adds_exactly) == (1, False)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        proto = parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }")
        with pytest.raises(ProviderUnavailable, match="emulate:fp16"):
            runner.open(Model(proto))


@pytest.mark.parametrize(
    ("body", "fmt"),
    [
        ("g (bfloat16[2,8] x) => (bfloat16[2,8] y) { y = Identity(x) }", "fp16"),
        ("g (float16[2,8] x) => (float16[8,2] y) { y = Transpose(x) }", "fp16"),
        ("g (bfloat16[2,8] x) => (bfloat16[2,8] y) { y = Sin(x) }", "fp16"),
        ("g (float[2,8] x) => (float[2,8] y) { a = Cast<to=16>(x) b = Identity(a) y = Cast<to=1>(b) }", "fp16"),
    ],
)
def test_what_the_types_of_the_graph_round_is_not_what_is_tried(body, fmt):
    with EmulateRunner(format=fmt).open(Model(parsed(body))) as session:
        assert session.info.idle == "nothing of this network was rounded to FP16"


def test_what_the_types_of_the_graph_round_to_the_format_that_is_tried_counts():
    with EmulateRunner(format="fp16").open(
        Model(parsed("g (float16[8] x) => (float16[8] y) { y = Sin(x) }"))
    ) as session:
        assert not session.info.idle
