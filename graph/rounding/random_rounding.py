"""A whole network in which every rounding is drawn at random: how far rounding alone may move its outputs.

This is Monte Carlo arithmetic (D. S. Parker, *Monte Carlo Arithmetic*, UCLA CSD-970002, 1997) at the granularity of
tensors, as `graph.rounding.noise_probe` does it for single layers. Wherever two sides of a comparison round a value
differently, the value x becomes x (1 + s n) with n drawn from a normal distribution, and s the standard deviation of
the relative rounding error:

- results: sqrt(kappa) u of the coarser format at the border of each fused group, kappa = 0.180 (`roundings.KAPPA`);
  inside a group, and between two FP32 runtimes everywhere, that of FP32 on both sides;
- weights: sqrt(kappa) u, where the format does not hold them exactly; each weight once, whoever reads it;
- sums of K products: sqrt(kappa) u_acc sqrt(K / 2), by perturbing one operand, so that products which cancel in the sum
  leave as much noise as large ones that do not; sums in FP16 as `roundings.Roundings.adding` says;
- quantizers: a QuantizeLinear becomes uniform noise of one step, where the other side does not quantize.

What the perturbed network's outputs differ by from the unperturbed one's is one draw of the expected error. All draws
come from one session: the noise is read out of pools of random numbers that are inputs of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper

from ..cutting.fusion import fused_groups, static_tensors
from ..errors import ModelError
from ..formats import BY_DTYPE, FP16, FP32, FP64, TF32, NumberFormat, coarser
from ..index import GraphIndex
from ..inference import infer_shapes
from ..nodes import reads, subgraphs
from ..operators import LIBRARY_FUNCTIONS, PRODUCTS, RECURRENT, WEIGHTED, operator
from ..specs import TensorSpec, spec_from_value_info
from .fp16_accumulation import at_once
from .roundings import ABSOLUTE, EXACT, KAPPA, TRANSCENDENTAL, is_rounded, roundings
from .term_count import term_count
from .widening import widen

if TYPE_CHECKING:
    from ..model import Model

POOL = "layerdiff/pool"
"""Prefix of the inputs that hold random numbers."""
UNIT = f"{POOL}/unit"
"""The pool of normal variates; the others hold factors."""
GAIN = 8.0
"""By how much FP32's roundings are enlarged, to stand above those that the run makes by itself."""
CHAIN = 512
"""Most products of a sum that count: longer sums are made of parts, whose errors add up otherwise than a chain's."""
SPREAD = 1 << 20
"""Numbers of a pool over which the places are spread from which nodes read."""
SEED = 20240229
_PRODUCTS = PRODUCTS | RECURRENT
OLDEST = 13
"""The oldest opset with the operators that draw; models of older ones are converted."""
_NARROW = ("float16", "bfloat16")
_FLOATS = ("float64", "float32", *_NARROW)


@dataclass(frozen=True)
class Roundoff:
    """Where two sides of a comparison round, and how coarsely.

    Attributes:
        reference, candidate: The formats in which the two sides compute FP32 layers.
        accumulator: The format in which the candidate adds up products.
        fp16_sums: Names of nodes whose products add up in FP16, whatever ``accumulator`` says.
        every_node: Whether the candidate rounds after every node, not at the borders of fused groups alone.
        rounded_weights: Whether weights that the graph holds in FP16 or BF16 were rounded on one side only.
    """

    reference: NumberFormat = FP32
    candidate: NumberFormat = FP32
    accumulator: NumberFormat = FP32
    fp16_sums: frozenset[str] = frozenset()
    every_node: bool = False
    rounded_weights: bool = False

    @property
    def coarse(self) -> NumberFormat:
        """The coarser of the two formats."""
        return coarser(self.reference, self.candidate)


