"""Integers and truth values that floats decided: where the floats lie within tolerance, either answer is right.

An ArgMax over two scores that differ by less than their rounding errors may name either; so may a comparison at its
threshold or a rounding at the half. Such a difference is a *tie*. `decider` finds what decided an output by walking the
graph backwards; `count_ties` tells the ties among the differences from the mismatches, given the deciding values.

Two kinds of decisions:

- A *choice* (ArgMax, ArgMin, indices of TopK) names an element. The candidate's choice is a tie if the reference's
  value of that element is within tolerance of the reference's value of its own.
- A *threshold* (comparisons, Floor, Ceil, Round, a cast to integers, QuantizeLinear) is monotone: the float gives an
  interval, value minus and plus the allowed error, and every result between those of its ends is a tie.

Between the decision and the output may stand whatever moves elements (Reshape, Transpose, Slice, ...), casts, and for
thresholds And, Or, Not, Xor. What NonZero and NonMaxSuppression decide has no place to hold against another: exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from ...graph.index import GraphIndex
from ...graph.nodes import attribute_int
from ...graph.operators import CHOICES, COMPARISONS, FLAT, LOGIC, REARRANGING
from ...graph.specs import dtype_from_onnx, is_float
from .tolerance import Tolerance

ROUNDINGS = {"Floor": np.floor, "Ceil": np.ceil, "Round": np.rint}
Bounds = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Decider:
    """What decided an output.

    Attributes:
        output: The output that was decided.
        op, node: The deciding operator and the position of its node; of several, the last.
        tensors: The float tensors to fetch from the reference for `count_ties`.
    """

    output: str
    op: str
    node: int
    tensors: tuple[str, ...]
    index: GraphIndex = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.op} of {' and '.join(self.tensors)}"


class _Undecided(Exception):
    """The walk met something that it cannot follow."""


def decider(index: GraphIndex, output: str) -> Decider | None:
    """What decided ``output``; None where no float did, or in a way that cannot be followed: then it is exact."""
    leaves: dict[str, None] = {}
    found: list[int] = []
    try:
        node = _choice(index, output)
        if node is not None:
            leaves[index.nodes[node].input[0]] = None
            found.append(node)
        else:
            _walk(index, output, output, leaves, found)
    except _Undecided:
        return None
    if not found or not leaves:
        return None
    return Decider(output, index.nodes[found[0]].op_type, found[0], tuple(leaves), index)


def count_ties(
    decider: Decider,
    reference_values: Mapping[str, np.ndarray],
    reference_output: np.ndarray,
    candidate_output: np.ndarray,
    tolerance: Tolerance | Mapping[str, Tolerance],
    sizes: Mapping[str, np.ndarray | None] | None = None,
) -> tuple[int, int]:
    """Tells ties from mismatches in one sample.

    Args:
        decider: What `decider` found.
        reference_values: The reference's value of each of ``decider.tensors``.
        reference_output, candidate_output: The decided output on both sides, of one shape.
        tolerance: Of the deciding tensors: one for all, or one for each name. One that is not decidable excuses
            nothing.
        sizes: Of the terms that the deciding tensors were made of, by name; see `Tolerance.allowed`.

    Returns:
        Elements that differ and are ties, and elements that differ and are not.
    """
    different = np.asarray(reference_output != candidate_output)
    total = int(np.count_nonzero(different))
    if not total or reference_output.shape != candidate_output.shape:
        return 0, total
    allowed = {}
    for name in decider.tensors:
        rule = tolerance if isinstance(tolerance, Tolerance) else tolerance[name]
        if not rule.decidable:
            return 0, total
        value = np.asarray(reference_values[name])
        wide = value.astype(np.float64)
        # what a choice is made by may be rounding through and through: the choice is a tie then
        limits = rule.allowed(value, (sizes or {}).get(name), most=math.inf)
        error = limits.block(0, value.size, np.abs(wide).reshape(-1))
        allowed[name] = wide, np.broadcast_to(error, (value.size,)).reshape(value.shape)
    if decider.op in CHOICES:
        excused = _excused_choices(decider, allowed, reference_output, candidate_output)
    else:
        with np.errstate(invalid="ignore"):
            ends = {name: (value - error, value + error) for name, (value, error) in allowed.items()}
        low, high = (x.reshape(reference_output.shape) for x in _bounds(decider.index, decider, decider.output, ends))
        excused = (low <= candidate_output) & (candidate_output <= high)
        excused &= (low <= reference_output) & (reference_output <= high)
    ties = int(np.count_nonzero(different & excused))
    return ties, total - ties


# -- choices ----------------------------------------------------------------------------------------------------


def _choice(index: GraphIndex, name: str) -> int | None:
    """The position of the ArgMax, ArgMin or TopK that ``name`` is the moved result of."""
    last = name
    while name in index.producer:
        position = index.producer[name]
        node = index.nodes[position]
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type in CHOICES:
            if node.op_type == "TopK" and (len(node.output) < 2 or name != node.output[1]):
                return None
            spec = index.specs.get(node.input[0])
            if spec is not None and not is_float(spec.dtype):
                raise _Undecided
            return position
        if node.op_type not in REARRANGING - {"Concat"} | {"Cast"}:
            return None
        _check_move(index, node, last)
        name = node.input[0]
    return None


def _excused_choices(
    decider: Decider,
    allowed: Mapping[str, Bounds],
    reference_output: np.ndarray,
    candidate_output: np.ndarray,
) -> np.ndarray:
    index, node = decider.index, decider.index.nodes[decider.node]
    value, error = allowed[decider.tensors[0]]
    axis = attribute_int(node, "axis", -1 if node.op_type == "TopK" else 0)
    size = value.shape[axis]
    value, error = np.moveaxis(value, axis, -1), np.moveaxis(error, axis, -1)
    if node.op_type == "TopK":
        k = index.constant(node.input[1]) if len(node.input) > 1 else np.asarray(attribute_int(node, "k", 1))
        ranks = reference_output.size // max(1, value[..., 0].size) if k is None else int(np.asarray(k).reshape(-1)[0])
        raw_shape: tuple[int, ...] = (*value.shape[:-1], ranks)
    else:
        raw_shape = (*value.shape[:-1], 1)
    # Where each element of the output comes from, by pushing positions through the moves.
    positions = np.moveaxis(np.arange(int(np.prod(raw_shape))).reshape(raw_shape), -1, axis)
    if node.op_type != "TopK" and not attribute_int(node, "keepdims", 1):
        positions = positions.squeeze(axis)
    made = node.output[1] if node.op_type == "TopK" else node.output[0]
    where = _moved(index, decider.output, made, positions, reference_output.shape).reshape(-1)
    count = int(np.prod(raw_shape))
    chosen = []
    for side in (reference_output, candidate_output):
        raw = np.full(count, -1, np.int64)
        raw[where] = side.reshape(-1).astype(np.int64)
        chosen.append(raw.reshape(raw_shape))
    reference, candidate = chosen
    legal = (candidate >= 0) & (candidate < size) & (reference >= 0) & (reference < size)
    if raw_shape[-1] > 1:  # TopK names an element once
        repeated = (candidate[..., :, None] == candidate[..., None, :]).sum(axis=-1) > 1
        legal &= ~repeated
    picked = [np.where(legal, i, 0) for i in (reference, candidate)]
    values = [np.take_along_axis(value, i, -1) for i in picked]
    errors = [np.take_along_axis(error, i, -1) for i in picked]
    with np.errstate(invalid="ignore"):
        near = legal & (np.abs(values[0] - values[1]) <= errors[0] + errors[1])
    return near.reshape(-1)[where].reshape(reference_output.shape)


def _moved(
    index: GraphIndex, name: str, start: str, value: np.ndarray, final_shape: tuple[int, ...], top: bool = True
) -> np.ndarray:
    """``value`` of tensor ``start`` after the moves that lead to ``name``."""
    if name == start:
        return value
    node = index.nodes[index.producer[name]]
    moved = _moved(index, node.input[0], start, value, final_shape, False)
    if node.op_type == "Cast":
        return moved
    return _move(index, node, name, [moved], final_shape if top else None)


# -- thresholds -------------------------------------------------------------------------------------------------


def _walk(index: GraphIndex, name: str, output: str, leaves: dict[str, None], found: list[int]) -> None:
    """Collects the float tensors that ``name`` is decided by, and the deciding nodes, the last one first."""
    if index.constant(name) is not None:
        return
    position = index.producer.get(name)
    node = index.nodes[position] if position is not None else None
    spec = index.specs.get(name)
    op = node.op_type if node is not None and node.domain in ("", "ai.onnx") else ""
    decided = op in COMPARISONS or op in ROUNDINGS or op == "QuantizeLinear"
    if op == "Cast" and node is not None:
        source = index.specs.get(node.input[0])
        target = dtype_from_onnx(attribute_int(node, "to", 0))
        decided = source is not None and is_float(source.dtype) and not is_float(target)
    if node is None or position is None or not (decided or op in REARRANGING or op in LOGIC or op == "Cast"):
        if spec is None or not is_float(spec.dtype):
            raise _Undecided  # an integer input, or an operator that is not followed
        leaves[name] = None
        return
    if op in REARRANGING:
        _check_move(index, node, output)
    if op == "QuantizeLinear" and any(index.constant(i) is None for i in node.input[1:] if i):
        raise _Undecided
    if decided:
        found.append(position)
    sources = node.input if op in COMPARISONS | LOGIC or op == "Concat" else node.input[:1]
    for source_name in sources:
        _walk(index, source_name, output, leaves, found)


def _bounds(index: GraphIndex, decider: Decider, name: str, ends: Mapping[str, Bounds]) -> Bounds:
    """The least and greatest value that each element of ``name`` can have."""
    if name in ends:
        return ends[name]
    constant = index.constant(name)
    if constant is not None:
        exact = constant.astype(np.float64) if is_float(constant.dtype) else constant
        return exact, exact
    node = index.nodes[index.producer[name]]
    op = node.op_type
    several = op in COMPARISONS | LOGIC or op == "Concat"
    inputs = [_bounds(index, decider, i, ends) for i in (node.input if several else node.input[:1])]
    low, high = inputs[0]
    if op in COMPARISONS:
        return _compare(op, inputs[0], inputs[1])
    if op == "Not":
        return ~high, ~low
    if op == "And":
        return low & inputs[1][0], high & inputs[1][1]
    if op == "Or":
        return low | inputs[1][0], high | inputs[1][1]
    if op == "Xor":
        known = (low == high) & (inputs[1][0] == inputs[1][1])
        return known & (low ^ inputs[1][0]), ~known | (low ^ inputs[1][0])
    if op in ROUNDINGS:
        return ROUNDINGS[op](low), ROUNDINGS[op](high)
    if op == "Cast":
        dtype = dtype_from_onnx(attribute_int(node, "to", 0))
        if dtype.kind == "b":  # not zero, which is not monotone
            return (low > 0) | (high < 0), (low != 0) | (high != 0)
        return _cast(low, dtype), _cast(high, dtype)
    if op == "QuantizeLinear":
        return _quantize(index, node, low), _quantize(index, node, high)
    last = name == decider.output
    return (
        _move(index, node, name, [b[0] for b in inputs], flat=last),
        _move(index, node, name, [b[1] for b in inputs], flat=last),
    )


def _compare(op: str, one: Bounds, other: Bounds) -> Bounds:
    """Surely true, and possibly true. Sides without error keep the operator's own meaning."""
    if op == "Equal":
        certain = (one[0] == one[1]) & (other[0] == other[1]) & (one[0] == other[0])
        return certain, (one[0] <= other[1]) & (other[0] <= one[1])
    if op.startswith("Less"):
        one, other = other, one
    if op.endswith("OrEqual"):
        return one[0] >= other[1], one[1] >= other[0]
    return one[0] > other[1], one[1] > other[0]


