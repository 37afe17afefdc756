from __future__ import annotations

import gc
import os
import re
import weakref

import ml_dtypes
import numpy as np
import onnx
import pytest
from layerdiff import (
    Comparator,
    DataLoader,
    FunctionRunner,
    LayerdiffError,
    OnnxrtRunner,
    RunnerError,
    UsageError,
)
from layerdiff.compare.comparison import Rules
from layerdiff.compare.sides import Side, choose_sides, one_a_file, other_file
from layerdiff.graph.formats import FP16, INT8
from layerdiff.graph.model import Model
from layerdiff.runners.contract.capabilities import Capabilities

from support.models import parsed

X = np.linspace(-1, 1, 100, dtype=np.float32)
DATA = [{"x": X}, {"x": 2 * X}]


@pytest.fixture
def compare(identity_model, function_runner):
    """Compares the outputs of two functions of the feed; keywords go to Comparator."""

    def run(reference, candidate, data=DATA, *, model=identity_model, number_format=None, **rules):
        more = {} if number_format is None else {"number_format": number_format}
        runners = [
            function_runner(function=reference, label="reference", rank=0),
            function_runner(function=candidate, label="candidate", rank=1, **more),
        ]
        return Comparator(model, runners, data_loader=data, **rules).compare()

    return run


@pytest.fixture
def agree(compare):
    """Whether two single outputs agree, as a verdict."""

    def run(reference, candidate, **rules):
        report = compare(lambda feed: {"y": reference}, lambda feed: {"y": candidate}, DATA[:1], **rules)
        (output,) = report.outputs
        return output

    return run


# ---- who is judged against whom -------------------------------------------------------------------------------------


class Named:
    """As much of a runner as the line-up looks at."""

    model = None
    capabilities = Capabilities()
    stored_in = ""

    def __init__(self, name, trust):
        self.name, self.trust = name, trust

    def for_model(self, model):
        return self


TF, ORT, ORACLE, CUDA, TRT, FP16_EMULATED = (
    Named("tf", 0),
    Named("onnxrt", 10),
    Named("reference-evaluator", 20),
    Named("onnxrt:cuda", 30),
    Named("trt", 40),
    Named("emulate:fp16", 50),
)


@pytest.mark.parametrize(
    ("runners", "reference", "candidates"),
    [
        ([TRT, ORT], "onnxrt", ["trt"]),
        ([ORT, TRT, TF], "tf", ["onnxrt", "trt"]),
        ([FP16_EMULATED, CUDA, ORACLE], "reference-evaluator", ["emulate:fp16", "onnxrt:cuda"]),
        ([ORT, ORT], "onnxrt", ["onnxrt#2"]),
        ([ORT, TRT, ORT, ORT], "onnxrt", ["trt", "onnxrt#2", "onnxrt#3"]),
        ([FP16_EMULATED, TRT], "trt", ["emulate:fp16"]),
    ],
)
def test_the_most_trusted_is_the_reference_and_of_equals_the_first(runners, reference, candidates):
    sides = choose_sides(runners, [Model(onnx.ModelProto())] * len(runners))
    assert sides.reference.name == reference
    assert [c.name for c in sides.candidates] == candidates


def test_the_user_may_choose_the_reference():
    sides = choose_sides([ORT, TRT], [Model(onnx.ModelProto())] * 2, reference="trt")
    assert sides.reference.name == "trt"
    assert [c.name for c in sides.candidates] == ["onnxrt"]


def test_an_unknown_reference_is_refused_with_the_names_there_are():
    with pytest.raises(UsageError, match="'tf'; there are: onnxrt, trt"):
        choose_sides([ORT, TRT], [Model(onnx.ModelProto())] * 2, reference="tf")


@pytest.mark.parametrize(
    ("runners", "reference", "candidates"),
    [
        ([ORT], "onnxrt", ["onnxrt@exported.onnx"]),
        ([TRT, ORT], "onnxrt", ["trt@exported.onnx", "onnxrt@exported.onnx"]),
    ],
)
def test_with_two_files_the_first_is_the_reference_alone(runners, reference, candidates):
    first, second = Model(onnx.ModelProto(), source="trained.onnx"), Model(onnx.ModelProto(), source="a/exported.onnx")
    sides = choose_sides(runners, [first] * len(runners), second)
    assert sides.reference.name == reference
    assert sides.reference.model is first
    assert [c.name for c in sides.candidates] == candidates
    assert all(c.model is second for c in sides.candidates)


