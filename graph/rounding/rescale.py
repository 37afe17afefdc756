"""Two layers rescaled by a power of two: what overflows or underflows between them fits the format, and nothing else
changes.

A product with its own weights is made smaller by 2^k, and what multiplies its values next larger by 2^k. Between them
stand only operators for which f(a x) = a f(x) where a > 0. Powers of two are exact in every format, so the network
computes the same bits in FP32 as long as no weight leaves FP32's range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..cutting.fusion import static_tensors
from ..index import GraphIndex
from ..model import Model
from ..nodes import attribute_float
from ..operators import AFFINE_PRODUCTS, REARRANGING, is_data, operator

HOMOGENEOUS = REARRANGING | {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
"""Operators that a positive factor passes through unchanged; a Concat only if all that it joins is scaled."""


@dataclass(frozen=True)
class Rescaled:
    """A network with rescaled layers.

    Attributes:
        model: The network.
        smaller: Names of the nodes whose constants were multiplied by 2^-exponent.
        larger: Names of those whose constants were multiplied by 2^exponent.
        exponent: The power; negative where values are made larger in between.
    """

    model: Model
    smaller: tuple[str, ...]
    larger: tuple[str, ...]
    exponent: int


def rescaled(model: Model, node: int, exponent: int) -> Rescaled | None:
    """Makes what a product gives smaller by 2^exponent, up to where it is multiplied next.

    Args:
        model: The network.
        node: Position of the product (Conv, ConvTranspose, MatMul, Gemm), whose weights have to be constants.
        exponent: By how much.

    Returns:
        The network; None where something in between does not let a factor pass.
    """
    index = model.index
    walk = _Walk(index)
    if not walk.start(node) or not walk.larger:
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    taken = {t.name for t in proto.graph.initializer} | set(index.producer) | set(index.inputs)
    for changes, power in ((walk.smaller, -exponent), (walk.larger, exponent)):
        for position, operand in changes:
            value = index.weight(index.nodes[position].input[operand])
            assert value is not None
            scaled = np.ldexp(value, power).astype(value.dtype)
            if not np.isfinite(scaled).all() or not np.array_equal(np.ldexp(scaled, -power), value):
                return None  # beyond FP32: the rescaling would not be exact
            name = f"{index.nodes[position].input[operand]}_times_2_{power}".replace("-", "m")
            while name in taken:
                name += "_"
            taken.add(name)
            proto.graph.initializer.append(numpy_helper.from_array(scaled, name))
            proto.graph.node[position].input[operand] = name
    smaller, larger = (tuple(dict.fromkeys(index.names[p] for p, _ in c)) for c in (walk.smaller, walk.larger))
    return Rescaled(model.derive(proto), smaller, larger, exponent)


class _Walk:
    """From a product to whatever multiplies its values next.

    Attributes:
        smaller, larger: Nodes and the operands whose constants change, by position.
    """

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self.static = static_tensors(index)
        self.smaller: list[tuple[int, int]] = []
        self.larger: list[tuple[int, int]] = []

    def start(self, position: int) -> bool:
        """Whether the product can be scaled, and everything behind it lets that pass or ends it."""
        node = self.index.nodes[position]
        constants = [i for i, name in enumerate(node.input) if name and self._constant(name)]
        if operator(node) not in AFFINE_PRODUCTS or len(node.input) - len(constants) != 1 or 1 not in constants:
            return False
        if attribute_float(node, "beta", 1.0) != 1.0:
            return False
        self.smaller += [(position, i) for i in constants]
        return self._behind(node.output[0])

    def _behind(self, name: str) -> bool:
        if name in self.index.outputs:
            return False
        return all(self._reader(position, name) for position in self.index.consumers.get(name, ()))

    def _reader(self, position: int, name: str) -> bool:
        node = self.index.nodes[position]
        op = operator(node)
        others = [i for i, n in enumerate(node.input) if n and n != name and is_data(node, i)]
        constant = [i for i in others if self._constant(node.input[i])]
        if len(others) != len(constant):
            return False
        if op in AFFINE_PRODUCTS and node.input[0] == name and 1 in constant:
            self.larger.append((position, 1))
            return True
        if op == "Mul" and constant:
            self.larger.append((position, constant[0]))
            return True
        if op == "Add" and constant:
            self.smaller.append((position, constant[0]))
            return self._behind(node.output[0])
        if op in HOMOGENEOUS and not constant:
            return all(self._behind(n) for n in node.output if n)
        return False

    def _constant(self, name: str) -> bool:
        return name in self.static and self.index.weight(name) is not None
