"""The short answer under a culprit: what its cause calls for, and what that gives."""

import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.causes.differences import GraphsDiffer
from layerdiff.compare.causes.quantization import StepsHold
from layerdiff.compare.causes.quantized_layer import QuantizedLayer
from layerdiff.compare.causes.shared_scale import SharedScale
from layerdiff.compare.plans.remedies import remedy_of
from layerdiff.compare.report.json import to_json
from layerdiff.compare.report.model import Cause, Culprit
from layerdiff.compare.report.plan import Remedy
from layerdiff.compare.report.terminal.plan import show_remedy
from layerdiff.compare.report.terminal.progress import console
from layerdiff.compare.sides import Side
from layerdiff.graph.formats import FP16
from layerdiff.graph.model import Model
from layerdiff.graph.pairing.changes import OperatorChange
from layerdiff.graph.pairing.differences import Difference
from layerdiff.graph.rounding.constants_in_range import in_range
from layerdiff.graph.rounding.rescale import rescaled
from layerdiff.graph.rounding.typed import typed
from layerdiff.runners.contract.capabilities import Capabilities
from layerdiff.runners.contract.options import command_word
from onnx import numpy_helper

from support.models import normal, parsed
from support.plan_networks import overflowing, samples, weights
from support.reports import CULPRIT


def test_a_remedy_names_the_candidate_with_its_own_words():
    runner = EmulateRunner(format="int8", decomposed=True, keep=("a",))
    assert command_word(runner.keeping(["a", "b c", "d,e"])) == "'--emulate=int8,decomposed,keep=a,keep=b c,keep=d,,e'"
    assert EmulateRunner.from_value("int8,decomposed,keep=a") == runner


def test_what_overflows_is_tried_in_fp32_with_who_reads_it():
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    report = Comparator(overflowing(), runners, data_loader=samples(), layers="guilty").compare()
    culprit = report.culprits[0]
    assert (culprit.node, culprit.cause) == ("fc1", Cause.OVERFLOW)
    scaled, kept = culprit.remedies
    assert kept.keep == ("fc1", "fc2")
    assert kept.measured.passed
    assert scaled.measured.passed
    text = str(report)
    assert re.search(
        r"^  try: scale the constants of fc1 by 2\^-\d+ and those of fc2 by 2\^\d+ \(exact\): emul", text, re.M
    )
    line = next(line for line in text.splitlines() if line.startswith("  or: "))
    assert line.startswith("  or: keep fc1 and fc2 in FP32 (--emulate=fp16,keep=fc1,keep=fc2): emulated so, pass at ")
    assert to_json(report)["culprits"][0]["remedies"][1]["measured"]["outputs"][0]["verdict"] == "pass"


WIDE = 20 * weights(1) / np.abs(weights(1)).max()
LOG_OF_SOFTMAX = parsed(
    "g (float[8,16] x) => (float[8,16] y) { [fc] m = MatMul(x, w) [p] p = Softmax(m) t = Transpose<perm=[1,0]>(p) "
    "[lp] l = Log(t) y = Transpose<perm=[1,0]>(l) }",
    w=WIDE,
)
OWN_SOFTMAX = parsed(
    "g (float[8,16] x) => (float[8,16] y) { [fc] m = MatMul(x, w) [e] e = Exp(m) [s] s = ReduceSum(e, axes) "
    "[p] p = Div(e, s) [last] y = MatMul(p, v) }",
    w=WIDE / 2,
    v=weights(2),
    axes=np.array([1], np.int64),
)


@pytest.mark.parametrize(
    ("network", "decomposed", "cause", "keep"),
    [
        (LOG_OF_SOFTMAX, False, Cause.UNDERFLOW, ("p", "lp")),
        (OWN_SOFTMAX, True, Cause.OVERFLOW, ("e", "s", "p")),
    ],
)
def test_what_a_format_loses_between_two_layers_is_kept_in_both(network, decomposed, cause, keep):
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16", decomposed=decomposed)]
    report = Comparator(network, runners, data_loader=samples(), layers="guilty").compare()
    culprit = report.culprits[0]
    assert (culprit.node, culprit.cause) == (keep[0], cause)
    assert culprit.remedies[-1].keep == keep
    assert culprit.remedies[-1].measured.passed


