"""Which layers are run side by side: a layer of the reference, and what makes the same tensor in the candidate."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ...graph.cutting.alike import kind_of
from ...graph.cutting.dataflow import dataflow, random_nodes
from ...graph.cutting.fusion import Group, fused_groups, static_tensors
from ...graph.cutting.pieces import Piece, plan_pieces
from ...graph.cutting.repeats import blocks
from ...graph.cutting.slices import Slice, backward
from ...graph.index import GraphIndex
from ...graph.operators import CONTAINERS, CONTROL_FLOW, PRODUCTS, QUANTIZERS, STRETCHES, operator
from ...graph.quantized.quantizers import rounded
from ...graph.quantized.scales import scales_of
from ...graph.specs import is_float

_MAY_CONTAIN = CONTAINERS | CONTROL_FLOW | {"Identity", "OptionalGetElement"}
"""What these make may be a sequence or an optional."""


@dataclass(frozen=True)
class LayerPair:
    """A layer in both graphs.

    Attributes:
        number: Position in the order of the reference's graph.
        main: The node of the reference that does its arithmetic.
        reference: What makes its outputs in the reference's graph, from tensors that are observed too.
        candidate: What makes the same tensors in the candidate's graph.
        random: It draws random values, or holds a node that does and has no counterpart: the reference's are given to
            the candidate, and nothing is compared.
        drawn: The candidate's graph alone draws random values in it.
    """

    number: int
    main: int
    reference: Slice
    candidate: Slice
    random: bool = False
    drawn: bool = False


@dataclass(frozen=True)
class PiecePair:
    """A piece of both graphs, with the layers in it.

    Attributes:
        index: Its number.
        layers: Those that are observed in it.
        reference: What makes their outputs from tensors of earlier steps, in the reference.
        candidate: The same in the candidate.
        inner: Tensors of the reference inside its layers that have a counterpart too.
    """

    index: int
    layers: tuple[LayerPair, ...]
    reference: Slice
    candidate: Slice
    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class LockstepPlan:
    """How two graphs are walked in lockstep.

    Attributes:
        steps: The pieces, in order.
        tensors: Observed tensors of the reference -> the candidate's name of the same value; graph inputs too.
        unmatched: Tensors of the reference at the borders of layers that have no counterpart.
        pieces: How many pieces were cut.
        too_large: Those that are larger than their memory and cannot be cut.
    """

    steps: tuple[PiecePair, ...]
    tensors: Mapping[str, str]
    unmatched: tuple[str, ...]
    pieces: int
    too_large: tuple[Piece, ...]

    @property
    def layers(self) -> tuple[LayerPair, ...]:
        """Every layer, in order."""
        return tuple(pair for step in self.steps for pair in step.layers)

    @cached_property
    def back(self) -> Mapping[str, str]:
        """The candidate's name of a value -> the reference's: of several tensors that are one there, the first."""
        return {other: name for name, other in reversed([*self.tensors.items()])}

    def sources(self, pairs: Sequence[LayerPair]) -> dict[str, str]:
        """What the candidate's layers read -> the reference's tensor of that value: of several that are one there, what
        the reference's layer reads."""
        read: dict[str, str] = {}
        for pair in pairs:
            mine = {self.tensors.get(n, n): n for n in pair.reference.inputs}
            read.update((n, mine.get(n) or read.get(n) or self.back.get(n, n)) for n in pair.candidate.inputs)
        return read

    def agreeing(self, pairs: Sequence[LayerPair]) -> list[list[LayerPair]]:
        """Layers in groups that can be given the reference's values together: not two that read one tensor of the
        candidate, which is another one of the reference for each (what a layer that the candidate lacks reads, and
        what it makes)."""
        groups: list[tuple[dict[str, str], list[LayerPair]]] = []
        for pair in pairs:
            read = self.sources([pair])
            home = next((g for g in groups if all(g[0].get(n, name) == name for n, name in read.items())), None)
            if home is None:
                groups.append((dict(read), [pair]))
            else:
                home[0].update(read)
                home[1].append(pair)
        return [members for _, members in groups]

    def giving(self, numbers: Collection[int], candidate: GraphIndex) -> LockstepPlan:
        """The same plan, in which the candidate is given what the reference makes of some layers, as it is of those
        that draw random values.

        Args:
            numbers: Of these layers.
            candidate: The candidate's graph.
        """
        left_out = {
            n: p for p in self.layers if p.number in numbers and not p.candidate.nodes for n in p.reference.outputs
        }
        theirs = {self.tensors[n] for n in left_out}
        # there is one tensor for what such a layer makes and for what it reads: that holds what it makes
        numbers = {
            *numbers,
            *(p.number for p in self.layers if p.candidate.nodes and theirs.issuperset(p.candidate.outputs)),
        }
        made = {n for pair in self.layers for n in pair.reference.outputs}
        given = {n for pair in self.layers if pair.number in numbers or pair.random for n in pair.reference.outputs}
        ahead = {self.tensors[n] for n in (*given, *(n for n in self.tensors if n not in made))}
        steps = []
        for step in self.steps:
            layers = tuple(replace(p, random=p.random or p.number in numbers) for p in step.layers)
            steps.append(replace(step, layers=layers, candidate=_on_its_own(candidate, layers, ahead)))
            ahead.update(n for p in layers if not p.random for n in p.candidate.outputs)
        first = {n: self.tensors[n] for n in reversed(left_out)}
        return replace(self, steps=tuple(steps), tensors={**first, **self.tensors})


