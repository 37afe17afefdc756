"""How far rounding alone may move a layer's output: the layer with its roundings made random and large.

A copy of each layer is perturbed wherever the two sides round differently: at its operands, after each of its nodes,
and once more at the data operand of a sum of K products for the roundings of the accumulator. What the perturbation
does to the output, scaled back, is the expected noise of that output. This is Monte Carlo arithmetic (D. S. Parker,
*Monte Carlo Arithmetic*, UCLA CSD-970002, 1997) at the granularity of tensors. For a sum of K products with operands a
and b it reproduces

    sigma^2 = kappa [(u_a^2 + u_b^2 + u_acc^2 K / 2) (A o A)(B o B)],    kappa = (3/8) / (3 ln 2)

and it needs no formula for any other operator: softmax, GELU in pieces, LSTM, a fused group. kappa is the mean square
of a rounding error in units of u, for values whose logarithm is spread evenly. An accumulator narrower than FP32 is a
tensor core's, which rounds once for 16 products (`graph.rounding.fp16_accumulation`): n = ceil(K / 16) - 1 times. Its
partial sums are known as far as the sum is: those of a walk that ends at S = A B add n (S^2 / 3 + (A o A)(B o B) / 6)
instead of K / 2, which is n / 2 on average where signs are random, and more where the terms agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from ..cutting import dataflow as flow
from ..cutting.slices import Slice, backward, explode, exploded_name, original_name
from ..errors import RunnerError
from ..formats import FP32
from ..index import GraphIndex, is_fill
from ..inference import infer_shapes
from ..operators import (
    ABSOLUTE,
    CASTS,
    CONTRIB_DOMAIN,
    LIBRARY_FUNCTIONS,
    ML_DOMAIN,
    PRODUCTS,
    STANDARD_DOMAINS,
    WEIGHTED,
    Kind,
    facts_of,
    operator,
)
from ..specs import Arrays, TensorSpec, dtype_name, spec_from_value_info
from ..writer import GraphWriter, Names
from .fp16_accumulation import at_once
from .least_noise import least_noise
from .newer_opset import in_newer_opset
from .noise_pool import NoiseWriter, Place, Pools, scales_in
from .rewrite import Rewrite
from .roundings import EXACT, NEGLIGIBLE, SPECTRAL, TRANSCENDENTAL, Roundings, Step, is_rounded
from .term_count import term_count
from .widening import widen

if TYPE_CHECKING:
    from ..model import Model

_KNOWN_DOMAINS = STANDARD_DOMAINS | {CONTRIB_DOMAIN, ML_DOMAIN}


_FLOAT = {False: TensorProto.FLOAT, True: TensorProto.DOUBLE}


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


OLDEST = 10
"""The oldest opset whose Slice takes its bounds as inputs, which is how noise is taken out of a pool."""


VARIANTS = 16
"""Layers are judged each by itself, so that every 16th may be moved by the same random numbers: a probe of thousands of
small layers would else hold more nodes that fetch random numbers than nodes of layers."""
SMALLEST_POOL, LARGEST_POOL = 1 << 20, 1 << 27
"""Numbers in a pool of noise: as many as the largest tensor has elements."""


def drawing(model: Model) -> Model:
    """The model in an opset in which noise can be drawn: itself from `OLDEST` on. Tensors keep their names.

    Raises:
        ModelError: It is of an older opset, and cannot be converted.
    """
    return model if model.index.opset.get("", OLDEST) >= OLDEST else in_newer_opset(model)


def recut(model: Model, parts: Sequence[tuple[int, Slice]]) -> list[tuple[int, Slice]]:
    """The same slices in what `drawing` made of their model.

    Raises:
        ModelError: A tensor has another name there.
    """
    return [(number, backward(model.index, part.outputs, part.inputs)) for number, part in parts]


def perturbed(
    model: Model,
    parts: Sequence[tuple[int, Slice]],
    specs: Mapping[str, TensorSpec],
    rounding: Roundings,
    *,
    seed: int = 1,
    alike: bool = False,
) -> Rewrite:
    """An exploded model (see `explode`) of perturbed layers.

    Args:
        model: The reference's model.
        parts: The layers' slices with their numbers.
        specs: Types and shapes of the tensors that are fed, as measured.
        rounding: What is rounded.
        seed: Of the perturbations of weights that are perturbed alike, and of grids; all others are the pool's.
        alike: Whether weights of equal magnitude are perturbed alike, as they are rounded alike. It takes a pass over
            the weights, and matters where they repeat: what independent roundings average out, equal ones add up.

    Returns:
        A model with the inputs and outputs of ``explode(model, parts, specs)``, and more inputs where anything is
        perturbed: the pools of `noise_pool`, whose numbers are the noise. Its outputs differ from the exact ones
        by noise of ``rounding.gain`` times the expected size, without the rounding of the result. Its graph has not
        been looked at yet: `add_bounds` may still add to it.
    """
    exploded = explode(model, parts, specs)
    shapes = _shapes(exploded.proto)
    graph = exploded.proto.graph  # nobody else holds it
    nodes = iter(list(graph.node))
    del graph.node[:]
    perturber = _Perturber(model.index, graph, specs, rounding, seed, alike, shapes)
    for number, part in parts:
        perturber.start()
        for _ in part.nodes:
            perturber.add(next(nodes), number)
    graph.node.extend(perturber.writer.nodes)
    graph.initializer.extend([*perturber.writer.initializers, *perturber.noise.constants.values()])
    widen(graph)
    pools = (onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in perturber.noise.scales)
    graph.input.extend(pools)
    return Rewrite(exploded)


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors that follow from those of the inputs."""
    graph = infer_shapes(proto).graph
    found = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        spec = spec_from_value_info(info)
        shape = () if spec is None or spec.shape is None else tuple(d for d in spec.shape if isinstance(d, int))
        if spec is not None and spec.shape is not None and len(shape) == len(spec.shape):
            found[info.name] = shape
    return found


