"""Which nodes of two graphs are matched with which, and the evidence that a pair is right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..cutting.dataflow import random_nodes
from ..index import GraphIndex
from ..operators import Kind, facts_of
from ..quantized.float_form import FloatForm, float_form, is_quantized
from ..specs import Dim
from .quantizers_in_a_row import made_one
from .unfused import unfused
from .view import GraphView, Sketch, Told

FEW = 16
"""Weights with fewer elements say nothing about which node is which."""


class Pairing:
    """Two graphs, and the pairs of nodes that were found so far.

    Attributes:
        r, c: The reference and the candidate.
        forms: Of a side that is matched in another form, that graph: in float operators, where it is quantized, and
            with operators apart of which the two have not as many in one (`unfused`).
        quantized: Of each side, whether it alone is quantized: then its quantizers are looked through.
        nodes: Position in the reference -> position in the candidate.
        taken: The reverse.
        changed: Nodes of the reference that were matched by their place alone: their operators differ.
        inputs, outputs: Graph inputs and outputs that both have under one name, each with itself.
        names: Nodes of the same operator whose first outputs have the same name, also where an alias carries it.

    Args:
        told: What is known of the two from matching them before.
    """

    def __init__(
        self, reference: GraphIndex, candidate: GraphIndex, told: tuple[Told, Told] = (Told(), Told())
    ) -> None:
        graphs = reference, candidate
        quantized = is_quantized(reference), is_quantized(candidate)
        self.quantized = [q and quantized[0] != quantized[1] for q in quantized]
        self.forms = _forms(graphs, quantized)
        copies = not any(_trains(index) for index in (reference, candidate))
        self.r, self.c = (
            GraphView(index, False, skip_dropouts=copies, beside=other, told=known)
            if form is None
            else GraphView(form.index, floats, form.invented, skip_dropouts=copies, beside=other, told=known)
            for index, form, floats, other, known in zip(
                graphs, self.forms, self.quantized, (candidate, reference), told, strict=True
            )
        )
        self.nodes: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self.changed: set[int] = set()
        self.inputs = _shared(reference.inputs, candidate.inputs)
        self.outputs = _shared(reference.outputs, candidate.outputs)
        self.names = self._named_alike()

    def accept(self, n: int, m: int) -> bool:
        """Takes a pair, unless one of its nodes has another partner already, or they pick parts of a tensor that
        others beside them pick."""
        if n in self.nodes or m in self.taken or self.picks_another(n, m):
            return False
        self.nodes[n] = m
        self.taken[m] = n
        return True

    def fits(self, n: int, m: int) -> bool:
        """Whether the shapes of the first outputs can be the same."""
        return compatible(self.r.shape(self.r.first(n)), self.c.shape(self.c.first(m)))

    def named_weights_agree(self, n: int, m: int) -> bool:
        """Whether names of weights agree too, or there are none."""
        a, b = self.r.forms[n].weights, self.c.forms[m].weights
        return (not a and not b) or any(a[s] == b[s] for s in a.keys() & b.keys())

    def refuted(self, n: int, m: int, others: Iterable[int]) -> bool:
        """Whether another node of the candidate has the very weights of ``n``, and ``m`` has not."""
        a, b = self.r.sketch(n), self.c.sketch(m)
        if a is None or a.size < FEW or (b is not None and a.digest == b.digest):
            return False
        return any(o != m and (s := self.c.sketch(o)) is not None and s.digest == a.digest for o in others)

    def beside(self, n: int, m: int) -> bool:
        """Whether a node beside ``n``, which reads the same and has no namesake, has the very weights of ``m``, be it a
        single number, and ``n`` has not: of two nodes that the candidate has one of, ``m`` is that other one."""
        a, b, mine = self.r.sketch(n), self.c.sketch(m), self.r.fine.nodes[n]
        if a is None or b is None or a.digest == b.digest or not mine.inputs:
            return False
        for o, _ in self.r.fine.consumers.get(mine.inputs[0][1], ()):
            other, its = self.r.sketch(o), self.r.fine.nodes[o]
            alike = o not in self.names and its.kind == mine.kind and its.inputs == mine.inputs
            if alike and other is not None and other.digest == b.digest:
                return True
        return False

    def misnamed(self, n: int, m: int) -> bool:
        """Whether a node beside ``m``, which reads the same, has the constant of ``n``, be it a single number, and
        ``m`` has not, nor does what reads the one have a namesake that reads the other: names were counted anew."""
        a, b, theirs = self.r.sketch(n), self.c.sketch(m), self.c.fine.nodes[m]
        if a is None or b is None or a.digest == b.digest or not theirs.inputs:
            return False
        readers, others = (
            {p for name in view.fine.nodes[position].outputs for p, _ in view.fine.consumers.get(name, ())}
            for view, position in ((self.r, n), (self.c, m))
        )
        if not readers or any(self.names.get(p) in others for p in readers):
            return False
        beside = (o for o, _ in self.c.fine.consumers.get(theirs.inputs[0][1], ()) if o != m)
        alike = (o for o in beside if self.c.fine.nodes[o][:2] == theirs[:2])
        return any((s := self.c.sketch(o)) is not None and s.digest == a.digest for o in alike)

    def picks_another(self, n: int, m: int) -> bool:
        """Whether two nodes pick parts of a tensor by few constants, and each of them what another one beside the other
        one picks: which part it is tells more than names, and than who reads it."""
        a, b = self.r.sketch(n), self.c.sketch(m)
        if a is None or b is None or a.digest == b.digest or a.size >= FEW:
            return False
        if facts_of(self.r.index.nodes[n]).kind is not Kind.PICK:
            return False
        mine, theirs = _beside(self.r, n), _beside(self.c, m)
        return any(s.digest == b.digest for s in mine) and any(s.digest == a.digest for s in theirs)

    def elsewhere(self, n: int, m: int) -> bool:
        """Whether ``m`` stands where ``n`` does, but another node is what ``n`` is: with its weights and its settings,
        of which ``m`` has neither. Then a reader's inputs were exchanged, not all that makes them."""
        mine = repr(self.r.forms[n].settings)
        if mine == repr(self.c.forms[m].settings):
            return False
        like = [o for o in self.same_family(m) if o not in self.taken and repr(self.c.forms[o].settings) == mine]
        return self.refuted(n, m, like)

    def same_family(self, m: int) -> list[int]:
        """Nodes of the candidate of the same family as ``m``, which is one of them."""
        family = self.c.forms[m].family
        return [p for p in self.c.live if self.c.forms[p].family == family]

    def fed(self, n: int) -> bool:
        """Whether all that the node reads is matched."""
        reads = (name for _, name in self.r.fine.nodes[n].inputs)
        return all(name in self.inputs or self.r.index.producer.get(name) in self.nodes for name in reads)

    def paired(self, a: str, b: str) -> bool:
        """Whether two roots are outputs of matched nodes in the same place, or the same input of the graph."""
        p, q = self.r.index.producer.get(a), self.c.index.producer.get(b)
        if p is None or q is None:
            return p is None and q is None and a == b and a in self.inputs
        if self.nodes.get(p) != q:
            return False
        return list(self.r.index.nodes[p].output).index(a) == list(self.c.index.nodes[q].output).index(b)

    def same_factor(self, a: str, b: str) -> bool:
        """Whether two tensors are multiplied by the same number in nodes that are looked through."""
        return math.isclose(self.r.factor(a), self.c.factor(b), rel_tol=1e-6)

    def counterpart(self, a: str) -> str | None:
        """The root of the candidate that is paired with one of the reference."""
        p = self.r.index.producer.get(a)
        if p is None:
            return self.inputs.get(a)
        q = self.nodes.get(p)
        if q is None:
            return None
        place, outputs = list(self.r.index.nodes[p].output).index(a), self.c.index.nodes[q].output
        return outputs[place] if place < len(outputs) and outputs[place] else None

    def known(self, b: str) -> bool:
        """Whether a root of the candidate is paired with one of the reference."""
        q = self.c.index.producer.get(b)
        return b in self.inputs if q is None else q in self.taken

    def same_source(self, a: str, b: str) -> bool:
        """Whether two roots come from the same node of the skeleton."""
        return self.paired(self.r.source(a), self.c.source(b))

    def _named_alike(self) -> dict[int, int]:
        """Nodes of the same operator whose first outputs have the same name, also where an alias carries it."""
        where: dict[str, int] = {}
        for position in self.c.live:
            for name in _names_of(self.c, position):
                where[name] = position
        found = {}
        for n in self.r.live:
            m = next((where[a] for a in _names_of(self.r, n) if a in where), None)
            if m is not None and self.r.forms[n].family == self.c.forms[m].family and self.fits(n, m):
                found[n] = m
        for n, m in list(found.items()):
            behind = made_one(self.r, n, self.c, m)
            if behind is not None and found.get(behind, m) == m:
                found[behind] = found.pop(n)
        return found


