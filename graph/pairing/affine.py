"""A chain of a product, scalings and shifts as one affine map: what was folded can be compared with what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..index import GraphIndex
from ..operators import AFFINE_PRODUCTS, AFFINE_STEPS
from .constants import constant_value, quantization_step
from .normal_form import NormalForm
from .turned import TRANSPOSES


@dataclass(frozen=True)
class Affine:
    """What a convolution or matrix product and the scalings and shifts after it do together: ``y = W x + b``.

    Attributes:
        weight: In float64; the output channel is the first axis.
        bias: In float64, one for each output channel; zeros where there is none.
        scale: Greatest absolute value that took part in each bias element; its rounding errors are relative to this.
        step: Distance between neighbouring weights, where they are stored quantized; shaped like them.
        bias_step: The same of the bias.
        size: Greatest absolute value that took part in each weight, where that is more than the weight itself.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    step: np.ndarray | None = None
    bias_step: np.ndarray | None = None
    size: np.ndarray | None = None


def affine(
    index: GraphIndex, nodes: Sequence[int], view: Mapping[int, NormalForm], limit: int = 1 << 25
) -> Affine | None:
    """The affine map that a chain of nodes computes, or None if it is none, or larger than ``limit`` elements.

    Args:
        index: The graph.
        nodes: Conv, ConvTranspose, Gemm or MatMul with constant weights, then any of BatchNormalization, Mul, Add, Sub,
            Div with a constant for each channel; or the latter alone, over axis 1.
        view: The nodes in normal form.
    """
    main = view[nodes[0]]
    if main.op in AFFINE_STEPS:
        sizes = [
            int(v.size) for p in nodes for w in view[p].weights.values() if (v := constant_value(index, w)) is not None
        ]
        ones = np.ones((max(sizes, default=1), 1))
        zeros = np.zeros(len(ones))
        return continued(index, nodes, view, Affine(ones, zeros, zeros), 1) if ones.size <= limit else None
    if main.op not in AFFINE_PRODUCTS:
        return None
    slot = {"Conv": "w", "ConvTranspose": "w"}.get(main.op, "b")
    name = main.weights.get(slot)
    if name is None:
        return None
    w = constant_value(index, name)
    if w is None or w.size > limit:
        return None
    convolves = main.op in ("Conv", "ConvTranspose")
    if not convolves and w.ndim != 2:
        return None
    stored = quantization_step(index, name)
    step = None if stored is None else _outputs_first(main, np.broadcast_to(stored.astype(np.float64), w.shape))
    w = _outputs_first(main, w.astype(np.float64))
    b, bias_step = np.zeros(w.shape[0]), None
    bias_name = main.weights.get("b" if convolves else "c")
    if bias_name is not None:
        value, stored = constant_value(index, bias_name), quantization_step(index, bias_name)
        vector = None if value is None else _per_channel(value.astype(np.float64), len(b), -1)
        if vector is None:
            return None
        b = b + vector * float(main.settings.get("beta", 1.0) if main.op == "Gemm" else 1.0)
        bias_step = None if stored is None else np.broadcast_to(stored.reshape(-1), b.shape)
    start = Affine(w, b, np.abs(b), step, bias_step)
    return continued(index, nodes[1:], view, start, 1 if convolves else -1)


def _outputs_first(main: NormalForm, w: np.ndarray) -> np.ndarray:
    """The weights of a product, or their steps, with the output channels as the first axis."""
    if main.op == "ConvTranspose":
        groups = int(main.settings.get("group", 1) or 1)
        w = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        return np.moveaxis(w, 2, 1).reshape(-1, w.shape[1], *w.shape[3:])
    if main.op == "Conv":
        return w
    transposed = main.op == "Gemm" and bool(main.settings.get(TRANSPOSES))
    return (w if transposed else w.T) * float(main.settings.get("alpha", 1.0) if main.op == "Gemm" else 1.0)


def distance(a: Affine, b: Affine) -> float:
    """Greatest difference of two affine maps, relative to their greatest weight and greatest bias."""
    if a.weight.shape != b.weight.shape:
        return float("inf")
    largest = max(float(np.abs(a.weight).max(initial=0)), 1e-30)
    offset = max(float(a.scale.max(initial=0)), float(b.scale.max(initial=0)), 1e-30)
    return max(
        float(np.abs(a.weight - b.weight).max(initial=0)) / largest,
        float(np.abs(a.bias - b.bias).max(initial=0)) / offset,
    )


def continued(
    index: GraphIndex, nodes: Sequence[int], view: Mapping[int, NormalForm], start: Affine, channel_axis: int
) -> Affine | None:
    """An affine map, then scalings and shifts; None where these are none.

    Args:
        index, nodes, view: As of `affine`: the scalings and shifts.
        start: The map.
        channel_axis: The axis of the output channels in what it gives.
    """
    w, b, size = start.weight, start.bias, start.scale
    step, bias_step, taken = start.step, start.bias_step, start.size
    channels = len(b)

    def scaled(factor: np.ndarray) -> None:
        nonlocal w, step, bias_step, taken
        each = factor.reshape(-1, *[1] * (w.ndim - 1))
        w = w * each
        step, taken = (None if v is None else v * abs(each) for v in (step, taken))
        bias_step = None if bias_step is None else bias_step * abs(factor)

    for position in nodes:
        form = view[position]
        if form.op == "BatchNormalization":
            values = {}
            for key in ("scale", "b", "input_mean", "input_var"):
                value = constant_value(index, form.weights[key]) if key in form.weights else None
                if value is None or value.shape != (channels,):
                    return None
                values[key] = value.astype(np.float64)
            factor = values["scale"] / np.sqrt(values["input_var"] + float(form.settings.get("epsilon", 1e-5)))
            size = np.maximum.reduce([size * abs(factor), abs(values["input_mean"] * factor), abs(values["b"])])
            b = (b - values["input_mean"]) * factor + values["b"]
            scaled(factor)
            continue
        if len(form.weights) != 1 or len(form.data) != 1:
            return None
        slot_name, name = next(iter(form.weights.items()))
        value = constant_value(index, name)
        if value is None or (form.op in ("Sub", "Div") and slot_name == "a"):
            return None
        rank = len(index.specs[index.nodes[position].output[0]].shape or ()) if _known(index, position) else None
        vector = _per_channel(value.astype(np.float64), channels, channel_axis, rank)
        if vector is None:
            return None
        if form.op in ("Add", "Sub"):
            b = b + vector if form.op == "Add" else b - vector
            size = np.maximum(size, abs(vector))
        else:
            factor = vector if form.op == "Mul" else 1.0 / vector
            b, size = b * factor, size * abs(factor)
            scaled(factor)
    return Affine(w, b, np.maximum(size, np.abs(b)), step, bias_step, taken)


def _known(index: GraphIndex, position: int) -> bool:
    spec = index.specs.get(index.nodes[position].output[0])
    return spec is not None and spec.shape is not None


def _per_channel(value: np.ndarray, channels: int, axis: int, rank: int | None = None) -> np.ndarray | None:
    """``value`` as one number for each channel, if it broadcasts like that. ``axis`` is 1 or -1 of the output."""
    if value.size == 1:
        return np.full(channels, value.reshape(())[()])
    if value.size != channels:
        return None
    place = next((i for i, d in enumerate(value.shape) if d == channels), None)
    if place is None:  # as many values as channels, over several axes
        return None
    from_end = value.ndim - place
    if axis == -1:
        return value.reshape(-1) if from_end == 1 else None
    if rank is None:
        return value.reshape(-1) if from_end > 1 else None
    return value.reshape(-1) if rank - from_end == 1 else None
