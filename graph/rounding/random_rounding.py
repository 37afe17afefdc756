"""A whole network in which every rounding is drawn at random: how far rounding alone may move its outputs.

This is Monte Carlo arithmetic (D. S. Parker, *Monte Carlo Arithmetic*, UCLA CSD-970002, 1997) at the granularity of
tensors, as `graph.rounding.noise_probe` does it for single layers. Wherever two sides of a comparison round a value
differently, the value x becomes x (1 + s n) with n drawn from a normal distribution, and s the standard deviation of
the relative rounding error:

- results: sqrt(kappa) u of the coarser format at the border of each fused group, kappa = 0.180 (`roundings.KAPPA`);
  inside a group, and between two FP32 runtimes everywhere, that of FP32 on both sides;
- operands of operators that add up what they compute themselves (a BatchNormalization, a DFT), as results inside a
  group are, unless the node before has left its noise there;
- weights: sqrt(kappa) u, where the format does not hold them exactly; each weight once, whoever reads it;
- sums of K products: sqrt(kappa) u_acc sqrt(K / 2), by perturbing one operand, so that products which cancel in the sum
  leave as much noise as large ones that do not; sums of K terms of one sign, which a reduction may add up one after the
  other: sqrt(kappa) u_acc sqrt(K / 3) of their result; sums in FP16 as `roundings.Roundings.adding` says;
- numbers below a format's smallest normal number (`Roundoff.subnormals`): its smallest subnormal over sqrt(12), and
  never more than the number itself, so that none changes its sign and zero stays zero; twice that for weights, which a
  target may lift to the smallest subnormal number;
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
from onnx import TensorProto, helper

from ..blocked import blocked_tensors, known_as
from ..cutting.fusion import fused_groups, static_tensors
from ..formats import BY_DTYPE, FP16, FP32, TF32, NumberFormat
from ..index import GraphIndex
from ..inference import infer_shapes
from ..nodes import attribute_int, attribute_ints, reads, subgraphs
from ..operators import (
    ABSOLUTE,
    LIBRARY_FUNCTIONS,
    POINTWISE,
    PRODUCTS,
    RECURRENT,
    SEVERAL_STEPS,
    WEIGHTED,
    Kind,
    facts_of,
    operator,
)
from ..specs import TensorSpec, dtype_name, spec_from_value_info
from .fp16_accumulation import at_once
from .fractions import fractions
from .inlined import inlined
from .least_noise import least_noise
from .newer_opset import in_newer_opset
from .noise_pool import POOL, NoiseWriter, Place
from .recurrent import step_by_step
from .round_array import UNSCALED, round_array
from .rounding_sides import Roundoff
from .roundings import EXACT, KAPPA, NEGLIGIBLE, SPECTRAL, TRANSCENDENTAL, is_rounded, roundings, together
from .term_count import ensemble_terms, term_count
from .widening import widen

if TYPE_CHECKING:
    from ..model import Model

GAIN = 8.0
"""By how much FP32's roundings are enlarged, to stand above those that the run makes by itself."""
CHAIN = 512
"""Most products of a sum that count: longer sums are made of parts, whose errors add up otherwise than a chain's."""
LONGEST = 1 << 16
"""The same for reductions, which some runtimes compute as one chain."""
UNKNOWN = 4096
"""Terms of a loss of whose inputs nothing is known."""
EXCERPT = 1 << 12
"""Values of a weight that are looked at before all of them are."""
GATES = 2.0
"""By how much the roundings of a recurrent cell's gates enlarge that of its state: three LSTMs in TensorRT's FP16 erred
3.7 times as much as the rounding of their states alone explains."""
_PRODUCTS = PRODUCTS | RECURRENT
_NARROW = ("float16", "bfloat16")
_FLOATS = ("float64", "float32", *_NARROW)


