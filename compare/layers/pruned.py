"""Of channels that are pruned soundly, and a reader that keeps the weights of others, the reader is to blame."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.pairing.kept_channels import unlike
from ..causes.kept_channels import keeps_others

if TYPE_CHECKING:
    from .prepare import Prepared
    from .verdicts import Verdicts


def blaming_readers(prepared: Prepared, given: Verdicts) -> Verdicts:
    """The verdicts with readers as culprits that keep other channels than who makes them, in place of these.

    Args:
        prepared: Who was walked.
        given: The verdicts so far.
    """
    if prepared.same or not any(given.by_layer[s.number] == "culprit" for s in given.layers):
        return given
    index, examiner = prepared.comparison.reference.model.index, prepared.judge.examiner
    differences = [d for position in range(len(index.nodes)) for d in examiner.differences(position)]
    holding = {p: s for s in given.layers for p in s.pair.reference.nodes}
    for found in unlike((index, prepared.candidate.model.index), differences):
        maker, reader = (holding.get(kept.node) for kept in (found.maker, found.reader))
        if maker is None or reader is None or "culprit" not in (given.by_layer[s.number] for s in (maker, reader)):
            continue
        node = f"{index.nodes[found.maker.node].op_type} {index.names[found.maker.node]}"
        told = keeps_others(node, found.reader.node, found.maker.channels, found.reader.channels, found.maker.before)
        share = maker.contribution if reader.contribution is None else reader.contribution
        given = given.knowing([replace(reader, diagnosis=told, contribution=share, failure=None)])
        given = given.inherited([maker.number] if maker is not reader else []).blaming(reader.number)
    return given
