"""Outputs that are undecided since FP16, by the graph's types, cannot hold what the runtime carries on: who is it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..causes import out_of_range

if TYPE_CHECKING:
    from ..report.model import OutputResult
    from .prepare import Prepared
    from .verdicts import Verdicts


def blaming(prepared: Prepared, given: Verdicts, outputs: Sequence[OutputResult]) -> Verdicts:
    """The verdicts with the layers at which the range of FP16 matters first as culprits.

    Args:
        prepared: Who was walked.
        given: The verdicts so far.
        outputs: What the candidate's outputs showed.
    """
    index, other = prepared.comparison.reference.model.index, prepared.candidate.model.index
    for found in dict.fromkeys(o.out_of_range for o in outputs if o.out_of_range is not None and o.out_of_range.node):
        for s in given.layers:
            if found.node not in (other.names[p] for p in s.pair.candidate.nodes):
                continue
            twins = {p: other.names[q] for p in s.pair.reference.nodes if (q := prepared.nodes.get(p, -1)) >= 0}
            named = (p for p in s.pair.reference.nodes if index.names[p] == found.node)
            node = next((p for p, name in twins.items() if name == found.node), next(named, None))
            told = out_of_range.diagnosis(found, s.diagnosis, node)
            given = given.knowing([replace(s, diagnosis=told)]).blaming(s.number)
            break
    return given
