"""Choices between values that are equal: which of them is taken is not for rounding to say, and no runtime promises it.

ONNX takes the first of equal values; PyTorch's topk takes any. Where a program that is no ONNX file is the reference, a
choice that differs in nothing but that is neither right nor wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...graph.nodes import attribute_int
from ...graph.operators import CASTS, CHOICES

if TYPE_CHECKING:
    from ...graph.index import GraphIndex


class Choice(NamedTuple):
    """How a tensor of places was chosen.

    Attributes:
        values: Name of the tensor whose elements were compared.
        axis: The axis along which they were.
        keeps: Whether the places have that axis, too.
    """

    values: str
    axis: int
    keeps: bool


def choice_of(index: GraphIndex, tensor: str) -> Choice | None:
    """The choice that a tensor is the result of, if it is one, and of another type at most."""
    while (position := index.producer.get(tensor)) is not None:
        node = index.nodes[position]
        if node.op_type in CHOICES and tensor == node.output[-1]:
            top = node.op_type == "TopK"
            axis = attribute_int(node, "axis", -1 if top else 0)
            return Choice(node.input[0], axis, top or bool(attribute_int(node, "keepdims", 1)))
        if node.op_type not in CASTS:
            return None
        tensor = node.input[0]
    return None


def equally_good(values: np.ndarray, choice: Choice, places: np.ndarray, others: np.ndarray) -> bool:
    """Whether the values at some places are those at others, one by one."""
    chosen = [p if choice.keeps else np.expand_dims(p, choice.axis) for p in (places, others)]
    count = values.shape[choice.axis]
    if any(p.ndim != values.ndim or p.dtype.kind not in "iu" or ((p < 0) | (p >= count)).any() for p in chosen):
        return False
    one, other = (np.take_along_axis(values, p.astype(np.int64), choice.axis) for p in chosen)
    return bool((one == other).all())
