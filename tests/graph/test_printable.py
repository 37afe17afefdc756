"""Numbers and what they count."""

from __future__ import annotations

import pytest
from layerdiff.graph.printable import counted, few, listed, share_of


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("tensor",), "0 tensors"),
        (1, ("tensor",), "1 tensor"),
        (1200, ("tensor",), "1,200 tensors"),
        (1, ("layer does", "layers do"), "1 layer does"),
        (2, ("layer does", "layers do"), "2 layers do"),
    ],
)
def test_one_is_no_plural(count, words, text):
    assert counted(count, *words) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.71, "100%"), (1.0, "100%"), (0.504, "50%"), (0.01, "1%"), (0.0099, "less than 1%"), (0.0, "less than 1%")],
)
def test_a_part_of_an_error_is_no_more_than_all_of_it_and_never_nothing(share, text):
    assert share_of(share) == text


@pytest.mark.parametrize(
    ("names", "some", "sentence"),
    [
        ("a", "a", "a"),
        ("abc", "a, b, c", "a, b and c"),
        ("abcd", "a, b, c and 1 more", "a, b, c and d"),
        ("abcde", "a, b, c and 2 more", "a, b, c and 2 more"),
    ],
)
def test_some_of_many_names_are_told(names, some, sentence):
    assert few([*names], 3) == some
    assert listed([*names], 3) == sentence
