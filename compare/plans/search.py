"""From the errors that layers were seen to make to a set of kept layers that passes and of which none can be spared.

Choose, verify, prune: the cheapest set that is expected to do is run on the runtime itself; what failed is never chosen
again; of a set that passes, layers are dropped by delta debugging (Zeller and Hildebrandt, 2002) until dropping any
single one fails.

Where a run costs an engine, no more than four are built until a set passes. While layers are dropped, a set within
one that failed is taken to fail, too: keeping less does not help. That a plan is 1-minimal is never concluded so: each
of its layers is dropped once by itself, and run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ..budget import Spent
from .choose import choose
from .predict import HUGE

if TYPE_CHECKING:
    from ..report.plan import Trial
    from .layers import Layers
    from .predict import Prediction

Verify: TypeAlias = "Callable[[frozenset[int]], Trial]"
"""Runs the candidate with these layers in FP32 and judges it; what was run before is remembered. Raises `Spent`."""
Ahead: TypeAlias = "Callable[[Iterable[frozenset[int]]], None]"
"""Told which sets will be asked for next, in this order, as long as each of them fails."""

ATTEMPTS = 6
"""Most sets that are chosen before sets simply grow."""
ENGINES = 4
"""Most engines until one passes: the last has everything in FP32."""
MARGIN = 0.95
"""The share of what is allowed that a chosen set may be expected to take."""
HOPELESS = 3.0
"""Expected share of what is allowed from which on dropping several layers at once is not tried."""
LOOSENED = 3
"""Most times that a set is chosen anew, for the first one that passed errs by less than was expected."""
OFF = 1.2
"""How many times the measured error the expected one has to be for that."""
FEW = 8
"""Most kept layers of which each is dropped by itself at once, without trying halves."""
UNEXPLAINED = 2.0
"""How many times the expected error a set that failed has to err for layers beyond those expected to be kept, too."""
LITTLE = 0.1
"""The share of what is allowed below which layers are expected to be spared, all of them in one run."""
CHEAPER = 0.95
"""A set is tried in place of one that passes if it costs less than this share of it."""
NEARLY = (1.0, 1.1, 1.25)
"""Shares of what is allowed that a cheaper set may be expected to take; engines are built for the first alone."""


@dataclass
class Search:
    """One search.

    Attributes:
        layers, prediction, verify: What may be kept, what it is expected to do, and who tells what it does.
        ahead: Told what will be asked for, where it is more likely to fail than to pass, or cheap.
        cheap: Whether a run costs little: everything in FP32 then comes first, and more sets are tried.
        fp32_known: Whether everything in FP32 was run already.
        best: The best set that passed; None while there is none.
        minimal: Whether none of its layers can be spared.
        hopeless: Whether everything in FP32 does not pass.
    """

    layers: Layers
    prediction: Prediction
    verify: Verify
    ahead: Ahead = lambda sets: None
    cheap: bool = True
    fp32_known: bool = False
    best: frozenset[int] | None = None
    minimal: bool = False
    hopeless: bool = False
    _failed: list[frozenset[int]] = field(default_factory=lambda: [frozenset()])
    _allowed: float = MARGIN

    @property
    def everything(self) -> frozenset[int]:
        """All layers."""
        return frozenset(range(len(self.layers.all)))

    def run(self) -> None:
        """Searches until nothing can be spared, or the budget is spent."""
        try:
            if (self.cheap or self.fp32_known) and not self._fp32():
                return
            if not self._first() and (not self._fp32() or not self._grown()):
                return
            self._loosened()
            self._prune()
            self.minimal = True
            self._cheaper()
        except Spent:
            return

    def _fp32(self) -> bool:
        """Whether everything in FP32 passes."""
        self.hopeless = not self._passes(self.everything)
        return not self.hopeless

    def _passes(self, kept: frozenset[int]) -> bool:
        trial = self.verify(kept)
        if not trial.passed:
            if kept not in self._failed:
                self._failed.append(kept)
        elif self.best in (None, self.everything) or self.layers.cost(kept) < self.layers.cost(self.best):
            self.best = kept
        return trial.passed

    def _first(self) -> bool:
        """Chooses sets until one passes. What a set errs by more than was expected makes the next choice stricter."""
        wider: frozenset[int] = frozenset()
        for attempt in range(ATTEMPTS if self.cheap else ENGINES - 1):
            chosen = choose(self.layers, self.prediction, self._failed, self._allowed)
            if chosen is None:
                return False
            kept = chosen | wider
            if len(kept) == len(self.layers.all):
                return False
            if self._passes(kept):
                return True
            expected, measured = self.prediction.of(chosen).share, self.verify(kept).share
            off = 0.5 if not expected or not measured else MARGIN * expected / measured
            self._allowed *= min(max(off, 0.25), 0.9)
            if not self.cheap and (not expected or not measured or measured > UNEXPLAINED * expected):
                wider = self._wider(kept, halves=attempt > 0)
        return False

    def _wider(self, kept: frozenset[int], halves: bool) -> frozenset[int]:
        """A set that failed, with the layers that feed it, whose rounding may be what it shows; and with ``halves``,
        with half of the others, those that are expected to err most."""
        feeding = {b.maker for b in self.layers.borders if b.maker >= 0 and not kept.isdisjoint(b.readers)}
        found = kept | feeding
        others = [n for n in self._worst() if n not in found]
        return found | frozenset(others[: -(-len(others) // 2)] if halves else ())

    def _worst(self) -> list[int]:
        """All layers, those first that are expected to err most."""
        worst = {n: block.worst / len(block.layers) for block in self.prediction.blocks for n in block.layers}
        return sorted(self.everything, key=lambda n: worst.get(n, 0.0), reverse=True)

    def _grown(self) -> bool:
        """Keeps the layers that are expected to err most, twice as many each time, until it passes."""
        order = self._worst()
        count = max(1, max((len(kept) for kept in self._failed), default=0))
        sets = []
        while self.cheap and count < len(order):
            sets.append(frozenset(order[:count]))
            count *= 2
        sets = [kept for kept in sets if kept not in self._failed] + [self.everything]
        self.ahead(sets)
        return any(map(self._passes, sets))

    def _loosened(self) -> None:
        """Where the first set that passes errs by less than was expected, keeps less before anything is pruned."""
        for _ in range(LOOSENED):
            assert self.best is not None
            expected, measured = self.prediction.of(self.best).share, self.verify(self.best).share
            if not expected or not measured or expected < OFF * measured:
                return
            kept = choose(self.layers, self.prediction, self._failed, MARGIN * expected / measured)
            if kept is None or self.layers.cost(kept) >= CHEAPER * self.layers.cost(self.best):
                return
            if not self._passes(kept):
                return

    def _prune(self) -> None:
        """Delta debugging over what is kept: chunks first, then every single layer."""
        assert self.best is not None
        current = self._ordered(self.best)
        needed = frozenset(n for n in current if self._expected(n) >= LITTLE)
        if len(current) - len(needed) > 1 and needed and not self._implied(needed) and self._passes(needed):
            current = [n for n in current if n in needed]
        parts = len(current) if len(current) <= FEW else 2
        while current:
            size = -(-len(current) // parts)
            rests = self._without_parts(current, size)
            self.ahead(dict.fromkeys([*rests, *(self._without_each(current) if size == 1 else ())]))
            for rest in rests:
                if self._passes(rest):
                    current = [n for n in current if n in rest]
                    parts = max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    spared = next(filter(self._passes, self._without_each(current)), None)
                    if spared is None:
                        break
                    current = [n for n in current if n in spared]
                parts = min(2 * parts, len(current))
            parts = min(parts, max(len(current), 1))
        self.best = frozenset(current)

    def _implied(self, kept: frozenset[int]) -> bool:
        """Whether a set lies within one that failed."""
        return any(kept <= other for other in self._failed)

    def _without_parts(self, current: list[int], size: int) -> list[frozenset[int]]:
        """What is left without one part of this size each, where it may pass."""
        rests = [frozenset(current) - frozenset(current[i : i + size]) for i in range(0, len(current), size)]
        return [r for r in rests if not self._implied(r) and (len(r) + 1 == len(current) or self._hopeful(r))]

    def _hopeful(self, kept: frozenset[int]) -> bool:
        """Whether a set from which several layers were dropped at once is worth a run."""
        return (self.prediction.of(kept).share or HOPELESS) < HOPELESS

    def _without_each(self, current: list[int]) -> list[frozenset[int]]:
        """What is left without one layer each: that every run of these fails shows that none can be spared."""
        return [frozenset(current) - {n} for n in current]

    def _expected(self, number: int) -> float:
        """The share of what is allowed that a layer is expected to take, by itself or in proportion."""
        block = next(b for b in self.prediction.blocks if number in b.layers)
        return block.part((number,)).worst

    def _ordered(self, kept: frozenset[int]) -> list[int]:
        """What may best be spared comes first: little error, much cost."""

        def worth(number: int) -> float:
            return self._expected(number) ** 2 / max(self.layers.all[number].cost, 1.0)

        return sorted(kept, key=lambda n: (worth(n), n))

    def _cheaper(self) -> None:
        """Tries sets that cost less than the best and are expected to pass, or nearly.

        What dropping a layer was seen to cost is expected of it from now on. A set that passes takes the place of the
        best when nothing of it can be spared either.
        """
        assert self.best is not None
        for number in self.best:
            self._learn(number, self.best)
        self.ahead(self._expected_to_do())
        for allowed in self._nearly:
            best = self.best
            kept = choose(self.layers, self.prediction, self._failed, allowed)
            if kept is None or self.layers.cost(kept) >= CHEAPER * self.layers.cost(best):
                continue
            try:
                if self._passes(kept):
                    self._prune()
            except Spent:
                self.best = best
                raise
            if self.layers.cost(self.best) >= self.layers.cost(best):
                self.best = best

    @property
    def _nearly(self) -> tuple[float, ...]:
        return NEARLY if self.cheap else NEARLY[:1]

    def _expected_to_do(self) -> Iterator[frozenset[int]]:
        """The sets that `_cheaper` tries if all of them fail."""
        assert self.best is not None
        failed = list(self._failed)
        for allowed in self._nearly:
            kept = choose(self.layers, self.prediction, failed, allowed)
            if kept is not None and self.layers.cost(kept) < CHEAPER * self.layers.cost(self.best):
                failed.append(kept)
                yield kept

    def _learn(self, number: int, kept: frozenset[int]) -> None:
        """Expects of a layer at least the error that was seen to come with dropping it."""
        whole = {o.tensor: o.share for o in self.verify(kept).outputs}
        seen: dict[str, float] = {}
        for output in self.verify(kept - {number}).outputs:
            before = whole.get(output.tensor)
            if output.share is None:
                seen[output.tensor] = HUGE
            elif before is not None and output.share > before:
                seen[output.tensor] = math.sqrt(output.share**2 - before**2)
        self.prediction = self.prediction.at_least(number, seen)
