"""Writing the bounds of a slice's tensors into an exploded model: tensors that are given, and what rules share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx

from ..cutting.slices import Slice, exploded_name
from ..formats import FP16
from ..index import GraphIndex
from ..operators import SHAPES, operator
from ..specs import TensorSpec, dtype_name
from ..writer import GraphWriter, Names
from .roundoff import ErrorBound, RoundoffModel

WIDENED = ("float32", "float16", "bfloat16")
"""Types that are FP32 in the graph that bounds are added to (see `graph.rounding.noise_probe.widen`)."""


def both(a: float, b: float) -> float:
    """(1 + a)(1 + b) - 1, without losing what is small."""
    return a + b + a * b


class BoundWriter(GraphWriter):
    """What the bounds of one slice after another are written with.

    Args:
        graph: The exploded model's graph; nodes of slices that have a bound are added to it.
        index: The whole graph.
        specs: Types and shapes of the tensors that are fed, as measured.
        roundoff: What is rounded.

    Attributes:
        bounds: Of the slice's tensors, by their name in the whole graph.
        nodes: What was written for the slice, which is dropped where it comes to nothing.
    """

    def __init__(
        self, graph: onnx.GraphProto, index: GraphIndex, specs: Mapping[str, TensorSpec], roundoff: RoundoffModel
    ) -> None:
        super().__init__(Names.of(graph), index.opset.get("", 1), "bound")
        self.graph = graph
        self.index = index
        self.specs = specs
        self.roundoff = roundoff
        self.bounds: dict[str, ErrorBound] = {}
        self._given: dict[str, ErrorBound | None] = {}
        self._number = 0
        self._part = Slice((), (), ())

    def start(self, number: int, part: Slice) -> None:
        """Begins another slice."""
        self._number, self._part, self.bounds, self.nodes = number, part, {}, []

    # What is known of a tensor

    def bound(self, name: str) -> ErrorBound | None:
        """The bound of what a node reads; None where it has none."""
        if name in self.bounds:
            return self.bounds[name]
        if self.is_given(name) or name in self.index.initializers:
            if name not in self._given:
                self._given[name] = self._source(name) if self._floating(name) else None
            return self._given[name]
        value = self.value(name)
        if value is not None and value.dtype.name in WIDENED:
            if name not in self._given:
                self._given[name] = self._source(self.floats(value))
            return self._given[name]
        return None

    def is_given(self, name: str) -> bool:
        """Whether the slice is fed with a tensor."""
        return name in self._part.inputs

    def _floating(self, name: str) -> bool:
        spec = self.specs.get(name) or self.index.specs.get(name)
        return spec is not None and dtype_name(spec.dtype) in WIDENED

    def _source(self, tensor: str) -> ErrorBound:
        """The bound of what is given. It may serve many slices, so it is written before the nodes of this one."""
        waiting, self.nodes = self.nodes, []
        magnitude = self.emit("Abs", [tensor])
        if self.roundoff.source:
            # below the smallest normal number a rounding is at most u of that; too small weights become a subnormal
            floor = 2 * (FP16.smallest_normal if self.roundoff.largest is not None else self.roundoff.normal)
            magnitude = self.at_least(magnitude, floor)
        self.graph.node.extend(self.nodes)
        self.nodes = waiting
        return ErrorBound(magnitude, self.roundoff.source, None, 0)

    def operand(self, name: str) -> ErrorBound | None:
        """The bound of a product's operand, as the candidate rounds it when it reads it."""
        bound, roundoff = self.bound(name), self.roundoff
        if bound is None or roundoff.largest is None:
            return bound if bound is None else replace(bound, relative=both(bound.relative, roundoff.operand))
        largest = roundoff.largest.get(name)
        if largest is None:
            weight = self.value(name)
            if weight is None or not weight.size:
                return None
            largest = float(np.abs(weight.astype(np.float32)).max())
        if not math.isfinite(largest):
            return None
        beyond = self.emit("Sub", [bound.magnitude, self.scalar(largest)])
        if roundoff.integer:
            off = self.at_least(beyond, 0.51 * largest / roundoff.full)
            return replace(bound, extra=self.sum(bound.extra, off))
        off = self.at_least(beyond, 0.0)
        magnitude = self.at_least(bound.magnitude, 2 * roundoff.normal * largest / roundoff.full)
        relative = both(bound.relative, roundoff.operand)
        return ErrorBound(magnitude, relative, self.sum(bound.extra, off), bound.roundings)

    def value(self, name: str) -> np.ndarray | None:
        """A value that is the same for every input."""
        value = self.index.weight(name)
        return value if value is not None else self.index.constant(name)

    def raw(self, name: str) -> str | None:
        """A tensor that is no float, as the exploded model holds it: sizes, indices, axes."""
        if not name or name in self.index.initializers or self.is_given(name):
            return name
        return exploded_name(name, self._number) if self._clean(name) else None

    def _clean(self, name: str) -> bool:
        """Whether a tensor depends on no float's value: on shapes, constants and integers that are given."""
        if name in self.index.initializers:
            return True
        if self.is_given(name):
            return not self._floating(name)
        position = self.index.producer.get(name)
        if position is None or position not in self._part.nodes:
            return False
        node = self.index.nodes[position]
        if operator(node) in SHAPES | {"Constant"}:
            return True
        return bool(node.input) and all(self._clean(n) for n in self.index.reads[position])

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, where every dimension is known."""
        weight = self.index.initializers.get(name)
        if weight is not None:
            return tuple(weight.dims)
        spec = self.specs.get(name) or self.index.specs.get(name)
        if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape):
            return None
        return tuple(d for d in spec.shape if isinstance(d, int))

    # What rules write

    def floats(self, value: np.ndarray) -> str:
        """The name of a constant in FP32."""
        return self.constant(np.asarray(value, np.float32))

    def zeros_like(self, name: str) -> str:
        """Zeros of a tensor's shape."""
        return self.emit("Sub", [name, name])

    def sum(self, a: str | None, b: str | None) -> str | None:
        """The sum of two tensors of which either may be missing."""
        if a is None or b is None:
            return a or b
        return self.emit("Add", [a, b])

    def times(self, name: str, factor: float) -> str:
        """A tensor times a number."""
        return name if factor == 1 else self.emit("Mul", [name, self.scalar(factor)])

    def scaled(self, name: str | None, factor: float) -> str | None:
        """The same with a tensor that may be missing."""
        return name if name is None else self.times(name, factor)

    def whole(self, bound: ErrorBound) -> str:
        """The whole bound of an error as one tensor."""
        part = self.times(bound.magnitude, bound.relative)
        return self.sum(part, bound.extra) or part

    def rounded(self, relative: float) -> float:
        """The relative error after a node's result is rounded."""
        return both(relative, self.roundoff.node)
