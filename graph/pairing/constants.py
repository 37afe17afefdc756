"""Values that depend on weights and constants alone, and how they are quantized."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from ..evaluation import evaluate
from ..index import GraphIndex
from ..nodes import attribute_int, attribute_ints, attribute_tensor
from ..operators import (
    CASTS,
    FLAT,
    FUSING_PRODUCTS,
    INTEGER_PRODUCTS,
    PRODUCTS,
    QUANTIZERS,
    RECURRENT,
    RESHAPES,
    SHAPES,
    SUMS,
    WEIGHTED,
    operator,
)
from ..quantized.layouts import layout_of
from ..quantized.levels import spacing, stored_levels
from ..specs import dtype_from_onnx, is_float

OF_INTEGERS = 0.02
"""Relative error that products of scaled integers of 8 bits make: about 0.01 of normal values by each operand."""
IN_BLOCKS = {"MatMulNBits", "GatherBlockQuantized"}
"""Operators of weights that are stored in blocks, with a scale and a zero point for each."""
_BIASED = (WEIGHTED - PRODUCTS - RECURRENT) | FUSING_PRODUCTS
"""Operators whose third input, if they have one, is added to what the others make."""


def noun_of(index: GraphIndex, node: int, name: str, value: np.ndarray) -> str:
    """What people call the values of a constant that a node reads: ``weights``, ``biases``, ``scales``,
    ``zero points``, ``epsilons``, ``starts``, ``ends``, ``trip count``, or ``values``.

    Args:
        index, node: The graph, and the position of the node.
        name, value: The constant.
    """
    reader = index.nodes[node]
    place = list(reader.input).index(name) if name in reader.input else 0
    named = _named(reader).get(place)
    if named is not None:
        return named
    if value.size == 1 and operator(reader) == "Add" and _has_root(index, reader.output[0]):
        return "epsilons"
    if place == 2 and operator(reader) in _BIASED:
        return "biases"
    if operator(reader) in SUMS:
        return "biases" if value.size == max(value.shape, default=1) else "values"
    return "weights"


def _named(node: onnx.NodeProto) -> dict[int, str]:
    """The places of a node's scales and zero points among its inputs, of what a Slice and a Loop take, and their
    names."""
    op, layout = operator(node), layout_of(node)
    if op == "Slice":
        return {1: "starts", 2: "ends", 3: "axes", 4: "steps"}
    if op == "Loop":
        return {0: "trip count"}
    if op in QUANTIZERS:
        return {1: "scales", 2: "zero points"}
    if layout is None:
        return {2: "scales", 3: "zero points"} if op in IN_BLOCKS else {}
    found = {place.scale: "scales" for place in layout.operands} | {p.zero: "zero points" for p in layout.operands}
    named = ((layout.scale, "scales"), (layout.zero, "zero points"))
    return found | {place: noun for place, noun in named if place is not None}


def _has_root(index: GraphIndex, name: str) -> bool:
    return any(operator(index.nodes[p]) == "Sqrt" for p in index.consumers.get(name, ()))


@dataclass(frozen=True)
class Operand:
    """A constant that a node reads.

    Attributes:
        index: The graph.
        node: Position of the node.
        slot: The input that it is.
        name: Its name.
        value: Its value.
        turned: Whether that is transposed against what is stored.
    """

    index: GraphIndex
    node: int
    slot: str
    name: str
    value: np.ndarray
    turned: bool = False

    @property
    def step(self) -> np.ndarray | None:
        """See `quantization_step`, of the value."""
        found = quantization_step(self.index, self.name)
        return found.T if found is not None and self.turned else found


def in_levels_of(index: GraphIndex, node: int, value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The value of a constant that a node reads; of scaled integers and their zero points, those that say the same in
    another dtype: unsigned ones are half their levels above signed ones."""
    scaled = operator(index.nodes[node]) in QUANTIZERS or layout_of(index.nodes[node]) is not None
    if not scaled or {value.dtype.kind, dtype.kind} != {"i", "u"} or value.dtype.itemsize != dtype.itemsize:
        return value
    half = 1 << (8 * dtype.itemsize - 1)
    return (value.astype(np.int64) + (half if dtype.kind == "u" else -half)).astype(dtype)


