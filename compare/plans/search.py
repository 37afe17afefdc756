"""From the errors that layers were seen to make to a set of kept layers that passes and of which none can be spared.

Choose, verify, prune: the cheapest set that is expected to do is run on the runtime itself; what failed is never chosen
again; of a set that passes, layers are dropped by delta debugging (Zeller and Hildebrandt, 2002) until dropping any
single one fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ..budget import Spent
from .choose import choose

if TYPE_CHECKING:
    from ..report.plan import Trial
    from .layers import Layers
    from .predict import Prediction

Verify: TypeAlias = "Callable[[frozenset[int]], Trial]"
"""Runs the candidate with these layers in FP32 and judges it; what was run before is remembered. Raises `Spent`."""

ATTEMPTS = 6
"""Most sets that are chosen before sets simply grow."""
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
CHEAPER = 0.95
"""A set is tried in place of one that passes if it costs less than this share of it."""


@dataclass
class Search:
    """One search.

    Attributes:
        layers, prediction, verify: What may be kept, what it is expected to do, and who tells what it does.
        fp32_first: Whether a run of everything in FP32 is cheap: it then comes first.
        best: The best set that passed; None while there is none.
        minimal: Whether none of its layers can be spared.
        hopeless: Whether everything in FP32 does not pass.
    """

    layers: Layers
    prediction: Prediction
    verify: Verify
    fp32_first: bool = True
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
            if self.fp32_first and not self._fp32():
                return
            if not self._first() and (not self._fp32() or not self._grown()):
                return
            self._loosened()
            self._prune()
            self._cheaper()
            self.minimal = True
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
        elif self.best is None or self.layers.cost(kept) < self.layers.cost(self.best):
            self.best = kept
        return trial.passed

    def _first(self) -> bool:
        """Chooses sets until one passes. What a set errs by more than was expected makes the next choice stricter."""
        for _ in range(ATTEMPTS):
            kept = choose(self.layers, self.prediction, self._failed, self._allowed)
            if kept is None:
                return False
            if self._passes(kept):
                return True
            expected, measured = self.prediction.of(kept).share, self.verify(kept).share
            off = 0.5 if not expected or not measured else MARGIN * expected / measured
            self._allowed *= min(max(off, 0.25), 0.9)
        return False

    def _grown(self) -> bool:
        """Keeps the layers that are expected to err most, twice as many each time, until it passes."""
        worst = {n: block.worst / len(block.layers) for block in self.prediction.blocks for n in block.layers}
        order = sorted(self.everything, key=lambda n: worst.get(n, 0.0), reverse=True)
        start = max((len(kept) for kept in self._failed), default=0)
        count = max(1, start)
        while count < len(order):
            kept = frozenset(order[:count])
            if kept not in self._failed and self._passes(kept):
                return True
            count *= 2
        return self._passes(self.everything)

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
        parts = len(current) if len(current) <= FEW else 2
        while current:
            size = -(-len(current) // parts)
            chunks = [current[i : i + size] for i in range(0, len(current), size)]
            for chunk in chunks:
                rest = frozenset(current) - frozenset(chunk)
                if len(chunk) > 1 and (self.prediction.of(rest).share or HOPELESS) >= HOPELESS:
                    continue
                if self._passes(rest):
                    current = [n for n in current if n in rest]
                    parts = max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    break
                parts = min(2 * parts, len(current))
            parts = min(parts, max(len(current), 1))
        self.best = frozenset(current)

    def _ordered(self, kept: frozenset[int]) -> list[int]:
        """What may best be spared comes first: little error, much cost."""

        def worth(number: int) -> float:
            block = next(b for b in self.prediction.blocks if number in b.layers)
            return block.worst**2 / len(block.layers) / max(self.layers.all[number].cost, 1.0)

        return sorted(kept, key=lambda n: (worth(n), n))

    def _cheaper(self) -> None:
        """Tries sets that cost less than the best and are expected to pass, or nearly."""
        for allowed in (1.0, 1.1, 1.25):
            assert self.best is not None
            best = self.best
            kept = choose(self.layers, self.prediction, self._failed, allowed)
            if kept is None or self.layers.cost(kept) >= CHEAPER * self.layers.cost(best):
                continue
            if self._passes(kept):
                self._prune()
                if self.layers.cost(self.best) >= self.layers.cost(best):
                    self.best = best
