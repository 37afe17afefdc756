"""Why a layer's local error is more than rounding: causes, tried in order, each in a file of its own."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.cutting.dataflow import dataflow
from ...graph.cutting.slices import backward, exploded_name, slice_model
from ...graph.errors import LayerdiffError
from ...graph.operators import AFFINE_STEPS, PRODUCTS, QUANTIZERS, STRETCHES, operator
from ...graph.pairing.changes import OperatorChange
from ...graph.pairing.one_program import one_program
from ...graph.pairing.weight_changes import WeightChange
from ...graph.quantized.float_form import is_quantized
from ...graph.rounding.emulation import rewrite
from ...graph.rounding.round_array import STORAGE
from ...graph.rounding.widening import to_fp32
from ...graph.specs import Arrays, is_float, specs_of
from ..lockstep.parts import opened_part
from ..lockstep.plan import LayerPair, inside
from ..outputs.formats_in_play import quantizes_more
from . import (
    accumulator,
    altered_weights,
    amplified,
    baked_constant,
    batch_statistics,
    bias,
    bound,
    cancellation,
    computed_operand,
    counterparts,
    differences,
    disregarded,
    feeding,
    folded_constant,
    folded_padding,
    input_stage,
    inserted,
    integer_pairs,
    integers,
    inverted_condition,
    joined_otherwise,
    limits,
    misread,
    nan,
    operators,
    other_epsilon,
    other_grid,
    other_operand,
    other_setting,
    overflow,
    packed_parts,
    permutation,
    quantization,
    quantized_layer,
    rewritten_weights,
    rounded_operand,
    saturation,
    scale,
    shape,
    spread,
    text,
    undeclared,
    underflow,
    unknown,
    unread_input,
    wide_range,
)
from .arbiter import arbitrate
from .case import CaseFormats, LayerCase, LoudLayer
from .diagnosis import Diagnosis
from .expected_noise import Expected
from .judgement import Judgement
from .narrow_format import narrow_format
from .one_kernel import lost_inside
from .ranges import stops_at_the_range
from .reruns import Reruns

if TYPE_CHECKING:
    import numpy as np

    from ...graph.pairing.differences import Difference
    from ..report.model import Fact
    from ..sides import Side
    from .expected_noise import Noise

log = logging.getLogger(__name__)

MOST_EXPLAINED = 2
"""Times as many weights that their steps explain as weights that stand out."""

ORDER: tuple[Callable[[LayerCase], Diagnosis | None], ...] = (
    disregarded.of_shape,
    shape.find,
    differences.of_constant,
    text.find,
    packed_parts.find,
    altered_weights.find,
    overflow.find,
    underflow.of_operand,
    cancellation.ended_not_finite,
    nan.find,
    misread.find,
    other_grid.find,
    saturation.of_quantizer,
    differences.of_stored_weights,
    bias.find,
    folded_padding.find,
    folded_constant.find,
    baked_constant.find,
    differences.find,
    other_epsilon.find,
    other_setting.find,
    unread_input.find,
    computed_operand.find,
    rewritten_weights.find,
    saturation.of_operand,
    wide_range.find,
    integers.find,
    inverted_condition.find,
    underflow.find,
    limits.find,
    saturation.find,
    disregarded.find,
    input_stage.find,
    other_operand.find,
    joined_otherwise.find,
    other_setting.of_number,
    other_setting.in_reference,
    differences.moved_by_another,
    permutation.find,
    batch_statistics.find,
    scale.find,
    bound.find,
    rounded_operand.find,
    accumulator.find,
    scale.of_other_operator,
    quantization.in_file,
    operators.find,
    quantization.find,
    cancellation.inside,
    unknown.find,
)
"""Causes of an error beyond the expected noise: the first that finds something. A new one is a file and a place."""

WITHIN_NOISE: tuple[Callable[[LoudLayer], Diagnosis | None], ...] = (
    differences.of_loudest,
    unknown.without_noise,
    quantization.of_loudest,
    cancellation.find,
    amplified.find,
    amplified.of_input,
    accumulator.of_state,
    spread.find,
)
"""The same for the loudest layer, where outputs disagree and no layer exceeds its expected noise."""


def loudest(layer: LoudLayer) -> Diagnosis:
    """Why outputs disagree though no layer exceeds its expected noise."""
    return next(found for find in WITHIN_NOISE if (found := find(layer)) is not None)


class Examiner:
    """Finds causes.

    Args:
        reference, candidate: Who is compared.
        noise: What rounding is expected to do.
        differences: Gives the static differences of a matched node, by its position in the reference's graph.
        matched: Tensors of the reference -> tensors of the candidate, inner ones included.
        observed: The same of the tensors at the borders of layers.
        refine: Whether a layer may be taken apart into its nodes: not where they run as one kernel.
        ends_finite: Whether the candidate's outputs are known to be finite.
    """

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        noise: Noise,
        *,
        differences: Callable[[int], Sequence[Difference]],
        matched: Mapping[str, str],
        observed: Mapping[str, str],
        refine: bool,
        ends_finite: bool = False,
    ) -> None:
        self.reference, self.candidate = reference, candidate
        self.noise = noise
        self.differences = differences
        self.matched, self.observed = matched, observed
        self.refine, self.ends_finite = refine, ends_finite
        self.index = reference.model.index
        self._runs = Reruns(reference, candidate, noise.runner, matched, observed)
        self._flow = dataflow(self.index)
        self._origins = {other: name for name, other in {**matched, **observed}.items()}

    def case(
        self,
        pair: LayerPair,
        judgement: Judgement,
        values: Arrays,
        made: Arrays,
        expected: Expected,
        entry: int = 0,
    ) -> LayerCase:
        """A layer that exceeds its expected noise on one sample, with all that is known of it: see `LayerCase`."""
        tensor = judgement.tensor or pair.reference.outputs[0]
        case = LayerCase(
            pair,
            judgement,
            values,
            made,
            expected,
            CaseFormats(
                self.candidate.runner.arithmetic,
                narrow_format(self.reference, self.candidate, pair),
                self.noise.roundings.of(pair, weights=False).coarse,
                self.noise.roundings.quantized(pair),
                self.noise.roundings.result_step(pair, tensor, values),
            ),
            (self.index, self.candidate.model.index),
            self.stated(pair),
            lambda: self._runs.inner(pair, values),
            lambda: self._operands(pair, tensor, values, made),
            entry,
            self.noise.roundings.grids.of(pair, values),
            lambda weights: self._runs.reweighted(pair, tensor, values, weights),
            self.ends_finite,
            lambda alter, given: self._runs.altered(pair, values, alter, given),
            lambda alter: self._runs.reference_altered(pair, tensor, values, alter),
            look_inside_candidate=lambda: self._runs.candidate_inner(pair, values),
            origins=self._origins,
            stored=self.noise.roundings.grids.in_file(pair).stored,
        )
        return replace(case, judged=lambda made: self._judged_as(case, values, made))

    def stated(self, pair: LayerPair) -> tuple[tuple[int, Difference], ...]:
        """What differs in the graphs at the nodes that compute a layer, with the position in the reference's graph."""
        return tuple((p, d) for p in self._computing(pair) for d in self.differences(p))

    def held(self, pair: LayerPair, judgement: Judgement) -> Judgement:
        """A judgement, of less where a layer's weights are stored in steps that do not explain what they are, and those
        of most layers are explained so: what a quantizer does that rounds otherwise, it does everywhere. Of more where
        other operators compute the same of scaled integers, whose steps are those of other tensors, and where all that
        differs is weights that are the reference's as the candidate stores them, in steps that no noise has, or where
        nothing does: a runtime may quantize weights between quantizers, which a layer alone does not have."""
        small = judgement.exceeds_noise and judgement.relative <= quantized_layer.STEPS
        if small and (self.in_other_steps(pair) or self._in_own_steps(pair) or self._in_one_program(pair)):
            return Judgement.plain_rounding(judgement.sample, judgement.relative, quantized_layer.STEPS)
        return judgement if self._outliers.isdisjoint(pair.reference.nodes) else judgement.of_outlier()

    def in_other_steps(self, pair: LayerPair) -> bool:
        """Whether other operators compute a layer, of scaled integers that the reference has no tensors for."""
        changes = [difference.change for p in pair.reference.nodes for difference in self.differences(p)]
        nodes = map(self.index.nodes.__getitem__, pair.reference.nodes)
        return quantized_layer.replaced(self.noise.roundings.grids.in_file(pair), changes, nodes)

    def _in_own_steps(self, pair: LayerPair) -> bool:
        """Whether all that differs in a layer is the rounding to integers: weights that are within half of a step in
        which they are stored, of two quantized files or of one and the program of a runtime, and quantizers that the
        candidate has where a first file that is quantized computes in floating point."""
        nodes = [*self._computing(pair), *(n for m in pair.candidate.nodes for n in self._twins.get(m, ()))]
        changes = [d.change for p in nodes for d in self.differences(p)]
        explained = all(
            change.quantized if isinstance(change, WeightChange) else self._quantizes_more and _only_quantizes(change)
            for change in changes
        )
        return bool(changes) and explained and not self.noise.roundings.quantized(pair)

    @functools.cached_property
    def _quantizes_more(self) -> bool:
        return is_quantized(self.index) and quantizes_more(self.candidate, self.reference)

    def _in_one_program(self, pair: LayerPair) -> bool:
        """Whether one runtime runs a layer of the same nodes with the same constants, in two quantized files."""
        mine, theirs = self.index, self.candidate.model.index
        if self.reference.runner != self.candidate.runner or not (is_quantized(mine) and is_quantized(theirs)):
            return False
        called = {name: self.matched.get(name, name) for name in pair.reference.inputs}
        called |= zip(pair.reference.outputs, pair.candidate.outputs, strict=True)
        return one_program(mine, pair.reference.nodes, theirs, pair.candidate.nodes, called)

    @functools.cached_property
    def _twins(self) -> Mapping[int, Sequence[int]]:
        """Nodes of the candidate -> those of the reference that they differ from."""
        found: dict[int, list[int]] = {}
        for position in range(len(self.index.nodes)):
            for difference in self.differences(position):
                found.setdefault(difference.candidate_node, []).append(position)
        return found

    @functools.cached_property
    def _outliers(self) -> frozenset[int]:
        found: dict[bool, set[int]] = {True: set(), False: set()}
        for position in range(len(self.index.nodes)):
            for difference in self.differences(position):
                if isinstance(difference.change, WeightChange):
                    beyond = difference.change.beyond_steps or difference.change.stored_scaled is not None
                    if beyond or difference.change.quantized:
                        found[beyond].add(position)
        return frozenset(found[True]) if MOST_EXPLAINED * len(found[True]) <= len(found[False]) else frozenset()

    def _computing(self, pair: LayerPair) -> tuple[int, ...]:
        """The nodes of a layer, and those before it that compute its shapes and other constants."""
        found = dict.fromkeys(pair.reference.nodes)
        waiting = [name for p in found for name in self.index.reads[p]]
        while waiting:
            name = waiting.pop()
            position = self.index.producer.get(name)
            if position is not None and position not in found and self._flow.recomputed(name):
                found[position] = None
                waiting.extend(self.index.reads[position])
        return tuple(found)

    def examine(self, case: LayerCase) -> Diagnosis:
        """The cause for one layer on one sample: that of the guiltiest node inside, where it can be taken apart."""
        found = undeclared.find(case, self.reference, self.candidate) or differences.resized(case)
        found = found or integer_pairs.find(case, self._exactly(case)) or self._behind(case)
        if found is not None:
            return found
        alone = case.formats.quantized  # scaled integers go from kernel to kernel, each a whole group
        if self.refine and not alone and len(case.pair.reference.nodes) > 1:
            refined = self._refine(case)
            if refined is not None:
                return refined
        return self._blame(case)

    def _blame(self, case: LayerCase) -> Diagnosis:
        """The cause for one layer as a whole: that of a part of it, where both sides compute it with other operators
        and it can be cut where tensors inside stand for each other."""
        found = self._cause(case)
        if not (self.refine and counterparts.can_be_cut(case, found)):
            return found
        pairs = counterparts.find(case)
        if not pairs:
            return found
        knowing = Examiner(
            self.reference,
            self.candidate,
            self.noise,
            differences=self.differences,
            matched={**self.matched, **pairs},
            observed=self.observed,
            refine=False,
            ends_finite=self.ends_finite,
        )
        return knowing._refine(case) or found

    def _exactly(self, case: LayerCase) -> Iterator[tuple[str, Callable[[], Judgement | None]]]:
        """Sides whose 8-bit products may saturate in a layer, and how to judge it where they do not."""
        pair = case.pair
        for side, nodes in ((self.candidate, pair.candidate.nodes), (self.reference, pair.reference.nodes)):
            exact = side.runner.unsaturated
            if exact is not None and integer_pairs.multiplies_integers(side.model.index, nodes):
                yield side.name, functools.partial(self._judged_by, case, replace(side, runner=exact))

    def _judged_by(self, case: LayerCase, side: Side) -> Judgement | None:
        """The judgement on a layer where a side is run by another runner; None where that cannot run it."""
        pair, values, made = case.pair, case.values, case.made
        if side.name == self.candidate.name:
            flat = self._runs.apart([pair], values, side)
            if flat is None:
                return None
            made = {n: flat[exploded_name(n, pair.number)] for n in pair.candidate.outputs}
        else:
            feed = {n: values[n] for n in pair.reference.inputs}
            try:
                part = slice_model(side.model, pair.reference, specs_of(feed))
                with opened_part(side, part, feed) as session:
                    values = {**values, **session.infer(feed)}
            except LayerdiffError as error:
                log.debug("cannot run %s exactly: %s", pair.reference.outputs, error)
                return None
        return self._judged_as(case, values, made)

    def _judged_as(self, case: LayerCase, values: Arrays, made: Arrays) -> Judgement:
        """The judgement on a layer with other values of one side."""
        found = self.noise.judge(case.pair, case.tensor, values, made, case.expected, case.judgement.sample)
        return self.held(case.pair, found)

    def lost_inside(self, pair: LayerPair, values: Arrays) -> Fact | None:
        """What a layer that is right holds inside, and the candidate's format cannot: see `one_kernel`."""
        runner, fmt = self.candidate.runner, self.candidate.runner.arithmetic
        if fmt.name not in STORAGE:
            return None
        inner, by_node = (functools.partial(find, pair, values) for find in (self._runs.inner, self._by_node))
        return lost_inside(pair, self.index, values, fmt, inner, by_node, runner.rounds_every_node)

    def _by_node(self, pair: LayerPair, values: Arrays) -> Arrays:
        """The floating outputs of a layer each of whose nodes rounds to the candidate's format; none where unknown."""
        if not self.reference.runner.capabilities.any_model:
            return {}
        feed = {n: values[n] for n in pair.reference.inputs}
        try:
            part = slice_model(self.reference.model, pair.reference, specs_of(feed))
            fmt = self.candidate.runner.arithmetic.name
            model = rewrite(part, fmt, every_node=True, decomposed=True).model
            with self.noise.runner.session(model) as session:
                made = session.infer(to_fp32(feed))
        except LayerdiffError as error:
            log.debug("cannot compute %s node by node: %s", pair.reference.outputs, error)
            return {}
        return {n: made[n] for n in pair.reference.outputs if is_float(values[n].dtype)}

    def _cause(self, case: LayerCase) -> Diagnosis:
        found = feeding.find(case, feeding.schedule(self.reference, self.candidate))
        if found is not None:
            return found
        found = next(d for find in ORDER if (d := find(case)) is not None)
        found = replace(found, clamped=found.clamped or stops_at_the_range(case))
        says = arbitrate(case, self.reference, self.candidate)
        return found if says is None else found.adding(says)

    # -- inside a layer -----------------------------------------------------------------------------------------

    def _operands(
        self, pair: LayerPair, tensor: str, values: Arrays, made: Arrays
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """See `LayerCase.operands`."""
        other = self.candidate.model.index
        op = operator(self.index.nodes[pair.main])
        if op in AFFINE_STEPS | STRETCHES:
            return values[tensor], made[pair.candidate.outputs[pair.reference.outputs.index(tensor)]]
        if op not in PRODUCTS:
            return None
        twins = [p for p in pair.candidate.nodes if operator(other.nodes[p]) == op]
        if len(twins) != 1:
            return None
        mine, theirs = self.index.nodes[pair.main].input[0], other.nodes[twins[0]].input[0]
        before = values if mine in values else self._runs.computed(pair, [mine], values)
        if mine not in before:
            return None
        if theirs in pair.candidate.inputs:
            source = {self.matched.get(n, n): n for n in pair.reference.inputs}.get(theirs)
            return None if source is None else (before[mine], values[source])
        part = replace(pair, candidate=backward(other, [theirs], set(pair.candidate.inputs)))
        flat = self._runs.apart([part], values)
        return None if flat is None else (before[mine], flat[exploded_name(theirs, pair.number)])

    def _behind(self, case: LayerCase) -> Diagnosis | None:
        """Blames nodes that one side alone has behind what both make."""
        if case.formats.quantized:
            return None
        found = inserted.find(case)
        if found is None:
            return None
        cause = self._cause(case)
        facts = tuple(fact for fact in cause.facts if not counterparts.names_operators(fact, alone=True))
        node, candidate_node = (found.nodes[-1], None) if found.fact.missing else (None, found.nodes[-1])
        return replace(cause, facts=(found.fact, *facts), node=node, candidate_node=candidate_node)

    def _refine(self, case: LayerCase) -> Diagnosis | None:
        """Takes a layer apart into its nodes, runs each on the reference's values, and examines the guiltiest."""
        parts = inside(self.index, self.candidate.model.index, case.pair, self.matched, self.observed)
        if len(parts) < 2:
            return None
        names = [n for p in parts for n in p.reference.outputs if n not in case.values]
        if names and not self.reference.runner.capabilities.any_model:
            matched = {n: other for n, other in self.matched.items() if n in case.values}
            parts, names = inside(self.index, self.candidate.model.index, case.pair, matched, self.observed), []
        values = {**self._runs.computed(case.pair, names, case.values), **case.values}
        parts = [p for p in parts if all(n in values for n in (*p.reference.inputs, *p.reference.outputs))]
        flat = self._runs.apart(parts, values)
        if flat is None:
            return None
        expected = self.noise.probe(parts, values)
        guilty = []
        for part in parts:
            made = {n: flat[exploded_name(n, part.number)] for n in part.candidate.outputs}
            mine = expected.get(part.number, Expected())
            found = self.noise.judge(part, part.reference.outputs[0], values, made, mine, case.judgement.sample)
            if found.exceeds_noise:
                guilty.append(self.case(part, found, values, made, mine, case.entry))
        if not guilty:
            return None
        worst = max(guilty, key=differences.guilt)
        blamed = self._blame(worst) if self.refine else self._cause(counterparts.narrowed(worst, case.pair))
        if any(isinstance(fact, differences.GraphsDiffer) for fact in blamed.facts):
            beyond = [d for c in guilty if c is not worst for d in differences.beyond_formats(c.differences)]
            blamed = differences.with_others(blamed, self.index, beyond)
        return blamed if blamed.node is not None else replace(blamed, node=worst.pair.main)


def _only_quantizes(change: object) -> bool:
    """Whether a difference is nothing but quantizers that the candidate alone has."""
    if not isinstance(change, OperatorChange) or change.reference:
        return False
    return bool(change.candidate) and all(op in QUANTIZERS for op, _ in change.candidate)
