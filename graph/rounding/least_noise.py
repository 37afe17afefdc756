"""What noise a node's result has at least, where weights that it reads are perturbed: beside it, less is left out.

A sum of K products y whose weights are perturbed by s of themselves has noise of s times the root of the sum of the
squared products, which is s |y| / sqrt(K) at least (Cauchy and Schwarz). The rounding of y in FP32 is far less, and a
tensor of random numbers for it costs as much as one for the rounding to FP16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from ..operators import AFFINE_PRODUCTS, operator


def least_noise(node: onnx.NodeProto, perturbed: Mapping[int, float], terms: float, before: float = 0.0) -> float:
    """Noise relative to each element of a node's result; 0 where nothing is known.

    Args:
        node: The node.
        perturbed: By how much the weights that it reads are perturbed, by their place among its inputs.
        terms: Products of a sum.
        before: The same of what it reads besides, where that is one tensor.
    """
    op, count = operator(node), sum(map(bool, node.input))
    if op in AFFINE_PRODUCTS:
        factor = max(perturbed.get(0, 0.0), perturbed.get(1, 0.0)) / math.sqrt(terms)
        return factor if count < 3 else min(factor, perturbed.get(2, 0.0)) / math.sqrt(2)
    if op == "BatchNormalization":
        return min(perturbed.get(1, 0.0), perturbed.get(2, 0.0)) / math.sqrt(2)
    if len(perturbed) == 1 and count == 2:
        (size,) = perturbed.values()
        if op == "Mul":
            return size
        if op == "Add":
            return min(size, before) / math.sqrt(2)
    return 0.0
