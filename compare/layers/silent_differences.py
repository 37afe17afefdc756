"""Numbers in which the two graphs differ where no layer is to blame for it: another epsilon beside rounding to FP16.

What a conversion does by itself is none: a number that is rounded to a narrow format, one that is beyond the range of
it and set to its ends, numbers that together come to the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...graph.pairing.changes import AttributeChange
from ...graph.pairing.weight_changes import WeightChange
from ..causes.differences import GraphsDiffer

if TYPE_CHECKING:
    from ...graph.pairing.differences import Difference
    from ..report.model import Culprit
    from .prepare import Prepared
    from .verdicts import Verdicts

ROUNDED = 2.0**-8
"""Relative distance of two numbers that rounding to BF16 explains."""
TINY, HUGE = 2.0**-22, 1e4
"""Numbers so small that converters to FP16 set them to zero or to their least one, and so large, as those of masks,
that they set them to others which do the same."""


def silent_differences(
    prepared: Prepared, given: Verdicts, culprits: Sequence[Culprit]
) -> Iterator[tuple[int, Difference]]:
    """Positions in the reference's graph and what differs there, of layers that do what they should.

    Args:
        prepared: Who was walked.
        given: The verdicts on the layers.
        culprits: Who is to blame, with the differences that are told already.
    """
    facts = (fact for c in culprits for fact in c.facts if isinstance(fact, GraphsDiffer))
    told = {(fact.difference.node, fact.difference.name) for fact in facts}
    for s in (s for s in given.layers if given.by_layer[s.number] == "ok"):
        stated = [item for item in prepared.judge.examiner.stated(s.pair) if item[1].expected_by_format is None]
        if len(stated) != 1:  # of several, one may take back another
            continue
        ((position, difference),) = stated
        place = difference.node, difference.name
        if place not in told and _is_another_number(difference):
            told.add(place)
            yield position, difference


def _is_another_number(difference: Difference) -> bool:
    """Whether one number differs, in more than what converting it to another format does."""
    change = difference.change
    if isinstance(change, AttributeChange):
        values = change.reference, change.candidate
    elif isinstance(change, WeightChange) and difference.of_one_value and change.values is not None:
        values = change.values
    else:
        return False
    if not all(isinstance(v, float) for v in values):
        return False
    x, y = values
    small, large = max(abs(x), abs(y)) <= TINY, min(abs(x), abs(y)) >= HUGE and x * y > 0
    return not (small or large or abs(x - y) <= ROUNDED * abs(x))