def plan(
    reference: GraphIndex,
    candidate: GraphIndex,
    matched: Mapping[str, str],
    *,
    every: bool = False,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    memory: int,
    groups: Sequence[Group] | None = None,
    engines: int = 0,
) -> LockstepPlan:
    """Cuts two graphs into layers that make the same tensors, and the layers into pieces.

    Args:
        reference, candidate: The graphs; the same object for two runtimes of one file.
        matched: Tensors of the reference -> tensors of the candidate.
        every: Observe every tensor, not only those at the borders of fused groups.
        shapes: Shapes of tensors where the graph leaves them open.
        memory: Budget of a piece in bytes.
        groups: The fused groups of the reference; estimated if not given.
        engines: Most layers of one engine, where one is of use to all blocks that repeat: each is a step of its own,
            as far as it fits the budget. 0: none need be.
    """
    groups = list(groups) if groups is not None else fused_groups(reference)
    wanted = _once(reference, _observed(reference, groups, every), matched)
    wanted = _as_floats(reference, wanted, matched)
    observed: dict[str, str] = {}
    for name in wanted:
        counterpart = matched.get(name)
        # of what a custom operator makes the type is not known, and no piece can give it
        if counterpart is not None and counterpart in candidate.producer and counterpart in candidate.specs:
            observed[name] = counterpart
    unmatched = tuple(name for name in wanted if name not in observed)
    given = {name: matched.get(name, name) for name in reference.inputs}
    pairs = _pairs(reference, candidate, observed, given)
    pieces, cuts = _pieces(reference, pairs, groups, shapes, memory, engines)
    owner = {position: piece.index for piece in pieces for position in piece.nodes}
    members: dict[tuple[int, int], list[LayerPair]] = {}
    for pair in pairs:
        piece = max(owner[p] for p in pair.reference.nodes)
        members.setdefault((piece, bisect_right(cuts, pair.number)), []).append(pair)
    random = {n: observed[n] for pair in pairs if pair.random for n in pair.reference.outputs}
    steps = []
    ready = set(given)
    for number, step in enumerate(sorted(members)):
        inside = tuple(members[step])
        outputs = [n for pair in inside for n in pair.reference.outputs]
        ahead = {observed.get(n) or given[n] for n in ready} | set(random.values())
        steps.append(
            PiecePair(
                number,
                inside,
                backward(reference, outputs, ready),
                _on_its_own(candidate, inside, ahead),
                _inner(reference, inside, matched),
            )
        )
        ready.update(outputs)
    return LockstepPlan(tuple(steps), {**given, **observed}, unmatched, len(pieces), tuple(p for p in pieces if p.note))


def inside(
    reference: GraphIndex,
    candidate: GraphIndex,
    pair: LayerPair,
    matched: Mapping[str, str],
    given: Mapping[str, str],
) -> list[LayerPair]:
    """The single nodes of a layer as layers of their own, as far as their tensors are matched.

    Args:
        reference, candidate: The graphs.
        pair: The layer.
        matched: Tensors of the reference -> tensors of the candidate.
        given: The same of the tensors at the borders of layers.
    """
    flow = dataflow(reference)
    static = static_tensors(reference)
    observed = {}
    for position in pair.reference.nodes:
        for name in reference.nodes[position].output:
            counterpart = matched.get(name, "") if name else ""
            if name and counterpart in candidate.producer and name not in static and not flow.recomputed(name):
                observed[name] = counterpart
    if len(observed) < 2:
        return [pair]
    return _pairs(reference, candidate, observed, given, whole=True)