@dataclass(frozen=True)
class RandomRounding:
    """A network with random roundings.

    Attributes:
        model: The network. Beside its own inputs it takes the pools.
        scales: Pools by input name: the standard deviation of their numbers. A pool of scale s holds 1 + s n; the pool
            `UNIT` holds n itself.
        gain: By how much roundings are enlarged.
        sites: How many tensors are perturbed.
    """

    model: Model
    scales: Mapping[str, float]
    gain: float
    sites: int

    def feed(self, sample: Mapping[str, np.ndarray], pools: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the network takes of a sample, in the types that it takes, and the pools."""
        taken = {spec.name for spec in self.model.inputs}
        widened = {n: a.astype(np.float32) if a.dtype.name in _NARROW else a for n, a in sample.items() if n in taken}
        return {**widened, **pools}


class Pools:
    """Random numbers for draws, each of which is a window into one long row of them.

    Args:
        scales: See `RandomRounding`.
        size: Elements of the largest tensor that is perturbed.
    """

    def __init__(self, scales: Mapping[str, float], size: int) -> None:
        self.size = size + SPREAD
        normal = np.random.default_rng(SEED).standard_normal(self.size + SPREAD, dtype=np.float32)
        self._rows = {
            name: normal if name == UNIT else np.float32(1) + np.float32(scale) * normal
            for name, scale in scales.items()
        }

    def draw(self, number: int) -> dict[str, np.ndarray]:
        """The pools of one draw, by input name."""
        start = (number * 48271 + 11) % SPREAD
        return {name: row[start : start + self.size] for name, row in self._rows.items()}

    def neutral(self) -> dict[str, np.ndarray]:
        """Pools that perturb nothing."""
        return {name: np.full(self.size, name != UNIT, np.float32) for name in self._rows}


def randomized(model: Model, roundoff: Roundoff, gain: float | None = None) -> RandomRounding:
    """The network with random roundings.

    Args:
        model: The network.
        roundoff: What is rounded.
        gain: By how much roundings are enlarged; None: `GAIN` between FP32 runtimes, 1 where a side is coarser.

    Raises:
        ModelError: The network is of an opset older than `OLDEST` that cannot be converted.
    """
    model = _prepared(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if gain is None:
        narrow = any(spec.dtype.name in _NARROW for spec in model.index.specs.values())
        gain = 1.0 if narrow or roundoff.coarse.u > FP32.u else GAIN
    writer = _Writer(model.index, roundoff, gain)
    nodes = list(proto.graph.node)
    renamed = writer.inputs()
    for node in nodes:
        _rename(node, renamed)
    writer.write(nodes, _Scope.of(model.index), infer_shapes(model.proto).graph)
    del proto.graph.node[:]
    proto.graph.node.extend(writer.nodes)
    proto.graph.initializer.extend(writer.constants.values())
    widen(proto.graph)
    for name in writer.scales:
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]))
    return RandomRounding(model.derive(proto), dict(writer.scales), gain, writer.sites)


def _prepared(model: Model) -> Model:
    """The model without functions of its own, in an opset that has the operators which draw."""
    if model.proto.functions:
        model = model.derive(onnx.inliner.inline_local_functions(model.proto))
    if model.index.opset.get("", OLDEST) < OLDEST:
        try:
            model = model.derive(onnx.version_converter.convert_version(model.proto, OLDEST))
        except Exception as error:  # whatever the converter says of operators that it does not know
            raise ModelError(f"{model.source}: opset {model.index.opset['']} cannot be converted: {error}") from error
    return model


@dataclass(frozen=True)
class _Scope:
    """What is known of the tensors of a graph or of a body.

    Attributes:
        specs: Types and shapes, of what a body captures too.
        static: Tensors that no input's values can change.
        borders: Positions of the nodes whose results leave their fused group.
        names: Names of the nodes.
        iteration: In the body of a Loop, the number of the iteration.
    """

    specs: Mapping[str, TensorSpec]
    static: frozenset[str]
    borders: frozenset[int]
    names: Sequence[str]
    iteration: str = ""

    @classmethod
    def of(cls, index: GraphIndex) -> _Scope:
        static = static_tensors(index)
        groups = fused_groups(index, static)
        # a group of exact operators alone rounds nothing; one that ends in them rounds before
        rounding = (g for g in groups if any(operator(index.nodes[p]) not in EXACT for p in g.nodes))
        return cls(index.specs, static, frozenset(g.nodes[-1] for g in rounding), index.names)

    def body(self, graph: onnx.GraphProto, inferred: onnx.GraphProto, op: str) -> _Scope:
        """The scope of a body: each of its nodes is a group of its own."""
        infos = [*inferred.input, *inferred.output, *inferred.value_info, *graph.input, *graph.output]
        specs = {i.name: spec for i in infos if (spec := spec_from_value_info(i)) is not None}
        inside = {i.name for i in graph.input}
        static = {n for n in self.static if n not in inside}
        for t in graph.initializer:
            static.add(t.name)
            spec = spec_from_value_info(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
            if spec is not None:
                specs[t.name] = spec
        for node in graph.node:
            if all(name in static for name in reads(node)):
                static.update(name for name in node.output if name)
        iteration = graph.input[0].name if op == "Loop" and graph.input else self.iteration
        borders = frozenset(p for p, n in enumerate(graph.node) if operator(n) not in EXACT)
        return _Scope({**self.specs, **specs}, frozenset(static), borders, [""] * len(graph.node), iteration)

    def floating(self, name: str) -> bool:
        spec = self.specs.get(name)
        return spec is not None and spec.dtype.name in _FLOATS

    def double(self, name: str) -> bool:
        spec = self.specs.get(name)
        return spec is not None and spec.dtype.name == "float64"

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A tensor's shape, with 1 for what is unknown."""
        spec = self.specs.get(name)
        if spec is None or spec.shape is None:
            return None
        return tuple(d if isinstance(d, int) else 1 for d in spec.shape)

    def known_shape(self, name: str) -> tuple[int, ...] | None:
        spec = self.specs.get(name)
        if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape):
            return None
        return tuple(d for d in spec.shape if isinstance(d, int))


