"""Remedies of an emulated candidate, tried by running it with them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.printable import listed
from ...graph.rounding.round_array import STORAGE
from ...runners.contract.options import command_word, written
from ..report.model import Cause
from ..report.plan import Applied, Remedy, Trial
from .bench import Bench
from .fixed_model import write_model
from .rewrites import rewritings
from .wider import wider

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...runners.contract.runner import Runner
    from ..comparison import Comparison
    from ..outputs.draws import Drawn
    from ..report.model import Culprit
    from ..runs.run import RunLog
    from ..sides import Side

SEARCH = "--fix plan.json finds the fewest layers that have to stay in FP32"
"""Where no short answer is known to do."""

REACH = 4
"""How many times the layers beside those that are kept are kept, too, until the candidate passes."""

LONGEST_OPTION = 1000
"""Characters of the longest option that is written out in a remedy."""


def keeping(side: Side, keep: Sequence[str]) -> str:
    """What to do to keep some nodes in FP32, with the option that does it."""
    word = command_word(side.runner.keeping(list(dict.fromkeys((*side.runner.kept, *keep)))))
    if len(word) > LONGEST_OPTION:
        word = f"--{side.runner.flag}=...,{written('keep', keep[0])},...; a plan of --fix has all"
    return f"keep {listed(keep, len(keep))} in FP32 ({word})"


class Trying:
    """The remedies of one emulated candidate, run."""

    def __init__(
        self, comparison: Comparison, log: RunLog, side: Side, before: Trial, drawn: Drawn | None = None
    ) -> None:
        self.comparison = comparison
        self.log = log
        self.side = side
        self.before = before
        self.drawn = drawn
        self.rewritten: tuple[tuple[str, ...], Model, Trial] | None = None

    def all(self, culprits: dict[int, Culprit], proposed: dict[int, Remedy]) -> dict[int, tuple[Remedy, ...]]:
        """The remedies with what they give, by the places of their culprits."""
        runner = self.side.runner.calibrated(self.side.model, self.comparison.workload)
        with Bench(self.comparison, self.log, replace(self.side, runner=runner), self.drawn) as bench:
            rewrites = self._rewrites(bench, culprits)
            ranges = self._ranges(bench, culprits)
            if ranges is not None:
                rewrites[next(iter(culprits))] = (ranges,)
            kept = self._kept(bench, runner, culprits, {i: r for i, r in proposed.items() if r.keep})
        return {i: (*rewrites.get(i, ()), kept.get(i, remedy)) for i, remedy in proposed.items()}

    def _kept(
        self, bench: Bench, runner: Runner, culprits: dict[int, Culprit], able: dict[int, Remedy]
    ) -> dict[int, Remedy]:
        """What heals: the first remedy, or with more of the layers beside it, or all of them together; where nothing
        does, what leaves the outputs undecided, or a search has to tell. Of a scaled format, a tolerance alone says
        what heals: there they are told as they are. What stops at the end of a range that is no scaled one is a mask,
        and infinite behind a layer in FP32."""
        stores, every_node = runner.arithmetic.name in STORAGE, runner.rounds_every_node
        masks = [i for i in able if stores and culprits[i].cause is Cause.SATURATION]
        place, *others = [i for i in able if i not in masks] or able
        first, cause = able[place], culprits[place].cause
        doubtful: list[Remedy] = []

        def tried(nodes: Sequence[str]) -> Trial:
            return self._trial(bench, runner.keeping([*runner.kept, *nodes]))

        def beside(nodes: Sequence[str], reach: int) -> dict[int, Remedy]:
            sets = wider(self.side.model.index, nodes, cause, reach, every_node=every_node) if stores else ()
            for wide in sets:
                remedy = Remedy(keeping(self.side, wide), wide, tried(wide))
                if remedy.healed:
                    return {place: remedy}
                if remedy.measured is not None and remedy.measured.verdict == "undecided" != self.before.verdict:
                    doubtful.append(remedy)
            return {}

        alone = whole = replace(first, measured=tried(first.keep))
        if alone.healed:
            return {place: alone}
        healing = beside(first.keep, 1 if others else REACH)
        everything = tuple(dict.fromkeys(name for i in (place, *others) for name in able[i].keep))
        if others and not healing:
            text = f"{able[others[-1]].text}, and so all {len(others) + 1} culprits"
            whole = Remedy(text, everything, tried(everything))
            if whole.healed or not stores:
                return {place: alone, others[-1]: whole}
            healing = beside(everything, REACH)
        untold = dict.fromkeys([*others, *masks], Remedy(SEARCH))
        if doubtful and not healing:
            return {**untold, place: min(doubtful, key=_rank)}
        if healing or not stores:
            return healing or {place: alone}
        enough = "are not enough" if len(everything) > 1 else "is not enough"
        told = Remedy(f"{SEARCH}: {listed(everything)} {enough}", (), whole.measured)
        return {**untold, place: told}

    def _rewrites(self, bench: Bench, culprits: dict[int, Culprit]) -> dict[int, tuple[Remedy, ...]]:
        """Rewritings that leave FP32 as it is, each on top of those before, until the candidate passes."""
        found: dict[int, tuple[Remedy, ...]] = {}
        model, before = self.side.model, self.before
        texts: list[str] = []
        for place, culprit in culprits.items():
            for rewriting in rewritings(self.comparison, replace(self.side, model=model), culprit):
                names = rewriting.model.index.names
                fp32 = self._trial(bench, self.side.runner.keeping(names), rewriting.model)
                if not fp32.passed:
                    continue
                trial = self._trial(bench, self.side.runner, rewriting.model)
                if not trial.passed and not _better(trial, before):
                    continue
                before = trial
                found[place] = (*found.get(place, ()), Remedy(rewriting.text, (), trial))
                model, texts = rewriting.model, [*texts, rewriting.text]
                self.rewritten = tuple(texts), model, trial
                if trial.passed:
                    return found
        return found

    def _ranges(self, bench: Bench, culprits: dict[int, Culprit]) -> Remedy | None:
        """Other ranges for a scaled format, where the first culprit's values are cut off at the end of its own."""
        first = next(iter(culprits.values()))
        told = self.comparison.workload.calibration
        if first.cause not in (Cause.SATURATION, Cause.QUANTIZATION) or told is None:
            return None
        runner = self.side.runner.calibrated(self.side.model, replace(self.comparison.workload, calibration=None))
        trial = self._trial(bench, runner)
        text = "calibrate on data like those that are compared, in place of --calibration-data"
        return Remedy(text, (), trial) if trial.passed or _better(trial, self.before) else None

    def _trial(self, bench: Bench, runner: Runner, model: Model | None = None) -> Trial:
        start = time.perf_counter()
        return Trial((), bench.judged(runner, model=model), time.perf_counter() - start)

    def written(self, path: str | None) -> Applied | None:
        """The network with its rewritings, written where the rules ask for it; None where there are none."""
        if path is None or self.rewritten is None:
            return None
        texts, model, trial = self.rewritten
        write_model(model, path, "--apply-remedy", self.side.model.source)
        return Applied(path, texts, trial)


def _rank(remedy: Remedy) -> tuple[float, int]:
    """What is left of the error, as a share of what is allowed, and the number of layers that are kept."""
    share = None if remedy.measured is None else remedy.measured.share
    return math.inf if share is None else round(share, 1), len(remedy.keep)


def _better(trial: Trial, before: Trial) -> bool:
    """Whether at most half of the error is left."""
    if trial.share is None:
        return False
    return before.share is None or trial.share <= before.share / 2
