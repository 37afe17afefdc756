"""Another number of heads of an attention, where both sides compute it with other operators.

Looks at: the shapes that nodes give which do nothing else, on the way to a Softmax. Proves: that the sizes of two axes
are others on both sides, of the same product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...graph.cutting.slices import Slice
from ...graph.index import GraphIndex
from ...graph.operators import AFFINE_STEPS, MOVEMENT, PRODUCTS, RESHAPES, operator
from ...graph.pairing.constants import constant_value
from ...graph.specs import Dim
from .case import LayerCase


@dataclass(frozen=True)
class Heads:
    """The heads of an attention: how many there are of which size, as (number, size), on both sides."""

    reference: tuple[int, int]
    candidate: tuple[int, int]

    @property
    def text(self) -> str:
        """See `Fact`."""
        (count, size), (other, its) = self.reference, self.candidate
        return f"{count} heads of size {size} in the reference, {other} of size {its} in the candidate"

    @property
    def remedy(self) -> str:
        """What to do."""
        count, size = self.reference
        return f"compute with {count} heads of size {size} in the second file, as the first one does"


def of_layer(case: LayerCase) -> tuple[Heads, ...]:
    """The heads that both sides make in a layer, where one of them alone makes another number."""
    both = zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    mine, theirs = (set(_shapes(index, part)) for index, part in both)
    found = {pair for one in mine - theirs for other in theirs - mine if (pair := _split(one, other)) is not None}
    return (Heads(*found.pop()),) if len(found) == 1 else ()


def _shapes(index: GraphIndex, part: Slice) -> Iterator[tuple[int, ...]]:
    """The shapes of four axes that nodes give to what goes into a Softmax by a product of two tensors."""
    for p in part.nodes:
        made = index.nodes[p].output[0]
        shape = index.shape(made) if operator(index.nodes[p]) in RESHAPES else None
        sizes = tuple(d for d in shape or () if isinstance(d, int))
        if shape is not None and len(sizes) == len(shape) == 4 and attends(index, [made]):
            yield sizes


def of_shapes(one: Sequence[Dim], other: Sequence[Dim]) -> Heads | None:
    """The heads of two shapes of four axes that are given in one place; None where something else differs."""
    if len(one) != 4 or len(other) != 4:
        return None
    unlike = [(a, b) for a, b in zip(one, other, strict=True) if a != b and isinstance(a, int) and isinstance(b, int)]
    if len(unlike) != 2 or one[-1] == other[-1] or sum(a != b for a, b in zip(one, other, strict=True)) > 2:
        return None
    (count, number), (size, length) = unlike
    return Heads((count, size), (number, length)) if count * size == number * length else None


def _split(one: Sequence[int], other: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """How many heads of which size two shapes have, where these are all that they do not share."""
    alone, its = Counter(one) - Counter(other), Counter(other) - Counter(one)
    size, length = one[-1], other[-1]
    if alone.total() != 2 or its.total() != 2 or size not in alone or length not in its or size == length:
        return None
    (count,), (number,) = (alone - Counter([size])).elements(), (its - Counter([length])).elements()
    return ((count, size), (number, length)) if count * size == number * length else None


def attends(index: GraphIndex, names: Sequence[str]) -> bool:
    """Whether tensors go into a Softmax by one product of two tensors, be they moved and scaled before."""
    waiting = [(name, False) for name in names]
    seen = set[tuple[str, bool]]()
    while waiting:
        name, multiplied = waiting.pop()
        if (name, multiplied) in seen:
            continue
        seen.add((name, multiplied))
        for p in index.consumers.get(name, ()):
            node, op = index.nodes[p], operator(index.nodes[p])
            if op == "Softmax" and multiplied:
                return True
            product = op in PRODUCTS and all(constant_value(index, read) is None for read in node.input)
            if op in MOVEMENT | AFFINE_STEPS or (product and not multiplied):
                waiting.extend((made, multiplied or product) for made in node.output)
    return False
