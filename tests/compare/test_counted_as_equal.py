"""What counts as agreement and shows little is told: infinities and NaN on both sides, samples without an element."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner, UsageError

from support.models import parsed

LOG = "g (float[N, 4] x) => (float[N, 4] y) { y = Log(x) }"
LOUDER = "g (float[N, 4] x) => (float[N, 4] y) { k = Constant<value_float = 1.1>() z = Log(x) y = Mul(z, k) }"


def compared(rows, other=LOG, **rules):
    data = [{"x": np.array(x, np.float32).reshape(-1, 4)} for x in rows]
    runners = [OnnxrtRunner()]
    return Comparator(parsed(LOG), runners, candidate_model=parsed(other), data_loader=data, **rules).compare()


def told(report, code):
    return [notice.text for notice in report.notices if notice.code == code]


@pytest.mark.parametrize(
    ("rows", "other", "rules", "text"),
    [
        (
            [[[0, 0, 0, 1]], [[1, 0, 0, 0]]],
            LOUDER,
            {},
            "Of 8 elements of the output 'y', 6 infinite on both sides, which counts as equal: little of it was "
            "compared.",
        ),
        (
            [[[0, -1, 2, 3, 5, 6, 7, 8]]],
            LOG,
            {"nan_equal": True},
            "Of 8 elements of the output 'y', 1 infinite and 1 NaN on both sides, which counts as equal.",
        ),
        ([[[1, 2, 3, 4]]], LOG, {}, None),
        (
            [[[0, 1, 2, 3]]],
            LOG,
            {},
            "Of 4 elements of the output 'y', 1 infinite on both sides, which counts as equal.",
        ),
    ],
)
def test_elements_that_are_not_finite_on_both_sides_are_told(rows, other, rules, text):
    assert told(compared(rows, other, **rules), "output-not-finite") == ([] if text is None else [text])


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([[1, 2, 3, 4], [], []], "2 of 3 samples were empty: "),
        ([[], [1, 2, 3, 4]], "1 of 2 samples was empty: "),
        ([[1, 2, 3, 4]], None),
        ([[], []], None),  # undecided
    ],
)
def test_samples_that_were_empty_are_told(rows, text):
    report = compared(rows)
    assert [line[: len(text or "")] for line in told(report, "samples-empty")] == ([] if text is None else [text])
    assert report.verdict == ("pass" if any(rows) else "undecided")


@pytest.mark.parametrize("value", ["false", "no", "0"])
def test_a_text_is_no_truth_value(value):
    with pytest.raises(UsageError, match=f"nan_equal='{value}': expected True or False."):
        compared([[1, 2, 3, 4]], nan_equal=value)
    with pytest.raises(UsageError, match=f"tf32='{value}': expected True or False."):
        OnnxrtRunner(tf32=value)


def test_rules_are_rules():
    with pytest.raises(UsageError, match="rules: expected Rules"):
        compared([[1, 2, 3, 4]], rules={"rtol": 1})
