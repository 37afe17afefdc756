"""Inputs that prove little: one value throughout, nothing but zeros, and no ranges to calibrate to."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from layerdiff import Comparator, DataError, DataLoader, EmulateRunner, OnnxrtRunner
from layerdiff.compare.notices import INPUT_CONSTANT

from support.models import parsed

MODEL = """g (float[N, 16] x, float[N, 16] z, int64[N, 16] mask) => (float[N, 16] y) {
  m = Cast<to = 1>(mask) a = Mul(x, m) y = Add(a, z) }"""
SHAPE = (2, 16)
ZEROS, VARIED = np.zeros(SHAPE, np.float32), np.arange(32, dtype=np.float32).reshape(SHAPE)
ONES = np.ones(SHAPE, np.int64)


def compared(*samples):
    data = [dict(zip(("x", "z", "mask"), sample, strict=True)) for sample in samples]
    report = Comparator(parsed(MODEL), [OnnxrtRunner(), OnnxrtRunner()], data_loader=data).compare()
    return report.verdict, [n.subject for n in report.notices if n.code == INPUT_CONSTANT]


@pytest.mark.parametrize(
    ("samples", "verdict", "told"),
    [
        ([(ZEROS, ZEROS, ONES)], "undecided", ["x"]),
        ([(ZEROS, ZEROS, 0 * ONES), (ZEROS, ZEROS, ONES)], "undecided", ["x"]),
        ([(ZEROS, ZEROS, ONES), (VARIED, ZEROS, ONES)], "pass", ["z"]),
        ([(ZEROS, ZEROS, ONES), (ZEROS + 1, VARIED, ONES)], "pass", []),
        ([(VARIED, ZEROS + 3, ONES)], "pass", ["z"]),
        ([(ZEROS, ZEROS, 7 * ONES)], "pass", ["x", "z"]),  # token ids say something
        ([(VARIED, VARIED, ONES)], "pass", []),
    ],
)
def test_inputs_of_one_value(samples, verdict, told):
    assert compared(*samples) == (verdict, told)


def test_random_inputs_that_are_zero_show_nothing_either():
    loader = DataLoader(float_range=(0.0, 0.0))
    model = parsed("g (float[N, 16] x) => (float[N, 16] y) { w = Constant<value_float = 2.0>() y = Add(x, w) }")
    report = Comparator(model, [OnnxrtRunner(), OnnxrtRunner()], data_loader=loader).compare()
    assert report.verdict == "undecided"
    assert not [n for n in report.notices if n.code == INPUT_CONSTANT], "whoever asks for zeros knows it"


DEAD = """g (float[N, 16] x, float[N, 16] z) => (float[N, 16] y) {
  w = Constant<value_float = -100.0>() a = Add(x, w) b = Relu(a) c = Exp(b) y = Add(c, %s) }"""


@pytest.mark.parametrize(
    ("adds", "samples", "rows"),
    [
        ("w", [(VARIED, VARIED)], 2),
        ("w", [(VARIED[:1], VARIED[:1]), (VARIED[1:], VARIED[1:])], 2),
        ("w", [(VARIED[:1], VARIED[:1])], None),  # one row is like itself
        ("w", [(ZEROS + 1, ZEROS + 2)], None),  # the inputs do not differ either
        ("z", [(VARIED, VARIED)], None),
        ("z", [(VARIED, ZEROS)], 2),
    ],
)
def test_an_output_that_is_the_same_in_all_rows_is_told(adds, samples, rows):
    data = [{"x": x, "z": z} for x, z in samples]
    report = Comparator(parsed(DEAD % adds), [OnnxrtRunner(), OnnxrtRunner()], data_loader=data).compare()
    told = [notice.text for notice in report.notices if notice.code == "output-constant"]
    assert len(told) == (rows is not None)
    assert all(f"is the same in all {rows} rows, though the inputs differ" in text for text in told)


def test_a_scalar_of_text_is_an_output_like_any_other():
    model = parsed("g (string x) => (string y) { y = Identity(x) }")
    data = [{"x": np.array("a", object)}]
    assert Comparator(model, [OnnxrtRunner(), OnnxrtRunner()], data_loader=data).compare().verdict == "pass"


@pytest.mark.parametrize("layers", [None, "all"])
def test_an_output_that_a_node_does_not_give_is_none(layers):
    model = parsed(
        "g (float[1, 3, 2] x) => (float[1, 3, 5] y) { h, y = GRU <hidden_size = 5> (x, w, r) }",
        w=np.ones((1, 15, 2), np.float32),
        r=np.ones((1, 15, 5), np.float32),
    )
    model.graph.node[0].output[0] = ""
    assert Comparator(model, [OnnxrtRunner(), OnnxrtRunner()], layers=layers).compare().verdict == "pass"


def test_few_zeros_are_an_input_like_any_other():
    model = parsed("g (float[N] x) => (float[N] y) { y = Exp(x) }")
    for count, verdict in ((8, "pass"), (9, "undecided")):
        data = [{"x": np.zeros(count, np.float32)}]
        assert Comparator(model, [OnnxrtRunner(), OnnxrtRunner()], data_loader=data).compare().verdict == verdict


def test_nothing_but_nan_proves_nothing_though_it_equals_nan():
    model = parsed("g (float[N, 16] x) => (float[N, 16] y) { y = Neg(x) }")
    for array, verdict in ((ZEROS + np.nan, "undecided"), (np.where(VARIED == 3, np.nan, VARIED), "pass")):
        runners, data = [OnnxrtRunner(), OnnxrtRunner()], [{"x": array.astype(np.float32)}]
        assert Comparator(model, runners, data_loader=data, nan_equal=True).compare().verdict == verdict


def test_a_single_number_is_nothing_strange():
    model = parsed("g (float[N, 16] x, float[1] t) => (float[N, 16] y) { y = Add(x, t) }")
    data = [{"x": VARIED, "t": np.zeros(1, np.float32)}]
    report = Comparator(model, [OnnxrtRunner(), OnnxrtRunner()], data_loader=data).compare()
    assert (report.verdict, report.notices) == ("pass", ())


def test_what_depends_on_no_input_is_judged_all_the_same():
    model = parsed("""g (float[N, 16] x) => (float[N, 16] y, float[1] z) {
      y = Neg(x) one = Constant<value = float[1] {1}>() z = Neg(one) }""")
    report = Comparator(model, [OnnxrtRunner(), OnnxrtRunner()], data_loader=[{"x": ZEROS}]).compare()
    assert [output.verdict for output in report.outputs] == ["undecided", "pass"]


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([VARIED, np.full(SHAPE, np.nan, np.float32)], "32 of 32 values of 'x' are NaN in sample 1"),
        ([np.where(VARIED == 3, np.nan, VARIED)], "1 of 32 values of 'x' are NaN in sample 0"),
        ([VARIED[:0]], "sample 0 has no rows"),
        ([np.where(VARIED == 3, -np.inf, VARIED)], None),  # as masks have them
    ],
)
def test_what_no_range_is_found_on_is_refused(calibration, message):
    model = parsed("g (float[N, 16] x) => (float[N, 16] y) { y = Neg(x) }")
    data = [{"x": array} for array in calibration]
    comparator = Comparator(
        model,
        [OnnxrtRunner(), EmulateRunner(format="int8")],
        data_loader=[{"x": VARIED}],
        calibration_data=data,
        rtol=0.1,
        atol=1,
    )
    with nullcontext() if message is None else pytest.raises(DataError, match=message):
        comparator.compare()
