"""Accuracy on labelled data: what is measured, what it decides, what is refused."""

from __future__ import annotations

import json
import sys

import ml_dtypes
import numpy as np
import pytest
from layerdiff import Comparator, LayerdiffError, UsageError
from layerdiff.compare.cli.command import main
from layerdiff.compare.comparison import Rules
from layerdiff.compare.outputs.metric import criterion, decide
from layerdiff.graph.formats import FP32, INT8

from support.models import parsed
from support.paths import DIGITS

LABELS = DIGITS / "labels.npy"
COMMAND = [str(DIGITS / "digits.onnx"), "--onnxrt", "--data", str(DIGITS / "heldout.npz")]
MATRIX = "g (float[N, C] x) => (float[N, C] y) { y = Identity(x) }"
TWO = "g (float[N, C] x) => (float[N, C] y, float[N, C] z) { y = Identity(x) z = Identity(x) }"

CLASSES = 8
TRUTH = np.arange(200) % CLASSES
SCORES = np.eye(CLASSES, dtype=np.float32)[TRUTH]
"""A reference that is always right."""


def wrong_in(rows: int) -> np.ndarray:
    """Scores that give the next class in the first rows."""
    scores = SCORES * np.float32(0.9)
    scores[:rows] = np.roll(scores[:rows], 1, axis=1)
    return scores


@pytest.fixture
def judge(function_runner):
    """Compares scores of 200 rows, given in batches; the candidate's arithmetic is INT8 unless said otherwise."""

    def run(candidate, reference=SCORES, *, model=MATRIX, batch=200, arithmetic=INT8, labels=TRUTH, **rules):
        def give(scores):
            outputs = scores if isinstance(scores, dict) else {"y": scores}
            return lambda feed: {name: all_[feed["x"][:, 0].astype(int)] for name, all_ in outputs.items()}

        runners = [
            function_runner(function=give(reference), label="reference", rank=0),
            function_runner(function=give(candidate), label="candidate", rank=1, number_format=arithmetic),
        ]
        rows = np.repeat(np.arange(200, dtype=np.float32)[:, None], CLASSES, axis=1)
        data = [{"x": rows[i : i + batch]} for i in range(0, 200, batch)]
        return Comparator(parsed(model), runners, data_loader=data, labels=labels, **rules).compare()

    return run


# ---- what is decided ------------------------------------------------------------------------------------------------