@pytest.mark.parametrize(
    ("other", "value", "another"),
    [
        ("net.onnx", 1.0, False),  # loaded twice
        ("net.onnx", 2.0, True),  # changed in between
        ("copy.onnx", 1.0, True),
        ("copy.onnx", 2.0, True),
    ],
)
def test_another_file_is_told_by_its_name_and_by_what_is_in_it(other, value, another):
    def side(source, value):
        proto = onnx.parser.parse_model(
            f'<ir_version: 9, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) <float c = {{{value}}}>'
            " { y = Add(x, c) }"
        )
        return Side("onnxrt", ORT, Model(proto, source=source))

    sides = side("net.onnx", 1.0), side(other, value)
    assert other_file(sides[1], sides[0]) == another
    assert len(one_a_file(sides)) == 1 + another


@pytest.mark.parametrize(("runners", "message"), [([], "no runner was named"), ([ORT], "onnxrt has nothing")])
def test_one_party_alone_is_refused(runners, message):
    with pytest.raises(UsageError, match=message):
        choose_sides(runners, [Model(onnx.ModelProto())] * len(runners))


# ---- verdicts -------------------------------------------------------------------------------------------------------


def test_equal_outputs_agree(compare):
    report = compare(lambda feed: {"y": feed["x"]}, lambda feed: {"y": feed["x"]})
    assert report
    assert report.verdict == "pass"
    assert report.exit_status == 0
    assert report.data.samples == 2
    assert report.outputs[0].metrics["count"] == 200
    assert report.outputs[0].metrics["snr_db"] is None


def test_a_wrong_output_disagrees_and_says_what_stands_where(compare):
    def wrong(feed):
        y = feed["x"].copy()
        y[17] += 0.5
        return {"y": y}

    report = compare(lambda feed: {"y": feed["x"]}, wrong)
    (output,) = report.outputs
    assert not report
    assert (report.verdict, report.exit_status, output.verdict) == ("fail", 1, "fail")
    assert output.metrics["mismatched"] == 2
    assert "2 of 200 elements are off by more than" in output.reason
    assert output.values["max_abs"]["index"] == (17,)
    assert output.values["max_abs"]["reference"] == pytest.approx(float(X[17]))
    assert output.values["max_abs"]["candidate"] == pytest.approx(float(X[17]) + 0.5)


@pytest.mark.parametrize(
    ("reference", "candidate", "verdicts"),
    [
        (["a", "b"], ["a"], {"a": "pass", "b": "missing"}),
        (["a"], ["a", "b"], {"a": "pass", "b": "extra"}),
        (["conv1"], ["conv10"], {"conv1": "missing", "conv10": "extra"}),  # no substring
        (["logits"], ["boxes"], {"logits": "missing", "boxes": "extra"}),  # no position
        (["a", "b"], ["b", "a"], {"a": "pass", "b": "pass"}),
        ([], [], {}),
        (["a"], [], {"a": "missing"}),
    ],
)
def test_outputs_are_matched_by_exact_name_and_what_is_left_disagrees(
    identity_model, function_runner, reference, candidate, verdicts
):
    runners = [
        function_runner(function=lambda feed, names=names: dict.fromkeys(names, X), gives=tuple(names), label=label)
        for label, names in (("reference", reference), ("candidate", candidate))
    ]
    report = Comparator(identity_model, runners, data_loader=DATA).compare()
    assert {o.tensor: o.verdict for o in report.outputs} == verdicts
    assert bool(report) == (bool(verdicts) and set(verdicts.values()) == {"pass"})
    assert all((o.metrics is None) == (o.verdict in ("missing", "extra")) for o in report.outputs)


