"""The expected noise of layers: which roundings are in play in each, and what they do to its output."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.cutting.slices import Slice, exploded_name
from ...graph.errors import LayerdiffError
from ...graph.formats import BY_DTYPE, FP32, FP64, INT8, NumberFormat, coarser
from ...graph.index import GraphIndex
from ...graph.nodes import attribute_int
from ...graph.operators import BATCHWISE, CHOICES, PRODUCTS, QUANTIZERS, RECURRENT, SILENT
from ...graph.pairing.weight_changes import rounded_alike
from ...graph.rounding.error_bound import add_bounds
from ...graph.rounding.noise_probe import known, perturbed
from ...graph.rounding.roundings import Roundings, roundings
from ...graph.rounding.roundoff import ErrorBound, RoundoffModel, roundoff_model
from ...graph.rounding.term_count import term_count
from ...graph.specs import is_float, specs_of
from ..lockstep.units import LayerPair
from .judgement import SLICE, Judgement, common_gain, cut_off, judge, plain_noise

if TYPE_CHECKING:
    from ...runners.contract.runner import Runner
    from ..sides import Side

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

EXCERPT = 1 << 18
"""Elements of a tensor from which on one entry of the batch is judged instead of all."""
DRAWS = 12
"""Probes of a layer of which a few elements seem to be off. With so many degrees of freedom a healthy channel is beyond
`SLICE_LIMIT` once in a million."""
CONSTANTS = 2.0
"""Units roundoff by which weights of two files differ that were computed from the same constants in another order."""
HEAVY = 16.0
"""RMS over median from which on a tensor's norm speaks for a few large elements only (an attention mask of -1e4)."""

# fmt: off
_INT8 = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT16, onnx.TensorProto.UINT16)
# fmt: on


@dataclass
class Expected:
    """What rounding is expected to do to a layer.

    Attributes:
        noise: What one draw of it did to each output, enlarged; of `Noise.settled` the root mean square of many.
        gains: Of `Noise.settled`: root mean square of the gain that all channels of an output had in common.
        forms: What the hard bounds of the outputs are made of, as far as there are any.
        made: The tensors that those name.
        precision: What they were made with.
    """

    noise: Arrays = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)
    forms: dict[str, ErrorBound] = field(default_factory=dict)
    made: Arrays = field(default_factory=dict)
    precision: RoundoffModel | None = None

    def bound(
        self, name: str, result: np.ndarray, *, step: float = 0.0, adding: NumberFormat | None = None
    ) -> np.ndarray | None:
        """The largest error of an output that rounding explains; None if unknown.

        Args:
            name: The output.
            result: What the candidate returned.
            step: See `ErrorBound.value`.
            adding: The format that the candidate adds in, if not the one that it says.
        """
        form = self.forms.get(name)
        if form is None or self.precision is None or self.made[form.magnitude].shape != result.shape:
            return None
        if adding is None:
            return form.value(self.made, result, self.precision, step)
        looser = self.precision.adding_in(adding)
        sums = looser.gamma(form.roundings)
        if not math.isfinite(sums):
            return None
        return replace(form, relative=form.relative + (1 + form.relative) * sums).value(self.made, result, looser, step)


