"""Attributes that differ."""

from __future__ import annotations

import random
from typing import Any

import onnx

from ..graph import Graph, NotHere, attribute, set_attribute
from .kind import ATTRIBUTE, LAYOUT, Planted, pick


def _set(node: onnx.NodeProto, causes: frozenset[str] = ATTRIBUTE, **changed: Any) -> Planted:
    """Other attributes of a node."""
    what = ", ".join(f"{name} {attribute(node, name, 'default')} -> {new}" for name, new in changed.items())
    for name, value in changed.items():
        set_attribute(node, name, value)
    return Planted([node], f"{node.op_type}: {what}", causes)


def norm_epsilon(graph: Graph, chance: random.Random) -> Planted:
    """Epsilon of a normalization 100 times as large"""
    node = pick(chance, graph.nodes(("BatchNormalization", "LayerNormalization", "InstanceNormalization")))
    return _set(node, epsilon=float(attribute(node, "epsilon", 1e-5) * 100))


def alpha(graph: Graph, chance: random.Random) -> Planted:
    """Alpha of an activation or Gemm 10 % too large"""
    defaults = {"LeakyRelu": 0.01, "HardSigmoid": 0.2, "Elu": 1.0, "Gemm": 1.0}
    node = pick(chance, graph.nodes(defaults))
    return _set(node, alpha=float(attribute(node, "alpha", defaults[node.op_type]) * 1.1))


def pads_shifted(graph: Graph, chance: random.Random) -> Planted:
    """One row of padding moved to the other end"""
    nodes = graph.nodes(("Conv", "MaxPool", "AveragePool"))
    node = pick(chance, (n for n in nodes if len(p := attribute(n, "pads", ())) in (2, 4) and sum(p)))
    pads = list(attribute(node, "pads"))
    place = chance.choice([i for i, p in enumerate(pads) if p > 0])
    pads[place] -= 1
    pads[(place + len(pads) // 2) % len(pads)] += 1
    return _set(node, pads=pads)


def axis_changed(graph: Graph, chance: random.Random) -> Planted:
    """A Softmax or reduction over another axis"""
    node = pick(chance, graph.nodes(("Softmax", "ReduceMean", "ReduceL2", "ReduceSum", "ReduceMax", "ArgMax")))
    axis, axes = attribute(node, "axis"), attribute(node, "axes")
    if axis is not None:
        return _set(node, axis=1 if axis in (-1, 2, 3) else -1)
    if axes is not None:
        return _set(node, axes=[1 if axes[0] in (-1, 2, 3) else -1])
    raise NotHere


def perm_changed(graph: Graph, chance: random.Random) -> Planted:
    """The last two axes of a Transpose exchanged"""
    perm = list(attribute(node := pick(chance, graph.nodes(("Transpose",))), "perm", ()))
    if len(perm) < 3:
        raise NotHere
    return _set(node, ATTRIBUTE | LAYOUT, perm=[*perm[:-2], perm[-1], perm[-2]])


def linear_before_reset(graph: Graph, chance: random.Random) -> Planted:
    """GRU's reset gate applied on the other side of its product"""
    node = pick(chance, graph.nodes(("GRU",)))
    return _set(node, linear_before_reset=1 - attribute(node, "linear_before_reset", 0))


def resize_mode(graph: Graph, chance: random.Random) -> Planted:
    """Nearest neighbour for linear interpolation, or the reverse"""
    node = pick(chance, graph.nodes(("Resize",)))
    return _set(node, mode="linear" if attribute(node, "mode", b"nearest") == b"nearest" else "nearest")


def resize_coordinates(graph: Graph, chance: random.Random) -> Planted:
    """Resize linearly with aligned corners"""
    node = pick(chance, graph.nodes(("Resize",)))
    return _set(node, coordinate_transformation_mode="align_corners", mode="linear")


def pad_mode(graph: Graph, chance: random.Random) -> Planted:
    """A Pad with other values"""
    node = pick(chance, graph.nodes(("Pad",)))
    return _set(node, mode="reflect" if attribute(node, "mode", b"constant") == b"edge" else "edge")


def dilation(graph: Graph, chance: random.Random) -> Planted:
    """Dilation 2 of a 3x3 convolution, padding with it"""

    def fits(node: onnx.NodeProto) -> bool:
        sizes, pads = attribute(node, "kernel_shape", ()), attribute(node, "pads", ())
        return bool(sizes and pads) and {*sizes} == {3} and {*pads, *attribute(node, "dilations", ())} == {1}

    node = pick(chance, (n for n in graph.nodes(("Conv",)) if fits(n)))
    axes = len(attribute(node, "kernel_shape"))
    return _set(node, dilations=[2] * axes, pads=[2] * (2 * axes))


def clip_maximum(graph: Graph, chance: random.Random) -> Planted:
    """The maximum of a Clip that holds it as an attribute 10 % too small"""
    nodes = (n for n in graph.nodes(("Clip",)) if len(n.input) == 1 and attribute(n, "max") is not None)
    node = pick(chance, nodes)
    return _set(node, max=float(attribute(node, "max") * 0.9))


ALL = (
    norm_epsilon, alpha, pads_shifted, axis_changed, perm_changed, linear_before_reset, resize_mode,
    resize_coordinates, pad_mode, dilation, clip_maximum,
)  # fmt: skip
