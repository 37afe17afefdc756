"""Constants that a format cannot hold, replaced by ones that it can.

A mask's -3.4e38 becomes the format's lowest, an epsilon that would be zero or subnormal its smallest normal number.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..formats import NumberFormat
from ..model import Model
from ..operators import is_data, operator


@dataclass(frozen=True)
class Replaced:
    """A network with other constants.

    Attributes:
        model: The network.
        nodes: Names of the nodes that read them.
        before, after: The value that is furthest out of range, and what stands for it now.
    """

    model: Model
    nodes: tuple[str, ...]
    before: float
    after: float


def in_range(model: Model, nodes: Collection[int], number: NumberFormat) -> Replaced | None:
    """Replaces the constants that some nodes add, or put in, and that a format loses.

    Args:
        model: The network.
        nodes: Positions of the nodes.
        number: The format.

    Returns:
        The network; None where there is no such constant.
    """
    index = model.index
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    taken = {t.name for t in proto.graph.initializer} | set(index.producer) | set(index.inputs)
    found: list[tuple[str, float, float]] = []
    for position in sorted(nodes):
        node = index.nodes[position]
        if operator(node) not in ("Add", "Sub", "Where", "Max", "Mul", "Clip"):
            continue
        for i, name in enumerate(node.input):
            value = index.weight(name) if name and is_data(node, i) else None
            if value is None or value.dtype.kind != "f":
                continue
            held = _held(value, number, lift=operator(node) in ("Add", "Max", "Clip"))
            if np.array_equal(held, value, equal_nan=True):
                continue
            with np.errstate(invalid="ignore"):  # infinite on both sides
                apart = np.abs(np.log(np.abs(held) + 1e-300) - np.log(np.abs(value) + 1e-300))
            worst = int(np.argmax(np.nan_to_num(apart, nan=0.0)))
            found.append((index.names[position], float(value.flat[worst]), float(held.flat[worst])))
            new = f"{name}_in_{number.name}"
            while new in taken:
                new += "_"
            taken.add(new)
            proto.graph.initializer.append(numpy_helper.from_array(held, new))
            proto.graph.node[position].input[i] = new
    if not found:
        return None
    _, before, after = found[0]
    return Replaced(model.derive(proto), tuple(dict.fromkeys(n for n, _, _ in found)), before, after)


def _held(value: np.ndarray, number: NumberFormat, lift: bool) -> np.ndarray:
    """The values, cut off at the format's greatest; ``lift``: those that it has no normal number for are raised."""
    with np.errstate(invalid="ignore"):
        held = np.where(np.isfinite(value), np.clip(value, -number.max, number.max), value)
        small = (value != 0) & (np.abs(value) < number.smallest_normal)
    if lift and small.any():
        held = np.where(small, np.copysign(number.smallest_normal, value), held)
    return np.asarray(held, value.dtype)
