"""Layers that draw random values cannot be compared by these: what the graphs say of them is all there is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..causes import random_draws

if TYPE_CHECKING:
    from .prepare import Prepared
    from .verdicts import Verdicts


def blaming(prepared: Prepared, given: Verdicts) -> Verdicts:
    """The verdicts with the layers as culprits that are told to draw other random values.

    Args:
        prepared: Who was walked.
        given: The verdicts so far.
    """
    index, stated = prepared.comparison.reference.model.index, prepared.judge.examiner.stated
    for s in given.layers:
        told = random_draws.find(index, stated(s.pair)) if s.pair.random else None
        if told is not None:
            given = given.knowing([replace(s, diagnosis=told)]).blaming(s.number)
    return given
