"""What both sides made of a piece is looked at: compared, judged, and its errors carried on to the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...graph.specs import Arrays, is_float
from ..causes import nondeterminism
from ..causes.control_flow import gives_another
from ..runs.repeatability import repeat
from ..statistics.portrait import close_up
from .observation import relative_error
from .portion import squares

if TYPE_CHECKING:
    from ..lockstep.plan import LayerPair
    from ..runs.deployed import Deployed
    from .contribution import Contributions
    from .judging import LayerJudge
    from .observation import Gathering
    from .piece_runs import PieceRun, PieceRuns
    from .walked import Forced


class Looks:
    """The looks of one walk, in the order of its runs.

    Args:
        names: The reference's and the candidate's name.
        runs: Runs layers again.
        seen: Takes in what is seen of each layer, by its number.
        contributions: Carries errors to the outputs.
        judge: Holds layers against their expected noise; None: no layer is judged, see ``forced``.
        forced: Layers whose contribution is measured in place of that.
        deployed: The candidates' outputs as the whole models gave them; None: nothing is held against them.
        outputs: Names of the reference's outputs.

    Attributes:
        errors: The candidate's errors at the outputs, by sample and name; see `Walked`.
        identical: Of each output and sample, whether it was the deployed one bit by bit.
    """

    def __init__(
        self,
        names: tuple[str, str],
        runs: PieceRuns,
        seen: Mapping[int, Gathering],
        contributions: Contributions,
        judge: LayerJudge | None,
        forced: Forced,
        deployed: Deployed | None,
        outputs: Sequence[str],
    ) -> None:
        self._reference, self._candidate = names
        self._runs, self._seen, self._contributions = runs, seen, contributions
        self._judge, self._forced, self._deployed = judge, forced, deployed
        self.errors: dict[tuple[int, str], np.ndarray] = dict(forced.errors or {})
        self.identical: dict[str, list[bool | None]] = {name: [] for name in outputs}

    def at(self, made: PieceRun) -> None:
        """Looks at a piece.

        Raises:
            Mixed: See `Contributions.begin`.
        """
        if not self._runs.whole:
            self._contributions.begin(made.step, made.values, made.reference)
        if made.own is not None:
            self._cumulative(made, made.own)
            if made.read is None:
                made.own = None  # nobody needs it any longer
        self._local(made)
        if not self._runs.whole:
            theirs = None if made.read is None or made.own is None else {**made.read, **made.own}
            self._contributions.carry(made.step, made.sample, made.values, made.reference, theirs)

    def _cumulative(self, made: PieceRun, own: Arrays) -> None:
        """Compares what both sides make of their own values."""
        values, sample = made.values, made.sample
        for pair in (p for p in made.step.layers if not p.random):
            seen = self._seen[pair.number]
            for name, other in zip(pair.reference.outputs, pair.candidate.outputs, strict=True):
                seen.went(name, values[name], own[other], sample)
                if name not in self.identical:
                    continue
                if is_float(values[name].dtype):
                    self.errors[sample, name] = squares(values[name], own[other])
                if self._deployed is not None:
                    same = self._deployed.same(self._candidate, sample, name, own[other])
                    self.identical[name].append(same)

    def _local(self, made: PieceRun) -> None:
        """Compares what both sides make of the reference's values, and judges it."""
        pairs, values, sample = self._runs.layers(made.step), made.values, made.sample
        suspects = []
        for pair in (p for p in pairs if p.number in made.layers):
            seen = self._seen[pair.number]
            relative = seen.compared(values, made.layers[pair.number], sample)
            if pair.number in self._forced.numbers and sample == self._forced.sample:
                self._contribute(made, seen)
                self._forced.look_at(pair, values)
            if self._judge is not None and self._judge.worth_judging(seen, relative, sample, values):
                suspects.append(seen)
        if self._judge is None or not pairs:
            return
        guilty = self._judge.judge(suspects, sample, values, made.layers)
        if guilty:
            self._run_again(made, guilty, pairs)
        for seen in guilty:
            for name, other in zip(seen.pair.reference.outputs, seen.pair.candidate.outputs, strict=True):
                seen.portraits[name].update(close_up(values[name], made.layers[seen.pair.number][other]))
            self._contribute(made, seen)
        for pair in pairs:
            self._judge.look_inside(self._seen[pair.number], values, made.layers.get(pair.number))

    def _run_again(self, made: PieceRun, guilty: Sequence[Gathering], pairs: Sequence[LayerPair]) -> None:
        """Runs both sides once more: of an error that no graph draws, it is known then whether it comes and goes."""
        values, mine = made.values, dict(made.values)
        self._runs.run_reference(made, mine)
        theirs = self._runs.run_layers(made.sessions, pairs, values)
        for seen in (s for s in guilty if not s.pair.drawn):
            pair, name = seen.pair, seen.tensor
            other = pair.candidate.outputs[pair.reference.outputs.index(name)]
            first = made.layers[pair.number][other]
            runs = {self._candidate: ({name: first}, {name: theirs[pair.number][other]})}
            read = {n: values[n] for n in pair.reference.inputs}
            if repeat(read, mine).identical:  # else what it reads came and went
                runs[self._reference] = {name: values[name]}, {name: mine[name]}
            error = relative_error(seen.statistics().update(values[name], first))
            if not gives_another(seen.diagnosis):
                seen.diagnosis = nondeterminism.find(runs, error) or seen.diagnosis

    def _contribute(self, made: PieceRun, seen: Gathering) -> None:
        found = made.layers[seen.pair.number]
        self._contributions.start(made.step, seen.pair, made.sample, found, made.values, whole=self._runs.whole)