@dataclass(frozen=True)
class RandomRounding:
    """A network with random roundings.

    Attributes:
        model: The network. Beside its own inputs it takes the pools.
        scales: Pools by input name: the standard deviation of their numbers. A pool of scale s holds 1 + s n; the pool
            `noise_pool.UNIT` holds n itself.
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


def randomized(model: Model, roundoff: Roundoff, gain: float | None = None) -> RandomRounding:
    """The network with random roundings.

    Args:
        model: The network.
        roundoff: What is rounded.
        gain: By how much roundings are enlarged; None: `GAIN` between FP32 runtimes, 1 where a side is coarser.

    Raises:
        ModelError: The network is of an old opset that cannot be converted.
    """
    model = _prepared(model)
    if roundoff.coarse.u > FP32.u:
        model = step_by_step(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if gain is None:
        narrow = roundoff.stored or any(dtype_name(spec.dtype) in _NARROW for spec in model.index.specs.values())
        gain = 1.0 if narrow or roundoff.coarse.u > FP32.u else GAIN
    writer = _Writer(model.index, roundoff, gain)
    nodes = list(proto.graph.node)
    renamed = writer.inputs()
    for node in nodes:
        _rename(node, renamed)
    writer.write(nodes, _Scope.of(model.index, roundoff.by_value), infer_shapes(model.proto).graph)
    del proto.graph.node[:]
    proto.graph.node.extend(writer.nodes)
    proto.graph.initializer.extend(writer.constants.values())
    widen(proto.graph)
    for name in writer.scales:
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]))
    return RandomRounding(model.derive(proto), dict(writer.scales), gain, writer.sites)


def _prepared(model: Model) -> Model:
    """The model without functions of its own, in an opset that has the operators which draw."""
    return in_newer_opset(inlined(model))


@dataclass(frozen=True)
class _Scope:
    """What is known of the tensors of a graph or of a body.

    Attributes:
        specs: Types and shapes, of what a body captures too.
        static: Tensors that no input's values can change.
        borders: Positions of the nodes whose results leave their fused group.
        names: Names of the nodes.
        iteration: In the body of a Loop or Scan, the name of the iteration's number.
        claimed: Outputs of the model, of which a file may say shapes that do not hold: those of an STFT follow from the
            values of its inputs. Tensors of a blocked layout, whose channels are filled up to whole blocks.
        by_value: Whether vectors of equal values are rounded alike.
        channels_first: Tensors whose second axis is the channels', with ``by_value``.
    """

    specs: Mapping[str, TensorSpec]
    static: frozenset[str]
    borders: frozenset[int]
    names: Sequence[str]
    iteration: str = ""
    claimed: frozenset[str] = frozenset()
    by_value: bool = False
    channels_first: frozenset[str] = frozenset()

    @classmethod
    def of(cls, index: GraphIndex, by_value: bool = False) -> _Scope:
        static = static_tensors(index)
        groups = fused_groups(index, static)
        # a group of exact operators alone rounds nothing; one that ends in them rounds before
        rounding = (g for g in groups if any(operator(index.nodes[p]) not in EXACT for p in g.nodes))
        claimed = frozenset(index.outputs) | frozenset(blocked_tensors(index))
        borders = frozenset(g.nodes[-1] for g in rounding)
        channels_first = _channels_first(index.nodes) if by_value else frozenset()
        return cls(index.specs, static, borders, index.names, "", claimed, by_value, channels_first)

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
        number = {"Loop": 0, "Scan": -1}.get(op)
        iteration = self.iteration if number is None or not graph.input else graph.input[number].name
        borders = frozenset(p for p, n in enumerate(graph.node) if operator(n) not in EXACT)
        return _Scope({**self.specs, **specs}, frozenset(static), borders, [""] * len(graph.node), iteration)

    def floating(self, name: str) -> bool:
        spec = self.specs.get(name)
        return spec is not None and dtype_name(spec.dtype) in _FLOATS

    def place(self, name: str) -> Place:
        spec = self.specs.get(name)
        double = spec is not None and dtype_name(spec.dtype) == "float64"
        return Place(self.known_shape(name), double, self.iteration, vectors=self._vectors(name))

    def _vectors(self, name: str) -> int | None:
        """The axis of the vectors that are rounded alike where they are equal, counted from the last one."""
        spec = self.specs.get(name)
        if not self.by_value or spec is None or spec.shape is None or len(spec.shape) < 2:
            return None
        return 1 - len(spec.shape) if name in self.channels_first else -1

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A tensor's shape, with 1 for what is unknown."""
        spec = self.specs.get(name)
        if spec is None or spec.shape is None:
            return None
        return tuple(d if isinstance(d, int) else 1 for d in spec.shape)

    def known_shape(self, name: str) -> tuple[int, ...] | None:
        spec = None if name in self.claimed else self.specs.get(name)
        if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape):
            return None
        return tuple(d for d in spec.shape if isinstance(d, int))


