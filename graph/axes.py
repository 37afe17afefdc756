"""Which axes of a network's tensors grow with which of its sizes: found out by propagating shapes, nothing is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from .cutting.propagate import propagate

if TYPE_CHECKING:
    from .model import Model

Shapes: TypeAlias = "Mapping[str, tuple[int, ...]]"


def growing(model: Model, base: Shapes, grown: Sequence[Shapes]) -> dict[str, tuple[tuple[int, ...], ...]]:
    """How the axes of every tensor grow.

    Args:
        model: The network.
        base: Shapes of its inputs.
        grown: The same with one size or another larger.

    Returns:
        Tensor -> for each axis, by how much it is longer than with ``base``, one number for each of ``grown``. Tensors
        whose shapes do not follow without running, or change their rank, are left out.
    """
    first, *others = [propagate(model, shapes) for shapes in (base, *grown)]
    found = {}
    for name, shape in first.items():
        changed = [other.get(name) for other in others]
        if shape is None or any(c is None or len(c) != len(shape) for c in changed):
            continue
        found[name] = tuple(tuple(c[axis] - size for c in changed if c is not None) for axis, size in enumerate(shape))
    return found
