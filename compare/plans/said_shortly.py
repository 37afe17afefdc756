"""What puts right what the first file says in few words: a number, an attribute, at one node or at several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...graph.pairing.changes import AttributeChange
from ...graph.pairing.weight_changes import WeightChange
from ...graph.printable import listed
from ..causes.differences import GraphsDiffer
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
    for fact in culprit.facts:
        if isinstance(fact, GraphsDiffer) and fact.node and 0 <= fact.difference.candidate_node < len(names):
            found.setdefault(names[fact.difference.candidate_node], []).append(fact.difference.change)
    return found


def of_known(cause: Cause, changes: Sequence[object], node: str, others: Mapping[str, Sequence[object]]) -> str:
    """What puts right what the first file says in few words: a number, attributes; empty of all else. ``others``: what
    differs at other nodes."""
    first = changes[0] if changes else None
    if isinstance(first, WeightChange) and first.meant and cause in OF_NUMBERS:
        numbers = (c for c in changes if isinstance(c, WeightChange) and c.meant)
        named = [("constant" if c.of_one == "value" else c.of_one, c.meant) for c in numbers]
        told = listed([f"the {name} of {node} to {value}" for name, value in named])
        return f"set {told}, as in the first file, or export the model again"
    attributes = [c for c in changes if isinstance(c, AttributeChange)]
    if cause is Cause.ATTRIBUTE and attributes and all(c.short for c in attributes):
        told = listed([f"{c.name} to {c.shown}" for c in attributes])
        same = [name for name, more in others.items() if [*map(str, more)] == [*map(str, attributes)]]
        at = f" at {listed([node, *same])}" if same else ""
        return f"set {told}{at}, as in the first file, or export the model again"
    if cause is Cause.ATTRIBUTE and len(attributes) > 1:
        return f"give {listed([c.name for c in attributes])} the first file's values, or export the model again"
    return ""
