"""The expected noise of layers: what the roundings in play do to their outputs, and which errors are more than that."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.batch import by_entry
from ...graph.cutting.slices import exploded_name, original_name
from ...graph.errors import LayerdiffError, ModelError, RunnerError, first_line
from ...graph.formats import NumberFormat
from ...graph.index import GraphIndex
from ...graph.nodes import attribute_int, trains
from ...graph.operators import CHOICES, SILENT
from ...graph.rounding.error_bound import add_bounds
from ...graph.rounding.noise_probe import drawing, drawn, known, perturbed, recut
from ...graph.rounding.noise_within import drawn_within, rounds_within
from ...graph.rounding.rounding_sides import Roundoff
from ...graph.rounding.roundings import Roundings
from ...graph.rounding.roundoff import ErrorBound, RoundoffModel, roundoff_model
from ...graph.rounding.term_count import term_count
from ...graph.specs import Arrays, dtype_name, is_float, specs_of
from ...graph.trees import rows_at_thresholds
from ..lockstep.plan import LayerPair
from .judgement import SLICE, Explained, Judgement, common_gain, cut_off, judge, plain_noise, worst_entry
from .layer_grids import LOST, LayerGrids
from .layer_roundings import LayerRoundings, step_deviation
from .probes import Probes

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...graph.pairing.matching import Matching
    from ...runners.contract.runner import Runner
    from ..sides import Side

log = logging.getLogger(__name__)

EXCERPT = 1 << 18
"""Elements of a tensor from which on one entry of the batch is judged instead of all."""
DRAWS = 12
"""Probes of a layer of which a few elements seem to be off. With so many degrees of freedom a healthy channel is beyond
`SLICE_LIMIT` once in a million."""
HEAVY = 16.0
"""RMS over median from which on a tensor's norm speaks for a few large elements only (an attention mask of -1e4)."""
OTHER_SHAPES = RunnerError("with rounding noise it gives tensors of other shapes")
"""What is said of a layer in which the noise changes a size."""
CROWDED = 0.05
"""Relative error from which on it matters that values become the same beside a few others: more than 8 bits make."""


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
        usual: The roundings of a layer of which nothing special is known.
        matching: What corresponds in the two graphs; None where both run one file.

    Attributes:
        roundings: Those of every layer.
    """

    def __init__(self, reference: Side, candidate: Side, usual: Roundings, matching: Matching | None = None) -> None:
        self.reference = reference
        self.candidate = candidate
        self.roundings = LayerRoundings(reference, candidate, usual, LayerGrids(reference, candidate, matching))
        self.index: GraphIndex = reference.model.index
        self._sums: dict[int, float] = {}
        self._runner: Runner | None = None
        self._probes = Probes()
        self.unprobed: dict[LayerPair, str] = {}
        self._drawing: Model | ModelError | None = None
        self._bounded: dict[tuple[NumberFormat, NumberFormat], RoundoffModel | None] = {}

    @property
    def runner(self) -> Runner:
        """What runs pieces of the reference's graph: its own runner where that can, else ONNX Runtime."""
        if self._runner is None:
            self._runner = self.reference.runner
            if not self._runner.capabilities.pieces:
                from ...runners.onnxrt.runner import OnnxrtRunner

                self._runner = OnnxrtRunner()
        return self._runner

    def known(self, pair: LayerPair) -> bool:
        """Whether the expected noise of a layer can be told."""
        return pair not in self.unprobed and known(self.index, pair.reference)

    def why_unknown(self, pair: LayerPair) -> str:
        """Why the expected noise of a layer cannot be told."""
        return self.unprobed.get(pair, "custom operators or types of 8 bits")

    def plain(self, pair: LayerPair, values: Arrays) -> float:
        """The relative L2 error that needs no closer look; 0 where the norm speaks for a few large elements only, and
        of integers, which nothing rounds."""
        if any(not is_float(values[n].dtype) or _heavy(values[n]) for n in pair.reference.outputs):
            return 0.0
        return plain_noise(self.roundings.of(pair, weights=False), self._terms(pair, values))

    def _terms(self, pair: LayerPair, values: Arrays) -> float:
        def shape(name: str) -> tuple[int, ...] | None:
            if name in values:
                return values[name].shape
            weight = self.index.initializers.get(name)
            return tuple(weight.dims) if weight is not None else None

        if pair.number not in self._sums:
            self._sums[pair.number] = max(term_count(self.index.nodes[p], shape) for p in pair.reference.nodes)
        return self._sums[pair.number]

    # -- measuring ----------------------------------------------------------------------------------------------

    def entry(self, pair: LayerPair, values: Arrays, made: Arrays) -> int | None:
        """The entry of the batch that is worth judging in place of the whole tensor: see `worst_entry`.

        None where the tensor is small, or the layer may mix the entries of a batch.
        """
        y, c = values[pair.reference.outputs[0]], made[pair.candidate.outputs[0]]
        return worst_entry(y, c) if y.shape == c.shape and self._by_entry(pair, values) else None

    def _by_entry(self, pair: LayerPair, values: Arrays) -> bool:
        """Whether one entry of the batch tells as much as all: of a large tensor, in a layer that mixes none."""
        y = values[pair.reference.outputs[0]]
        if len(pair.reference.outputs) > 1 or y.ndim < 2 or y.size < EXCERPT:
            return False
        batch = y.shape[0]
        if self.roundings.grids.in_file(pair).measures:  # the step is that of the whole batch
            return False
        theirs = self.candidate.model.index
        if any(trains(theirs.nodes[p]) for p in pair.candidate.nodes):  # statistics of the whole batch
            return False
        if batch < 2 or not is_float(y.dtype) or y.size // batch < SLICE:
            return False
        read = [values[n] for n in pair.reference.inputs]
        batched = all(tensor.ndim >= 2 and tensor.shape[0] == batch for tensor in read)
        return batched and by_entry(self.index, pair.reference.nodes, pair.reference.inputs)

    def settled(self, pair: LayerPair, values: Arrays) -> Expected:
        """The noise of one layer from `DRAWS` probes: the root of their mean square, element by element.

        Rounding a weight moves a whole channel one way. For the RMS over a tensor one draw of that is enough; for a
        single channel among thousands it is not, since some draws move it hardly at all. Nor is it where weights
        repeat: equal ones are rounded alike, and move all channels that they are in together.
        """
        alike = self.roundings.repeats(pair)
        sums: dict[str, np.ndarray] = {}
        gains: dict[str, float] = {}
        result = Expected()
        with self._probes:
            for draw in range(DRAWS):
                one = self.probe([pair], values, 2 + draw, bounds=not draw, alike=alike).get(pair.number, Expected())
                result = one if not draw else result
                for name, noise in one.noise.items():
                    squared = np.square(noise, dtype=np.float64)
                    sums[name] = sums[name] + squared if name in sums else squared
                    common = common_gain(values[name], noise) / self.roundings.of(pair).gain
                    gains[name] = gains.get(name, 0.0) + common**2
        return replace(
            result,
            noise={name: np.sqrt(total / DRAWS) for name, total in sums.items()},
            gains={name: math.sqrt(total / DRAWS) for name, total in gains.items()},
        )

    def probe(
        self,
        pairs: Sequence[LayerPair],
        values: Arrays,
        seed: int = 1,
        *,
        bounds: bool = True,
        alike: bool = False,
    ) -> dict[int, Expected]:
        """What rounding is expected to do to layers, from one draw.

        Args:
            pairs: The layers.
            values: The reference's tensors: their inputs and outputs.
            seed: Of the draw.
            bounds: Whether the hard bounds are wanted too.
            alike: See `perturbed`.
        """
        result: dict[int, Expected] = {}
        kinds: list[tuple[Roundings, RoundoffModel | None, list[LayerPair]]] = []
        for pair in pairs:
            rounding, bounded = self.roundings.of(pair), self.precision(pair) if bounds else None
            if rounds_within(self.index, pair.reference) and not rounding.steps:
                result.update(self._probe_within(pair, values, rounding.gain, seed))
                continue
            for same, also, members in kinds:
                if same == rounding and also == bounded:
                    members.append(pair)
                    break
            else:
                kinds.append((rounding, bounded, [pair]))
        for rounding, bounded, members in kinds:
            stepped = self.roundings.with_steps(rounding, members, values)
            result.update(self._probe(members, values, stepped, bounded, seed, alike))
        return result

    def each_step(self, pair: LayerPair, values: Arrays) -> dict[str, float]:
        """The relative error of a layer's outputs that the rounding of each of its tensors to scaled integers explains
        by itself, by the tensor's name; the greatest over the outputs."""
        if self._by_entry(pair, values):
            values = entry_of(values, [pair], 0)
        rounding = self.roundings.with_steps(self.roundings.of(pair), [pair], values)
        found: dict[str, float] = {}
        for name, step in rounding.steps.items():
            if not np.max(step, initial=0.0):
                continue
            alone = replace(rounding, steps={name: step})
            noise = self._probe([pair], values, alone, None, 1, False).get(pair.number, Expected()).noise
            errors = [_rms(n) / size for output, n in noise.items() if (size := _rms(values[output]))]
            found[original_name(name)] = max(errors, default=0.0)
        return found

    def precision(self, pair: LayerPair) -> RoundoffModel | None:
        """What the hard bound of a layer has to allow; None where nothing is known."""
        if self.roundings.quantized(pair):
            return None
        formats = self.roundings.formats(pair)
        if formats not in self._bounded:
            mine, runner = self.reference.runner, self.candidate.runner
            # kernels of 16-bit types may add in them, on some processors
            as_they_say = formats == (mine.arithmetic, runner.arithmetic)
            self._bounded[formats] = roundoff_model(
                *formats,
                runner.accumulator,
                largest=runner.activation_ranges,
                proven=as_they_say and mine.adds_exactly and runner.adds_exactly,
            )
        return self._bounded[formats]

    def _probe(
        self,
        pairs: list[LayerPair],
        values: Arrays,
        rounding: Roundings,
        bounded: RoundoffModel | None,
        seed: int,
        alike: bool,
    ) -> dict[int, Expected]:
        parts = [(u.number, u.reference) for u in pairs]
        feed = {n: _widened(values[n]) for u in pairs for n in u.reference.inputs}
        specs = specs_of(feed, fixed=True)
        forms: dict[tuple[int, str], ErrorBound] = {}
        try:
            model = self._model_that_draws()
            parts = parts if model is self.reference.model else recut(model, parts)
            probe = perturbed(model, parts, specs, rounding, seed=seed, alike=alike).model
            if bounded is not None:
                forms = add_bounds(probe.proto.graph, model.index, parts, specs, bounded)
            flat = drawn(probe, feed, seed, self._run)
        except LayerdiffError as error:
            if bounded is not None or len(pairs) > 1:
                result: dict[int, Expected] = {}
                for pair in pairs:
                    result.update(self._probe([pair], values, rounding, None, seed, alike))
                return result
            return self._without(pairs[0], error)
        result = {}
        by_layer: dict[int, dict[str, ErrorBound]] = {}
        for (number, name), form in forms.items():
            by_layer.setdefault(number, {})[name] = form
        for pair in pairs:
            noise = _noise(pair, flat, values)
            if noise is None:
                result.update(self._without(pair, OTHER_SHAPES))
                continue
            mine = by_layer.get(pair.number, {})
            result[pair.number] = Expected(
                noise,
                {},
                mine,
                {n: flat[n] for form in mine.values() for n in form.tensors()},
                bounded,
            )
        return result

    def _probe_within(self, pair: LayerPair, values: Arrays, gain: float, seed: int) -> dict[int, Expected]:
        """The same for a layer that rounds inside, see `noise_within`; nobody knows a bound for it."""
        runner = self.candidate.runner
        rounded = Roundoff(
            *self.roundings.formats(pair),
            runner.accumulator,
            every_node=runner.rounds_every_node,
            rounded_weights=self.roundings.weights_rounded(pair),
            subnormals=True,
        )
        feed = {n: _widened(values[n]) for n in pair.reference.inputs}
        part = (pair.number, pair.reference)
        try:
            model = self._model_that_draws()
            if model is not self.reference.model:
                (part,) = recut(model, [part])
            # shapes stay open: a branch that is not taken may not fit what is fed
            flat, enlarged = drawn_within(model, part, specs_of(feed), rounded, feed, seed, self._run)
        except LayerdiffError as error:
            return self._without(pair, error)
        scale = np.float32(gain / enlarged)
        noise = _noise(pair, flat, values)
        if noise is None:
            return self._without(pair, OTHER_SHAPES)
        return {pair.number: Expected({n: one * scale for n, one in noise.items()})}

    def _without(self, pair: LayerPair, error: LayerdiffError) -> dict[int, Expected]:
        """Remembers that and why the expected noise of a layer cannot be told."""
        log.debug("no expected noise for %s: %s", pair.reference.outputs, error)
        self.unprobed[pair] = first_line(error)
        return {}

    def _model_that_draws(self) -> Model:
        if self._drawing is None:
            try:
                self._drawing = drawing(self.reference.model)
            except ModelError as error:  # the same for every layer
                self._drawing = error
        if isinstance(self._drawing, ModelError):
            raise self._drawing
        return self._drawing

    def _run(self, model: Model, feed: Arrays) -> Arrays:
        with self._probes:
            return self._probes.on(model, self.runner).infer(feed)

    # -- judging ------------------------------------------------------------------------------------------------

    def judge(
        self,
        pair: LayerPair,
        name: str,
        values: Arrays,
        made: Arrays,
        expected: Expected,
        sample: int,
    ) -> Judgement:
        """Holds one output of a layer against what rounding is expected to do to it.

        Args:
            pair: The layer.
            name: The output's name in the reference.
            values, made: The reference's tensors, and what the candidate made of the same inputs.
            expected: What `probe` or `settled` gave.
            sample: Number of the sample.
        """
        other = pair.candidate.outputs[pair.reference.outputs.index(name)]
        step = self.roundings.result_step(pair, name, values)
        mine, theirs = self._operators(pair)
        bound = None
        if made[other].shape == values[name].shape and not theirs - mine:
            bound = expected.bound(name, made[other], step=step * math.sqrt(12))
        proven = expected.precision is not None and expected.precision.proven and mine == theirs
        more = Explained(step, expected.gains.get(name, 0.0), bound, proven)
        noise, rounding = expected.noise.get(name), self.roundings.of(pair)
        found = judge(values[name], made[other], noise, rounding, sample=sample, known=self.known(pair), more=more)
        same_kind = is_float(values[name].dtype) and made[other].shape == values[name].shape
        within = not found.exceeds_noise and same_kind and self.roundings.quantized(pair)
        if within and cut_off(values[name], made[other], self._end_step(pair, name, values, step, found)):
            found = replace(found, exceeds_noise=True, reason="slice")
        lost = same_kind and min(found.relative, found.expected or 0.0) >= LOST
        if lost and not found.exceeds_noise and self.roundings.grids.wide(pair, values):
            found = replace(found, exceeds_noise=True, reason="range")
        crowding = within and found.relative >= CROWDED and not found.exceeds_noise
        if crowding and self.roundings.grids.crowded(pair, values):
            found = replace(found, exceeds_noise=True, reason="range")
        if found.reason == "integer" and self._tied(pair, name, made[other], values):
            found = replace(found, exceeds_noise=False, reason=None, known=False)
        if found.exceeds_noise and self._at_thresholds(pair, name, made[other], values):
            found = replace(found, exceeds_noise=False, reason=None, known=False)
        if found.reason == "bound" and self.roundings.weights_rounded(pair):
            found = replace(found, exceeds_noise=False, reason=None)  # the bound is that of equal weights
        return replace(found, tensor=name)

    def _end_step(self, pair: LayerPair, name: str, values: Arrays, step: float, found: Judgement) -> float:
        """By how much values at an end of the range of an output may be off: a step, or what operands' steps make."""
        typical = max(step, (found.expected or 0.0) * _rms(values[name]))
        return max(typical * math.sqrt(12), self.roundings.grids.end_step(pair, name, values))

    def _tied(self, pair: LayerPair, name: str, made: np.ndarray, values: Arrays) -> bool:
        """Whether two choices (of ArgMax, of TopK) are of elements that rounding their input may exchange."""
        rounding, node = self.roundings.of(pair), self.index.nodes[self.index.producer[name]]
        x, y = values.get(next(iter(node.input), "")), values[name]
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

    def _at_thresholds(self, pair: LayerPair, name: str, made: np.ndarray, values: Arrays) -> bool:
        """Whether trees went another way in rows alone that lie at a threshold, and all other rows agree."""
        rounding, node = self.roundings.of(pair), self.index.nodes[self.index.producer[name]]
        x, y = values.get(next(iter(node.input), "")), values[name]
        if not rounding.operand or x is None or made.shape != y.shape or not y.ndim or len(y) != len(x):
            return False
        rows = rows_at_thresholds(node, x, 2 * rounding.operand)
        if rows is None:
            return False
        mine, theirs = y[~rows], made[~rows]
        return np.allclose(theirs, mine, 1e-5, 1e-6) if is_float(y.dtype) else np.array_equal(theirs, mine)

    def _operators(self, pair: LayerPair) -> tuple[Counter[str], Counter[str]]:
        """What computes a layer on both sides. A bound knows nothing of operators that the candidate has besides."""
        sides = (self.index, pair.reference), (self.candidate.model.index, pair.candidate)
        mine, theirs = (
            Counter(op for p in part.nodes if (op := index.nodes[p].op_type) not in SILENT) for index, part in sides
        )
        return mine, theirs


