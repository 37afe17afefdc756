"""Numbers and what they count."""

from __future__ import annotations

import pytest
from layerdiff.graph.printable import counted


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