NAN = np.nan


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([0.1, 0.7, 0.2], 1, [1]),
        ([0.4, 0.4, 0.2], 1, [0]),  # of equals the first, as ArgMax
        ([0.1, 0.7, 0.2], 2, [1, 2]),
        ([0.2, 0.2, 0.2, 0.4], 2, [0, 3]),
        ([-np.inf, np.inf, 0], 1, [1]),
        ([0.1, NAN, 0.2], 1, [-1]),  # argmax would answer 1
        ([0.1, NAN, 0.2], 2, [-1, -1]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_the_classes_that_are_decided(scores, k, expected, dtype):
    assert decide(np.array([scores], dtype), k).tolist() == [expected]


def test_whole_numbers_are_scores_too():
    assert decide(np.array([[2**60, 2**60 + 1, 0]]), 1).tolist() == [[1]]
    assert decide(np.array([[250, 3, 255]], np.uint8), 2).tolist() == [[0, 2]]


# ---- what is measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [200, 64, 1])
def test_the_same_numbers_whatever_the_batches(judge, batch):
    reference, candidate = judge(wrong_in(3), batch=batch, metric="top1").accuracy
    assert (reference.runner, reference.value, reference.samples, reference.disagreements) == ("reference", 1, 200, 0)
    assert (candidate.runner, candidate.metric, candidate.samples) == ("candidate", "top1", 200)
    assert candidate.value == pytest.approx(0.985)
    assert candidate.difference == pytest.approx(-0.015)
    assert candidate.disagreements == 3


def test_disagreements_count_where_both_are_wrong_or_the_candidate_is_better(judge):
    truth = TRUTH.copy()
    truth[:2] = (TRUTH[:2] + 1) % CLASSES  # the candidate is right in 2, the reference is not
    truth[2] = (TRUTH[2] + 2) % CLASSES  # both are wrong
    reference, candidate = judge(wrong_in(3), labels=truth, metric="top1").accuracy
    assert reference.value == pytest.approx(197 / 200)
    assert candidate.difference == pytest.approx(2 / 200)
    assert candidate.disagreements == 3


def test_top5_looks_at_the_five_highest(judge):
    slope = np.arange(CLASSES, dtype=np.float32) / 100
    far = SCORES * np.float32(0.015) + slope  # the label rises by one or two places
    report = judge(far, metric="top5")
    high = (TRUTH >= CLASSES - 5) | (TRUTH + 1.5 > CLASSES - 5)
    assert report.accuracy[1].value == pytest.approx(high.mean())


def test_a_function_is_averaged_over_rows_and_gets_labels_that_it_cannot_change(judge):
    seen = []

    def right(outputs, labels):
        seen.append((outputs["y"].flags.writeable, labels.flags.writeable))
        return (outputs["y"].argmax(1) == labels).mean()

    right.__module__ = "mine"
    reference, candidate = judge(wrong_in(30), batch=64, metric=right, metric_drop=0.2).accuracy
    assert candidate.metric.startswith("mine:")
    assert (reference.value, candidate.value) == (pytest.approx(1), pytest.approx(0.85))
    assert candidate.disagreements is None
    assert set(seen) == {(False, False)}


# ---- what it decides ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "drop", "verdict"),
    [
        (0, None, "pass"),
        (2, None, "pass"),  # exactly one point
        (3, None, "fail"),
        (3, 0.015, "pass"),
        (1, 0.0, "fail"),
        (0, 0.0, "pass"),
    ],
)
@pytest.mark.parametrize("batch", [200, 7])
def test_the_metric_decides_int8(judge, wrong, drop, verdict, batch):
    report = judge(wrong_in(wrong), batch=batch, metric="top1", metric_drop=drop)
    (output,) = report.outputs
    assert (output.verdict, output.decided_by, report.verdict) == (verdict, "top1", verdict)
    assert (output.reason is None) == (verdict == "pass")


@pytest.mark.parametrize(
    ("arithmetic", "rules", "verdict"),
    [
        (FP32, {}, "fail"),  # one tenth off is no rounding, though every decision is the same
        (INT8, {"tolerances": {"y": (0, 0.2)}}, "pass"),
        (INT8, {"tolerances": {"y": (0, 0.01)}}, "fail"),
    ],
)
def test_a_verdict_by_tolerance_stays(judge, arithmetic, rules, verdict):
    (output,) = judge(wrong_in(0), arithmetic=arithmetic, metric="top1", **rules).outputs
    assert (output.verdict, output.decided_by) == (verdict, None)


def test_a_loss_within_the_tolerance_is_a_warning(judge):
    report = judge(0.6 * wrong_in(100) + 0.4 * SCORES, metric="top1", tolerances={"y": (0, 0.7)})
    assert report.verdict == "pass"
    assert any("top1 fell by 0.5" in warning for warning in report.warnings)


def error_rate(outputs, labels):
    return float((outputs["y"].argmax(axis=1) != labels).mean())


@pytest.mark.parametrize(
    ("metric", "of_zeros"),
    [(error_rate, "0.875"), (lambda outputs, labels: 1.0, "1"), (lambda outputs, labels: -1, "-1")],
)
@pytest.mark.parametrize("wrong", [0, 150])
def test_a_function_that_zeros_satisfy_as_well_decides_nothing(judge, metric, of_zeros, wrong):
    (output,) = judge(wrong_in(wrong), metric=metric, metric_drop=2).outputs
    assert output.verdict == "undecided"
    assert f"no better than that of zeros ({of_zeros})" in output.reason


def test_a_function_that_fails_on_zeros_decides_all_the_same(judge):
    def strict(outputs, labels):
        if not outputs["y"].any():
            raise ZeroDivisionError
        return 1 - error_rate(outputs, labels)

    assert judge(wrong_in(0), metric=strict).verdict == "pass"


