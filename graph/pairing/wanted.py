"""Which constant of several is another one, seen from what is computed of them: a table under a mask that is added."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..index import GraphIndex
from ..nodes import attribute_ints
from ..operators import AFFINE_STEPS, FLAT, operator
from ..specs import is_float

NOISE = 4 * 2.0**-23
"""Relative error that the sums and products leave that are taken back, of the larger of what they read and make."""
DEEPEST = 32
"""Most nodes one after the other that are taken back."""

Known = Callable[[str], "np.ndarray | None"]
"""Gives the value of a tensor; None where it is not known."""


@dataclass(frozen=True)
class Wanted:
    """A constant, and what it has to be for a tensor that is computed from it to have other values.

    Attributes:
        name: The constant.
        own: What it is.
        value: What it has to be: its own values where these do.
    """

    name: str
    own: np.ndarray
    value: np.ndarray


def taken_back(index: GraphIndex, name: str, value: np.ndarray, known: Known, *, fixed: bool) -> Wanted | None:
    """The one stored constant that has to be another one for a tensor to have other values.

    Args:
        index: The graph.
        name: The tensor, which is computed from constants and sizes.
        value: The values that it is to have.
        known: Gives the values that tensors of the graph have.
        fixed: Whether the sizes cannot be others.

    Returns:
        None where no constant does, several would, or something else would that follows from sizes.
    """
    wide = value.astype(np.float64)
    ends = list(_stored(index, _Step(name, wide, np.abs(wide)), known, DEEPEST))
    found = [wanted for wanted in ends if wanted is not None]
    return found[0] if len(found) == 1 and (fixed or len(ends) == 1) else None


@dataclass(frozen=True)
class _Step:
    """A tensor, the values that it has to have, and the largest that were added or taken away to come to these."""

    name: str
    value: np.ndarray
    size: np.ndarray

    def like(self, own: np.ndarray) -> bool:
        """Whether these are the values that it has, to within rounding."""
        return own.shape == self.value.shape and bool((np.abs(self.value - own) <= NOISE * self.size).all())


def _stored(index: GraphIndex, step: _Step, known: Known, deepest: int) -> Iterator[Wanted | None]:
    """The stored constants each of which, by itself, would be enough; None for what is taken back no further."""
    own, position = index.weight(step.name), index.producer.get(step.name)
    if own is None:
        steps = _before(index, position, step, known) if position is not None and deepest else []
        for before in steps:
            yield from _stored(index, before, known, deepest - 1)
        if not steps:
            yield None
    elif own.shape == step.value.shape and is_float(own.dtype) and not step.like(own):
        alike = np.abs(step.value - own) <= NOISE * np.maximum(step.size, np.abs(own))
        yield Wanted(step.name, own, np.where(alike, own, step.value.astype(own.dtype)))


def _before(index: GraphIndex, position: int, step: _Step, known: Known) -> list[_Step]:
    """What each input of a node would have to be, by itself, for the node to make some values: of those that can."""
    node = index.nodes[position]
    op, reads = operator(node), [name for name in node.input if name]
    if op in AFFINE_STEPS and len(reads) == 2:
        found = []
        for place, name in enumerate(reads):
            own, other = known(name), known(reads[1 - place])
            if own is None or other is None:
                return []
            back = _undone(op, place, replace(step, name=name), other.astype(np.float64))
            fits = None if back is None else _narrowed(back, own.shape)
            if fits is not None and not fits.like(own):
                found.append(fits)
        return found
    own = known(reads[0]) if reads else None
    if own is None:
        return []
    if op in FLAT and own.size == step.value.size:
        return [_Step(reads[0], step.value.reshape(own.shape), step.size.reshape(own.shape))]
    if op == "Transpose":
        order = np.argsort(attribute_ints(node, "perm") or range(own.ndim)[::-1])
        return [_Step(reads[0], step.value.transpose(order), step.size.transpose(order))]
    if op == "Expand":
        narrow = _narrowed(replace(step, name=reads[0]), own.shape)
        return [] if narrow is None else [narrow]
    return []


def _undone(op: str, place: int, step: _Step, other: np.ndarray) -> _Step | None:
    """What an input of a sum, difference, product or quotient has to be beside the other one."""
    made, size = step.value, step.size
    if op in ("Mul", "Div") and not np.all(other):
        return None
    if op == "Add":
        return replace(step, value=made - other, size=np.maximum(size, np.abs(other)))
    if op == "Sub":
        back = made + other if place == 0 else other - made
        return replace(step, value=back, size=np.maximum(size, np.abs(other)))
    if op == "Mul":
        return replace(step, value=made / other, size=size / np.abs(other))
    if place == 0:
        return replace(step, value=made * other, size=size * np.abs(other))
    return replace(step, value=other / made, size=np.abs(other / made)) if np.all(made) else None


def _narrowed(step: _Step, shape: tuple[int, ...]) -> _Step | None:
    """The same of a tensor that is spread along axes to these values: of those that it is spread to, the one to which
    the least was added. None where they are not the same."""
    value, size = np.broadcast_arrays(step.value, step.size)
    lead = value.ndim - len(shape)
    if lead < 0 or any(d not in (1, n) for d, n in zip(shape, value.shape[lead:], strict=True)):
        return None
    axes = [*range(lead), *(lead + i for i, d in enumerate(shape) if d == 1)]
    value, size = (np.moveaxis(a, axes, range(len(axes))).reshape(-1, *shape) for a in (value, size))
    least = size.argmin(axis=0)[None]
    first = np.take_along_axis(value, least, axis=0)
    if (np.abs(value - first) > 2 * NOISE * size).any():
        return None
    return _Step(step.name, first[0], np.take_along_axis(size, least, axis=0)[0])
