"""What one graph has merged into a product and the other has beside it, and what of that was merged wrongly."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from .affine import Affine, affine, continued
from .branches import MATRICES, Branch, branch, chain
from .changes import NotMerged, OperatorChange, OpName
from .differences import Difference, op_names
from .pairs import Pairing
from .view import GraphView
from .weight_changes import folded_changes
from .weight_patterns import MergedOtherwise

OTHER_MAP = 1e-5
"""Relative distance from which on two affine maps that were folded are not the same."""


@dataclass(frozen=True)
class Merged:
    """A product of one graph, and the same with a branch beside it in the other.

    Attributes:
        nodes, candidate_nodes: What the two have there.
        made: What they make of it: roots of the reference and the candidate.
        differences: What was merged wrongly.
    """

    nodes: tuple[int, ...]
    candidate_nodes: tuple[int, ...]
    made: tuple[str, str]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class _Side:
    """A graph with its nodes that the other one has, and which of the two it is."""

    view: GraphView
    matched: Collection[int]
    reference: bool

    @classmethod
    def both(cls, pairing: Pairing) -> tuple[_Side, _Side]:
        return cls(pairing.r, pairing.nodes, True), cls(pairing.c, pairing.taken, False)

    def steps(self, first: int) -> list[int]:
        """The scalings and shifts behind a node that this graph alone has."""
        return [*takewhile(lambda p: p not in self.matched, chain(self.view, first)[1:])]

    def reads(self, product: int) -> list[int]:
        """The other nodes of this graph alone that read what a product reads."""
        given = [name for _, name in self.view.fine.nodes[product].inputs]
        readers = {p for name in given for p, _ in self.view.fine.consumers.get(name, ())} - {product}
        return sorted(readers - {*self.matched})


def merged(pairing: Pairing, roles: Mapping[str, str], n: int, m: int) -> Merged | None:
    """The branch that one graph has beside a product, where all that the other has there is a product.

    Args:
        pairing: The matched nodes.
        roles: See `roles`.
        n, m: The product in the reference and in the candidate.
    """
    sides, products = _Side.both(pairing), (n, m)
    for place, (apart, whole) in enumerate((sides, sides[::-1])):
        beside = branch(apart.view, apart.matched, products[place])
        if beside is not None:
            return _held(pairing, roles, (apart, whole), beside, products[1 - place])
    return None


def alone(pairing: Pairing, roles: Mapping[str, str], pairs: Mapping[str, str]) -> Iterator[tuple[int, int, Merged]]:
    """Products that are matched with none, since what is merged into one of them makes its weights others: those that
    read one tensor, and make one; and what is merged."""
    left, right = (
        [p for p in side.view.live if p not in side.matched and side.view.forms[p].family == MATRICES]
        for side in _Side.both(pairing)
    )
    for n in left:
        read = [pairing.counterpart(name) or pairs.get(name) for _, name in pairing.r.fine.nodes[n].inputs]
        twins = [m for m in right if [name for _, name in pairing.c.fine.nodes[m].inputs] == read]
        for m in twins:
            held = merged(pairing, roles, n, m)
            if held is not None and roles.get(held.made[0]) == held.made[1]:
                right.remove(m)
                yield n, m, held
                break


def _held(
    pairing: Pairing, roles: Mapping[str, str], sides: tuple[_Side, _Side], beside: Branch, product: int
) -> Merged | None:
    """A branch held against the product of the other graph. ``sides``: the graph that has it, and the other one."""
    apart, whole = sides
    behind, others = apart.steps(beside.total), whole.steps(product)
    theirs = affine(whole.view.index, [product, *others], whole.view.forms)
    mine = continued(apart.view.index, behind, apart.view.forms, beside.whole, -1)
    if mine is None or theirs is None or theirs.weight.shape != mine.weight.shape or _adds(whole, [product, *others]):
        return None
    nodes, candidate = (*beside.nodes, *behind), (product, *others)
    made = apart.view.first(nodes[-1]), whole.view.first(candidate[-1])
    made, places = (made, (nodes, candidate)) if apart.reference else (made[::-1], (candidate, nodes))
    if roles.get(made[0], made[1]) != made[1]:
        return None
    found = (mine, theirs) if apart.reference else (theirs, mine)
    at = places[0][0], places[1][0]
    own = continued(apart.view.index, behind, apart.view.forms, beside.own, -1)
    if own is not None and _same(own, theirs):
        standing = {*roles.values()} if apart.reference else roles.keys()  # for another tensor of the other graph
        if any(whole.view.first(p) not in standing for p in whole.reads(product)):
            return None  # it has the branch, too, in another form
        change = _left_out(apart, whole, beside, product)
        last = (beside.total, at[1]) if apart.reference else (at[0], beside.total)
        return Merged(*places, made, (Difference(*last, change),))
    return Merged(*places, made, tuple(_differences(pairing, sides, beside, at, found)))


def _adds(side: _Side, nodes: list[int]) -> bool:
    """Whether a graph adds something to a product, with its scalings and shifts, by a node that it has alone."""
    readers = [p for p, _ in side.view.fine.consumers.get(side.view.first(nodes[-1]), ()) if p not in side.matched]
    return any(side.view.forms[p].op == "Add" and len(side.view.forms[p].data) > 1 for p in readers)


def _same(own: Affine, theirs: Affine) -> bool:
    """Whether a product is what the other graph has without the branch."""
    largest = max(float(np.abs(own.weight).max(initial=0)), 1e-30)
    return float(np.abs(own.weight - theirs.weight).max(initial=0)) <= OTHER_MAP * largest


def _left_out(apart: _Side, whole: _Side, beside: Branch, product: int) -> OperatorChange:
    """That one graph alone has a branch."""
    names = op_names(apart.view.index, (*beside.others, beside.total))
    mine, theirs = (names, ()) if apart.reference else ((), names)
    (into,) = op_names(whole.view.index, [product])
    return NotMerged(mine, theirs, into) if beside.low else OperatorChange(mine, theirs)


def _differences(
    pairing: Pairing,
    sides: tuple[_Side, _Side],
    beside: Branch,
    place: tuple[int, int],
    wholes: tuple[Affine, Affine],
) -> Iterator[Difference]:
    """How a product differs from what the other graph makes when it is merged.

    Args:
        pairing: The matched nodes.
        sides: The graph that has the branch, and the other one.
        beside: The branch.
        place: The two products.
        wholes: What the two graphs do.
    """
    apart, _ = sides
    half = half_stored(pairing, place[1])
    parts = (*beside.nodes, *apart.steps(beside.total)) if apart.reference else ()
    names = tuple(apart.view.index.names[p] for p in parts)
    for name, change in folded_changes(*wholes, half):
        told = _otherwise(sides, beside, wholes, half) if name == "weights" and not change.in_steps else None
        patterns = change.patterns if told is None else (told,)
        yield Difference(*place, replace(change, parts=names, patterns=patterns), name)


def half_stored(pairing: Pairing, m: int) -> bool:
    """Whether a product of the candidate has weights of 16 bits."""
    specs = (pairing.c.index.specs.get(name) for name in pairing.c.forms[m].weights.values())
    return any(spec is not None and spec.dtype.itemsize == 2 for spec in specs)


def _otherwise(
    sides: tuple[_Side, _Side], beside: Branch, wholes: tuple[Affine, Affine], half: bool
) -> MergedOtherwise | None:
    """What else was merged that gives the weights: the branch times another number, transposed, or another one."""
    apart, whole = sides
    mine, theirs = wholes if apart.reference else wholes[::-1]
    own, behind = beside.own.weight, apart.steps(beside.total)
    tried: list[tuple[np.ndarray, bool, tuple[OpName, ...]]] = [(beside.added.weight, False, ())]
    if own.shape[0] == own.shape[1]:
        tried.append((beside.added.weight.T, True, ()))
    for added, turned, another in [*tried, *_others(apart, beside)]:
        pieces = (Affine(w, mine.bias, mine.scale) for w in (own, added))
        start, step = (continued(apart.view.index, behind, apart.view.forms, piece, -1) for piece in pieces)
        if start is None or step is None or not step.weight.any():
            return None
        factor = float(np.vdot(step.weight, theirs.weight - start.weight) / np.vdot(step.weight, step.weight))
        made = replace(mine, weight=start.weight + factor * step.weight)
        held = (made, theirs) if apart.reference else (theirs, made)
        if not any(name == "weights" for name, _ in folded_changes(*held, half)):
            nodes = _named(apart.view, beside)
            return MergedOtherwise(nodes, factor, beside.scale, turned, another, whole.reference, beside.low)
    return None


def _others(side: _Side, beside: Branch) -> Iterator[tuple[np.ndarray, bool, tuple[OpName, ...]]]:
    """What the other branches of a graph make, that have the same shape."""
    for p in side.view.live:
        found = branch(side.view, side.matched, p) if p != beside.product else None
        if found is not None and found.added.weight.shape == beside.added.weight.shape:
            yield found.added.weight, False, _named(side.view, found)


def _named(view: GraphView, beside: Branch) -> tuple[OpName, ...]:
    """The products of a branch."""
    return op_names(view.index, (p for p in beside.others if view.forms[p].family == MATRICES))