def test_no_function_passes_an_error_as_large_as_the_output(judge):
    report = judge(3 * SCORES, metric=lambda outputs, labels: 1 - error_rate(outputs, labels))
    assert report.verdict == "undecided"
    assert "the error is as large as the output or larger" in report.outputs[0].reason


def test_only_the_output_that_is_measured_is_decided(judge):
    both = {"y": wrong_in(0), "z": wrong_in(0)}
    report = judge(both, {"y": SCORES, "z": SCORES}, model=TWO, metric="top1", metric_output="z")
    assert {o.tensor: o.verdict for o in report.outputs} == {"y": "undecided", "z": "pass"}
    assert report.verdict == "undecided"


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [
        (np.full_like(SCORES, NAN), "fail"),
        (wrong_in(0)[:, :7], "fail"),
        (np.zeros_like(SCORES), "fail"),
        (np.full_like(SCORES, 0.5), "fail"),
    ],
    ids=["nan", "other shape", "zeros", "all the same"],
)
def test_a_broken_candidate_does_not_pass(judge, candidate, verdict):
    (output,) = judge(candidate, metric="top1").outputs
    assert output.verdict == verdict


@pytest.mark.parametrize("labels", [np.roll(TRUTH, 1), np.zeros(200, int)], ids=["shifted", "all the same"])
def test_labels_that_tell_nothing_decide_nothing(judge, labels):
    (output,) = judge(wrong_in(0), labels=labels, metric="top1").outputs
    assert output.verdict == "undecided"
    assert "no better than always answering the same" in output.reason


@pytest.mark.parametrize("value", [NAN, np.inf])
def test_a_metric_that_is_not_finite_decides_nothing(judge, value):
    report = judge(wrong_in(0), metric=lambda outputs, labels: value)
    assert report.outputs[0].verdict == "undecided"
    assert report.accuracy[1].value is None


def test_a_metric_that_fails_on_the_candidate_alone_decides_nothing(judge):
    def picky(outputs, labels):
        if outputs["y"].max() < 1:
            raise ValueError("too low")
        return 1.0

    report = judge(wrong_in(0), metric=picky)
    assert report.outputs[0].verdict == "undecided"
    assert any("candidate was not measured" in w and "too low" in w for w in report.warnings)


def test_a_candidate_that_did_not_finish_is_not_decided(function_runner):
    def weak(feed):
        if feed["x"].max() > 100:
            raise RuntimeError("no more")
        return {"y": feed["x"] * np.float32(0.9)}

    runners = [
        function_runner(function=lambda feed: {"y": feed["x"]}, label="reference", rank=0),
        function_runner(function=weak, label="candidate", rank=1, number_format=INT8),
    ]
    data = [{"x": SCORES[:100]}, {"x": SCORES[100:] * 200}]
    report = Comparator(parsed(MATRIX), runners, data_loader=data, labels=TRUTH, metric="top1").compare()
    assert report.outputs[0].verdict == "undecided"
    assert report.accuracy[1].samples == 100


def test_kept_outputs_are_measured_alike(function_runner):
    runners = [
        function_runner(function=lambda feed: {"y": feed["x"]}, label="reference", rank=0),
        function_runner(function=lambda feed: {"y": feed["x"] * 2}, label="candidate", rank=1, number_format=INT8),
    ]
    results = Comparator.run(runners, [{"x": SCORES[:120]}, {"x": SCORES[120:]}], model=parsed(MATRIX))
    assert not Comparator.compare_accuracy(results)
    report = Comparator.compare_accuracy(results, labels=TRUTH, metric="top1")
    assert report
    assert [a.value for a in report.accuracy] == [1, 1]


def test_decisions_are_compared_without_labels(judge):
    for rows, verdict in ((0, "pass"), (2, "pass"), (3, "fail")):
        report = judge(wrong_in(rows), labels=None, metric="agree", batch=64)
        assert report.outputs[0].verdict == verdict
        reference, candidate = report.accuracy
        assert (reference.value, candidate.value) == (1.0, 1 - rows / 200)
        assert candidate.disagreements == rows


