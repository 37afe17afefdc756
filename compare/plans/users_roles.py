"""Culprits of a quantized reference, told in the user's roles.

Its layers are held against those of a candidate in floating point, which takes the reference's place: what is told of
them, and what puts them right, speaks of the files the other way round. The user believes the first file all the same,
and it is the second one that is to be changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...graph.pairing.changes import AttributeChange
from ...graph.pairing.weight_changes import WeightChange
from ...graph.pairing.weight_patterns import BeyondSteps, Scaled, StoredScaled
from ..causes.differences import GraphsDiffer
from ..causes.saturation import BeyondCalibration, CalibratedBehind
from ..report.model import Cause

if TYPE_CHECKING:
    from ...graph.pairing.differences import Difference
    from ...graph.pairing.weight_patterns import Pattern
    from ..report.model import Culprit, Fact

OF_SCALES = (Cause.QUANTIZATION, Cause.SATURATION)
"""Causes that are those of the quantized file, whichever is believed."""
OTHER = {
    "first file": "second file",
    "second file": "first file",
    "reference": "candidate",
    "candidate": "reference",
}
_ROLES = re.compile(rf"\b({'|'.join(OTHER)})\b")


@dataclass(frozen=True)
class OtherWayRound:
    """A fact that tells of the files the other way round.

    Attributes:
        fact: The fact.
    """

    fact: Fact

    @property
    def text(self) -> str:
        """See `Fact`."""
        told = _exchanged(self.fact.text)
        return f"{told} (the second file's first)" if " against " in told else told


def in_users_roles(culprit: Culprit) -> Culprit:
    """A culprit of a quantized reference that is held against the candidate, as the user sees the two."""
    facts = tuple(_told(fact) for fact in culprit.facts if not isinstance(fact, CalibratedBehind))
    remedies = tuple(replace(remedy, text=_remedy(culprit, remedy.text)) for remedy in culprit.remedies)
    return replace(culprit, facts=facts, remedies=remedies)


def _told(fact: Fact) -> Fact:
    if isinstance(fact, BeyondCalibration):
        return fact  # of one file alone
    turned = _turned(fact.difference) if isinstance(fact, GraphsDiffer) else None
    if turned is None or not isinstance(fact, GraphsDiffer):
        return OtherWayRound(fact)
    return replace(fact, difference=turned)


def _turned(difference: Difference) -> Difference | None:
    """A difference with its sides exchanged; None where that is more than to exchange two values."""
    change = difference.change
    if isinstance(change, AttributeChange):
        given = (change.given[1], change.given[0])
        other = replace(change, reference=change.candidate, candidate=change.reference, given=given)
        return replace(difference, change=other)
    if not isinstance(change, WeightChange) or change.rounded_to is not None or change.cut:
        return None
    patterns = [_inverted(pattern) for pattern in change.patterns]
    if None in patterns or change.where is not None:
        return None
    swapped = replace(
        change,
        shape=change.candidate_shape,
        candidate_shape=change.shape,
        values=None if change.values is None else (change.values[1], change.values[0]),
        patterns=tuple(pattern for pattern in patterns if pattern is not None),
    )
    return replace(difference, change=swapped)


def _inverted(pattern: Pattern) -> Pattern | None:
    """What explains a change from the other side; None where this does not."""
    if isinstance(pattern, BeyondSteps):
        return pattern
    if isinstance(pattern, (Scaled, StoredScaled)) and pattern.factor:
        return replace(pattern, factor=1 / pattern.factor)
    return None


def _remedy(culprit: Culprit, text: str) -> str:
    """What puts the second file right, or the first one where that is not to be believed."""
    node, first = culprit.node, culprit.candidate_node
    first = "it" if first in (None, node) else str(first)
    if culprit.cause in OF_SCALES:
        return f"in the first file, {_exchanged(text)}"
    again = "where the second file is right, quantize it again"
    if culprit.cause is Cause.WEIGHTS:
        changes = [fact.difference.change for fact in culprit.facts if isinstance(fact, GraphsDiffer)]
        nouns = dict.fromkeys(change.noun for change in changes if isinstance(change, WeightChange))
        what = " and ".join(nouns) or "weights"
        return f"give {node} of the second file the {what} that {first} has in the first, dequantized; {again}"
    if culprit.cause is Cause.ATTRIBUTE:
        return f"give the attributes of {node} in the second file the values that {first} has in the first; {again}"
    return f"put {node} of the second file right, as {first} is in the first; {again}"


def _exchanged(text: str) -> str:
    return _ROLES.sub(lambda found: OTHER[found.group(1)], text)