def block_borders(index: GraphIndex, pairs: Sequence[LayerPair], most: int) -> list[int]:
    """Numbers of layers at which blocks that repeat begin and end, but for those close behind another.

    Args:
        index: The reference's graph.
        pairs: The layers.
        most: Most layers of one engine.
    """
    found = blocks([kind_of(index, pair.reference.nodes) for pair in pairs], most)
    kept = [0]
    for place in sorted({place for block in found for place in block}):
        if place - kept[-1] >= most // 2 and place < len(pairs):
            kept.append(place)
    return [pairs[place].number for place in kept[1:]]


def _once(index: GraphIndex, names: Sequence[str], matched: Mapping[str, str]) -> list[str]:
    """Tensors without one of two floats of which a Cast makes the other, where the candidate has one tensor for both:
    what the Cast makes is compared before it, and an output as such."""
    known, left = {*names}, {*names}
    for name in names:
        node = index.nodes[index.producer[name]]
        read = node.input[0] if node.op_type == "Cast" else ""
        specs = [index.specs.get(n) for n in (read, name)]
        floats = all(spec is not None and is_float(spec.dtype) for spec in specs)
        if read in known and floats and matched.get(read, "") == matched.get(name):
            left.discard(read if name in index.outputs and read not in index.outputs else name)
    return [name for name in names if name in left]


def _as_floats(index: GraphIndex, names: Sequence[str], matched: Mapping[str, str]) -> list[str]:
    """Tensors without integers that the candidate scales otherwise, and what it has as it is rounded alone: the floats
    that these stand for are compared."""
    scaled = scales_of(index)
    return [n for n in names if n in matched or (n not in scaled and not matched.keys() & {*rounded(index, n)})]


def _observed(index: GraphIndex, groups: Sequence[Group], every: bool) -> list[str]:
    flow = dataflow(index)
    static = static_tensors(index)
    last = {group.nodes[-1] for group in groups}
    outputs = set(index.outputs)
    result = []
    for position, node in enumerate(index.nodes):
        for name in node.output:
            if not name or (name not in outputs and (name in static or flow.recomputed(name))):
                continue
            if operator(node) in CONTAINERS or (operator(node) in _MAY_CONTAIN and name not in index.specs):
                continue
            used = name in outputs or name in index.consumers
            if used and (every or position in last or name in outputs):
                result.append(name)
    return result


def _pairs(
    reference: GraphIndex,
    candidate: GraphIndex,
    observed: Mapping[str, str],
    given: Mapping[str, str],
    whole: bool = False,
) -> list[LayerPair]:
    """What makes each observed tensor, in both graphs, from others. ``whole``: what the candidate leaves out is held
    against all that it has there, not against what it is given."""
    random, drawn = (set(random_nodes(index)) for index in (reference, candidate))
    ahead = {*observed, *given}
    candidate_ahead = {*observed.values(), *given.values()}
    by_node: dict[int, list[str]] = {}
    for name in observed:
        by_node.setdefault(reference.producer[name], []).append(name)
    pairs: list[LayerPair] = []
    for position in sorted(by_node):
        outputs = tuple(by_node[position])
        part = backward(reference, outputs, ahead - set(outputs))
        counterpart = tuple(observed[name] for name in outputs)
        known = {} if whole else {**given, **observed}
        other = _counterpart(candidate, part, counterpart, known, candidate_ahead)
        draws, alone = not random.isdisjoint(part.nodes), not drawn.isdisjoint(other.nodes)
        pairs.append(LayerPair(len(pairs), _main(reference, part), part, other, draws, alone and not draws))
    return pairs


def _counterpart(
    candidate: GraphIndex, part: Slice, outputs: tuple[str, ...], known: Mapping[str, str], ahead: Collection[str]
) -> Slice:
    """What the candidate has in place of a layer: what makes the same tensors. Of a layer that it leaves out, which
    makes what stands for what it reads, that is nothing: what came before is not made, and judged, again.

    Args:
        candidate: Its graph.
        part: The layer of the reference.
        outputs: The candidate's names of what that makes.
        known: Tensors of the reference -> tensors of the candidate.
        ahead: The latter.
    """
    if {known.get(name) for name in part.inputs}.issuperset(outputs):
        return Slice(outputs, (), outputs)
    return backward(candidate, outputs, set(ahead) - set(outputs))