def test_a_mask_that_stops_at_the_range_is_not_kept():
    """In FP32, it is infinite for the FP16 layer behind it, and all of a row that it hides is no number."""
    text = """g (float[4,8] x) => (float[4,16] y) {
        c = Greater(x, large) [mask] m = Where(c, zero, low) [add] a = Add(x, m) [soft] s = Softmax(a)
        [up] k = Mul(x, hundred) [square] q = Mul(k, k) [sum] r = ReduceSum<keepdims = 1>(q, axes) [root] t = Sqrt(r)
        [div] d = Div(k, t) [join] y = Concat<axis = 1>(s, d) }"""
    numbers = {"large": 1e4, "zero": 0.0, "low": -1e9, "hundred": 100.0}
    model = parsed(text, axes=np.array([1]), **{name: np.float32(value) for name, value in numbers.items()})
    data = [{"x": np.random.default_rng(1).uniform(0, 31, (4, 8)).astype(np.float32)}]
    fp16 = EmulateRunner(format="fp16", every_node=True)
    found = Comparator(model, [OnnxrtRunner(), fp16], data_loader=data, layers="guilty").compare().culprits
    kept = {c.node: c.remedies[0].keep for c in found}
    assert {c.node: str(c.cause) for c in found} == {"mask": "saturation", "square": "overflow"}
    assert kept["mask"] == ()
    assert {"square", "sum"} <= {*kept["square"]} <= {"square", "sum", "root", "div"}


def test_what_does_not_heal_is_not_proposed_and_the_search_is():
    """Values beyond FP16 through more layers than a short answer keeps."""
    lines = " ".join(f"[fc{i}] m{i + 1} = MatMul(m{i}, w{i})" for i in range(9))
    sizes = {0: 1e6, 8: 1e-6}
    model = parsed(
        f"g (float[8,16] x) => (float[8,16] y) {{ m0 = Identity(x) {lines} [end] y = Tanh(m9) }}",
        **{f"w{i}": weights(i, sizes.get(i, 1.0)) for i in range(9)},
    )
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    report = Comparator(model, runners, data_loader=samples(), layers="guilty").compare()
    assert report.verdict == "fail"
    told = report.culprits[0].remedies[-1]
    assert told.text.startswith("--fix plan.json finds the fewest layers that have to stay in FP32: fc0")
    assert not told.keep
    assert not told.measured.passed


def test_what_was_tried_can_be_asked_for():
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16", keep=("fc1", "fc2"))]
    assert Comparator(overflowing(), runners, data_loader=samples()).compare().verdict == "pass"


def test_a_number_that_is_another_one_is_put_right_as_a_constant():
    text = "g (float[2,8,4] x) => (float[2,4] y) { [act] a = Tanh(x) [pick] y = Gather<axis=1>(a, first) }"
    first, second = (parsed(text, first=np.array(place)) for place in (0, -1))
    data = [{"x": normal(2, 8, 4)}]
    report = Comparator(first, [OnnxrtRunner()], candidate_model=second, data_loader=data, layers="all").compare()
    (culprit,) = report.culprits
    assert culprit.node == "pick"
    told = "set the constant of pick to 0, as in the first file, or export the model again"
    assert [r.text for r in culprit.remedies] == [told]


def test_a_changed_file_is_put_right_in_the_file():
    other = overflowing()
    weight = next(t for t in other.graph.initializer if t.name == "w3")
    changed = numpy_helper.to_array(weight).copy()
    changed[0, 0] += 1
    weight.CopyFrom(numpy_helper.from_array(changed, "w3"))
    report = Comparator(
        overflowing(), [OnnxrtRunner()], candidate_model=other, data_loader=samples(), layers="guilty"
    ).compare()
    (culprit,) = report.culprits
    assert culprit.cause is Cause.WEIGHTS
    (remedy,) = culprit.remedies
    assert remedy.text == "take the first file's weights, or export the model again"
    assert remedy.keep == ()


MODEL = Model(
    parsed(
        "g (float[8,16] x) => (float[8,16] y) { [a] m = MatMul(x, w) [b] n = MatMul(x, v) [c] y = Sub(m, n) }",
        w=weights(1),
        v=weights(2),
    )
)


@pytest.mark.parametrize(
    ("cause", "keep"),
    [(Cause.CANCELLATION, ("a", "b", "c")), (Cause.UNDERFLOW, ("c",)), (Cause.UNKNOWN, ("c",)), (Cause.SPREAD, ())],
)
def test_what_is_kept_depends_on_the_cause(cause, keep):
    reference, side = Side("onnxrt", OnnxrtRunner(), MODEL), Side("emulate:fp16", EmulateRunner(), MODEL)
    culprit = Culprit("emulate:fp16", "c", "Sub", ("y",), cause, None, None)
    assert remedy_of(culprit, side, reference).keep == keep