def test_a_runner_that_does_not_give_its_output_in_one_sample_has_failed(compare):
    def sometimes(feed):
        return {"y": feed["x"]} if feed["x"][0] == -1 else {}

    report = compare(lambda feed: {"y": feed["x"]}, sometimes)
    assert (bool(report), report.exit_status) == (False, 3)
    assert report.runners[1].error == "sample 1: candidate: infer returned no 'y'; it gave nothing."


def test_empty_outputs_alone_are_no_agreement(compare):
    report = compare(lambda feed: {"y": X[:0]}, lambda feed: {"y": X[:0]})
    assert [o.verdict for o in report.outputs] == ["undecided"]
    assert report.verdict == "undecided"


def test_no_sample_is_refused(compare):
    with pytest.raises(LayerdiffError, match=r"sample"):
        compare(lambda feed: {"y": X}, lambda feed: {"y": X}, [])


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("40 % garbage, which the median passes", lambda y: np.where(np.arange(1000) < 400, 9, y)),
        ("0.5 % garbage, which the 0.99 quantile passes", lambda y: np.where(np.arange(1000) < 5, 9, y)),
        ("three times too large, which the cosine passes", lambda y: 3 * y),
        ("all zero", lambda y: 0 * y),
    ],
)
def test_garbage_is_never_averaged_away(agree, what, change):
    reference = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    candidate = change(reference).astype(np.float32)
    assert agree(reference, candidate).verdict == "fail", what
    assert agree(reference, candidate, number_format=FP16).verdict == "fail", what


@pytest.mark.parametrize(
    ("reference", "candidate", "rtol", "atol"),
    [(1000.0, 1000.9, 5e-4, 0.5), (1.0, 1.09, 0.05, 0.05), (0.0, 1e-3, 0.0, 1e-3), (1.0, 1.2, 0.05, 0.05)],
)
def test_the_users_tolerance_is_numpys_sum(agree, reference, candidate, rtol, atol):
    one, other = np.full(3, reference), np.full(3, candidate)
    expected = "pass" if np.allclose(other, one, rtol=rtol, atol=atol) else "fail"
    output = agree(one, other, rtol=rtol, atol=atol)
    assert output.verdict == expected
    assert (output.tolerance.rtol, output.tolerance.atol) == (rtol, atol)


def test_a_tolerance_of_one_output(compare):
    def both(feed):
        return {"y": X, "z": X}

    def off(feed):
        return {"y": X + np.float32(0.1), "z": X + np.float32(0.1)}

    model = parsed("g (float[N] x) => (float[N] y, float[N] z) { y = Identity(x) z = Identity(x) }")
    report = compare(both, off, model=model, tolerances={"z": (0.0, 0.2)})
    assert {o.tensor: o.verdict for o in report.outputs} == {"y": "fail", "z": "pass"}
    with pytest.raises(UsageError, match=r"--tolerance q: no such output; there are: y, z"):
        compare(both, off, model=model, tolerances={"q": (0, 0)})


@pytest.mark.parametrize("rules", [{"rtol": 1e-3}, {"atol": 1e-3}, {"rtol": -1.0, "atol": 0.0}])
def test_half_a_tolerance_is_refused(compare, rules):
    with pytest.raises(UsageError, match="rtol"):
        compare(lambda feed: {"y": X}, lambda feed: {"y": X}, **rules)


@pytest.mark.parametrize(
    ("reference", "candidate", "equal", "option"),
    [
        ([1, np.nan], [1, np.nan], "fail", "pass"),
        ([1, np.nan], [1, 2], "fail", "fail"),
        ([1, 2], [1, np.nan], "fail", "fail"),
        ([1, np.inf], [1, np.inf], "pass", "pass"),
        ([1, np.inf], [1, -np.inf], "fail", "fail"),
        ([1, np.inf], [1, 3e38], "fail", "fail"),
    ],
)
def test_nan_equals_nan_by_option_and_infinity_equals_itself(agree, reference, candidate, equal, option):
    one, other = np.float32(reference), np.float32(candidate)
    assert agree(one, other).verdict == equal
    assert agree(one, other, nan_equal=True).verdict == option
    assert agree(one, other, rtol=0.9, atol=1e30).verdict == equal


