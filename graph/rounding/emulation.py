"""What a network computes when a target rounds: an ONNX graph rewritten so that FP32 gives the target's values.

ONNX Runtime on the CPU then stands for the accelerator. Rounding is data flow (Cast pairs, or arithmetic that rounds),
put where the target rounds; sums stay FP32, as tensor cores keep them. Two families of formats:

- *storage* formats (FP16, BF16): tensors exist in the format. Rounded are weights, what enters a group from outside,
  and what a fused group leaves.
- *operand* formats (TF32, E4M3, E5M2, INT8): tensors stay FP32 (FP16 in practice) and the operands of matrix products
  are rounded when they are read. INT8 and FP8 are scaled: activations per tensor by their measured range, weights per
  output channel (INT8) or per tensor (FP8), as Q/DQ nodes before a product do it.

``docs/emulation.md`` has the rule for each operator and what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper

from ..cutting.fusion import Group, fused_groups, static_tensors
from ..cutting.slices import original_name
from ..errors import UsageError
from ..formats import FORMATS, NumberFormat
from ..index import GraphIndex, attribute, captured, subgraphs
from ..model import Model
from ..operators import (
    AFFINE_STEPS,
    MOVEMENT,
    OPERATORS,
    PRODUCTS,
    RECURRENT,
    RENAMES,
    SELECTION,
    UNTOUCHED,
    Kind,
    facts_of,
    is_data,
)

EMULATED = ("fp16", "bf16", "tf32", "fp8", "e4m3", "e5m2", "int8")
"""The formats that can be emulated; ``fp8`` is E4M3."""

STORAGE = frozenset({"fp16", "bf16"})
"""Formats in which a target keeps tensors, and not only multiplies them."""

SCALED = frozenset({"e4m3", "e5m2", "int8"})
"""Formats whose values are scaled by a tensor's range."""


INLINE_LIMIT = 1 << 30
"""Most bytes of rounded weights that are written into the graph; more are rounded by the graph when it runs."""

_OPSET = 17
"""Of a model that names none, for it has operators of other domains alone."""

_OTHER_DOMAINS = ("ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.training")
"""Trees, encoders and optimizers: no accelerator runs them."""

OLDEST = 7
"""The oldest opset whose Add and Mul ONNX Runtime has. Models of older ones are converted, where that is possible."""

_MANY = 1e-3
"""Share of a tensor's weights below the smallest subnormal from which it is worth a word: Gaussian ones have some."""

_MAGIC = 1.5 * 2.0**23
"""Added to and taken from |q| < 2^22 in FP32, rounds q to an integer, ties to even."""


def resolve(fmt: str) -> NumberFormat:
    """The number format that an emulation is asked for by name.

    Raises:
        UsageError: It cannot be emulated.
    """
    if fmt not in EMULATED:
        raise UsageError(f"{fmt!r} cannot be emulated: not one of {', '.join(EMULATED)}.")
    return FORMATS["e4m3" if fmt == "fp8" else fmt]


def round_array(
    values: np.ndarray, fmt: str, *, weights: bool = False, scale: np.ndarray | float | None = None
) -> np.ndarray:
    """FP32 values as the format holds them: the oracle of what the rewritten graph computes.

    Args:
        values: float32, any shape.
        fmt: One of `EMULATED`.
        weights: Apply TensorRT's rule for weights: what is too large becomes the largest finite value, and what is
            not zero but would become zero the smallest subnormal one (infinite ones stay so). Else FP16, BF16 and
            TF32 overflow to infinity.
        scale: What one unit of INT8 or FP8 stands for; broadcasts against ``values``.

    Returns:
        float32 of the same shape, rounded to nearest, ties to even. INT8 and FP8 saturate.
    """
    number = resolve(fmt)
    x = np.asarray(values, np.float32)
    with np.errstate(all="ignore"):
        if number.is_integer:
            step = np.float32(1) if scale is None else np.asarray(scale, np.float32)
            return np.asarray(np.clip(np.rint(x / step), -128, 127) * step, np.float32)
        if number.name in SCALED:
            step = np.float32(1) if scale is None else np.asarray(scale, np.float32)
            inner = np.clip(x / step, -number.max, number.max).astype(np.float32)
            rounded = inner.astype(getattr(ml_dtypes, number.dtype)).astype(np.float32)
            return np.asarray((_lift(inner, rounded, number) if weights else rounded) * step, np.float32)
        inner = np.where(np.isinf(x), x, np.clip(x, -number.max, number.max)).astype(np.float32) if weights else x
        if number.name == "tf32":
            rounded = _round_tf32(inner)
        else:
            dtype = np.float16 if number.name == "fp16" else ml_dtypes.bfloat16
            rounded = inner.astype(dtype).astype(np.float32)
        return _lift(inner, rounded, number) if weights else rounded


def _lift(values: np.ndarray, rounded: np.ndarray, number: NumberFormat) -> np.ndarray:
    lost = (rounded == 0) & (values != 0)
    return np.where(lost, np.copysign(np.float32(number.smallest_subnormal), values), rounded).astype(np.float32)


