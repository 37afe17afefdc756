"""Which number formats two sides compute in: their runners', and their graphs' on the way to an output."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

from ...graph.formats import BY_DTYPE, INT8, NumberFormat
from ...graph.nodes import attribute_int, subgraphs
from ...graph.operators import CASTS, QUANTIZED, operator
from ...graph.quantized.float_form import ScaledOperands, scaled_operands, weight_scales
from ...graph.quantized.levels import stored_levels
from ...graph.rounding.widening import is_narrow
from ...graph.specs import dtype_from_onnx, is_float
from .decisions import jumping_tensors

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from ...graph.index import GraphIndex
    from ...graph.model import Model
    from ..sides import Side


FEWEST = 3
"""Weights below which most of them say nothing: a single one that is wrong is a fault."""

_STORED = ("int16", "uint16", "int8", "uint8", "int4", "uint4", "int2", "uint2")


def on_the_way(index: GraphIndex, outputs: Collection[str]) -> list[int]:
    """Positions of the nodes that some tensors depend on."""
    wanted, found = list(outputs), set()
    while wanted:
        position = index.producer.get(wanted.pop())
        if position is not None and position not in found:
            found.add(position)
            wanted.extend(index.reads[position])
    return sorted(found)


def model_formats(model: Model) -> tuple[NumberFormat, ...]:
    """The formats of the weights, inputs, casts and quantizers that a model's outputs depend on, and of the outputs.

    Each once, coarsest first.

    A model without floating-point tensors gives an empty tuple. No shape inference: the types that tensors declare.
    """
    index = model.index
    found: dict[str, NumberFormat] = {}

    def add(elem_type: int) -> None:
        try:
            number_format = BY_DTYPE.get(dtype_from_onnx(elem_type).name)
        except KeyError:
            return
        if number_format is not None:
            found[number_format.name] = number_format

    def visit(node: onnx.NodeProto) -> None:
        if node.op_type in ("Cast", "CastLike"):
            add(attribute_int(node, "to", 0))
        elif operator(node) in QUANTIZED:
            found[INT8.name] = INT8
        for body in subgraphs(node):
            for tensor in body.initializer:
                add(tensor.data_type)
            for inner in body.node:
                visit(inner)

    nodes = on_the_way(index, index.outputs)
    read = {name for position in nodes for name in index.reads[position]} | set(index.outputs)
    for info in (*index.graph.input, *index.graph.output):
        if info.name in read:
            add(info.type.tensor_type.elem_type)
    for name, tensor in index.initializers.items():
        if name in read:
            add(tensor.data_type)
    for position in nodes:
        visit(index.nodes[position])
    return tuple(sorted(found.values(), key=lambda f: -1.0 if f.is_integer else -f.u))


def formats_in_play(*sides: Side) -> tuple[NumberFormat, ...]:
    """The formats of each side's arithmetic and of each side's model, each once.

    A runner's arithmetic is what it makes of FP32; it says nothing about a model that has none.
    """
    found: dict[str, NumberFormat] = {}
    for side in sides:
        own = model_formats(side.model)
        arithmetic = side.runner.arithmetic
        if arithmetic.name != "fp32" or not own or any(f.name == "fp32" for f in own):
            found[arithmetic.name] = arithmetic
        found.update({f.name: f for f in own})
    return tuple(found.values())


def undeclared(side: Side, tensor: str, dtype: np.dtype) -> NumberFormat | None:
    """FP16 or BF16, where a side gives it and neither its runner's arithmetic nor its graph says so; else None."""
    spec, arithmetic = side.model.index.specs.get(tensor), side.runner.arithmetic
    if not is_narrow(dtype) or arithmetic.is_integer or (spec is not None and is_narrow(spec.dtype)):
        return None
    fmt = BY_DTYPE[dtype.name]
    return fmt if arithmetic.u < fmt.u else None


