"""Numbers by which one graph multiplies the operands of a product, and the other what it makes: the scale of an
attention's scores, that of its queries, or the root of it on queries and keys."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from typing import NamedTuple

from ..operators import RENAMES, operator
from .pairs import Pairing
from .view import GraphView, multiplier

SAME = 1e-6
"""Relative difference up to which two factors are the same."""
BEHIND = "behind"
"""The place behind a product, beside its operands."""


class Step(NamedTuple):
    """A node that multiplies by a number, and the number."""

    node: int
    factor: float


def moved(pairing: Pairing) -> tuple[set[int], set[int]]:
    """The nodes of each graph that multiply an operand of a matched product by a number, where the other graph has none
    there, and multiplies elsewhere around the product: the two do the same if the numbers do."""
    found: tuple[set[int], set[int]] = set(), set()
    for n, m in pairing.nodes.items():
        mine, theirs = _around(pairing.r, n), _around(pairing.c, m)
        if not mine or mine.keys() != theirs.keys():
            continue
        others = {place for place in mine if not _same(mine[place], theirs[place])}
        for place in others - {BEHIND}:
            elsewhere = others - {place}
            if any(theirs[other] for other in elsewhere):
                found[0].update(step.node for step in mine[place] if step.node not in pairing.nodes)
            if any(mine[other] for other in elsewhere):
                found[1].update(step.node for step in theirs[place] if step.node not in pairing.taken)
    return found


def _around(view: GraphView, product: int) -> dict[str, list[Step]]:
    """Where a product is multiplied by numbers: by the slots of its operands, and behind it."""
    form = view.forms[product]
    if form.family != "MatMul":
        return {}
    found = {slot: list(_before(view, name)) for slot, name in view.fine.nodes[product].inputs}
    alpha = float(form.settings.get("alpha", 1.0))
    found[BEHIND] = [*([Step(product, alpha)] if alpha != 1.0 else []), *_behind(view, view.first(product))]
    return found


def _before(view: GraphView, name: str) -> Iterator[Step]:
    """The numbers by which one multiplies on the way to an operand that nothing else is made of."""
    while len(view.fine.consumers.get(name, ())) == 1 and name not in view.output_roots:
        position = view.index.producer.get(name, -1)
        factor = _factor(view, position, view.forms)
        if factor is not None:
            yield Step(position, factor)
        elif position not in view.forms or operator(view.index.nodes[position]) not in RENAMES:
            return
        name = view.fine.nodes[position].inputs[0][1]


def _behind(view: GraphView, name: str) -> Iterator[Step]:
    """The numbers by which one multiplies next what a product makes, which nothing else reads."""
    while len(readers := view.fine.consumers.get(name, [])) == 1 and name not in view.output_roots:
        position = readers[0][0]
        factor = _factor(view, position, view.forms)
        if factor is None:
            return
        yield Step(position, factor)
        name = view.first(position)


def _factor(view: GraphView, position: int, among: Container[int]) -> float | None:
    return multiplier(view.index, position, view.constant) if position in among else None


def _same(mine: list[Step], theirs: list[Step]) -> bool:
    one, other = (math.prod(step.factor for step in steps) for steps in (mine, theirs))
    return abs(one - other) <= SAME * max(abs(one), abs(other))
