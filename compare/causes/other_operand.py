"""Another operand: a node is given something else than in the reference. Nodes that the candidate alone has stand
before it (indices plus one, coordinates in another order), nodes that the reference alone has do not, or it reads
another tensor.

Looks at: the operands of nodes that both sides have in the layer, where all but one are the same tensors. Proves: where
the layer gives what it should once the node is given the reference's operand, that the operand is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.index import GraphIndex
from ...graph.operators import CASTS, FLAT, QUANTIZERS, operator
from ...graph.pairing.changes import OpName
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import op_names
from ...graph.pairing.view import multiplier
from ...graph.printable import being, counted, listed
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .undoing import with_constants

MOST = 6
"""Most operands that are tried."""
NAMED = 3
"""How many nodes are named in what is shown."""
LISTED = 4
"""Up to how many are named one by one in what is to be done."""


@dataclass(frozen=True)
class OtherOperand:
    """An operand that is another one in the candidate.

    Attributes:
        readers: The candidate's nodes that are given it.
        reads: What they read; of nodes that the candidate alone has, what these make of ``meant``.
        meant: What the candidate calls what they should be given; empty where it has no such tensor.
        reference: What the reference calls that.
        alone: The nodes that make it, where the candidate alone has them.
        missing: The nodes that make in the reference what they should be given, where the reference alone has them.
        passes: Whether they would be given the right thing without ``alone``, or with ``missing`` put before them.
    """

    readers: tuple[OpName, ...]
    reads: str
    meant: str
    reference: str
    alone: tuple[OpName, ...] = ()
    missing: tuple[OpName, ...] = ()
    passes: bool = False

    @property
    def text(self) -> str:
        """See `Fact`."""
        readers, verb = _some(self.readers), "is" if len(self.readers) == 1 else "are"
        their = "their" if len(self.alone) > 1 else "its"
        if self.alone and self.passes:
            alone = being(_names(self.alone), NAMED)
            return (
                f"{alone} in the candidate alone: {readers} {verb} given {their} result in place of '{self.meant}', "
                "and would be right with that"
            )
        reading = "reads" if len(self.readers) == 1 else "read"
        if self.missing and self.passes:
            missing = being(_names(self.missing), NAMED)
            return (
                f"{missing} missing in the candidate: {readers} {reading} '{self.reads}' there, and would be right "
                "with what the reference makes of it"
            )
        by = f", made by {_some(self.alone)}, which it alone has" if self.alone else ""
        return (
            f"{readers} {reading} '{self.reads}' in the candidate{by}, in place of '{self.reference}' in the "
            "reference, and would be right with that"
        )

    @property
    def fault(self) -> object:
        """What is wrong, whoever is given it."""
        if self.alone and self.passes:
            return self.alone[-1]
        return self.missing[0] if self.missing else frozenset((self.reads, self.meant))

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.alone and self.passes:
            return f"leave {named_in_order(self.alone)} out of the second file"
        if self.missing:
            before = f" before {_some(self.readers)}" if self.passes else ""
            put = f"put the first file's {named_in_order(self.missing)} there{before}"
            return put if self.passes else f"{put}, and let {_some(self.readers)} read what comes of it"
        return f"let {_some(self.readers)} read '{self.meant}' in the second file"


@dataclass(frozen=True)
class _Suspect:
    """An operand that may be wrong: of a node of the reference and of one of the candidate."""

    reader: int
    twin: int
    name: str
    other: str


def find(case: LayerCase) -> Diagnosis | None:
    """An operand with which, were it the reference's, the layer would give what it should."""
    if case.graphs[0] is case.graphs[1] or case.formats.quantized:
        return None
    tried = 0
    for suspect in _suspects(case):
        value, told = case.known(suspect.name), _diagnosis(case, suspect)
        if value is None or told is None or tried == MOST:
            continue
        tried += 1
        other = {suspect.other: value}
        given, inside = (other, {}) if suspect.other in case.pair.candidate.inputs else ({}, other)
        if case.right_with(partial(with_constants, others=inside), given):
            return told
    return None


def _suspects(case: LayerCase) -> Iterator[_Suspect]:
    """Operands that are the only ones of their nodes to differ, then what nodes make that the candidate has more of."""
    (mine, theirs), pair = case.graphs, case.pair
    other = case.twin
    ends, found = mine.producer.get(case.tensor), dict[tuple[str, str], _Suspect]()
    for q in pair.candidate.nodes:
        twin, last = theirs.nodes[q], other in theirs.nodes[q].output
        meant = {mine.producer.get(case.origins[name]) for name in twin.output if name in case.origins}
        for p in pair.reference.nodes:
            alike = operator(mine.nodes[p]) == operator(twin) and operator(twin) not in CASTS | QUANTIZERS
            if not alike or last != (p == ends) or (meant and p not in meant):
                continue
            left, others = _read(mine, p), _read(theirs, q)
            for name in list(others):
                if case.origins.get(name) in left:  # one of two that are the same tensor stays
                    left.remove(case.origins[name])
                    others.remove(name)
            if len(left) == len(others) == 1:
                found.setdefault((left[0], others[0]), _Suspect(p, q, left[0], others[0]))
    whole = case.whole or pair
    more = Counter(operator(theirs.nodes[q]) for q in whole.candidate.nodes)
    more.subtract(operator(mine.nodes[p]) for p in whole.reference.nodes)
    for q in (q for q in pair.candidate.nodes if more[operator(theirs.nodes[q])] > 0):
        reads, made = _read(theirs, q), theirs.nodes[q].output
        alone = len(reads) == len(made) == 1 and made[0] != other and reads[0] in pair.candidate.inputs
        if alone and reads[0] in case.origins:
            found.setdefault((case.origins[reads[0]], made[0]), _Suspect(pair.main, q, case.origins[reads[0]], made[0]))
    return iter(found.values())


