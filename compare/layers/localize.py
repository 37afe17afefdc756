"""From a comparison that ran to its layers and culprits: walks, judges, ranks, and adds them to the report."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...graph.cutting.pieces import readable
from ...graph.formats import FP32, NumberFormat, coarser
from ...graph.operators import STRETCHES
from ...graph.rounding.depth import depths
from ...graph.rounding.roundings import roundings
from .. import notices
from ..causes.examiner import Diagnosis, Examiner
from ..causes.expected_noise import Noise
from ..causes.judgement import RMS_LIMIT
from ..lockstep.kernels import kernel_groups
from ..lockstep.units import LayerPair, LockstepPlan, plan
from ..outputs.formats_in_play import formats_in_play
from ..progress import SILENT, Progress
from ..report.model import Culprit, LayerResult
from ..runs.memory import budget, free_memory, reused, weight_bytes
from ..sides import Side, Sides
from .bodies import BodyFindings, BodyLocalizer
from .fidelity import doubt, fidelity
from .observable import observable
from .walk import LayerObservation, Walk, relative_error

if TYPE_CHECKING:
    from ...graph.pairing.matching import Matching
    from ..causes.judgement import Judgement
    from ..comparison import Comparison
    from ..report.model import Fidelity, LayerVerdict, Notice, OutputResult, Report
    from ..runs.run import RunLog

STREAMS = 7
"""How many times a piece's tensors and weights are held at once: by the reference, the candidate on the same inputs
and on its own, in the sessions of this piece and of the next."""
HEALED = 0.1
"""A layer whose error shrinks to this share of it right behind the layer has healed."""
ANOTHER = 0.5
"""Relative error from which on a tensor may be another one; two that have nothing to do with each other have 1.4."""
DOMINANT = 0.7
"""Share of the final error from which a layer of mere rounding is named all the same."""
CANCELS = 8.0
"""Times the rounding of a result that rounding must come to for the layer's inputs to cancel. A product has 2."""
INT8_ROUNDING = 0.01
"""Relative RMS of rounding to 255 steps, for values that reach four times their RMS: 4 / 127 / sqrt(12)."""
EXPLAINS = 0.5
"""Share of the observed error at the outputs from which on a layer explains it."""
REPRODUCED = 0.1
"""Share of an output's error that the walk must show for its layers to be asked about it, and the deployed run for what
a layer does in the walk to be the deployed program's."""
FORCED = 6
"""Layers whose contribution is measured where outputs disagree and no layer is beyond its expected noise."""


def localize(comparison: Comparison, log: RunLog, report: Report, progress: Progress = SILENT) -> Report:
    """Walks every candidate beside the reference and adds layers, culprits and notices to the report.

    Args:
        comparison: What was compared: the sides that ran.
        log: How the run of the whole models went.
        report: What the outputs showed. Its verdict stays: culprits alone do not fail a run whose outputs agree.
        progress: Told what is going on.
    """
    layers: list[LayerResult] = []
    culprits: list[Culprit] = []
    observed: list[Fidelity] = []
    sides, told = observable(comparison.sides)
    reference, *candidates = (_for_pieces(side, log) for side in sides.all)
    comparison = dataclasses.replace(comparison, sides=Sides(reference, tuple(candidates)))
    weights = weight_bytes(comparison.sides.all)
    with reused(weights, budget(comparison.rules.memory)):
        for candidate in comparison.candidates:
            formats = formats_in_play(reference, candidate)
            found = _Localizer(comparison, candidate, report, formats, log=log, progress=progress).run()
            layers.extend(found.layers)
            culprits.extend(found.culprits)
            observed.extend(found.fidelity)
            told.extend(found.notices)
    return dataclasses.replace(
        report,
        layers=(*report.layers, *layers),
        culprits=(*report.culprits, *culprits),
        fidelity=(*report.fidelity, *observed),
        notices=tuple(dict.fromkeys((*report.notices, *told))),
    )


def _off(output: OutputResult) -> bool:
    """Whether an output does not agree, or rounding alone makes its error large."""
    undecided = output.verdict == "undecided" and output.expected is not None and output.expected["rel_l2"] is not None
    return (output.verdict == "fail" or undecided) and output.metrics is not None


def _for_pieces(side: Side, log: RunLog) -> Side:
    return dataclasses.replace(side, runner=side.runner.for_pieces(log.of(side.name).info))