class _Writer:
    """Writes the nodes of a graph anew, with random roundings between them."""

    def __init__(self, index: GraphIndex, roundoff: Roundoff, gain: float) -> None:
        self.index = index
        self.roundoff = roundoff
        self.gain = gain
        self.rounding = roundings(roundoff.reference, roundoff.candidate, None, roundoff.accumulator)
        self.fp16_sums = roundings(roundoff.reference, roundoff.candidate, None, FP16)
        self.on_products = roundoff.coarse == TF32
        """Whether the coarser format rounds the operands of products alone."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.scales: dict[str, float] = {}
        self.sites = 0
        self._weights: dict[tuple[str, float], str] = {}

    # -- what is perturbed --------------------------------------------------------------------------------------

    def inputs(self) -> dict[str, str]:
        """Rounds the graph's inputs, where the candidate computes in a coarser format; returns their new names."""
        if not self.rounding.operand or self.on_products:
            return {}
        scope = _Scope.of(self.index)
        return {
            name: self.perturb(name, scope, self.rounding.operand)
            for name in self.index.inputs
            if scope.floating(name) and name not in self.index.outputs
        }

    def write(self, nodes: Iterable[onnx.NodeProto], scope: _Scope, inferred: onnx.GraphProto) -> None:
        """Writes the nodes of a graph."""
        typed = {tuple(n.output): n for n in inferred.node}
        for position, node in enumerate(nodes):
            if all(name in scope.static for name in node.output if name):
                self.nodes.append(node)
                continue
            for a in node.attribute:
                if a.type == onnx.AttributeProto.GRAPH:
                    self._body(a, scope, typed.get(tuple(node.output)), node.op_type)
            self._operands(node, scope, position)
            self._results(node, scope, position)

    def _body(self, own: onnx.AttributeProto, scope: _Scope, typed: onnx.NodeProto | None, op: str) -> None:
        inferred = next((a.g for a in typed.attribute if a.name == own.name), own.g) if typed is not None else own.g
        outside, weights = self.nodes, self._weights
        self.nodes, self._weights = [], dict(weights)
        self.write(list(own.g.node), scope.body(own.g, inferred, op), inferred)
        written, self.nodes, self._weights = self.nodes, outside, weights
        del own.g.node[:]
        own.g.node.extend(written)

    def _operands(self, node: onnx.NodeProto, scope: _Scope, position: int) -> None:
        """Rounds weights, the operands of a product in TF32, and for the sum of products one operand."""
        op = operator(node)
        data = [(slot, n) for slot, n in enumerate(node.input) if n and is_rounded(node, slot) and scope.floating(n)]
        weights = [(slot, n) for slot, n in data if n in scope.static and op in WEIGHTED]
        activations = [(slot, n) for slot, n in data if n not in scope.static]
        adding = self._adding(node, scope, position)[0]
        factor = next((slot for slot, _ in weights if slot == (2 if op in RECURRENT else 1)), None)
        for slot, name in weights:
            size = math.hypot(self._weight(name), adding if slot == factor and op in _PRODUCTS else 0.0)
            if size:
                node.input[slot] = self._once(name, scope, size)
        summed = adding and not (factor is not None and op in _PRODUCTS)
        for number, (slot, name) in enumerate(activations):
            size = adding if summed and not number else 0.0
            if self.on_products and op in _PRODUCTS and slot < 2:
                size = math.hypot(size, self.rounding.operand)
            if size:
                node.input[slot] = self.perturb(name, scope, size)

    def _adding(self, node: onnx.NodeProto, scope: _Scope, position: int) -> tuple[float, float]:
        """The rounding of a sum: relative to a sum of random signs, and relative to the sum itself."""
        if operator(node) in EXACT:
            return 0.0, 0.0
        rounding = self.fp16_sums if scope.names[position] in self.roundoff.fp16_sums else self.rounding
        count = term_count(node, scope.shape)
        if count <= 1:
            return 0.0, 0.0
        if operator(node) in PRODUCTS and rounding.products > 1:
            return rounding.adding(count, at_once(node) > 1)
        return (
            self.rounding.adding(min(count, CHAIN), False)
            if self.rounding.products == 1
            else (FP32.u * math.sqrt(KAPPA * min(count, CHAIN)), 0.0)
        )

    def _results(self, node: onnx.NodeProto, scope: _Scope, position: int) -> None:
        """Rounds what a node returns."""
        op = operator(node)
        self.nodes.append(node)
        if op in EXACT or any(True for _ in subgraphs(node)):
            if position not in scope.borders or any(True for _ in subgraphs(node)):
                return
            size = 0.0
        else:
            size = self.rounding.inner * (TRANSCENDENTAL if op in LIBRARY_FUNCTIONS else 1.0)
            size = math.hypot(size, self._adding(node, scope, position)[1])
        if (position in scope.borders or self.roundoff.every_node) and not self.on_products:
            size = math.hypot(size, self.rounding.operand)
        for slot, name in enumerate(node.output):
            if not name or not scope.floating(name):
                continue
            own = size
            stored = BY_DTYPE[scope.specs[name].dtype.name]
            if stored.name in ("fp16", "bf16") and op not in EXACT:
                own = math.hypot(own, math.sqrt(2 * KAPPA) * stored.u)
            if own:
                node.output[slot] = f"{name}/exact"
                absolute = FP32.u if op in ABSOLUTE or op in RECURRENT else 0.0
                self.perturb(node.output[slot], scope, own, name, step=absolute)

    def _weight(self, name: str) -> float:
        """How a weight is rounded, relatively."""
        fmt = self.roundoff.coarse
        value = self.index.weight(name)
        if value is not None and value.dtype.name in _NARROW:
            return math.sqrt(KAPPA) * BY_DTYPE[value.dtype.name].u if self.roundoff.rounded_weights else 0.0
        if self.rounding.operand and value is not None and value.dtype == np.float32 and fmt.dtype in _NARROW:
            with np.errstate(over="ignore"):
                if np.array_equal(value.astype(dtype_of(fmt)).astype(np.float32), value):
                    return 0.0
        return self.rounding.operand

    def _once(self, name: str, scope: _Scope, size: float) -> str:
        """A weight's perturbed value: one for all its readers in a graph."""
        key = (name, size)
        if key not in self._weights:
            self._weights[key] = self.perturb(name, scope, size, weight=True)
        return self._weights[key]

    # -- writing ------------------------------------------------------------------------------------------------

    def emit(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], f"{POOL}/{output}", **attributes))
        return output

    def constant(self, value: Sequence[int] | float, dtype: type = np.int64) -> str:
        name = f"{POOL}/{dtype.__name__} {value!r}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(value, dtype), name)
        return name

    def perturb(
        self,
        name: str,
        scope: _Scope,
        size: float,
        target: str = "",
        *,
        weight: bool = False,
        step: float = 0.0,
    ) -> str:
        """Writes x (1 + size n), plus ``step`` times n; returns the new name."""
        self.sites += 1
        known = target or name
        target = target or f"{name}/r{self.sites}"
        prefix = f"{target}/n{self.sites}"
        double = scope.double(known)
        size, step = self.gain * size, self.gain * step
        if double:
            size, step = size * FP64.u / FP32.u, step * FP64.u / FP32.u
        # a pool for each size of activations; weights have too many sizes
        unit = weight or double or bool(step)
        pool = UNIT if unit else f"{POOL}/{size!r}"
        self.scales[pool] = 1.0 if unit else size
        noise = self._window(pool, name, scope.known_shape(known), prefix, scope.iteration)
        if not unit:
            return self.emit("Mul", [name, noise], target)
        kind = np.float64 if double else np.float32
        if double:
            noise = self.emit("Cast", [noise], f"{prefix}/double", to=TensorProto.DOUBLE)
        relative = self.emit("Mul", [noise, self.constant(size, kind)], f"{prefix}/relative")
        factor = self.emit("Add", [relative, self.constant(1.0, kind)], f"{prefix}/factor")
        if not step:
            return self.emit("Mul", [name, factor], target)
        scaled = self.emit("Mul", [name, factor], f"{prefix}/scaled")
        absolute = self.emit("Mul", [noise, self.constant(step, kind)], f"{prefix}/absolute")
        return self.emit("Add", [scaled, absolute], target)

    def _window(self, pool: str, name: str, shape: tuple[int, ...] | None, prefix: str, iteration: str) -> str:
        """Random numbers out of a pool, in the shape of a tensor."""
        start = self.sites * 1037189 % SPREAD
        if shape is not None and not iteration:
            ends = [self.constant([start]), self.constant([start + math.prod(shape)])]
            window = self.emit("Slice", [pool, *ends], f"{prefix}/row")
            return self.emit("Reshape", [window, self.constant(shape)], f"{prefix}/n")
        dims = self.emit("Shape", [name], f"{prefix}/shape")
        count = self.emit("ReduceProd", [dims], f"{prefix}/count", keepdims=1)
        first = self.constant([start])
        if iteration:
            steps = self.emit("Mul", [iteration, self.constant([7919])], f"{prefix}/steps")
            moved = self.emit("Add", [steps, first], f"{prefix}/moved")
            wrapped = self.emit("Mod", [moved, self.constant([SPREAD])], f"{prefix}/wrapped")
            first = self.emit("Reshape", [wrapped, self.constant([1])], f"{prefix}/first")
        end = self.emit("Add", [count, first], f"{prefix}/end")
        row = self.emit("Slice", [pool, first, end], f"{prefix}/row")
        return self.emit("Reshape", [row, dims], f"{prefix}/n")


def dtype_of(fmt: NumberFormat) -> np.dtype:
    """The NumPy dtype that stores a format."""
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, fmt.dtype, fmt.dtype))


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for slot, name in enumerate(node.input):
        node.input[slot] = names.get(name, name)
    for body in subgraphs(node):
        for inner in body.node:
            _rename(inner, names)
