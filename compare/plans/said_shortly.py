"""What puts right what the first file says in few words: a number, an attribute, at one node or at several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...graph.pairing.changes import AttributeChange
from ...graph.pairing.weight_changes import WeightChange
from ...graph.printable import listed
from ..causes.differences import GraphsDiffer
from ..layers.moved_together import GoesWithSize, SameAt
from ..report.model import Cause

if TYPE_CHECKING:
    from ..report.model import Culprit
    from ..sides import Side

OF_NUMBERS = (Cause.WEIGHTS, Cause.SCALE, Cause.QUANTIZATION, Cause.ATTRIBUTE)
"""Causes that one number which is another one may be."""


def beside(culprit: Culprit, side: Side) -> dict[str, list[object]]:
    """What differs at other nodes of a culprit's layer, by their names in the second file."""
    found: dict[str, list[object]] = {}
    names = side.model.index.names
    told = [fact for fact in culprit.facts if isinstance(fact, GraphsDiffer)]
    for fact in culprit.facts:
        if isinstance(fact, SameAt):
            changes = [first.difference.change for first in told if not first.node]
            found.update((names[twin], [*changes]) for twin in fact.twins)
        elif isinstance(fact, GraphsDiffer) and fact.node and 0 <= fact.difference.candidate_node < len(names):
            found.setdefault(names[fact.difference.candidate_node], []).append(fact.difference.change)
    return found


def following(culprit: Culprit) -> list[str]:
    """Numbers that go with a size that a culprit has otherwise, as they are to be set."""
    facts = (fact for fact in culprit.facts if isinstance(fact, GoesWithSize))
    return [f"the factor of {listed(fact.nodes)} to {fact.numbers[0]:.6g}" for fact in facts]


def of_known(
    cause: Cause,
    changes: Sequence[object],
    node: str,
    others: Mapping[str, Sequence[object]],
    follows: Sequence[str] = (),
) -> str:
    """What puts right what the first file says in few words: a number, attributes; empty of all else. ``others``: what
    differs at other nodes; ``follows``: see `following`."""
    first = changes[0] if changes else None
    if isinstance(first, WeightChange) and first.meant and cause in OF_NUMBERS:
        numbers = (c for c in changes if isinstance(c, WeightChange) and c.meant)
        named = [("constant" if c.of_one == "value" else c.of_one, c.meant) for c in numbers]
        told = listed([f"the {name} of {node} to {value}" for name, value in named])
        return f"set {told}, as in the first file, or export the model again"
    attributes = [c for c in changes if isinstance(c, AttributeChange)]
    if cause is Cause.ATTRIBUTE and attributes and all(c.short for c in attributes):
        told = _set(attributes)
        same = [name for name, more in others.items() if [*map(str, more)] == [*map(str, attributes)]]
        at = f" at {listed([node, *same])}" if same else ""
        further = [f"{_set(more)} at {name}" for name, more in others.items() if name not in same and _set(more)]
        also = "".join(f", and {text}" for text in (*further, *follows))
        return f"set {told}{at}{also}, as in the first file, or export the model again"
    if cause is Cause.ATTRIBUTE and len(attributes) > 1:
        return f"give {listed([c.name for c in attributes])} the first file's values, or export the model again"
    return ""


def _set(changes: Sequence[object]) -> str:
    """What to set, where attributes of a node are others; empty where something else is, too."""
    attributes = [c for c in changes if isinstance(c, AttributeChange) and c.short]
    return listed([f"{c.name} to {c.shown}" for c in attributes]) if len(attributes) == len(changes) else ""