class _Localizer:
    """One candidate.

    Args:
        comparison: The comparison.
        candidate: Who is judged.
        report: What the outputs showed.
        formats: Number formats in play.
        carried: In the body of a loop: the state that an iteration reads -> what the one before it made it.
        log: How the run of the whole models went; None in a body, which the deployed program says nothing of.
        progress: Told what is going on.
    """

    def __init__(
        self,
        comparison: Comparison,
        candidate: Side,
        report: Report,
        formats: Sequence[NumberFormat],
        *,
        carried: Mapping[str, str] | None = None,
        log: RunLog | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.comparison = comparison
        self.candidate = candidate
        self.reference = comparison.reference
        self.report = report
        self.formats = formats
        self.log = log
        self.progress = progress
        self.carried = carried or {}
        self.layers: list[LayerResult] = []
        self.culprits: list[Culprit] = []
        self.fidelity: list[Fidelity] = []
        self.notices: list[Notice] = []
        self.bodies: BodyLocalizer | None = None
        self.innocent: dict[int, LayerVerdict] = {}
        self.unshown: set[int] = set()
        self.index = self.reference.model.index
        self.same = candidate.model.same_network(self.reference.model)

    def run(self) -> _Localizer:
        runner = self.candidate.runner
        self.progress.stage(f"{self.candidate.name}: layer by layer")
        matching = None if self.same else self._match()
        matched = self._matched(matching)
        layout = self._plan(matched)
        walk = self._walk(layout, matching, matched, runner.arithmetic)
        walk.run()
        verdicts = self._verdicts(walk)
        blamed = [s for s in walk.seen if verdicts[s.unit.number] == "culprit" or self._entered(s).culprits]
        if not blamed and self._outputs_fail() and self._reproduced(walk):
            blamed = self._spread(layout, walk, verdicts)
        self.unshown = {s.unit.number for s in blamed if self._not_deployed(s, walk)}
        blamed.sort(key=lambda s: (s.unit.number in self.unshown, *_rank(s)))
        self.culprits = [culprit for s in blamed for culprit in self._guilty(s, walk)]
        self.layers = self._layers(walk, layout, verdicts, matched)
        self._warn(walk, layout, verdicts, matching)
        return self

    # -- what is walked -----------------------------------------------------------------------------------------

    def _match(self) -> Matching:
        from ...graph.pairing.matching import match

        return match(self.index, self.candidate.model.index)

    def _matched(self, matching: Matching | None) -> dict[str, str]:
        if matching is None:
            names = {*self.index.producer, *self.index.inputs}
            matched = {name: name for name in names}
        else:
            matched = dict(matching.tensors)
        for side in (self.reference, self.candidate):
            # TensorFlow knows only the tensors of which the conversion left a trace
            if not side.runner.capabilities.pieces and side.model.tf is not None:
                known = {*side.model.tf.tensors, *self.index.inputs, *self.index.outputs}
                matched = {n: other for n, other in matched.items() if n in known}
        return matched

    def _plan(self, matched: Mapping[str, str]) -> LockstepPlan:
        shapes = self._shapes()
        memory = budget(self.comparison.rules.memory)
        every = self.comparison.rules.layers == "all"
        deployed = None if self.log is None else self.log.of(self.candidate.name).info
        kernels: Sequence[frozenset[int]] = ()
        if self.same and deployed is not None:
            kernels = self.candidate.runner.kernels(self.candidate.model, deployed)
        return plan(
            self.index,
            self.candidate.model.index,
            matched,
            every=every,
            shapes=shapes,
            memory=memory // STREAMS,
            groups=kernel_groups(self.index, kernels) if kernels else None,
        )

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        from ...graph.cutting.propagate import propagate

        first = next(iter(self.comparison.samples), None)
        if first is None:
            return {}
        if all(s.shape is not None and all(isinstance(d, int) for d in s.shape) for s in self.reference.model.inputs):
            return {}
        shapes = propagate(self.reference.model, {name: array.shape for name, array in first.items()})
        return {name: shape for name, shape in shapes.items() if shape is not None}

    def _walk(
        self,
        layout: LockstepPlan,
        matching: Matching | None,
        matched: Mapping[str, str],
        fmt: NumberFormat,
        forced: Sequence[int] = (),
    ) -> Walk:
        reference = self.reference.runner.arithmetic
        rounding = roundings(reference, fmt, {"": 0.0} if fmt.is_integer else None, self.candidate.runner.accumulator)
        candidate = self.candidate
        candidate = self._calibrated(candidate)
        walk = Walk(
            self.comparison,
            candidate,
            layout,
            Noise(self.reference, candidate, rounding),
            forced=forced,
            deployed=None if self.log is None else self.log.deployed,
            budget=budget(self.comparison.rules.memory),
            progress=self.progress,
        )
        if not forced:
            differences: dict[int, list[object]] = {}
            for difference in matching.differences if matching is not None else ():
                differences.setdefault(difference.node, []).append(difference)
            # where a runtime runs the group as one kernel in a narrow format, the kernel is the smallest thing to name
            refine = fmt == FP32
            self.bodies = BodyLocalizer(self.comparison, candidate, matched, self._body, walk.noise.runner)
            walk.examiner = Examiner(walk, (fmt, reference), differences, matched, refine, self.bodies)  # type: ignore[arg-type]
        return walk

    def _calibrated(self, candidate: Side) -> Side:
        """The candidate with ranges that are those of the whole model, on the samples."""
        from ..runs.piecewise import calibrated, in_pieces

        memory = self.comparison.rules.memory
        apart = in_pieces((self.reference, candidate), memory)
        runner = calibrated(candidate, self.comparison.workload, memory, apart)
        return dataclasses.replace(candidate, runner=runner)

    def _body(self, comparison: Comparison, candidate: Side, carried: Mapping[str, str]) -> _Localizer:
        """The same for the body of an If, Loop or Scan. It has no outputs of which anything is known."""
        without = dataclasses.replace(self.report, outputs=())
        return _Localizer(comparison, candidate, without, self.formats, carried=carried).run()

    # -- verdicts -----------------------------------------------------------------------------------------------

    def _verdicts(self, walk: Walk) -> dict[int, LayerVerdict]:
        by_tensor = {n: s for s in walk.seen for n in s.unit.reference.outputs}
        consumers: dict[int, list[LayerObservation]] = {}
        for s in walk.seen:
            for name in s.unit.reference.inputs:
                if name in by_tensor:
                    consumers.setdefault(by_tensor[name].unit.number, []).append(s)
        depth = depths(self.index)
        u = self._coarsest().u
        result: dict[int, LayerVerdict] = {}

        def quiet(s: LayerObservation) -> bool:
            limit = 4 * (u if math.isfinite(u) else 1e-2) * math.sqrt(max(1, depth.get(s.unit.reference.outputs[0], 1)))
            return _cumulative(s) <= limit

        names = set(self.index.outputs)

        def gone(s: LayerObservation, error: float) -> bool:
            return bool(s.cumulative) and quiet(s) and _cumulative(s) < HEALED * error

        def healed(s: LayerObservation) -> bool:
            """Whether nothing of it is left right behind it. Between two graphs that may be some layers on: where names
            are those of other tensors, all is utterly off until both graphs come to the same values again."""
            error = s.judgement.relative if s.judgement is not None else math.inf
            if gone(s, error):
                return True
            elsewhere = not self.same and error > ANOTHER
            waiting, seen = [s], {s.unit.number}
            while waiting:
                here = waiting.pop()
                after = consumers.get(here.unit.number, [])
                if not after or any(n in names for n in here.unit.reference.outputs):
                    return False
                for c in after:
                    if c.unit.number in seen or gone(c, error):
                        continue
                    if not elsewhere:
                        return False
                    seen.add(c.unit.number)
                    waiting.append(c)
            return True

        for s in walk.seen:
            number = s.unit.number
            if s.failure is not None:
                result[number] = "healed" if not self.same and healed(s) else "culprit"
            elif s.beyond and not self._entered(s).clean:
                result[number] = "healed" if healed(s) else "culprit"
        self._blame(walk, result, by_tensor)
        self._pair_quantizers(walk, result, by_tensor)
        tainted: set[int] = set()
        for s in walk.seen:
            number = s.unit.number
            above = any(by_tensor[n].unit.number in tainted for n in s.unit.reference.inputs if n in by_tensor)
            if number not in result:
                result[number] = self._quiet_verdict(s, above and not quiet(s))
            if result[number] == "culprit" or above:
                tainted.add(number)
            if s.off != s.unit.reference.outputs:
                self.innocent[number] = "inherited" if above and not quiet(s) else "ok"
        return result

    def _coarsest(self) -> NumberFormat:
        """The coarsest format that rounding is expected in. Quantizers in a graph round the same way on both sides."""
        result = coarser(self.candidate.runner.arithmetic, self.reference.runner.arithmetic)
        for fmt in self.formats:
            if not fmt.is_integer:
                result = coarser(result, fmt)
        return result

    @staticmethod
    def _quiet_verdict(s: LayerObservation, inherits: bool) -> LayerVerdict:
        if s.unit.random or (not s.local and not s.cumulative):
            return "unknown"
        if inherits and _cumulative(s) > 3 * (s.judgement.relative if s.judgement else 0.0):
            return "inherited"
        if not s.local or (s.judgement is not None and not s.judgement.known):
            return "unknown"
        return "ok"

    def _blame(self, walk: Walk, result: dict[int, LayerVerdict], by_tensor: Mapping[str, LayerObservation]) -> None:
        """Layers that are given what the candidate's format cannot hold: their producer is guilty instead."""
        excused: set[int] = set()
        for s in walk.seen:
            if result.get(s.unit.number) != "culprit" or s.diagnosis is None or s.diagnosis.producer is None:
                continue
            producer = self._origin(s.diagnosis.producer, by_tensor)
            if producer is None:  # an input of the model: there is nobody behind it
                continue
            result[s.unit.number] = "inherited"
            excused.add(s.unit.number)
            producer = self._begun(producer, result, by_tensor)
            if result.get(producer.unit.number) != "culprit" and producer.unit.number not in excused:
                result[producer.unit.number] = "culprit"
                producer.diagnosis = Diagnosis(s.diagnosis.cause, s.diagnosis.evidence)
                producer.blamed = s.diagnosis.producer

    def _begun(
        self, s: LayerObservation, result: Mapping[int, LayerVerdict], by_tensor: Mapping[str, LayerObservation]
    ) -> LayerObservation:
        """Where a loss began that a producer only hands on: it was itself given values among the subnormals, and what
        it does to them is excused by the step of these."""
        while _excused_by_step(s) and result.get(s.unit.number) != "culprit":
            makers = [m for n in s.unit.reference.inputs if (m := self._origin(n, by_tensor)) is not None]
            lossy = [m for m in makers if result.get(m.unit.number) == "culprit" or _excused_by_step(m)]
            if not lossy:
                break
            s = lossy[0]
        return s

    def _origin(self, tensor: str, by_tensor: Mapping[str, LayerObservation]) -> LayerObservation | None:
        """Who made the values of a tensor: the layer before those that only move them."""
        found = by_tensor.get(tensor, by_tensor.get(self.carried.get(tensor, "")))
        while found is not None and all(self.index.nodes[p].op_type in STRETCHES for p in found.unit.reference.nodes):
            before = next((by_tensor[n] for n in found.unit.reference.inputs if n in by_tensor), None)
            if before is None:
                break
            found = before
        return found

    def _pair_quantizers(
        self, walk: Walk, result: dict[int, LayerVerdict], by_tensor: Mapping[str, LayerObservation]
    ) -> None:
        """A wrong scale stands in QuantizeLinear and again in the DequantizeLinear behind it: one fault."""
        nodes = self.index.nodes
        for s in walk.seen:
            if result.get(s.unit.number) == "culprit" and nodes[s.unit.main].op_type == "DequantizeLinear":
                before = by_tensor.get(nodes[s.unit.main].input[0])
                if before is not None and result.get(before.unit.number) == "culprit":
                    result[s.unit.number] = "inherited"

    # -- no layer is beyond its noise, and yet the outputs disagree ---------------------------------------------

    def _outputs_fail(self) -> bool:
        return any(_off(o) for o in self.report.of(self.candidate.name))

    def _reproduced(self, walk: Walk) -> bool:
        """Whether the walk shows some of the error by which outputs fail. It does not show that of random values."""
        for output in self.report.of(self.candidate.name):
            seen, deployed = walk.outputs.get(output.tensor), (output.metrics or {}).get("rel_l2")
            if not _off(output) or seen is None:
                continue
            if deployed is None or relative_error(seen) > REPRODUCED * deployed:
                return True
        return False

    def _not_deployed(self, s: LayerObservation, walk: Walk) -> bool:
        """Whether what a layer does to the outputs, run in pieces, is not in the outputs as deployed.

        A runtime may keep a layer inside a kernel, or in a wider format, as long as nobody looks.
        """
        if s.contribution is None or s.contribution < EXPLAINS:
            return False
        more = []
        reached = self._behind(s.off)
        for output in self.report.of(self.candidate.name):
            seen, metrics = walk.outputs.get(output.tensor), output.metrics
            if seen is None or metrics is None or output.tensor not in reached or not relative_error(seen):
                continue
            deployed = metrics.get("rel_l2")
            more.append(deployed is not None and REPRODUCED * relative_error(seen) > deployed)
        return bool(more) and all(more)

    def _behind(self, tensors: Sequence[str]) -> set[str]:
        """Tensors, and all that depend on them."""
        reached, waiting = set(tensors), list(tensors)
        while waiting:
            for position in self.index.consumers.get(waiting.pop(), ()):
                new = {name for name in self.index.nodes[position].output if name} - reached
                reached |= new
                waiting.extend(new)
        return reached

    def _plain_rounding(self, walk: Walk) -> float:
        """The relative error of a result that is rounded and nothing else."""
        return max(walk.noise.rounding.result, INT8_ROUNDING if walk.noise.rounding.steps else 0.0)

    def _not_a_number(self, walk: Walk) -> LayerObservation | None:
        """The layer where NaN begins on both sides, where that is what fails the outputs."""
        outputs = [o for o in self.report.of(self.candidate.name) if _off(o)]
        if not outputs or not all(o.metrics and o.metrics["nan"] and all(o.metrics["nan"]) for o in outputs):
            return None
        for s in walk.seen:
            for name, statistics in s.local.items():
                mine, theirs = statistics.metrics()["nan"] or (0, 0)
                if mine and theirs:
                    text = f"{mine:,} values of {name!r} are NaN in the reference itself, {theirs:,} in the candidate"
                    s.diagnosis = Diagnosis("nan", text)
                    return s
        return None

    def _spread(self, layout: LockstepPlan, walk: Walk, verdicts: dict[int, LayerVerdict]) -> list[LayerObservation]:
        """Measures what the layers with the largest rounding contribute."""
        already = self._not_a_number(walk)
        if already is not None:
            verdicts[already.unit.number] = "culprit"
            return [already]
        loud = [s for s in walk.seen if s.judgement is not None and 0 < s.judgement.relative < math.inf]
        loud = sorted(loud, key=lambda s: s.judgement.relative if s.judgement else 0.0, reverse=True)[:FORCED]
        if not loud or not self.candidate.runner.capabilities.pieces:
            return []
        again = self._walk(layout, None, {}, self.candidate.runner.arithmetic, [s.unit.number for s in loud])
        again.run()
        for s in loud:
            s.contribution = again.seen[s.unit.number].contribution
        loud = [s for s in loud if s.contribution is not None]
        loud.sort(key=lambda s: s.contribution or 0.0, reverse=True)
        if not loud:
            return []
        top = loud[0]
        shares = ", ".join(f"{self.index.names[s.unit.main]} {s.contribution:.0%}" for s in loud[:3])
        assert top.judgement is not None
        z = "" if top.judgement.rms_z is None else f" (RMS z {top.judgement.rms_z:.1f})"
        if not top.judgement.known:
            text = (
                f"its expected noise is unknown; it is off by {top.judgement.relative:.1e} of its values and explains "
                f"{top.contribution:.0%} of the final error"
            )
            top.diagnosis = Diagnosis("unknown", text)
        elif (top.contribution or 0.0) >= DOMINANT and top.judgement.relative > CANCELS * self._plain_rounding(walk):
            text = (
                f"its error is rounding{z}, but {top.judgement.relative:.1e} of its values, and explains "
                f"{top.contribution:.0%} of the final error: its inputs cancel; raise the precision before it"
            )
            top.diagnosis = Diagnosis("cancellation", text)
        else:
            # an entry for the report, and no layer to blame: the layer's verdict stays what it is
            top.diagnosis = Diagnosis("spread", f"no layer is beyond rounding; the greatest contributions are {shares}")
            return [top]
        verdicts[top.unit.number] = "culprit"
        return [top]

    # -- the report ---------------------------------------------------------------------------------------------

    def _entered(self, s: LayerObservation) -> BodyFindings:
        """What was found inside a layer, if it was entered."""
        return (self.bodies.found if self.bodies is not None else {}).get(s.unit.number, BodyFindings())

    def _guilty(self, s: LayerObservation, walk: Walk) -> list[Culprit]:
        """A layer, or instead of it the nodes inside that are to blame. One alone explains what the layer does."""
        inside = self._entered(s).culprits
        share = s.contribution if len(inside) == 1 else None
        found = [dataclasses.replace(c, contribution=share) for c in inside] or [self._culprit(s, walk)]
        if s.unit.number not in self.unshown:
            return found
        text = "the outputs as deployed do not show it: there the runtime does not compute it alone, or not so narrow"
        return [dataclasses.replace(c, deployed=False, evidence=f"{c.evidence}; {text}") for c in found]

    def _culprit(self, s: LayerObservation, walk: Walk) -> Culprit:
        main = s.unit.main
        cause, evidence = "unknown", s.failure or ""
        if s.diagnosis is not None:
            cause, evidence = s.diagnosis.cause, s.diagnosis.evidence
            main = s.diagnosis.node if s.diagnosis.node is not None else main
        elif s.failure is not None:
            cause = "wrong-op"
            evidence = f"the candidate cannot run it on the reference's values: {s.failure}"
        main = self._maker(main)
        name = s.off[0]
        local = s.full.metrics() if s.full is not None else (s.local[name].metrics() if name in s.local else None)
        return Culprit(
            candidate=self.candidate.name,
            node=self.index.names[main],
            op=self.index.nodes[main].op_type,
            tensors=s.off,
            cause=cause,
            local=local,
            contribution=s.contribution,
            evidence=evidence,
            candidate_node=self._candidate_node(s.unit, main),
        )

    def _maker(self, position: int) -> int:
        """Who makes what an Identity hands on: of two names for one value, each graph makes the one it likes."""
        while self.index.nodes[position].op_type == "Identity":
            maker = self.index.producer.get(self.index.nodes[position].input[0])
            if maker is None:
                break
            position = maker
        return position

    def _candidate_node(self, unit: LayerPair, main: int) -> str | None:
        """The candidate's name of the node, if it is another one."""
        if self.same or not unit.candidate.nodes:
            return None
        other = self.candidate.model.index
        op = self.index.nodes[main].op_type
        position = next((p for p in reversed(unit.candidate.nodes) if other.nodes[p].op_type == op), None)
        name = other.names[unit.candidate.nodes[-1] if position is None else position]
        return name if name != self.index.names[main] else None

    def _layers(
        self, walk: Walk, layout: LockstepPlan, verdicts: Mapping[int, LayerVerdict], matched: Mapping[str, str]
    ) -> list[LayerResult]:
        names, nodes = self.index.names, self.index.nodes
        result = []
        for s in walk.seen:
            verdict = verdicts[s.unit.number]
            entered = self._entered(s)
            if entered.culprits:  # one fault, one culprit: the node inside
                verdict = "inherited"
            guilty = verdict in ("culprit", "healed")
            for name in s.unit.reference.outputs:
                mine = self.innocent[s.unit.number] if guilty and name not in s.off else verdict
                result.append(
                    LayerResult(
                        candidate=self.candidate.name,
                        tensor=name,
                        node=names[s.unit.main],
                        nodes=tuple(names[p] for p in s.unit.reference.nodes),
                        op=nodes[s.unit.main].op_type,
                        index=s.unit.number,
                        piece=s.piece,
                        local=s.local[name].metrics() if name in s.local else None,
                        cumulative=s.cumulative[name].metrics() if name in s.cumulative else None,
                        expected=_expected(s.judgements.get(name, s.judgement)),
                        contribution=s.contribution,
                        verdict=mine,
                        cause=s.diagnosis.cause if s.diagnosis is not None and mine == "culprit" else None,
                        candidate_node=self._candidate_node(s.unit, s.unit.main),
                    )
                )
            result.extend(entered.layers)
        for name in layout.unmatched:
            position = self.index.producer[name]
            result.append(
                LayerResult(
                    candidate=self.candidate.name,
                    tensor=name,
                    node=names[position],
                    nodes=(names[position],),
                    op=nodes[position].op_type,
                    index=position,
                    piece=-1,
                    verdict="unmatched",
                )
            )
        return result

    def _warn(
        self, walk: Walk, layout: LockstepPlan, verdicts: Mapping[int, LayerVerdict], matching: Matching | None
    ) -> None:
        who = self.candidate.name
        if layout.too_large:
            self._too_large(layout)
        self.notices.extend(walk.notices)
        loud = [c for c in self.culprits if c.cause != "spread" and c.deployed is not False]
        if loud and not self._outputs_fail():
            self.notices.append(notices.outputs_agree(who, [c.node for c in loud[:3]], len(loud)))
        if layout.unmatched:
            self.notices.append(notices.no_counterpart(who, len(layout.unmatched)))
        healed = sum(v == "healed" for v in verdicts.values())
        if healed:
            self.notices.append(notices.healed(who, healed))
        drawn = [self.index.names[s.unit.main] for s in walk.seen if s.unit.random]
        if drawn:
            self.notices.append(notices.random_values(who, drawn[0], len(drawn) - 1))
        unknown = [s for s in walk.seen if s.judgement is not None and not s.judgement.known]
        if unknown:
            self.notices.append(notices.noise_unknown(who, self.index.names[unknown[0].unit.main], len(unknown)))
        self._branches(walk)
        self._fidelity(walk)

    def _too_large(self, layout: LockstepPlan) -> None:
        """What memory would do, where pieces that cannot be cut are larger than it allows, or than there is."""
        worst = max(layout.too_large, key=lambda piece: piece.activations + piece.weights)
        needed = STREAMS * (worst.activations + worst.weights)
        asked = self.comparison.rules.memory
        free = int(min(free_memory(), sys.maxsize))
        if asked is None and needed <= free:
            return
        layer = " to ".join(dict.fromkeys([self.index.names[worst.nodes[0]], self.index.names[worst.nodes[-1]]]))
        allowed = (
            f"The free memory, {readable(int(free_memory()))}," if asked is None else f"--memory, {readable(asked)},"
        )
        others = len(layout.too_large) - 1
        rest = f" {others} more of {layout.pieces} pieces are too large." if others else ""
        self.notices.append(
            notices.layer_too_large(self.candidate.name, allowed, readable(needed), STREAMS, layer, rest)
        )

    def _branches(self, walk: Walk) -> None:
        """Conditions that come out otherwise when the candidate runs on its own values."""
        nodes, names = self.index.nodes, self.index.names
        for s in walk.seen:
            for name in (n for n, seen in s.cumulative.items() if relative_error(seen)):
                readers = [p for p in self.index.consumers.get(name, ()) if nodes[p].op_type == "If"]
                chosen = [names[p] for p in readers if nodes[p].input[0] == name]
                if chosen:
                    self.notices.append(notices.other_branch(self.candidate.name, chosen[0], name))

    def _fidelity(self, walk: Walk) -> None:
        """Whether the run in pieces is the candidate as it is deployed."""
        for output in self.report.of(self.candidate.name):
            if output.metrics is None or output.tensor not in walk.identical:
                continue
            seen = walk.outputs.get(output.tensor)
            observed = math.inf if seen is None else relative_error(seen)
            flags = walk.identical[output.tensor] if seen is not None else ()
            found = fidelity(self.candidate.name, output.tensor, output.metrics.get("rel_l2"), observed, flags)
            self.fidelity.append(found)
            if seen is not None and (notice := doubt(found)) is not None:
                self.notices.append(notice)


def _excused_by_step(s: LayerObservation) -> bool:
    """Whether a layer's error would be beyond its noise, were it not smaller than the step among the subnormals."""
    j = s.judgement
    return j is not None and not s.beyond and j.rms_z is not None and j.rms_z > RMS_LIMIT[True]


def _cumulative(s: LayerObservation) -> float:
    return max((relative_error(statistics) for statistics in s.cumulative.values()), default=math.inf)


def _expected(j: Judgement | None) -> dict[str, float | None] | None:
    """A judgement as the report has it; None where nothing was held against the expected noise."""
    if j is None or j.rms_z is None:
        return None
    return {"rms_z": _finite(j.rms_z), "gain_sigma": _finite(j.gain_sigma), "bound_use": _finite(j.bound_use)}


def _rank(s: LayerObservation) -> tuple[float, float, int]:
    excess = s.judgement.excess if s.judgement is not None else math.inf
    return (-round(min(s.contribution or 0.0, 1.0), 1), -excess, s.unit.number)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
