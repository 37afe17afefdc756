"""What a network is made of, before anything is compared: inputs, outputs, layers as a runtime fuses them, ranges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..graph.cutting.fusion import Group, fused_groups, static_tensors
from ..graph.implied_inputs import input_ranges
from ..graph.specs import TensorSpec, dtype_from_onnx, is_float

if TYPE_CHECKING:
    from ..graph.index import GraphIndex
    from ..graph.model import Model
    from ..graph.specs import Arrays

FEW = 1 << 22
"""Elements of a weight up to which its range is read; larger ones are on disk and stay there."""


@dataclass(frozen=True)
class Extent:
    """The values of a tensor: the least and greatest that are finite, and how many are not."""

    lo: float
    hi: float
    not_finite: int = 0

    def merged(self, other: Extent) -> Extent:
        """The extent of both."""
        return Extent(min(self.lo, other.lo), max(self.hi, other.hi), self.not_finite + other.not_finite)


@dataclass(frozen=True)
class Layer:
    """What a runtime is expected to run as one kernel, or a single node.

    Attributes:
        name, op: Of the node that does its arithmetic.
        nodes: Operators of all of its nodes, in order.
        output: The tensor that is read outside; without a type where shape inference tells none.
        weights: Number of values in its weights.
        weight_extent: Of its weights, as far as they are small enough to be read.
        extent: Of its output on the data; None without.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    output: str
    spec: TensorSpec | None
    weights: int
    weight_extent: Extent | None = None
    extent: Extent | None = None


@dataclass(frozen=True)
class Overview:
    """A network at a glance.

    Attributes:
        source: The file.
        nodes: Number of nodes.
        opset: Versions of operator sets, by domain.
        producer: What wrote it.
        weights: Number of values in all weights, and of bytes.
        inputs: Each with the range that the graph implies, in words; empty where it implies none.
        outputs: The outputs.
        layers: In the order of the graph.
        converted: The runtime whose file it is, where that was converted to the ONNX graph that is shown.
    """

    source: str
    nodes: int
    opset: Mapping[str, int]
    producer: str
    weights: tuple[int, int]
    inputs: tuple[tuple[TensorSpec, str], ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...] = field(repr=False)
    converted: str | None = None


def overview(model: Model, every: bool = False, extents: Mapping[str, Extent] | None = None) -> Overview:
    """What a model is made of.

    Args:
        model: The model.
        every: Every node is a layer of its own.
        extents: Of tensors, as they were measured on data.
    """
    index, proto = model.index, model.proto
    implied = input_ranges(index)
    static = static_tensors(index)
    groups = [Group((p,), p) for p in range(len(index.nodes))] if every else fused_groups(index, static)
    groups = [g for g in groups if any(n and n not in static for n in index.nodes[g.nodes[-1]].output)]
    sizes = [(math.prod(t.dims), dtype_from_onnx(t.data_type).itemsize) for t in index.initializers.values()]
    names = [(spec, implied.get(spec.name)) for spec in model.inputs]
    return Overview(
        source=model.source,
        nodes=len(index.nodes),
        opset=index.opset,
        producer=f"{proto.producer_name} {proto.producer_version}".removesuffix(" None").strip(),
        weights=(sum(size for size, _ in sizes), sum(size * width for size, width in sizes)),
        inputs=tuple((spec, "" if found is None else f"{found}: {found.reason}") for spec, found in names),
        outputs=model.outputs,
        layers=tuple(_layer(index, group, extents or {}) for group in groups),
        converted="TFLite" if model.tflite is not None else "TensorFlow" if model.tf is not None else None,
    )


def _layer(index: GraphIndex, group: Group, extents: Mapping[str, Extent]) -> Layer:
    inside = {n for p in group.nodes for n in index.nodes[p].output if n}
    outputs = [n for n in index.nodes[group.nodes[-1]].output if n]
    read = {n for p in group.nodes for n in index.reads[p] if n in index.initializers and n not in inside}
    weights = [w for n in sorted(read) if (w := index.weight(n)) is not None]
    small = [w for w in weights if w.size <= FEW and is_float(w.dtype)]
    return Layer(
        name=index.names[group.main],
        op=index.nodes[group.main].op_type,
        nodes=tuple(index.nodes[p].op_type for p in group.nodes),
        output=outputs[0] if outputs else "",
        spec=index.specs.get(outputs[0]) if outputs else None,
        weights=sum(w.size for w in weights),
        weight_extent=_joined(filter(None, map(extent, small))),
        extent=extents.get(outputs[0]) if outputs else None,
    )


def extent(array: np.ndarray) -> Extent | None:
    """The extent of an array of numbers; None if it has no finite one."""
    if array.dtype.kind in "OSU" or not array.size:
        return None
    values = array.astype(np.float64) if array.dtype.kind not in "iub" else array
    finite = np.isfinite(values)
    if not finite.any():
        return None
    return Extent(float(values[finite].min()), float(values[finite].max()), int(values.size - finite.sum()))


def extents(samples: Iterable[Arrays]) -> dict[str, Extent]:
    """The extents of tensors over samples."""
    found: dict[str, Extent] = {}
    for sample in samples:
        for name, array in sample.items():
            one = extent(array)
            if one is not None:
                found[name] = one if name not in found else found[name].merged(one)
    return found


def _joined(parts: Iterable[Extent]) -> Extent | None:
    found: Extent | None = None
    for part in parts:
        found = part if found is None else found.merged(part)
    return found


def observed(model: Model) -> Sequence[str]:
    """The tensors whose values say most: those of floats that leave a layer."""
    index = model.index
    static = static_tensors(index)
    outputs = [n for g in fused_groups(index, static) for n in index.nodes[g.nodes[-1]].output if n and n not in static]
    return [n for n in outputs if (spec := index.specs.get(n)) is not None and spec.dtype.kind in "fiu"]