def _round_tf32(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values).view(np.uint32)
    even = bits + np.uint32(0x0FFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    rounded = (even & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(values), rounded, values).reshape(values.shape)


@dataclass(frozen=True)
class Rewritten:
    """A model whose values round, and what the user should know about it."""

    model: Model
    notes: tuple[str, ...]


def rewrite(
    model: Model,
    fmt: str,
    *,
    groups: Sequence[Group] | None = None,
    every_node: bool = False,
    decomposed: bool = False,
    ranges: Mapping[str, float] | None = None,
    only: Collection[int] | None = None,
    cast_weights: bool = False,
) -> Model:
    """A copy of ``model`` that computes what a target in ``fmt`` would. See `rewrite_with_notes`."""
    return rewrite_with_notes(
        model,
        fmt,
        groups=groups,
        every_node=every_node,
        decomposed=decomposed,
        ranges=ranges,
        only=only,
        cast_weights=cast_weights,
    ).model


def rewrite_with_notes(
    model: Model,
    fmt: str,
    *,
    groups: Sequence[Group] | None = None,
    every_node: bool = False,
    decomposed: bool = False,
    ranges: Mapping[str, float] | None = None,
    only: Collection[int] | None = None,
    cast_weights: bool = False,
) -> Rewritten:
    """A copy of ``model`` in which values round where a target that computes in ``fmt`` would round them.

    Every tensor keeps its name, and has the value that the target would have in memory; tensors inside a fused group
    are FP32. Inputs of the model are never trusted to be rounded already, so a piece that is fed with another runner's
    values computes what the target would.

    Args:
        model: A model or a piece cut between fused groups.
        fmt: One of `EMULATED`.
        groups: The fused groups; computed where not given.
        every_node: Round what every node gives, as unfused kernels would.
        decomposed: Round after every step inside LayerNormalization and Softmax too, in one node or in pieces.
        ranges: Largest magnitude of activations by tensor (`needed_ranges`), for INT8 and FP8. A product with an
            activation that has no range stays FP32 in INT8; FP8 then casts without a scale.
        only: Positions of nodes: groups that hold none of them stay FP32.
        cast_weights: Weights overflow to infinity and underflow to zero, instead of TensorRT's rule (`round_array`).

    Raises:
        UsageError: ``fmt`` cannot be emulated.
    """
    number = resolve(fmt)
    index = model.index
    if index.proto.functions and groups is None and only is None:
        model = model.derive(onnx.inliner.inline_local_functions(index.proto))
        index = model.index
    if index.opset.get("", OLDEST) < OLDEST:
        model = _newer(model)
        index = model.index
    opset = index.opset.get("", _OPSET)
    target = _Target(number, every_node, decomposed, {} if ranges is None else ranges, cast_weights, opset)
    target.names.update(_all_names(index.graph))
    target.inline = _weight_bytes(index) <= INLINE_LIMIT
    proto = onnx.ModelProto()
    _copy_except_graph(index.proto, proto)
    if "" not in index.opset:
        proto.opset_import.append(helper.make_opsetid("", opset))
    proto.ir_version = max(proto.ir_version, 4)  # from 4 on an initializer need not be an input
    scope = _Scope(target, index, static_tensors(index), None)
    scope.run(groups, only)
    scope.write(proto.graph, index.graph)
    return Rewritten(model.derive(proto), target.summary())


def _newer(model: Model) -> Model:
    """The same model in the oldest opset whose arithmetic ONNX Runtime has; unchanged where it cannot be converted."""
    try:
        return model.derive(onnx.version_converter.convert_version(model.proto, OLDEST))
    except Exception:  # the converter has no common base of errors; ONNX Runtime will name what it lacks
        return model


def needed_ranges(index: GraphIndex, fmt: str, every_node: bool = False) -> list[str]:
    """Activations whose ranges `rewrite` uses, in graph order; none for formats without a scale."""
    number = resolve(fmt)
    if number.name not in SCALED:
        return []
    static, specs = static_tensors(index), index.specs
    names: dict[str, None] = {}
    for node in index.nodes:
        chosen = list(_product_operands(node))
        if every_node and node.op_type not in UNTOUCHED:
            chosen = [*node.input, *node.output]
        for name in chosen:
            if name and name not in static and name in specs and specs[name].dtype == np.float32:
                names[name] = None
    return list(names)


def _product_operands(node: onnx.NodeProto) -> list[str]:
    if node.op_type not in PRODUCTS:
        return []
    positions = OPERATORS[node.op_type].operands
    return [n for i, n in enumerate(node.input) if n and (positions is None or i in positions)]


def _all_names(graph: onnx.GraphProto) -> set[str]:
    names = {i.name for i in [*graph.input, *graph.output, *graph.initializer, *graph.value_info]}
    for node in graph.node:
        names.update(node.input, node.output)
        for body in subgraphs(node):
            names |= _all_names(body)
    return names


def _weight_bytes(index: GraphIndex) -> int:
    return sum(4 * math.prod(t.dims) for t in index.initializers.values() if t.data_type == TensorProto.FLOAT)


def _copy_except_graph(source: onnx.ModelProto, target: onnx.ModelProto) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name == "graph":
            continue
        if isinstance(value, (int, float, str, bytes)):
            setattr(target, descriptor.name, value)
        elif hasattr(value, "MergeFrom"):
            getattr(target, descriptor.name).MergeFrom(value)


@dataclass
class _Target:
    """What is emulated, and what the scopes of one model share."""

    number: NumberFormat
    every_node: bool
    decomposed: bool
    ranges: Mapping[str, float]
    cast_weights: bool
    opset: int
    names: set[str] = field(default_factory=set)
    inline: bool = True
    clamped: dict[str, int] = field(default_factory=dict)
    lifted: dict[str, int] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)

    @property
    def stores(self) -> bool:
        return self.every_node or self.number.name in STORAGE

    @property
    def scaled(self) -> bool:
        return self.number.name in SCALED

    @property
    def full(self) -> float:
        """The largest value of the format, to which a range is mapped."""
        return self.number.max

    def fresh(self, name: str) -> str:
        """A name that nothing in the model has."""
        candidate, count = name, 1
        while candidate in self.names:
            count += 1
            candidate = f"{name}_{count}"
        self.names.add(candidate)
        return candidate

    def leave(self, why: str, what: str) -> None:
        what = original_name(what)
        known = self.left.setdefault(why, [])
        if what not in known:
            known.append(what)

    def summary(self) -> tuple[str, ...]:
        notes = []
        text = str(self.number)
        for what, counts in (
            ("beyond its range are clamped to its largest value", self.clamped),
            ("that it would round to zero are lifted to its smallest subnormal", self.lifted),
        ):
            if counts:
                worst = max(counts, key=lambda name: counts[name])
                notes.append(
                    f"{text}: {sum(counts.values()):,} weights in {len(counts)} tensors {what} "
                    f"(most, {counts[worst]:,}, in {worst!r}); --emulate-cast-weights turns this off."
                )
        for why, names in self.left.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            notes.append(f"{text}: {why}: {', '.join(map(repr, names[:3]))}{more}.")
        return tuple(notes)