def drawn(
    probe: Model,
    feed: Arrays,
    number: int,
    run: Callable[[Model, Arrays], Arrays],
) -> Arrays:
    """What a perturbed model gives in one draw.

    Args:
        probe: What `perturbed` made, or `randomized`; nobody else holds its graph.
        feed: The values of its own inputs.
        number: Of the draw.
        run: Runs a model.

    Raises:
        LayerdiffError: The model cannot be run.
    """
    scales = scales_in(i.name for i in probe.proto.graph.input)
    pools = [i for i in probe.proto.graph.input if i.name in scales]
    if not pools:
        return run(probe, feed)
    sizes = [a.size for a in feed.values()] + [math.prod(t.dims) for t in probe.proto.graph.initializer]
    size = max([*sizes, SMALLEST_POOL])
    while True:
        numbers = Pools(scales, size)
        for pool in pools:
            pool.type.tensor_type.shape.dim[0].dim_value = numbers.size
        try:
            return run(probe.derive(probe.proto), {**feed, **numbers.draw(number)})
        except RunnerError as error:  # a tensor inside a layer may be larger than the pool
            if "reshape" not in str(error).lower() or size >= LARGEST_POOL:
                raise
            size *= 8


def _is_step(step: Step) -> bool:
    return bool(np.max(step, initial=0.0))


