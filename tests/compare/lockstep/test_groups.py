"""Which layers run together in one engine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from layerdiff.compare.lockstep.groups import MOST, together
from layerdiff.graph.cutting.repeats import blocks


def sizes(count, kinds="", **options):
    borders = {border for block in blocks(kinds, MOST) for border in block}
    pairs = [SimpleNamespace(number=n) for n in range(count)]
    return [len(group) for group in together(pairs, borders=borders, **options)]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("", [18, 18, 18, 18, 18, 18, 19]),  # nothing is known: almost one size
        ("abcdefghijklmnopqrst" * 6 + "z", [20] * 6 + [1]),
        ("zz" + "abcdefghijklmno" * 6, [2] + [15] * 6),
        ("abcdefgh" * 12, [16] * 6),  # two of twelve small blocks
        (("abcdefghijklmnopqrstuvwxyz" + "0123456789") * 4, [18] * 8),  # halves of large blocks
        ("abcdefghij" * 2, [20]),  # no engine is saved
        ("ab" * 31, [20, 20, 20, 2]),
        ("abc" * 5 + "xyz", [18]),
        ("abcdefghijklmnop" * 3 + "qrstuvwxyz01234567" * 3, [16] * 3 + [18] * 3),
    ],
)
def test_blocks_that_repeat_are_groups(kinds, expected):
    assert sizes(len(kinds) or 127, kinds=kinds) == expected


def test_groups_that_are_refused_are_halved():
    block = tuple(range(20, 40))
    kinds = "abcdefghijklmnopqrst" * 3
    assert sizes(60, kinds=kinds, refused={block}) == [20, 10, 10, 20]
    assert sizes(60, kinds=kinds, refused={block, block[:10]}) == [20, 5, 5, 10, 20]


def test_every_layer_is_in_one_group():
    for count in (0, 1, 19, 41, 121):
        pairs = [SimpleNamespace(number=n) for n in range(count)]
        for kinds in ("", "ab" * 100, "abcdefghijklmnopqrstu" * 10):
            borders = {border for block in blocks(kinds[:count], MOST) for border in block}
            groups = together(pairs, borders=borders)
            assert [pair.number for group in groups for pair in group] == list(range(count))
