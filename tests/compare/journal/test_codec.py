"""Values as bytes and back: nothing changes on the way, and nothing that is read is run."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.journal.codec import Unreadable, decoded, encoded
from layerdiff.compare.journal.sessions import Facts
from layerdiff.compare.report.model import Cause, Notice
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.formats import FP16
from layerdiff.graph.specs import TensorSpec
from layerdiff.runners.contract.session import SessionInfo


def there_and_back(value):
    return decoded(memoryview(encoded(value)))


SPEC = TensorSpec("x", np.dtype(np.float32), (None, "n", 3))


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(2**70), 0.1, -0.0, math.inf, "", "é\udcff\n", b"\x00\xff", 1 + 2j,
        (), (1, (2, [3])), {"a": 1, 2: "b", (3, None): {}}, {1, 2}, frozenset({"a", "b"}), {"array": 1}, {"tuple": []},
        np.dtype(ml_dtypes.bfloat16), Cause.OVERFLOW, FP16, Notice("code", "subject", "text"), SPEC,
        Facts((SPEC,), (), SessionInfo({"a": [1]}, {}, ("note",), frozenset({"n"}), (frozenset({1, 2}),))),
    ],
)  # fmt: skip
def test_a_value_comes_back_as_it_was(value):
    found = there_and_back(value)
    assert found == value
    assert type(found) is type(value)


def test_a_number_that_is_none_comes_back():
    assert math.isnan(there_and_back(math.nan))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T, np.array(1.5), np.zeros((0, 3), np.int8),
        np.array([np.nan, -0.0, np.inf]), np.array([True, False]), np.arange(3, dtype=">i4"),
        np.arange(4).astype(ml_dtypes.bfloat16), np.arange(4).astype(ml_dtypes.float8_e4m3fn),
        np.arange(4).astype(ml_dtypes.int4), np.array([1 + 2j], np.complex64), np.float64(0.1), np.int8(-3),
    ],
)  # fmt: skip
def test_an_array_comes_back_bit_by_bit(array):
    found = there_and_back([array])[0]
    assert (type(found), found.dtype, found.shape) == (type(array), array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


def test_strings_come_back():
    array = np.array([["a", b"b"], ["", "é"]], object)
    assert there_and_back(array).tolist() == array.tolist()


def test_statistics_come_back_and_go_on():
    x = np.linspace(-1, 1, 100, dtype=np.float32)
    seen = Statistics().update(x, x + np.float32(1e-3))
    found = there_and_back(seen)
    assert found.update(x, x * 2, sample=1).metrics() == seen.update(x, x * 2, sample=1).metrics()


def test_an_array_can_be_written_to():
    there_and_back(np.zeros(3))[0] = 1


@dataclass
class Stranger:
    x: int = 0


@pytest.mark.parametrize("value", [object(), Stranger(), lambda: 0, {"a": os}, np.array([object()], object)])
def test_what_is_not_of_this_package_is_not_kept(value):
    with pytest.raises(TypeError, match="cannot be kept"):
        encoded(value)


def written(text: str) -> memoryview:
    content = text.encode()
    return memoryview(len(content).to_bytes(8, "little") + content)


@pytest.mark.parametrize(
    "text",
    [
        "", "[", '{"object": ["os:system", {}]}', '{"object": ["graph.errors:LayerdiffError", {}]}',
        '{"object": ["compare.cli.command:main", {}]}', '{"object": ["benchmarks.kit:x", {}]}',
        '{"object": ["__main__:x", {}]}', '{"enum": ["compare.report.model:Cause", "no such cause"]}',
        '{"value": 1}', '{"_class__": 1}', '{"array": ["<f4", [4], 0, 16]}', '{"array": ["O", [1], 0, 0]}',
        '{"float": "nil"}', '{"a": 1, "b": 2}', '{"named": ["compare.report.model:Notice", []]}',
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused_and_not_run(text):
    with pytest.raises(Unreadable):
        decoded(written(text))


def test_equal_values_are_equal_bytes_whatever_the_order_of_a_set():
    assert encoded({str(i) for i in range(99)}) == encoded({str(i) for i in reversed(range(99))})