def test_what_is_kept_is_the_layer_whose_rounding_it_is():
    reference, side = Side("onnxrt", OnnxrtRunner(), MODEL), Side("emulate:int8", EmulateRunner(format="int8"), MODEL)
    fact = StepsHold("c", 0.9, QuantizedLayer("m", "operand", 0.1, None))
    culprit = Culprit("emulate:int8", "a", "MatMul", ("m",), Cause.QUANTIZATION, None, None, (fact,))
    assert remedy_of(culprit, side, reference).keep == ("c",)


@pytest.mark.parametrize(("outputs", "told"), [(True, "(per_channel=True)"), (False, "cross-layer equalization")])
def test_weights_of_one_scale_are_given_more_or_levelled_where_the_file_quantizes(outputs, told):
    shared = SharedScale("w", "weights", 7, 0, 14.5, 48, 47, 126, 1.0, outputs=outputs)
    found = QuantizedLayer("w", "weights", 0.1, shared)
    facts = (shared, StepsHold("a", 0.9, found))
    file = Side("onnxrt@q.onnx", OnnxrtRunner(), MODEL.derive(MODEL.proto))
    emulation = Side("emulate:int8", EmulateRunner(format="int8"), MODEL)
    texts = []
    for side in (file, emulation):
        culprit = Culprit(side.name, "a", "MatMul", ("m",), Cause.QUANTIZATION, None, None, facts)
        texts.append(remedy_of(culprit, side, Side("onnxrt", OnnxrtRunner(), MODEL)))
    assert told in texts[0].text
    assert told not in texts[1].text
    assert texts[1].keep == ("a",)


def test_what_is_wrong_in_fp32_is_rewritten():
    reference, side = Side("onnxrt", OnnxrtRunner(), MODEL), Side("mine", OnnxrtRunner(optimization="disable"), MODEL)
    culprit = Culprit("mine", "c", "Sub", ("y",), Cause.WRONG_OP, None, None)
    assert remedy_of(culprit, side, reference).text.startswith("rewrite the operator")


@dataclass(frozen=True)
class Program(OnnxrtRunner):
    """A runner with a network of its own."""

    capabilities: ClassVar[Capabilities] = Capabilities(any_model=False, pieces=False)


OTHER_OPERATOR = GraphsDiffer(Difference(0, 0, OperatorChange((("MaxPool", "a"),), (("AveragePool", "a"),))))


@pytest.mark.parametrize(
    ("cause", "facts", "start"),
    [
        (Cause.WRONG_OP, (OTHER_OPERATOR,), "export the model again: the file does not hold"),
        (Cause.SCALE, (OTHER_OPERATOR,), "export the model again: the file does not hold"),
        (Cause.LAYOUT, (), "export the model again; where the reference evaluator"),
        (Cause.UNKNOWN, (), "export the model again; where the reference evaluator"),
        (Cause.NARROW_ACCUMULATOR, (), "rewrite the operator"),
    ],
)
def test_a_file_that_is_an_export_of_a_program_is_exported_again(cause, facts, start):
    reference, side = Side("torch", Program(), MODEL), Side("onnxrt", OnnxrtRunner(), MODEL)
    culprit = Culprit("onnxrt", "c", "Sub", ("y",), cause, None, None, facts)
    assert remedy_of(culprit, side, reference).text.startswith(start)
    assert remedy_of(culprit, side, reference, "run it without X").text.startswith("run it")


# ---- remedies that are no precision ----------------------------------------------------------------------------------


def outputs(model: onnx.ModelProto) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(None, feed)[0] for feed in samples()]


