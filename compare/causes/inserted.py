"""Inserted nodes: the candidate has more of them behind an operator that is a program of its own.

Looks at: what the candidate's LSTM, GRU or RNN makes by itself, before the inserted nodes. Proves: where that is the
reference's, up to rounding, that the operator is right and the nodes behind it are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...graph.cutting.slices import backward
from ...graph.operators import RECURRENT, operator
from ..lockstep.plan import LayerPair
from .case import LayerCase


@dataclass(frozen=True)
class InsertedBehind:
    """Nodes that the candidate alone has.

    Attributes:
        nodes: Operator and name of each.
        behind: The operator and the name of the node before them.
    """

    nodes: tuple[tuple[str, str], ...]
    behind: tuple[str, str]

    @property
    def text(self) -> str:
        """See `Fact`."""
        names = ", ".join(f"{op} {name}" for op, name in self.nodes)
        return f"{names} in the candidate alone; {self.behind[0]} {self.behind[1]} before that gives what it should"


@dataclass(frozen=True)
class Split:
    """A layer of the candidate in two.

    Attributes:
        before: The layer up to the operator that both sides have.
        behind: Positions of the nodes behind it, in the candidate.
        maker: Position of that operator, in the candidate.
    """

    before: LayerPair
    behind: tuple[int, ...]
    maker: int


def split(case: LayerCase) -> Split | None:
    """A layer of which the candidate has more nodes behind a recurrent operator; None of others."""
    reference, candidate = case.graphs
    position = reference.producer.get(case.tensor, -1)
    made = case.pair.candidate.outputs[case.pair.reference.outputs.index(case.tensor)]
    node = reference.nodes[position]
    if operator(node) not in RECURRENT or reference is candidate:
        return None
    twins = [p for p in case.pair.candidate.nodes if operator(candidate.nodes[p]) == operator(node)]
    if len(twins) != 1:
        return None
    slot = list(node.output).index(case.tensor)
    own = candidate.nodes[twins[0]].output
    name = own[slot] if slot < len(own) else ""
    if not name or name == made:
        return None
    before = replace(
        case.pair,
        reference=backward(reference, [case.tensor], set(case.pair.reference.inputs)),
        candidate=backward(candidate, [name], set(case.pair.candidate.inputs)),
    )
    behind = backward(candidate, [made], {name, *case.pair.candidate.inputs})
    moved = tuple(p for p in behind.nodes if p not in before.candidate.nodes)
    return Split(before, moved, twins[0]) if moved else None


def fact(case: LayerCase, found: Split) -> InsertedBehind:
    """The inserted nodes and who they stand behind."""
    index = case.graphs[1]
    named = [(index.nodes[p].op_type, index.names[p]) for p in (*found.behind, found.maker)]
    return InsertedBehind(tuple(named[:-1]), named[-1])
