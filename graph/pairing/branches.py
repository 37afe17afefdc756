"""Products into which the candidate has multiplied a branch that the reference has beside them: an adapter of low rank,
merged into the weights that it adapts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..operators import AFFINE_STEPS
from .affine import Affine, affine
from .pairs import Pairing
from .view import GraphView

MATRICES = "MatMul"
"""The family of products of matrices."""


@dataclass(frozen=True)
class Branch:
    """A sum of a product and of what other products make of the same tensor.

    Attributes:
        product: The first product.
        others: The nodes of the branch, in order.
        total: The addition.
        whole: What all of them do together.
    """

    product: int
    others: tuple[int, ...]
    total: int
    whole: Affine

    @property
    def nodes(self) -> tuple[int, ...]:
        """All its nodes."""
        return (self.product, *self.others, self.total)


def branch(pairing: Pairing, n: int) -> Branch | None:
    """The branch beside a product of the reference, none of whose nodes the candidate has; None where there is none.

    Args:
        pairing: The matched nodes.
        n: The product: of matrices, matched.
    """
    view = pairing.r
    made, given = view.first(n), [name for _, name in view.fine.nodes[n].inputs]
    readers = view.fine.consumers.get(made, [])
    if view.forms[n].family != MATRICES or len(given) != 1 or len(readers) != 1 or made in view.output_roots:
        return None
    total = readers[0][0]
    read = [name for _, name in view.fine.nodes[total].inputs]
    if view.forms[total].op != "Add" or total in pairing.nodes or len(read) != 2 or read[0] == read[1]:
        return None
    others = _others(view, next(name for name in read if name != made), given[0])
    mine = affine(view.index, [n], view.forms)
    if not others or mine is None or pairing.nodes.keys() & set(others):
        return None
    added = _composed(view, others)
    if added is None or added.weight.shape != mine.weight.shape:
        return None
    bias = mine.bias + added.bias
    scale = np.maximum.reduce([mine.scale, added.scale, np.abs(bias)])
    return Branch(n, tuple(others), total, Affine(mine.weight + added.weight, bias, scale))


def _others(view: GraphView, name: str, given: str) -> list[int]:
    """The nodes in a row that make a tensor of another one, each a product with constants, or a scaling or shift."""
    found: list[int] = []
    while name != given:
        position = view.index.producer.get(name)
        if position is None or position not in view.forms or len(view.fine.consumers.get(name, ())) != 1:
            return []
        form, inputs = view.forms[position], view.fine.nodes[position].inputs
        if not (form.family == MATRICES or form.op in AFFINE_STEPS) or len(inputs) != 1 or name in view.output_roots:
            return []
        found.insert(0, position)
        name = inputs[0][1]
    return found


def _composed(view: GraphView, nodes: list[int]) -> Affine | None:
    """What products, and the scalings and shifts behind each, do one after the other."""
    starts = [i for i, p in enumerate(nodes) if view.forms[p].family == MATRICES]
    if starts[:1] != [0]:
        return None
    whole: Affine | None = None
    for start, end in zip(starts, [*starts[1:], len(nodes)], strict=True):
        step = affine(view.index, nodes[start:end], view.forms)
        if step is None or (whole is not None and step.weight.shape[1] != whole.weight.shape[0]):
            return None
        if whole is not None:
            bias = step.weight @ whole.bias + step.bias
            scale = np.maximum(np.abs(step.weight) @ whole.scale, step.scale)
            step = Affine(step.weight @ whole.weight, bias, scale)
        whole = step
    return whole
