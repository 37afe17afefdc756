"""Whatever goes wrong while layers are compared is a warning beside the full report of the outputs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, DataError, OnnxrtRunner, ReferenceEvaluatorRunner, RunnerError
from layerdiff.compare.cli.command import main
from layerdiff.compare.report.json import to_json
from layerdiff.graph.errors import RunnerDied
from layerdiff.runners.contract.capabilities import Capabilities

from support.layerwise import FP16, ORT, compare, data_of, mentions, networks, only
from support.models import normal, parsed
from support.runners import FunctionRunner, Off

LOCALIZE = "layerdiff.compare.layers.localize"
ERRORS = [
    DataError("sample 3 cannot be read."),
    ValueError("cannot reshape array of size 4 into shape (3,)\nsecond line"),
    MemoryError(),
    AssertionError(),
    RecursionError("maximum recursion depth exceeded"),
    OSError(28, "No space left on device"),
]


def failing(monkeypatch, error: BaseException, name: str = "prepare", candidate: str | None = None) -> None:
    """Lets one stage of localizing fail, for one candidate or for all."""
    module = sys.modules[LOCALIZE]
    real = getattr(module, name)

    def fails(*arguments, **more):
        if candidate is None or candidate == arguments[1].name:
            raise error
        return real(*arguments, **more)

    monkeypatch.setattr(module, name, fails)


@pytest.mark.parametrize(
    "stage",
    ["observable", "weight_bytes", "_for_pieces", "formats_in_play", "prepare", "Walk", "verdicts", "layer_results"],
)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_is_a_warning_beside_the_outputs(monkeypatch, stage, error):
    model, data = networks.residual(), data_of("residual")
    alone = compare(model, FP16, data, layers=None)
    failing(monkeypatch, error, stage)
    report = compare(model, FP16, data)
    assert report.outputs == alone.outputs
    assert (report.verdict, report.exit_status) == (alone.verdict, alone.exit_status)
    assert (report.layers, report.culprits) == ((), ())
    (warning,) = (w for w in to_json(report)["warnings"] if "layers could not be compared" in w)
    assert warning.startswith("emulate:fp16: ")
    assert "\n" not in warning
    assert (next(iter(str(error).splitlines()), "") or type(error).__name__).rstrip(".") in warning


def test_ctrl_c_is_no_error_to_be_survived(monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        compare(networks.residual(), FP16, data_of("residual"))


def test_one_candidate_that_cannot_be_localized_hides_no_other(monkeypatch):
    failing(monkeypatch, ValueError("no"), candidate="emulate:fp16")
    runners = [ORT, FP16, Off(threads=1, node="n_b2", factor=1.01)]
    report = Comparator(networks.residual(), runners, data_loader=data_of("residual"), layers="guilty").compare()
    assert mentions(report, "emulate:fp16: the layers could not be compared, the outputs were: ValueError: no.")
    assert [(c.candidate, c.node) for c in report.culprits] == [("off", "n_b2")]
    assert {layer.candidate for layer in report.layers} == {"off"}


def test_the_command_writes_its_report_and_keeps_its_exit_status(monkeypatch, tmp_path, onnx_file, capsys):
    path = onnx_file("g (float[2,4] x) => (float[2,4] y) { y = Relu(x) }")
    __import__(LOCALIZE)
    failing(monkeypatch, ZeroDivisionError("division by zero"))
    written = tmp_path / "report.json"
    status = main([str(path), "--onnxrt", "--onnxrt", "--layers", "--json", str(written)])
    shown = capsys.readouterr()
    assert status == 0
    assert "Traceback" not in shown.out + shown.err
    assert "layers could not be compared" in shown.out
    report = json.loads(written.read_text())
    assert [output["verdict"] for output in report["outputs"]] == ["pass"]
    assert any("ZeroDivisionError: division by zero" in warning for warning in report["warnings"])


# ---- kinds that did cost it -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WholeOnly(FunctionRunner):
    """A runtime that gives the outputs of whole models and nothing else."""

    rank: int = 1
    capabilities: ClassVar[Capabilities] = Capabilities(pieces=False, inner_tensors=False)


def test_a_reference_without_inner_tensors_is_stood_in_for():
    model = parsed("g (float[4] x) => (float[4] y) { a = Relu(x) y = Exp(a) }")
    reference = WholeOnly(function=lambda feed: {"y": np.exp(np.maximum(feed["x"], 0))})
    report = Comparator(model, [reference, ORT], data_loader=[{"x": normal(4)}], layers="guilty").compare()
    assert report
    assert [o.verdict for o in report.outputs] == ["pass"]
    assert {layer.verdict for layer in report.layers} == {"ok"}
    assert mentions(report, "function gives outputs alone")
    assert not mentions(report, "could not be compared")


@pytest.mark.parametrize("candidate", [FP16, OnnxrtRunner(threads=1), ReferenceEvaluatorRunner()], ids=lambda r: r.name)
@pytest.mark.parametrize("before", ["a = Relu(x)", "a = Identity(x)"])
def test_sizes_that_are_an_input_are_as_long_as_the_graph_says(candidate, before):
    model = parsed(
        f'g (float[1,1,4,4] x, int64[4] s) => (float[N,C,H,W] y) {{ {before} y = Resize<mode="nearest">(a, , , s) }}'
    )
    report = compare(model, candidate, [{"x": normal(1, 1, 4, 4), "s": np.array([1, 1, 8, 8])}])
    assert report
    assert report.layers
    assert {layer.verdict for layer in report.layers} == {"ok"}
    assert not mentions(report, "could not be compared")


@pytest.mark.parametrize("candidate", [FP16, OnnxrtRunner(threads=1), ReferenceEvaluatorRunner()], ids=lambda r: r.name)
def test_a_scalar_that_is_not_a_number_on_either_side_fails_and_is_found(candidate):
    model = parsed("g (float[4] x) => (float y) { a = ReduceSum<keepdims=0>(x) y = Log(a) }")
    report = compare(model, candidate, [{"x": -np.ones(4, np.float32)}])
    assert [o.verdict for o in report.outputs] == ["fail"]
    assert (only(report).op, only(report).cause) == ("Log", "nan")


def test_strings_that_differ_are_localized():
    """Neither finite nor infinite: the float64 of nobody decides."""

    def labels(*names):
        node = onnx.helper.make_node(
            "LabelEncoder", ["x"], ["y"], "label", domain="ai.onnx.ml", keys_int64s=[0, 1], values_strings=names
        )
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, [4])
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, [4])
        domains = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
        return onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=domains, ir_version=8
        )

    runners, data = [OnnxrtRunner(threads=1)], [{"x": np.array([0, 1, 0, 1])}]
    report = Comparator(
        labels("cat", "dog"), runners, candidate_model=labels("dog", "cat"), data_loader=data, layers="guilty"
    ).compare()
    assert report.verdict == "fail"
    assert [(culprit.node, culprit.cause) for culprit in report.culprits] == [("label", "attribute")]
    assert not [notice for notice in report.notices if notice.code == "layers-not-compared"]


@pytest.mark.parametrize(
    ("sizes", "error", "named"),
    [
        ("batch, 8", RunnerError("torch: shape '[1, 8]' is invalid for input of size 16."), True),
        ("2, 8", RunnerError("torch: shape '[1, 8]' is invalid for input of size 16."), False),
        ("batch, 8", RunnerDied("torch: running: ended by SIGSEGV"), False),
    ],
    ids=["guessed", "fixed", "no matter of sizes"],
)
def test_where_sizes_were_guessed_the_warning_says_how_to_give_others(monkeypatch, sizes, error, named):
    failing(monkeypatch, error, "prepare")
    model = parsed(f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Relu(x) }}")
    report = Comparator(model, [OnnxrtRunner(), OnnxrtRunner(optimization="disable")], layers="guilty").compare()
    (notice,) = (n for n in report.notices if n.code == "layers-not-compared")
    assert ("give others with --shape x:DIMS" in notice.text) == named
