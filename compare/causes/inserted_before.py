"""Nodes that the candidate alone has between a tensor and those who read it: indices plus one, coordinates in another
order.

Looks at: the nodes of the candidate's layer of an operator that it has more of, with one operand that is not constant.
Proves: where the layer gives what it should once its readers are given that operand itself, that the node is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from ...graph.operators import CASTS, QUANTIZERS, operator
from ...graph.pairing.constants import constant_value
from ...graph.pairing.view import multiplier
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .undoing import with_constants

MOST = 4
"""Most nodes that are tried."""
NAMED = 3
"""How many readers are named."""


@dataclass(frozen=True)
class InsertedBefore:
    """A node that the candidate alone has.

    Attributes:
        node: Its operator and name.
        reads: The tensor before it.
        readers: Operators and names of the nodes behind it.
    """

    node: str
    reads: str
    readers: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        more = f" and {len(self.readers) - NAMED} more" if len(self.readers) > NAMED else ""
        verb = "is" if len(self.readers) == 1 else "are"
        return (
            f"{self.node} in the candidate alone: {', '.join(self.readers[:NAMED])}{more} {verb} given its result in "
            f"place of '{self.reads}', and would be right with that"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"leave {self.node} out of the second file"


def find(case: LayerCase) -> Diagnosis | None:
    """A node without which the layer gives what it should."""
    index = case.graphs[1]
    if case.graphs[0] is index or case.formats.quantized:
        return None
    for position, name in list(_alone(case))[:MOST]:
        (made,) = index.nodes[position].output
        if case.right_with(partial(with_constants, others={made: case.values[case.origins[name]]})):
            readers = tuple(f"{index.nodes[p].op_type} {index.names[p]}" for p in index.consumers.get(made, ()))
            fact = InsertedBefore(f"{index.nodes[position].op_type} {index.names[position]}", name, readers)
            factor = multiplier(index, position, lambda read: constant_value(index, read) is not None)
            return Diagnosis(Cause.WRONG_OP if factor is None else Cause.SCALE, (fact,), candidate_node=position)
    return None


def _alone(case: LayerCase) -> Iterator[tuple[int, str]]:
    """The nodes that may be too many, each with the tensor that it reads."""
    graphs, pair = case.graphs, case.whole or case.pair
    parts = pair.reference, pair.candidate
    mine, theirs = (
        Counter(operator(index.nodes[p]) for p in part.nodes) for index, part in zip(graphs, parts, strict=True)
    )
    more, index = theirs - mine, graphs[1]
    for position in case.pair.candidate.nodes:
        node = index.nodes[position]
        op, made = operator(node), list(node.output)
        if not more[op] or op in CASTS | QUANTIZERS or len(made) != 1 or made[0] in case.pair.candidate.outputs:
            continue
        reads = [name for name in node.input if name and constant_value(index, name) is None]
        if len(reads) == 1 and reads[0] in case.pair.candidate.inputs and case.origins.get(reads[0]) in case.values:
            yield position, reads[0]


def joined(diagnoses: Mapping[int, Diagnosis]) -> dict[int, list[int]]:
    """Layers that one such node spoils: one fault, at the first of them.

    Args:
        diagnoses: What was found of guilty layers, by their numbers.

    Returns:
        The first, and the others.
    """
    found: dict[int, list[int]] = {}
    for number in sorted(diagnoses):
        one = diagnoses[number]
        if one.candidate_node is not None and is_told(one):
            found.setdefault(one.candidate_node, []).append(number)
    return {first: others for first, *others in found.values() if others}


def is_told(found: Diagnosis | None) -> bool:
    """Whether a diagnosis says that a node is too many."""
    return found is not None and any(isinstance(fact, InsertedBefore) for fact in found.facts)