def _forms(graphs: Sequence[GraphIndex], quantized: Sequence[bool]) -> list[FloatForm | None]:
    """See `Pairing.forms`."""
    floats = [float_form(index) if q else None for index, q in zip(graphs, quantized, strict=True)]
    if quantized[0] != quantized[1]:
        return floats
    reference, candidate = (i if form is None else form.index for i, form in zip(graphs, floats, strict=True))
    apart = unfused(reference, candidate)
    return [a if f is None else f if a is None else f.followed_by(a) for f, a in zip(floats, apart, strict=True)]


def _beside(view: GraphView, position: int) -> list[Sketch]:
    """Of nodes of the same kind that read the same, their weights."""
    node = view.fine.nodes[position]
    readers = view.fine.consumers.get(node.inputs[0][1], ()) if node.inputs else ()
    nodes = ((p, view.fine.nodes[p]) for p, _ in readers if p != position)
    alike = (p for p, other in nodes if other.kind == node.kind and other.inputs == node.inputs)
    return [sketch for p in alike if (sketch := view.sketch(p)) is not None]


def _names_of(view: GraphView, position: int) -> list[str]:
    """What the first output of a node is called; of one that stands there for the structure alone, too."""
    first = view.first(position)
    return view.classes[first] or [first]


def compatible(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """Whether two shapes can be the same; unknown and symbolic dimensions can be anything."""
    if a is None or b is None:
        return True
    return len(a) == len(b) and all(
        not isinstance(x, int) or not isinstance(y, int) or x == y for x, y in zip(a, b, strict=True)
    )


def _trains(index: GraphIndex) -> bool:
    """Whether a graph has a Dropout in training mode."""
    return any(index.nodes[p].op_type == "Dropout" for p in random_nodes(index))


def _shared(reference: Sequence[str], candidate: Sequence[str]) -> dict[str, str]:
    known = set(candidate)
    return {name: name for name in reference if name in known}