class _Perturber:
    """Writes the nodes of an exploded model again, with noise between them."""

    def __init__(
        self,
        index: GraphIndex,
        graph: onnx.GraphProto,
        specs: Mapping[str, TensorSpec],
        rounding: Roundings,
        seed: int,
        alike: bool,
        shapes: dict[str, tuple[int, ...]],
    ) -> None:
        self.index = index
        self.specs = specs
        self.rounding = rounding
        self.seed = seed
        self.alike = alike
        self.given = {i.name for i in graph.input}
        self.last = {o.name for o in graph.output}
        self.writer = GraphWriter(Names.of(graph), index.opset.get("", 1), "probe")
        # sizes are enlarged, and those of float64 meant for it
        common = rounding.gain * rounding.operand
        self.noise = NoiseWriter(1.0, double=1.0, opset=index.opset.get("", 1), common=common)
        self.noise.nodes = self.writer.nodes
        self._perturbed: dict[tuple[str, int], str] = {}
        self._sizes: dict[str, bool] = {}
        self._double: dict[str, bool] = {}  # of tensors that were written here: whether they are float64
        self._shapes = shapes
        self._count = 0
        self._draws: list[list[int]] = [[] for _ in range(VARIANTS)]
        self._slices = self._site = 0

    def start(self) -> None:
        """The next nodes are those of another slice."""
        self._slices, self._site = self._slices + 1, 0

    def _draw(self) -> int:
        """The number of the next draw of a slice (see `Place`)."""
        draws = self._draws[self._slices % VARIANTS]
        if self._site == len(draws):
            draws.append(self.noise.sites + 1)
        self._site += 1
        return draws[self._site - 1]

    # What is known of tensors

    def _spec(self, name: str) -> TensorSpec | None:
        name = original_name(name)
        return self.specs.get(name) or self.index.specs.get(name)

    def _floating(self, name: str) -> bool:
        spec = self._spec(name)
        return spec is not None and dtype_name(spec.dtype) in ("float64", "float32", "float16", "bfloat16")

    def _shape(self, name: str) -> tuple[int, ...] | None:
        spec = self._spec(name)
        if spec is None or spec.shape is None:
            return None
        return tuple(d if isinstance(d, int) else 1 for d in spec.shape)

    def _is_weight(self, name: str) -> bool:
        """Whether a tensor is a weight, or computed from constants and shapes alone: a runtime rounds it once."""
        name = original_name(name)
        computed = name in self.index.producer and flow.dataflow(self.index).kind.get(name) == flow.Kind.CONSTANT
        return name in self.index.initializers or computed

    def _is_size(self, name: str) -> bool:
        """Whether a number that is computed from constants and shapes alone becomes an integer: a size, or a count,
        whose root of 49 is 7 on either side."""
        name, kinds = original_name(name), flow.dataflow(self.index).kind
        if name not in self._sizes:
            made = [o for p in self.index.consumers.get(name, ()) for o in self.index.nodes[p].output if o]
            plain = name in self.index.producer and kinds.get(name) == flow.Kind.CONSTANT and self._floating(name)
            self._sizes[name] = plain and any(not self._floating(o) or self._is_size(o) for o in made)
        return self._sizes[name]

    def _is_double(self, name: str) -> bool:
        if name not in self._double:
            spec = self._spec(name)
            self._double[name] = spec is not None and spec.dtype == np.float64
        return self._double[name]

    def _moves(self, name: str, moved: str) -> None:
        """A new tensor has the shape and type of another one."""
        self._double[moved] = self._is_double(name)
        if name in self._shapes:
            self._shapes[moved] = self._shapes[name]

    # Nodes

    def add(self, node: onnx.NodeProto, number: int) -> None:
        """Writes a node of the slice with this number, with noise before and behind it."""
        if any(map(self._is_size, node.output)):
            self.writer.nodes.append(node)
            return
        op, rounding, gain = operator(node), self.rounding, self.rounding.gain
        exact, library = op in EXACT, op in LIBRARY_FUNCTIONS
        inputs = [self._operand(node, slot, number) for slot in range(len(node.input))]
        # operands that are rounded; beside that, what is negligible is left out
        rounded = {slot: gain * rounding.operand for slot, name in enumerate(inputs) if name != node.input[slot]}
        weights = {slot: size for slot, size in rounded.items() if self._is_weight(node.input[slot])}
        terms = 1 if exact else term_count(node, self._shape)
        drift = 0.0
        if terms > 1 and inputs and inputs[0]:
            size = rounding.accumulator * math.sqrt(terms / 2)
            if op in PRODUCTS:
                size, drift = rounding.adding(terms, at_once(node) > 1)
            slot = next((i for i, name in enumerate(node.input) if name and self._floating(name)), None)
            if slot is not None and gain * size > NEGLIGIBLE * rounded.get(slot, 0.0):
                inputs[slot] = self._perturb(inputs[slot], gain * size, 0.0)
        least = least_noise(node, weights, terms)
        node.input[:] = inputs
        inner = 0.0 if exact else rounding.inner * gain * (TRANSCENDENTAL if library else 1.0)
        inner = math.hypot(inner, gain * drift)
        inner = inner if inner > NEGLIGIBLE * least else 0.0
        made = [name for name in node.output if name and self._floating(name)]
        self.writer.nodes.append(node)
        # the last node's result is rounded too, but a library function is off by more than a rounding
        noisy = [name for name in made if inner and (name not in self.last or library or terms > 1)]
        steps = {name: step for name in made if _is_step(step := self._step(name, number))}
        raw = {name: self.writer.names.fresh(f"{name}__exact") for name in made if name in noisy or name in steps}
        node.output[:] = [raw.get(name, name) for name in node.output]
        for name, source in raw.items():
            self._moves(name, source)
            moved = source
            if name in noisy:
                absolute = gain * FP32.u if op in ABSOLUTE else 0.0
                spectrum = gain * SPECTRAL * FP32.u if facts_of(node).kind is Kind.SPECTRUM else 0.0
                moved = self._perturb(source, inner, absolute, None if name in steps else name, mean=spectrum)
            if name in steps:
                self._rounded(moved, steps[name], name)

    def _step(self, name: str, number: int) -> Step:
        """The rounding of a tensor of a layer to scaled integers."""
        original, steps = original_name(name), self.rounding.steps
        others = 0.0 if name in self.last else steps.get(original, 0.0)  # what a layer returns, another one may round
        return steps.get(exploded_name(original, number), others)

    def _operand(self, node: onnx.NodeProto, slot: int, number: int) -> str:
        """What a node reads, rounded where it is an operand that a target rounds."""
        name = node.input[slot]
        if not name or not self._floating(name):
            return name
        original, gain, step = original_name(name), self.rounding.gain, self._step(name, number)
        cast = operator(node) in CASTS and slot == 0 and _is_step(step)  # it is given what a quantizer gives
        if not cast and not is_rounded(node, slot):
            return name
        weight = self._is_weight(name)
        if operator(node) not in WEIGHTED and not _is_step(step) if weight else name not in self.given:
            return name
        # a target may lift subnormal weights to the smallest one
        floor = self.rounding.floor * (2 if weight else 1)
        absolute = gain * floor if original in self.rounding.small else 0.0
        return self._once(name, number, (gain * self.rounding.operand, absolute, step))

    # Noise

    def _once(self, name: str, number: int, moved: tuple[float, float, Step]) -> str:
        """One perturbation of a tensor for all readers of a layer, relative, absolute, and by the steps of scaled
        integers: it is rounded once."""
        key, (size, absolute, step) = (name, number), moved
        if key not in self._perturbed:
            found = name
            if size or absolute:
                weight = self.index.computed_weight(original_name(name)) if self.alike else None
                if weight is not None and weight.dtype.name in ("float32", "float16", "bfloat16"):
                    alike = self._perturb_fill if is_fill(weight) else self._perturb_alike
                    found = alike(name, weight, size, absolute)
                elif self._is_weight(name):
                    found = self._perturb(name, size, absolute)
                else:  # what is computed becomes zero at most: a root of it stays one
                    found = self._perturb(name, size, 0.0, smallest=absolute)
            self._perturbed[key] = self._rounded(found, step) if _is_step(step) else found
        return self._perturbed[key]

    def _rounded(self, name: str, step: Step, target: str | None = None) -> str:
        """Rounds to a grid of steps that is shifted at random. Returns the new name.

        Equal values are rounded alike, as a quantizer does it, and what they err by adds up where they are added up;
        zero stays zero, which every quantizer holds. ``step`` is the standard deviation.
        """
        self._count += 1
        write, double = self.writer, self._is_double(name)
        dtype = np.float64 if double else np.float32
        shift = np.random.default_rng([self.seed, self._count]).uniform(-0.5, 0.5)
        grid = np.asarray(step, np.float64) * math.sqrt(12)
        grid = grid.reshape(()) if grid.size == 1 else grid  # of whatever rank what it was stored for has
        grid = np.where(grid > 0, grid, np.finfo(np.float32).tiny)  # a channel of zeros has no step
        size = write.constant(grid.astype(dtype), "probe__step")
        offset = write.scalar(shift, dtype)
        whole = write.emit("Floor", [write.emit("Add", [write.emit("Div", [name, size]), offset])])
        centre = write.emit("Add", [whole, write.scalar(0.5 - shift, dtype)])
        nonzero = write.cast(write.cast(name, TensorProto.BOOL), _FLOAT[double])
        result = write.emit("Mul", [write.emit("Mul", [centre, size]), nonzero], target)
        self._moves(name, result)
        return result

    def _perturb_fill(self, name: str, weight: np.ndarray, size: float, step: float) -> str:
        """A weight of one value, which moves up or down as a whole."""
        value = self._perturb_alike(name, weight.reshape(-1)[:1].astype(np.float32), size, step)
        return self.writer.emit("Expand", [value, self.writer.emit("Shape", [name])])

    def _perturb_alike(self, name: str, weight: np.ndarray, size: float, step: float) -> str:
        """A weight moved by ``size`` of itself and by ``step``, up or down: values of equal magnitude alike. Whether up
        or down is drawn, how far is not: a single value would else be moved hardly at all in some draws."""
        self._count += 1
        weight = weight.astype(np.float32)
        magnitudes, which = np.unique(np.abs(weight), return_inverse=True)
        generator = np.random.default_rng([self.seed, self._count])
        signs = generator.choice(np.array([-1.0, 1.0], np.float32), (2, len(magnitudes)))
        up, shift = (sign[which].reshape(weight.shape) for sign in signs)
        with np.errstate(over="ignore"):  # a mask of -3.4e38
            moved = weight * (1 + np.float32(size) * up) + np.float32(step) * shift * np.sign(weight)
        moved_name = self.writer.constant(np.asarray(moved, np.float32), "probe__weight")
        self._double[moved_name] = False
        self._shapes[moved_name] = weight.shape
        return moved_name

    def _perturb(self, name: str, size: float, step: float, target: str | None = None, **more: float) -> str:
        """Multiplies by 1 + ``size`` times a normal variate, and adds ``step`` times another; for ``more`` see
        `NoiseWriter.perturb`. Returns the new name."""
        self._count += 1
        target = target or self.writer.names.fresh("probe__moved")
        self._moves(name, target)
        place = Place(self._shapes.get(name), self._is_double(name), draw=self._draw())
        if size and step:  # two draws, for one would cancel the other where values are negative
            name = self.noise.perturb(name, place, size, weight=True)
            size, place = 0.0, replace(place, draw=self._draw())
        return self.noise.perturb(name, place, size, target, weight=True, step=step, **more)
