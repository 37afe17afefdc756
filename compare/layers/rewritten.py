"""Layers that are rewritten together, each judged in the candidate's own terms: which of them is wrong?

Where weights of many layers are rewritten (factors of channels moved from one into the next, channels in another
order, a rotation), each of them is another layer than the reference's, and all of them are right. One is wrong if what
it makes is not the reference's in any terms, or in terms that nobody takes back. What the fewest faults explain is
believed.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...graph.errors import LayerdiffError
from .channel_maps import ENOUGH, SAME, alike
from .layer_runs import LayerRuns
from .own_terms import OwnTerms
from .taken_back import TakenBack, constants, weighted
from .weight_terms import Differing, Terms

if TYPE_CHECKING:
    from .healing import Healing
    from .prepare import Prepared

log = logging.getLogger(__name__)

PASSES = 12
"""How often all layers are gone through at most."""


@dataclass(frozen=True)
class Rewritten:
    """Layers that are rewritten together.

    Attributes:
        wrong: Those that are wrong in the candidate's own terms.
        right: Those that are right, and the change of which others take back.
        unknown: Those behind a wrong one of which the terms are not known, those before it the change of which it might
            take back, and those that another one tells, too.
        lacking: Of wrong ones: what they do not take back, and others do.
        changes: Of wrong ones: how few of their weights differ from the reference's in the candidate's own terms.
    """

    wrong: frozenset[int]
    right: frozenset[int]
    unknown: frozenset[int]
    lacking: Mapping[int, TakenBack] = field(default_factory=dict)
    changes: Mapping[int, Differing] = field(default_factory=dict)


@dataclass(frozen=True)
class _Fault:
    """A layer that does not make what others take back: its outputs, and the terms that they should stand in."""

    layer: int
    given: Mapping[str, Terms | None]


def rewritten(
    prepared: Prepared, healing: Healing, suspects: Collection[int], apart: Collection[int]
) -> Rewritten | None:
    """Which of some layers are rewritten together and right, and which layers are wrong.

    Args:
        prepared: Who was walked.
        healing: What the candidate's own run showed.
        suspects: Layers that would be culprits, for their weights.
        apart: Layers that are culprits for something else.

    Returns:
        None where one without weights would be wrong, and where that cannot be run.
    """
    try:
        return _Search(LayerRuns(prepared), healing, suspects, apart).run()
    except LayerdiffError:
        log.debug("the layers were not judged in the candidate's own terms", exc_info=True)
        return None


class _Search:
    """Looks for the fewest faults; see `rewritten`."""

    def __init__(self, runs: LayerRuns, healing: Healing, suspects: Collection[int], apart: Collection[int]) -> None:
        self.runs, self.healing, self.suspects, self.apart = runs, healing, suspects, apart
        self.index = runs.graphs[0]
        self.faults: list[_Fault] = []
        self.passes = 0
        self.seen = self._seen(())

    def run(self) -> Rewritten | None:
        """Takes faults in as long as no more layers are wrong then."""
        while (better := self._better()) is not None:
            self.faults, self.seen = better
        wrong = self._wrong(self.seen, self.faults)
        if None in wrong:
            return None
        first = {n for n in wrong if n is not None and not self._shares(n, wrong)}
        right = ((self.seen.right | self.seen.asking.keys()) & {*self.suspects}) - wrong
        if not right:  # of layers that are all wrong none tells in which terms another one should be right
            return None
        doubted = right & self._left(self.seen, ())
        unknown = {n for n in (self.seen.unknown | wrong | doubted) - first if n is not None}
        told = {n: self.seen.change(self.healing.layers[n]) for n in first}
        changes = {n: change for n, change in told.items() if change is not None}
        lacking = self._lacking(first - changes.keys())
        return Rewritten(frozenset(first), frozenset(right - doubted), frozenset(unknown), lacking, changes)

    def _better(self) -> tuple[list[_Fault], OwnTerms] | None:
        """With one more fault, where fewer layers are wrong then, or else no more; None where there is none."""
        equal = None
        least = len(self._wrong(self.seen, self.faults))
        known = {fault.layer for fault in self.faults}
        for fault in (f for f in self._possible() if f.layer not in known):
            if self.passes == PASSES:
                break
            faults = [*self.faults, fault]
            seen = self._seen(faults)
            left = len(self._wrong(seen, faults))
            if left < least:
                return faults, seen
            equal = equal or ((faults, seen) if left == least else None)
        return equal

    def _seen(self, faults: Collection[_Fault]) -> OwnTerms:
        self.passes += 1
        given = {name: terms for fault in faults for name, terms in fault.given.items()}
        return OwnTerms(self.runs, self.healing, self.suspects, self.apart, given).run()

    def _wrong(self, seen: OwnTerms, faults: Collection[_Fault]) -> set[int | None]:
        """The layers that are wrong; None for one without weights, which cannot be, and none is found before it."""
        found: set[int | None] = {fault.layer for fault in faults}
        for number in (
            *seen.wrong,
            *(n for n, (name, _) in seen.asking.items() if self._maker(name) not in seen.wrong),
        ):
            if self.healing.layers[number].exceeds_noise or self._constants(number):
                found.add(number)
            elif found.isdisjoint(self._before(number)):
                found.add(max(self._before(number) & self._left(seen, ()), default=None))
        return found | self._left(seen, {*found, *seen.wrong})

    def _before(self, number: int) -> set[int]:
        """The layers before one."""
        found: set[int] = set()
        waiting = [number]
        while waiting:
            new = {s.number for s in self.healing.makers(self.healing.layers[waiting.pop()])} - found
            found |= new
            waiting += new
        return found

    def _left(self, seen: OwnTerms, wrong: Collection[int | None]) -> set[int]:
        """Layers that are right, and the change of which nobody takes back, nor any of those that are wrong has to."""
        accepted: set[str] = {n for n, fit in seen.moved.items() if fit.exact and fit.change is None}
        for number in sorted(self.healing.layers, reverse=True):
            s = self.healing.layers[number]
            passes = number in seen.right and not accepted.isdisjoint(s.pair.reference.outputs)
            if passes or number in seen.taking or number in seen.unknown or number in wrong:
                accepted.update(seen.reads(s))
        outputs = {n: self.healing.layers[n].pair.reference.outputs for n in seen.right}
        left = {n for n, made in outputs.items() if any(x in seen.moved and x not in accepted for x in made)}
        return {n for n in left if self.healing.layers[n].exceeds_noise}

    # -- who may be wrong ---------------------------------------------------------------------------------------

    def _possible(self) -> Iterator[_Fault]:
        """Layers that may be wrong in place of others: those that do not make what is taken back behind them, and
        those that make what nobody takes back."""
        for name in dict.fromkeys(name for name, _ in self.seen.asking.values()):
            yield from self._asked(name)
        for number in sorted(self._left(self.seen, ()) - self.seen.taking):
            s = self.healing.layers[number]
            if not self.seen.reads(s):
                yield _Fault(number, dict.fromkeys(s.pair.reference.outputs))

    def _asked(self, name: str) -> Iterator[_Fault]:
        """Who may be wrong where layers are right if a tensor stands in other terms than it does."""
        behind = self.healing.reading(self.healing.layers[self.healing.maker[name]])
        readers = [s for s in behind if name in s.pair.reference.inputs]
        asking = [s.number for s in readers if self.seen.asking.get(s.number, ("",))[0] == name]
        terms = self.seen.asking[asking[0]][1]
        maker = self._maker(name)
        others = [s.number for s in readers if weighted(s, self.index) and s.number not in asking]
        alone = len(asking) == 1 and not self._whole(name, terms) and not self._shared(maker)
        if maker is None or (maker not in self.seen.wrong and (others or alone)):
            return
        if maker in self.seen.wrong or maker in self.seen.unknown:
            yield from self._ahead(maker, terms)
        yield from (_Fault(maker, {name: self.seen.asking[number][1]}) for number in asking)

    def _whole(self, name: str, terms: Terms) -> bool:
        """Whether a tensor would have to stand in other terms in most of its channels."""
        if name in self.seen.moved:
            return False
        change = terms.deviation
        return bool(np.mean(change > SAME) >= ENOUGH)

    def _shared(self, maker: int | None) -> bool:
        """Whether what another layer makes has to stand in other terms, too, that reads the same weights."""
        if maker is None:
            return False
        makers = {self._maker(name) for name, _ in self.seen.asking.values()} | {f.layer for f in self.faults}
        return any(m is not None and m != maker and self._constants(m) & self._constants(maker) for m in makers)

    def _ahead(self, number: int, terms: Terms) -> Iterator[_Fault]:
        """Of a layer that is wrong, or behind a wrong one, those that make what it reads: it may be right if that is in
        such terms."""
        for read in self.healing.layers[number].pair.reference.inputs:
            maker = self._maker(read)
            if maker is not None and read not in self.seen.moved and terms.suits(self.seen.mine[read]):
                yield _Fault(maker, {read: terms})

    def _maker(self, name: str) -> int | None:
        """The layer that makes a tensor, or the last one before it that has weights: of several that come together, the
        way of what is open, or else of what is in other terms, and of as many channels."""
        number = self.healing.maker.get(name)
        while number is not None and not self._constants(number):
            width = self.seen.mine[name].shape[-1:]
            inputs = [n for n in self.healing.layers[number].pair.reference.inputs if n in self.healing.maker]
            number = self.healing.maker.get(min(inputs, key=functools.partial(self._likely, width), default=""))
        return number

    def _likely(self, width: tuple[int, ...], name: str) -> tuple[bool, bool, bool]:
        open_, moved = name in self.seen.open, name in self.seen.moved
        return not open_, not moved, self.seen.mine[name].shape[-1:] != width

    def _constants(self, number: int) -> set[str]:
        """Names of the weights that a layer reads."""
        return set(constants(self.healing.layers[number].pair.reference.nodes, self.index))

    def _shares(self, number: int, wrong: Collection[int | None]) -> bool:
        """Whether a wrong layer reads weights that a wrong one before it reads, too, and tells."""
        mine = self._constants(number)
        return any(n is not None and n < number and self._constants(n) & mine for n in wrong)

    def _lacking(self, wrong: Collection[int]) -> dict[int, TakenBack]:
        """What wrong layers do not take back, as others do, or do not make."""
        found = {}
        for number in wrong:
            if number in {fault.layer for fault in self.faults}:
                takers = self._taking(number) - {number}
                found[number] = TakenBack(number, tuple(sorted(takers)), (number,))
                continue
            makers = [self._maker(n) for n in self.seen.reads(self.healing.layers[number])]
            change = next((m for m in makers if m is not None and m != number), None)
            takers = set() if change is None else self._taking(change) - {number}
            same = not self.healing.layers[number].exceeds_noise
            if same and not takers:
                takers = self.seen.taking & self.healing.behind((number,)) - {number}
            beside = set() if weighted(self.healing.layers[number], self.index) else {number}
            if change is not None and (takers or (not same and self.seen.wrong.get(number, True))):
                found[number] = TakenBack(change, tuple(sorted(takers)), (number,), frozenset(beside))
        return {n: taken for n, taken in found.items() if taken.takers or taken.change != n}

    def _taking(self, maker: int) -> set[int]:
        """The products with weights of their own that take back what a layer makes, through layers without weights; if
        none does, those that take back the same elsewhere."""
        products = {n for n in self.seen.taking if self._is_changed_product(n)}
        found = {n for n in products if any(self._maker(x) == maker for x in self._inputs(n))}
        if found & self.seen.back:
            return found & self.seen.back
        terms = [t for x in self.healing.layers[maker].pair.reference.outputs if (t := self.seen.terms(x)) is not None]
        again = {n for n in products & self.seen.back if any(self._in(x, terms) for x in self._inputs(n))}
        return again or found

    def _is_changed_product(self, number: int) -> bool:
        s = self.healing.layers[number]
        return s.exceeds_noise and weighted(s, self.index)

    def _inputs(self, number: int) -> tuple[str, ...]:
        return tuple(self.healing.layers[number].pair.reference.inputs)

    def _in(self, name: str, known: Collection[Terms]) -> bool:
        """Whether a tensor stands in one of some terms."""
        mine = self.seen.terms(name) if name in self.seen.moved else None
        return mine is not None and any(alike(mine, terms) for terms in known)
