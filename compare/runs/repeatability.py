"""Does a runner give the same bits twice?

Before a layer is blamed, the same inputs are run twice: what a runtime does not repeat is chance.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..statistics.statistics import Statistics


def fingerprint(value: Any) -> bytes:
    """A hash of an array's dtype, shape and bits."""
    array = np.ascontiguousarray(value)
    digest = hashlib.blake2b(f"{array.dtype.str} {array.dtype.name} {np.shape(value)}".encode(), digest_size=16)
    if array.dtype == object:  # strings
        digest.update(repr(array.tolist()).encode())
    elif array.size:
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()


def same_bits(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two arrays are there, and have the same dtype, shape and bits."""
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape or one.dtype == object:
        return False
    if one is other:
        return True
    width = {8: np.uint64, 4: np.uint32, 2: np.uint16}.get(one.dtype.itemsize, np.uint8)
    a, b = (np.ascontiguousarray(array).reshape(-1).view(width) for array in (one, other))
    return bool(np.array_equal(a, b))


@dataclass(frozen=True)
class Repeat:
    """The same inputs run twice.

    Attributes:
        identical: Whether all outputs are the same, bit by bit.
        tensor: The output that differs most; empty if none does.
        max_abs, rel_l2: By how much; infinite where a shape changed or something is finite once only.
    """

    identical: bool
    tensor: str = ""
    max_abs: float = 0.0
    rel_l2: float = 0.0

    def json(self) -> dict[str, Any]:
        """As the report holds it."""
        return {
            "bit_identical": self.identical,
            "tensor": self.tensor or None,
            "max_abs": self.max_abs,
            "rel_l2": self.rel_l2,
        }


def repeat(first: Mapping[str, Any], second: Mapping[str, Any]) -> Repeat:
    """Compares two runs of the same inputs."""
    worst = Repeat(True)
    for name, value in first.items():
        if name not in second:
            return Repeat(False, name, math.inf, math.inf)
        if fingerprint(value) == fingerprint(second[name]):
            continue
        one, other = np.asarray(value), np.asarray(second[name])
        statistics = Statistics(full=False)
        statistics.update(one, other, sample=0)
        metrics = statistics.metrics()
        if statistics.shape_mismatch is not None or statistics.broken:
            size = relative = math.inf
        else:
            size, relative = (math.inf if v is None else float(v) for v in (metrics["max_abs"], metrics["rel_l2"]))
        if worst.identical or relative > worst.rel_l2:
            worst = Repeat(False, name, size, relative)
    return worst