def entry_of(values: Arrays, pairs: Sequence[LayerPair], entry: int) -> Arrays:
    """One entry of the batch of everything that some layers read and write."""
    names = {n for p in pairs for n in (*p.reference.inputs, *p.reference.outputs)}
    return {n: values[n][entry : entry + 1] for n in names}


def _noise(pair: LayerPair, flat: Arrays, values: Arrays) -> dict[str, np.ndarray] | None:
    """What a draw did to each output of a layer; None where it has made tensors of other shapes."""
    noise: dict[str, np.ndarray] = {}
    for name in (n for n in pair.reference.outputs if is_float(values[n].dtype)):
        made = flat[exploded_name(name, pair.number)]
        if made.shape != values[name].shape:
            return None
        with np.errstate(invalid="ignore"):  # infinity - infinity, of masks
            noise[name] = np.subtract(made, _widened(values[name]))
    return noise


def _rms(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return math.sqrt(float(np.mean(np.square(finite)))) if finite.size else 0.0


def _widened(values: np.ndarray) -> np.ndarray:
    """FP16 and BF16 values as FP32; others as they are."""
    return values.astype(np.float32) if dtype_name(values.dtype) in ("float16", "bfloat16") else values


def _heavy(values: np.ndarray) -> bool:
    """Whether a tensor's norm comes from few of its elements, judged by 4,096 of them."""
    flat = np.abs(values.reshape(-1)[:: max(1, values.size // 4096)].astype(np.float64))
    flat = flat[np.isfinite(flat) & (flat > 0)]
    return flat.size > 0 and math.sqrt(float(flat @ flat) / flat.size) > HEAVY * float(np.median(flat))