def test_a_rescaled_network_is_written_when_asked_and_computes_the_same_bits(tmp_path):
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    path = tmp_path / "rescaled.onnx"
    report = Comparator(overflowing(), runners, data_loader=samples(), apply_remedy=str(path)).compare()
    assert report.applied.trial.passed
    changed = onnx.load(path)
    for one, other in zip(outputs(overflowing()), outputs(changed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert Comparator(changed, runners, data_loader=samples()).compare().verdict == "pass"


def test_a_rescaled_network_stands_without_the_file_that_it_was_made_from(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source, target = tmp_path / "in" / "net.onnx", tmp_path / "out" / "rescaled.onnx"
    onnx.save_model(
        overflowing(),
        source,
        save_as_external_data=True,
        location="net.data",
        size_threshold=0,
        convert_attribute=False,
    )
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    report = Comparator(source, runners, data_loader=samples(), apply_remedy=str(target)).compare()
    assert report.applied.trial.passed
    for file in source.parent.iterdir():
        file.unlink()
    assert Comparator(target, runners, data_loader=samples()).compare().verdict == "pass"
    assert [file.name for file in target.parent.iterdir()] == ["rescaled.onnx"]


def test_nothing_is_written_that_was_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    report = Comparator(overflowing(), runners, data_loader=samples(), layers="guilty").compare()
    assert report.applied is None
    assert list(tmp_path.iterdir()) == []


def chain(between: str) -> Model:
    text = f"[a] m = MatMul(x, w) {between} [b] y = MatMul(t, v)"
    constants = {"c": np.float32(2), "w": weights(1), "v": weights(2), "z": np.full(16, 3, np.float32)}
    model = parsed(f"g (float[8,16] x) => (float[8,16] y) {{ {text} }}", **constants)
    used = {name for node in model.graph.node for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return Model(model)


@pytest.mark.parametrize(
    ("between", "smaller", "larger"),
    [
        ("t = Relu(m)", ("a",), ("b",)),
        ("[bias] n = Add(m, z) t = Relu(n)", ("a", "bias"), ("b",)),
        ("[scale] n = Mul(m, c) t = Tanh(n)", ("a",), ("scale",)),
    ],
)
def test_a_factor_passes_up_to_where_values_are_multiplied_next(between, smaller, larger):
    model = chain(between)
    found = rescaled(model, 0, 7)
    assert (found.smaller, found.larger) == (smaller, larger)
    for one, other in zip(outputs(model.proto), outputs(found.model.proto), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("between", ["t = Tanh(m)", "t = Add(m, x)", "n = Softmax(m) t = Relu(n)", "t = Mul(m, m)"])
def test_what_does_not_let_a_factor_pass_is_left_alone(between):
    assert rescaled(chain(between), 0, 7) is None


@pytest.mark.parametrize(
    ("between", "before", "after"),
    [
        ("t = Add(m, c)", -3.4e38, -65504.0),
        ("t = Add(m, c)", 1e-12, 2.0**-14),
        ("t = Mul(m, c)", 1e30, 65504.0),
    ],
)
def test_constants_that_a_format_loses_are_replaced_by_what_it_holds(between, before, after):
    model = chain(between)
    constant = next(t for t in model.proto.graph.initializer if t.name == "c")
    constant.CopyFrom(numpy_helper.from_array(np.float32(before), "c"))
    found = in_range(Model(model.proto), range(3), FP16)
    assert (found.before, found.after) == (pytest.approx(before), after)


def test_constants_that_a_format_holds_stay():
    assert in_range(chain("t = Add(m, c)"), range(3), FP16) is None


def test_an_epsilon_that_becomes_zero_is_raised():
    """Rows without variance: 0 / sqrt(0 + 1e-12) is zero, and in FP16 not a number."""
    model = parsed(
        "g (float[4,8] x) => (float[4,8] y) { [sq] s = Mul(x, x) [mean] m = ReduceMean<axes=[-1]>(s) "
        "[eps] e = Add(m, c) [root] r = Sqrt(e) [div] y = Div(x, r) }",
        c=np.float32(1e-12),
    )
    rows = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    rows[2] = 0
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16", every_node=True, cast_weights=True)]
    report = Comparator(model, runners, data_loader=[{"x": rows}], layers="guilty").compare()
    assert report.verdict == "fail"
    remedies = [r for c in report.culprits for r in c.remedies if "1e-12" in r.text]
    assert remedies
    assert remedies[0].measured.passed


def test_an_epsilon_beside_squares_that_overflow_stays():
    """The outputs agree as they are, so that a trial with another epsilon would prove nothing."""
    model = parsed(
        "g (float[4,8] x) => (float[4,8] y) { [sq] s = Mul(x, x) [mean] m = ReduceMean<axes=[-1]>(s) "
        "[eps] e = Add(m, c) [root] r = Sqrt(e) [div] d = Div(x, r) "
        "[mix] h = MatMul(d, k) [back] g = MatMul(h, k) [res] y = Add(x, g) }",
        c=np.float32(1e-12), k=np.eye(8, dtype=np.float32) / 10,
    )  # fmt: skip
    rows = 900 * np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16", every_node=True)]
    report = Comparator(model, runners, data_loader=[{"x": rows}], layers="guilty").compare()
    assert report.verdict == "pass"
    assert report.culprits[0].cause is Cause.OVERFLOW
    assert not [r for c in report.culprits for r in c.remedies if "1e-12" in r.text]


def test_what_does_not_help_is_not_proposed():
    """The constant is out of range, and not what makes the error."""
    model = overflowing()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e-12), "tiny"))
    node = next(n for n in model.graph.node if n.name == "act1")
    node.input[0] = "shifted"
    at = list(model.graph.node).index(node)
    model.graph.node.insert(at, onnx.helper.make_node("Add", ["m1", "tiny"], ["shifted"], name="shift"))
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16", cast_weights=True)]
    report = Comparator(model, runners, data_loader=samples(), layers="guilty").compare()
    assert report.culprits[0].cause is Cause.OVERFLOW
    assert not [r for c in report.culprits for r in c.remedies if "1e-12" in r.text]


def test_int8_that_was_calibrated_on_other_data_is_calibrated_anew():
    model = parsed(
        "g (float[8,16] x) => (float[8,16] y) { [a] m = MatMul(x, w) t = Relu(m) [b] y = MatMul(t, v) }",
        w=weights(1),
        v=weights(2),
    )
    small = [{"x": f["x"] / 100} for f in samples()]
    runners = [OnnxrtRunner(), EmulateRunner(format="int8")]
    rules = {"rtol": 0, "atol": 0.1, "layers": "guilty"}
    report = Comparator(model, runners, data_loader=samples(), calibration_data=small, **rules).compare()
    assert report.culprits[0].cause is Cause.SATURATION
    best = report.culprits[0].remedies[0]
    assert best.text.startswith("calibrate on data like those that are compared")
    assert best.measured.passed


def test_what_the_graph_types_narrow_is_typed_otherwise_in_the_file():
    network = typed(Model(overflowing()), "fp16").model
    reference, side = Side("onnxrt", OnnxrtRunner(), network), Side("emulate:fp16", EmulateRunner(), network)
    culprit = Culprit("emulate:fp16", "fc1", "MatMul", ("m1",), Cause.OVERFLOW, None, None)
    assert remedy_of(culprit, side, reference).text.startswith("write fc1 in FP32 in the file")


def test_what_a_second_file_types_narrow_is_typed_otherwise_in_that_file():
    model = Model(overflowing())
    reference = Side("onnxrt", OnnxrtRunner(), model)
    side = Side("onnxrt@fp16.onnx", OnnxrtRunner(), typed(model, "fp16").model)
    culprit = Culprit(side.name, "fc1", "MatMul", ("m1",), Cause.OVERFLOW, None, None)
    assert remedy_of(culprit, side, reference).text.startswith("write fc1 in FP32 in the file")
    other = Culprit(side.name, "fc1", "MatMul", ("m1",), Cause.WEIGHTS, None, None)
    assert remedy_of(other, side, reference).text.startswith("take the first file's weights")


def test_remedies_are_folded_and_what_one_would_copy_is_not_broken(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    texts = (
        "take the first file's weights, or export the model again",
        "keep b c and d in FP32 (--emulate=...,keep=b c,keep=and a long name that does not fit,keep=d)",
        "--fix plan.json finds the fewest layers that have to stay in FP32, and here --fix plan.json does",
    )
    show_remedy(replace(CULPRIT, remedies=tuple(map(Remedy, texts))), console())
    assert capsys.readouterr().out.splitlines() == [
        "  try: take the first file's weights, or",
        "    export the model again",
        "  or: keep b c and d in FP32",
        "    (--emulate=...,keep=b c,keep=and a long name that does not fit,keep=d)",
        "  or: --fix plan.json finds the fewest",
        "    layers that have to stay in FP32,",
        "    and here --fix plan.json does",
    ]


def test_remedies_are_not_folded_in_a_pipe(capsys):
    show_remedy(replace(CULPRIT, remedies=(Remedy("word " * 99 + "end"),)), console())
    assert capsys.readouterr().out == f"  try: {'word ' * 99}end\n"
