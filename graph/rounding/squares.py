"""The squares that operators add up inside, in tensors that no graph has: those of normalizations and norms.

A kernel that computes inside in FP32 holds them, one that computes in FP16 does not. Of a normalization by the
variance, they are the squares of what its mean leaves; of a norm, their sums, which nothing divides before the root.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from ..index import GraphIndex
from ..nodes import attribute_int, attribute_ints
from ..operators import operator


def squares(node: onnx.NodeProto) -> bool:
    """Whether a node squares what it is given, in no tensor of the graph: a BatchNormalization only if it trains."""
    if operator(node) == "BatchNormalization":
        return bool(attribute_int(node, "training_mode", 0))
    return operator(node) in _RULES


def squares_inside(index: GraphIndex, node: onnx.NodeProto, given: Sequence[np.ndarray]) -> np.ndarray | None:
    """The squares that a node makes inside, or their sums where these are what it takes the root of.

    Args:
        index: The graph of the node.
        node: The node.
        given: What it is given, as far as that is of the shape of the first input: the first, and what may be added.

    Returns:
        None of other operators, and where the shape is not one that the operator takes.
    """
    if not squares(node) or not given:
        return None
    wide = given[0].astype(np.float64)
    for more in given[1:] if operator(node) in _ADDING else ():
        wide = wide + more
    try:
        return _RULES[operator(node)](index, node, wide)
    except (ValueError, IndexError):  # a shape that breaks the operator's rules
        return None


def _from_axis(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray:
    return _centred(x, range(attribute_int(node, "axis", -1) % x.ndim, x.ndim))


def _last(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray:
    return _centred(x, [x.ndim - 1])


def _by_itself(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray:
    return np.square(x)


def _instance(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray:
    return _centred(x, range(2, x.ndim))


def _of_batch(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray:
    return _centred(x, (0, *range(2, x.ndim)))


def _over_axes(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray:
    return _centred(x, attribute_ints(node, "axes", [0, 2, 3]))


def _groups(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray:
    """Channels of ONNX's own are the second axis, those of ONNX Runtime's the last one."""
    last = attribute_int(node, "channels_last", 0 if operator(node) == "GroupNormalization" else 1)
    groups = attribute_int(node, "num_groups", 0) or attribute_int(node, "groups", 1)
    first = np.moveaxis(x, -1, 1) if last else x
    return _centred(first.reshape(len(x), groups, -1), [2])


def _norm(index: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray | None:
    axes = index.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    if axes is None and len(node.input) > 1 and node.input[1]:
        return None
    over = attribute_ints(node, "axes") if axes is None else [int(a) for a in axes.reshape(-1)]
    if not over and attribute_int(node, "noop_with_empty_axes", 0):
        return np.square(x)
    return np.square(x).sum(axis=tuple(over) if over else None)


def _lp(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray | None:
    return np.square(x).sum(axis=attribute_int(node, "axis", -1)) if attribute_int(node, "p", 2) == 2 else None


def _pooled(_: GraphIndex, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray | None:
    if attribute_int(node, "p", 2) != 2:
        return None
    return np.square(x).sum(axis=tuple(range(2, x.ndim))) if operator(node) == "GlobalLpPool" else np.square(x)


def _centred(x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    over = tuple(axes)
    if not math.prod(x.shape[a] for a in over):
        return np.square(x)
    return np.square(x - x.mean(axis=over, keepdims=True))


_Rule = Callable[[GraphIndex, onnx.NodeProto, np.ndarray], "np.ndarray | None"]

_RULES: Mapping[str, _Rule] = {
    "BatchNormalization": _of_batch,
    "GlobalLpPool": _pooled,
    "GroupNorm": _groups,
    "GroupNormalization": _groups,
    "InstanceNormalization": _instance,
    "LRN": _by_itself,
    "LayerNormalization": _from_axis,
    "LpNormalization": _lp,
    "LpPool": _pooled,
    "MeanVarianceNormalization": _over_axes,
    "RMSNormalization": _by_itself,
    "ReduceL2": _norm,
    "SimplifiedLayerNormalization": _by_itself,
    "SkipGroupNorm": _groups,
    "SkipLayerNormalization": _last,
    "SkipSimplifiedLayerNormalization": _by_itself,
}

_ADDING = frozenset({"SkipGroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})
"""Those that add up tensors of one shape before."""