def test_decisions_that_are_all_alike_or_none_decide_nothing(judge):
    same = np.tile(SCORES[:1], (200, 1))
    alike = judge(same * np.float32(0.9), same, labels=None, metric="agree").outputs[0]
    assert alike.verdict == "undecided"
    assert "the reference decides every row alike" in alike.reason
    lost = SCORES.copy()
    lost[:3, 0] = np.nan
    assert judge(lost, lost, labels=None, metric="agree").accuracy[0].value == 197 / 200


def test_too_few_classes_for_a_metric_are_refused(judge):
    four = np.eye(4, dtype=np.float32)[TRUTH % 4]
    with pytest.raises(UsageError, match="4 classes, so any answer would be right"):
        judge(four, four, labels=TRUTH % 4, metric="top5")


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"metric": "top1", "labels": None}, "needs the right answers: --labels"),
        ({"metric": "top1", "labels": TRUTH[:150]}, "150 labels, but the data have 200 rows"),
        ({"metric": "top1", "labels": np.append(TRUTH, 0)}, "201 labels, but the data have 200 rows in all"),
        ({"metric": "top1", "labels": TRUTH + 1}, "label 8 at 7; output 'y' has classes 0 to 7"),
        ({"metric": "top1", "labels": TRUTH - 1}, "label -1 at 0"),
        ({"metric": "top1", "labels": TRUTH.astype(float)}, "found float64 of shape"),
        ({"metric": "top1", "labels": SCORES.astype(int)}, "one whole number for each row"),
        ({"metric": "top1", "labels": 3}, "found a single int64"),
        ({"metric": "best"}, "expected top1, top5, agree, logits or package.module:function"),
        ({"metric": "top0"}, "expected top1"),
        ({"metric": "top7"}, "expected top1"),
        ({"metric": "agree"}, "reads no labels; top1 does"),
        ({"metric": "no_such_module:f"}, "No module named 'no_such_module'"),
        ({"metric": "math:no_such"}, "no attribute 'no_such'"),
        ({"metric": "math:pi"}, "pi is a float, not a function"),
        ({"metric": "math:sqrt"}, "failed on sample 0: TypeError"),
        ({"metric": "top1", "metric_output": "q"}, "no such output; there are: y"),
        ({"metric": "top1", "metric_drop": -0.1}, "0 or more"),
        ({"metric": "top1", "metric_drop": NAN}, "0 or more"),
        ({"metric": "top1", "metric_drop": 1}, "--metric-drop 1: top1 is a share of all rows.*0.01 is one point"),
        ({"metric": "agree", "labels": None, "metric_drop": 5}, "--metric-drop 5: agree is a share"),
        ({}, "--labels needs --metric"),
        ({"labels": None, "metric_drop": 0.1}, "--metric-drop needs --metric"),
    ],
)
def test_what_does_not_fit_is_refused(judge, rules, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        judge(wrong_in(0), **rules)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TWO, "2 outputs are floats; choose one with --metric-output: y, z"),
        (
            "g (float[N, C] x) => (float[N, C, 1] y) { a = Constant <value_ints = [2]> () y = Unsqueeze(x, a) }",
            "matrix",
        ),
        ("g (float[N, C] x) => (int64[N] y) { y = ArgMax <axis = 1, keepdims = 0> (x) }", "no output is a float"),
    ],
)
def test_an_output_that_is_no_matrix_of_scores_is_refused_before_anything_runs(judge, model, message):
    with pytest.raises(UsageError, match=message):
        judge({}, {}, model=model, metric="top1")


def test_labels_of_random_data_are_refused(function_runner):
    runners = [function_runner(label="a", rank=0), function_runner(label="b", rank=1)]
    with pytest.raises(UsageError, match="belong to real inputs"):
        Comparator(parsed(MATRIX), runners, labels=TRUTH, metric="top1").compare()


# ---- files ----------------------------------------------------------------------------------------------------------


