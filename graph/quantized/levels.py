"""Numbers that are stored in few levels which are not equally far apart: 8-bit and 4-bit floats, codebooks."""

from __future__ import annotations

import functools
import math

import ml_dtypes
import numpy as np

from ..index import GraphIndex
from ..operators import operator
from ..specs import is_float

CODEBOOK = 256
"""Most values of a table that stands for a number format: what 8 bits number."""


SMALL_FLOATS = ("float8", "float4")
"""How the names of dtypes begin that are floats of 8 bits or fewer, and scaled as integers are."""


@functools.lru_cache(maxsize=16)
def levels_of_type(name: str) -> np.ndarray:
    """The finite values of a float of 8 bits or fewer, in ascending order."""
    dtype = np.dtype(getattr(ml_dtypes, name))
    every = np.arange(1 << min(8, ml_dtypes.finfo(dtype).bits), dtype=np.uint8).view(dtype).astype(np.float64)
    return np.unique(every[np.isfinite(every)])


def spacing(levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How far apart neighbouring levels are where some values lie; at a level, the greater distance of both sides.

    Args:
        levels: In ascending order, two or more.
        values: Of any shape; beyond the ends, the outermost distance holds.
    """
    gaps = np.diff(levels)
    below, above = (np.searchsorted(levels, values, side) - 1 for side in ("left", "right"))
    last = len(gaps) - 1
    return np.asarray(np.maximum(gaps[np.clip(below, 0, last)], gaps[np.clip(above, 0, last)]))


def stored_levels(index: GraphIndex, position: int) -> np.ndarray | None:
    """The levels of the weights that a node makes floats of, or looks up in a codebook; None of other nodes."""
    node = index.nodes[position]
    spec = index.specs.get(node.input[0]) if node.input else None  # which tells most, and reads no weights
    if operator(node) in ("Cast", "DequantizeLinear"):
        small = spec is not None and spec.dtype.name.startswith(SMALL_FLOATS)
        stored = small and index.weight(node.input[0]) is not None
        return levels_of_type(spec.dtype.name) if spec is not None and stored else None
    if operator(node) != "Gather" or (spec is not None and spec.shape is not None and len(spec.shape) != 1):
        return None
    table, made = index.weight(node.input[0]), index.specs.get(node.output[0])
    if table is None or table.ndim != 1 or not 1 < table.size <= CODEBOOK or not is_float(table.dtype):
        return None
    count = 0 if made is None else math.prod(d for d in made.shape or (0,) if isinstance(d, int))
    if count <= CODEBOOK or not _is_constant(index, node.input[1]):
        return None
    levels = np.unique(table.astype(np.float64))
    return levels if len(levels) > 1 and np.isfinite(levels).all() else None


def _is_constant(index: GraphIndex, name: str) -> bool:
    """Whether a tensor depends on stored values alone."""
    waiting, seen = [name], {name}
    while waiting:
        here = waiting.pop()
        if index.weight(here) is not None:
            continue
        if here not in index.producer:
            return False
        reads = [n for n in index.reads[index.producer[here]] if n not in seen]
        seen.update(reads)
        waiting.extend(reads)
    return True