class _Writer(NoiseWriter):
    """Writes the nodes of a graph anew, with random roundings between them."""

    def __init__(self, index: GraphIndex, roundoff: Roundoff, gain: float) -> None:
        self.rounding = roundings(roundoff.reference, roundoff.candidate, None, roundoff.accumulator)
        doubles = [1.0] if roundoff.doubles else []
        super().__init__(gain, *doubles, opset=index.opset.get("", 1), common=gain * self.rounding.operand)
        self.index = index
        self.roundoff, self.stored = roundoff, dict(roundoff.stored)
        self.fp16_sums = roundings(roundoff.reference, roundoff.candidate, None, FP16)
        self.on_products = roundoff.coarse == TF32
        """Whether the coarser format rounds the operands of products alone."""
        self.smallest = roundoff.coarse.smallest_subnormal / math.sqrt(12) if roundoff.subnormals else 0.0
        """Standard deviation of what the rounding of subnormal numbers adds."""
        self._weights: dict[tuple[str, float], str] = {}
        self._fractions = frozenset() if self.rounding.operand or doubles else fractions(index)
        self._noisy: set[str] = set()
        """Tensors with the noise of what was computed last."""
        self._least: dict[str, float] = {}
        """How much noise a tensor has at least, relative to each element; see `least_noise`."""

    # -- what is perturbed --------------------------------------------------------------------------------------

    def inputs(self) -> dict[str, str]:
        """Rounds the graph's inputs, where the candidate computes in a coarser format or casts them to one; returns
        their new names."""
        usual = 0.0 if self.on_products else self.rounding.operand
        cast = {name: math.sqrt(KAPPA) * fmt.u for name, fmt in self.roundoff.inputs}
        sizes = {name: math.hypot(usual, cast.get(name, 0.0)) for name in self.index.inputs}
        scope = _Scope.of(self.index, self.roundoff.by_value)
        return {
            name: self.perturb(name, scope.place(name), size, smallest=self.smallest)
            for name, size in sizes.items()
            if size and scope.floating(name) and name not in self.index.outputs
        }

    def write(self, nodes: Iterable[onnx.NodeProto], scope: _Scope, inferred: onnx.GraphProto) -> None:
        """Writes the nodes of a graph."""
        typed = {tuple(n.output): n for n in inferred.node}
        for position, node in enumerate(nodes):
            if all(name in scope.static for name in node.output if name):
                self.nodes.append(node)
                continue
            if operator(node) == "Scan":
                self._number_steps(node)
            for a in node.attribute:
                if a.type == onnx.AttributeProto.GRAPH:
                    self._body(a, scope, typed.get(tuple(node.output)), node.op_type)
            own = node.op_type, node.domain
            node.op_type, node.domain = known_as(node)
            self._perturbed(node, scope, position)
            node.op_type, node.domain = own

    def _perturbed(self, node: onnx.NodeProto, scope: _Scope, position: int) -> None:
        """Writes a node with the roundings of what it reads and makes."""
        # both before the operands get other names, whose shapes nobody knows
        adding, sums = self._adding(node, scope, position)
        sums = math.hypot(sums, self._chain(node, scope))
        before = max((self._least.get(name, 0.0) for name in node.input), default=0.0)
        perturbed = self._operands(node, scope, adding)
        least = least_noise(node, perturbed, max(term_count(node, scope.shape), 1), before)
        self._results(node, scope, position, sums, least)

    def _number_steps(self, node: onnx.NodeProto) -> None:
        """Gives the body of a Scan the number of its step, as that of a Loop has it."""
        body = next(subgraphs(node))
        count = attribute_int(node, "num_scan_inputs", 1)
        axes = attribute_ints(node, "scan_input_axes")
        first = node.input[len(node.input) - count]
        name = f"{POOL}/{node.output[0]}/step"
        dims = self.emit("Shape", [first], f"{name}/shape")
        steps = self.emit("Gather", [dims, self.constant(axes[0] if axes else 0)], f"{name}/steps", axis=0)
        node.input.append(self.emit("Range", [self.constant(0), steps, self.constant(1)], f"{name}/all"))
        body.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
        for a in node.attribute:
            if a.name == "num_scan_inputs":
                a.i = count + 1
            elif a.name in ("scan_input_axes", "scan_input_directions"):
                a.ints.append(0)

    def _body(self, own: onnx.AttributeProto, scope: _Scope, typed: onnx.NodeProto | None, op: str) -> None:
        inferred = next((a.g for a in typed.attribute if a.name == own.name), own.g) if typed is not None else own.g
        outside, weights = self.nodes, self._weights
        self.nodes, self._weights = [], dict(weights)
        self.write(list(own.g.node), scope.body(own.g, inferred, op), inferred)
        written, self.nodes, self._weights = self.nodes, outside, weights
        del own.g.node[:]
        own.g.node.extend(written)

    def _operands(self, node: onnx.NodeProto, scope: _Scope, adding: float) -> dict[int, float]:
        """Rounds weights, the operands of a product in TF32, and for the sum of products one operand by ``adding``.
        Returns by how much which weights."""
        op = operator(node)
        data = [(slot, n) for slot, n in enumerate(node.input) if n and is_rounded(node, slot) and scope.floating(n)]
        weights = [(slot, n) for slot, n in data if n in scope.static and (op in WEIGHTED or n in self.stored)]
        activations = [(slot, n) for slot, n in data if n not in scope.static]
        factor = next((slot for slot, _ in weights if slot == (2 if op in RECURRENT else 1)), None)
        inner = self.rounding.inner if op in SEVERAL_STEPS else 0.0
        if facts_of(node).kind is Kind.RESAMPLING:  # the weights of neighbours follow from rounded coordinates
            inner *= 2 * TRANSCENDENTAL
        perturbed: dict[int, float] = {}
        for slot, name in weights:
            size = together(self._weight(name, op), adding if slot == factor and op in _PRODUCTS else inner)
            if size:
                node.input[slot], perturbed[slot] = self._once(name, scope, size), size
        summed = adding and not (factor is not None and op in _PRODUCTS)
        for number, (slot, name) in enumerate(activations):
            size = math.hypot(adding if summed and not number else 0.0, 0.0 if name in self._noisy else inner)
            if self.on_products and op in _PRODUCTS and (slot < 2 or (op in RECURRENT and slot == 5)):
                size = math.hypot(size, self.rounding.operand)
            if size:
                node.input[slot] = self.perturb(name, scope.place(name), size)
        return perturbed

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
        if self.rounding.products == 1:
            return self.rounding.adding(min(count, CHAIN), False)
        return FP32.u * math.sqrt(KAPPA * min(count, CHAIN)), 0.0

    def _chain(self, node: onnx.NodeProto, scope: _Scope) -> float:
        """What a chain of additions of one sign leaves, where a reduction, an average or a loss may be computed so."""
        count, shape = term_count(node, scope.shape), scope.shape(node.input[0]) if node.input else None
        if facts_of(node).kind is Kind.OTHER:
            count = UNKNOWN if shape is None else math.prod(shape)
        elif facts_of(node).kind not in (Kind.REDUCTION, Kind.POOLING):
            return 0.0
        return FP32.u * math.sqrt(KAPPA * min(count, LONGEST) / 3) if count > 1 else 0.0

    def _results(self, node: onnx.NodeProto, scope: _Scope, position: int, sums: float, least: float) -> None:
        """Rounds what a node returns; ``sums`` is the rounding of its sums, relative to themselves, and ``least`` the
        noise that it has in any case."""
        op = operator(node)
        exact = op in EXACT - ABSOLUTE or not self._fractions.isdisjoint(node.output)
        self.nodes.append(node)
        cast = op == "Cast" and node.output[0] in self.roundoff.casts
        if exact and any(name in self._noisy for name in node.input):
            self._noisy.update(name for name in node.output if name)
        if (exact and not cast) or any(True for _ in subgraphs(node)):
            if position not in scope.borders or any(True for _ in subgraphs(node)):
                return
            size = 0.0
        else:
            size = self.rounding.inner * (TRANSCENDENTAL if op in LIBRARY_FUNCTIONS else 1.0)
            size = math.hypot(size, sums)
        if facts_of(node).kind is Kind.CLASSICAL:  # a score of many terms, and a function of it
            size = math.hypot(size, self.rounding.inner * TRANSCENDENTAL * math.sqrt(ensemble_terms(node)))
        smallest = 0.0
        if (position in scope.borders or self.roundoff.every_node) and not self.on_products:
            # kernels round the gates of a recurrent cell too, and not its state alone
            cell = GATES if op in RECURRENT else 1.0
            size, smallest = together(size, cell * self.rounding.operand), self.smallest
        for slot, name in enumerate(node.output):
            self._least.pop(name, None)  # another body's
            if not name or not scope.floating(name):
                continue
            own, lost = size, smallest
            stored = BY_DTYPE[dtype_name(scope.specs[name].dtype)]
            if stored.name in ("fp16", "bf16") and (cast or op not in EXACT):
                own = math.hypot(own, math.sqrt(KAPPA if cast else 2 * KAPPA) * stored.u)
                if self.roundoff.subnormals:
                    lost = max(lost, stored.smallest_subnormal / math.sqrt(12))
            if own and own <= NEGLIGIBLE * least and not lost:
                self._noisy.add(name)
                self._least[name] = least
            elif own:
                self._least[name] = max(own, least)
                node.output[slot] = f"{name}/exact"
                step = FP32.u if op in ABSOLUTE or op in RECURRENT else 0.0
                spectrum = SPECTRAL * FP32.u if facts_of(node).kind is Kind.SPECTRUM else 0.0
                self.perturb(node.output[slot], scope.place(name), own, name, step=step, smallest=lost, mean=spectrum)
                self._noisy.add(name)

    def _weight(self, name: str, op: str) -> float:
        """How a weight of an operator is rounded, relatively."""
        if name in self.stored:
            return math.sqrt(KAPPA) * self.stored[name].u
        if self.on_products and op not in _PRODUCTS:
            return 0.0
        fmt, value = self.roundoff.coarse, self.index.weight(name)
        if value is not None and value.dtype.name in _NARROW:
            return math.sqrt(KAPPA) * BY_DTYPE[value.dtype.name].u if self.roundoff.rounded_weights else 0.0
        if self.rounding.operand and value is not None and value.dtype == np.float32 and fmt.name in UNSCALED:
            return 0.0 if _holds(fmt, value) else self.rounding.operand
        return self.rounding.operand

    def _lifted(self, name: str) -> float:
        """How a weight with subnormal numbers is rounded, absolutely: a target may lift them to the smallest one."""
        value = self.index.weight(name) if self.smallest else None
        if value is None or value.size == 1 or value.dtype.kind != "f":
            return 0.0
        size = np.abs(value)
        lost = (size > 0) & (size < self.roundoff.coarse.smallest_normal)
        return 2 * self.smallest if lost.any() else 0.0

    def _once(self, name: str, scope: _Scope, size: float) -> str:
        """A weight's perturbed value: one for all its readers in a graph."""
        key = (name, size)
        if key not in self._weights:
            self._weights[key] = self.perturb(name, scope.place(name), size, weight=True, step=self._lifted(name))
        return self._weights[key]


def _channels_first(nodes: Iterable[onnx.NodeProto]) -> frozenset[str]:
    """Tensors whose second axis is the channels': of the operators that take it for that, and of what is computed from
    them element by element."""
    found: set[str] = set()
    for node in nodes:
        if facts_of(node).channels_first:
            found.add(node.input[0])
            found.update(node.output)
        elif operator(node) in POINTWISE and not found.isdisjoint(node.input):
            found.update(node.output)
    return frozenset(found)


def _holds(fmt: NumberFormat, weight: np.ndarray) -> bool:
    """Whether a format holds a weight exactly. The first of its values tell nearly always that it does not."""
    excerpt = weight.reshape(-1)[:EXCERPT]
    return all(np.array_equal(round_array(values, fmt.name), values) for values in (excerpt, weight))


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for slot, name in enumerate(node.input):
        node.input[slot] = names.get(name, name)
    for body in subgraphs(node):
        for inner in body.node:
            _rename(inner, names)
