"""The report as values and as text, whatever run it came from."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from operator import methodcaller

import ml_dtypes
import numpy as np
import pytest
from layerdiff import Report
from layerdiff.compare.causes.diagnosis import Remark
from layerdiff.compare.report.inputs import DataInfo, ModelInfo
from layerdiff.compare.report.json import plain, to_json
from layerdiff.compare.report.model import Cause, Culprit, LayerResult, OutputResult, RunnerResult
from layerdiff.compare.report.terminal.show import show
from rich.console import Console

METRICS = {"count": 4, "mismatched": 1, "max_abs": math.inf, "snr_db": math.nan, "nan": [0, 1]}
LAYER = LayerResult(
    candidate="emulate:fp16",
    tensor="/l/conv/Conv_output_0",
    node="/l/conv/Conv",
    nodes=("/l/conv/Conv", "/l/relu/Relu"),
    op="Conv",
    index=12,
    piece=3,
    local={"count": 4, "max_abs": math.inf},
    expected={"rms_z": 1.02, "gain_sigma": 0.4, "bound_use": 0.31},
    contribution=0.93,
    verdict="culprit",
    cause=Cause.OVERFLOW,
)
CULPRIT = Culprit(
    "emulate:fp16",
    "/l/conv/Conv",
    "Conv",
    ("/l/conv/Conv_output_0",),
    Cause.OVERFLOW,
    {"count": 4},
    0.93,
    (Remark("70,000 > 65,504"),),
)


def report(*outputs: OutputResult, runners=("onnxrt", "emulate:fp16"), errors=None, **more) -> Report:
    return Report(
        reference="onnxrt",
        model=ModelInfo("m.onnx", 2, lambda: "0" * 64),
        data=DataInfo(2, 0, "2 random samples, seed 0", False),
        runners=tuple(RunnerResult(name, error=(errors or {}).get(name)) for name in runners),
        outputs=outputs,
        **more,
    )


def output(verdict="pass", candidate="emulate:fp16", tensor="y", count=4, **more) -> OutputResult:
    return OutputResult(candidate, tensor, verdict, metrics={**METRICS, "count": count}, **more)


@pytest.mark.parametrize(
    ("outputs", "errors", "verdict", "status"),
    [
        ([output()], {}, "pass", 0),
        ([output(), output("fail", tensor="z")], {}, "fail", 1),
        ([output("undecided")], {}, "undecided", 1),
        ([output("undecided"), output("fail", tensor="z")], {}, "fail", 1),
        ([OutputResult("emulate:fp16", "y", "missing")], {}, "fail", 1),
        ([output(), OutputResult("emulate:fp16", "z", "extra")], {}, "fail", 1),
        ([], {}, "undecided", 1),
        ([output(count=0)], {}, "undecided", 1),
        ([output()], {"onnxrt": "crashed"}, "error", 3),
        ([output("fail")], {"emulate:fp16": "crashed"}, "error", 3),
    ],
)
def test_the_verdict(outputs, errors, verdict, status):
    found = report(*outputs, errors=errors)
    assert (found.verdict, found.exit_status, bool(found)) == (verdict, status, verdict == "pass")


def test_layers_and_culprits_follow_the_contract():
    found = json.loads(json.dumps(to_json(report(output(), layers=(LAYER,), culprits=(CULPRIT,))), allow_nan=False))
    (layer,), (culprit,) = found["layers"], found["culprits"]
    keys = "candidate tensor node nodes op index piece local cumulative expected contribution verdict cause"
    assert list(layer) == keys.split()
    assert layer["local"] == {"count": 4, "max_abs": None}
    assert layer["cumulative"] is None
    assert list(culprit) == ["candidate", "node", "op", "tensors", "cause", "local", "contribution", "evidence"]


def test_the_candidates_name_of_a_node_stands_beside_the_references():
    import dataclasses

    renamed = dataclasses.replace(LAYER, candidate_node="Conv_7")
    (layer,) = to_json(report(output(), layers=(renamed,)))["layers"]
    assert (layer["node"], layer["candidate_node"]) == ("/l/conv/Conv", "Conv_7")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.inf, None),
        (-math.inf, None),
        (math.nan, None),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (ml_dtypes.bfloat16(1.5), 1.5),
        (np.array([1.0, np.inf]), [1.0, None]),
        ((1, 2), [1, 2]),
        ({"a": (math.nan,)}, {"a": [None]}),
        (1 + 2j, {"real": 1.0, "imag": 2.0}),
        (b"abc", "abc"),
        (2**64 - 1, 2**64 - 1),
    ],
    ids=repr,
)
def test_values_that_json_can_hold(value, expected):
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def shown(found: Report, width: int = 120, **how) -> str:
    file = io.StringIO()
    show(found, Console(file=file, width=width, highlight=False), **how)
    return file.getvalue()


def test_culprits_come_in_at_most_twenty_lines():
    text = shown(report(output("fail"), layers=(LAYER,), culprits=(CULPRIT,) * 50))
    lines = [line for line in text.splitlines() if "culprit" in line or "65,504" in line]
    assert 0 < len(lines) <= 20
    assert "/l/conv/Conv (Conv) on emulate:fp16: overflow, 93%" in text
    assert "cumulative rel L2" in shown(report(output("fail"), layers=(LAYER,), culprits=(CULPRIT,)), verbose=True)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (report(output()), "pass: emulate:fp16 agrees with onnxrt in output y, on 2 random samples, seed 0."),
        (report(output(), output(tensor="z")), "pass: emulate:fp16 agrees with onnxrt in all 2 outputs, on"),
        (
            report(output(), output("fail", tensor="z")),
            "fail: emulate:fp16 disagrees with onnxrt in 1 of 2 outputs, on",
        ),
        (
            report(output("missing"), output("extra", tensor="z")),
            "fail: emulate:fp16 disagrees with onnxrt in output y, on",
        ),
        (
            report(output(), output("extra", tensor="z")),
            "fail: emulate:fp16 disagrees with onnxrt in output z, which the reference does not have, on",
        ),
        (report(output("undecided")), "undecided: emulate:fp16 cannot be judged in output y, on"),
        (report(output(count=0)), "undecided: nothing was compared, on"),
        (report(), "undecided: nothing was compared, on"),
        (
            report(
                output(), output("fail", "trt"), runners=("onnxrt", "emulate:fp16", "trt", "tf"), errors={"tf": "no"}
            ),
            "error: tf failed; trt disagrees with onnxrt in output y; emulate:fp16 agrees with onnxrt in output y, on",
        ),
    ],
)
def test_the_sentence(found, sentence):
    assert sentence in shown(found, width=400)


def test_what_is_outside_a_tolerance_does_not_stand_beside_a_metrics_pass():
    assert "1 of 4" in shown(report(output()))
    assert "1 of 4" not in shown(report(output(decided_by="top1")))


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_name_and_no_number_is_broken_on_a_narrow_screen(width):
    long = "/encoder/layer.11/attention/self/query/MatMul_with_a_long_name"
    layer = replace(LAYER, node=long, verdict="inherited", quantized=(long,), local={"rel_l2": 1.25e-3, "snr_db": 58.1})
    text = shown(report(output("undecided", tensor="probabilities"), layers=(layer,)), width=width, verbose=True)
    lines = text.splitlines()
    assert sum(line.strip() == long for line in lines) == 2  # among the costliest, and among all
    for part in ("verdict inherited", "local rel L2 1.25e-03", "contribution 0.93", "SNR of the layer 58.1 dB"):
        assert any(part in line for line in lines), part


def test_notes_on_data_are_for_those_who_compared_something():
    data = DataInfo(2, 0, "2 random samples", False, ("x: no range known.",))
    assert "no range" in shown(replace(report(output()), data=data))
    assert "no range" not in shown(replace(report(errors={"onnxrt": "no"}), data=data))


def test_nothing_is_folded_in_a_pipe_or_a_file():
    reason = "a word " * 200
    text = str(report(output("fail", reason=reason)))
    assert any(reason.strip() in line for line in text.splitlines())


def test_in_python_a_report_shows_itself():
    found = report(output("fail", tensor="<y>"), layers=(LAYER,))
    assert repr(found) == "<Report: fail, 1 outputs, 1 layers, 0 culprits; print() shows it>"
    assert "&lt;y&gt;" in methodcaller("_repr_html_")(found)
    assert str(found).splitlines()[-1].startswith("fail: emulate:fp16 disagrees with onnxrt")


def test_names_that_look_like_markup_are_printed_as_they_are():
    text = shown(report(output(tensor="[bold]y[/bold]", reason="[red]wrong[/red]"), runners=("onnxrt", "emulate:fp16")))
    assert "[bold]y[/bold]" in text
    assert "[red]wrong[/red]" in text


def test_the_costliest_layers_are_ten_each_once_without_those_that_heal():
    layers = [replace(LAYER, index=i, tensor=f"t{i}", contribution=share) for i, share in enumerate(np.arange(14) / 20)]
    layers += [replace(layers[3], tensor="another output"), replace(LAYER, index=20, contribution=None)]
    layers += [replace(LAYER, index=21, verdict="healed", contribution=2.0), replace(LAYER, index=22, candidate="trt")]
    found = report(layers=tuple(layers)).costliest("emulate:fp16")
    assert [layer.index for layer in found] == [13, 12, 11, 10, 9, 8, 7, 6, 5, 4]


def test_text_has_no_colours_whatever_the_environment_says(monkeypatch):
    """The kernel of a notebook sets it."""
    plain = str(report(output("fail")))
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert str(report(output("fail"))) == plain


def test_undecided_outputs_show_them_with_what_a_quantizer_should_leave_out():
    layers = (
        replace(LAYER, quantized=("/l/conv/Conv",), verdict="ok", local={"snr_db": 12.34}),
        replace(LAYER, index=13, node="/l/small", quantized=("/l/small",), contribution=0.01, verdict="ok"),
    )
    told = shown(report(output("undecided"), layers=layers))
    assert "2 layers: none errs by more than its number format explains" in told
    assert re.search(r"/l/conv/Conv +Conv +93% +12.3 dB", told)
    assert "nodes_to_exclude=['/l/conv/Conv']" in told
    assert "no culprit" not in told


def test_a_tflite_file_is_quantized_by_another_option():
    layers = (replace(LAYER, quantized=("/l/conv/Conv",), verdict="ok", candidate_tensor="conv;add"),)
    found = report(output("undecided"), layers=layers)
    runners = tuple(replace(r, source="int8.tflite") for r in found.runners)
    told = shown(replace(found, runners=runners))
    assert "QuantizationDebugOptions(denylisted_nodes=['conv;add'])" in told
    assert "nodes_to_exclude" not in told
