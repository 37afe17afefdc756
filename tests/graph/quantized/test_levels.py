"""How far apart the levels of small floats and of codebooks are."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.quantized.levels import levels_of_type, spacing, stored_levels

from support.models import parsed


@pytest.mark.parametrize(
    ("dtype", "count", "greatest", "value", "apart"),
    [
        ("float8_e4m3fn", 253, 448.0, [448, -300, 1, 1.9, 0.99, 0, 1000], [32, 32, 0.125, 0.125, 0.0625, 2.0**-9, 32]),
        ("float8_e5m2", 247, 57344.0, [1, -3], [0.25, 0.5]),
        ("float4_e2m1fn", 15, 6.0, [5, 2, -1], [2, 1, 0.5]),
    ],
)
def test_levels_of_small_floats_are_as_far_apart_as_their_size_says(dtype, count, greatest, value, apart):
    levels = levels_of_type(dtype)
    assert (len(levels), levels[-1], levels[0]) == (count, greatest, -greatest)
    np.testing.assert_array_equal(spacing(levels, np.array(value, float)), apart)


def test_a_level_between_two_gaps_has_the_greater_one():
    np.testing.assert_array_equal(spacing(np.array([0.0, 1.0, 4.0]), np.array([0.0, 1.0, 2.0, 4.0])), [1, 3, 3, 3])


BOOK, MANY = np.linspace(-1, 1, 16, dtype=np.float32), np.zeros((32, 32), np.uint8)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("j = Cast <to=7> (i)  w = Gather(b, j)  y = MatMul(x, w)", True),
        ("j = Cast <to=7> (i)  w = Gather(t, j)  y = ReduceSum(w)", False),
        ("j = Cast <to=7> (x)  w = Gather(b, j)  y = MatMul(x, w)", False),
    ],
    ids=["codebook", "large table", "computed numbers"],
)
def test_only_a_small_table_read_at_stored_places_is_a_codebook(text, found):
    tables = {"b": BOOK, "t": np.zeros(1000, np.float32), "i": MANY}
    index = GraphIndex(parsed(f"g (float[32, 32] x) => (float[32, 32] y) {{ {text} }}", **tables))
    assert (stored_levels(index, 1) is not None) == found
