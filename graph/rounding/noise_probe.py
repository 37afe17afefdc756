"""How far rounding alone may move a layer's output: the layer with its roundings made random and large.

A copy of each layer is perturbed wherever the two sides round differently: at its operands, after each of its nodes,
and once more at the data operand of a sum of K products for the roundings of the accumulator. What the perturbation
does to the output, scaled back, is the expected noise of that output. This is Monte Carlo arithmetic (D. S. Parker,
*Monte Carlo Arithmetic*, UCLA CSD-970002, 1997) at the granularity of tensors. For a sum of K products with operands a
and b it reproduces

    sigma^2 = kappa [(u_a^2 + u_b^2 + u_acc^2 K / 2) (A o A)(B o B)],    kappa = (3/8) / (3 ln 2)

and it needs no formula for any other operator: softmax, GELU in pieces, LSTM, a fused group. kappa is the mean square
of a rounding error in units of u, for values whose logarithm is spread evenly. An accumulator narrower than FP32 is a
tensor core's, which rounds once for 16 products (`graph.rounding.fp16_sums`): n = ceil(K / 16) - 1 times. Its partial
sums are known as far as the sum is: those of a walk that ends at S = A B add n (S^2 / 3 + (A o A)(B o B) / 6) instead
of K / 2, which is n / 2 on average where signs are random, and more where the terms agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from ..cutting.dataflow import Kind, dataflow
from ..cutting.slices import SEPARATOR, Slice, explode, original_name
from ..formats import FP32, NumberFormat
from ..index import GraphIndex, attribute, subgraphs
from ..operators import LIBRARY_FUNCTIONS, STEPPED_PRODUCTS, WEIGHTED
from ..specs import TensorSpec
from .fp16_sums import STEP, at_once

if TYPE_CHECKING:
    from ..model import Model

KAPPA = (3 / 8) / (3 * math.log(2))
"""Mean of (rounding error / u)^2 over values with evenly spread logarithms: 0.180."""

AMPLITUDE = 2.0**-10
"""Relative size of the largest perturbation. Large against FP32's rounding, small enough for the layer to be linear."""

TRANSCENDENTAL = 4.0
"""Units roundoff that a library function (exp, erf, tanh) may be off by, against one half for arithmetic."""

# fmt: off
# Functions that runtimes compute to an absolute error: ONNX Runtime's sigmoid, far below zero, is steps of 2^-25.
_ABSOLUTE = frozenset({"Sigmoid"})
# Operators that move, select or compare values and round nothing.
_EXACT = frozenset({
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Split", "Slice", "Gather",
    "GatherElements", "GatherND", "Expand", "Tile", "Pad", "Relu", "Clip", "MaxPool", "GlobalMaxPool", "Max", "Min",
    "Abs", "Neg", "Where", "DepthToSpace", "SpaceToDepth", "ReduceMax", "ReduceMin", "Dropout", "Cast", "TopK",
    "ScatterND", "ScatterElements", "Constant", "Sign", "Floor", "Ceil", "Round", "QuantizeLinear", "Shape",
})
# Inputs that configure an operator rather than carry data: these are not perturbed.
_CONFIGURATION = {
    "Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Pad": (1, 2, 3), "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2), "Pow": (1,), "Range": (0, 1, 2), "TopK": (1,), "OneHot": (1, 2), "Dropout": (1, 2),
    "NonMaxSuppression": (2, 3, 4), "Cast": (0,),
}
_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
# fmt: on


@dataclass(frozen=True)
class Roundings:
    """What the two sides of a comparison round, as standard deviations.

    Attributes:
        operand: Of operands (inputs and weights), relative.
        accumulator: Of one addition, relative.
        inner: Between the nodes of a layer, relative.
        result: Of what a layer returns, relative.
        floor: Of what a layer returns, absolute: half a step among the subnormals.
        steps: Absolute, of operands by tensor name, where the format is a scaled integer: step / sqrt(12).
        products: How many products of a matrix are added before the accumulator rounds.
        small: Operands with values among the subnormals, which round by ``floor``.
    """

    operand: float
    accumulator: float
    inner: float
    result: float
    floor: float
    steps: Mapping[str, float] = field(default_factory=dict)
    products: int = 1
    small: frozenset[str] = frozenset()

    @property
    def coarse(self) -> bool:
        """Whether one side rounds coarser than FP32."""
        return self.operand > 0 or bool(self.steps)

    @property
    def largest(self) -> float:
        """The largest relative one."""
        return max(self.operand, self.accumulator, self.inner, self.result)

    def adding(self, terms: float, together: bool) -> tuple[float, float]:
        """Of a sum of ``terms`` products in all: relative to one of random signs, and relative to the sum itself.

        Args:
            terms: K.
            together: Whether `products` are added before the accumulator rounds, where it is narrow; else it rounds
                for each.
        """
        if self.products == 1:
            return self.accumulator * math.sqrt(terms / 2), 0.0
        rounded, exactly = terms, 0.0
        if together:
            rounded = math.ceil(terms / self.products) - 1  # the last time is the rounding of the result
            exactly = FP32.u * math.sqrt(KAPPA * terms)
        return math.hypot(self.accumulator * math.sqrt(rounded / 6), exactly), self.accumulator * math.sqrt(rounded / 3)

    @property
    def gain(self) -> float:
        """By how much a probe enlarges them. Integer steps are taken as they are."""
        return 1.0 if self.steps else max(1.0, AMPLITUDE / self.largest)


