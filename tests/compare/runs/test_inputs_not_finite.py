"""Inputs that hold NaN or infinities: that is said once for each, whatever the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, DataLoader, OnnxrtRunner

from support.models import parsed

NETWORK = parsed("g (float[2, 3] a, float[2, 3] b) => (float[2, 3] y) { y = Add(a, b) }")


def told(*samples, network=NETWORK, **rules):
    runners = [OnnxrtRunner(threads=1), OnnxrtRunner(threads=1, optimization="disable")]
    report = Comparator(network, runners, data_loader=list(samples), **rules).compare()
    return report.verdict, [(n.subject, n.text) for n in report.notices if n.code == "input-not-finite"]


def sample(**holes):
    made = {name: np.ones((2, 3), np.float32) for name in ("a", "b")}
    for name, values in holes.items():
        made[name].flat[-len(values) :] = values
    return made


def test_of_finite_inputs_nothing_is_said():
    assert told(sample(), sample()) == ("pass", [])


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ([sample(b=[np.nan])], "1 NaN, at [1, 2] of sample 0"),
        ([sample(), sample(b=[-np.inf, 2])], "1 infinity, at [1, 1] of sample 1"),
        ([sample(), sample(b=[np.nan, np.nan]), sample(b=[np.inf, 1, 1])],
         "2 NaN and 1 infinity in 2 samples, first at [1, 1] of sample 1"),
    ],
)  # fmt: skip
def test_of_others_it_is_said_how_many_they_are_and_where(samples, text):
    for rules in ({}, {"nan_equal": True}):
        _, notices = told(*samples, **rules)
        assert notices == [("b", f"The input 'b' itself holds {text}; every side was given that.")]


MASKED = parsed("g (float[2, 3] a, float[2, 3] b) => (float[2, 3] y) { m = Add(a, b) y = Softmax(m) }")


@pytest.mark.parametrize(
    ("network", "values", "said"),
    [
        (MASKED, [-np.inf], False),
        (MASKED, [-np.inf] * 3, True),
        (MASKED, [np.inf], True),
        (MASKED, [np.nan], True),
        (NETWORK, [-np.inf], True),
        (parsed("g (float[2, 3] a, float[2, 3] b) => (float[2, 3] y) { m = Add(a, b) y = Relu(m) }"), [np.inf], True),
    ],
    ids=["a mask", "a row that is all masked", "positive", "NaN", "in the output", "in the output, positive"],
)
def test_a_mask_that_leaves_outputs_finite_is_nothing_to_be_said(network, values, said):
    assert bool(told(sample(b=values), network=network)[1]) == said


def test_each_input_is_named():
    assert [name for name, _ in told(sample(a=[np.nan], b=[np.inf]))[1]] == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "verdict", "told"),
    [
        ({}, "undecided", "the sizes of 'x' and the ranges of 'x' were guessed"),
        ({"shapes": {"x": (2, 3)}}, "undecided", "the ranges of 'x' were guessed"),
        ({"float_range": (0, 1)}, "undecided", "the sizes of 'x' were guessed"),
        ({"shapes": {"x": (2, 3)}, "float_range": (0, 1)}, "fail", "NaN on both sides"),
    ],
)
def test_a_reference_without_a_result_for_inputs_that_were_guessed_proves_nothing(words, verdict, told):
    network = parsed("g (float[N, 3] x) => (float[N, 3] y) { none = Sub(x, x) y = Div(none, none) }")
    runners = [OnnxrtRunner(threads=1), OnnxrtRunner(threads=1, optimization="disable")]
    report = Comparator(network, runners, data_loader=DataLoader(samples=1, **words)).compare()
    assert report.verdict == verdict
    assert told in (report.outputs[0].reason or "")


@pytest.mark.parametrize(
    ("words", "culprits"), [({}, []), ({"shapes": {"x": (2, 3)}, "float_range": (0, 1)}, ["ratio"])]
)
def test_who_makes_nan_of_what_was_guessed_is_told_and_is_no_culprit(words, culprits):
    network = parsed(
        "g (float[N, 3] x) => (float[N, 3] y) { [none] m = Sub(x, x) [ratio] r = Div(m, m) [last] y = MatMul(r, c) }",
        c=np.ones((3, 3), np.float32),
    )
    runners = [OnnxrtRunner(threads=1), OnnxrtRunner(threads=1, optimization="disable")]
    report = Comparator(network, runners, data_loader=DataLoader(samples=1, **words), layers="guilty").compare()
    assert [c.node for c in report.culprits] == culprits
    notices = [n.text for n in report.notices if n.code == "no-result"]
    assert len(notices) == (not culprits)
    assert all("6 values of 'r' are NaN" in text and "first at ratio" in text for text in notices)
