"""Integers that stand for other numbers in the two graphs: a scale or a zero point is another one there.

What the candidate makes of such a tensor must not be read with the reference's scale: the numbers that it stands for
are handed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.nodes import attribute_int
from ...graph.operators import operator
from ...graph.quantized.quantizers import along
from ...graph.quantized.scales import Scale, scales_of

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.specs import Arrays
    from ..lockstep.plan import LayerPair


@dataclass(frozen=True)
class _Scaling:
    """A scale and a zero point, of one value or of one for each index of an axis."""

    scale: np.ndarray
    zero: np.ndarray
    axis: int

    def same(self, other: _Scaling) -> bool:
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)

    def meant(self, integers: np.ndarray) -> np.ndarray:
        """The numbers that integers stand for."""
        scale, zero = (along(value, self.axis, integers.ndim) for value in (self.scale, self.zero))
        return np.asarray((integers.astype(np.float64) - zero) * scale)


class Rescaled:
    """The tensors of integers with another scale or zero point in the candidate.

    Args:
        reference, candidate: The graphs.
        tensors: Tensors of the reference -> tensors of the candidate.
    """

    def __init__(self, reference: GraphIndex, candidate: GraphIndex, tensors: Mapping[str, str]) -> None:
        self.reference = reference
        self._scalings: dict[str, _Scaling] = {}
        if reference is candidate:
            return
        mine, theirs = scales_of(reference), scales_of(candidate)
        for name, other in tensors.items():
            if name in mine and other in theirs:
                one, two = _scaling(reference, name, mine[name]), _scaling(candidate, other, theirs[other])
                if one is not None and two is not None and not one.same(two):
                    self._scalings[name] = two

    def read_by(self, pair: LayerPair) -> bool:
        """Whether a layer reads such a tensor: what it makes of the reference's integers is no error of its own."""
        return any(name in self._scalings for name in pair.reference.inputs)

    def handed_on(self, pair: LayerPair, made: Arrays, values: Arrays) -> dict[str, np.ndarray] | None:
        """The reference's tensors in which the candidate's outputs of a layer are handed on.

        Args:
            pair: The layer.
            made: The candidate's outputs, by the candidate's names.
            values: The reference's tensors, as far as they are known.

        Returns:
            Its outputs; in place of integers with another scale, what each DequantizeLinear behind them gives. None
            where something else reads these, or what is behind them is not known.
        """
        found: dict[str, np.ndarray] = {}
        for name, other in zip(pair.reference.outputs, pair.candidate.outputs, strict=True):
            scaling = self._scalings.get(name)
            if scaling is None:
                found[name] = made[other]
                continue
            readers = [self.reference.nodes[p] for p in self.reference.consumers.get(name, ())]
            behind = [node.output[0] for node in readers if operator(node) == "DequantizeLinear"]
            if len(behind) < len(readers) or name in self.reference.outputs or any(n not in values for n in behind):
                return None
            found.update(dict.fromkeys(behind, scaling.meant(made[other])))
        return found


def _scaling(index: GraphIndex, tensor: str, names: Scale) -> _Scaling | None:
    """A scale that stands in the file."""
    scale, zero = (index.constant(name) if name else np.zeros(1) for name in names)
    if scale is None or zero is None or max(scale.ndim, zero.ndim) > 1:
        return None
    axis = attribute_int(index.nodes[index.producer[tensor]], "axis", 1)
    return _Scaling(scale.astype(np.float64).reshape(-1), zero.astype(np.float64).reshape(-1), axis)
