"""What stands in a quantizer: its step, and the least and the greatest value that it holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ..index import GraphIndex
from ..nodes import attribute_int
from ..operators import operator
from ..specs import dtype_from_onnx
from .layouts import given, layout_of
from .levels import SMALL_FLOATS, levels_of_type, spacing
from .scales import Scale

EXACT = 1e-3
"""Steps by which the ends of a range may miss a limit that they were calibrated to: scales are FP32."""

_ENDS = {
    "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535),
    "int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3),
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """The values that a scaled integer can stand for, or a scaled float of 8 bits.

    Attributes:
        step: The distance between neighbours: a number, or shaped to broadcast against the tensor. Of floats, that
            where each value of the tensor lies.
        low, high: The least and the greatest; the same.
        levels: How many there are.
        calibrated: Whether they stand in the file, rather than follow from each tensor that comes.
    """

    step: np.ndarray
    low: np.ndarray
    high: np.ndarray
    levels: int
    calibrated: bool = True

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation of rounding to the nearest: step / sqrt(12)."""
        return np.asarray(self.step / np.sqrt(12.0))

    @classmethod
    def symmetric(cls, greatest: float, levels: int = 255, *, calibrated: bool = True) -> Grid:
        """As many steps on both sides of zero, up to a greatest magnitude."""
        step = 2 * greatest / max(levels - 1, 1)
        return cls(np.asarray(step), np.asarray(-greatest), np.asarray(greatest), levels, calibrated)

    @classmethod
    def measured(cls, values: np.ndarray) -> Grid:
        """What DynamicQuantizeLinear makes of a tensor: 256 levels from its least to its greatest value, and zero."""
        finite = values[np.isfinite(values)]
        low, high = min(float(finite.min(initial=0.0)), 0.0), max(float(finite.max(initial=0.0)), 0.0)
        return cls(np.asarray((high - low) / 255), np.asarray(low), np.asarray(high), 256, calibrated=False)


@dataclass(frozen=True)
class Quantizer:
    """A node that makes scaled integers of a float tensor.

    Attributes:
        tensor: The float tensor.
        scale, zero: Its scales and zero points; None: it measures each tensor that comes.
        ends: Its least and its greatest integer.
        axis: The axis along which there are several scales.
        levels: What it makes in place of integers: the values of a float of 8 bits; None of integers.
    """

    tensor: str
    scale: np.ndarray | None
    zero: np.ndarray | None
    ends: tuple[float, float]
    axis: int
    levels: np.ndarray | None = None

    def grid(self, values: np.ndarray) -> Grid:
        """What it rounds a tensor to."""
        if self.scale is None:
            return Grid.measured(values)
        scale = along(np.abs(self.scale.astype(np.float64)), self.axis, values.ndim)
        zero = 0.0 if self.zero is None else along(self.zero.astype(np.float64), self.axis, values.ndim)
        low, high = ((end - zero) * scale for end in self.ends)
        if self.levels is None:
            return Grid(scale, low, high, int(self.ends[1] - self.ends[0]) + 1)
        whole = np.divide(values.astype(np.float64), scale, out=np.zeros(values.shape), where=scale > 0)
        return Grid(scale * spacing(self.levels, whole), low, high, len(self.levels))

    def typical(self) -> Grid | None:
        """What it rounds a tensor to whose values are not known; None where it has not one scale. Of floats, the step
        is that of a quarter of the range: by how much a tensor errs that fills it."""
        if self.scale is None or self.scale.size != 1:
            return None
        return self.grid(np.full((), self.ends[1] / 4 * float(np.abs(self.scale).max())))

    def within(self, low: float, high: float) -> bool:
        """Whether all that its integers stand for is between two limits, so that it cuts off whatever is not."""
        if self.scale is None:
            return False
        scale = np.abs(self.scale.astype(np.float64))
        zero = 0.0 if self.zero is None else self.zero.astype(np.float64)
        least, greatest = ((end - zero) * scale for end in self.ends)
        return bool(np.all(least >= low - EXACT * scale) and np.all(greatest <= high + EXACT * scale))


