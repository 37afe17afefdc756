"""Which roundings are in play in a layer, on both sides: its runners' formats, types in the graphs, quantizers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.cutting.slices import Slice, exploded_name
from ...graph.formats import BY_DTYPE, FP32, FP64, NumberFormat, coarser
from ...graph.index import GraphIndex, is_fill
from ...graph.operators import CASTS, MOVEMENT, PRODUCTS, RECURRENT, operator
from ...graph.pairing.cast_pairs import CastPair, cast_pairs
from ...graph.pairing.weight_changes import rounded_alike
from ...graph.rounding.roundings import Roundings, Step, computes_in_fp64, roundings
from ...graph.rounding.stored_weights import stored_weights
from ...graph.specs import Arrays, dtype_name, is_float
from .layer_grids import LayerGrids

if TYPE_CHECKING:
    from ..lockstep.plan import LayerPair
    from ..sides import Side

CONSTANTS = 2.0
"""Units roundoff by which weights of two files differ that were computed from the same constants in another order."""


class LayerRoundings:
    """The roundings of every layer.

    Args:
        reference, candidate: Who is compared.
        usual: The roundings of a layer of which nothing special is known.
        grids: What scaled integers are rounded to.
    """

    def __init__(self, reference: Side, candidate: Side, usual: Roundings, grids: LayerGrids) -> None:
        self.reference = reference
        self.candidate = candidate
        self.usual = usual
        self.grids = grids
        self.index: GraphIndex = reference.model.index
        self._formats: dict[LayerPair, tuple[NumberFormat, NumberFormat]] = {}
        self._weights: dict[LayerPair, bool] = {}
        self._small: dict[tuple[str, float], bool] = {}

    @cached_property
    def _same(self) -> bool:
        """Whether both sides run one network."""
        return self.candidate.model.same_network(self.reference.model)

    def of(self, pair: LayerPair, weights: bool = True) -> Roundings:
        """The roundings in a layer: more where the graphs themselves hold narrow types at its borders.

        Args:
            pair: The layer.
            weights: Whether to look at its weights, which may be rounded otherwise on the two sides.
        """
        if self.usual.steps:
            return self.usual
        mine, theirs = self.formats(pair)
        if self.quantized(pair):
            return roundings(mine, theirs, {"": 0.0}, self.candidate.runner.accumulator)
        if (mine, theirs) != (self.reference.runner.arithmetic, self.candidate.runner.arithmetic):
            return roundings(mine, theirs, accumulator=self.candidate.runner.accumulator, typed=True)
        if not self.usual.operand and self._only_mine_is_fp64(pair):
            return replace(self.usual, operand=CONSTANTS * FP32.u)
        if not self.usual.operand and _all_fp64(self.index, pair.reference.outputs):
            return _in_fp64(self.usual)
        if weights and not self.usual.operand and self.weights_rounded(pair):
            return replace(self.usual, operand=CONSTANTS * FP32.u)
        return self.usual

    def _only_mine_is_fp64(self, pair: LayerPair) -> bool:
        """Whether the reference's graph computes a layer in FP64, and the candidate's in FP32."""
        mine, theirs = (
            computes_in_fp64(index, (index.nodes[p] for p in part.nodes))
            for index, part in ((self.index, pair.reference), (self.candidate.model.index, pair.candidate))
        )
        return not self._same and mine and not theirs

    def quantized(self, pair: LayerPair) -> bool:
        """Whether the candidate's file holds operands, weights or results of a layer as scaled integers, and the
        reference's does not."""
        return bool(self.grids.in_file(pair))

    def formats(self, pair: LayerPair) -> tuple[NumberFormat, NumberFormat]:
        """The formats that the reference and the candidate compute a layer in: their runners', or the graphs' own."""
        if pair not in self._formats:
            mine = _stored(self.index, pair.reference, inner=False)
            theirs = _stored(self.candidate.model.index, pair.candidate, inner=False)
            # types inside the layer alone are the candidate's own doing, unless the reference has them as well, all
            # that computes is typed so, or they are no more than those of Casts there and back, of tensors that both
            # have, or of stored weights
            narrowed = self._narrowed(pair) if theirs is None else []
            if narrowed:
                theirs = max(narrowed, key=lambda fmt: fmt.u)
            elif theirs is not None or self._same:
                mine = mine or _stored(self.index, pair.reference, inner=True)
            elif mine is None:
                mine = _stored(self.index, pair.reference, inner=True)
                theirs = _stored(self.candidate.model.index, pair.candidate, inner=True) if mine else None
            self._formats[pair] = (
                _coarsest(self.reference.runner.arithmetic, mine),
                _coarsest(self.candidate.runner.arithmetic, theirs),
            )
        return self._formats[pair]

    @cached_property
    def _cast_pairs(self) -> dict[int, CastPair]:
        """The tensors that the candidate's file alone casts to a narrow format and back, by the first Cast's place."""
        index = self.candidate.model.index
        found = () if self._same else cast_pairs(self.index, index)
        return {index.producer[pair.narrow]: pair for pair in found}

    @cached_property
    def _stored(self) -> dict[str, NumberFormat]:
        """The weights that the candidate's file alone holds in a narrow format."""
        mine, theirs = (stored_weights(side.model) for side in (self.reference, self.candidate))
        return {} if self._same or mine else theirs

    def _stored_formats(self, pair: LayerPair) -> set[NumberFormat]:
        index = self.candidate.model.index
        return {self._stored[n] for p in pair.candidate.nodes for n in index.reads[p] if n in self._stored}

    def _narrowed(self, pair: LayerPair) -> list[NumberFormat]:
        return [*(one.format for one in self.cast(pair)), *self._stored_formats(pair), *self._typed(pair)]

    def _typed(self, pair: LayerPair) -> list[NumberFormat]:
        """The 16-bit formats that the candidate's graph gives to all floats which a layer computes; none where it
        leaves one wider, or where a weight is among the subnormals of one, of which more than rounding is lost."""
        index = self.candidate.model.index
        nodes = [index.nodes[p] for p in pair.candidate.nodes if operator(index.nodes[p]) not in CASTS | MOVEMENT]
        specs = [spec for node in nodes for name in node.output if (spec := index.specs.get(name)) is not None]
        found = [BY_DTYPE.get(dtype_name(spec.dtype)) for spec in specs if is_float(spec.dtype)]
        narrow = [fmt for fmt in found if fmt is not None and FP32.u < fmt.u]
        if not narrow or len(narrow) < len(found):
            return []
        normal = max(fmt.smallest_normal for fmt in narrow)
        read = {n for p in pair.reference.nodes for n in self.index.reads[p]}
        return [] if any(self._small_weight(n, normal) for n in read) else narrow

    def cast(self, pair: LayerPair) -> tuple[CastPair, ...]:
        """The tensors of a layer that the candidate's file alone casts to a narrow format and back."""
        return tuple(self._cast_pairs[p] for p in pair.candidate.nodes if p in self._cast_pairs)

    def weights_rounded(self, pair: LayerPair) -> bool:
        """Whether the two sides' weights of a layer are not the same, but differ by the rounding of constants alone."""
        if self._same:
            return False
        if pair not in self._weights:
            sides = []
            for index, part in (self.index, pair.reference), (self.candidate.model.index, pair.candidate):
                names = dict.fromkeys(n for p in part.nodes for n in index.reads[p])
                weights = (index.weight(n) for n in names)
                sides.append([w for w in weights if w is not None and is_float(w.dtype)])
            pairs = list(zip(*sides, strict=False))
            alike = len(sides[0]) == len(sides[1]) and all(rounded_alike(x, y) for x, y in pairs)
            self._weights[pair] = alike and not all(np.array_equal(x, y) for x, y in pairs)
        return self._weights[pair]

    def repeats(self, pair: LayerPair) -> bool:
        """Whether a layer has weights that are rounded and of which many are equal: equal ones are rounded alike."""
        if not self.of(pair).coarse:
            return False
        kinds, specs = dataflow(self.index).kind, self.index.specs
        for name in (n for p in pair.reference.nodes for n in self.index.reads[p]):
            weight = self.index.computed_weight(name)
            if weight is None:  # a factor computed from shapes is rounded like any other
                spec = specs.get(name) if kinds.get(name) == Kind.CONSTANT and name in self.index.producer else None
                if spec is not None and is_float(spec.dtype) and spec.shape in ((), (1,), None):
                    return True
            elif is_float(weight.dtype) and is_fill(weight):
                return True
            elif is_float(weight.dtype) and weight.size:
                magnitudes = np.abs(weight.astype(np.float32))
                if weight.size == 1 or 2 * len(np.unique(magnitudes)) <= weight.size:
                    return True
        return False

    def result_step(self, pair: LayerPair, name: str, values: Arrays) -> float:
        """Standard deviation of roundings of a layer's result that no relative term covers, nor a probe.

        Args:
            pair: The layer.
            name: Its output.
            values: The reference's tensors.
        """
        step = 0.0
        if self.usual.steps and not self.quantized(pair) and is_float(values[name].dtype) and values[name].size:
            step = step_deviation(values[name])
        return math.hypot(step, self._bias_step(pair))

    def _bias_step(self, pair: LayerPair) -> float:
        """Between quantized operands a runtime may round the bias to their product's step, and compute in integers."""
        largest = 0.0
        for position in pair.reference.nodes:
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

    def with_steps(self, rounding: Roundings, pairs: Sequence[LayerPair], values: Arrays) -> Roundings:
        """Roundings with what depends on values: the steps of scaled integers, operands among the subnormals."""
        if not rounding.steps:
            normal = rounding.floor * math.sqrt(12) * 2.0**10  # FP16 has 10 bits behind the point
            if not rounding.operand or normal < np.finfo(np.float32).tiny:
                return rounding
            inputs = {name: values[name] for pair in pairs for name in pair.reference.inputs}
            small = {name for name, value in inputs.items() if _holds_small(value, normal)}
            weights = {n for pair in pairs for p in pair.reference.nodes for n in self.index.reads[p]}
            return replace(rounding, small=frozenset(small | {n for n in weights if self._small_weight(n, normal)}))
        steps = dict(rounding.steps)
        for pair in pairs:
            steps.update(self._of_file(pair, values) if self.quantized(pair) else self._of_runner(pair, values))
        return replace(rounding, steps=steps)

    def _small_weight(self, name: str, normal: float) -> bool:
        """Whether a weight has values among the subnormals, to the smallest of which a target may lift them."""
        key = name, normal
        if key not in self._small:
            value = self.index.weight(name)
            self._small[key] = value is not None and value.size > 1 and _holds_small(value, normal)
        return self._small[key]

    def _of_file(self, pair: LayerPair, values: Arrays) -> dict[str, Step]:
        """The steps that stand in the candidate's file, for this layer alone."""
        found = self.grids.in_file(pair)
        steps: dict[str, Step] = {name: step / math.sqrt(12) for name, step in found.weights.items()}
        steps.update({name: one.grid(values[name]).deviation for name, one in found.results.items()})
        for name, one in found.operands.items():
            if name in values:
                steps[name] = one.grid(values[name]).deviation
            elif (grid := one.typical()) is not None:  # what a node inside makes
                steps[name] = grid.deviation
        return {exploded_name(name, pair.number): step for name, step in steps.items()}

    def _of_runner(self, pair: LayerPair, values: Arrays) -> dict[str, Step]:
        """The steps by which a runner of scaled integers rounds operands: of its calibration, or of what comes."""
        calibrated = self.grids.calibrated(pair, values)
        steps: dict[str, Step] = {}
        for name in pair.reference.inputs:
            if name in calibrated:
                steps[name] = calibrated[name].deviation
            elif is_float(values[name].dtype) and values[name].size:
                steps[name] = step_deviation(values[name])
        for name in (n for p in pair.reference.nodes for n in self.index.reads[p] if n in self.index.initializers):
            weight = self.index.weight(name)
            if weight is not None and is_float(weight.dtype) and weight.ndim > 1:
                steps[name] = step_deviation(weight)
        return steps


