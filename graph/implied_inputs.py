"""What a graph implies about the values of its inputs.

Bounds are carried backwards, from the nodes that demand something of a tensor (an index must lie inside its table, a
logarithm takes positive numbers, a mask is compared with 0 and 1) through the nodes that only move or shift it, to the
inputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from .implied_shapes import Shape, concrete_specs
from .index import GraphIndex, attribute, subgraphs
from .specs import Dim, TensorSpec, is_float


@dataclass(frozen=True)
class Range:
    """Values that the graph implies for one input.

    Attributes:
        lo: Smallest value; -inf where the graph sets no lower end.
        hi: Where ``integer``, the value after the largest, else the largest; inf where there is none.
        integer: Whether the values are whole numbers: all integers and bools, and masks held in floats.
        reason: Why, for the report: ``indexes 'embedding' of 30522 rows``.
        strict: Whether a value outside is an error, not just one that makes no sense.
        value: The one value that fits, for an input that is a shape; None elsewhere.
        mask: Whether 1 keeps an element and 0 drops it. Dropping all of them can divide zero by zero.
    """

    lo: float
    hi: float
    integer: bool
    reason: str
    strict: bool = True
    value: tuple[int, ...] | None = None
    mask: bool = False

    @property
    def bounded(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.lo) and math.isfinite(self.hi)

    def __str__(self) -> str:
        if self.value is not None:
            return f"{list(self.value)}"
        return f"[{self.lo:g}, {self.hi:g}{')' if self.integer else ']'}"


@dataclass(frozen=True)
class _Bound:
    """A demand on a tensor: every element in [lo, hi], both ends included."""

    lo: float
    hi: float
    reason: str
    strict: bool = True
    value: tuple[int, ...] | None = None
    negated: bool = False
    """Multiplied by a large number further on: a mask, if it is 1 minus something."""
    mask: bool = False
    """What is demanded of a mask: that its values be 0 and 1."""
    additive: bool = False
    """A mask of which ``(1 - x) * a large number`` is added to scores of attention."""


_MASK = _Bound(0, 1, "a mask", strict=False, mask=True)
_LARGE = 1e3
"""A factor from which on ``(1 - x) * factor`` is an attention mask; exporters write 1e4, 1e9 or the least float."""
_POSITIVE = 1e-6
"""The smallest number that is drawn where a positive one is asked for."""
_MOST = 32
"""Most demands that are kept for one tensor."""


def input_ranges(index: GraphIndex, shapes: Mapping[str, Shape] | None = None) -> dict[str, Range | None]:
    """What the graph implies about each input; None where it implies nothing.

    Args:
        index: The graph.
        shapes: The shapes that its inputs will have. Tables with unknown numbers of rows get known with them.

    Returns:
        One entry for each input, in their order. Strings have none.
    """
    specs = concrete_specs(index, shapes) if shapes else index.specs
    walk = _Walk(index, specs)
    walk.visit(index.nodes)
    result: dict[str, Range | None] = {}
    for name in index.inputs:
        spec = specs.get(name) or index.specs.get(name)
        result[name] = None if spec is None or spec.dtype.kind == "O" else _combine(spec, walk.demands.get(name, ()))
    return result


def _combine(spec: TensorSpec, demands: Iterable[_Bound]) -> Range | None:
    """All that is demanded of an input as one range."""
    integer = not is_float(spec.dtype)
    demands = [d for d in demands if not d.negated]
    if not integer:  # a float that is compared with 0 is most often no mask
        demands = [d for d in demands if not d.mask or d.additive]
    for demand in demands:
        if demand.value is not None:
            return Range(demand.lo, demand.hi + 1, True, demand.reason, value=demand.value)
    if any(d.strict and math.isfinite(d.hi) for d in demands):  # token ids are compared with 0 to find the padding
        demands = [d for d in demands if not d.mask]
    if not demands and re.search(r"(?:^|[_./:-])mask", spec.name, re.IGNORECASE) and spec.dtype.kind in "iub":
        demands = [replace(_MASK, reason="a mask, by its name")]
    if not demands and spec.dtype.kind == "b":
        return Range(0, 2, True, "bool")
    mask = bool(demands) and all(d.mask for d in demands)
    integer = integer or mask
    lo, hi, strict, reasons = -math.inf, math.inf, False, []
    for demand in sorted(demands, key=lambda d: not d.strict):  # what is an error outside goes first
        low, high = max(lo, demand.lo), min(hi, demand.hi)
        if integer:
            low, high = _whole(low, math.ceil), _whole(high, math.floor)
        if low > high or (low, high) == (lo, hi):
            continue  # a hint that contradicts an earlier demand, or adds nothing
        lo, hi, strict = low, high, strict or demand.strict
        reasons.append(demand.reason)
    if not reasons:
        return None
    return Range(lo, hi + integer, integer, "; ".join(dict.fromkeys(reasons)), strict, mask=mask)


def _whole(value: float, rounding: Callable[[float], int]) -> float:
    return rounding(value) if math.isfinite(value) else value


# fmt: off
_MOVES = {  # operator -> input slots whose elements arrive in the output as they are
    "Identity": (0,), "Cast": (0,), "CastLike": (0,), "Reshape": (0,), "Squeeze": (0,), "Unsqueeze": (0,),
    "Flatten": (0,), "Transpose": (0,), "Slice": (0,), "Split": (0,), "Expand": (0,), "Tile": (0,), "Gather": (0,),
    "GatherElements": (0,), "GatherND": (0,), "Where": (1, 2), "Dropout": (0,), "ReduceMax": (0,), "ReduceMin": (0,),
    "ReduceMean": (0,), "MaxPool": (0,), "ScatterND": (0, 2), "ScatterElements": (0, 2), "Floor": (0,), "Ceil": (0,),
    "Round": (0,), "Trilu": (0,), "DepthToSpace": (0,), "SpaceToDepth": (0,), "ReverseSequence": (0,), "Compress": (0,),
    "TopK": (0,), "Unique": (0,), "Scatter": (0, 2), "Clip": (0,), "Relu": (0,),
}
# fmt: on


class _Walk:
    """Demands by tensor name, collected from the last node to the first. Names are unique across subgraphs."""

    def __init__(self, index: GraphIndex, specs: Mapping[str, TensorSpec]) -> None:
        self.index = index
        self.specs = specs
        self.demands: dict[str, tuple[_Bound, ...]] = {}
        self.inner: dict[str, np.ndarray] = {}  # constants of subgraphs

    def visit(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for node in reversed(nodes):
            for body in subgraphs(node):
                self._visit_body(node, body)
            moved = node.output if node.op_type == "Split" else node.output[:1]  # others are positions, masks, counts
            arrived = [bound for name in moved if name for bound in self.demands.get(name, ())]
            for slot, name in enumerate(node.input):
                if name:
                    for bound in self._demanded(node, slot, arrived):
                        self.demand(name, bound)

    def _visit_body(self, node: onnx.NodeProto, body: onnx.GraphProto) -> None:
        for tensor in body.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL and np.prod(tensor.dims) < 1 << 16:
                self.inner[tensor.name] = onnx.numpy_helper.to_array(tensor)
        for inside in body.node:
            if inside.op_type == "Constant" and (value := attribute(inside, "value")) is not None:
                self.inner[inside.output[0]] = onnx.numpy_helper.to_array(value)
        if node.op_type == "If":
            for inside_name, outside in zip((o.name for o in body.output), node.output, strict=False):
                for bound in self.demands.get(outside, ()):
                    self.demand(inside_name, bound)
        self.visit(list(body.node))
        if node.op_type == "Loop":  # what the body demands of a loop-carried value holds for its first one
            for inside_info, outside in zip(list(body.input)[2:], node.input[2:], strict=False):
                for bound in self.demands.get(inside_info.name, ()):
                    self.demand(outside, bound)

    def demand(self, name: str, bound: _Bound) -> None:
        have = self.demands.get(name, ())
        if bound not in have and len(have) < _MOST and (math.isfinite(bound.lo) or math.isfinite(bound.hi)):
            self.demands[name] = (*have, bound)

    # -- looking things up ------------------------------------------------------------------------------------------

    def constant(self, node: onnx.NodeProto, slot: int) -> np.ndarray | None:
        """The value of an input if it is the same for all samples and has elements."""
        if slot >= len(node.input) or not node.input[slot]:
            return None
        name = node.input[slot]
        value = self.inner.get(name)
        if value is None:
            value = self.index.constant(name)
        if value is None or not value.size or value.dtype.kind == "O" or value.size > 1 << 20:
            return None
        return value

    def shape(self, node: onnx.NodeProto, slot: int) -> tuple[Dim, ...] | None:
        name = node.input[slot] if slot < len(node.input) else ""
        if name in self.inner:
            return self.inner[name].shape
        spec = self.specs.get(name)
        return None if spec is None else spec.shape

    def size(self, node: onnx.NodeProto, slot: int, axis: int) -> int | None:
        """A known, positive dimension of an input."""
        shape = self.shape(node, slot)
        if not shape or not -len(shape) <= axis < len(shape):
            return None
        dim = shape[axis]
        return dim if isinstance(dim, int) and dim > 0 else None

    # -- what a node asks of one of its inputs ------------------------------------------------------------------------

    def _demanded(self, node: onnx.NodeProto, slot: int, arrived: Sequence[_Bound]) -> Iterator[_Bound]:
        """Demands on input ``slot``, given those that ``arrived`` at the node's outputs."""
        yield from self._own(node, slot)
        op = node.op_type
        if slot in _MOVES.get(op, ()) or op in ("Concat", "Max", "Min"):
            for bound in arrived:
                if bound.value is None or op in ("Identity", "Cast"):
                    yield from self._through_limit(node, slot, bound)
        elif op in ("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Mod", "Sum"):
            for bound in arrived:
                if bound.value is None:
                    yield from self._through_arithmetic(node, slot, bound)
                else:  # a shape put together from this: at least keep it small and positive
                    yield _Bound(1, 4, "part of a shape", strict=False)
        if op == "Concat" and any(bound.value is not None for bound in arrived):
            yield _Bound(1, 4, "part of a shape", strict=False)
        if op == "Mul" and (c := self.constant(node, 1 - slot)) is not None and np.abs(c.astype(float)).min() >= _LARGE:
            yield _Bound(0, 1, "an attention mask", strict=False, negated=True, mask=True, additive=True)

    def _through_limit(self, node: onnx.NodeProto, slot: int, bound: _Bound) -> Iterator[_Bound]:
        """A demand seen through a node that moves elements, and perhaps limits them first."""
        low, high = -math.inf, math.inf
        if node.op_type == "Relu":
            low = 0.0
        elif node.op_type == "Clip":
            ends = [self.constant(node, 1), self.constant(node, 2)]
            low = attribute(node, "min", low) if ends[0] is None else ends[0].item()  # type: ignore[assignment]
            high = attribute(node, "max", high) if ends[1] is None else ends[1].item()  # type: ignore[assignment]
        elif node.op_type in ("Max", "Min"):
            others = [self.constant(node, i) for i in range(len(node.input)) if i != slot]
            if len(others) == 1 and others[0] is not None:
                if node.op_type == "Max":
                    low = float(others[0].min())
                else:
                    high = float(others[0].max())
            elif node.op_type == "Max":
                bound = replace(bound, lo=-math.inf)  # another one may be the larger: only the upper end binds all
            else:
                bound = replace(bound, hi=math.inf)
        yield replace(
            bound, lo=-math.inf if low >= bound.lo else bound.lo, hi=math.inf if high <= bound.hi else bound.hi
        )

    def _through_arithmetic(self, node: onnx.NodeProto, slot: int, bound: _Bound) -> Iterator[_Bound]:
        op = node.op_type
        if op == "Neg":
            yield replace(bound, lo=-bound.hi, hi=-bound.lo, negated=False)
            return
        if op == "Abs":
            yield replace(bound, lo=-bound.hi, hi=bound.hi, negated=False)
            return
        other = self.constant(node, 1 - slot) if len(node.input) == 2 else None
        if other is None:
            return
        least, most = float(other.min()), float(other.max())
        lo, hi, negated = bound.lo, bound.hi, False
        if op in ("Add", "Sum"):
            lo, hi = lo - least, hi - most
        elif op == "Sub" and slot == 0:
            lo, hi = lo + most, hi + least
        elif op == "Sub":
            if bound.negated:
                if not least == most == 1:
                    return
                lo, hi = 0, 1
            else:
                lo, hi = most - hi, least - lo
        elif op == "Mod" and slot == 0:
            if lo <= 0 and hi >= most - 1:
                return  # always met
            negated = bound.negated
        elif least == most and least != 0 and (op == "Mul" or slot == 0):
            integer = other.dtype.kind in "iu"
            ends = (lo / least, hi / least) if op == "Mul" else (lo * least, (hi + integer) * least - integer)
            lo, hi = min(ends), max(ends)
        else:
            return
        if lo <= hi:
            yield replace(bound, lo=lo, hi=hi, negated=negated)

    def _own(self, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
        """What the operator itself asks of an input."""
        op = node.op_type
        table = _INDEX.get((node.domain if node.domain != "ai.onnx" else "", op, slot))
        if table is not None:
            data_slot, default_axis = table
            axis = attribute(node, "axis", default_axis)
            rows = self.size(node, data_slot, int(axis))  # type: ignore[call-overload]
            if rows:
                yield _Bound(0, rows - 1, f"indexes {node.input[data_slot]!r}, {rows} along axis {axis}")
            return
        if node.domain not in ("", "ai.onnx"):
            return
        domain = _DOMAIN.get((op, slot))
        if domain is not None:
            yield _Bound(*domain, f"input of {op}", strict=False)
        handler = _HANDLERS.get((op, slot))
        if handler is not None:
            yield from handler(self, node, slot)
        if op in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
            other = self.constant(node, 1 - slot)
            if other is not None and other.dtype.kind != "b" and set(np.unique(other).tolist()) <= {0, 0.5, 1}:
                yield replace(_MASK, reason=f"compared with {other.flat[0]:g}")
        if op == "Sub" and slot == 1:
            other, spec = self.constant(node, 0), self.specs.get(node.input[1])
            if other is not None and (other == 1).all() and spec is not None and not is_float(spec.dtype):
                yield replace(_MASK, reason="a mask: subtracted from 1")
        if op == "Cast" and attribute(node, "to") == onnx.TensorProto.BOOL:
            yield replace(_MASK, reason="a mask: read as bool")


# (domain, operator, slot of the index) -> (slot of the table, axis where the attribute is absent)
_INDEX: dict[tuple[str, str, int], tuple[int, int]] = {
    ("", "Gather", 1): (0, 0),
    ("", "GatherElements", 1): (0, 0),
    ("", "ScatterElements", 1): (0, 0),
    ("", "Scatter", 1): (0, 0),
    ("ai.onnx.ml", "ArrayFeatureExtractor", 1): (0, -1),
    ("com.microsoft", "EmbedLayerNormalization", 0): (2, 0),
    ("com.microsoft", "EmbedLayerNormalization", 1): (4, 0),
    ("com.microsoft", "GatherBlockQuantized", 1): (0, 0),
}

_DOMAIN: dict[tuple[str, int], tuple[float, float]] = {
    ("Log", 0): (_POSITIVE, math.inf),
    ("Sqrt", 0): (0, math.inf),
    ("Acos", 0): (-1, 1),
    ("Asin", 0): (-1, 1),
    ("Atanh", 0): (-1 + _POSITIVE, 1 - _POSITIVE),
    ("Acosh", 0): (1, math.inf),
    ("NonMaxSuppression", 2): (1, 8),
    ("NonMaxSuppression", 3): (0, 1),
    ("Dropout", 1): (0, 0.5),
    ("DequantizeLinear", 1): (1e-3, 1),
    ("QuantizeLinear", 1): (1e-3, 1),
    ("BatchNormalization", 4): (_POSITIVE, math.inf),
    ("Range", 0): (0, 0),
    ("Range", 1): (1, 8),
    ("Range", 2): (1, 1),
    ("Loop", 0): (1, 4),
    ("STFT", 1): (1, 4),
    ("STFT", 3): (8, 16),
    **{(f"{name}Window", 0): (4, 16) for name in ("Hann", "Hamming", "Blackman")},
    ("Tile", 1): (1, 2),
    ("ConstantOfShape", 0): (1, 8),
    ("RandomNormal", 0): (1, 8),
}


def _gather_nd(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    data, indices = walk.shape(node, 0), walk.shape(node, slot)
    if not data or not indices or not isinstance(indices[-1], int):
        return
    batch = int(attribute(node, "batch_dims", 0)) if node.op_type == "GatherND" else 0  # type: ignore[call-overload]
    dims = data[batch : batch + indices[-1]]
    if dims and all(isinstance(d, int) and d > 0 for d in dims):
        least = min(d for d in dims if isinstance(d, int))
        yield _Bound(0, least - 1, f"indexes {node.input[0]!r}, {'x'.join(map(str, dims))}")


def _one_hot(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    depth = walk.constant(node, 1)
    if depth is not None:
        yield _Bound(0, int(depth.flat[0]) - 1, f"classes of a OneHot of depth {int(depth.flat[0])}", strict=False)


def _labels(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    classes = walk.size(node, 0, 1)
    if classes:
        yield _Bound(0, classes - 1, f"labels of {classes} classes")


def _pow(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    exponent = walk.constant(node, 1)
    if exponent is not None and (exponent != np.floor(exponent.astype(float))).any():
        yield _Bound(_POSITIVE if exponent.min() < 0 else 0, math.inf, "base of a broken power", strict=False)


def _divisor(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    spec = walk.specs.get(node.input[slot])
    if spec is not None and not is_float(spec.dtype):
        yield _Bound(1, math.inf, "divisor of integers")


def _shift(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    spec = walk.specs.get(node.input[0])
    if spec is not None:
        yield _Bound(0, spec.dtype.itemsize * 8 - 1, f"shifts {spec.dtype.itemsize * 8} bits", strict=False)


def _top_k(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    size = walk.size(node, 0, int(attribute(node, "axis", -1)))  # type: ignore[call-overload]
    yield _Bound(1, size or 1, "k of a TopK")


def _lengths(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    axis = int(attribute(node, "time_axis", 0))  # type: ignore[call-overload]
    if node.op_type != "ReverseSequence":
        axis = int(attribute(node, "layout", 0))  # type: ignore[call-overload]
    size = walk.size(node, 0, axis)
    if size:
        yield _Bound(1, size, f"lengths of sequences of {size} steps")


def _axis(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    shape, own = walk.shape(node, 0), walk.shape(node, slot)
    if shape is None:
        return
    if own and isinstance(own[0], int) and own[0] > 1:  # several: they must differ
        yield _Bound(0, len(shape) - 1, f"axes of a {node.op_type}", value=tuple(range(own[0])))
    elif node.op_type == "Squeeze" and 1 in shape and own:
        yield _Bound(0, len(shape) - 1, "axis of a Squeeze", value=(shape.index(1),))
    elif shape:
        yield _Bound(0, len(shape) - 1, f"axis of a {node.op_type}")


def _target(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    """A legal value for an input that is a shape, a place or a size."""
    own = walk.shape(node, slot)
    data = walk.shape(node, 0)
    if data is None or not own or not isinstance(own[0], int) or not all(isinstance(d, int) for d in data):
        yield _Bound(1, 4, f"a shape for {node.op_type}", strict=False)
        return
    length, dims = own[0], [d for d in data if isinstance(d, int)]
    if node.op_type == "Reshape":
        value = (dims + [1] * length)[:length]
        if length < len(dims):
            value = [*dims[: length - 1], math.prod(dims[length - 1 :])] if length else []
    elif node.op_type == "Expand":
        value = ([1] * length + dims)[-length:] if length >= len(dims) else [1] * length
    elif node.op_type == "Resize":
        axes = attribute(node, "axes") or range(len(dims))
        value = [dims[i] if i < 2 else 2 * dims[i] for i in axes]  # type: ignore[attr-defined]
    elif node.op_type == "MaxUnpool":
        value = [d if i < 2 else 2 * d for i, d in enumerate(dims)]
    elif node.op_type == "AffineGrid":
        value = [dims[0]] + [4] * (length - 1)
    elif node.op_type == "Split":
        size = dims[int(attribute(node, "axis", 0))]  # type: ignore[call-overload]
        value = [size // length] * (length - 1) + [size - size // length * (length - 1)]
    elif node.op_type == "Slice":
        constant = walk.constant(node, 3)
        chosen = list(range(length)) if constant is None else [int(a) for a in constant.reshape(-1)]
        value = {1: [0] * length, 2: [dims[a] for a in chosen], 3: chosen}.get(slot, [1] * length)
    elif node.op_type == "Pad":
        value = [0] * (length - 1) + [1]
    else:
        value = [1] * length
    if len(value) == length:
        yield _Bound(min(value), max(value), f"a shape for {node.op_type}", value=tuple(value))


def _scales(walk: _Walk, node: onnx.NodeProto, slot: int) -> Iterator[_Bound]:
    data = walk.shape(node, 0)
    if data is not None:
        yield _Bound(1, 2, "scales of a Resize", value=tuple(1 if i < 2 else 2 for i in range(len(data))))


_HANDLERS: dict[tuple[str, int], Callable[[_Walk, onnx.NodeProto, int], Iterator[_Bound]]] = {
    ("GatherND", 1): _gather_nd,
    ("ScatterND", 1): _gather_nd,
    ("OneHot", 0): _one_hot,
    ("NegativeLogLikelihoodLoss", 1): _labels,
    ("SoftmaxCrossEntropyLoss", 1): _labels,
    ("Pow", 0): _pow,
    ("Div", 1): _divisor,
    ("Mod", 1): _divisor,
    ("BitShift", 1): _shift,
    ("TopK", 1): _top_k,
    ("LSTM", 4): _lengths,
    ("GRU", 4): _lengths,
    ("RNN", 4): _lengths,
    ("ReverseSequence", 1): _lengths,
    ("CumSum", 1): _axis,
    ("CumProd", 1): _axis,
    ("Unsqueeze", 1): _axis,
    ("Squeeze", 1): _axis,
    **{(f"Reduce{kind}", 1): _axis for kind in ("Max", "Min", "Mean", "Sum", "Prod", "L1", "L2", "SumSquare")},
    ("Reshape", 1): _target,
    ("Expand", 1): _target,
    ("Resize", 3): _target,
    ("Resize", 2): _scales,
    ("Upsample", 1): _scales,
    ("Split", 1): _target,
    ("Slice", 1): _target,
    ("Slice", 2): _target,
    ("Slice", 3): _target,
    ("Pad", 1): _target,
    ("MaxUnpool", 2): _target,
    ("AffineGrid", 1): _target,
    ("Slice", 4): _target,
}


# -- shapes -----------------------------------------------------------------------------------------------------------