STRINGS = np.array(["cat", "dog"], object)


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False]),
        *(np.array([1, 2], f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *(np.array([1, 2], f"float{bits}") for bits in (16, 32, 64)),
        *(np.array([1, 2], getattr(ml_dtypes, n)) for n in ("bfloat16", "float8_e4m3fn", "float8_e5m2")),
        *(np.array([1, 2], getattr(ml_dtypes, n)) for n in ("int4", "uint4")),
        np.array([1 + 2j, 3], np.complex64),
        np.array([1 + 2j, 3], np.complex128),
        STRINGS,
        np.array(3.0, np.float32),
    ],
    ids=lambda v: f"{v.dtype}-{v.ndim}",
)
def test_every_dtype_agrees_with_itself_and_with_nothing_else(agree, values):
    other = values[::-1].copy() if values.ndim else values * 2
    assert agree(values, values.copy()).verdict == "pass"
    assert agree(values, other).verdict in ("fail", "undecided")


def test_unsigned_integers_do_not_wrap_around(agree):
    output = agree(np.array([1], np.uint64), np.array([2], np.uint64))
    assert output.metrics["max_abs"] == 1
    output = agree(np.array([0], np.uint64), np.array([2**64 - 1], np.uint64))
    assert output.values["max_abs"]["value"] == 2**64 - 1


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (np.zeros((2, 3), np.float32), r"shape \[2, 3\] where \[6\] is expected"),
        (np.zeros(7, np.float32), r"shape \[7\] where \[6\]"),
        (np.zeros(6, np.int64), "dtype int64 where float32 is expected"),
        (np.array(["0"] * 6, object), "dtype string where float32"),
        (np.zeros(6, bool), "dtype bool where float32"),
    ],
)
def test_another_shape_or_kind_of_dtype_disagrees_and_does_not_crash(agree, candidate, reason):
    output = agree(np.zeros(6, np.float32), candidate)
    assert output.verdict == "fail"
    assert re.search(reason, output.reason)


def test_another_width_of_the_same_kind_is_compared_and_told(compare):
    report = compare(lambda feed: {"y": X}, lambda feed: {"y": X.astype(np.float64)})
    assert report
    assert any("float64" in warning for warning in report.warnings)


def test_a_transposed_candidate_is_recognized_and_does_not_pass_silently(agree):
    reference = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32)
    output = agree(reference, reference.transpose(0, 2, 3, 1).copy())
    assert output.verdict == "fail"
    assert output.transposed == (0, 3, 1, 2)
    assert "transposed" in output.reason
    assert output.metrics["max_abs"] == 0


def test_int8_is_not_decided_without_the_users_word(agree):
    output = agree(X, X + np.float32(0.01), number_format=INT8)
    assert output.verdict == "undecided"
    assert "--tolerance y:" in output.reason
    assert agree(X, X + np.float32(0.01), number_format=INT8, tolerances={"y": (0, 0.02)}).verdict == "pass"
    assert agree(X, X, number_format=INT8).verdict == "undecided"  # as a Sign of it may be, whatever INT8 makes of it
    assert agree(X, X, number_format=INT8, tolerances={"y": (0, 0)}).verdict == "pass"
    assert agree(X, X * np.nan, number_format=INT8).verdict == "fail"


def test_undecided_is_not_agreement(compare):
    report = compare(lambda feed: {"y": X}, lambda feed: {"y": X + np.float32(0.01)}, number_format=INT8)
    assert (report.verdict, report.exit_status) == ("undecided", 1)


ARGMAX = """g (float[N, 4] x) => (int64[N] y) { y = ArgMax <axis = 1, keepdims = 0> (x) }"""


