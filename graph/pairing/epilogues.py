"""Operators of ONNX Runtime's own that do more than one of ONNX's, written as those that they stand for: a convolution
with a sum and an activation behind it, a product of matrices that transposes and scales, a tensor times its Sigmoid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import onnx

from ..cutting.dataflow import Kind, dataflow
from ..index import GraphIndex
from ..nodes import attribute, attribute_float, attribute_floats, attribute_int, attribute_string
from ..operators import domain_of, operator

ACTIVATED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
"""Products with an activation behind them -> the product."""
ADDING = {"Gemm", "FusedGemm"}
"""Products of matrices that add something: a bias, or what another node makes."""
SCALED = "FusedMatMul"
"""A product of matrices that transposes them and multiplies by a number."""
GATED = "QuickGelu"
"""A tensor times the Sigmoid of itself, or of a multiple."""
QUICK = 1.702
"""The multiple where a node gives none."""
_PARAMETERS = {"LeakyRelu": ("alpha",), "Clip": ("min", "max"), "HardSigmoid": ("alpha", "beta")}
"""What the numbers are that a convolution gives its activation."""

Read = Union[str, float, np.ndarray, "Step"]
"""What a step reads: a tensor, a constant, or what another step makes."""


@dataclass(frozen=True)
class Step:
    """One of the operators that an operator stands for, with those before it.

    Attributes:
        op: The operator.
        inputs: What it reads.
        settings: Its attributes.
    """

    op: str
    inputs: tuple[Read, ...]
    settings: dict[str, Any]


def last_step(index: GraphIndex, node: onnx.NodeProto, *, sums: bool) -> Step | None:
    """The last of the operators that a node stands for; None where it stands for one of ONNX's, or for none.

    Args:
        index: The graph.
        node: The node.
        sums: Whether a product of matrices that adds what another node makes is two.
    """
    op = operator(node)
    if op == GATED and domain_of(node) and attribute_float(node, "alpha", QUICK) == 1.0:
        return Step("Mul", (node.input[0], Step("Sigmoid", (node.input[0],), {})), {})
    summed = _summed(index, node) if sums and op in ADDING else None
    if not domain_of(node):
        return summed
    if op == SCALED:
        batches = attribute_int(node, "transBatchA", 0) or attribute_int(node, "transBatchB", 0)
        return None if batches else _scaled(index, node)
    if op not in ACTIVATED or (not attribute_string(node, "activation") and len(node.input) < 4):
        return None
    return followed(summed, (), node) if summed is not None else activated(ACTIVATED[op], list(node.input), node)


def _summed(index: GraphIndex, node: onnx.NodeProto) -> Step | None:
    """The sum of a product of matrices and a tensor that is in one operator with it; None where that is a bias."""
    if len(node.input) < 3 or dataflow(index).kind.get(node.input[2]) is not Kind.DATA:
        return None
    beta, known = attribute_float(node, "beta", 1.0), onnx.defs.get_schema("Gemm").attributes
    settings = {a.name: attribute(node, a.name) for a in node.attribute if a.name in known and a.name != "beta"}
    plain = not (settings.get("transA") or settings.get("transB")) and settings.get("alpha", 1.0) == 1.0
    product = Step("MatMul", tuple(node.input[:2]), {}) if plain else Step("Gemm", tuple(node.input[:2]), settings)
    return Step("Add" if beta > 0 else "Sub", (product, node.input[2]), {}) if abs(beta) == 1.0 else None


def activated(op: str, read: Sequence[Read], node: onnx.NodeProto) -> Step:
    """A product with the sum and the activation that are in one node with it.

    Args:
        op: The product.
        read: What it reads; fourth, what is added to it.
        node: The node.
    """
    known = onnx.defs.get_schema(op).attributes
    found = Step(op, tuple(read[:3]), {a.name: attribute(node, a.name) for a in node.attribute if a.name in known})
    return followed(found, read[3:], node)


def followed(product: Step, addends: Sequence[Read], node: onnx.NodeProto) -> Step:
    """A product, with the sum and the activation behind it. ``addends``: what is added, or nothing."""
    given = [read for read in addends if not (isinstance(read, str) and not read)]
    found = Step("Add", (product, *given), {}) if given else product
    activation = attribute_string(node, "activation")
    return Step(activation, (found,), _settings(node, activation)) if activation else found


def _settings(node: onnx.NodeProto, activation: str) -> dict[str, Any]:
    """The attributes of a node's activation."""
    given = attribute_floats(node, "activation_params") or ()
    found: dict[str, Any] = dict(zip(_PARAMETERS.get(activation, ()), given, strict=False))
    for name in onnx.defs.get_schema(activation).attributes if onnx.defs.has(activation) else ():
        value = attribute_float(node, f"activation_{name}")
        found.update({} if value is None else {name: value})
    return found


def _scaled(index: GraphIndex, node: onnx.NodeProto) -> Step | None:
    read: list[Read] = []
    for name, turned in zip(node.input, ("transA", "transB"), strict=False):
        rank = index.rank(name)
        if not attribute_int(node, turned, 0):
            read.append(name)
        elif rank is None or rank < 2:
            return None
        else:
            read.append(Step("Transpose", (name,), {"perm": [*range(rank - 2), rank - 1, rank - 2]}))
    found, scale = Step("MatMul", tuple(read), {}), attribute_float(node, "alpha", 1.0)
    return found if scale == 1.0 else Step("Mul", (found, scale), {})