def constant_value(index: GraphIndex, name: str, limit: int = 1 << 28) -> np.ndarray | None:
    """The value of a tensor that depends on weights and constants alone, computed with NumPy where no file holds it.

    Args:
        index: The graph.
        name: The tensor.
        limit: Most bytes that may be read into memory to compute it; files are mapped and do not count.

    Returns:
        None if it depends on the data, is larger than the limit, or its operators are not known here.
    """
    value = index.weight(name)
    if value is not None:
        return value
    value = index.constant(name)
    if value is not None:
        return value
    position = index.producer.get(name)
    if position is None:
        return None
    node = index.nodes[position]
    if operator(node) in SHAPES or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
        return None
    feed: dict[str, np.ndarray] = {}
    for read in index.reads[position]:
        argument = constant_value(index, read, limit)
        if argument is None or argument.nbytes > limit:
            return None
        feed[read] = np.ascontiguousarray(argument)
    if node.op_type == "Identity":
        return feed[node.input[0]]
    if node.op_type == "Transpose":
        return np.transpose(feed[node.input[0]], attribute_ints(node, "perm"))
    if node.op_type == "ConstantOfShape":
        value = attribute_tensor(node, "value")
        fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
        return np.broadcast_to(fill.reshape(()), tuple(int(d) for d in feed[node.input[0]]))
    if node.op_type == "Cast":
        with np.errstate(all="ignore"):  # an infinity to integers, a mask to FP16
            return feed[node.input[0]].astype(dtype_from_onnx(attribute_int(node, "to", 0)))
    if operator(node) == "DequantizeLinear":
        return _dequantized(node, feed)
    return evaluate(node, name, feed, index.proto.opset_import)


def _dequantized(node: onnx.NodeProto, feed: Mapping[str, np.ndarray], axis: int | None = None) -> np.ndarray | None:
    stored, scale = feed[node.input[0]], _spread(node, feed[node.input[1]], feed[node.input[0]].shape, axis)
    if scale is None:
        return None
    wide = stored.astype(np.float32)
    if len(node.input) > 2 and node.input[2]:
        zero = _spread(node, feed[node.input[2]], stored.shape, axis)
        if zero is None:
            return None
        wide = wide - zero.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # an infinite scale is for a comparison to find
        return wide * scale.astype(np.float32)