def _on_its_own(candidate: GraphIndex, layers: Sequence[LayerPair], ahead: Collection[str]) -> Slice:
    """What the candidate makes of a piece on its own values, but for what is random; what is known ahead, and what a
    layer that it leaves out hands on, stays what it is.

    Args:
        candidate: Its graph.
        layers: Those in the piece.
        ahead: Its tensors that earlier pieces make, or that are given.
    """
    free = [pair for pair in layers if not pair.random]
    made = dict.fromkeys(n for pair in free if pair.candidate.nodes for n in pair.candidate.outputs)
    handed_on = dict.fromkeys(n for pair in free for n in pair.candidate.outputs if n not in made)
    part = backward(candidate, [*made, *(n for n in handed_on if n not in ahead)], ahead)
    inside = {name for p in part.nodes for name in candidate.nodes[p].output}
    given = [n for n in handed_on if n in ahead and n not in inside]
    return Slice((*made, *handed_on), part.nodes, tuple(dict.fromkeys((*part.inputs, *given))))


def _inner(index: GraphIndex, pairs: Sequence[LayerPair], matched: Mapping[str, str]) -> tuple[str, ...]:
    """See `PiecePair.inner`."""
    outputs = {name for pair in pairs for name in pair.reference.outputs}
    made = dict.fromkeys(n for pair in pairs for p in pair.reference.nodes for n in index.nodes[p].output)
    return tuple(name for name in made if name in matched and name not in outputs)


def _main(index: GraphIndex, part: Slice) -> int:
    """The node that does a slice's arithmetic: its last product, else its last node that neither moves data nor rounds
    it, else the last that does not only make floats of integers."""
    products = [p for p in part.nodes if operator(index.nodes[p]) in PRODUCTS]
    if products:
        return products[-1]
    last = index.producer[part.outputs[0]]
    while operator(index.nodes[last]) == "DequantizeLinear" and _before(index, last) in part.nodes:
        last = _before(index, last)
    found = last
    while operator(index.nodes[found]) in STRETCHES | QUANTIZERS:
        found = _before(index, found)
        if found not in part.nodes:
            return last
    return found


def _before(index: GraphIndex, position: int) -> int:
    """The node that makes the first input of a node; -1 where none does."""
    return index.producer.get(index.nodes[position].input[0], -1)


def _pieces(
    index: GraphIndex,
    pairs: Sequence[LayerPair],
    groups: Sequence[Group],
    shapes: Mapping[str, tuple[int, ...]] | None,
    memory: int,
    engines: int,
) -> tuple[list[Piece], list[int]]:
    """Pieces that hold whole layers, and whole blocks; and at which layers these begin and end, if all fit the budget.
    Nodes that no layer needs (dead ones, constants) go where their groups are."""
    owned: set[int] = set()
    parts = []
    for pair in pairs:
        nodes = tuple(p for p in pair.reference.nodes if p not in owned)
        owned.update(nodes)
        if nodes:
            parts.append(Group(nodes, nodes[-1]))
    parts.extend(Group(rest, rest[-1]) for g in groups if (rest := tuple(p for p in g.nodes if p not in owned)))
    parts.sort(key=lambda g: g.nodes[-1])
    if engines:
        pieces = plan_pieces(index, _in_blocks(index, parts, engines), shapes=shapes, memory=memory)
        if not any(piece.note for piece in pieces):
            return pieces, block_borders(index, pairs, engines)
    return plan_pieces(index, parts, shapes=shapes, memory=memory), []


def _in_blocks(index: GraphIndex, parts: Sequence[Group], most: int) -> list[Group]:
    """Groups of nodes, those of a block that repeats as one."""
    found = dict(blocks([kind_of(index, part.nodes) for part in parts], most))
    result, at = [], 0
    while at < len(parts):
        end = found.get(at, at + 1)
        nodes = sorted(node for part in parts[at:end] for node in part.nodes)
        result.append(Group(tuple(nodes), nodes[-1]))
        at = end
    return result