def _stored(index: GraphIndex, part: Slice, *, inner: bool) -> NumberFormat | None:
    """The coarsest 16-bit format that the graph itself gives a slice's tensors: those at its borders, or all."""
    names: Iterable[str] = (*part.inputs, *part.outputs)
    if inner:
        names = (name for p in part.nodes for name in (*index.nodes[p].input, *index.nodes[p].output))
    found = [BY_DTYPE.get(dtype_name(spec.dtype)) for name in names if (spec := index.specs.get(name)) is not None]
    return max((f for f in found if f is not None and f.u > FP32.u), key=lambda f: f.u, default=None)


def _all_fp64(index: GraphIndex, names: Sequence[str]) -> bool:
    return all((spec := index.specs.get(name)) is not None and spec.dtype == np.float64 for name in names)


def _coarsest(runner: NumberFormat, stored: NumberFormat | None) -> NumberFormat:
    return runner if stored is None else coarser(runner, stored)


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


def step_deviation(values: np.ndarray) -> float:
    """Standard deviation of rounding to 255 symmetric steps over the range of some values: step / sqrt(12)."""
    finite = values[np.isfinite(values)] if values.size else values
    return float(np.abs(finite).max(initial=0.0)) / 127 / math.sqrt(12)


def _holds_small(values: np.ndarray, normal: float) -> bool:
    """Whether some values, other than zero, are below a format's smallest normal number."""
    return bool(is_float(values.dtype) and ((values != 0) & (np.abs(values) < normal)).any())