def test_int8_is_calibrated_on_data_of_its_own(tmp_path, capsys):
    images = np.load(DIGITS / "heldout.npz")["image"]
    np.savez(tmp_path / "dark.npz", image=images / 50)
    command = [*COMMAND, "--emulate", "int8", "--labels", str(LABELS), "--metric", "top1", "--json", "-"]
    values = []
    for extra in (
        [],
        ["--calibration-data", str(DIGITS / "heldout.npz")],
        ["--calibration-data", f"{tmp_path}/dark.npz"],
    ):
        main([*command, *extra])
        report = json.loads(capsys.readouterr().out)
        values.append(report["accuracy"][1]["value"])
        assert any("were calibrated on 1 sample of" in warning for warning in report["warnings"]) == bool(extra)
    assert values[0] == values[1]
    assert values[2] < values[0] - 0.1, "ranges of dark images cut bright ones"


def test_calibration_data_that_nobody_reads_are_refused(capsys):
    assert main([*COMMAND, "--emulate", "fp16", "--calibration-data", str(DIGITS / "heldout.npz")]) == 2
    assert "no runner computes in either" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "one.npy", TRUTH)
    np.savez(tmp_path / "one.npz", labels=TRUTH)
    np.savez(tmp_path / "two.npz", train=TRUTH[:5], test=TRUTH)
    np.save(tmp_path / "objects.npy", np.array([{}, None], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("0 1 2")
    return tmp_path


@pytest.mark.parametrize("name", ["one.npy", "one.npz", "one.npz:labels", "two.npz:test"])
def test_labels_from_a_file(folder, name):
    rule = criterion(Rules(metric="top1", labels=str(folder / name)))
    assert rule is not None
    np.testing.assert_array_equal(rule.labels, TRUTH)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two.npz", "holds: train, test"),
        ("two.npz:other", "holds: train, test"),
        ("none.npy", "No such file"),
        ("none.npz:x", "No such file"),
        ("text.npy", "neither .npy nor .npz"),
        ("objects.npy", "neither .npy nor .npz"),
    ],
)
def test_a_file_without_labels_is_refused(folder, name, message):
    with pytest.raises(LayerdiffError, match=message) as caught:
        criterion(Rules(metric="top1", labels=str(folder / name)))
    assert caught.value.exit_status == 2
    assert len(str(caught.value).splitlines()) == 1


# ---- the command, on a network that is real -------------------------------------------------------------------------


def test_int8_is_decided_by_top1_and_by_nothing_without_it(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    assert main([*COMMAND, "--emulate", "int8", "-q"]) == 1
    path = tmp_path / "report.json"
    words = ["--emulate", "int8", "--labels", str(LABELS), "--metric", "top1", "--json", str(path)]
    assert main([*COMMAND, *words]) == 0
    report = json.loads(path.read_text("utf-8"))
    first, second = report["accuracy"]
    assert first == {
        "runner": "onnxrt",
        "metric": "top1",
        "value": 359 / 360,
        "difference": 0.0,
        "samples": 360,
        "disagreements": 0,
    }
    assert second["runner"] == "emulate:int8"
    assert second["value"] >= 359 / 360 - 0.01
    assert [(o["verdict"], o["decided_by"]) for o in report["outputs"]] == [("pass", "top1")]
    shown = capsys.readouterr().out
    assert "99.72%" in shown
    assert "decided differently" in shown
    assert "by top1" in shown


def test_a_function_of_the_present_folder(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    (tmp_path / "my_metric_module.py").write_text(
        "def share(outputs, labels):\n    return (outputs['probabilities'].argmax(1) == labels).mean()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    words = ["--emulate", "int8", "--labels", str(LABELS), "--metric", "my_metric_module:share"]
    try:
        assert main([*COMMAND, *words]) == 0
    finally:
        sys.modules.pop("my_metric_module", None)
    assert "0.997222" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--metric", "top1"],
        ["--labels", str(LABELS)],
        ["--labels", str(LABELS), "--metric", "top1", "--metric-drop", "much"],
        ["--labels", "none.npy", "--metric", "top1"],
        ["--labels", str(LABELS), "--metric", "best"],
    ],
)
def test_the_command_refuses_in_one_line(words, capsys):
    assert main([*COMMAND, "--emulate", "fp16", "-q", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
