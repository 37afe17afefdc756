"""Scaled integers that are written with one scale or zero point and read with another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from ..index import GraphIndex
from .layouts import given, layout_of
from .scales import Scale, scales_of

SAME = 1e-6
"""Relative distance of two scales that is one."""


@dataclass(frozen=True)
class Misread:
    """A tensor of scaled integers that one node writes and another one misreads.

    Attributes:
        tensor: Its name.
        writer, reader: Positions of the nodes.
        written, read: Scale and zero point there; of several, the first that differ.
    """

    tensor: str
    writer: int
    reader: int
    written: tuple[float, int]
    read: tuple[float, int]


def misread(index: GraphIndex) -> tuple[Misread, ...]:
    """Every such tensor and reader of it, as far as both scales are constants; kept as long as the graph is."""
    kept = index.kept.get(Misread)
    if not isinstance(kept, tuple):
        kept = index.kept[Misread] = _misread(index)
    return kept


def _misread(index: GraphIndex) -> tuple[Misread, ...]:
    found = []
    written = scales_of(index)
    for position, node in enumerate(index.nodes):
        for name, scale in _reads(node):
            if name not in written or name not in index.producer or scale == written[name]:
                continue
            values = _differing(_values(index, written[name]), _values(index, scale))
            if values is not None:
                name = _first_written(index, name)
                found.append(Misread(name, index.producer[name], position, *values))
    return tuple(found)


def _reads(node: onnx.NodeProto) -> Iterator[tuple[str, Scale]]:
    """The scaled integers that a node reads, with the scale that it takes them for."""
    if node.op_type == "DequantizeLinear":
        yield node.input[0], (node.input[1], given(node, 2))
    layout = layout_of(node)
    for place in layout.operands if layout is not None else ():
        yield given(node, place.data), (given(node, place.scale), given(node, place.zero))


def _first_written(index: GraphIndex, name: str) -> str:
    """The integers that a tensor holds again, where they were dequantized and quantized by one scale in between."""
    node = index.nodes[index.producer[name]]
    before = index.producer.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
    if before is None or index.nodes[before].op_type != "DequantizeLinear":
        return name
    behind = index.nodes[before]
    same = behind.input[0] in index.producer and list(behind.input[1:]) == list(node.input[1:])
    return behind.input[0] if same else name


def _values(index: GraphIndex, scale: Scale) -> tuple[np.ndarray, np.ndarray] | None:
    """Scales and zero points, of one shape; None where they are computed."""
    steps = index.constant(scale[0])
    zeros = index.constant(scale[1]) if scale[1] else np.zeros(1, np.int64)
    if steps is None or zeros is None or steps.dtype.kind != "f":
        return None
    steps, zeros = (np.atleast_1d(np.asarray(x, np.float64)) for x in (steps, zeros))
    return (steps, np.broadcast_to(zeros, steps.shape)) if zeros.size in (1, steps.size) else None


def _differing(
    one: tuple[np.ndarray, np.ndarray] | None, other: tuple[np.ndarray, np.ndarray] | None
) -> tuple[tuple[float, int], tuple[float, int]] | None:
    """The first scale and zero point in which two differ; None where they are the same or not known."""
    if one is None or other is None or one[0].ndim > 1 or other[0].ndim > 1:
        return None
    if one[0].size != other[0].size and 1 not in (one[0].size, other[0].size):
        return None
    a, p, b, q = np.broadcast_arrays(*one, *other)
    off = np.flatnonzero((np.abs(a - b) > SAME * np.abs(a)) | (p != q))
    if not off.size:
        return None
    first = off[0]
    return (float(a[first]), int(p[first])), (float(b[first]), int(q[first]))