def roundings(
    reference: NumberFormat,
    candidate: NumberFormat,
    steps: Mapping[str, float] | None = None,
    accumulator: NumberFormat = FP32,
    *,
    typed: bool = False,
) -> Roundings:
    """The roundings of two sides that compute layers in these formats, the reference adding in FP32.

    Args:
        reference, candidate: Formats of operands and results.
        steps: See `Roundings`.
        accumulator: The format in which the candidate adds.
        typed: Whether tensors between the nodes of a layer have these formats too, because the graph says so.
    """
    root = math.sqrt(KAPPA)
    floats = [f for f in (reference, candidate) if not f.is_integer]
    coarse = [f.u for f in floats if f.u > FP32.u]
    plain = root * math.sqrt(2) * FP32.u
    operand = root * math.hypot(*coarse) if coarse else 0.0
    floor = max((f.smallest_subnormal for f in floats), default=0.0) / math.sqrt(12)
    adding = root * math.hypot(FP32.u, accumulator.u)
    inner = math.hypot(operand, 2 * plain)
    products = STEP if accumulator.u > FP32.u else 1
    return Roundings(operand, adding, inner if typed else 2 * plain, inner, floor, steps or {}, products)


def known(index: GraphIndex, part: Slice) -> bool:
    """Whether the operators of a slice are such that a probe is meaningful: no custom ones, no types of 8 bits."""
    for position in part.nodes:
        node = index.nodes[position]
        if node.domain not in _KNOWN_DOMAINS:
            return False
        for name in (*node.input, *node.output):
            spec = index.specs.get(name)
            if spec is not None and spec.dtype.name.startswith(("float8", "float4")):
                return False
    return True


def probe(
    model: Model,
    parts: Sequence[tuple[int, Slice]],
    specs: Mapping[str, TensorSpec],
    rounding: Roundings,
    *,
    seed: int = 1,
) -> Model:
    """An exploded model (see `explode`) of perturbed layers.

    Args:
        model: The reference's model.
        parts: The layers' slices with their numbers.
        specs: Types and shapes of the tensors that are fed, as measured.
        rounding: What is rounded.

    Returns:
        A model with the inputs and outputs of ``explode(model, parts, specs)``. Its outputs differ from the exact ones
        by noise of ``rounding.gain`` times the expected size, without the rounding of the result.
    """
    return model.derive(perturbed(model, parts, specs, rounding, seed=seed))


def perturbed(
    model: Model,
    parts: Sequence[tuple[int, Slice]],
    specs: Mapping[str, TensorSpec],
    rounding: Roundings,
    *,
    seed: int = 1,
    alike: bool = False,
) -> onnx.ModelProto:
    """The graph of a `probe`, for those who add to it.

    Args:
        model, parts, specs, rounding, seed: See `probe`.
        alike: Whether weights of equal magnitude are perturbed alike, as they are rounded alike. It takes a pass over
            the weights, and matters where they repeat: what independent roundings average out, equal ones add up.
    """
    proto = explode(model, parts, specs).proto  # nobody else holds it
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    writer = _Writer(model.index, proto.graph, specs, rounding, seed, alike)
    given = {i.name for i in proto.graph.input}
    last = {o.name for o in proto.graph.output}
    for node in nodes:
        writer.add(node, given, last)
    widen(proto.graph)
    return proto


def widen(graph: onnx.GraphProto) -> None:
    """Makes a graph that is typed FP16 or BF16 compute in FP32: rounding is what a probe adds by itself."""
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type in _NARROW:
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    casts = []
    for tensor in graph.initializer:
        if not _widen(tensor):
            name, tensor.name = tensor.name, f"{tensor.name}{SEPARATOR}narrow"
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], tensor.name, to=onnx.TensorProto.FLOAT))
    if casts:
        nodes = [*casts, *graph.node]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    for node in graph.node:
        for a in node.attribute:
            if a.type == onnx.AttributeProto.TENSOR:
                _widen(a.t)
            elif a.name in ("to", "dtype") and a.i in _NARROW:
                a.i = onnx.TensorProto.FLOAT
        for body in subgraphs(node):
            widen(body)


