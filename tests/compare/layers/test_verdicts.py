"""Who is to blame: verdicts from what a walk saw, without a runtime."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes.diagnosis import Diagnosis, Remark
from layerdiff.compare.causes.feeding import RangeOfAll
from layerdiff.compare.causes.judgement import Judgement
from layerdiff.compare.causes.refused import NotBuilt, Refused
from layerdiff.compare.layers.healing import Healing
from layerdiff.compare.layers.observation import LayerObservation
from layerdiff.compare.layers.verdicts import coarsest, verdicts
from layerdiff.compare.lockstep.plan import plan
from layerdiff.compare.report.model import Cause
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.formats import BF16, FP16, FP32, INT8
from layerdiff.graph.model import Model

from support.models import normal, parsed

CHAIN = Model(parsed("g (float[4,8] x) => (float[4,8] d) { a = Relu(x) b = Exp(a) c = Tanh(b) d = Sigmoid(c) }")).index
FORK = Model(
    parsed("g (float[4,8] x) => (float[4,8] d) { a = Relu(x) b = Exp(a) c = Transpose(a) d = MatMul(c, b) }")
).index
QUANTIZERS = Model(
    parsed(
        "g (float[4,8] x) => (float[4,8] b) { q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) b = Relu(a) }",
        s=np.float32(0.1), z=np.int8(0),
    )
).index  # fmt: skip
Y = normal(4, 8)


def statistics(error: float) -> Statistics:
    """Of a tensor whose relative L2 error is ``error``."""
    return Statistics(full=False).update(Y, Y * np.float32(1 + error), sample=0)


def seen(index, *, fmt=FP32, same=True, carried=None, **layers):
    """The verdicts, where layers are given as keywords for `LayerObservation`: ``a={"local": 0.1, ...}``."""
    names = {n: n for n in (*index.producer, *index.inputs)}
    observations = []
    for pair in plan(index, index, names, every=True, memory=1 << 30).layers:
        (tensor,) = pair.reference.outputs
        given = {"local": 0.0, "cumulative": 0.0, "guilty": False, **layers.get(tensor, {})}
        local, guilty = given.pop("local"), given.pop("guilty")
        observations.append(
            LayerObservation(
                pair,
                0,
                {tensor: statistics(local)},
                {tensor: statistics(given.pop("cumulative"))},
                Judgement(guilty, 0, local, rms_z=100.0 if guilty else 1.0, tensor=tensor),
                **given,
            )
        )
    healing = Healing(observations, index, fmt, same=same)
    found = verdicts(observations, index, healing, carried=carried or {})
    return found, {s.pair.reference.outputs[0]: found.by_layer[s.number] for s in found.layers}


OFF = {"local": 0.1, "cumulative": 0.1, "guilty": True}
INHERITS = {"cumulative": 0.1}
LOST = Diagnosis(Cause.OVERFLOW, (Remark("70000 > 65504"),), producer="a")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({}, {"a": "ok", "b": "ok", "c": "ok", "d": "ok"}),
        (
            {"b": OFF, "c": INHERITS, "d": INHERITS},
            {"a": "ok", "b": "culprit", "c": "inherited", "d": "inherited"},
        ),
        ({"b": OFF}, {"a": "ok", "b": "healed", "c": "ok", "d": "ok"}),
        ({"d": OFF}, {"a": "ok", "b": "ok", "c": "ok", "d": "culprit"}),  # nothing behind an output heals it
        (
            {"b": {"failure": Refused("no kernel")}, "c": INHERITS, "d": INHERITS},
            {"a": "ok", "b": "culprit", "c": "inherited", "d": "inherited"},
        ),
        ({"b": {"failure": NotBuilt("no kernel")}}, {"a": "ok", "b": "unknown", "c": "ok", "d": "ok"}),
    ],
    ids=["healthy", "a fault", "heals", "an output", "refused", "not built"],
)
def test_what_is_made_here_is_a_culprit_and_what_comes_from_before_is_inherited(layers, expected):
    assert seen(CHAIN, **layers)[1] == expected


def test_between_two_graphs_an_error_may_heal_some_layers_on():
    layers = {"a": {"local": 1.4, "cumulative": 1.4, "guilty": True}, "b": {"cumulative": 1.4}}
    assert seen(CHAIN, same=False, **layers)[1]["a"] == "healed"
    assert seen(CHAIN, same=True, **layers)[1]["a"] == "culprit"


@pytest.mark.parametrize(("quantizes", "verdict"), [(False, "healed"), (True, "culprit")])
def test_a_small_error_that_is_hidden_some_layers_on_heals_where_nothing_rounds_coarsely(quantizes, verdict):
    pair = "q = QuantizeLinear(a, s, z) b = DequantizeLinear(q, s, z)" if quantizes else "q = Exp(a) b = Log(q)"
    text = f"g (float[4,8] x) => (float[4,8] c) {{ a = Relu(x) {pair} c = Tanh(b) }}"
    read = {"s": np.float32(0.1), "z": np.int8(0)} if quantizes else {}
    layers = {"a": OFF, "q": INHERITS, "b": INHERITS}
    assert seen(Model(parsed(text, **read)).index, same=False, **layers)[1]["a"] == verdict


@pytest.mark.parametrize(
    ("healed", "other", "expected"),
    [
        (1.0, 0.03, ["b", "d"]),
        (1.0, 0.5, ["d"]),  # which is why the outputs are off
        (1.0, None, ["d"]),  # nobody knows of how much
        (0.3, 0.03, ["d"]),
    ],
)
def test_what_nearly_all_of_the_error_at_the_outputs_comes_of_has_not_healed(healed, other, expected):
    told = Diagnosis(Cause.WEIGHTS, (Remark("other weights"),))
    layers = {"b": {**OFF, "contribution": healed, "diagnosis": told}, "d": {**OFF, "contribution": other}}
    found, named = seen(CHAIN, **layers)
    assert (named["b"], named["d"]) == ("healed", "culprit")
    assert [s.pair.reference.outputs[0] for s in found.unhealed().culprits()] == expected


def test_who_makes_what_cannot_be_held_is_blamed_for_whoever_reads_it():
    found, named = seen(CHAIN, b={**OFF, "diagnosis": LOST}, c=INHERITS, d=INHERITS)
    assert named == {"a": "culprit", "b": "inherited", "c": "inherited", "d": "inherited"}
    (culprit,) = found.culprits()
    assert (culprit.diagnosis.cause, culprit.diagnosis.producer, culprit.blamed_outputs) == ("overflow", None, ("a",))
    assert culprit.diagnosis.facts == LOST.facts


def test_the_layer_before_those_that_only_move_values_is_blamed():
    moved = Diagnosis(Cause.OVERFLOW, (), producer="c")
    named = seen(FORK, c=INHERITS, d={**OFF, "diagnosis": moved})[1]
    assert named == {"a": "culprit", "b": "ok", "c": "inherited", "d": "inherited"}


def test_behind_an_input_of_the_model_there_is_nobody_to_blame():
    given = Diagnosis(Cause.OVERFLOW, (), producer="x")
    assert seen(CHAIN, a={**OFF, "diagnosis": given}, b=INHERITS, c=INHERITS, d=INHERITS)[1]["a"] == "culprit"


def test_what_a_loop_carries_is_blamed_on_who_made_it_an_iteration_before():
    given = Diagnosis(Cause.OVERFLOW, (), producer="x")
    named = seen(CHAIN, a={**OFF, "diagnosis": given}, b=INHERITS, c=INHERITS, d=INHERITS, carried={"x": "c"})[1]
    assert (named["a"], named["c"]) == ("inherited", "culprit")


def test_a_wrong_scale_stands_in_both_quantizers_and_is_one_fault():
    named = seen(QUANTIZERS, q=OFF, a=OFF, b=INHERITS)[1]
    assert named == {"q": "culprit", "a": "inherited", "b": "inherited"}


MEASURED = Model(
    parsed(
        "g (float[4,8] x) => (float[4,8] y) { q, t, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, w, z) "
        "c = Cast<to=1>(i) u = Mul(t, k) y = Mul(c, u) }",
        w=np.eye(8, dtype=np.uint8), k=np.float32(0.1),
    )
).index  # fmt: skip


@pytest.mark.parametrize(
    ("fact", "expected"), [(RangeOfAll("q"), "inherited"), (Remark("another reason"), "culprit")], ids=["step", "else"]
)
def test_who_reads_the_one_step_of_what_was_fed_together_is_innocent(fact, expected):
    found = []
    for pair in plan(MEASURED, MEASURED, {n: n for n in (*MEASURED.producer, "x")}, every=True, memory=1 << 30).layers:
        tensors, fed = pair.reference.outputs, Diagnosis(Cause.FEEDING, (fact,))
        off = {name: statistics(0.5) for name in tensors}
        judgement = Judgement(True, 0, 0.5, rms_z=100.0, tensor=tensors[0])
        found.append(LayerObservation(pair, 0, off, off, judgement, diagnosis=fed))
    given = verdicts(found, MEASURED, Healing(found, MEASURED, FP32, same=True), carried={})
    named = {s.pair.reference.outputs[0]: given.by_layer[s.number] for s in given.layers}
    assert (named["q"], named["i"], named["y"]) == ("culprit", expected, expected)
    assert named["c"] == "culprit"


MASKED = Model(
    parsed(
        "g (float[4,8] x) => (float[4,8] y) { m = Neg(x) a = Exp(x) b = Add(a, m) e = Tanh(b) "
        "c = Mul(e, m) y = Sin(c) }"
    )
).index


@pytest.mark.parametrize(
    ("layers", "spent"),
    [
        ({"b": INHERITS}, True),
        ({"b": INHERITS, "c": INHERITS, "y": INHERITS}, False),
        ({"b": INHERITS, "e": INHERITS, "c": INHERITS, "y": INHERITS}, False),
        ({"a": OFF, "b": INHERITS, "e": OFF, "c": INHERITS, "y": INHERITS}, False),
        ({"e": OFF, "c": INHERITS, "y": INHERITS}, True),
    ],
    ids=["right behind it", "off at an output", "all is off", "nothing is right again", "off for another reason"],
)
def test_a_mask_that_is_clamped_is_spent_where_all_is_right_again_but_for_other_faults(layers, spent):
    clamped = Diagnosis(Cause.SATURATION, (), clamped=True)
    found, _ = seen(MASKED, m={**OFF, "diagnosis": clamped}, **layers)
    assert bool(found.spent) is spent


@pytest.mark.parametrize(
    ("reference", "candidate", "in_play", "expected"),
    [
        (FP32, FP16, (FP32, FP16), FP16),
        (FP32, FP32, (FP32, BF16), BF16),
        (FP32, FP32, (FP32, INT8), FP32),  # quantizers in a graph round the same way on both sides
        (FP32, INT8, (FP32, INT8), INT8),
    ],
)
def test_the_coarsest_format_in_which_rounding_is_expected(reference, candidate, in_play, expected):
    assert coarsest(reference, candidate, in_play) is expected


@pytest.mark.parametrize(("fmt", "verdict"), [(FP32, "inherited"), (FP16, "ok")])
def test_what_rounding_alone_comes_to_is_not_inherited(fmt, verdict):
    assert seen(CHAIN, fmt=fmt, a=OFF, b={"cumulative": 1e-3}, c=INHERITS, d=INHERITS)[1]["b"] == verdict