@pytest.mark.parametrize(
    ("scores", "found", "verdict"),
    [
        ([0.0, 1.0, 1.0 + 1e-7, 0.5], 2, "pass"),
        ([0.0, 1.0, 1.0 + 1e-7, 0.5], 1, "fail"),
        ([0.0, 1.0, 1.01, 0.5], 1, "fail"),
    ],
)
def test_what_is_decided_by_inputs_is_exact(onnx_file, function_runner, scores, found, verdict):
    """Inputs are the same on both sides: between them nothing ties, however close they are."""
    path = onnx_file(ARGMAX)
    scores = np.float32([scores])
    candidate = function_runner(function=lambda feed: {"y": np.array([found])}, label="candidate")
    runners = [OnnxrtRunner(), candidate]
    report = Comparator(path, runners, data_loader=[{"x": scores}]).compare()
    (output,) = report.outputs
    assert (output.verdict, output.ties) == (verdict, 0)
    assert output.metrics["mismatched"] == (verdict == "fail")
    kept = Comparator.run(runners, data_loader=[{"x": scores}], model=path)
    assert Comparator.compare_accuracy(kept).outputs == report.outputs


# ---- runners that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RunnerError("no GPU"), MemoryError("too large"), ValueError("odd")])
def test_a_runner_that_does_not_open_is_an_error_and_the_others_are_compared(identity_model, function_runner, error):
    def same(feed):
        return {"y": feed["x"]}

    runners = [
        function_runner(function=same, label="good", rank=0),
        function_runner(function=same, label="broken", rank=1, refuses=error),
        function_runner(function=lambda feed: {"y": -feed["x"]}, label="wrong", rank=2),
    ]
    report = Comparator(identity_model, runners, data_loader=DATA).compare()
    assert (report.verdict, report.exit_status) == ("error", 3)
    assert {r.name: r.error is None for r in report.runners} == {"good": True, "broken": False, "wrong": True}
    assert [(o.candidate, o.verdict) for o in report.outputs] == [("wrong", "fail")]


def test_a_runner_that_fails_on_the_way_keeps_what_was_compared_and_cannot_pass(compare):
    def weak(feed):
        if feed["x"][0] < -1:
            raise RuntimeError("out of range\nsecond line\nthird line")
        return {"y": feed["x"]}

    report = compare(lambda feed: {"y": feed["x"]}, weak)
    assert report.verdict == "error"
    assert report.runners[1].error == "sample 1: RuntimeError: out of range\nsecond line"
    (output,) = report.outputs
    assert output.verdict == "undecided"
    assert output.metrics["count"] == 100
    assert "1 of 2 samples" in output.reason


def test_a_reference_that_does_not_open_is_replaced_by_the_next_most_trusted(identity_model, function_runner):
    def same(feed):
        return {"y": feed["x"]}

    runners = [
        function_runner(function=same, label="broken", rank=0, refuses=RunnerError("not installed")),
        function_runner(function=same, label="third", rank=2),
        function_runner(function=same, label="second", rank=1),
    ]
    report = Comparator(identity_model, runners, data_loader=DATA).compare()
    assert report.reference == "second"
    assert [(o.candidate, o.verdict) for o in report.outputs] == [("third", "pass")]
    assert report.verdict == "error"
    assert any("broken failed" in w for w in report.warnings)
    chosen = Comparator(identity_model, runners, data_loader=DATA, reference="broken").compare()
    assert (chosen.reference, chosen.outputs, chosen.verdict) == ("broken", (), "error")


# ---- data -----------------------------------------------------------------------------------------------------------


def test_every_runner_sees_the_same_bytes_whatever_others_write_into_theirs(identity_model, function_runner):
    seen: dict[str, list[bytes]] = {"a": [], "b": []}

    def watch(name):
        def run(feed):
            seen[name].append(feed["x"].tobytes())
            found = {"y": feed["x"].copy()}
            feed["x"][:] = 0
            return found

        return run

    runners = [function_runner(function=watch(name), label=name) for name in seen]
    Comparator(identity_model, runners, data_loader=DATA).compare()
    assert seen["a"] == seen["b"] == [d["x"].tobytes() for d in DATA]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, kept: Comparator.run(kept, DATA, model=m, rtol=1.0, atol=1.0),
            "run takes no rtol: .*compare_accuracy",
        ),
        (lambda m, kept: Comparator.run(kept, DATA, model=m, layers="all"), r"run takes no layers: .*\.compare\(\)"),
        (lambda m, kept: Comparator.run(kept, DATA, model=m, layer="all"), "no option is called 'layer'"),
        (lambda m, kept: accuracy(m, kept, shapes={"x": (1,)}), "compare_accuracy takes no shapes: .*Comparator.run"),
        (lambda m, kept: accuracy(m, kept, latency=3), "compare_accuracy takes no latency"),
        (
            lambda m, kept: accuracy(m, kept, rules=Rules(save_outputs="o.json")),
            "takes no save_outputs",
        ),
        (lambda m, kept: Comparator(m.SerializeToString(), kept).compare(), "not bytes: onnx.load_model_from_string"),
        (lambda m, kept: Comparator(m, [*kept, print]).compare(), r"give FunctionRunner\(function=f\)"),
        (lambda m, kept: FunctionRunner(print), r"FunctionRunner\(function=f\)"),
    ],
)
def test_what_a_call_would_take_no_notice_of_is_refused(call, message, identity_model):
    with pytest.raises(LayerdiffError, match=message):
        call(identity_model, [OnnxrtRunner(), OnnxrtRunner()])


