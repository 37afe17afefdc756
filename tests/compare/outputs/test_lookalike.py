"""An output that holds another one's values: said on evidence alone, and never a pass."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.outputs import lookalike as module
from layerdiff.compare.outputs.lookalike import Lookalikes, Outline, distance, exchanged, lookalike

from support import networks
from support.models import normal

A, B, C = (normal(3, 4, seed=i) for i in range(3))
NOISE = 1e-3 * normal(3, 4, seed=9)
MODEL = "g (float[N] x) => (float[N] a, float[N] b, float[N] c) { a = Neg(x) b = Exp(x) c = Sin(x) }"


@pytest.mark.parametrize(
    ("value", "others", "found"),
    [
        (B, {"a": A, "b": B}, "b"),
        (B + NOISE, {"a": A, "b": B}, "b"),
        (A, {"a": A, "b": B}, None),
        (A + NOISE, {"a": A, "b": B}, None),
        (C, {"a": A, "b": B}, None),
        (B, {"a": A, "b": B, "c": B + NOISE}, None),  # which of the two?
        (B, {"a": B + NOISE, "b": B}, None),  # its own is as good
        (B, {"a": A.T, "b": B}, "b"),
        (B.astype(np.float16), {"a": A, "b": B}, "b"),
        (np.ones((3, 4)), {"a": A, "b": np.ones((3, 4))}, None),  # a constant says nothing
        (B[:1, :2], {"a": A[:1, :2], "b": B[:1, :2]}, None),  # nor do two elements
        (np.arange(9), {"a": np.arange(9)[::-1], "b": np.arange(9)}, "b"),
        (np.where(A > 0, np.nan, B), {"a": A, "b": B}, None),
        (np.array(["u", "v", "w", "x"]), {"a": A, "b": np.array(["u", "v", "w", "x"])}, None),
    ],
)
def test_only_one_other_output_is_near_and_everything_else_is_far(value, others, found):
    assert lookalike(value, "a", others) == found


@pytest.mark.parametrize(
    ("held", "names"),
    [
        ({"a": "b", "b": "a"}, "ab"),
        ({"a": "b", "b": "c", "c": "a"}, "abc"),
        ({"a": "b"}, ""),
        ({"a": "b", "b": "a", "d": "a"}, ""),  # two hold the same
        ({"a": "b", "b": "c"}, ""),
    ],
)
def test_outputs_are_exchanged_where_each_is_held_by_one(held, names):
    assert "".join(sorted(exchanged(held))) == names


def outputs(function_runner, change, **rules):
    def right(feed):
        x = feed["x"]
        return {"a": -x, "b": np.exp(x), "c": np.sin(x)}

    runners = [
        function_runner(function=right, label="right", rank=0),
        function_runner(function=lambda feed: change(right(feed)), label="wrong", rank=1),
    ]
    data = [{"x": normal(40, seed=i)} for i in range(3)]
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {MODEL}')
    return Comparator(model, runners, data_loader=data, **rules).compare()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda o: {**o, "a": o["b"], "b": o["a"]},
            {"a": "exchanged, 'a' here is 'b' there, value for value", "b": "exchanged"},
        ),
        (lambda o: {"a": o["b"], "b": o["c"], "c": o["a"]}, {"a": "exchanged", "b": "exchanged", "c": "exchanged"}),
        (lambda o: {**o, "a": o["b"]}, {"a": "'a' here is 'b' there, value for value"}),
        (lambda o: {**o, "a": 1.01 * o["b"]}, {"a": "'a' here is 'b' there (relative difference 0.01"}),
        (lambda o: {**o, "a": 1.5 * o["a"]}, {"a": ""}),
    ],
)
def test_the_reason_says_which_output_it_is(change, says, function_runner):
    report = outputs(function_runner, change)
    assert report.verdict == "fail"
    amiss = {o.tensor: o.reason for o in report.outputs if o.verdict != "pass"}
    assert amiss.keys() == says.keys()
    for tensor, words in says.items():
        assert words in amiss[tensor]
        assert (" here is " in amiss[tensor]) == bool(words)


def test_what_does_not_stay_so_is_not_said(function_runner):
    calls = iter(range(9))
    report = outputs(
        function_runner, lambda o: {"a": o["b"], "b": o["a"], "c": o["c"]} if not next(calls) else {**o, "a": o["c"]}
    )
    assert not any(o.exchanged for o in report.outputs)


def test_a_tolerance_that_allows_the_exchange_allows_zeros_as_well(function_runner):
    report = outputs(function_runner, lambda o: {**o, "a": o["c"], "c": o["a"]}, rtol=0.0, atol=100.0)
    assert {o.tensor: o.verdict for o in report.outputs} == {"a": "undecided", "b": "pass", "c": "undecided"}


# -- layer by layer


def two_heads() -> onnx.ModelProto:
    w = networks.Writer(7)
    x = w.node("Relu", [w.conv("x", "body", (3, 8))], "r")
    w.conv(x, "cls", (8, 4))
    w.conv(x, "box", (8, 4))
    return w.model({"x": (networks.FLOAT, [1, 3, 8, 8])}, ["cls", "box"])


def with_exchanged_heads(*, fault: bool) -> onnx.ModelProto:
    model = two_heads()
    for node in model.graph.node:
        swapped = {"cls": "box", "box": "cls"}
        node.output[:] = [swapped.get(name, name) for name in node.output]
    if fault:
        tensor = next(t for t in model.graph.initializer if t.name == "body.w")
        value = onnx.numpy_helper.to_array(tensor).copy()
        value[2] *= 1.2
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return model


@pytest.mark.parametrize("fault", [False, True])
def test_the_exchange_is_one_culprit_and_what_else_is_wrong_another(fault):
    data = [{"x": normal(1, 3, 8, 8, seed=i)} for i in range(2)]
    comparator = Comparator(
        two_heads(),
        [OnnxrtRunner(threads=1)],
        candidate_model=with_exchanged_heads(fault=fault),
        data_loader=data,
        layers="guilty",
    )
    report = comparator.compare()
    assert report.verdict == "fail"
    expected = [("n_cls", "exchanged-outputs")] + [("n_body", "weights")] * fault
    assert [(c.node, c.cause.value) for c in report.culprits] == expected
    assert "cls here equals box there, box here equals cls there" in report.culprits[0].evidence
    (notice,) = [n for n in report.notices if n.code == "outputs-exchanged"]
    assert notice.text.endswith("--map-output box=cls --map-output cls=box")
    assert not any(n.code in ("fidelity", "outputs-agree") for n in report.notices)


@pytest.mark.parametrize(
    "wrong", [lambda a: a + 1e-3, lambda a: a + 0.5, lambda a: 1.5 * a], ids=["near", "off", "far"]
)
def test_the_time_for_many_outputs_grows_with_their_number(wrong, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "distance", lambda *pair: asked.append(pair) or distance(*pair))
    reference = {f"y{i}": (1 + i) * normal(3, 4, seed=i) for i in range(60)}
    Lookalikes().take(reference, {name: wrong(value) for name, value in reference.items()}, reference)
    assert len(asked) < 10 * len(reference)


def test_outlines_never_rule_out_what_is_near():
    values = [A, B, A + NOISE, 3 * A, A + 5, A > 0, A[:2], np.ones((3, 4)), A.astype(np.float16), 1e6 + A, np.zeros(3)]
    for one in values:
        for other in values:
            outlines = Outline.of(one), Outline.of(other)
            assert outlines[0] is not None
            assert outlines[1] is not None
            assert outlines[0].least(outlines[1]) <= distance(one, other)