class Noise:
    """What rounding is expected to do.

    Args:
        reference, candidate: Who is compared.
        rounding: The roundings of a layer of which nothing special is known.
    """

    def __init__(self, reference: Side, candidate: Side, rounding: Roundings) -> None:
        self.reference = reference
        self.candidate = candidate
        self.rounding = rounding
        self.index: GraphIndex = reference.model.index
        self._sums: dict[int, float] = {}
        self._runner: Runner | None = None
        self._unprobed: set[LayerPair] = set()
        self._typed: dict[LayerPair, tuple[NumberFormat, NumberFormat]] = {}
        self._quantized: dict[LayerPair, bool] = {}
        self._quantizers: set[str] | None = None
        self._rounded: dict[LayerPair, bool] = {}
        self._bounded: dict[tuple[NumberFormat, NumberFormat], RoundoffModel | None] = {}

    @cached_property
    def _same(self) -> bool:
        return self.candidate.model.same_network(self.reference.model)

    @property
    def runner(self) -> Runner:
        """What runs pieces of the reference's graph: its own runner where that can, else ONNX Runtime."""
        if self._runner is None:
            self._runner = self.reference.runner
            if not self._runner.capabilities.pieces:
                from ...runners.onnxrt.runner import OnnxrtRunner

                self._runner = OnnxrtRunner()
        return self._runner

    def known(self, unit: LayerPair) -> bool:
        """Whether the expected noise of a layer can be told."""
        return unit not in self._unprobed and known(self.index, unit.reference)

    def of(self, unit: LayerPair, weights: bool = True) -> Roundings:
        """The roundings in a layer: more where the graphs themselves hold narrow types at its borders.

        Args:
            unit: The layer.
            weights: Whether to look at its weights, which may be rounded otherwise on the two sides.
        """
        if self.rounding.steps:
            return self.rounding
        if self.quantized(unit):
            return roundings(self.reference.runner.arithmetic, INT8, {"": 0.0}, self.candidate.runner.accumulator)
        mine, theirs = self.formats(unit)
        if (mine, theirs) != (self.reference.runner.arithmetic, self.candidate.runner.arithmetic):
            return roundings(mine, theirs, accumulator=self.candidate.runner.accumulator, typed=True)
        specs = self.index.specs
        if not self.rounding.operand and all(
            (spec := specs.get(n)) is not None and spec.dtype == np.float64 for n in unit.reference.outputs
        ):
            return _in_fp64(self.rounding)
        if weights and not self.rounding.operand and self._weights_rounded(unit):
            return replace(self.rounding, operand=CONSTANTS * FP32.u)
        return self.rounding

    def quantized(self, unit: LayerPair) -> bool:
        """Whether the candidate quantizes what a layer is given, where the reference's graph quantizes nothing."""
        if unit not in self._quantized:
            theirs = self.candidate.model.index
            if self._quantizers is None:
                mine = any(node.op_type in QUANTIZERS for node in self.index.nodes)
                made = {
                    o for p in range(len(theirs.nodes)) if _makes_int8(theirs, p) for o in theirs.nodes[p].output if o
                }
                self._quantizers = set() if mine or self._same else made
            made = self._quantizers
            self._quantized[unit] = bool(made) and any(
                name in made for p in unit.candidate.nodes for name in (*theirs.reads[p], *theirs.nodes[p].output)
            )
        return self._quantized[unit]

    def formats(self, unit: LayerPair) -> tuple[NumberFormat, NumberFormat]:
        """The formats that the reference and the candidate compute a layer in: their runners', or the graphs' own."""
        if unit not in self._typed:
            mine = _stored(self.index, unit.reference, inner=False)
            theirs = _stored(self.candidate.model.index, unit.candidate, inner=False)
            # types inside the layer alone are the candidate's own doing, unless the reference has them as well
            if theirs is not None or self._same:
                mine = mine or _stored(self.index, unit.reference, inner=True)
            elif mine is None:
                mine = _stored(self.index, unit.reference, inner=True)
                theirs = _stored(self.candidate.model.index, unit.candidate, inner=True) if mine else None
            self._typed[unit] = (
                _coarsest(self.reference.runner.arithmetic, mine),
                _coarsest(self.candidate.runner.arithmetic, theirs),
            )
        return self._typed[unit]

    def plain(self, unit: LayerPair, values: Mapping[str, np.ndarray]) -> float:
        """The relative L2 error that needs no closer look; 0 where the norm speaks for a few large elements only."""
        if any(_heavy(values[n]) for n in unit.reference.outputs if is_float(values[n].dtype)):
            return 0.0
        return plain_noise(self.of(unit, weights=False), self._terms(unit, values))

    def _terms(self, unit: LayerPair, values: Mapping[str, np.ndarray]) -> float:
        def shape(name: str) -> tuple[int, ...] | None:
            if name in values:
                return values[name].shape
            weight = self.index.initializers.get(name)
            return tuple(weight.dims) if weight is not None else None

        if unit.number not in self._sums:
            self._sums[unit.number] = max(term_count(self.index.nodes[p], shape) for p in unit.reference.nodes)
        return self._sums[unit.number]

    def result_step(self, unit: LayerPair, values: np.ndarray) -> float:
        """Standard deviation of roundings of a layer's result that no relative term covers."""
        step = 0.0
        if self.of(unit).steps and is_float(values.dtype) and values.size:
            step = step_deviation(values)
        return math.hypot(step, self._bias_step(unit))

    def _bias_step(self, unit: LayerPair) -> float:
        """Between quantized operands a runtime may round the bias to their product's step, and compute in integers."""
        largest = 0.0
        for position in unit.reference.nodes:
            node = self.index.nodes[position]
            if node.op_type in PRODUCTS | RECURRENT and len(node.input) > 1:
                scales = [self._scale(name) for name in node.input[:2]]
                if all(scales):
                    largest = max(largest, scales[0] * scales[1])
        return largest / math.sqrt(12)

    def _scale(self, name: str) -> float:
        """The scale of a tensor that a DequantizeLinear makes; 0 for others."""
        position = self.index.producer.get(name)
        if position is None or self.index.nodes[position].op_type != "DequantizeLinear":
            return 0.0
        scale = self.index.constant(self.index.nodes[position].input[1])
        return 0.0 if scale is None else float(np.abs(scale).max(initial=0.0))

    # -- measuring ----------------------------------------------------------------------------------------------

    def entry(self, unit: LayerPair, values: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> int | None:
        """The entry of the batch that is worth judging in place of the whole tensor: where the error is greatest.

        None where the tensor is small, or the layer may mix the entries of a batch.
        """
        name, other = unit.reference.outputs[0], unit.candidate.outputs[0]
        y, c = values[name], made[other]
        if len(unit.reference.outputs) > 1 or y.ndim < 2 or y.size < EXCERPT or y.shape != c.shape:
            return None
        batch = y.shape[0]
        if batch < 2 or any(self.index.nodes[p].op_type not in BATCHWISE for p in unit.reference.nodes):
            return None
        for tensor in (values[n] for n in unit.reference.inputs):
            if tensor.ndim < 2 or tensor.shape[0] != batch:
                return None
        if not is_float(y.dtype) or y.size // batch < SLICE:
            return None
        with np.errstate(all="ignore"):
            error = np.array([float(np.abs(a - b).max()) for a, b in zip(c, y, strict=True)])
        return int(np.nan_to_num(error, nan=np.inf).argmax())

    def settled(self, unit: LayerPair, values: Mapping[str, np.ndarray]) -> Expected:
        """The noise of one layer from `DRAWS` probes: the root of their mean square, element by element.

        Rounding a weight moves a whole channel one way. For the RMS over a tensor one draw of that is enough; for a
        single channel among thousands it is not, since some draws move it hardly at all. Nor is it where weights
        repeat: equal ones are rounded alike, and move all channels that they are in together.
        """
        alike = self.repeats(unit)
        sums: dict[str, np.ndarray] = {}
        gains: dict[str, float] = {}
        result = Expected()
        for draw in range(DRAWS):
            one = self.probe([unit], values, 2 + draw, bounds=not draw, alike=alike).get(unit.number, Expected())
            result = one if not draw else result
            for name, noise in one.noise.items():
                squared = np.square(noise, dtype=np.float64)
                sums[name] = sums[name] + squared if name in sums else squared
                common = common_gain(values[name], noise) / self.of(unit).gain
                gains[name] = gains.get(name, 0.0) + common**2
        return replace(
            result,
            noise={name: np.sqrt(total / DRAWS) for name, total in sums.items()},
            gains={name: math.sqrt(total / DRAWS) for name, total in gains.items()},
        )

    def probe(
        self,
        units: Sequence[LayerPair],
        values: Mapping[str, np.ndarray],
        seed: int = 1,
        *,
        bounds: bool = True,
        alike: bool = False,
    ) -> dict[int, Expected]:
        """What rounding is expected to do to layers, from one draw.

        Args:
            units: The layers.
            values: The reference's tensors: their inputs and outputs.
            seed: Of the draw.
            bounds: Whether the hard bounds are wanted too.
            alike: See `perturbed`.
        """
        kinds: list[tuple[Roundings, RoundoffModel | None, list[LayerPair]]] = []
        for unit in units:
            rounding, bounded = self.of(unit), self.precision(unit) if bounds else None
            for same, also, members in kinds:
                if same == rounding and also == bounded:
                    members.append(unit)
                    break
            else:
                kinds.append((rounding, bounded, [unit]))
        result: dict[int, Expected] = {}
        for rounding, bounded, members in kinds:
            stepped = self._with_steps(rounding, members, values)
            result.update(self._probe(members, values, stepped, bounded, seed, alike))
        return result

    def precision(self, unit: LayerPair) -> RoundoffModel | None:
        """What the hard bound of a layer has to allow; None where nothing is known."""
        if self.quantized(unit):
            return None
        pair = self.formats(unit)
        if pair not in self._bounded:
            mine, runner = self.reference.runner, self.candidate.runner
            # kernels of 16-bit types may add in them, on some processors
            as_they_say = pair == (mine.arithmetic, runner.arithmetic)
            self._bounded[pair] = roundoff_model(
                *pair,
                runner.accumulator,
                largest=runner.activation_ranges,
                proven=as_they_say and mine.adds_exactly and runner.adds_exactly,
            )
        return self._bounded[pair]

    def _probe(
        self,
        units: list[LayerPair],
        values: Mapping[str, np.ndarray],
        rounding: Roundings,
        bounded: RoundoffModel | None,
        seed: int,
        alike: bool,
    ) -> dict[int, Expected]:
        parts = [(u.number, u.reference) for u in units]
        feed = {n: _widened(values[n]) for u in units for n in u.reference.inputs}
        specs = specs_of(feed, fixed=True)
        forms: dict[tuple[int, str], ErrorBound] = {}
        try:
            probe = perturbed(self.reference.model, parts, specs, rounding, seed=seed, alike=alike).model
            if bounded is not None:
                forms = add_bounds(probe.proto.graph, self.index, parts, specs, bounded)
            with self.runner.session(probe) as session:
                flat = session.infer(feed)
        except LayerdiffError as error:
            if bounded is not None or len(units) > 1:
                result: dict[int, Expected] = {}
                for unit in units:
                    result.update(self._probe([unit], values, rounding, None, seed, alike))
                return result
            log.debug("no expected noise for %s: %s", units[0].reference.outputs, error)
            self._unprobed.add(units[0])
            return {}
        result = {}
        for unit in units:
            noise: Arrays = {}
            for name in unit.reference.outputs:
                made = flat[exploded_name(name, unit.number)]
                if is_float(values[name].dtype) and made.shape == values[name].shape:
                    with np.errstate(invalid="ignore"):  # infinity - infinity, of masks
                        noise[name] = np.subtract(made, _widened(values[name]))
            mine = {name: form for (number, name), form in forms.items() if number == unit.number}
            result[unit.number] = Expected(
                noise,
                {},
                mine,
                {n: flat[n] for form in mine.values() for n in form.tensors()},
                bounded,
            )
        return result

    def judge(
        self,
        unit: LayerPair,
        name: str,
        other: str,
        values: Mapping[str, np.ndarray],
        made: Arrays,
        expected: Expected,
        sample: int,
    ) -> Judgement:
        """Holds one output of a layer against what rounding is expected to do to it.

        Args:
            unit: The layer.
            name, other: The output's name in the reference and in the candidate.
            values, made: The reference's tensors, and what the candidate made of the same inputs.
            expected: What `probe` or `settled` gave.
            sample: Number of the sample.
        """
        step = self.result_step(unit, values[name])
        mine, theirs = self._operators(unit)
        bound = None
        if made[other].shape == values[name].shape and not theirs - mine:
            bound = expected.bound(name, made[other], step=step * math.sqrt(12))
        found = judge(
            values[name],
            made[other],
            expected.noise.get(name),
            self.of(unit),
            sample=sample,
            known=self.known(unit),
            result_step=step,
            gain=expected.gains.get(name, 0.0),
            bound=bound,
            proven=expected.precision is not None and expected.precision.proven and mine == theirs,
        )
        same_kind = is_float(values[name].dtype) and made[other].shape == values[name].shape
        doubtful = not found.beyond and same_kind and self.quantized(unit)
        if doubtful and cut_off(values[name], made[other], step * math.sqrt(12)):
            found = replace(found, beyond=True, reason="slice")
        if found.reason == "integer" and self._tied(unit, name, made[other], values):
            found = replace(found, beyond=False, reason=None, known=False)
        if found.reason == "bound" and self._weights_rounded(unit):
            found = replace(found, beyond=False, reason=None)  # the bound is that of equal weights
        return replace(found, tensor=name)

    def _tied(self, unit: LayerPair, name: str, made: np.ndarray, values: Mapping[str, np.ndarray]) -> bool:
        """Whether two choices (of ArgMax, of TopK) are of elements that rounding their input may exchange."""
        rounding, node = self.of(unit), self.index.nodes[self.index.producer[name]]
        x, y = values.get(node.input[0]), values[name]
        if node.op_type not in CHOICES or not rounding.coarse or x is None or made.shape != y.shape or not x.size:
            return False
        axis = attribute_int(node, "axis", -1 if node.op_type == "TopK" else 0)
        if y.ndim < x.ndim:
            y, made = np.expand_dims(y, axis), np.expand_dims(made, axis)
        if y.ndim != x.ndim or max(y.max(initial=0), made.max(initial=0)) >= x.shape[axis]:
            return False
        a, b = (np.take_along_axis(x, v.astype(np.int64), axis).astype(np.float64) for v in (y, made))
        step = math.sqrt(12) * step_deviation(x) if rounding.steps else 0.0
        return bool((np.abs(a - b) <= 8 * rounding.operand * np.maximum(np.abs(a), np.abs(b)) + 2 * step).all())

    def _weights_rounded(self, unit: LayerPair) -> bool:
        """Whether the two sides' weights of a layer are not the same, but differ by the rounding of constants alone."""
        if self._same:
            return False
        if unit not in self._rounded:
            sides = []
            for index, part in (self.index, unit.reference), (self.candidate.model.index, unit.candidate):
                names = dict.fromkeys(n for p in part.nodes for n in index.reads[p])
                weights = (index.weight(n) for n in names)
                sides.append([w for w in weights if w is not None and is_float(w.dtype)])
            pairs = list(zip(*sides, strict=False))
            alike = len(sides[0]) == len(sides[1]) and all(rounded_alike(x, y) for x, y in pairs)
            self._rounded[unit] = alike and not all(np.array_equal(x, y) for x, y in pairs)
        return self._rounded[unit]

    def _operators(self, unit: LayerPair) -> tuple[Counter[str], Counter[str]]:
        """What computes a layer on both sides. A bound knows nothing of operators that the candidate has besides."""
        sides = (self.index, unit.reference), (self.candidate.model.index, unit.candidate)
        mine, theirs = (
            Counter(op for p in part.nodes if (op := index.nodes[p].op_type) not in SILENT) for index, part in sides
        )
        return mine, theirs

    def repeats(self, unit: LayerPair) -> bool:
        """Whether a layer has weights that are rounded and of which many are equal: equal ones are rounded alike."""
        if not self.of(unit).coarse:
            return False
        kinds, specs = dataflow(self.index).kind, self.index.specs
        for name in (n for p in unit.reference.nodes for n in self.index.reads[p]):
            weight = self.index.weight(name)
            if weight is None:  # a factor computed from shapes is rounded like any other
                spec = specs.get(name) if kinds.get(name) == Kind.CONSTANT and name in self.index.producer else None
                if spec is not None and is_float(spec.dtype) and spec.shape in ((), (1,), None):
                    return True
            elif is_float(weight.dtype) and weight.size:
                magnitudes = np.abs(weight.astype(np.float32))
                if weight.size == 1 or 2 * len(np.unique(magnitudes)) <= weight.size:
                    return True
        return False

    def _with_steps(self, rounding: Roundings, units: list[LayerPair], values: Mapping[str, np.ndarray]) -> Roundings:
        if not rounding.steps:
            normal = rounding.floor * math.sqrt(12) * 2.0**10  # FP16 has 10 bits behind the point
            if not rounding.operand or normal < np.finfo(np.float32).tiny:
                return rounding
            inputs = {name: values[name] for unit in units for name in unit.reference.inputs}
            small = (n for n, v in inputs.items() if is_float(v.dtype) and ((v != 0) & (np.abs(v) < normal)).any())
            return replace(rounding, small=frozenset(small))
        steps = dict(rounding.steps)
        for unit in units:
            for name in unit.reference.inputs:
                if is_float(values[name].dtype) and values[name].size:
                    steps[name] = step_deviation(values[name])
            for name in (n for p in unit.reference.nodes for n in self.index.reads[p] if n in self.index.initializers):
                weight = self.index.weight(name)
                if weight is not None and is_float(weight.dtype) and (weight.ndim > 1 or self.quantized(unit)):
                    steps[name] = step_deviation(weight)
        return replace(rounding, steps=steps)


def _makes_int8(index: GraphIndex, position: int) -> bool:
    """Whether a node quantizes to integers of 8 or 16 bits, or takes them back."""
    node = index.nodes[position]
    if node.op_type not in QUANTIZERS:
        return False
    name = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
    if name in index.initializers:
        return index.initializers[name].data_type in _INT8
    spec = index.specs.get(name)
    return spec is not None and spec.dtype.name in ("int8", "uint8", "int16", "uint16")


def _stored(index: GraphIndex, part: Slice, *, inner: bool) -> NumberFormat | None:
    """The coarsest 16-bit format that the graph itself gives a slice's tensors: those at its borders, or all."""
    names: Iterable[str] = (*part.inputs, *part.outputs)
    if inner:
        names = (name for p in part.nodes for name in (*index.nodes[p].input, *index.nodes[p].output))
    found = [BY_DTYPE.get(spec.dtype.name) for name in names if (spec := index.specs.get(name)) is not None]
    return max((f for f in found if f is not None and f.u > FP32.u), key=lambda f: f.u, default=None)


def _coarsest(runner: NumberFormat, stored: NumberFormat | None) -> NumberFormat:
    return runner if stored is None else coarser(runner, stored)


def _widened(values: np.ndarray) -> np.ndarray:
    """FP16 and BF16 values as FP32; others as they are."""
    return values.astype(np.float32) if values.dtype.name in ("float16", "bfloat16") else values


def _in_fp64(rounding: Roundings) -> Roundings:
    """The roundings of two FP32 runtimes where the graph itself computes in FP64."""
    finer = FP64.u / FP32.u
    return replace(
        rounding,
        accumulator=rounding.accumulator * finer,
        inner=rounding.inner * finer,
        result=rounding.result * finer,
        floor=0.0,
    )


def _heavy(values: np.ndarray) -> bool:
    """Whether a tensor's norm comes from few of its elements, judged by 4,096 of them."""
    flat = np.abs(values.reshape(-1)[:: max(1, values.size // 4096)].astype(np.float64))
    flat = flat[np.isfinite(flat) & (flat > 0)]
    return flat.size > 0 and math.sqrt(float(flat @ flat) / flat.size) > HEAVY * float(np.median(flat))


def step_deviation(values: np.ndarray) -> float:
    """Standard deviation of rounding to 255 symmetric steps over the range of some values: step / sqrt(12)."""
    finite = values[np.isfinite(values)] if values.size else values
    return float(np.abs(finite).max(initial=0.0)) / 127 / math.sqrt(12)
