"""Products of which the candidate has fewer channels: which of the reference's it keeps, told by their weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..index import GraphIndex
from ..nodes import attribute_int
from ..operators import AFFINE_PRODUCTS, INTEGER_PRODUCTS, POINTWISE, PRODUCTS, WINDOWED, operator
from .constants import constant_value
from .differences import Difference
from .weight_changes import WeightChange

CARRIES = POINTWISE | (WINDOWED - PRODUCTS - INTEGER_PRODUCTS) | {"Dropout", "Identity"}
"""Operators that leave each channel where it is."""


@dataclass(frozen=True)
class Kept:
    """The channels of a product that are left.

    Attributes:
        node, candidate_node: Positions in the two graphs.
        channels: Which of the reference's they are, in the candidate's order.
        before: How many the reference has.
    """

    node: int
    candidate_node: int
    channels: tuple[int, ...]
    before: int


@dataclass(frozen=True)
class Unlike:
    """A product that keeps other channels of what it reads than the product that makes them.

    Attributes:
        maker: The product that makes them, with its output channels.
        reader: The product that reads them, with its input channels.
    """

    maker: Kept
    reader: Kept


def unlike(graphs: tuple[GraphIndex, GraphIndex], differences: Iterable[Difference]) -> Iterator[Unlike]:
    """Every such pair, of which all that lies between them leaves each channel where it is.

    Args:
        graphs: The reference's and the candidate's.
        differences: What differs between the nodes of the two.
    """
    makers, readers = dict[int, Kept](), dict[int, Kept]()
    for difference in differences:
        if isinstance(difference.change, WeightChange) and difference.change.shape != difference.change.candidate_shape:
            for kept, found in zip((makers, readers), _kept(graphs, difference), strict=True):
                if found is not None:
                    kept[difference.candidate_node] = found
    for position, maker in makers.items():
        for other in _read_by(graphs[1], position, readers):
            reader = readers[other]
            if reader.before == maker.before and reader.channels != maker.channels:
                yield Unlike(maker, reader)


def _kept(graphs: tuple[GraphIndex, GraphIndex], difference: Difference) -> tuple[Kept | None, Kept | None]:
    """The output and the input channels that are left of a product; None where not fewer, or not the reference's."""
    positions = difference.node, difference.candidate_node
    nodes = [index.nodes[p] for index, p in zip(graphs, positions, strict=True)]
    if any(operator(node) not in AFFINE_PRODUCTS or len(node.input) < 2 for node in nodes):
        return None, None
    if any(attribute_int(node, "group", 1) != 1 for node in nodes):
        return None, None
    values = [constant_value(index, node.input[1]) for index, node in zip(graphs, nodes, strict=True)]
    first = [operator(n) == "Conv" or (operator(n) == "Gemm" and attribute_int(n, "transB", 0) == 1) for n in nodes]
    laid = [
        None if v is None or v.ndim < 2 or v.dtype == object else v if outputs else np.swapaxes(v, 0, 1)
        for v, outputs in zip(values, first, strict=True)
    ]
    x, y = laid
    if x is None or y is None or x.ndim != y.ndim:
        return None, None
    found = (_rows(np.moveaxis(x, axis, 0), np.moveaxis(y, axis, 0)) for axis in (0, 1))
    outputs, inputs = (None if rows is None else Kept(*positions, *rows) for rows in found)
    return outputs, inputs


def _rows(x: np.ndarray, y: np.ndarray) -> tuple[tuple[int, ...], int] | None:
    """Which rows of one array the rows of a smaller one are, and how many it has."""
    if x.shape[1:] != y.shape[1:] or not 0 < len(y) < len(x):
        return None
    where: dict[bytes, list[int]] = {}
    for i, row in enumerate(x):
        where.setdefault(np.ascontiguousarray(row).tobytes(), []).append(i)
    found = [where.get(np.ascontiguousarray(row).tobytes(), []) for row in y]
    return (tuple(i for (i,) in found), len(x)) if all(len(places) == 1 for places in found) else None


def _read_by(index: GraphIndex, position: int, readers: Mapping[int, Kept]) -> list[int]:
    """Those of some nodes that read what another one makes, as it is or behind operators that leave channels alone."""
    found, waiting = dict[int, None](), [position]
    while waiting:
        for name in index.nodes[waiting.pop()].output:
            for p in index.consumers.get(name, ()):
                if p in readers:
                    found[p] = None
                elif operator(index.nodes[p]) in CARRIES:
                    waiting.append(p)
    return [*found]
