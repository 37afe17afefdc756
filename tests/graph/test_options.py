"""One declaration of an option: how its text is read, and which values are legal in Python and on the command line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from layerdiff import DataError, UsageError
from layerdiff.graph.options import (
    Axes,
    Choice,
    Kind,
    Named,
    Names,
    Number,
    Pair,
    Renamed,
    Size,
    Whole,
    check,
    option,
    options,
)

RANGE = Pair("LO,HI", ordered=True)
INTEGERS = Pair("LO,HI", ordered=True, whole=True)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Kind(), "anything", "anything"),
        (Choice("guilty", "all"), "all", "all"),
        (Choice("FP16", "int8"), "fP16", "FP16"),
        (Whole(0), "0", 0),
        (Whole(0, 5), "5", 5),
        (Whole(), "-3", -3),
        (Number(-math.inf), "-0.5", -0.5),
        (Number(50, 100), "99.9", 99.9),
        (Whole(0), "+7", 7),
        (Number(), "1e-3", 1e-3),
        (Size(), "512MB", 512 * 10**6),
        (Size(), "2GiB", 2 << 30),
        (Names(), "a, b,", ("a", "b")),
        (RANGE, "-1,1", (-1, 1)),
        (RANGE, "0.5,0.5", (0.5, 0.5)),
        (RANGE, "0,9007199254740993", (0, 9007199254740993)),
        (INTEGERS, "-5,6", (-5, 6)),
        (Named(RANGE, "NAME:LO,HI"), "x:0:0,1", ("x:0", (0, 1))),
        (Axes(), "0,2,3,1", (0, 2, 3, 1)),
        (Named(Axes(), "NAME:AXES"), "x:0:1,0", ("x:0", (1, 0))),
        (Renamed("NAME=NAME2"), "x:0=y:1", ("x:0", "y:1")),
        (Renamed("NAME=NAME2"), "x=y=z", ("x", "y=z")),
    ],
)
def test_text_is_read(kind, text, value):
    assert kind.read(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Choice("guilty", "all"), "some", "expected guilty or all"),
        (Choice("a", "b", "c"), "d", "expected a, b or c"),
        (Choice("cpu", "cuda"), "CUDE", "expected cpu or cuda; did you mean cuda?"),
        (Axes(), "0,2", "expected axes in another order, such as 0,2,3,1"),
        (Axes(), "NCHW", "expected axes in another order, such as 0,2,3,1"),
        (Renamed("NAME=NAME2"), "x", "expected NAME=NAME2"),
        (Renamed("NAME=NAME2"), "x=", "expected NAME=NAME2"),
        (Whole(), "x", "expected a whole number"),
        (Number(-math.inf), "x", "expected a number"),
        (Whole(0, 5), "6", "expected a whole number from 0 to 5"),
        (Number(50, 100), "49", "expected a number from 50 to 100"),
        (Whole(1), "0", "expected a whole number, 1 or more"),
        (Whole(1), "1.5", "expected a whole number, 1 or more"),
        (Number(), "tight", "expected a number, 0 or more"),
        (Number(), "-1", "expected a number, 0 or more"),
        (Number(), "nan", "expected a number, 0 or more"),
        (Size(), "0MB", "expected a size such as 512MB or 2GiB"),
        (RANGE, "1", "expected LO,HI, two numbers"),
        (RANGE, "0,inf", "both numbers must be finite"),
        (RANGE, "2,1", "the range is empty, 2 is more than 1"),
        (INTEGERS, "0,1.5", "expected LO,HI, two whole numbers"),
        (INTEGERS, "5,5", "the range is empty, since 5 is not included"),
        (Pair("A,B", least=0), "1,-1", "expected A,B, two numbers, 0 or more"),
        (Named(RANGE, "NAME:LO,HI"), ":0,1", "expected NAME:LO,HI"),
        (Named(RANGE, "NAME:LO,HI"), "x:1", "expected NAME:LO,HI"),
        (Named(RANGE, "NAME:LO,HI"), "x:2,1", "the range is empty, 2 is more than 1"),
    ],
)
def test_text_that_means_nothing_is_refused(kind, text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        kind.read(text)


@dataclass(frozen=True)
class Configuration:
    count: int = option(1, "--count", "how many", Whole(1), "numbers")
    ends: tuple[float, float] | None = option(None, "--ends", "from where to where", RANGE)
    limits: dict[str, tuple[float, float]] = option(dict, "--limit", "by name", Named(RANGE, "NAME:LO,HI"))
    word: Any = option("", "--word", "whatever")
    inner: int = field(default=0)
    sure: bool = option(False, "--sure", "whether it is")


def test_options_are_the_fields_that_declare_a_flag():
    assert [f.metadata["flag"] for f in options(Configuration)] == ["--count", "--ends", "--limit", "--word", "--sure"]
    assert Configuration() == Configuration(1, None, {}, "", 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count=0: expected a whole number, 1 or more."),
        ({"count": True}, "count=True: expected a whole number, 1 or more."),
        ({"ends": (2, 1)}, "ends=(2, 1): the range is empty, 2 is more than 1."),
        ({"ends": 5}, "ends=5: expected LO,HI, two numbers."),
        ({"count": "a"}, "count=a: expected a whole number, 1 or more."),
        *(({"sure": value}, f"sure={value!r}: expected True or False.") for value in ("false", "no", "0", "", 1, None)),
        ({"limits": 3}, "limits: expected NAME:LO,HI."),
        ({"limits": {"x": "a"}}, "limits: x: expected LO,HI, two numbers."),
        ({"limits": {"x": (0, 1), "y": (1, 0)}}, "limits: y: the range is empty, 1 is more than 0."),
    ],
)
@pytest.mark.parametrize("error", [UsageError, DataError])
def test_values_are_refused_by_the_same_rules(values, message, error):
    with pytest.raises(error) as caught:
        check(Configuration(**values), error)
    assert str(caught.value) == message


def test_legal_values_pass():
    check(Configuration(3, (0, 1), {"x": (0, 0)}, object(), sure=True))
    check(Configuration(sure=np.bool_(True)))


def test_a_name_stands_for_one_name_and_one_name_for_it():
    renamed = Renamed("NAME=NAME2")
    assert renamed.collect([("a", "b"), ("c", "d"), ("a", "b")]) == {"a": "b", "c": "d"}
    with pytest.raises(ValueError, match="'a' cannot be both 'b' and 'c'"):
        renamed.collect([("a", "b"), ("a", "c")])
    with pytest.raises(ValueError, match="'c' cannot be both 'a' and 'b'"):
        renamed.check({"a": "c", "b": "c"})
