"""Models larger than the memory they may use: in pieces, with the same outputs, and within bounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.runs import piecewise as inpieces
from layerdiff.compare.runs.piecewise import PiecedSession, calibrated, in_pieces
from layerdiff.compare.sides import Side
from layerdiff.graph.errors import RunnerError
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.graph.weights import external_bytes
from layerdiff.runners.contract.workload import Workload
from onnx import TensorProto, helper, numpy_helper

from support.models import assembled, normal

ONNXRT = OnnxrtRunner()
WIDTH, LAYERS = 64, 6
SMALL = 4 * WIDTH * WIDTH * 4
"""Bytes for which the six layers are not one piece."""

Edit = Callable[[onnx.GraphProto], None]


def products() -> onnx.ModelProto:
    """Six products, MatMul and Gemm in turns, each with a bias and a Relu."""
    nodes, weights, last = [], {}, "input"
    for i in range(LAYERS):
        weights |= {f"w{i}": normal(WIDTH, WIDTH, seed=i, scale=(2 / WIDTH) ** 0.5), f"b{i}": normal(WIDTH, scale=0.1)}
        if i % 2:
            nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"product{i}"], f"product{i}"))
            nodes.append(helper.make_node("Add", [f"product{i}", f"b{i}"], [f"sum{i}"], f"sum{i}"))
        else:
            nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"sum{i}"], f"product{i}", transB=1))
        last = f"relu{i}"
        nodes.append(helper.make_node("Relu", [f"sum{i}"], [last], last))
    nodes.append(helper.make_node("Identity", [last], ["output"], "output"))
    shape = ["batch", WIDTH]
    return assembled(nodes, [("input", TensorProto.FLOAT, shape)], [("output", TensorProto.FLOAT, shape)], weights)


def external(folder: Path, edit: Edit = lambda graph: None, name: str = "net") -> Model:
    """Six products with external weights, and whatever ``edit`` adds."""
    proto, path = products(), folder / f"{name}.onnx"
    edit(proto.graph)
    onnx.save(proto, path, save_as_external_data=True, location=f"{name}.bin", size_threshold=1024)
    return load(path)


def stale(graph: onnx.GraphProto) -> None:
    """The weights of one product rounded to FP16."""
    (weight,) = (t for t in graph.initializer if t.name == "w3")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16).astype(np.float32), "w3"))


def pieced(model: Model, samples: list[dict[str, np.ndarray]], memory: int = SMALL) -> PiecedSession:
    return PiecedSession(Side("onnxrt", ONNXRT, model), Workload(samples=lambda: iter(samples)), memory)


def draw(count: int, batch: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [{"input": rng.standard_normal((batch, WIDTH), np.float32)} for _ in range(count)]


def plain(graph: onnx.GraphProto) -> None:
    pass


def choice(graph: onnx.GraphProto) -> None:
    """An integer output, decided by a float in the middle."""
    graph.node.append(helper.make_node("ArgMax", ["relu2"], ["best"], "best", axis=1, keepdims=0))
    graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, ["batch"]))


def early(graph: onnx.GraphProto) -> None:
    """An inner tensor that is an output as well, and is read long after it was made."""
    graph.node.insert(len(graph.node), helper.make_node("Add", ["relu0", "output"], ["late"], "late"))
    graph.output.append(helper.make_tensor_value_info("late", TensorProto.FLOAT, ["batch", WIDTH]))
    graph.output.append(helper.make_tensor_value_info("relu1", TensorProto.FLOAT, ["batch", WIDTH]))


def lengths(graph: onnx.GraphProto) -> None:
    """Outputs that no piece computes from data: a shape, and a weight."""
    graph.node.append(helper.make_node("Shape", ["relu4"], ["shape"], "shape"))
    graph.output.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    graph.output.append(helper.make_tensor_value_info("b2", TensorProto.FLOAT, [WIDTH]))


EDITS = [plain, choice, early, lengths]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("memory", [SMALL, 2 * SMALL])
def test_pieces_give_what_the_whole_model_gives(tmp_path: Path, edit: Edit, memory: int) -> None:
    model, samples = external(tmp_path, edit), draw(3)
    session = pieced(model, samples, memory)
    with ONNXRT.open(model) as whole:
        expected = [whole.infer(sample) for sample in samples]
    found = list(session.infer_all(lambda: samples))
    assert len(found) == 3
    for mine, theirs in zip(found, expected, strict=True):
        assert list(mine) == list(theirs)
        for name, array in theirs.items():
            assert mine[name].dtype == array.dtype
            np.testing.assert_array_equal(mine[name], array, name)


def test_one_sample_alone(tmp_path: Path) -> None:
    model, (sample,) = external(tmp_path), draw(1)
    with ONNXRT.open(model) as whole:
        np.testing.assert_array_equal(pieced(model, [sample]).infer(sample)["output"], whole.infer(sample)["output"])


def test_inner_tensors_can_be_fetched(tmp_path: Path) -> None:
    model, (sample,) = external(tmp_path), draw(1)
    wanted = ["sum3", "input", "b1", "relu0"]
    with ONNXRT.open(model, fetch=wanted) as whole:
        expected = whole.infer(sample, wanted)
    found = pieced(model, [sample]).infer(sample, wanted)
    assert list(found) == wanted
    for name in wanted:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    model, (sample,) = external(tmp_path), draw(1)
    with pytest.raises(RunnerError, match="no tensor 'nowhere'"):
        pieced(model, [sample]).infer(sample, ["nowhere"])


def test_one_piece_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = external(tmp_path), draw(2)
    session = pieced(model, samples)
    alive, most, opened = 0, 0, 0
    real_open, real_close = OnnxrtRunner.open, type(ONNXRT.open(model)).close

    def opening(self, *args, **kwargs):
        nonlocal alive, most, opened
        alive, opened = alive + 1, opened + 1
        most = max(most, alive)
        return real_open(self, *args, **kwargs)

    def closing(self):
        nonlocal alive
        alive -= 1
        real_close(self)

    monkeypatch.setattr(OnnxrtRunner, "open", opening)
    monkeypatch.setattr(type(ONNXRT.open(model)), "close", closing)
    alive = most = opened = 0
    list(session.infer_all(lambda: samples))
    assert (alive, most) == (0, 1)
    assert opened >= 2


@pytest.mark.parametrize(
    ("memory", "free", "expected"),
    [
        (None, 1 << 40, False),
        (None, 1000, True),
        (2 * LAYERS * 4 * WIDTH * WIDTH, 1000, False),  # what the user allows counts, not what is free
        (2 * LAYERS * 4 * WIDTH * WIDTH - 1, 1 << 40, True),
    ],
)
def test_when_models_are_run_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int | None, free: int, expected: bool
) -> None:
    monkeypatch.setattr(inpieces, "free_memory", lambda: free)
    model = external(tmp_path)
    assert external_bytes(model.proto) == LAYERS * 4 * WIDTH * WIDTH
    sides = [Side("a", ONNXRT, model), Side("b", ONNXRT, model)]
    assert in_pieces(sides, memory) is expected


def test_weights_inside_the_file_are_in_memory_anyway() -> None:
    model = load(products())
    assert not in_pieces([Side("a", ONNXRT, model)], 1)


def test_free_memory_is_known_here() -> None:
    assert 0 < inpieces.free_memory() < 1 << 50


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("differs", [False, True])
def test_the_verdicts_are_those_of_whole_models(tmp_path: Path, edit: Edit, differs: bool) -> None:
    def both(graph: onnx.GraphProto) -> None:
        edit(graph)
        if differs:
            stale(graph)

    model, other = external(tmp_path, edit), external(tmp_path, both, "other")

    def verdicts(memory: int | None) -> tuple[list[tuple], tuple]:
        report = Comparator(model, [ONNXRT], candidate_model=other, data_loader=draw(2), memory=memory).compare()
        assert any("not as the one program" in note for r in report.runners for note in r.notes) is (memory is not None)
        return [(o.tensor, o.verdict, o.metrics) for o in report.outputs], tuple(bool(r.error) for r in report.runners)

    whole, pieces = verdicts(None), verdicts(SMALL)
    assert pieces == whole
    assert any(verdict != "pass" for _, verdict, _ in whole[0]) is differs


def test_an_output_that_the_candidate_lacks_is_missing_in_pieces_too(tmp_path: Path) -> None:
    model, other = external(tmp_path, choice), external(tmp_path, plain, "other")
    report = Comparator(model, [ONNXRT], candidate_model=other, data_loader=draw(1), memory=SMALL).compare()
    assert {o.tensor: o.verdict for o in report.outputs} == {"output": "pass", "best": "missing"}
    assert not report


def test_a_candidate_that_fails_in_a_piece_fails_the_run(tmp_path: Path) -> None:
    def broken(graph: onnx.GraphProto) -> None:
        """A Reshape that no batch of three fits."""
        shape = onnx.numpy_helper.from_array(np.asarray([7, -1], np.int64), "seven")
        graph.initializer.append(shape)
        (last,) = (n for n in graph.node if n.name == "output")
        last.CopyFrom(helper.make_node("Reshape", ["relu5", "seven"], ["output"], "output"))

    model, other = external(tmp_path), external(tmp_path, broken, "other")
    report = Comparator(model, [ONNXRT], candidate_model=other, data_loader=draw(2), memory=SMALL).compare()
    assert not report
    assert "Reshape" in str(report.runners[1].error)


def test_layers_of_a_pair_that_is_run_in_pieces(tmp_path: Path) -> None:
    model, other = external(tmp_path), external(tmp_path, stale, "other")
    report = Comparator(
        model, [ONNXRT], candidate_model=other, data_loader=draw(2), memory=SMALL, layers="guilty"
    ).compare()
    assert [(c.node, c.cause) for c in report.culprits] == [("product3", "weights")]
    assert any("pieces are too large" in warning for warning in report.warnings)


# ---- INT8: the ranges of activations are those of the whole model ---------------------------------------------------


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("options", [{"format": "int8"}, {"format": "int8", "percentile": 99.0}, {"format": "fp8"}])
def test_ranges_are_measured_in_pieces(tmp_path: Path, edit: Edit, options: dict) -> None:
    model, samples = external(tmp_path, edit), draw(3)
    side, workload = Side("int8", EmulateRunner(**options), model), Workload(samples=lambda: iter(samples))
    whole, pieces = (calibrated(side, workload, SMALL, apart) for apart in (False, True))
    assert len(whole.ranges) == LAYERS
    assert dict(whole.ranges)["input"] > 0
    assert dict(pieces.ranges) == pytest.approx(dict(whole.ranges), rel=1e-6)


def test_ranges_of_a_format_that_needs_none(tmp_path: Path) -> None:
    side = Side("fp16", EmulateRunner(format="fp16"), external(tmp_path))
    assert calibrated(side, Workload(), SMALL, True) is side.runner


def test_ranges_come_from_the_calibration_data_where_there_are_some(tmp_path: Path) -> None:
    one, other = draw(1), [{"input": 10 * draw(1)[0]["input"]}]
    side = Side("int8", EmulateRunner(format="int8"), external(tmp_path))
    workload = Workload(samples=lambda: iter(one), calibration=lambda: iter(other))
    ranges = dict(calibrated(side, workload, SMALL, True).ranges)
    assert ranges["input"] == np.abs(other[0]["input"]).max()


@pytest.mark.parametrize("layers", [None, "guilty"])
def test_int8_never_opens_a_whole_model_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: str | None
) -> None:
    model, opened = external(tmp_path), []
    real = OnnxrtRunner.open

    def opening(self, model, **kwargs):
        opened.append(sum(n.op_type in ("Gemm", "MatMul") for n in model.proto.graph.node))
        return real(self, model, **kwargs)

    monkeypatch.setattr(OnnxrtRunner, "open", opening)
    runners = [ONNXRT, EmulateRunner(format="int8")]
    report = Comparator(model, runners, data_loader=draw(2), memory=SMALL, layers=layers).compare()
    assert not any(runner.error for runner in report.runners)
    assert max(opened) < LAYERS
    whole = Comparator(model, runners, data_loader=draw(2)).compare()
    assert LAYERS in opened
    (mine,), (theirs,) = report.outputs, whole.outputs
    assert mine.metrics["rel_l2"] == pytest.approx(theirs.metrics["rel_l2"], rel=1e-3)