def along(value: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Scales or zero points, shaped to broadcast against a tensor: one value, or one for each index of an axis."""
    if value.size == 1:
        return value.reshape(())
    return value.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def quantizer(index: GraphIndex, position: int) -> Quantizer | None:
    """What a QuantizeLinear or DynamicQuantizeLinear does; None of other nodes, and where the scale is
    computed."""
    node = index.nodes[position]
    if operator(node) == "DynamicQuantizeLinear":
        return Quantizer(node.input[0], None, None, _ENDS["uint8"], 0)
    if operator(node) != "QuantizeLinear":
        return None
    stated = attribute_int(node, "output_dtype", 0)
    return _scaled(index, node, node.input[0], dtype_from_onnx(stated).name if stated else "uint8")


def holder(index: GraphIndex, name: str) -> Quantizer | None:
    """What whoever keeps a tensor as the integers that a DequantizeLinear reads rounds it to; None of others."""
    node = index.nodes[index.producer[name]] if name in index.producer else None
    if node is None or node.op_type != "DequantizeLinear" or index.constant(node.input[0]) is not None:
        return None
    spec = index.specs.get(node.input[0])
    return _scaled(index, node, name, "" if spec is None else spec.dtype.name)


def _scaled(index: GraphIndex, node: onnx.NodeProto, tensor: str, dtype: str) -> Quantizer | None:
    """The quantizer of the scale and the zero point that a node has; ``dtype`` holds where it has no zero point."""
    return _of_scale(index, (node.input[1], given(node, 2)), tensor, dtype, attribute_int(node, "axis", 1))


def _of_scale(index: GraphIndex, named: Scale, tensor: str, dtype: str, axis: int = 1) -> Quantizer | None:
    """The same of names of a scale and a zero point."""
    scale, name = index.constant(named[0]), named[1]
    zero = index.constant(name) if name else None
    if name and (spec := index.specs.get(name)) is not None:
        dtype = spec.dtype.name
    if scale is None or scale.ndim > 1 or (name and zero is None):
        return None
    if dtype.startswith(SMALL_FLOATS):
        levels = levels_of_type(dtype)
        return Quantizer(tensor, scale, zero, (float(levels[0]), float(levels[-1])), axis, levels)
    return Quantizer(tensor, scale, zero, _ENDS[dtype], axis) if dtype in _ENDS else None


def rounded(index: GraphIndex, name: str) -> list[str]:
    """Tensors that hold what a tensor is rounded to, in its layout: behind a QuantizeLinear and a DequantizeLinear.

    None where somebody reads it as it is.
    """
    readers = [index.nodes[position] for position in index.consumers.get(name, ())]
    if name in index.outputs or any(node.op_type != "QuantizeLinear" for node in readers):
        return []
    integers = [output for node in readers for output in node.output]
    behind = (index.nodes[position] for output in integers for position in index.consumers.get(output, ()))
    return [output for node in behind if node.op_type == "DequantizeLinear" for output in node.output]


def kept_within(index: GraphIndex, name: str, low: float, high: float) -> bool:
    """Whether all who keep or read a tensor do so as integers that stand for nothing beyond two limits."""
    kept = holder(index, name) or made_in_steps(index, name)
    found = [kept] if kept is not None else [quantizer(index, p) for p in index.consumers.get(name, ())]
    return bool(found) and all(q is not None and q.within(low, high) for q in found)


def made_in_steps(index: GraphIndex, name: str) -> Quantizer | None:
    """What an operator on scaled integers rounds its result to; None of others."""
    node = index.nodes[index.producer[name]] if name in index.producer else None
    layout = None if node is None else layout_of(node)
    if node is None or layout is None or layout.scale is None:
        return None
    spec = index.specs.get(name)
    zero = "" if layout.zero is None else given(node, layout.zero)
    return _of_scale(index, (node.input[layout.scale], zero), name, "" if spec is None else spec.dtype.name)