class _Scope:
    """One graph being rewritten: the model's, or the body of an If, Loop or Scan."""

    def __init__(self, target: _Target, index: GraphIndex, static: frozenset[str], parent: _Scope | None) -> None:
        self.target = target
        self.index = index
        self.static = static
        self.parent = parent
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.exact: set[str] = set()  # tensors whose values the format holds
        self._rounded: dict[tuple[str, object], str] = {}
        self._weights: dict[str, np.ndarray | None] = {}
        self._scalars: dict[tuple[float, str], str] = {}

    # Writing nodes

    def emit(self, op_type: str, inputs: Sequence[str], output: str | None = None, **attributes: object) -> str:
        """Adds a node of one output and returns the output's name."""
        output = output or self.target.fresh(f"{inputs[0] or op_type}__{op_type.lower()}")
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=self._node_name(output), **attributes))
        return output

    def _node_name(self, output: str) -> str:
        return self.target.fresh(f"{output}__node")

    def scalar(self, value: float, dtype: type = np.float32) -> str:
        """The name of a constant of rank 0."""
        key = (float(value), np.dtype(dtype).name)
        if key not in self._scalars:
            self._scalars[key] = self.constant(np.asarray(value, dtype), f"layerdiff_{float(value):g}")
        return self._scalars[key]

    def constant(self, value: np.ndarray, name: str) -> str:
        """The name of a constant."""
        name = self.target.fresh(name)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def unsqueeze(self, name: str, axes: Sequence[int]) -> str:
        if self.target.opset >= 13:
            return self.emit("Unsqueeze", [name, self.constant(np.asarray(axes, np.int64), "layerdiff_axes")])
        return self.emit("Unsqueeze", [name], axes=list(axes))

    def reduce(self, op_type: str, name: str, axes: Sequence[int]) -> str:
        if self.target.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.emit(op_type, [name, self.constant(np.asarray(axes, np.int64), "layerdiff_axes")], keepdims=1)
        return self.emit(op_type, [name], axes=list(axes), keepdims=1)

    def clip(self, name: str, limit: float, low: float | None = None) -> str:
        low = -limit if low is None else low
        if self.target.opset < 8:  # Min and Max do not broadcast yet
            return self.emit("Clip", [name], min=low, max=limit)
        return self.emit("Max", [self.emit("Min", [name, self.scalar(limit)]), self.scalar(low)])

    def at_least(self, name: str, low: float) -> str:
        if self.target.opset < 8:
            return self.emit("Clip", [name], min=low)
        return self.emit("Max", [name, self.scalar(low)])

    def round(
        self,
        name: str,
        output: str | None = None,
        scale: str | None = None,
        weights: bool = False,
        guard: bool = False,
    ) -> str:
        """Writes the nodes that round a float32 tensor.

        Args:
            name: The tensor.
            output: Name of the result.
            scale: Name of a float32 scalar, for scaled formats.
            weights: Clamp and lift, as for weights.
            guard: Keep the Cast away from what reads the result (`_guarded`).
        """
        number = self.target.number
        weights = weights and not self.target.cast_weights and self.target.opset >= 9  # there is no Sign before
        if number.is_integer:
            assert scale is not None
            q = self.clip(self.emit("Div", [name, scale]), 127.0, -128.0)
            return self.emit("Mul", [self._integer(q), scale], output)
        inner = self.emit("Div", [name, scale]) if scale else name
        if self.target.scaled or weights:
            inner = self.clip(inner, number.max)
        last = None if weights or scale else output
        if number.name == "fp16" or (number.name == "bf16" and self.target.opset >= 13):
            narrow = TensorProto.FLOAT16 if number.name == "fp16" else TensorProto.BFLOAT16
            narrowed = self.emit("Cast", [inner], to=narrow)
            if guard:  # of one tensor: itself
                rounded = self.emit("Max", [self.emit("Cast", [narrowed], to=TensorProto.FLOAT)], last)
            else:
                rounded = self.emit("Cast", [narrowed], last, to=TensorProto.FLOAT)
        elif number.name == "tf32":
            rounded = self._veltkamp(inner, last)
        else:
            rounded = self._to_grid(inner, last)
        if weights:
            least = self.at_least(self.emit("Abs", [rounded]), number.smallest_subnormal)
            infinities = not self.target.scaled and self.target.opset >= 10
            rounded = self.emit("Mul", [least, self.emit("Sign", [inner])], None if scale or infinities else output)
            if infinities:  # a mask's -inf is meant
                return self.emit("Where", [self.emit("IsInf", [name]), name, rounded], output)
        return self.emit("Mul", [rounded, scale], output) if scale else rounded

    def _guarded(self, name: str) -> bool:
        """Whether the rounded tensor is read as a LayerNormalization in pieces is.

        ONNX Runtime (1.31) fuses such pieces and takes a Cast before them along, which leaves it with a
        LayerNormalization of two types that it has no kernel for."""
        readers = {self.index.nodes[r].op_type for r in self.index.consumers.get(name, ())}
        return not readers.isdisjoint(("ReduceMean", "Pow", "Sub"))

    def _integer(self, name: str) -> str:
        """Rounds |q| < 2^22 to integers, ties to even."""
        return self.emit("Sub", [self.emit("Add", [name, self.scalar(_MAGIC)]), self.scalar(_MAGIC)])

    def _veltkamp(self, name: str, output: str | None) -> str:
        """The 11 leading bits by Veltkamp's splitting (Dekker 1971): hi = c x - (c x - x), c = 2^13 + 1.

        Correctly rounded for |x| < 2^114; ties go either way. What is larger, infinite or NaN passes through."""
        inside = self.clip(name, 2.0**113)
        product = self.emit("Mul", [inside, self.scalar(2.0**13 + 1)])
        high = self.emit("Sub", [product, self.emit("Sub", [product, inside])])
        return self.emit("Add", [high, self.emit("Sub", [name, inside])], output)

    def _to_grid(self, name: str, output: str | None) -> str:
        """Rounds to the format's grid by arithmetic that every opset has: y = rint(x / step) step, step = ulp of x.

        The binade's 2^e is t = 3/4 |x| rounded to one bit by Veltkamp's splitting: for |x| so near 2^(e+1) that it
        rounds up, x rounds there in either binade. BF16 beyond 2^100 passes through."""
        number = self.target.number
        precision = round(-math.log2(number.u))
        limit = 2.0**100
        inside = name if self.target.scaled else self.clip(name, limit)
        t = self.emit("Mul", [self.emit("Abs", [inside]), self.scalar(0.750001)])
        large = self.emit("Mul", [t, self.scalar(2.0**23 + 1)])
        power = self.emit("Sub", [large, self.emit("Sub", [large, t])])
        power = self.at_least(power, number.smallest_normal)
        step = self.emit("Mul", [power, self.scalar(2.0 ** (1 - precision))])
        integer = self._integer(self.emit("Div", [inside, step]))
        if self.target.scaled:
            return self.emit("Mul", [integer, step], output)
        return self.emit("Add", [self.emit("Mul", [integer, step]), self.emit("Sub", [name, inside])], output)

    # Looking things up

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
        if node.op_type not in RENAMES or node.domain:
            return None
        value = self.weight(node.input[0])
        if value is None:
            return None
        if node.op_type == "Identity":
            return value
        if node.op_type == "Transpose":
            order = attribute(node, "perm", None)
            return np.transpose(value, order if isinstance(order, (list, tuple)) else None)
        given = attribute(node, "shape" if node.op_type == "Reshape" else "axes", None)
        if given is None and len(node.input) > 1:
            given = self.small(node.input[1])
        if given is None:
            return np.squeeze(value) if node.op_type == "Squeeze" and len(node.input) == 1 else None
        numbers = [int(v) for v in np.asarray(given).reshape(-1)]
        if node.op_type == "Squeeze":
            return np.squeeze(value, tuple(numbers))
        if node.op_type == "Unsqueeze":
            return np.expand_dims(value, tuple(numbers))
        if not attribute(node, "allowzero", 0):
            numbers = [value.shape[i] if n == 0 else n for i, n in enumerate(numbers)]
        return value.reshape(numbers)

    def small(self, name: str) -> np.ndarray | None:
        """The value of a small constant, folded through data movement."""
        value = self.index.constant(name)
        if value is None and self.parent is not None and name not in self.index.producer:
            return self.parent.small(name)
        return value

    def is_float32(self, name: str) -> bool:
        spec = self.index.specs.get(name)
        if spec is not None:
            return bool(spec.dtype == np.float32)
        if self.parent is not None and name not in self.index.producer:
            return self.parent.is_float32(name)
        return False

    # Rounding what a node reads

    def read(self, name: str) -> str:
        """The name of an activation's or computed constant's rounded value."""
        if not name or name in self.exact or not self.is_float32(name):
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
                scale = self._computed_scale(name) if static else self._range_scale(name)
                if scale is None and self.target.number.is_integer:
                    self.target.leave("no range was measured, not quantized", name)
                    return name
            output = self.target.fresh(f"{name}__{self.target.number.name}")
            self._rounded[key] = self.round(name, output, scale, weights=static, guard=self._guarded(name))
        return self._rounded[key]

    def _fill(self, name: str) -> bool:
        """Rounds the one value of a ConstantOfShape instead of every element that it gives."""
        position = self.index.producer.get(name)
        if position is None or self.index.nodes[position].op_type != "ConstantOfShape":
            return False
        node = self.index.nodes[position]
        value = attribute(node, "value", None)
        if not isinstance(value, onnx.TensorProto):
            return False
        filled = numpy_helper.to_array(value).astype(np.float32)
        scale = _scale(float(np.abs(filled).max()), self.target.full) if self.target.scaled else None
        rounded = round_array(filled, self.target.number.name, weights=not self.target.cast_weights, scale=scale)
        output = self.target.fresh(f"{name}__{self.target.number.name}")
        self.emit("ConstantOfShape", [node.input[0]], output, value=numpy_helper.from_array(rounded))
        self._rounded[(name, None)] = output
        return True

    def _range_scale(self, name: str) -> str | None:
        ranges = self.target.ranges
        largest = ranges.get(name, ranges.get(original_name(name)))
        if largest is None or self.parent is not None:
            return None
        return self.scalar(_scale(largest, self.target.full))

    def _computed_scale(self, name: str) -> str:
        """The scale of a constant that the graph computes, from its values."""
        largest = self.emit("ReduceMax", [self.emit("Abs", [name])], keepdims=0)
        scale = self.emit("Div", [largest, self.scalar(self.target.full)])
        return self.at_least(scale, 2.0**-100)

    def read_weight(self, name: str, axis: int | None = None, gain: np.ndarray | None = None, note: bool = True) -> str:
        """The name of a weight's rounded value.

        Args:
            name: A weight (`weight` is not None).
            axis: Axis of the output channels; INT8 has a scale for each.
            gain: Factor for each output channel that the target folds into the weight before it rounds: the result is
                round(weight * gain) / gain, so that the graph's own factor gives back what the target has.
            note: Count what is clamped or lifted.
        """
        if not self.is_float32(name):
            return name
        key = (name, (axis, None if gain is None else gain.tobytes()))
        if key in self._rounded:
            return self._rounded[key]
        number = self.target.number
        if not self.target.inline and gain is None and not number.is_integer:
            return self._rounded.setdefault(key, self._round_large(name))
        value = self.weight(name)
        assert value is not None
        values = np.asarray(value, np.float32)
        factor = None
        if gain is not None and axis is not None:
            shape = [-1 if a == axis else 1 for a in range(values.ndim)]
            usable = np.isfinite(gain) & (gain != 0)
            factor = np.where(usable, gain, 1).astype(np.float32).reshape(shape)
            values = values * factor
        scale: np.ndarray | float | None = None
        if self.target.scaled:
            across = (
                tuple(a for a in range(values.ndim) if a != axis) if number.is_integer and axis is not None else None
            )
            largest = np.max(np.abs(values), axis=across, keepdims=across is not None, initial=0)
            scale = np.vectorize(_scale)(largest, self.target.full).astype(np.float32)
        rounded = round_array(values, number.name, weights=not self.target.cast_weights, scale=scale)
        if note and not self.target.scaled and not self.target.cast_weights:
            self._count(name, values, rounded)
        if factor is not None:
            rounded = rounded / factor
        output = self.constant(rounded.astype(np.float32), f"{name}__{number.name}")
        self._rounded[key] = output
        return output

    def _round_large(self, name: str) -> str:
        scale = self._computed_scale(name) if self.target.scaled else None
        return self.round(name, self.target.fresh(f"{name}__{self.target.number.name}"), scale, weights=True)

    def _count(self, name: str, values: np.ndarray, rounded: np.ndarray) -> None:
        number = self.target.number
        size = np.abs(values)
        clamped = int(np.count_nonzero((size > number.max * (1 + number.u)) & np.isfinite(size)))
        lifted = int(np.count_nonzero((size > 0) & (size < number.smallest_subnormal / 2)))
        if clamped:
            self.target.clamped[name] = clamped
        if lifted > _MANY * size.size:
            self.target.lifted[name] = lifted

    # The graph

    def run(self, groups: Sequence[Group] | None, only: Collection[int] | None) -> None:
        """Rewrites every node, in order."""
        if groups is None:
            groups = fused_groups(self.index)
        chosen = None if only is None else frozenset(only)
        owner: dict[int, Group] = {}
        for group in self._split(groups):
            for position in group.nodes:
                owner[position] = group
        folded: dict[int, tuple[dict[int, str], np.ndarray | None]] = {}
        for position, original in enumerate(self.index.nodes):
            group = owner[position]
            node = onnx.NodeProto()
            node.CopyFrom(original)
            active = chosen is None or not chosen.isdisjoint(group.nodes)
            if not active or self._constant_arithmetic(original):
                self._keep(node, original)
            elif node.op_type in RECURRENT and self._recurrent(node):
                pass
            elif any(True for _ in subgraphs(node)):
                self._bodies(node, original)
                self.nodes.append(node)
            elif node.op_type in UNTOUCHED or node.domain in _OTHER_DOMAINS:
                self._keep(node, original)
            elif node.op_type in MOVEMENT:
                self._move(node, original)
            else:
                if position == group.main and group.kind == "product":
                    folded.update(self._fold(group))
                self._compute(node, position, group, folded)

    def _split(self, groups: Iterable[Group]) -> Iterable[Group]:
        for group in groups:
            apart = self.target.every_node
            apart |= self.target.decomposed and group.kind in ("normalization", "softmax")
            if apart:
                yield from (Group((position,), position) for position in group.nodes)
            else:
                yield group

    def _constant_arithmetic(self, node: onnx.NodeProto) -> bool:
        return all(name in self.static for name in node.output if name)

    def _keep(self, node: onnx.NodeProto, original: onnx.NodeProto) -> None:
        if original.op_type == "DequantizeLinear":
            self.exact.update(original.output)  # INT8 or FP8 already: rounding again would change the step
        self.nodes.append(node)

    def _move(self, node: onnx.NodeProto, original: onnx.NodeProto) -> None:
        """Data movement: constants are weights, activations pass."""
        if self.target.stores and not self.target.scaled:
            for i, name in enumerate(node.input):
                if name in self.static and self._is_data(node, i, name):
                    node.input[i] = self.read(name)
        floats = [n for i, n in enumerate(original.input) if n and self._is_data(original, i, n)]
        if floats and all(n in self.exact or (n in self.static and self.target.stores) for n in floats):
            self.exact.update(name for name in original.output if self.is_float32(name))
        self.nodes.append(node)

    def _is_data(self, node: onnx.NodeProto, position: int, name: str) -> bool:
        """Whether a tensor that a node reads in this place holds float32 values that are rounded when they are read."""
        return facts_of(node).kind != Kind.CAST and is_data(node, position) and self.is_float32(name)

    def _compute(
        self,
        node: onnx.NodeProto,
        position: int,
        group: Group,
        folded: Mapping[int, tuple[dict[int, str], np.ndarray | None]],
    ) -> None:
        stores = self.target.stores
        replaced, gain = folded.get(position, ({}, None))
        before = list(node.input)
        inside = {name for n in group.nodes for name in self.index.nodes[n].output}
        product = node.op_type in PRODUCTS
        operands = facts_of(node).operands if product else ()
        for i, name in enumerate(before):
            if not name:
                continue
            if i in replaced:
                node.input[i] = replaced[i]
            elif product and (operands is None or i in operands):
                node.input[i] = self._operand(node, i, name, gain)
            elif stores and name not in inside and self._is_data(node, i, name):
                if name in self.static and self._is_parameter(name, group):
                    continue
                node.input[i] = self.read(name)
        if self.target.number.is_integer and product and not stores:
            changed = [node.input[i] != before[i] or before[i] in self.exact for i in (operands or range(len(before)))]
            if not all(changed):  # one operand without a range: the product is not quantized
                node.input[:] = before
        if stores and self.target.decomposed and self._decompose(node):
            return
        if not stores or position != group.nodes[-1]:
            self.nodes.append(node)
            return
        self._write(node, before)

    def _is_parameter(self, name: str, group: Group) -> bool:
        """A number inside a fused kernel (an epsilon, an exponent, the constants of GELU): part of the program."""
        if group.kind not in ("product", "normalization", "softmax"):
            return False
        spec = self.index.specs.get(name)
        return spec is not None and spec.shape is not None and all(d == 1 for d in spec.shape)

    def _operand(self, node: onnx.NodeProto, i: int, name: str, gain: np.ndarray | None) -> str:
        if name not in self.static or self.weight(name) is None:
            return self.read(name)
        axis = None
        if i == 1:
            axis = facts_of(node).channel_axis
            weight = self.weight(name)
            assert weight is not None
            if node.op_type in ("Gemm", "FusedGemm"):
                axis = 0 if attribute(node, "transB", 0) else 1
            elif node.op_type == "MatMul" and weight.ndim >= 2:
                axis = weight.ndim - 1
        return self.read_weight(name, axis, gain)

    def _write(self, node: onnx.NodeProto, before: Sequence[str]) -> None:
        """Adds a node whose float outputs are rounded."""
        exact = (
            not self.target.scaled
            and node.op_type in SELECTION
            and all(
                name in self.exact or new != name
                for i, (name, new) in enumerate(zip(before, node.input, strict=True))
                if name and self._is_data(node, i, name)
            )
        )
        pending: list[tuple[str, str, str | None]] = []
        for i, name in enumerate(node.output):
            if not name or not self.is_float32(name):
                if name and name not in self.index.specs:
                    self.target.leave("the type is not known, not rounded", name)
                continue
            readers = self.index.consumers.get(name, [])
            fused = readers and name not in self.index.outputs
            if fused and all(self.index.nodes[r].op_type == "QuantizeLinear" for r in readers):
                continue  # the kernel writes INT8 itself
            if not exact:
                scale = self._range_scale(name) if self.target.scaled else None
                if self.target.number.is_integer and scale is None:
                    self.target.leave("no range was measured, not quantized", name)
                    continue
                raw = self.target.fresh(f"{name}__fp32")
                node.output[i] = raw
                pending.append((raw, name, scale))
            self.exact.add(name)
        self.nodes.append(node)
        for raw, name, scale in pending:
            self.round(raw, name, scale, guard=self._guarded(name))

    # Folding a BatchNormalization

    def _fold(self, group: Group) -> dict[int, tuple[dict[int, str], np.ndarray | None]]:
        """What changes in a convolution's group because a target multiplies the scale after it into the weights, and
        adds the shift to the bias, before it rounds either.

        Returns:
            For each node: replaced inputs, and for the convolution the gain of each output channel.
        """
        main = self.index.nodes[group.main]
        weight = self.weight(main.input[1]) if main.op_type in ("Conv", "ConvTranspose") else None
        if weight is None or not self.target.inline or (attribute(main, "group", 1) != 1 and main.op_type != "Conv"):
            return {}
        if not self.is_float32(main.output[0]):  # typed narrower in the graph: rounded already
            return {}
        axis = facts_of(main).channel_axis
        assert axis is not None
        channels = weight.shape[axis]
        gain, shift = np.ones(channels), np.zeros(channels)
        if len(main.input) > 2 and main.input[2]:
            bias = self.small(main.input[2])
            if bias is None:
                return {}
            shift = shift + bias.astype(np.float64)
        last, tensor = group.main, main.output[0]
        for position in group.nodes:
            node = self.index.nodes[position]
            if position <= group.main or tensor not in node.input:
                continue
            step = self._affine(node, tensor, channels, weight.ndim)
            if step is None:
                break
            gain, shift = gain * step[0], shift * step[0] + step[1]
            last, tensor = position, node.output[0]
        if last == group.main:
            return {}
        result: dict[int, tuple[dict[int, str], np.ndarray | None]] = {
            group.main: ({2: main.input[2]} if len(main.input) > 2 and main.input[2] else {}, gain.astype(np.float32))
        }
        rounded = (
            round_array(shift, self.target.number.name, weights=not self.target.cast_weights)
            if (self.target.stores and not self.target.scaled)
            else shift
        )
        result.update(self._shifted(group, last, rounded - shift, weight.ndim))
        return result

    def _affine(
        self, node: onnx.NodeProto, tensor: str, channels: int, rank: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Factor and summand for each channel of a node that follows a convolution; None if it is no such node."""
        if node.op_type in ("Identity", "Dropout"):
            return np.ones(channels), np.zeros(channels)
        if node.op_type == "BatchNormalization":
            values = [self.small(name) for name in node.input[1:5]]
            if any(v is None or v.size != channels for v in values):
                return None
            scale, bias, mean, variance = (np.asarray(v, np.float64) for v in values)
            epsilon = attribute(node, "epsilon", 1e-5)
            assert isinstance(epsilon, float)
            with np.errstate(all="ignore"):
                factor = scale / np.sqrt(variance + epsilon)
            return factor, bias - mean * factor
        if node.op_type not in AFFINE_STEPS or len(set(node.input)) != 2:
            return None
        if node.op_type in ("Sub", "Div") and node.input[0] != tensor:
            return None
        value = self.small(node.input[1] if node.input[0] == tensor else node.input[0])
        constant = None if value is None else _per_channel(value, channels, rank)
        if constant is None:
            return None
        if node.op_type in ("Add", "Sub"):
            return np.ones(channels), constant if node.op_type == "Add" else -constant
        with np.errstate(all="ignore"):
            return (constant if node.op_type == "Mul" else 1 / constant), np.zeros(channels)

    def _shifted(
        self, group: Group, last: int, delta: np.ndarray, rank: int
    ) -> dict[int, tuple[dict[int, str], np.ndarray | None]]:
        """Adds the rounding error of the folded bias to the last summand, and keeps the other constants as they are."""
        kept: dict[int, tuple[dict[int, str], np.ndarray | None]] = {}
        for position in group.nodes:
            node = self.index.nodes[position]
            if not group.main < position <= last:
                continue
            kept[position] = ({i: n for i, n in enumerate(node.input) if n in self.static}, None)
            if position != last or not np.all(np.isfinite(delta)) or not np.any(delta):
                continue
            if node.op_type == "BatchNormalization":
                bias = self.small(node.input[2])
                assert bias is not None
                kept[position][0][2] = self.constant((bias + delta).astype(np.float32), f"{node.input[2]}__folded")
            elif node.op_type in ("Add", "Sub"):
                i = 1 if node.input[1] in self.static else 0
                value = self.small(node.input[i])
                assert value is not None
                shape = [1, -1] + [1] * (rank - 2)
                summand = value + (delta if node.op_type == "Add" else -delta).reshape(shape)
                kept[position][0][i] = self.constant(summand.astype(np.float32), f"{node.input[i]}__folded")
        return kept

    # Normalizations, one primitive after the other

    def _decompose(self, node: onnx.NodeProto) -> bool:
        """Writes Softmax or LayerNormalization as primitives that each round. False where it is another operator."""
        if not self.is_float32(node.output[0]):
            return False
        spec = self.index.specs.get(node.output[0])
        rank = None if spec is None or spec.shape is None else len(spec.shape)
        if node.op_type == "Softmax":
            axis = attribute(node, "axis", -1 if self.target.opset >= 13 else 1)
            assert isinstance(axis, int)
            if self.target.opset < 13 and (rank is None or axis % rank != rank - 1):
                self.target.leave("Softmax over several axes at once is not decomposed", node.output[0])
                return False
            x = node.input[0]
            shifted = self.round(self.emit("Sub", [x, self.reduce("ReduceMax", x, [axis])]))
            power = self.round(self.emit("Exp", [shifted]))
            total = self.round(self.reduce("ReduceSum", power, [axis]))
            self.round(self.emit("Div", [power, total]), node.output[0])
        elif node.op_type == "LayerNormalization":
            axis = attribute(node, "axis", -1)
            assert isinstance(axis, int)
            if (axis != -1 and rank is None) or any(node.output[1:]):
                self.target.leave("LayerNormalization is not decomposed", node.output[0])
                return False
            axes = [-1] if axis == -1 else list(range(axis % (rank or 1), rank or 1))
            epsilon = attribute(node, "epsilon", 1e-5)
            assert isinstance(epsilon, float)
            x = node.input[0]
            centred = self.round(self.emit("Sub", [x, self.round(self.reduce("ReduceMean", x, axes))]))
            square = self.round(self.emit("Mul", [centred, centred]))
            variance = self.round(self.reduce("ReduceMean", square, axes))
            eps = self.scalar(float(round_array(np.float32(epsilon), self.target.number.name, weights=True)))
            deviation = self.round(self.emit("Sqrt", [self.round(self.emit("Add", [variance, eps]))]))
            last = self.emit("Div", [centred, deviation])
            for op_type, name in zip(("Mul", "Add"), node.input[1:], strict=False):
                if name:
                    last = self.emit(op_type, [self.round(last), name])
            self.round(last, node.output[0])
        else:
            return False
        self.exact.add(node.output[0])
        return True

    # Recurrent operators

    def _recurrent(self, node: onnx.NodeProto) -> bool:
        """Writes LSTM, GRU and RNN as a Scan over the operator itself, one step at a time, whose state rounds.

        False where the format leaves recurrent operators alone (INT8 and FP8: no runtime has such kernels), or where
        the graph is too old for a Scan; the node is then handled as any other.
        """
        target = self.target
        if target.scaled or not self.is_float32(node.input[0]):
            self.nodes.append(node)
            return True
        if target.opset < 9:
            target.leave("states round at the end alone below opset 9", node.output[0] or node.output[-1])
            return False
        direction = attribute(node, "direction", "forward")
        directions = 2 if direction == "bidirectional" else 1
        batch_first = bool(attribute(node, "layout", 0))
        recurrence = self.index.specs.get(node.input[2])
        hidden = attribute(node, "hidden_size", None)
        if hidden is None and recurrence is not None and recurrence.shape is not None:
            hidden = recurrence.shape[-1]
        if not isinstance(hidden, int):
            target.leave("the hidden size is not known, states do not round", node.output[0] or node.output[-1])
            return False
        inputs = [*node.input, *[""] * (8 - len(node.input))]
        x = self.read(inputs[0])
        lengths = inputs[4]
        states = [inputs[5]] + ([inputs[6]] if node.op_type == "LSTM" else [])
        states = [self.read(s) if s and target.stores else s for s in states]
        weights = {1: self.read(inputs[1]), 2: self.read(inputs[2])}
        for i in (3, 7):
            if inputs[i] and (i == 3 or node.op_type == "LSTM"):
                weights[i] = self.read(inputs[i]) if target.stores else inputs[i]
        if batch_first:
            x = self.emit("Transpose", [x], perm=[1, 0, 2])
            states = [self.emit("Transpose", [s], perm=[1, 0, 2]) if s else s for s in states]
        shape = self.emit("Shape", [x])
        if not all(states):
            batch = self.emit("Gather", [shape, self.constant(np.asarray([1], np.int64), "layerdiff_batch")], axis=0)
            one = self.constant(np.asarray([1], np.int64), "layerdiff_one")
            size = self.constant(np.asarray([hidden], np.int64), "layerdiff_hidden")
            zero = self.emit("ConstantOfShape", [self.emit("Concat", [one, batch, size], axis=0)])
        runs = []
        for d in range(directions):
            if directions == 2:
                which = self.constant(np.asarray([d], np.int64), "layerdiff_direction")
                own = {i: self.emit("Gather", [w, which], axis=0) for i, w in weights.items()}
                start = [self.emit("Gather", [s, which], axis=0) if s else zero for s in states]
            else:
                own, start = weights, [s or zero for s in states]
            backwards = direction == "reverse" or d == 1
            runs.append(self._scan(node, x, own, start, lengths, shape, backwards, d, directions, hidden))
        wanted = [*node.output, "", "", ""]
        for i, axis in enumerate((1, 0, 0)[: 1 + len(states)]):
            if not wanted[i]:
                continue
            parts = [run[i] for run in runs]
            joined = parts[0] if directions == 1 else self.emit("Concat", parts, axis=axis)
            perm = None if not batch_first else [2, 0, 1, 3] if i == 0 else [1, 0, 2]
            if perm:
                self.emit("Transpose", [joined], wanted[i], perm=perm)
            else:
                self.emit("Identity", [joined], wanted[i])
            if target.stores:
                self.exact.add(wanted[i])
        return True

    def _scan(
        self,
        node: onnx.NodeProto,
        x: str,
        weights: Mapping[int, str],
        start: Sequence[str],
        lengths: str,
        shape: str,
        backwards: bool,
        d: int,
        directions: int,
        hidden: int,
    ) -> list[str]:
        """One direction. Returns the names of Y (steps, 1, batch, hidden), Y_h and an LSTM's Y_c (1, batch, hidden)."""
        target = self.target
        body = _Scope(target, self.index, self.static, self)
        names = [target.fresh(f"layerdiff_state_{i}") for i in range(len(start))]
        step_input = target.fresh("layerdiff_step")
        kept = {"hidden_size": hidden}
        for name in ("activations", "activation_alpha", "activation_beta"):
            values = attribute(node, name, None)
            if isinstance(values, (list, tuple)) and values:
                share = len(values) // directions
                kept[name] = list(values[d * share : (d + 1) * share])  # type: ignore[assignment]
        for name in ("clip", "input_forget", "linear_before_reset"):
            value = attribute(node, name, None)
            if value is not None:
                kept[name] = value  # type: ignore[assignment]
        fed = list(names)
        if not target.stores:
            fed[0] = body.round(names[0])  # the operand of the recurrent product
        outputs = ["", *(target.fresh(f"layerdiff_next_{i}") for i in range(len(start)))]
        inputs = [body.unsqueeze(step_input, [0]), weights[1], weights[2], weights.get(3, ""), "", *fed]
        if 7 in weights:
            inputs.append(weights[7])
        while not inputs[-1]:
            inputs.pop()
        body.nodes.append(helper.make_node(node.op_type, inputs, outputs, name=target.fresh("layerdiff_cell"), **kept))
        after = [body.round(name) if target.stores else name for name in outputs[1:]]
        carried, types = list(names), [TensorProto.FLOAT] * len(names)
        initial = list(start)
        result = after[0]
        if lengths:
            counter = target.fresh("layerdiff_time")
            steps = self.emit("Gather", [shape, self.scalar(0, np.int64)], axis=0)
            one = self.scalar(1, np.int64)
            initial.append(
                self.emit("Sub", [steps, one]) if backwards else self.emit("Identity", [self.scalar(0, np.int64)])
            )
            carried.append(counter)
            types.append(TensorProto.INT64)
            alive = body.emit("Less", [counter, body.emit("Cast", [lengths], to=TensorProto.INT64)])
            alive = body.unsqueeze(alive, [0, 2])
            after = [body.emit("Where", [alive, new, old]) for new, old in zip(after, names, strict=True)]
            result = body.emit("Where", [alive, result, body.scalar(0.0)])
            after.append(body.emit("Sub" if backwards else "Add", [counter, body.scalar(1, np.int64)]))
        finals = [body.emit("Identity", [name]) for name in [*after, result]]
        state: list[list[int | None]] = [[1, None, hidden]] * len(names) + [[]] * (len(carried) - len(names))
        infos_in = [helper.make_tensor_value_info(*item) for item in zip(carried, types, state, strict=True)]
        infos_in.append(helper.make_tensor_value_info(step_input, TensorProto.FLOAT, [None, None]))
        outward = zip(finals, [*types, TensorProto.FLOAT], [*state, state[0]], strict=True)
        infos_out = [helper.make_tensor_value_info(*item) for item in outward]
        graph = helper.make_graph(body.nodes, target.fresh("layerdiff_body"), infos_in, infos_out, body.initializers)
        made = [target.fresh(f"layerdiff_final_{i}") for i in range(len(finals))]
        scan = helper.make_node(
            "Scan",
            [*initial, x],
            made,
            name=target.fresh("layerdiff_scan"),
            body=graph,
            num_scan_inputs=1,
            scan_input_directions=[int(backwards)],
            scan_output_directions=[int(backwards)],
        )
        self.nodes.append(scan)
        return [made[-1], *made[: len(start)]]

    # Subgraphs

    def _bodies(self, node: onnx.NodeProto, original: onnx.NodeProto) -> None:
        for a, source in zip(node.attribute, original.attribute, strict=True):
            if a.type == onnx.AttributeProto.GRAPH:
                self._body(source.g, a.g)
            elif a.type == onnx.AttributeProto.GRAPHS:
                for inner, graph in zip(source.graphs, a.graphs, strict=True):
                    self._body(inner, graph)

    def _body(self, source: onnx.GraphProto, target: onnx.GraphProto) -> None:
        """Rewrites a body. Types of what it captures come from the graphs around it."""
        wrapped = onnx.ModelProto(ir_version=8)
        wrapped.opset_import.extend(self.index.proto.opset_import)
        wrapped.graph.CopyFrom(source)
        names = captured(source)
        for name in names:
            if self.is_float32(name):
                wrapped.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, self._shape(name)))
        index = GraphIndex(wrapped, self.index.folder)
        outside = frozenset(name for name in names if name in self.static)
        scope = _Scope(self.target, index, static_tensors(index, outside) | outside, self)
        scope.exact.update(name for name in names if name in self.exact)
        scope.run(fused_groups(index, scope.static), None)
        target.Clear()
        scope.write(target, source)

    def _shape(self, name: str) -> list[int | str | None] | None:
        spec = self.index.specs.get(name)
        if spec is not None:
            return None if spec.shape is None else list(spec.shape)
        return None if self.parent is None else self.parent._shape(name)

    def write(self, graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
        """Fills ``graph`` with what was rewritten, without the weights that nothing reads any more."""
        read: set[str] = {o.name for o in source.output}
        for node in self.nodes:
            read.update(node.input)
            for body in subgraphs(node):
                read.update(captured(body))
        graph.name = source.name
        graph.doc_string = source.doc_string
        dropped = {t.name for t in source.initializer if t.name not in read}
        weights = {t.name for t in source.initializer}  # as inputs they could be overridden, and would not be folded
        graph.input.extend(i for i in source.input if i.name not in weights)
        graph.output.extend(source.output)
        graph.value_info.extend(source.value_info)
        graph.initializer.extend(t for t in source.initializer if t.name not in dropped)
        graph.initializer.extend(self.initializers)
        graph.sparse_initializer.extend(source.sparse_initializer)
        graph.node.extend(self.nodes)


def _scale(largest: float, full: float) -> float:
    """The step that maps a range to the format's; of a tensor of zeros, any will do."""
    return float(largest) / full if largest > 0 and math.isfinite(largest) else 1.0


def _per_channel(value: np.ndarray, channels: int, rank: int) -> np.ndarray | None:
    """A constant of a convolution's epilogue as one number for each channel (axis 1); None if it is more than that."""
    shape = (1,) * (rank - value.ndim) + value.shape
    if len(shape) != rank or any(d != 1 for a, d in enumerate(shape) if a != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(value.astype(np.float64).reshape(-1), (channels,)).copy()
