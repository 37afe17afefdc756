"""Which TensorFlow tensor each ONNX tensor is, and in which layout.

tf2onnx keeps the names of most tensors. A name is believed when dtype and rank agree and the layout can be told: inside
convolutional parts ONNX holds NCHW where TensorFlow holds NHWC, under the same name. The layout is followed through the
ONNX graph from the operators that have only one (Conv and pooling are NCHW), and checked against static shapes. Names
come from three places, the later corrects the earlier:

1. the tensor's own name,
2. the name of a convolution's weights, where a fold took the convolution's own,
3. the reader: where an ONNX Relu makes the same tensor as a TF Relu, what the two read is the same value, whatever it
   is called. This finds the sums that tf2onnx renamed when it folded a bias or a BatchNormalization into a
   convolution, and corrects those that kept the convolution's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..index import GraphIndex
from ..nodes import attribute_float
from ..operators import RENAMES, operator
from .layouts import layouts, permutation

if TYPE_CHECKING:
    import tensorflow as tf

    from ..specs import TensorSpec


@dataclass(frozen=True)
class Origin:
    """The TF tensor behind an ONNX tensor.

    Attributes:
        tensor: Its TF name, ``x:0``.
        permutation: Axes by which the TF value is transposed to give the ONNX value; empty for none.
    """

    tensor: str
    permutation: tuple[int, ...] = ()


# fmt: off
# Convolutions, and what tf2onnx folds into their weights and biases.
_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative", "Conv3D", "Conv2DBackpropInput", "Conv3DBackpropInputV2"})
_FOLDED = frozenset({
    "BiasAdd", "Add", "AddV2", "Sub", "Mul", "RealDiv", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3",
})
_TRANSPARENT = frozenset({"Identity", "StopGradient", "Snapshot"})
# Operators of one input that mean the same on both sides: equal results have equal arguments by construction.
_SAME = {
    "Relu": {"Relu"}, "Clip": {"Relu6"}, "Sigmoid": {"Sigmoid"}, "Tanh": {"Tanh"}, "Elu": {"Elu"}, "Selu": {"Selu"},
    "LeakyRelu": {"LeakyRelu"}, "Softplus": {"Softplus"}, "Softsign": {"Softsign"}, "Softmax": {"Softmax"},
    "LogSoftmax": {"LogSoftmax"}, "Exp": {"Exp"}, "Log": {"Log"}, "Sqrt": {"Sqrt"}, "Erf": {"Erf"}, "Neg": {"Neg"},
    "Abs": {"Abs"},
}
# Operators of two inputs: once one argument is known, so is the other.
_SAME_PAIR = {"Add": {"Add", "AddV2"}, "Mul": {"Mul"}, "Sum": {"AddN"}, "Sub": {"Sub"}}
# fmt: on
# The attributes of TF's matrix products that transpose the first and the second argument.
_TRANSPOSED = (("transpose_a", "adj_x"), ("transpose_b", "adj_y"))


def trace(
    index: GraphIndex, graph: tf.Graph, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> dict[str, Origin]:
    """Where the tensors of a converted graph come from.

    Args:
        index: The ONNX graph.
        graph: The ``tf.Graph`` it was converted from.
        inputs, outputs: ONNX name -> TF tensor name; these have TensorFlow's layout.

    Returns:
        ONNX tensor name -> origin, in the ONNX graph's order. Tensors without a sure origin are not in it.
    """
    tensors = {t.name: t for op in graph.get_operations() for t in op.outputs}
    layouts = _layouts(index, tensors)
    specs = index.specs
    found: dict[str, Origin] = {}

    def origin(name: str, tensor: str) -> Origin | None:
        return _origin(specs.get(name), tensors.get(tensor), layouts.get(name))

    fixed = {**inputs, **outputs}
    for name in index.producer:
        if name not in tensors or index.constant(name) is not None:
            continue
        for last in _steps(index, name):
            made = origin(last, name)
            if made is not None and last not in fixed:
                found[last] = made
    for name, tensor in _folded(index, graph, tensors):
        made = origin(name, tensor)
        if made is not None and name not in fixed:
            found[name] = made
    found.update({name: Origin(tensor) for name, tensor in fixed.items()})

    for node in reversed(index.nodes):
        for name, tensor in _arguments(index, node, found, tensors):
            if name not in fixed and name in index.producer:
                made = origin(name, tensor)
                if made is not None:
                    found[name] = made
                else:  # known to hold another value than its name says, and not in a layout that can be told
                    found.pop(name, None)
    order = {name: position for position, name in enumerate([*inputs, *index.producer])}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _steps(index: GraphIndex, name: str) -> list[str]:
    """The ONNX tensors that hold the value of the TF tensor ``name``, which the first node of its conversion kept.

    An operator that ONNX lacks becomes several nodes: SquaredDifference is a Sub of that name, then a Mul called
    ``SquaredDifference__22``. All but the last are intermediates, unless what follows only moves values about.
    """
    scope = name.rpartition(":")[0]
    follows = re.compile(re.escape(scope) + r"(_[A-Za-z]+)?__\d+$")
    steps = [name]
    while True:
        readers = index.consumers.get(steps[-1], ())
        if len(readers) != 1 or steps[-1] in index.outputs:
            return steps
        node = index.nodes[readers[0]]
        if len(node.output) != 1 or not follows.match(node.output[0].rpartition(":")[0]):
            return steps
        steps = [*steps, node.output[0]] if operator(node) in RENAMES else [node.output[0]]


def _folded(index: GraphIndex, graph: tf.Graph, tensors: Mapping[str, tf.Tensor]) -> Iterator[tuple[str, str]]:
    """Convolutions that lost their name to a fold, with the TF tensor at the end of what was folded into them.

    The weights still carry the TF convolution's name. What follows it (bias, scale, shift, normalization) and is not a
    node of the ONNX graph has become part of its weights.
    """
    convolutions = {op.name: op for op in graph.get_operations() if op.type in _CONVOLUTIONS}
    for node in index.nodes:
        if node.op_type not in ("Conv", "ConvTranspose") or node.output[0] in tensors or len(node.input) < 2:
            continue
        scope = node.input[1]
        while scope and scope not in convolutions:
            scope = scope.rpartition("/")[0]
        if not scope:
            continue
        end = convolutions[scope].outputs[0]
        while True:
            readers = end.consumers()
            if len(readers) != 1 or readers[0].outputs[0].name in index.producer:
                break
            op = readers[0]
            if op.type in _TRANSPARENT or (op.type in _FOLDED and all(t is end or _constant(t) for t in op.inputs)):
                end = op.outputs[0]
            else:
                break
        yield node.output[0], str(end.name)


def _constant(tensor: tf.Tensor) -> bool:
    """Whether a TF tensor depends on no placeholder."""
    todo = [tensor.op]
    seen: set[str] = set()
    while todo:
        op = todo.pop()
        if op.type.startswith("Placeholder") or len(seen) > 64:
            return False
        if op.name not in seen:
            seen.add(op.name)
            todo += [t.op for t in op.inputs]
    return True


def _arguments(
    index: GraphIndex, node: onnx.NodeProto, found: Mapping[str, Origin], tensors: Mapping[str, tf.Tensor]
) -> Iterable[tuple[str, str]]:
    """ONNX inputs of ``node`` with the TF tensors that they must be, given what ``node`` makes."""
    if not node.output or node.output[0] not in found:
        return
    op = _maker(tensors[found[node.output[0]].tensor])
    if op.type in _SAME.get(node.op_type, ()) and len(op.inputs) == 1:
        if node.op_type != "Clip" or _bounds(index, node) == (0.0, 6.0):
            yield node.input[0], op.inputs[0].name
    elif node.op_type == "MatMul" and op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2") and len(op.inputs) == 2:
        for name, argument, flags in zip(node.input, op.inputs, _TRANSPOSED, strict=True):
            if not any(op.node_def.attr[flag].b for flag in flags):
                yield name, argument.name
    elif op.type in _SAME_PAIR.get(node.op_type, ()) and len(op.inputs) == 2 and len(node.input) == 2:
        ours, theirs = list(node.input), [t.name for t in op.inputs]
        if ours[0] == ours[1] or theirs[0] == theirs[1]:
            return
        for a, b in ((0, 1), (1, 0)):
            for c, d in ((0, 1), (1, 0)) if node.op_type != "Sub" else ((a, b),):
                known = found.get(ours[a])
                if known is not None and _same_value(tensors, known.tensor, theirs[c]):
                    yield ours[b], theirs[d]
                    return


def _maker(tensor: tf.Tensor) -> tf.Operation:
    """The operation that computes a tensor, looking through Identity."""
    while tensor.op.type in _TRANSPARENT:
        tensor = tensor.op.inputs[0]
    return tensor.op


def _same_value(tensors: Mapping[str, tf.Tensor], a: str, b: str) -> bool:
    """Whether two TF tensors are one value, but for Identity."""

    def root(name: str) -> str:
        tensor = tensors[name]
        while tensor.op.type in _TRANSPARENT:
            tensor = tensor.op.inputs[0]
        return str(tensor.name)

    return root(a) == root(b)


def _bounds(index: GraphIndex, node: onnx.NodeProto) -> tuple[float, float] | None:
    """The constant bounds of a Clip."""
    low, high = attribute_float(node, "min"), attribute_float(node, "max")
    values = [index.constant(name) if name else None for name in node.input[1:3]]
    if len(values) == 2 and values[0] is not None and values[1] is not None:
        return float(values[0]), float(values[1])
    return (low, high) if isinstance(low, float) and isinstance(high, float) else None


def _origin(spec: TensorSpec | None, tensor: tf.Tensor | None, channels_first: bool | None) -> Origin | None:
    """The origin, if dtype, rank and layout say that the TF tensor can be the ONNX tensor."""
    if spec is None or spec.shape is None or tensor is None or tensor.shape.rank != len(spec.shape):
        return None
    try:
        same = np.dtype(tensor.dtype.as_numpy_dtype) == spec.dtype
    except TypeError:
        return None
    if not same:
        return None
    axes = permutation(tensor.shape.as_list(), spec.shape, channels_first)
    return None if axes is None else Origin(str(tensor.name), axes)


def _layouts(index: GraphIndex, tensors: Mapping[str, tf.Tensor]) -> dict[str, bool]:
    """Whether tensors are channels-first in ONNX while TensorFlow has them channels-last; missing where unknown.

    Meaningful for tensors of rank 3 to 5; the others have one layout.
    """
    if not _rearranged(index, tensors):
        return dict.fromkeys([*index.inputs, *index.producer], False)
    native = any(
        op.type != "Const" and _data_format(op).startswith("NC") for op in {t.op for t in tensors.values()}
    )  # a TF graph that is channels-first by itself needs no transposition; mixed ones are left to their shapes
    last = any(_data_format(op).endswith("C") for op in {t.op for t in tensors.values()})
    transposes = {name for name, tensor in tensors.items() if _maker(tensor).type == "Transpose"}
    return layouts(index, tensors, transposes, None if native and last else not native)


def _rearranged(index: GraphIndex, tensors: Mapping[str, tf.Tensor]) -> bool:
    """Whether tf2onnx has any reason to hold a tensor in another layout: an operator with a data format, a recurrent
    one (time comes first in ONNX), or a Transpose of the program that it takes for a change of layout."""
    if any(node.op_type in ("LSTM", "GRU", "RNN", "Scan", "Loop") for node in index.nodes):
        return True
    for op in {t.op for t in tensors.values()}:
        if _data_format(op):
            return True
        if op.type == "Transpose":
            axes = _static(op.inputs[1])
            if axes is None:
                return True
            last = len(axes) - 1
            if len(axes) > 2 and list(axes) in ([0, last, *range(1, last)], [0, *range(2, last + 1), 1]):
                return True
    return False


def _static(tensor: tf.Tensor) -> np.ndarray | None:
    """The value of a TF constant; None if it is computed."""
    if tensor.op.type != "Const":
        return None
    from tensorflow import make_ndarray

    return make_ndarray(tensor.op.get_attr("value"))


def _data_format(op: tf.Operation) -> str:
    """``NHWC``, ``NCHW`` and their kin; empty for operators without one."""
    if "data_format" not in op.node_def.attr or op.type == "BiasAdd":
        return ""
    return str(op.node_def.attr["data_format"].s.decode("ascii", "replace"))
