"""One fault at one node of a healthy network, of a dozen kinds: what no FP32 tolerance may pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

PLACES = 3
"""Nodes that each kind is planted at, spread over the network."""


@dataclass(frozen=True)
class Fault:
    """A network with one thing wrong."""

    kind: str
    node: str
    proto: onnx.ModelProto


Change = Callable[[onnx.NodeProto, dict[str, np.ndarray]], "dict[str, np.ndarray] | onnx.NodeProto | None"]
"""New values of weights, or a new node, or None where the kind does not apply."""


def faults(proto: onnx.ModelProto) -> Iterator[Fault]:
    """Every kind at up to `PLACES` nodes."""
    for kind, change in KINDS.items():
        fit = [i for i in range(len(proto.graph.node)) if _apply(proto, i, change) is not None]
        for position in dict.fromkeys(fit[i * (len(fit) - 1) // max(1, PLACES - 1)] for i in range(PLACES) if fit):
            changed = _apply(proto, position, change)
            if changed is not None:
                yield Fault(
                    kind,
                    proto.graph.node[position].name or proto.graph.node[position].output[0],
                    _copy(proto, *changed),
                )


def _apply(
    proto: onnx.ModelProto, position: int, change: Change
) -> tuple[int, onnx.NodeProto | None, dict[str, np.ndarray]] | None:
    node = proto.graph.node[position]
    weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in node.input}
    result = change(node, weights)
    if result is None:
        return None
    if isinstance(result, onnx.NodeProto):
        return position, result, {}
    same = all(np.array_equal(v, weights[k]) for k, v in result.items())
    return None if same or not result else (position, None, result)


def _copy(
    proto: onnx.ModelProto, position: int, node: onnx.NodeProto | None, weights: dict[str, np.ndarray]
) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if node is not None:
        copy.graph.node[position].CopyFrom(node)
    own = copy.graph.node[position]
    for name, values in weights.items():
        fresh = f"{name}/fault"  # other nodes may share the weight
        copy.graph.initializer.append(numpy_helper.from_array(values, fresh))
        own.input[:] = [fresh if i == name else i for i in own.input]
    return copy


def _product(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> str | None:
    """The weight of a matrix product or convolution."""
    if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU"):
        return next((i for i in node.input[1:] if i in weights and weights[i].ndim >= 2), None)
    return None


def _on_weight(function: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        name = _product(node, weights)
        return None if name is None else {name: function(weights[name]).astype(np.float32)}

    return change


def _few(w: np.ndarray) -> np.ndarray:
    w = w.copy()
    flat = w.reshape(-1)
    where = np.argsort(-np.abs(flat))[[flat.size // 100, flat.size // 50, flat.size // 20]]
    flat[where] *= 1.1
    return w


def _int8(w: np.ndarray) -> np.ndarray:
    step = np.abs(w).max() / 127
    return np.rint(w / step) * step


def _stale(w: np.ndarray) -> np.ndarray:
    return w + 0.01 * w.std() * np.random.default_rng(0).standard_normal(w.shape)


def _swap_channels(w: np.ndarray) -> np.ndarray:
    return np.concatenate([w[1:2], w[:1], w[2:]])


def _transposed(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    name = _product(node, weights)
    if name is None or weights[name].ndim != 2 or weights[name].shape[0] != weights[name].shape[1]:
        return None
    return {name: np.ascontiguousarray(weights[name].T)}


def _no_bias(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.input) < 3 or node.input[2] not in weights:
        return None
    return {node.input[2]: np.zeros_like(weights[node.input[2]])}


def _statistics_exchanged(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    if node.op_type != "BatchNormalization" or not {node.input[3], node.input[4]} <= set(weights):
        return None
    mean, variance = node.input[3], node.input[4]
    return {mean: weights[variance], variance: np.abs(weights[mean]) + np.float32(1e-3)}


def _attribute(op: tuple[str, ...], name: str, function: Callable[[object], object], default: object = None) -> Change:
    def change(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> onnx.NodeProto | None:
        if node.op_type not in op:
            return None
        found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        value = found.get(name, default)
        new = function(value)
        if value is None or new is None or new == value:
            return None
        fresh = onnx.NodeProto()
        fresh.CopyFrom(node)
        del fresh.attribute[:]
        fresh.attribute.extend(a for a in node.attribute if a.name != name)
        fresh.attribute.append(helper.make_attribute(name, new))
        return fresh

    return change


def _replace(op: str, other: str) -> Change:
    def change(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> onnx.NodeProto | None:
        if node.op_type != op:
            return None
        return helper.make_node(other, list(node.input[:1]), list(node.output), name=node.name)

    return change


def _mirrored(pads: object) -> object:
    if not isinstance(pads, (list, tuple)) or len(pads) != 4 or not pads[0] or pads[0] != pads[2]:
        return None
    return [pads[0] - 1, pads[1], pads[2] + 1, pads[3]]


KINDS: dict[str, Change] = {
    "weights rounded to FP16": _on_weight(lambda w: w.astype(np.float16)),
    "weights rounded to INT8 per tensor": _on_weight(_int8),
    "weights 0.1 % too large": _on_weight(lambda w: w * 1.001),
    "three weights 10 % too large": _on_weight(_few),
    "weights 1 % stale": _on_weight(_stale),
    "two channels exchanged": _on_weight(_swap_channels),
    "square weights transposed": _transposed,
    "bias dropped": _no_bias,
    "mean and variance exchanged": _statistics_exchanged,
    "epsilon 1e-5 became 1e-3": _attribute(
        ("BatchNormalization", "LayerNormalization", "InstanceNormalization"), "epsilon", lambda e: 1e-3, 1e-5
    ),
    "padding shifted by one": _attribute(("Conv", "AveragePool"), "pads", _mirrored),
    "padding counted in averages": _attribute(("AveragePool",), "count_include_pad", lambda v: 1 - int(v), 0),  # type: ignore[call-overload]
    "softmax along another axis": _attribute(("Softmax",), "axis", lambda a: 1 if a != 1 else None, -1),
    "activation dropped": _replace("Relu", "Identity"),
    "activation replaced": _replace("Sigmoid", "HardSigmoid"),
    "another power in LRN": _attribute(("LRN",), "beta", lambda b: 0.7501, 0.75),
}