_NARROW = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _widen(tensor: onnx.TensorProto) -> bool:
    """Makes a tensor FP32, unless its values are in another file."""
    if tensor.data_type not in _NARROW:
        return True
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name))
    return True


class _Writer:
    def __init__(
        self,
        index: GraphIndex,
        graph: onnx.GraphProto,
        specs: Mapping[str, TensorSpec],
        rounding: Roundings,
        seed: int,
        alike: bool,
    ) -> None:
        self.index = index
        self.graph = graph
        self.specs = specs
        self.rounding = rounding
        self.seed = seed
        self.alike = alike
        self.values: list[onnx.ValueInfoProto] = []
        self.perturbed: dict[tuple[str, str], str] = {}
        self.count = 0

    def spec(self, name: str) -> TensorSpec | None:
        name = original_name(name)
        return self.specs.get(name) or self.index.specs.get(name)

    def floating(self, name: str) -> bool:
        spec = self.spec(name)
        return spec is not None and spec.dtype.name in ("float64", "float32", "float16", "bfloat16")

    def add(self, node: onnx.NodeProto, given: set[str], last: set[str]) -> None:
        op = node.op_type
        number = node.name.rpartition("\x1f")[2]
        skip = _CONFIGURATION.get(op, ())
        gain = self.rounding.gain
        inputs = list(node.input)
        exact = op in _EXACT
        for slot, name in enumerate(inputs):
            if not name or slot in skip or not self.floating(name):
                continue
            weight = original_name(name) in self.index.initializers or self._is_constant(name)
            if weight and op not in WEIGHTED:
                continue
            if name in given or weight:
                step = self.rounding.steps.get(original_name(name), 0.0)
                if original_name(name) in self.rounding.small:
                    step = gain * self.rounding.floor
                inputs[slot] = self._once(name, number, gain * self.rounding.operand, step)
        terms = 1 if exact else self._terms(node)
        drift = 0.0
        if terms > 1 and inputs and inputs[0]:
            size = self.rounding.accumulator * math.sqrt(terms / 2)
            if op in STEPPED_PRODUCTS:
                size, drift = self.rounding.adding(terms, at_once(node) > 1)
            for slot in self._data_slots(node):
                if inputs[slot] and self.floating(node.input[slot]):
                    inputs[slot] = self._perturb(inputs[slot], gain * size, 0.0)
                    break
        for slot, name in enumerate(inputs):
            node.input[slot] = name
        inner = 0.0 if exact else self.rounding.inner * gain * (TRANSCENDENTAL if op in LIBRARY_FUNCTIONS else 1.0)
        inner = math.hypot(inner, gain * drift)
        made = [name for name in node.output if name and self.floating(name)]
        if not inner or not made:
            self.graph.node.append(node)
            return
        # the last node's result is rounded too, but a library function is off by more than a rounding
        raw = {name: f"{name}/exact" for name in made if name not in last or op in LIBRARY_FUNCTIONS or terms > 1}
        for i, name in enumerate(node.output):
            node.output[i] = raw.get(name, name)
        self.graph.node.append(node)
        step = gain * FP32.u if op in _ABSOLUTE else 0.0
        for name, source in raw.items():
            self._perturb(source, inner, step, name)

    def _is_constant(self, name: str) -> bool:
        """Whether a tensor is computed from constants and shapes alone: a runtime rounds it once, like a weight."""
        name = original_name(name)
        return name in self.index.producer and dataflow(self.index).kind.get(name) == Kind.CONSTANT

    def _data_slots(self, node: onnx.NodeProto) -> range:
        return range(len(node.input))

    def _once(self, name: str, number: str, size: float, step: float) -> str:
        """One perturbation of a tensor for all readers of a layer: it is rounded once."""
        key = (name, number)
        if key not in self.perturbed:
            weight = self.index.weight(original_name(name)) if self.alike and (size or step) else None
            if weight is not None and weight.dtype.name in ("float32", "float16", "bfloat16"):
                self.perturbed[key] = self._perturb_alike(name, weight.astype(np.float32), size, step)
            else:
                self.perturbed[key] = self._perturb(name, size, step) if size or step else name
        return self.perturbed[key]

    def _perturb_alike(self, name: str, weight: np.ndarray, size: float, step: float) -> str:
        """A weight moved by ``size`` of itself and by ``step``, up or down: values of equal magnitude alike. Whether up
        or down is drawn, how far is not: a single value would else be moved hardly at all in some draws."""
        self.count += 1
        magnitudes, which = np.unique(np.abs(weight), return_inverse=True)
        generator = np.random.default_rng([self.seed, self.count])
        signs = generator.choice(np.array([-1.0, 1.0], np.float32), (2, len(magnitudes)))
        up, shift = (sign[which].reshape(weight.shape) for sign in signs)
        moved = weight * (1 + np.float32(size) * up) + np.float32(step) * shift * np.sign(weight)
        target = f"{name}/p{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(moved, np.float32), target))
        return target

    def _perturb(self, name: str, size: float, step: float, target: str | None = None) -> str:
        """Multiplies by 1 + ``size`` times a normal variate, and adds ``step`` times another. Returns the new name."""
        self.count += 1
        target = target or f"{name}/p{self.count}"
        spec = self.spec(name.partition("/exact")[0].partition("/p")[0])
        double = spec is not None and spec.dtype == np.float64
        dtype = {"dtype": onnx.TensorProto.DOUBLE if double else onnx.TensorProto.FLOAT}

        def draw(mean: float, scale: float, output: str) -> str:
            seed = float(self.seed * 100003 + 2 * self.count + (mean == 0))
            node = onnx.helper.make_node(
                "RandomNormalLike", [name], [output], output, mean=mean, scale=float(scale), seed=seed, **dtype
            )
            self.graph.node.append(node)
            return output

        # ONNX Runtime aborts the process when it is asked for normal variates of scale zero
        value = name
        if size:
            value = f"{target}/scaled" if step else target
            self._elementwise("Mul", name, draw(1.0, size, f"{target}/factor"), value)
        if step:
            self._elementwise("Add", value, draw(0.0, step, f"{target}/shift"), target)
        elif not size:
            self.graph.node.append(onnx.helper.make_node("Identity", [name], [target], f"{target}/identity"))
        return target

    def _elementwise(self, op: str, a: str, b: str, output: str) -> None:
        self.graph.node.append(onnx.helper.make_node(op, [a, b], [output], f"{output}/{op}"))

    def _shape(self, name: str) -> tuple[int, ...] | None:
        spec = self.spec(name)
        if spec is None or spec.shape is None:
            return None
        return tuple(d if isinstance(d, int) else 1 for d in spec.shape)

    def _terms(self, node: onnx.NodeProto) -> float:
        """K: how many terms each element of the output is a sum of."""
        return terms(node, self._shape)