def along_axes(index: GraphIndex, name: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """What a stored weight would be if its scales lay along another axis of the same length.

    Args:
        index: The graph.
        name: The weight: what a DequantizeLinear makes.

    Returns:
        By axis: the values, and the distance between neighbouring ones, shaped to broadcast against them. Empty where
        there is no such axis.
    """
    position = index.producer.get(name)
    node = None if position is None else index.nodes[position]
    if node is None or operator(node) != "DequantizeLinear":
        return {}
    feed = {n: value for n in node.input if n and (value := constant_value(index, n)) is not None}
    if len(feed) != len({n for n in node.input if n}) or feed[node.input[1]].ndim != 1:
        return {}
    stored, scale = feed[node.input[0]], feed[node.input[1]]
    own = attribute_int(node, "axis", 1) % max(stored.ndim, 1)
    found = {}
    for axis in range(stored.ndim):
        made = None if axis == own else _dequantized(node, feed, axis)
        step = None if made is None else _spread(node, np.abs(scale), stored.shape, axis)
        if made is not None and step is not None:
            found[axis] = made, step
    return found


def _spread(
    node: onnx.NodeProto, scale: np.ndarray, shape: tuple[int, ...], axis: int | None = None
) -> np.ndarray | None:
    """The scale or zero point of a DequantizeLinear, shaped to broadcast against what it reads; None where it cannot
    be: of one value, one for each index of an axis, or one for each block of an axis. ``axis``: in place of its own."""
    if scale.size == 1:
        return scale.reshape([1] * len(shape))
    axis = attribute_int(node, "axis", 1) if axis is None else axis
    if not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    if scale.ndim == 1 and scale.size == shape[axis]:
        return scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    block = attribute_int(node, "block_size", 0)
    if not block or scale.ndim != len(shape):
        return None
    whole = np.take(np.repeat(scale, block, axis), np.arange(shape[axis]), axis)
    return whole if whole.shape == shape else None


def integers_step(index: GraphIndex, name: str, exact: np.ndarray) -> np.ndarray | None:
    """What stands for the distance between neighbouring values of a weight that the graph computes from products of
    scaled integers: a scalar, of which the error is that of a rounding.

    Args:
        index: The graph.
        name: The weight.
        exact: What it is without that rounding.

    Returns:
        None if it is not computed so, or errs by more than 8 bits explain.
    """
    if not _of_integers(index, name):
        return None
    made = constant_value(index, name)
    if made is None or made.shape != exact.shape or not is_float(exact.dtype):
        return None
    error, size = (float(np.linalg.norm(v)) for v in (made.astype(np.float64) - exact, exact.astype(np.float64)))
    return np.asarray(error * math.sqrt(12 / exact.size)) if 0 < error <= OF_INTEGERS * size else None


def _of_integers(index: GraphIndex, name: str) -> bool:
    waiting, seen = [name], {name}
    while waiting:
        position = index.producer.get(waiting.pop())
        if position is None:
            continue
        if operator(index.nodes[position]) in INTEGER_PRODUCTS:
            return True
        waiting += [n for n in index.reads[position] if n not in seen]
        seen.update(index.reads[position])
    return False


def quantization_step(index: GraphIndex, name: str) -> np.ndarray | None:
    """The distance between neighbouring values of a weight that is stored quantized, shaped to broadcast against it.

    Args:
        index: The graph.
        name: The weight: what a DequantizeLinear makes, integers that are cast and multiplied by a scale, floats of 8
            bits, or what is looked up in a codebook.

    Returns:
        None if it is not stored quantized, or its scale is no constant. Of floats and codebooks, whose neighbours are
        not equally far apart, one for each value.
    """
    position = index.producer.get(name)
    if position is None:
        return None
    node = index.nodes[position]
    op = operator(node)
    if op == "DequantizeLinear":
        stored, scale = constant_value(index, node.input[0]), constant_value(index, node.input[1])
        step = None if stored is None or scale is None else _spread(node, np.abs(scale), stored.shape)
        levels = None if step is None else stored_levels(index, position)
        return (
            step
            if levels is None or step is None or stored is None
            else step * spacing(levels, stored.astype(np.float64))
        )
    if op in CASTS | FLAT and stored_levels(index, position) is None:
        return _moved(quantization_step(index, node.input[0]), index, name)
    if op == "Transpose":
        step = quantization_step(index, node.input[0])
        return None if step is None else np.transpose(step, attribute_ints(node, "perm"))
    if op == "Mul":
        for stored_name, scale_name in (node.input, node.input[::-1]):
            spec, scale = index.specs.get(name), constant_value(index, scale_name)
            unit = None if scale is None else _unit(index, stored_name)
            if scale is None or unit is None or spec is None or spec.shape is None:
                continue
            return np.asarray(np.abs(scale).reshape([1] * (len(spec.shape) - scale.ndim) + list(scale.shape)) * unit)
        return None
    unit = _unit(index, name)
    return unit if unit is not None and unit.ndim else None  # integers alone are no weights


def _moved(step: np.ndarray | None, index: GraphIndex, name: str) -> np.ndarray | None:
    """Steps of a tensor as those of what is made of it by a node that keeps its values, in another shape perhaps."""
    read, made = (index.specs.get(n) for n in (index.nodes[index.producer[name]].input[0], name))
    if step is None or read is None or made is None or read.shape == made.shape:
        return step
    if step.size == 1:
        return step.reshape([1] * len(made.shape or ()))
    shapes = [tuple(d for d in spec.shape or () if isinstance(d, int)) for spec in (read, made)]
    if math.prod(shapes[0]) != math.prod(shapes[1]):
        return None
    return np.broadcast_to(step, shapes[0]).reshape(shapes[1])


def _unit(index: GraphIndex, name: str) -> np.ndarray | None:
    """The distance between neighbouring values of what is stored, before a scale: one of integers that are cast, and
    perhaps have their zero point subtracted; one for each value of other numbers. None where nothing is stored so."""
    here = name
    while (position := index.producer.get(here)) is not None:
        node = index.nodes[position]
        levels = stored_levels(index, position)
        if levels is not None and operator(node) != "DequantizeLinear":
            value = constant_value(index, name)
            return None if value is None else spacing(levels, value.astype(np.float64))
        if operator(node) == "Cast" and node.input[0] in index.initializers:
            spec = index.specs.get(node.input[0])
            integers = spec is not None and not is_float(spec.dtype) and spec.dtype != np.bool_
            return np.ones(()) if integers else None
        if operator(node) != "Sub" and operator(node) not in CASTS | RESHAPES:
            return None
        here = node.input[0]
    return None
