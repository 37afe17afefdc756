"""Layers are held against their expected noise, and examined, while their tensors are at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.specs import Arrays, is_float
from ..causes import exchanged_layers, given, other_operand
from ..causes.control_flow import OtherBranch
from ..causes.diagnosis import Diagnosis, Remark
from ..causes.differences import in_graphs, reads_another
from ..causes.expected_noise import Expected, Noise, entry_of
from ..causes.judgement import SLICE, Judgement
from .findings import BodyFindings

if TYPE_CHECKING:
    import numpy as np

    from ..causes.case import LayerCase
    from ..causes.examiner import Examiner
    from ..lockstep.plan import LayerPair
    from .bodies import BodyLocalizer
    from .observation import Gathering


class LayerJudge:
    """Judges the layers of one walk.

    Args:
        noise: What rounding is expected of a healthy layer.
        examiner: Finds the cause for a layer that exceeds it.
        bodies: Enters If, Loop and Scan.
        every: Whether bodies are entered too where the layer does not exceed its noise.
    """

    def __init__(self, noise: Noise, examiner: Examiner, bodies: BodyLocalizer, *, every: bool = False) -> None:
        self.noise = noise
        self.examiner = examiner
        self.bodies = bodies
        self.every = every

    def worth_judging(self, seen: Gathering, relative: float, sample: int, values: Arrays) -> bool:
        """Whether a layer has to be held against its expected noise: not where plain rounding explains it.

        Args:
            seen: What was seen of it so far.
            relative: Its relative L2 error on this sample.
            sample: Number of the sample.
            values: The reference's tensors.
        """
        before = seen.judgement
        for name in self.noise.roundings.grids.in_file(seen.pair).stored:
            if name in values:
                seen.took(name, values[name])
        if not math.isfinite(relative):
            return before is None or not before.exceeds_noise
        if not relative or (before is not None and relative <= 2 * before.relative):
            return False
        plain = self.noise.plain(seen.pair, values)
        if relative > plain:
            return True
        seen.judgement = Judgement.plain_rounding(sample, relative, plain)
        return False

    def judge(
        self, suspects: Sequence[Gathering], sample: int, values: Arrays, made: Mapping[int, Arrays]
    ) -> list[Gathering]:
        """Holds layers against their expected noise, large tensors by the entry of the batch that is off the most.

        Args:
            suspects: The layers.
            sample: Number of the sample.
            values: The reference's tensors.
            made: The candidate's outputs of each layer on them, by the layer's number.

        Returns:
            Those that this sample gave away and that are to blame themselves.
        """
        guilty = []
        entries: dict[int | None, list[Gathering]] = {}
        for seen in suspects:
            entries.setdefault(self.noise.entry(seen.pair, values, made[seen.pair.number]), []).append(seen)
        for entry, members in entries.items():
            pairs = [seen.pair for seen in members]
            part = values if entry is None else entry_of(values, pairs, entry)
            clear = [p for p in pairs if self.noise.known(p) and _comparable(p, values, made[p.number])]
            expected = self.noise.probe(clear, part)
            for seen in members:
                mine = made[seen.pair.number]
                if entry is not None:
                    mine = {n: a[entry : entry + 1] for n, a in mine.items()}
                noise = expected.get(seen.pair.number, Expected())
                case = self._held(seen, sample, part, mine, noise, entry or 0)
                if case is not None and self._diagnosed(seen, case, sample, values, made[seen.pair.number]):
                    guilty.append(seen)
        self._join_exchanged(guilty, values, made)
        return guilty

    def _join_exchanged(self, guilty: Sequence[Gathering], values: Arrays, made: Mapping[int, Arrays]) -> None:
        """Tells layers that make each other's outputs as one fault, at the first of them."""

        def arrays(seen: Gathering) -> tuple[np.ndarray, np.ndarray]:
            other = seen.pair.candidate.outputs[seen.pair.reference.outputs.index(seen.tensor)]
            return values[seen.tensor], made[seen.pair.number][other]

        index = self.noise.index
        free = [s for s in guilty if is_float(values[s.tensor].dtype) and not self._told(s.diagnosis)]
        for group in exchanged_layers.groups([arrays(seen) for seen in free]):
            first, *others = (free[place] for place in group)
            nodes = [seen.pair.main for seen in (first, *others)]
            if len({*nodes}) < len(nodes):  # parts of what one node makes
                nodes = [index.producer[seen.tensor] for seen in (first, *others)]
            names = tuple(f"{index.nodes[node].op_type} {index.names[node]}" for node in nodes)
            told = exchanged_layers.diagnosis(names, nodes[0])
            first.diagnosis = told
            for other in others:
                other.diagnosis = replace(told, node=None, producer=first.tensor)

    def _told(self, found: Diagnosis | None) -> bool:
        """Whether the graphs say which tensors, or whose weights, a layer reads, which tells more than its values."""
        told = reads_another(found) or other_operand.is_told(found)
        return told or bool(exchanged_layers.holders(self.noise.index, found))

    def look_inside(self, seen: Gathering, values: Arrays, made: Arrays | None) -> None:
        """Looks into a layer that does not exceed its noise: for what would be lost, were it not one kernel, and where
        every layer is to be seen, into its body; each once."""
        if not seen.looked_into:
            seen.looked_into = True
            if seen.judgement is None or not seen.judgement.exceeds_noise:
                seen.fused = self.examiner.lost_inside(seen.pair, values)
        if self.every and made is not None and not self.bodies.entered(seen.pair):
            seen.inside = self.bodies.enter(seen.pair, values, made) or seen.inside

    # -- one layer ----------------------------------------------------------------------------------------------

    def _held(
        self, seen: Gathering, sample: int, values: Arrays, made: Arrays, expected: Expected, entry: int
    ) -> LayerCase | None:
        """Judges one layer on one draw of its noise, and on more of them before what one draw cannot tell makes it
        guilty. Returns a case if this sample is the one that gives it away."""
        pair = seen.pair
        found = self._outputs(pair, sample, values, made, expected)
        reasons = {judgement.reason for judgement in found.values()}
        if reasons & {"slice", "gain"} or ("noise" in reasons and self._scatters(pair, values)):
            expected = self.noise.settled(pair, values)
            found = self._outputs(pair, sample, values, made, expected)
        worst = seen.note({name: self.examiner.held(pair, judgement) for name, judgement in found.items()})
        if worst is None or not worst.exceeds_noise or worst.sample != sample:
            return None
        return self.examiner.case(pair, worst, values, made, expected, entry)

    def _scatters(self, pair: LayerPair, values: Arrays) -> bool:
        """Whether one draw of a layer's noise cannot tell its size: of few elements, where one draw shifts all that is
        rounded to one grid alike, or where equal weights are rounded alike."""
        few = any(values[n].size < SLICE for n in pair.reference.outputs)
        return few or bool(self.noise.roundings.of(pair).steps) or self.noise.roundings.repeats(pair)

    def _outputs(
        self, pair: LayerPair, sample: int, values: Arrays, made: Arrays, expected: Expected
    ) -> dict[str, Judgement]:
        """Judges the outputs of one layer on one sample."""
        return {name: self.noise.judge(pair, name, values, made, expected, sample) for name in pair.reference.outputs}

    def _diagnosed(self, seen: Gathering, case: LayerCase, sample: int, values: Arrays, made: Arrays) -> bool:
        """Finds the cause, and keeps all statistics of the output. Returns whether the layer itself is to blame."""
        pair = seen.pair
        other = pair.candidate.outputs[pair.reference.outputs.index(seen.tensor)]
        seen.full = seen.statistics(full=True).update(values[seen.tensor], made[other], sample=sample)
        seen.diagnosis = self._diagnosis(seen, case)
        return seen.diagnosis.producer is None

    def _diagnosis(self, seen: Gathering, case: LayerCase) -> Diagnosis:
        blamed = given.find(case)
        if blamed is not None:
            return blamed
        entered = self.bodies.enter(case.pair, case.values, case.made)
        if entered is None:
            return self.examiner.examine(case)
        seen.inside = entered
        found = _of_body(entered)
        if found is not None and isinstance(found.facts[0], OtherBranch):
            stated = in_graphs(case)  # of what computes the condition
            return found if stated is None else stated.adding(found.facts[0])
        if found is not None:
            return found
        if entered.agrees:  # what its bodies do with other operators or constants is the same
            case = replace(case, differences=tuple((p, d) for p, d in case.differences if d.inside is None))
        return _with_remark(self.examiner.examine(case), entered)


def _of_body(entered: BodyFindings) -> Diagnosis | None:
    if entered.culprits:
        return Diagnosis(entered.culprits[0].cause, entered.culprits[0].facts)
    return entered.diagnosis


def _with_remark(found: Diagnosis, entered: BodyFindings) -> Diagnosis:
    return found.adding(Remark(entered.remark)) if entered.remark else found


def _comparable(pair: LayerPair, values: Arrays, made: Arrays) -> bool:
    """Whether a probe can tell anything: one float output at least has the reference's shape."""
    return any(
        is_float(values[name].dtype) and values[name].shape == made[other].shape
        for name, other in zip(pair.reference.outputs, pair.candidate.outputs, strict=True)
    )