def terms(node: onnx.NodeProto, shape_of: Callable[[str], tuple[int, ...] | None]) -> float:
    """How many terms each element of a node's output is a sum of; 1 where it sums nothing.

    Args:
        node: The node.
        shape_of: Function from a tensor's name to its shape, or None where that is unknown.
    """
    shape = [shape_of(name) if name else None for name in node.input]
    op = node.op_type
    first = shape[0] if shape else None
    second = shape[1] if len(shape) > 1 else None
    result = 1.0
    if op in ("Conv", "FusedConv") and second:
        result = math.prod(second[1:])
    elif op == "ConvTranspose" and second:
        group = int(attribute(node, "group", 1))  # type: ignore[call-overload]
        result = second[0] / group * math.prod(second[2:])
    elif op in ("MatMul", "FusedMatMul") and (first or second):
        result = first[-1] if first else second[-2 if len(second or ()) > 1 else 0]  # type: ignore[index]
    elif op in ("Gemm", "FusedGemm") and (first or second):
        result = second[1 if attribute(node, "transB", 0) else 0] if second else first[-1]  # type: ignore[index]
    elif op in ("LSTM", "GRU", "RNN") and second and len(shape) > 2 and shape[2]:
        steps = first[0] if first else 16
        result = (second[-1] + shape[2][-1]) * math.sqrt(steps)
    elif op in ("AveragePool", "LpPool"):
        result = math.prod(attribute(node, "kernel_shape", [1]))  # type: ignore[call-overload]
    elif op in ("GlobalAveragePool", "InstanceNormalization", "GroupNormalization") and first:
        result = math.prod(first[2:])
    elif op in ("Softmax", "LogSoftmax", "LayerNormalization", "LpNormalization", "RMSNormalization") and first:
        axis = int(attribute(node, "axis", -1))  # type: ignore[call-overload]
        result = math.prod(first[axis:]) if op.endswith("Normalization") else first[axis]
    elif op.startswith("Reduce") and op not in ("ReduceMax", "ReduceMin") and first:
        axes = attribute(node, "axes", None)
        result = math.prod(first[a] for a in axes) if isinstance(axes, list) else first[-1]
    elif op == "Einsum" and first:
        result = first[-1]
    elif op == "CumSum" and first:
        result = max(first)
    elif op in ("Resize", "Upsample"):
        result = 4
    return float(max(result, 1))
