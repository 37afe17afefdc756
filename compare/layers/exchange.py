"""Outputs that are exchanged: one fault, named once; the layers are compared with the exchange undone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.interface import Interface, adapted
from ..causes import exchanged
from ..report.model import Culprit, Report
from ..sides import Side, other_file

if TYPE_CHECKING:
    from ..causes.diagnosis import Diagnosis


def undone(reference: Side, candidate: Side, report: Report) -> tuple[Side, Report, tuple[Culprit, ...]]:
    """The candidate with its outputs under the names that their values have in the reference.

    Where both sides run one file, or the candidate an engine, a runtime has exchanged them: pieces do not show that,
    and the graph stays as it is.

    Args:
        reference, candidate: Who is compared.
        report: What the outputs showed.

    Returns:
        The candidate; the report without the outputs that are exchanged, which the layers no longer show; the culprit.
    """
    outputs = report.of(candidate.name)
    held = {o.tensor: o.holds for o in outputs if o.exchanged and o.holds is not None}
    found = exchanged.find(held)
    if found is None:
        return candidate, report, ()
    culprit = _culprit(reference, candidate, tuple(held), found)
    if other_file(candidate, reference) and candidate.model.engine is None:
        interface = Interface(outputs={other: name for name, other in held.items()})
        candidate = replace(candidate, model=adapted(candidate.model, interface))
    rest = tuple(o for o in report.outputs if o.candidate != candidate.name or o.tensor not in held)
    return candidate, replace(report, outputs=rest), (culprit,)


def _culprit(reference: Side, candidate: Side, tensors: tuple[str, ...], found: Diagnosis) -> Culprit:
    """The exchange as a culprit: at the node that makes the first of the outputs in the reference."""
    index = reference.model.index
    position = index.producer.get(tensors[0])
    node, op = (tensors[0], "output") if position is None else (index.names[position], index.nodes[position].op_type)
    return Culprit(candidate.name, node, op, tensors, found.cause, None, None, found.facts)
