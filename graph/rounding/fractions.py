"""Floats that hold integers, or integers over a power of two: FP32 rounds nothing of what is computed of them.

An index that is cast to FP32, halved, moved by one half and rounded down is exact at every step in every runtime. Noise
there would carry values over edges that they lie upon exactly. Sums along axes and quotients by other numbers are left
out: those may be rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..operators import CASTS, MOVEMENT, ROUNDS_TO_INTEGERS, STEPS_OF_INTEGERS, operator
from ..specs import is_float

if TYPE_CHECKING:
    from ..index import GraphIndex

LARGEST = 1 << 12
"""Elements of a constant that are looked at."""
BITS = 12
"""Binary places of a constant that count as few."""


def fractions(index: GraphIndex) -> frozenset[str]:
    """Floating-point tensors of a graph, apart from its constants, that hold integers or few binary places of them."""
    found: set[str] = set()
    for node in index.nodes:
        op, reads = operator(node), [n for n in node.input if n]
        if op in ROUNDS_TO_INTEGERS or (op in CASTS and not _is_float(index, reads[0])):
            exact = True
        elif op == "Div":
            exact = reads[0] in found and _is_constant(index, reads[1], powers=True)
        elif op in STEPS_OF_INTEGERS:
            exact = all(n in found or _is_constant(index, n) for n in reads)
        else:
            exact = (
                op in MOVEMENT
                and any(n in found for n in reads)
                and all(n in found or not _is_float(index, n) for n in reads)
            )
        if exact:
            found.update(n for n in node.output if _is_single(index, n))
    return frozenset(found)


def _is_float(index: GraphIndex, name: str) -> bool:
    return name in index.specs and is_float(index.specs[name].dtype)


def _is_single(index: GraphIndex, name: str) -> bool:
    return name in index.specs and index.specs[name].dtype == np.float32


def _is_constant(index: GraphIndex, name: str, powers: bool = False) -> bool:
    """Whether a constant has few binary places, or is made of powers of two alone."""
    value = index.weight(name)
    if value is None or value.size > LARGEST or value.dtype.kind != "f" or not np.isfinite(value).all():
        return False
    mantissa, exponent = np.frexp(value.astype(np.float64))
    if powers:
        return bool((np.abs(mantissa) == 0.5).all() and (np.abs(exponent) <= BITS).all())
    scaled = np.ldexp(value.astype(np.float64), BITS)
    return bool((scaled == np.rint(scaled)).all() and (np.abs(value) < 2**BITS).all())