def _read(index: GraphIndex, position: int) -> list[str]:
    """What a node reads that is no constant."""
    return [name for name in index.nodes[position].input if name and constant_value(index, name) is None]


def _diagnosis(case: LayerCase, found: _Suspect) -> Diagnosis | None:
    """What is told of a wrong operand; None where both sides make it with nodes of their own."""
    reference, candidate = case.graphs
    names = {name: other for other, name in case.origins.items()}
    alone, its_ends = _before(candidate, found.other, case.pair.candidate.nodes, case.origins)
    missing, ends = _before(reference, found.name, case.pair.reference.nodes, names)
    if alone and missing:
        return None
    meant = names.get(found.name, "")
    if not meant and not missing:  # another layer makes it, which the candidate does not have
        missing, ends = _before(reference, found.name, range(len(reference.nodes)), names)
    passes = meant in its_ends if alone else _carries(reference, case.origins.get(found.other, ""), ends)
    all_of_them = alone and passes  # of other operands, those of another layer may be right
    within = case.pair.candidate.nodes
    readers = [q for q in candidate.consumers.get(found.other, ()) if all_of_them or q in within]
    fact = OtherOperand(
        op_names(candidate, readers),
        found.other,
        meant,
        found.name,
        op_names(candidate, alone),
        op_names(reference, missing),
        passes,
    )
    if alone and passes:
        factors = (multiplier(candidate, p, lambda read: constant_value(candidate, read) is not None) for p in alone)
        cause = Cause.SCALE if all(factor is not None for factor in factors) else Cause.WRONG_OP
        return Diagnosis(cause, (fact,), candidate_node=alone[-1])
    return Diagnosis(Cause.WRONG_OP, (fact,), node=missing[-1] if missing and passes else found.reader)


def _before(
    index: GraphIndex, name: str, nodes: Iterable[int], known: Mapping[str, str]
) -> tuple[list[int], frozenset[str]]:
    """The nodes of a layer that make a tensor of those that both sides have, without what makes shapes; these tensors.

    Args:
        index: The graph.
        name: The tensor.
        nodes: The layer's nodes.
        known: Tensors that the other side has, too.
    """
    kinds, found, ends, waiting = dataflow(index).kind, set[int](), set[str](), [name]
    while waiting:
        name = waiting.pop()
        position = index.producer.get(name)
        if name in known or position is None or position not in nodes:
            ends.add(name)
        elif position not in found and kinds.get(name) is not Kind.CONSTANT:
            found.add(position)
            waiting.extend(index.reads[position])
    computing = [p for p in sorted(found) if operator(index.nodes[p]) not in FLAT]
    return computing or sorted(found), frozenset(ends)


def _carries(index: GraphIndex, name: str, ends: Iterable[str]) -> bool:
    """Whether a tensor is one of some others, maybe of another shape."""
    return bool({_flat(index, name)} & {_flat(index, end) for end in ends})


def _flat(index: GraphIndex, name: str) -> str:
    """The tensor whose values one has, which only its shape tells apart."""
    while (position := index.producer.get(name)) is not None and operator(index.nodes[position]) in FLAT:
        name = index.nodes[position].input[0]
    return name


def _names(nodes: tuple[OpName, ...]) -> list[str]:
    return [f"{op} {name}" for op, name in nodes]


def _some(nodes: tuple[OpName, ...]) -> str:
    return listed(_names(nodes), NAMED)


def named_in_order(nodes: tuple[OpName, ...]) -> str:
    """Nodes in a row as a remedy names them: a few by their names, more by the first and the last."""
    if len(nodes) > LISTED:
        first, last = (" ".join(nodes[i]) for i in (0, -1))
        return f"{counted(len(nodes), 'operator')} from {first} to {last}"
    *names, last = (f"{op} {name}" for op, name in nodes)
    return f"{', '.join(names)} and {last}" if names else last


def joined(diagnoses: Mapping[int, Diagnosis]) -> dict[int, list[int]]:
    """Layers that one node too many spoils, or one that is missing: one fault, at the first of them.

    Args:
        diagnoses: What was found of guilty layers, by their numbers.

    Returns:
        The first, of those that say where the node is to be, and the others.
    """
    found: dict[object, list[tuple[bool, int]]] = {}
    for number in sorted(diagnoses):
        for fact in diagnoses[number].facts:
            if isinstance(fact, OtherOperand):
                found.setdefault(fact.fault, []).append((not fact.passes, number))
    told = (sorted(members) for members in found.values() if len(members) > 1)
    return {first: [number for _, number in others] for (_, first), *others in told}


def is_told(found: Diagnosis | None) -> bool:
    """Whether a diagnosis says that an operand is another one."""
    return found is not None and any(isinstance(fact, OtherOperand) for fact in found.facts)
