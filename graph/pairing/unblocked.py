"""Operators of ONNX Runtime's blocked layout (`graph.blocked`), written as those of ONNX that they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import numpy as np
import onnx

from ..blocked import BLOCKS, INTO, OUT_OF, blocked_tensors, blocks, is_blocked, is_depthwise, is_scaling, plain_filters
from ..index import GraphIndex
from ..nodes import attribute, attribute_int, attribute_ints
from ..operators import operator
from .epilogues import Step, activated, followed

_COMPARED = 8
"""How many filters tell how large a block is."""


class Unblocked:
    """The operators of the blocked layout in a graph.

    Attributes:
        tensors: Tensors in blocks, and how many channels each has.

    Args:
        index: The graph.
        other: The graph that it is compared with, which has the same filters in a plain layout.
    """

    def __init__(self, index: GraphIndex, other: GraphIndex) -> None:
        self.index = index
        self.other = other
        self.tensors = blocked_tensors(index)

    def last_step(self, node: onnx.NodeProto) -> Step | None:
        """The last of the operators that a node stands for; None where no operator of ONNX does."""
        op, read = node.op_type, node.input[0]
        if op in (INTO, OUT_OF):
            if not attribute_int(node, "channels_last", 0):
                return Step("Identity", (read,), {})
            return Step("Transpose", (read,), {"perm": [0, 3, 1, 2] if op == INTO else [0, 2, 3, 1]})
        if op == "Conv":
            return self._convolution(node)
        if op == "Upsample":
            scales = np.asarray(attribute_ints(node, "scales") or (), np.float32)
            rest = {a.name: attribute(node, a.name) for a in node.attribute if a.name != "scales"}
            return Step("Resize", (read, "", scales), rest)
        return Step(op, (read,), {a.name: attribute(node, a.name) for a in node.attribute})

    def _convolution(self, node: onnx.NodeProto) -> Step | None:
        weight = self.index.weight(node.input[1])
        bias = self.index.weight(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if weight is None:
            return None
        count = self.tensors[node.output[0]] or len(weight)
        bias = None if bias is None else bias[:count]
        if is_scaling(node) and weight.size == len(weight) and bias is not None:
            scale, shift = (values[:count].reshape(-1, 1, 1) for values in (weight, bias))
            return followed(
                Step("Add", (Step("Mul", (node.input[0], scale), {}), shift), {}), list(node.input)[3:], node
            )
        plain = plain_filters(weight, self.block, self._outputs_only(node, weight))[:count]
        if node.input[0] in self.tensors and attribute_int(node, "group", 1) == 1:
            plain = plain[:, : self.tensors[node.input[0]] or None]
        read = (node.input[0], plain, "" if bias is None else bias, *list(node.input)[3:])
        return activated("Conv", read, node)

    def _outputs_only(self, node: onnx.NodeProto, weight: np.ndarray) -> bool:
        return node.input[0] not in self.tensors or is_depthwise(node, weight)

    @cached_property
    def block(self) -> int:
        """How large a block is: where several sizes fit all filters, that with which they are most like the other
        graph's."""
        convolutions = [n for n in self.index.nodes if is_blocked(n) and n.op_type == "Conv"]
        filters = [(n, w) for n in convolutions if (w := self.index.weight(n.input[1])) is not None]
        left = [
            size for size in BLOCKS if all(size in blocks(w, not self._outputs_only(n, w)) for n, w in filters)
        ] or list(BLOCKS[:1])
        if len(left) == 1:
            return left[0]
        return max(left, key=lambda size: self._alike(filters, size))

    def _alike(self, filters: list[tuple[onnx.NodeProto, np.ndarray]], block: int) -> float:
        """How much the first filters are like the other graph's."""
        total = 0.0
        for node, weight in filters[:_COMPARED]:
            plain = _rows(plain_filters(weight, block, self._outputs_only(node, weight)), weight.shape)
            likeness = (np.abs(np.sum(plain * other, axis=1)).mean() for other in self._theirs(weight.shape))
            total += max(likeness, default=0.0)
        return total

    def _theirs(self, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Filters of the other graph that may fill a shape, but for whole blocks."""
        convolutions = (n for n in self.other.nodes if operator(n) in ("Conv", "FusedConv") and not is_blocked(n))
        weights = (self.other.weight(n.input[1]) for n in convolutions)
        fitting = (
            w
            for w in weights
            if w is not None and w.ndim == len(shape) and w.shape[2:] == shape[2:] and _fills(w.shape, shape)
        )
        return (_rows(w, shape) for w in islice(fitting, 4 * _COMPARED))


def _fills(sizes: tuple[int, ...], padded: tuple[int, ...]) -> bool:
    return all(0 <= b - a < max(BLOCKS) for a, b in zip(sizes[:2], padded[:2], strict=True))


def _rows(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The filters as unit vectors, filled up with zeros to a shape."""
    filled = np.zeros(shape, np.float64)
    filled[: weight.shape[0], : weight.shape[1]] = weight
    rows = filled.reshape(len(filled), -1)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1))