def undecidable(reference: Side, candidate: Side, output: str, dtype: np.dtype) -> str:
    """Why the error that rounding explains at an output cannot be told; empty where it can.

    An integer or a boolean is asked about only where rounding has a say in it.
    """
    model = reference.model
    if model.opaque:
        return f"nobody knows the network behind {model.label}, nor the error that its arithmetic explains"
    spec = model.index.specs.get(output)
    if spec is not None and not is_float(spec.dtype) and output not in jumping_tensors(model.index):
        return ""
    if dtype.name.startswith(("float8", "float4")):
        return f"an output of type {dtype.name} is too coarse to tell right from wrong"
    fmt = _calibrated(reference, candidate)
    if fmt is not None:
        if fmt.is_integer:
            return f"{fmt} error depends on calibration, so no tolerance follows from the format"
        return f"{fmt} is too coarse for its arithmetic to tell right from wrong"
    if candidate.model is not model and quantized(candidate.model.index, output) != quantized(model.index, output):
        return "one of the two files holds scaled integers, whose error depends on calibration"
    if not quantized(model.index, output):
        return ""
    other = quantizes_otherwise(model, candidate.model) or _stored_otherwise(model, candidate.model)
    if other:
        return f"{other}, whose error depends on calibration"
    return ""


def calibrated(reference: Side, candidate: Side, dtype: np.dtype) -> bool:
    """Whether an output is a float that a side computes in INT8 or FP8."""
    return is_float(dtype) and _calibrated(reference, candidate) is not None


def _calibrated(*sides: Side) -> NumberFormat | None:
    """The first of two sides' formats that is INT8 or FP8, the candidate's first."""
    formats = (side.runner.arithmetic for side in reversed(sides))
    return next((fmt for fmt in formats if fmt.is_integer or fmt.name in ("e4m3", "e5m2")), None)


def quantizes_otherwise(reference: Model, candidate: Model) -> str:
    """What differs in which products two quantized files compute of scaled integers; empty where nothing does."""
    if candidate.same_network(reference):
        return ""
    mine, theirs = _scaled_operands(reference.index), _scaled_operands(candidate.index)
    if not mine.differ(theirs):
        return ""
    if mine.layers == theirs.layers:
        return "the two files compute different layers from scaled integers"
    return f"the first file computes {mine.layers} layers from scaled integers, the second {theirs.layers}"


def quantizes_more(side: Side, other: Side) -> bool:
    """Whether a side's file computes of scaled integers what another one's computes in floating point."""
    if other.model.same_network(side.model):
        return False
    mine, theirs = _scaled_operands(side.model.index), _scaled_operands(other.model.index)
    return mine.differ(theirs) and mine.scaled > theirs.scaled


def _stored_otherwise(reference: Model, candidate: Model) -> str:
    """Whether most weights of two quantized files have other scales: one that is wrong leaves others as they are."""
    if candidate.same_network(reference):
        return ""
    mine, theirs = (Counter(_weight_scales(model.index)) for model in (reference, candidate))
    count = min(mine.total(), theirs.total())
    if count < FEWEST or 2 * (mine & theirs).total() > count:
        return ""
    return "the two files store their weights by other scales"


def quantized(index: GraphIndex, output: str) -> bool:
    """Whether an output depends on scaled integers: by quantizers, or by weights that a Cast makes floats of."""
    return output in _quantized(index)


@lru_cache(maxsize=8)
def _scaled_operands(index: GraphIndex) -> ScaledOperands:
    return scaled_operands(index)


@lru_cache(maxsize=8)
def _weight_scales(index: GraphIndex) -> tuple[tuple[tuple[int, ...], bytes], ...]:
    return tuple(weight_scales(index))


@lru_cache(maxsize=8)
def _quantized(index: GraphIndex) -> frozenset[str]:
    found: set[str] = set()
    for position, node in enumerate(index.nodes):
        inner = any(operator(n) in QUANTIZED for body in subgraphs(node) for n in body.node)
        if (
            operator(node) in QUANTIZED
            or inner
            or _dequantizes(index, position)
            or any(name in found for name in index.reads[position])
        ):
            found.update(name for name in node.output if name)
    return frozenset(found)


def _dequantizes(index: GraphIndex, position: int) -> bool:
    """Whether a node makes floats of small numbers that are stored as weights: integers, 8-bit floats, places in a
    codebook."""
    node = index.nodes[position]
    if stored_levels(index, position) is not None:
        return True
    if operator(node) not in CASTS or node.input[0] not in index.initializers:
        return False
    stored = index.initializers[node.input[0]]
    return dtype_from_onnx(stored.data_type).name in _STORED and math.prod(stored.dims) > 1
