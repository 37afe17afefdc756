"""Arrays whose rows are all the same: what they show of a network's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...graph.specs import is_float


class SameRows:
    """Tells arrays of one name whose rows are all the same, in all samples, from those that vary.

    A row is what stands at one place of the first axis; of arrays without a second one, the whole array is.
    """

    def __init__(self) -> None:
        self._first: dict[str, np.ndarray] = {}
        self._counts: dict[str, int] = {}
        self._varied: set[str] = set()

    def take(self, arrays: Mapping[str, Any]) -> None:
        """Looks at a sample, and no more at what has varied."""
        for name, array in arrays.items():
            if name in self._varied or not isinstance(array, np.ndarray) or not array.size:
                continue
            rows = array if array.ndim > 1 else array[np.newaxis]
            if name not in self._first:
                self._first[name] = np.array(rows[0])
            first = self._first[name]
            # two rows tell nearly always
            if rows.shape[1:] != first.shape or not (_same(rows[-1:], first) and _same(rows, first)):
                self._varied.add(name)
                del self._first[name]
                continue
            self._counts[name] = self._counts.get(name, 0) + len(rows)

    @property
    def varied(self) -> bool:
        """Whether anything has varied."""
        return bool(self._varied)

    def constant(self) -> dict[str, int]:
        """The floating-point arrays of which all rows are the same, with how many rows there are, two at least."""
        return {n: self._counts[n] for n, row in self._first.items() if self._counts[n] > 1 and is_float(row.dtype)}


def _same(rows: np.ndarray, first: np.ndarray) -> bool:
    equal = rows == first
    if is_float(rows.dtype):
        equal = equal | ((rows != rows) & (first != first))
    return bool(np.all(equal))