def accuracy(model, runners, **options):
    return Comparator.compare_accuracy(Comparator.run(runners, DATA, model=model), **options)


def test_results_of_a_run_cannot_be_changed(identity_model):
    results = Comparator.run([OnnxrtRunner(), OnnxrtRunner()], DATA, model=identity_model)
    with pytest.raises(TypeError):
        results["onnxrt"][0]["y"] = np.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        results["onnxrt"][0]["y"][:] = 0


def test_sessions_open_once_and_samples_are_not_kept(identity_model, function_runner):
    alive: list[weakref.ref] = []
    gc.freeze()  # so that collecting looks at what this test makes alone

    def watched(feed):
        y = feed["x"] + 0
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 2
        alive.append(weakref.ref(y))
        return {"y": y}

    runners = [function_runner(function=watched, label=name) for name in "ab"]
    try:
        data = [{"x": X + np.float32(i)} for i in range(20)]
        report = Comparator(identity_model, runners, data_loader=data).compare()
    finally:
        gc.unfreeze()
    assert [r.error for r in report.runners] == [None, None]
    assert [len(r.opened) for r in runners] == [1, 1]
    assert report.data.samples == 20


def test_the_report_knows_who_ran_and_how_long(compare):
    report = compare(lambda feed: {"y": X}, lambda feed: {"y": X})
    runner = report.runners[0]
    assert (runner.name, runner.options, runner.versions) == ("reference", {"speed": "slow"}, {"python": "3"})
    assert runner.open_seconds >= 0
    assert runner.infer_seconds >= 0


# ---- keeping outputs ------------------------------------------------------------------------------------------------


