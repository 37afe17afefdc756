"""What is to be typed FP32 in a file whose types are FP16 or BF16."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import BY_DTYPE
from ...graph.operators import CASTS, operator
from ...graph.pairing.weight_changes import WeightChange
from ...graph.printable import listed
from ...graph.rounding.widening import is_narrow
from ..causes.ranges import format_loss
from .wider import one_kernel

if TYPE_CHECKING:
    from ...graph.formats import NumberFormat
    from ...graph.index import GraphIndex
    from ...graph.pairing.differences import Difference

MOST_TYPED = 8
"""How many nodes are named that are to be typed FP32."""


def in_fp32(*nodes: str) -> str:
    """That some nodes are to be typed FP32 in the file."""
    around = "it" if len(nodes) == 1 else "them"
    told = listed(nodes, MOST_TYPED)
    return f"write {told} in FP32 in the file, with Casts around {around}: the types of a graph are law"


def kernel_of(index: GraphIndex, name: str) -> list[str]:
    """The nodes typed FP16 or BF16 that run in one kernel with one, itself included, in the order of the graph."""
    nodes = one_kernel(index, index.names.index(name)) if name in index.names else []
    computing = [p for p in nodes if operator(index.nodes[p]) not in CASTS]
    return [n for p in computing if typed_narrow(index, n := index.names[p])] or [name]


def typed_narrow(index: GraphIndex, name: str) -> bool:
    """Whether the graph itself types what a node gives FP16 or BF16."""
    return narrow_type(index, name) is not None


def narrow_type(index: GraphIndex, name: str) -> NumberFormat | None:
    """FP16 or BF16, where the graph itself types so what a node gives."""
    if name not in index.names:
        return None
    made = (index.specs.get(n) for n in index.nodes[index.names.index(name)].output)
    types = (spec.dtype for spec in made if spec is not None and is_narrow(spec.dtype))
    return next((BY_DTYPE[dtype.name] for dtype in types), None)


def value_beyond(difference: Difference, fmt: NumberFormat) -> float | None:
    """The one value that the reference has for a constant, if a format cannot hold it."""
    change = difference.change
    if not isinstance(change, WeightChange) or change.values is None or change.size != 1 or change.greatest is None:
        return None
    value = float(change.values[0])
    return None if format_loss(np.array([value]), fmt) is None else value
