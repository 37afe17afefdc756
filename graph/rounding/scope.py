"""One graph that is being rewritten for an emulation: what is known of its tensors, and how each is read rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import numpy_helper

from ..cutting.slices import original_name
from ..formats import BF16, BY_DTYPE, FP16, TF32, NumberFormat
from ..index import GraphIndex
from ..nodes import attribute_int, attribute_ints, attribute_tensor
from ..operators import RENAMES, operator
from ..printable import counted, few
from ..specs import Dim, TensorSpec, dtype_name
from ..writer import GraphWriter
from .rewrite import Note
from .round_array import SCALED, STORAGE, round_array, step_of, steps_of
from .round_nodes import write_rounding

_NARROW = (FP16, BF16)

MANY = 1e-3
"""Share of a tensor's weights below the smallest subnormal from which it is worth a word: Gaussian ones have some."""


@dataclass(frozen=True)
class Target:
    """What is emulated: a format, and how a target rounds to it. See `emulation.rewrite` for the attributes.

    Attributes:
        inline: Whether rounded weights are written into the graph; else the graph rounds them when it runs.
        wide_range: Whether what the graph types FP16 has the range of FP32; or the names of the tensors that have it.
    """

    number: NumberFormat
    every_node: bool = False
    decomposed: bool = False
    ranges: Mapping[str, float] = field(default_factory=dict)
    cast_weights: bool = False
    inline: bool = True
    wide_range: bool | frozenset[str] = False

    @property
    def stores(self) -> bool:
        """Whether tensors exist in the format, and not operands of products alone."""
        return self.every_node or self.number.name in STORAGE

    def widens(self, tensor: str) -> bool:
        """Whether a tensor that the graph types FP16 has the range of FP32."""
        return tensor in self.wide_range if isinstance(self.wide_range, frozenset) else self.wide_range

    @property
    def scaled(self) -> bool:
        """Whether values are scaled by a tensor's range."""
        return self.number.name in SCALED

    def rounded(self, weights: np.ndarray, scale: np.ndarray | float | None = None) -> np.ndarray:
        """Weights as the target holds them."""
        return round_array(weights, self.number.name, weights=not self.cast_weights, scale=scale)


@dataclass
class Findings:
    """What the user should know, collected while a model is rewritten.

    Attributes:
        clamped, lifted: How many weights of a tensor were limited to the largest value, or kept from becoming zero.
        left: By reason, the tensors that were not rounded.
        rounded: How many tensors are rounded to the format that is emulated; of formats of integers, how many products.
    """

    clamped: dict[str, int] = field(default_factory=dict)
    lifted: dict[str, int] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    rounded: int = 0

    def leave(self, why: str, what: str) -> None:
        """Notes that a tensor is not rounded."""
        what = original_name(what)
        known = self.left.setdefault(why, [])
        if what not in known:
            known.append(what)

    def count(self, number: NumberFormat, name: str, weights: np.ndarray) -> None:
        """Counts the weights of a tensor that `round_array` clamps and lifts."""
        size = np.abs(weights)
        clamped = int(np.count_nonzero(size > number.max * (1 + number.u)))
        clamped -= int(np.count_nonzero(np.isinf(size))) if clamped else 0
        lifted = int(np.count_nonzero(size < number.smallest_subnormal / 2))
        lifted -= size.size - int(np.count_nonzero(size)) if lifted else 0
        if clamped:
            self.clamped[name] = clamped
        if lifted > MANY * size.size:
            self.lifted[name] = lifted

    def notes(self, number: NumberFormat) -> tuple[Note, ...]:
        """All of it in sentences."""
        notes = []
        for what, done, counts in (
            ("beyond its range", "clamped to its largest value", self.clamped),
            ("that it would round to zero", "lifted to its smallest subnormal", self.lifted),
        ):
            if counts:
                worst, total = max(counts, key=lambda name: counts[name]), sum(counts.values())
                where = f"in {len(counts)} tensors" if len(counts) > 1 else f"in {worst!r}"
                most = f" (most, {counts[worst]:,}, in {worst!r})" if len(counts) > 1 else ""
                text = (
                    f"{number}: {counted(total, 'weight')} {where} {what} {'is' if total == 1 else 'are'} {done}{most}."
                )
                notes.append(Note(text, setting="cast_weights"))
        for why, names in self.left.items():
            notes.append(Note(f"{number}: {why}: {few([*map(repr, names)], 3)}."))
        return tuple(notes)