def test_run_keeps_outputs_and_compare_accuracy_judges_them(onnx_file):
    path = onnx_file("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    runners = [OnnxrtRunner(path), OnnxrtRunner(path, optimization="disable")]
    results = Comparator.run(runners, data_loader=DATA)
    assert list(results) == ["onnxrt", "onnxrt:optimization=disable"]
    np.testing.assert_array_equal(results["onnxrt"][1]["y"], np.maximum(2 * X, 0))
    report = Comparator.compare_accuracy(results)
    assert bool(report)
    assert not hasattr(report, "__len__")
    streamed = Comparator(path, runners, data_loader=DATA).compare()
    assert report.outputs == streamed.outputs


def test_compare_accuracy_refuses_what_run_did_not_return():
    with pytest.raises(UsageError, match=r"judges what Comparator\.run returned, not a dict"):
        Comparator.compare_accuracy({"a": [{"y": np.ones(3)}]})


def test_compare_accuracy_fails_on_disagreement(identity_model, function_runner):
    runners = [
        function_runner(function=lambda feed: {"y": feed["x"]}, label="a"),
        function_runner(function=lambda feed: {"y": feed["x"] * 1.01}, label="b"),
    ]
    results = Comparator.run(runners, data_loader=DATA, model=identity_model)
    assert not Comparator.compare_accuracy(results)
    assert Comparator.compare_accuracy(results, rtol=0.02, atol=0.0)


def test_outputs_beyond_the_limit_leave_memory(identity_model, function_runner):
    runners = [function_runner(function=lambda feed: {"y": feed["x"]}, label=name) for name in "ab"]
    results = Comparator.run(runners, data_loader=DATA, model=identity_model, memory=500)
    assert results.store.in_memory <= 500
    assert results.store.on_disk > 0
    assert Comparator.compare_accuracy(results)


# ---- models ---------------------------------------------------------------------------------------------------------


def test_runners_with_models_of_their_own(onnx_file):
    one = onnx_file("g (float[N] x) => (float[N] y) { y = Relu(x) }", "one.onnx")
    other = onnx_file("g (float[N] x) => (float[N] y) { y = Abs(x) }", "other.onnx")
    report = Comparator(None, [OnnxrtRunner(one), OnnxrtRunner(other)], data_loader=DATA).compare()
    assert [r.name for r in report.runners] == ["onnxrt", "onnxrt#2@other.onnx"]
    assert report.verdict == "fail"
    assert os.path.basename(report.candidate_model.source) == "other.onnx"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("g (float[N] q) => (float[N] y) { y = Relu(q) }", "input 'q' is not an input of .*one.onnx, which has: x"),
        ("g (int64[N] x) => (int64[N] y) { y = Identity(x) }", r"takes x \(int64, N\)"),
        ("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }", r"takes x \(float32, Nx3\)"),
    ],
)
def test_a_second_model_that_takes_other_inputs_is_refused(onnx_file, second, message):
    one = onnx_file("g (float[N] x) => (float[N] y) { y = Relu(x) }", "one.onnx")
    other = onnx_file(second, "other.onnx")
    with pytest.raises(UsageError, match=message):
        Comparator(one, [OnnxrtRunner()], candidate_model=other, data_loader=DATA).compare()


def test_dimensions_that_the_second_file_fixes(onnx_file):
    one = onnx_file("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }", "one.onnx")
    other = onnx_file("g (float[5, 3] x) => (float[5, 3] y) { y = Relu(x) }", "other.onnx")
    report = Comparator(one, [OnnxrtRunner()], candidate_model=other, data_loader=DataLoader(samples=1)).compare()
    assert report
    assert report.outputs[0].metrics["count"] == 15


def test_an_input_that_the_second_file_does_not_take_is_told(onnx_file):
    one = onnx_file("g (float[N] x, float[N] z) => (float[N] y) { y = Relu(x) }", "one.onnx")
    other = onnx_file("g (float[N] x) => (float[N] y) { y = Relu(x) }", "other.onnx")
    report = Comparator(one, [OnnxrtRunner()], candidate_model=other).compare()
    assert report
    assert any("other.onnx does not take 'z'" in w for w in report.warnings)


@pytest.mark.parametrize("rank", [0, 99], ids=["the reference's", "another one"])
def test_of_two_files_a_runner_may_open_the_first_alone(onnx_file, function_runner, rank):
    class FirstOnly(function_runner):
        def open(self, model, **more):
            if model.source.endswith("other.onnx"):
                raise UsageError("first.onnx alone.")
            return super().open(model, **more)

    one = onnx_file("g (float[N] x) => (float[N] y) { y = Relu(x) }", "one.onnx")
    other = onnx_file("g (float[N] x) => (float[N] y) { y = Max(x, x) }", "other.onnx")
    picky = FirstOnly(function=lambda feed: {"y": np.maximum(feed["x"], 0)}, label="picky", rank=rank)
    rules = {"candidate_model": other, "data_loader": DATA}
    report = Comparator(one, [picky, OnnxrtRunner()], **rules).compare()
    assert (report.reference == "picky") == (rank == 0)
    assert [(o.candidate, o.verdict) for o in report.outputs] == [("onnxrt@other.onnx", "fail")]
    assert any("picky@other.onnx was left out" in w for w in report.warnings) == (rank > 0)
    with pytest.raises(UsageError, match=r"first\.onnx alone"):
        Comparator(one, [picky], **rules).compare()


def test_a_runner_without_any_model_is_refused():
    with pytest.raises(UsageError, match="has no model"):
        Comparator(None, [OnnxrtRunner(), OnnxrtRunner()]).compare()
