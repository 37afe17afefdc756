"""Products into which one graph has multiplied a branch that the other has beside them: an adapter of low rank, merged
into the weights that it adapts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..operators import AFFINE_STEPS
from .affine import Affine, affine
from .constants import constant_value
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
        own: What the first product does.
        added: What the branch does.
        scale: The one number that the branch multiplies by, where it has one; else None.
        low: Whether it goes through fewer channels than the product reads and gives: an adapter of low rank.
    """

    product: int
    others: tuple[int, ...]
    total: int
    own: Affine
    added: Affine
    scale: float | None
    low: bool

    @property
    def nodes(self) -> tuple[int, ...]:
        """All its nodes."""
        return (self.product, *self.others, self.total)

    @property
    def whole(self) -> Affine:
        """What all of them do together."""
        bias = self.own.bias + self.added.bias
        scale = np.maximum.reduce([self.own.scale, self.added.scale, np.abs(bias)])
        size = np.abs(self.own.weight) + (np.abs(self.added.weight) if self.added.size is None else self.added.size)
        return Affine(self.own.weight + self.added.weight, bias, scale, size=size)


def branch(view: GraphView, matched: Collection[int], n: int) -> Branch | None:
    """The branch beside a product, none of whose nodes the other graph has; None where there is none.

    Args:
        view: The graph.
        matched: The nodes that the other graph has.
        n: The product.
    """
    made, given = view.first(n), [name for _, name in view.fine.nodes[n].inputs]
    readers = view.fine.consumers.get(made, [])
    if view.forms[n].family != MATRICES or len(given) != 1 or len(readers) != 1 or made in view.output_roots:
        return None
    total = readers[0][0]
    read = [name for _, name in view.fine.nodes[total].inputs]
    if view.forms[total].op != "Add" or total in matched or len(read) != 2 or read[0] == read[1]:
        return None
    others = _others(view, next(name for name in read if name != made), given[0])
    mine = affine(view.index, [n], view.forms)
    if not others or mine is None or not set(others).isdisjoint(matched):
        return None
    added = _composed(view, others)
    if added is None or added.weight.shape != mine.weight.shape:
        return None
    rank = affine(view.index, others[:1], view.forms)
    low = rank is not None and len(rank.bias) < min(mine.weight.shape)
    return Branch(n, tuple(others), total, mine, added, _scale(view, others), low)


def _scale(view: GraphView, nodes: list[int]) -> float | None:
    """The one number that some nodes multiply by, where exactly one of them does that."""
    steps = [(view.forms[p].op, name) for p in nodes for name in view.forms[p].weights.values()]
    known = [(op, constant_value(view.index, name)) for op, name in steps if op in ("Mul", "Div")]
    numbers = [(op, value) for op, value in known if value is not None]
    if len(numbers) != 1 or numbers[0][1].size != 1:
        return None
    number = float(numbers[0][1].reshape(-1)[0])
    return number if numbers[0][0] == "Mul" else 1 / number if number else None


def _others(view: GraphView, name: str, given: str) -> list[int]:
    """The nodes in a row that make a tensor of another one, each a product with constants, or a scaling or shift. What
    the first of them makes, other branches may read, too: of equal products, an optimizer leaves one."""
    found: list[int] = []
    while name != given:
        position = view.index.producer.get(name)
        if position is None or position not in view.forms:
            return []
        form, inputs = view.forms[position], view.fine.nodes[position].inputs
        first = form.family == MATRICES and [read for _, read in inputs] == [given]
        if len(view.fine.consumers.get(name, ())) != 1 and not first:
            return []
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
            size = np.abs(step.weight) @ (np.abs(whole.weight) if whole.size is None else whole.size)
            step = Affine(step.weight @ whole.weight, bias, scale, size=size)
        whole = step
    return whole


def chain(view: GraphView, position: int) -> list[int]:
    """A product and the constant scalings and shifts after it that nothing else reads."""
    found = [position]
    while True:
        name = view.first(found[-1])
        readers = view.fine.consumers.get(name, [])
        if len(readers) != 1 or name in view.output_roots:
            return found
        step = view.forms[readers[0][0]]
        if step.op not in AFFINE_STEPS or len(step.data) != 1 or not step.weights:
            return found
        found.append(readers[0][0])
