"""What operators demand of the values of their inputs, so that they mean something."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from .index import GraphIndex
from .nodes import attribute_int, attribute_ints
from .operators import COMPARISONS, domain_of, is_standard
from .specs import Dim, TensorSpec, is_float


@dataclass(frozen=True)
class Bound:
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
    domain: bool = False
    """Where a function is defined: outside, its result is not a number."""

    @property
    def hint(self) -> bool:
        """Whether values outside are as legal as those inside, and only unlikely."""
        return not self.strict and not self.domain


MASK = Bound(0, 1, "a mask", strict=False, mask=True)
POSITIVE = 1e-6
"""The smallest number that is drawn where a positive one is asked for."""


class Lookup:
    """What is known of the inputs of nodes.

    Attributes:
        index: The graph.
        specs: Types and shapes of its tensors.
        inner: Constants of subgraphs, by name.
    """

    def __init__(self, index: GraphIndex, specs: Mapping[str, TensorSpec]) -> None:
        self.index = index
        self.specs = specs
        self.inner: dict[str, np.ndarray] = {}

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
        """The shape of an input, as far as it is known."""
        name = node.input[slot] if slot < len(node.input) else ""
        if name in self.inner:
            return self.inner[name].shape
        spec = self.specs.get(name)
        return None if spec is None else spec.shape

    def output(self, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
        """The shape of the first output, as far as it is known or declared."""
        name = node.output[0]
        spec = self.index.specs.get(name) if name in self.index.outputs else self.specs.get(name)
        return None if spec is None else spec.shape

    def size(self, node: onnx.NodeProto, slot: int, axis: int) -> int | None:
        """A known, positive dimension of an input."""
        shape = self.shape(node, slot)
        if not shape or not -len(shape) <= axis < len(shape):
            return None
        dim = shape[axis]
        return dim if isinstance(dim, int) and dim > 0 else None


def own_demands(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    """What the operator itself asks of an input."""
    op = node.op_type
    table = _INDEX.get((domain_of(node), op, slot))
    if table is not None:
        data_slot, default_axis = table
        axis = attribute_int(node, "axis", default_axis)
        rows = lookup.size(node, data_slot, axis)
        if rows:
            yield Bound(0, rows - 1, f"indexes {node.input[data_slot]!r}, {rows} along axis {axis}")
        return
    if not is_standard(node):
        return
    domain = _DOMAIN.get((op, slot))
    if domain is not None:
        yield Bound(*domain, f"input of {op}", strict=False, domain=True)
    handler = _HANDLERS.get((op, slot))
    if handler is not None:
        yield from handler(lookup, node, slot)
    if op in COMPARISONS:
        other = lookup.constant(node, 1 - slot)
        if other is not None and other.dtype.kind != "b" and set(np.unique(other).tolist()) <= {0, 0.5, 1}:
            yield replace(MASK, reason=f"compared with {other.flat[0]:g}")
    if op == "Sub" and slot == 1:
        other, spec = lookup.constant(node, 0), lookup.specs.get(node.input[1])
        if other is not None and (other == 1).all() and spec is not None and not is_float(spec.dtype):
            yield replace(MASK, reason="a mask: subtracted from 1")
    if op == "Cast" and attribute_int(node, "to", 0) == onnx.TensorProto.BOOL:
        yield replace(MASK, reason="a mask: read as bool")


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
"""Domain, operator and slot of an index -> slot of the table, axis where the attribute is absent."""

_DOMAIN: dict[tuple[str, int], tuple[float, float]] = {
    ("Log", 0): (POSITIVE, math.inf),
    ("Sqrt", 0): (0, math.inf),
    ("Acos", 0): (-1, 1),
    ("Asin", 0): (-1, 1),
    ("Atanh", 0): (-1 + POSITIVE, 1 - POSITIVE),
    ("Acosh", 0): (1, math.inf),
    ("NonMaxSuppression", 2): (1, 8),
    ("NonMaxSuppression", 3): (0, 1),
    ("Dropout", 1): (0, 0.5),
    ("DequantizeLinear", 1): (1e-3, 1),
    ("QuantizeLinear", 1): (1e-3, 1),
    ("BatchNormalization", 4): (POSITIVE, math.inf),
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
"""Operator and slot -> least and greatest value."""


def _gather_nd(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    data, indices = lookup.shape(node, 0), lookup.shape(node, slot)
    if not data or not indices or not isinstance(indices[-1], int):
        return
    batch = attribute_int(node, "batch_dims", 0) if node.op_type == "GatherND" else 0
    dims = data[batch : batch + indices[-1]]
    if dims and all(isinstance(d, int) and d > 0 for d in dims):
        least = min(d for d in dims if isinstance(d, int))
        yield Bound(0, least - 1, f"indexes {node.input[0]!r}, {'x'.join(map(str, dims))}")


def _one_hot(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    constant = lookup.constant(node, 1)
    if constant is None:
        declared = lookup.output(node)
        axis = attribute_int(node, "axis", -1)
        known = declared is not None and -len(declared) <= axis < len(declared)
        dim = declared[axis] if declared is not None and known else None
        depth = dim if isinstance(dim, int) and dim > 0 else 8
    else:
        depth = int(constant.flat[0])
    if slot == 0:
        yield Bound(0, depth - 1, f"classes of a OneHot of depth {depth}", strict=False)
    else:
        yield _only(depth, "depth of a OneHot")


def _labels(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    classes = lookup.size(node, 0, 1)
    if classes:
        yield Bound(0, classes - 1, f"labels of {classes} classes")


def _pow(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    exponent = lookup.constant(node, 1)
    if exponent is not None and (exponent != np.floor(exponent.astype(float))).any():
        yield Bound(
            POSITIVE if exponent.min() < 0 else 0, math.inf, "base of a broken power", strict=False, domain=True
        )


def _divisor(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    spec = lookup.specs.get(node.input[slot])
    if spec is not None and not is_float(spec.dtype):
        yield Bound(1, math.inf, "divisor of integers")


def _shift(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    spec = lookup.specs.get(node.input[0])
    if spec is not None:
        yield Bound(0, spec.dtype.itemsize * 8 - 1, f"shifts {spec.dtype.itemsize * 8} bits", strict=False)


def _top_k(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    size = lookup.size(node, 0, attribute_int(node, "axis", -1))
    yield Bound(1, size or 1, "k of a TopK")


def _lengths(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    axis = attribute_int(node, "time_axis" if node.op_type == "ReverseSequence" else "layout", 0)
    size = lookup.size(node, 0, axis)
    if size:
        yield Bound(1, size, f"lengths of sequences of {size} steps")


def _axis(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    shape, own = lookup.shape(node, 0), lookup.shape(node, slot)
    if shape is None:
        return
    reduced = _reduced(lookup, node, shape, own) if node.op_type.startswith("Reduce") else None
    if reduced is not None:
        yield Bound(0, len(shape) - 1, f"axes of a {node.op_type}", value=reduced)
        return
    if own and isinstance(own[0], int) and own[0] > 1:  # several: they must differ
        yield Bound(0, len(shape) - 1, f"axes of a {node.op_type}", value=tuple(range(own[0])))
    elif node.op_type == "Squeeze" and 1 in shape and own:
        yield Bound(0, len(shape) - 1, "axis of a Squeeze", value=(shape.index(1),))
    elif shape:
        yield Bound(0, len(shape) - 1, f"axis of a {node.op_type}")


def _reduced(
    lookup: Lookup, node: onnx.NodeProto, shape: tuple[Dim, ...], own: tuple[Dim, ...] | None
) -> tuple[int, ...] | None:
    """The first axes of a reduction that give the shape which the graph declares."""
    declared = lookup.output(node)
    if declared is None or not own or not isinstance(own[0], int) or own[0] > len(shape):
        return None
    keep = attribute_int(node, "keepdims", 1)
    for axes in itertools.combinations(range(len(shape)), own[0]):
        left = tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)
        if len(left) == len(declared) and all(
            a == b for a, b in zip(left, declared, strict=True) if isinstance(a, int) and isinstance(b, int)
        ):
            return axes
    return None


def _only(value: int, reason: str) -> Bound:
    return Bound(value, value, reason, value=(value,))


def _dft(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    """The transform of all values along the first axis of the signal."""
    shape = lookup.shape(node, 0)
    if shape is None or len(shape) < 2:
        return
    axis = attribute_int(node, "axis", min(1, len(shape) - 2))
    if slot == 2:
        yield _only(axis, "axis of a DFT")
        return
    given = lookup.constant(node, 2)
    size = lookup.size(node, 0, axis if given is None else int(given.flat[0]))
    if size:
        yield _only(size, f"length of a DFT of {size} values")


_RATE = 8000
_MEL_BINS, _MEL_LENGTH = 4, 16


def _mel(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    """A matrix of the shape that the graph declares, over all frequencies."""
    rows, columns = (lookup.output(node) or (None, None))[:2]
    length = 2 * (rows - 1) if isinstance(rows, int) and rows > 1 else _MEL_LENGTH
    bins = columns if isinstance(columns, int) and columns > 0 else _MEL_BINS
    values = (bins, length, _RATE, 0, _RATE // 2)
    what = ("bins", "DFT length", "sample rate", "lower frequency", "upper frequency")
    yield _only(values[slot], f"{what[slot]} of a MelWeightMatrix")


def _split_to_sequence(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    size, own = lookup.size(node, 0, attribute_int(node, "axis", 0)), lookup.shape(node, slot)
    if own == () and size:
        yield _only(max(1, size // 2), f"chunks of a SplitToSequence of {size}")
    elif own and isinstance(own[0], int) and own[0] > 0 and size:
        count = own[0]
        value = (*[size // count] * (count - 1), size - size // count * (count - 1))
        yield Bound(min(value), max(value), "chunks of a SplitToSequence", value=value)


def _col2im(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    """An image and blocks that give as many columns as there are, of the shape that the graph declares."""
    columns, own, declared = lookup.shape(node, 0), lookup.shape(node, slot), lookup.output(node)
    if columns is None or len(columns) != 3 or not own or not isinstance(own[0], int):
        return
    rank, width, count = own[0], columns[1], columns[2]
    if not isinstance(width, int) or not isinstance(count, int):
        return
    strides = attribute_ints(node, "strides") or [1] * rank
    dilations = attribute_ints(node, "dilations") or [1] * rank
    pads = attribute_ints(node, "pads") or [0] * (2 * rank)
    image = None if declared is None else declared[2:]
    if image is None or len(image) != rank or not all(isinstance(d, int) for d in image):
        # blocks of one element, in one row
        image = tuple(
            max(1, ((count if i == 0 else 1) - 1) * strides[i] + 1 - pads[i] - pads[i + rank]) for i in range(rank)
        )
    channels = declared[1] if declared is not None and len(declared) > 1 else width
    block = width // channels if isinstance(channels, int) and channels > 0 else 1
    sizes = [d for d in image if isinstance(d, int)]
    for shape in _factored(block, rank):
        spans = (
            (sizes[i] + pads[i] + pads[i + rank] - dilations[i] * (shape[i] - 1) - 1) // strides[i] + 1
            for i in range(rank)
        )
        if math.prod(spans) == count:
            value = tuple(sizes) if slot == 1 else shape
            yield Bound(min(value), max(value), f"{'image' if slot == 1 else 'blocks'} of a Col2Im", value=value)
            return


def _factored(number: int, count: int) -> Iterator[tuple[int, ...]]:
    """Every way to write a number as so many factors."""
    if count == 1:
        yield (number,)
        return
    for first in (d for d in range(1, number + 1) if number % d == 0):
        for rest in _factored(number // first, count - 1):
            yield (first, *rest)


def _target(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    """A legal value for an input that is a shape, a place or a size."""
    own = lookup.shape(node, slot)
    data = lookup.shape(node, 0)
    if data is None or not own or not isinstance(own[0], int) or not all(isinstance(d, int) for d in data):
        yield Bound(1, 4, f"a shape for {node.op_type}", strict=False)
        return
    length, dims = own[0], [d for d in data if isinstance(d, int)]
    if node.op_type == "Reshape":
        value = (dims + [1] * length)[:length]
        if length < len(dims):
            value = [*dims[: length - 1], math.prod(dims[length - 1 :])] if length else []
    elif node.op_type == "Expand":
        value = ([1] * length + dims)[-length:] if length >= len(dims) else [1] * length
    elif node.op_type == "Resize":
        axes = attribute_ints(node, "axes") or range(len(dims))
        value = [dims[i] if i < 2 else 2 * dims[i] for i in axes]
    elif node.op_type == "MaxUnpool":
        value = [d if i < 2 else 2 * d for i, d in enumerate(dims)]
    elif node.op_type == "AffineGrid":
        value = [dims[0]] + [4] * (length - 1)
    elif node.op_type == "Split":
        size = dims[attribute_int(node, "axis", 0)]
        value = [size // length] * (length - 1) + [size - size // length * (length - 1)]
    elif node.op_type == "Slice":
        constant = lookup.constant(node, 3)
        chosen = list(range(length)) if constant is None else [int(a) for a in constant.reshape(-1)]
        value = {1: [0] * length, 2: [dims[a] for a in chosen], 3: chosen}.get(slot, [1] * length)
    elif node.op_type == "Pad":
        value = [0] * (length - 1) + [1]
    else:
        value = [1] * length
    if len(value) == length:
        yield Bound(min(value), max(value), f"a shape for {node.op_type}", value=tuple(value))


def _scales(lookup: Lookup, node: onnx.NodeProto, slot: int) -> Iterator[Bound]:
    data = lookup.shape(node, 0)
    if data is not None:
        yield Bound(1, 2, "scales of a Resize", value=tuple(1 if i < 2 else 2 for i in range(len(data))))


_HANDLERS: dict[tuple[str, int], Callable[[Lookup, onnx.NodeProto, int], Iterator[Bound]]] = {
    ("GatherND", 1): _gather_nd,
    ("ScatterND", 1): _gather_nd,
    ("OneHot", 0): _one_hot,
    ("OneHot", 1): _one_hot,
    ("DFT", 1): _dft,
    ("DFT", 2): _dft,
    **{("MelWeightMatrix", slot): _mel for slot in range(5)},
    ("SplitToSequence", 1): _split_to_sequence,
    ("Col2Im", 1): _col2im,
    ("Col2Im", 2): _col2im,
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
    **{
        (f"Reduce{kind}", 1): _axis
        for kind in ("Max", "Min", "Mean", "Sum", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    },
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
