"""Constants that differ: single values, channels, whole weights."""

from __future__ import annotations

import random

import numpy as np

from ..graph import Graph, NotHere
from .kind import (
    ATTRIBUTE,
    LAYOUT,
    QUANTIZATION,
    SCALE,
    WEIGHTS,
    Planted,
    constants_of,
    input_axis,
    output_axis,
    pick,
    pick_weight,
)  # fmt: skip


def _set(graph: Graph, name: str, values: np.ndarray, what: str, causes: frozenset[str] = WEIGHTS) -> Planted:
    """Another value of a constant: whoever reads it is at fault."""
    graph.set_weight(name, values)
    return Planted(graph.readers(name), f"{name} {what}", causes)


def weight_1pct(graph: Graph, chance: random.Random) -> Planted:
    """One of the greatest weights of a layer 1 % too large"""
    _, name, values = pick_weight(graph, chance)
    greatest = np.argsort(-abs(values.ravel()))[: max(3, values.size // 50)]
    place = chance.choice(greatest.tolist())
    values.flat[place] *= 1.01
    return _set(graph, name, values, f"[{place}] times 1.01")


def weight_50pct(graph: Graph, chance: random.Random) -> Planted:
    """One weight of a layer 50 % too large"""
    _, name, values = pick_weight(graph, chance)
    place = chance.randrange(values.size)
    values.flat[place] *= 1.5
    return _set(graph, name, values, f"[{place}] times 1.5")


def channel_5pct(graph: Graph, chance: random.Random) -> Planted:
    """Weights of one output channel 5 % too large"""
    node, name, values = pick_weight(graph, chance)
    channels = np.moveaxis(values, output_axis(node, values), 0)
    channel = chance.randrange(len(channels))
    channels[channel] *= 1.05
    return _set(graph, name, values, f"channel {channel} times 1.05")


def bias_sign(graph: Graph, chance: random.Random) -> Planted:
    """One of the greater values of a bias with the other sign"""
    slots = {"Conv": (2,), "Gemm": (2,), "Add": (0, 1), "LSTM": (3,), "GRU": (3,)}
    biases = (place for n in graph.nodes(slots) for place in constants_of(graph, n, slots[n.op_type]))
    _, name, values = pick(
        chance,
        (b for b in biases if b[2].dtype == np.float32 and b[2].size >= 4 and max(b[2].shape) >= b[2].size // 2),
    )
    place = int(np.argsort(-abs(values.ravel()))[chance.randrange(max(1, values.size // 4))])
    values.flat[place] *= -1
    return _set(graph, name, values, f"[{place}] with the other sign")


def bias_all_signs(graph: Graph, chance: random.Random) -> Planted:
    """A bias with the other sign"""
    _, name, values = pick(chance, graph.constants(("Conv", "Gemm"), (2,)))
    return _set(graph, name, -values, "with the other sign")


def _exchange(graph: Graph, chance: random.Random, name: str, values: np.ndarray, axis: int) -> Planted:
    channels = np.moveaxis(values, axis, 0)
    if len(channels) < 4:
        raise NotHere
    first = chance.randrange(len(channels) - 1)
    channels[[first, first + 1]] = channels[[first + 1, first]]
    return _set(graph, name, values, f"{first} and {first + 1} of axis {axis} exchanged", WEIGHTS | LAYOUT)


def output_channels_exchanged(graph: Graph, chance: random.Random) -> Planted:
    """Two neighbouring output channels of a weight exchanged"""
    node, name, values = pick_weight(graph, chance)
    return _exchange(graph, chance, name, values, output_axis(node, values))


def input_channels_exchanged(graph: Graph, chance: random.Random) -> Planted:
    """Two neighbouring input channels of a weight exchanged"""
    node, name, values = pick_weight(graph, chance, ("Conv", "Gemm", "MatMul"))
    return _exchange(graph, chance, name, values, input_axis(node, values))


def square_transposed(graph: Graph, chance: random.Random) -> Planted:
    """A square weight or the square kernels of a convolution transposed"""
    places = []
    for node in graph.nodes(("Conv", "Gemm", "MatMul")):
        for _, name, values in constants_of(graph, node, (0, 1) if node.op_type == "MatMul" else (1,)):
            kernels = node.op_type == "Conv" and values.ndim == 4
            axes = (2, 3) if kernels else (values.ndim - 2, values.ndim - 1) if node.op_type == "MatMul" else (0, 1)
            square = values.ndim >= 2 and values.shape[axes[0]] == values.shape[axes[1]] > 1
            if square and values.dtype == np.float32:
                places.append((name, values.swapaxes(*axes)))
    name, values = pick(chance, places)
    return _set(graph, name, values, "transposed", WEIGHTS | LAYOUT)


def kernel_mirrored(graph: Graph, chance: random.Random) -> Planted:
    """The kernels of a convolution mirrored along their last axis"""
    _, name, values = pick_weight(graph, chance, ("Conv", "ConvTranspose"))
    if values.ndim < 3 or values.shape[-1] < 2:
        raise NotHere
    return _set(graph, name, values[..., ::-1], "mirrored", WEIGHTS | LAYOUT)


def epsilon_constant(graph: Graph, chance: random.Random) -> Planted:
    """A small constant that is added, or a lower bound, 100 times as large"""
    small = (p for p in graph.constants(("Add", "Max")) if p[2].dtype == np.float32 and p[2].size == 1)
    _, name, values = pick(chance, (p for p in small if 0 < p[2].item() <= 1.1e-3))
    return _set(graph, name, values * 100, f"{values.item():g} times 100")


def batchnorm_mean(graph: Graph, chance: random.Random) -> Planted:
    """The means of a BatchNormalization 2 % too small"""
    node = pick(chance, graph.nodes(("BatchNormalization",)))
    mean = graph.weight(node.input[3])
    if mean is None:
        raise NotHere
    return _set(graph, node.input[3], (mean * 0.98).astype(mean.dtype), "times 0.98")


def scalar_1pct(graph: Graph, chance: random.Random) -> Planted:
    """A scalar of the graph's arithmetic 1 % too large"""
    scalars = (p for p in graph.constants(("Mul", "Div", "Add", "Sub", "Pow")) if p[2].dtype == np.float32)
    node, name, values = pick(chance, (p for p in scalars if p[2].size == 1 and abs(p[2].item()) > 2e-3))
    return _set(
        graph, name, values * np.float32(1.01), f"of {node.op_type} {values.item():g} times 1.01", WEIGHTS | SCALE
    )


def gates_exchanged(graph: Graph, chance: random.Random) -> Planted:
    """The first two gates of a recurrent layer's recurrence weights exchanged"""
    node = pick(chance, graph.nodes(("LSTM", "GRU")))
    values = graph.weight(node.input[2])
    if values is None:
        raise NotHere
    size = values.shape[1] // (4 if node.op_type == "LSTM" else 3)
    values[:, : 2 * size] = np.concatenate([values[:, size : 2 * size], values[:, :size]], axis=1)
    return _set(graph, node.input[2], values, "first two gates exchanged", WEIGHTS | LAYOUT)


def slope_sign(graph: Graph, chance: random.Random) -> Planted:
    """One of the greatest slopes of a PRelu with the other sign"""
    node = pick(chance, graph.nodes(("PRelu",)))
    values = graph.weight(node.input[1])
    if values is None or values.size < 3:
        raise NotHere
    place = int(np.argsort(-abs(values.ravel()))[chance.randrange(3)])
    values.flat[place] *= -1
    return _set(graph, node.input[1], values, f"[{place}] with the other sign")


def weights_6_bits(graph: Graph, chance: random.Random) -> Planted:
    """A weight rounded to 6 bits"""
    _, name, values = pick_weight(graph, chance)
    step = abs(values).max() / 31
    return _set(
        graph, name, (np.round(values / step) * step).astype(np.float32), "rounded to 6 bits", WEIGHTS | QUANTIZATION
    )


def bound_narrowed(graph: Graph, chance: random.Random) -> Planted:
    """A bound of a Clip, Min or Max 20 % nearer to zero"""
    bounds = (p for p in graph.constants(("Clip", "Min", "Max")) if p[1] != p[0].input[0] or p[0].op_type != "Clip")
    node, name, values = pick(
        chance, (b for b in bounds if b[2].dtype == np.float32 and b[2].size == 1 and b[2].item())
    )
    values = (values * np.float32(0.8)).astype(np.float32)
    return _set(graph, name, values, f"of {node.op_type} times 0.8", WEIGHTS | ATTRIBUTE)


def index_off_by_one(graph: Graph, chance: random.Random) -> Planted:
    """One integer that a Gather, Scatter, Range or Equal reads off by one"""
    places = graph.constants(("Gather", "ScatterElements", "GatherElements", "Range", "Equal"), (0, 1))
    node, name, values = pick(chance, (p for p in places if p[2].dtype.kind == "i" and p[2].size))
    place = chance.randrange(values.size)
    values.flat[place] += 1 if values.flat[place] <= 0 else -1
    return _set(graph, name, values, f"[{place}] of {node.op_type} off by one", WEIGHTS | ATTRIBUTE)


def padding_shifted(graph: Graph, chance: random.Random) -> Planted:
    """One row of a Pad's constant padding moved to the other end"""
    _, name, values = pick(chance, (p for p in graph.constants(("Pad",), (1,)) if p[2].sum() > 0))
    place = pick(chance, np.flatnonzero(values > 0).tolist())
    values[place] -= 1
    values[(place + values.size // 2) % values.size] += 1
    return _set(graph, name, values, f"one from place {place} to the other end", WEIGHTS | ATTRIBUTE)


ALL = (
    weight_1pct, weight_50pct, channel_5pct, bias_sign, bias_all_signs, output_channels_exchanged,
    input_channels_exchanged, square_transposed, kernel_mirrored, epsilon_constant, batchnorm_mean, scalar_1pct,
    gates_exchanged, slope_sign, weights_6_bits, bound_narrowed, index_off_by_one, padding_shifted,
)  # fmt: skip