class Scope:
    """A graph: the model's, or the body of an If, Loop or Scan.

    Args:
        target: What is emulated.
        findings: Where notes are collected.
        index: The graph.
        static: See `static_tensors`.
        writer: Where the rewritten graph is written.
        parent: The graph around a body.

    Attributes:
        exact: Tensors whose values the format holds.
    """

    def __init__(
        self,
        target: Target,
        findings: Findings,
        index: GraphIndex,
        static: frozenset[str],
        writer: GraphWriter,
        parent: Scope | None = None,
    ) -> None:
        self.target = target
        self.findings = findings
        self.index = index
        self.static = static
        self.writer = writer
        self.parent = parent
        self.exact: set[str] = set()
        self._rounded: dict[tuple[str, object], str] = {}
        self._weights: dict[str, np.ndarray | None] = {}
        self._typed: dict[NumberFormat, Scope] = {}

    def inside(self, index: GraphIndex, static: frozenset[str]) -> Scope:
        """The scope of a body in this graph."""
        return Scope(self.target, self.findings, index, static, self.writer.inside(), self)

    def typed(self, number: NumberFormat, tensor: str) -> Scope:
        """This graph for nodes whose types are ``number``, where every result rounds and weights are exact.

        Args:
            number: FP16 or BF16.
            tensor: What rounds, or the first of what does.
        """
        held = TF32 if number is FP16 and self.target.widens(tensor) else number  # both have 11 bits
        if held not in self._typed:
            target = replace(self.target, number=held, every_node=True, ranges={}, cast_weights=True)
            # what rounds to another format than the one that is tried is no sign that anything is tried
            findings = self.findings if held is self.target.number else replace(self.findings, rounded=0)
            self._typed[held] = Scope(target, findings, self.index, self.static, self.writer, self.parent)
        return self._typed[held]

    # What is known of tensors

    def weight(self, name: str) -> np.ndarray | None:
        """The value of a weight of this graph or one around it, also of one that was only moved (transposed, reshaped)
        since."""
        if name not in self._weights:
            value = self.index.weight(name)
            if value is None and name in self.index.producer:
                value = self._moved(self.index.nodes[self.index.producer[name]])
            elif value is None and self.parent is not None:
                value = self.parent.weight(name)
            self._weights[name] = value
        return self._weights[name]

    def _moved(self, node: onnx.NodeProto) -> np.ndarray | None:
        if operator(node) not in RENAMES:
            return None
        value = self.weight(node.input[0])
        if value is None:
            return None
        if node.op_type == "Identity":
            return value
        if node.op_type == "Transpose":
            return np.transpose(value, attribute_ints(node, "perm"))
        numbers = attribute_ints(node, "shape" if node.op_type == "Reshape" else "axes")
        if numbers is None and len(node.input) > 1:
            given = self.small(node.input[1])
            numbers = None if given is None else [int(v) for v in given.reshape(-1)]
        if numbers is None:
            return np.squeeze(value) if node.op_type == "Squeeze" and len(node.input) == 1 else None
        if node.op_type == "Squeeze":
            return np.squeeze(value, tuple(numbers))
        if node.op_type == "Unsqueeze":
            return np.expand_dims(value, tuple(numbers))
        if not attribute_int(node, "allowzero", 0):
            numbers = [value.shape[i] if n == 0 else n for i, n in enumerate(numbers)]
        return value.reshape(numbers)

    def small(self, name: str) -> np.ndarray | None:
        """The value of a small constant, folded through data movement."""
        value = self.index.constant(name)
        if value is None and self.parent is not None and name not in self.index.producer:
            return self.parent.small(name)
        return value

    def spec(self, name: str) -> TensorSpec | None:
        """Type and shape of a tensor of this graph or one around it, as the graph that is rewritten tells them."""
        spec = self.index.specs.get(name)
        if spec is None and self.parent is not None and name not in self.index.producer:
            return self.parent.spec(name)
        return spec

    def is_float32(self, name: str) -> bool:
        """Whether a tensor is known to be float32 in the rewritten graph, where FP16 and BF16 tensors are, too."""
        spec = self.spec(name)
        return spec is not None and (dtype_name(spec.dtype) == "float32" or self.stored(name) is not None)

    def stored(self, name: str) -> NumberFormat | None:
        """The format that the graph's types give a tensor, where that is FP16 or BF16."""
        spec = self.spec(name)
        number = None if spec is None else BY_DTYPE.get(dtype_name(spec.dtype))
        return number if number in _NARROW else None

    def shape(self, name: str) -> list[Dim] | None:
        """A tensor's shape as the graph tells it; None where not even the rank is known."""
        spec = self.spec(name)
        return None if spec is None or spec.shape is None else list(spec.shape)

    # Rounding

    def round(
        self, name: str, output: str | None = None, scale: str | None = None, weights: bool = False, guard: bool = False
    ) -> str:
        """Writes the nodes that round a float32 tensor, and returns the result's name; see `write_rounding`."""
        weights = weights and not self.target.cast_weights
        self.findings.rounded += 1
        return write_rounding(self.writer, self.target.number, name, output, scale=scale, weights=weights, guard=guard)

    def guarded(self, name: str) -> bool:
        """Whether the rounded tensor is read as a LayerNormalization in pieces is.

        ONNX Runtime (1.31) fuses such pieces and takes a Cast before them along, which leaves it with a
        LayerNormalization of two types that it has no kernel for."""
        readers = {self.index.nodes[r].op_type for r in self.index.consumers.get(name, ())}
        return not readers.isdisjoint(("ReduceMean", "Pow", "Sub"))

    def _rounded_name(self, name: str) -> str:
        return self.writer.names.fresh(f"{name}__{self.target.number.name}")

    def read(self, name: str) -> str:
        """The name of an activation's or computed constant's rounded value."""
        if not name or name in self.exact or not self.is_float32(name) or self.stored(name) is self.target.number:
            return name
        static = name in self.static
        if static and self.weight(name) is not None:
            return self.read_weight(name)
        key = (name, None)
        if key not in self._rounded and self._fill(name):
            return self._rounded[key]
        if key not in self._rounded:
            scale = None
            if self.target.scaled:
                scale = self._computed_scale(name) if static else self.range_scale(name)
                if scale is None and self.target.number.is_integer:
                    self.findings.leave("no range was measured, not quantized", name)
                    return name
            self._rounded[key] = self.round(name, self._rounded_name(name), scale, static, self.guarded(name))
        return self._rounded[key]

    def _fill(self, name: str) -> bool:
        """Rounds the one value of a ConstantOfShape instead of every element that it gives."""
        position = self.index.producer.get(name)
        if position is None or self.index.nodes[position].op_type != "ConstantOfShape":
            return False
        node = self.index.nodes[position]
        value = attribute_tensor(node, "value")
        if value is None:
            return False
        self.findings.rounded += 1
        filled = numpy_helper.to_array(value).astype(np.float32)
        target, output = self.target, self._rounded_name(name)
        scale = step_of(float(np.abs(filled).max()), target.number.max) if target.scaled else None
        rounded = numpy_helper.from_array(target.rounded(filled, scale))
        self._rounded[(name, None)] = self.writer.emit("ConstantOfShape", [node.input[0]], output, value=rounded)
        return True

    def range_scale(self, name: str) -> str | None:
        """The name of an activation's scale; None where its range was not measured."""
        ranges = self.target.ranges
        largest = ranges.get(name, ranges.get(original_name(name)))
        if largest is None or self.parent is not None:
            return None
        return self.writer.scalar(step_of(largest, self.target.number.max))

    def _computed_scale(self, name: str) -> str:
        """The scale of a constant that the graph computes, from its values."""
        largest = self.writer.emit("ReduceMax", [self.writer.emit("Abs", [name])], keepdims=0)
        scale = self.writer.emit("Div", [largest, self.writer.scalar(self.target.number.max)])
        return self.writer.at_least(scale, 2.0**-100)

    def read_weight(self, name: str, axis: int | None = None, gain: np.ndarray | None = None) -> str:
        """The name of a weight's rounded value.

        Args:
            name: A weight (`weight` is not None).
            axis: Axis of the output channels; INT8 has a scale for each.
            gain: Factor for each output channel that the target folds into the weight before it rounds: the result is
                round(weight * gain) / gain, so that the graph's own factor gives back what the target has.
        """
        if not self.is_float32(name):
            return name
        key = (name, (axis, None if gain is None else gain.tobytes()))
        if key in self._rounded:
            return self._rounded[key]
        number = self.target.number
        if not self.target.inline and gain is None and not number.is_integer:
            scale = self._computed_scale(name) if self.target.scaled else None
            self._rounded[key] = self.round(name, self._rounded_name(name), scale, weights=True)
            return self._rounded[key]
        value = self.weight(name)
        assert value is not None
        self.findings.rounded += 1
        values = np.asarray(value, np.float32)
        factor = None
        if gain is not None and axis is not None:
            usable = np.isfinite(gain) & (gain != 0)
            shape = [-1 if a == axis else 1 for a in range(values.ndim)]
            factor = np.where(usable, gain, 1).astype(np.float32).reshape(shape)
            values = values * factor
        rounded = self.target.rounded(values, self._weight_scale(values, axis))
        if not self.target.scaled and not self.target.cast_weights:
            self.findings.count(number, name, values)
        if factor is not None:
            rounded = rounded / factor
        self._rounded[key] = self.writer.constant(rounded.astype(np.float32), f"{name}__{number.name}")
        return self._rounded[key]

    def _weight_scale(self, values: np.ndarray, axis: int | None) -> np.ndarray | None:
        """The scale of a weight in a scaled format: one, or in INT8 one for each output channel."""
        if not self.target.scaled:
            return None
        channels = self.target.number.is_integer and axis is not None
        across = tuple(a for a in range(values.ndim) if a != axis) if channels else None
        largest = np.max(np.abs(values), axis=across, keepdims=True, initial=0)
        largest = largest if channels else largest.reshape(())
        return steps_of(largest, self.target.number.max)
