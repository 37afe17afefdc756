"""Exchanged layers: each of two makes what the other is to make, as where a packed product is split in another order.

Looks at: the outputs of two layers that exceed their noise, from the reference's inputs. Proves: that either is the
other's, up to rounding, so that both compute what they should.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..report.model import Cause
from .diagnosis import Diagnosis

SAME = 0.02
"""Distance from the other layer's output, relative to that between both, up to which it is that output."""


@dataclass(frozen=True)
class ExchangedWith:
    """A layer that makes the same as this one does in the other file, and the reverse.

    Attributes:
        layer: Operator and name of its main node.
    """

    layer: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the candidate makes here what {self.layer} makes in the reference, and the reverse: they are exchanged"


def pairs(made: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[int, int]]:
    """The pairs of layers, by their places in a sequence, that have exchanged their outputs.

    Args:
        made: What the reference and the candidate make of each layer from the reference's inputs.
    """
    sizes = [[float(np.linalg.norm(x.astype(np.float64))) for x in one] for one in made]
    for first, second in itertools.combinations(range(len(made)), 2):
        (a, b), (c, d) = sizes[first], sizes[second]
        # of other sizes, they are farther apart than the greatest distance that is looked for: most are never compared
        near = abs(b - c) <= SAME * (a + c) and abs(d - a) <= SAME * (a + c)
        if near and _are(made[first], made[second]):
            yield first, second


def _are(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> bool:
    if len({array.shape for array in (*first, *second)}) > 1:
        return False
    (a, b), (c, d) = ([x.astype(np.float64) for x in pair] for pair in (first, second))
    between = float(np.linalg.norm(a - c))
    if not between or not np.isfinite(between):
        return False
    return all(float(np.linalg.norm(x - y)) <= SAME * between for x, y in ((b, c), (d, a)))


def diagnosis(layer: str, node: int) -> Diagnosis:
    """Two layers that are exchanged, told at the first.

    Args:
        layer: Operator and name of the other's main node.
        node: Position of the first's main node.
    """
    return Diagnosis(Cause.WRONG_OP, (ExchangedWith(layer),), node)