def _cast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if is_float(dtype):
        return x.astype(np.float64)
    if x.dtype.kind != "f":
        return x.astype(np.int64)
    limit = float(2**62)  # NaN and what int64 cannot hold have no meaning as integers
    return np.clip(np.trunc(np.nan_to_num(x, nan=0.0)), -limit, limit).astype(np.int64)


def _quantize(index: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray:
    scale = np.asarray(index.constant(node.input[1]), np.float64)
    zero = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.uint8(0)
    axis = attribute_int(node, "axis", 1)
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    where = np.asarray(zero)
    info = _range(where.dtype)
    result = np.rint(x / scale.reshape(shape)) + where.astype(np.float64).reshape(shape if where.size > 1 else ())
    return np.clip(np.nan_to_num(result), *info).astype(np.int64)


def _range(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return (0.0, 15.0) if dtype.name == "uint4" else (-8.0, 7.0) if dtype.name == "int4" else (-1e30, 1e30)


# -- moves ------------------------------------------------------------------------------------------------------


def _check_move(index: GraphIndex, node: onnx.NodeProto, output: str) -> None:
    """Raises _Undecided for a move whose course depends on the inputs."""
    if node.op_type == "Concat" or (node.op_type in FLAT and output in node.output):
        return
    if any(index.constant(i) is None for i in node.input[1:] if i):
        raise _Undecided


def _move(
    index: GraphIndex,
    node: onnx.NodeProto,
    name: str,
    values: list[np.ndarray],
    shape: tuple[int, ...] | None = None,
    flat: bool = False,
) -> np.ndarray:
    """The result of an operator that moves elements, by the ONNX reference implementation."""
    if node.op_type in FLAT and (flat or shape is not None):
        return values[0] if shape is None else values[0].reshape(shape)
    from onnx.reference import ReferenceEvaluator

    feed = dict(zip(node.input, values, strict=False))
    feed.update({i: c for i in node.input[len(values) :] if i and (c := index.constant(i)) is not None})
    infos = [
        onnx.helper.make_tensor_value_info(i, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for i, a in feed.items()
    ]
    graph = onnx.helper.make_graph([node], "move", infos, [onnx.helper.make_empty_tensor_value_info(name)])
    model = onnx.helper.make_model(graph, opset_imports=index.proto.opset_import)
    return np.asarray(ReferenceEvaluator(model).run([name], feed)[0])
