"""Inputs of a decoder that belong together: drawn apart, a mask, positions and a cache would contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..graph.decoders import decoder

if TYPE_CHECKING:
    from ..graph.model import Model

CACHE_RANGE = (-1.0, 1.0)
"""What random keys and values in a cache are drawn from."""


@dataclass(frozen=True)
class Together:
    """What is settled of the inputs of a decoder.

    Attributes:
        shapes: Shapes that fit each other, with those that the user gave; None leaves a dimension open.
        values: Mask, positions and branch, which follow from the sizes.
        caches: Names of the keys and values.
        notes: What was recognized.
    """

    shapes: Mapping[str, Sequence[int | None]]
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    caches: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def together(model: Model, shapes: Mapping[str, Sequence[int | None]]) -> Together:
    """Settles what belongs together, if the model is a decoder with a cache.

    Args:
        model: Any model.
        shapes: What the user said of shapes.

    Raises:
        DataError: Two of the shapes contradict each other.
    """
    found = decoder(model.inputs)
    if found is None or not found.caches:
        return Together(shapes)
    sizes = found.sizes(shapes)
    values = found.around(np.ones((sizes.batch, sizes.total), np.int64), sizes.past)
    behind = "an empty cache" if not sizes.past else f"{sizes.past} in the cache, whose keys and values are random"
    note = (
        f"The model was recognized as {found}: {sizes.batch} x {sizes.tokens} tokens behind {behind}; mask and "
        f"positions fit them (--shape {found.ids.name}:DIMS, --shape {found.caches[0].past.name}:DIMS)."
    )
    caches = frozenset(cache.past.name for cache in found.caches)
    return Together({**shapes, **found.shapes(sizes)}, values, caches, (note,))
