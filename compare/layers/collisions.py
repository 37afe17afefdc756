"""Scatters that write several updates to one place: nobody says in which order.

Of sums and products, the order decides the rounding, and kernels of several threads have lost updates; where updates
replace each other, ONNX does not say which one stays. Such a layer need not give the same bits twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ...graph.index import GraphIndex
from ...graph.nodes import attribute_int, attribute_string
from ...graph.operators import SCATTERS

ORDERLESS = ("max", "min")
"""Reductions whose result is the same in every order."""


@dataclass(frozen=True)
class Collision:
    """A scatter with several updates for one place.

    Attributes:
        position: The node in the reference's graph.
        updates: How many updates there are.
        places: How many places they are written to.
        adds: Whether the updates are combined, and not replaced by each other.
    """

    position: int
    updates: int
    places: int
    adds: bool


def collisions(index: GraphIndex, nodes: tuple[int, ...], values: Mapping[str, np.ndarray]) -> Iterator[Collision]:
    """The scatters of a layer whose indices name a place more than once.

    Args:
        index: The reference's graph.
        nodes: The layer's nodes.
        values: Tensors of one sample; a scatter whose indices are not among them is not looked at.
    """
    for position in nodes:
        node = index.nodes[position]
        if node.op_type not in SCATTERS or node.domain or len(node.input) < 3:
            continue
        reduction = attribute_string(node, "reduction", "none")
        indices = values.get(node.input[1])
        if indices is None:
            indices = index.weight(node.input[1])
        if reduction in ORDERLESS or indices is None or not np.size(indices):
            continue
        spec = index.specs.get(node.input[0])
        shape = values[node.input[0]].shape if node.input[0] in values else getattr(spec, "shape", None)
        places = _places(node.op_type, np.asarray(indices), attribute_int(node, "axis", 0), shape)
        distinct = len(np.unique(places, axis=0))
        if distinct < len(places):
            yield Collision(position, len(places), distinct, reduction != "none")


def _places(op: str, indices: np.ndarray, axis: int, shape: tuple[object, ...] | None) -> np.ndarray:
    """Where the updates go: one row each. Indices may count from the end where the sizes are known."""
    if op == "ScatterND":
        places = indices.reshape(-1, indices.shape[-1]).astype(np.int64)
        sizes = list(shape or ())[: places.shape[1]]
        return np.stack([_from_the_front(c, s) for c, s in zip(places.T, sizes, strict=True)], 1) if sizes else places
    coordinates = np.indices(indices.shape).reshape(indices.ndim, -1)
    coordinates[axis] = _from_the_front(indices.reshape(-1), (shape or [None] * indices.ndim)[axis])
    return coordinates.T


def _from_the_front(indices: np.ndarray, size: object) -> np.ndarray:
    return np.where(indices < 0, indices + size, indices) if isinstance(size, int) else indices
