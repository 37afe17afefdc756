"""One way through all layers, each given the reference's values in the candidate's own terms.

Terms are those of `channel_maps`: factors of channels, another order, a rotation. A layer is right if it makes the
reference's values in such terms again; these are what the layers behind it are given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from ...graph.specs import Arrays, is_float
from .channel_maps import AXES, ENOUGH, Fit, Turn, fitted, turn
from .layer_runs import TooMuch
from .taken_back import TAKEN, weighted
from .weight_terms import Differing, Terms, as_rewritten, expected

if TYPE_CHECKING:
    from .healing import Healing
    from .layer_runs import LayerRuns
    from .observation import LayerObservation

MANY, FEW = 8, 0.25
"""Of how many layers that share, at least, is right in some terms where layers are rewritten together."""


class OwnTerms:
    """Goes through all layers, on the first sample.

    Args:
        runs: Runs layers.
        healing: What the candidate's own run showed.
        suspects: Layers that may be rewritten; others that differ are other tensors of the same name.
        apart: Layers that are wrong in another way: what the reference makes of them is given.
        given: Tensors that stand in given terms in place of those that their layer makes; None: in the reference's.

    Attributes:
        moved: Tensors that the candidate has in terms of its own, and how they fit.
        open: Tensors behind a wrong layer of which the terms are not known.
        wrong: Layers that are wrong, and whether they take back most of what they are given.
        asking: Layers that are right as soon as something that they read stands in other terms: which.
        right: Layers that differ from the reference's and are right.
        taking: Those that take back what they are given, or make something else of it than the reference's would.
        back: Those of them that make the reference's values again.
        unknown: Layers that are not right and read something open.
    """

    def __init__(
        self,
        runs: LayerRuns,
        healing: Healing,
        suspects: Collection[int],
        apart: Collection[int],
        given: Mapping[str, Terms | None],
    ) -> None:
        self.runs, self.healing, self.suspects, self.apart, self.given = runs, healing, suspects, apart, given
        self.index, self.graphs = runs.graphs[0], runs.graphs
        self.mine = dict(runs.feed)
        self.theirs = dict(runs.feed)
        self.moved: dict[str, Fit] = {}
        self.open: set[str] = set()
        self.wrong: dict[int, bool] = {}
        self.asking: dict[int, tuple[str, Terms]] = {}
        self.right: set[int] = set()
        self.taking: set[int] = set()
        self.back: set[int] = set()
        self.unknown: set[int] = set()

    def run(self) -> OwnTerms:
        """Goes through all layers.

        Raises:
            TooMuch: Few of many layers are right in any terms: the files have other weights altogether.
        """
        for number in sorted(self.healing.layers):
            self._layer(self.healing.layers[number])
            lost = len(self.wrong) + len(self.unknown)
            if self.given or lost <= MANY:
                continue
            found = len(self.right.intersection(self.suspects)) + len(self.asking)
            if found < FEW * (lost + found):
                raise TooMuch("few of the layers are right in any terms")
        return self

    def reads(self, s: LayerObservation) -> list[str]:
        """What a layer reads that the candidate has in terms of its own."""
        return [n for n in s.pair.reference.inputs if n in self.moved]

    def _layer(self, s: LayerObservation) -> None:
        made = self.runs.reference(s.pair, self.mine)
        if s.pair.random or s.number in self.apart or not (self.reads(s) or s.exceeds_noise):
            known = weighted(s, self.index)
            self._hand_on(made, made, {}, opened=not known and not self.open.isdisjoint(s.pair.reference.inputs))
            return
        out = self.runs.candidate(s.pair, self.theirs)
        fits = self._fits(made, out)
        if all(fit.exact for fit in fits.values()):
            self.right.add(s.number)
            if self.reads(s) and self._takes(s, made, fits):
                self.taking.add(s.number)
            self._hand_on(made, out, fits)
        elif s.exceeds_noise and s.number not in self.suspects and not self.reads(s):
            self._hand_on(made, out, dict.fromkeys(made, Fit(True)))
        elif (asked := self._asked(s, made)) is not None:
            self.asking[s.number] = asked[:2]
            self.taking.add(s.number)
            self._hand_on(made, *asked[2:])
        elif not self.open.isdisjoint(s.pair.reference.inputs):
            self.unknown.add(s.number)
            self._hand_on(made, made, {}, opened=True)
        else:
            self._is_wrong(s, made, out, fits)

    def _hand_on(self, mine: Arrays, theirs: Arrays, fits: Mapping[str, Fit], opened: bool = False) -> None:
        """What layers behind are given on both sides."""
        for name, value in mine.items():
            self.mine[name], self.theirs[name] = value, theirs[name]
            fit = fits.get(name)
            if name in self.given:
                terms = self.given[name]
                self.theirs[name] = value if terms is None else terms(value)
                fit = None if terms is None else Fit(True)
            elif fit is None or fit.same:
                self.theirs[name] = value
                if opened:
                    self.open.add(name)
            if fit is not None and not fit.same:
                self.moved[name] = fit

    def _takes(self, s: LayerObservation, made: Arrays, fits: Mapping[str, Fit]) -> bool:
        """Whether a layer that is right takes back what it is given: what it makes is the reference's (see `back`), or
        the reference's own layer would not make it."""
        if all(fit.same for fit in fits.values()):
            self.back.add(s.number)
            return True
        if not s.exceeds_noise:
            return False
        others = self.runs.reference(s.pair, self.theirs)
        return not all(fit.exact for fit in self._fits(made, others).values())

    def _asked(self, s: LayerObservation, made: Arrays) -> tuple[str, Terms, Arrays, Mapping[str, Fit]] | None:
        """What a layer would have to be given to be right: tensor, terms, what it then makes, and how that fits."""
        for name, terms in self._tries(s):
            out = self.runs.candidate(s.pair, {**self.theirs, name: terms(self.mine[name])})
            fits = self._fits(made, out)
            if all(fit.exact for fit in fits.values()):
                return name, terms, out, fits
        return None

    def _tries(self, s: LayerObservation) -> Iterator[tuple[str, Terms]]:
        """Tensors that a layer reads and terms that they may have to stand in: what its weights would take back, and
        what layers before it have asked for."""
        learnt = [terms for _, terms in self.asking.values()]
        for name in s.pair.reference.inputs:
            value = self.mine[name]
            if name in self.healing.maker and is_float(value.dtype):
                if s.exceeds_noise and weighted(s, self.index):
                    for axis, *more in AXES.get(value.ndim, ()):
                        yield from (
                            () if more else ((name, e) for e in expected(s.pair, self.graphs, value.shape, axis))
                        )
                if name in self.open:
                    yield from ((name, terms) for terms in learnt if terms.suits(value))

    def _is_wrong(self, s: LayerObservation, made: Arrays, out: Arrays, fits: Mapping[str, Fit]) -> None:
        """Of channels that fit, those behind are given; of all, where what comes in tells how they are turned."""
        mostly = False
        if self.reads(s):
            others = self._fits(made, self.runs.candidate(s.pair, self.mine))
            left, share = max(fit.left for fit in fits.values()), min(fit.share for fit in fits.values())
            mostly = left < TAKEN * max(fit.left for fit in others.values())
            mostly |= share >= ENOUGH > max(fit.share for fit in others.values())
        self.wrong[s.number] = mostly
        if mostly:
            self.taking.add(s.number)
        changes = {n: fit.change for n, fit in fits.items() if not fit.exact}
        if None not in changes.values():
            mine = {n: x if (c := changes.get(n)) is None else c.known(x) for n, x in made.items()}
            theirs = {n: out[n] if (c := changes.get(n)) is None else c(made[n]) for n in made}
            self._hand_on(mine, theirs, fits)
            return
        known = (t for n in self.reads(s) if isinstance(t := self.terms(n), Turn))
        turned = next((t for t in known if all(map(t.suits, made.values()))), None)
        if turned is None:
            self._hand_on(made, made, {}, opened=True)
        else:
            self._hand_on(made, {n: turned(x) for n, x in made.items()}, dict.fromkeys(made, Fit(True)))

    def terms(self, name: str) -> Terms | None:
        """The terms that a tensor stands in; None of the reference's, and where they are not known."""
        fit = self.moved.get(name)
        if fit is None or name in self.given:
            return self.given.get(name)
        return fit.change or turn(self.mine[name], self.theirs[name])

    def change(self, s: LayerObservation) -> Differing | None:
        """Which of the constants of a layer is not what it is in the candidate's terms: those of what it makes, or
        those that a product behind it takes back, which tells them better where a wrong constant moves all values."""
        name = s.pair.reference.outputs[0]
        reads = [self.terms(n) for n in s.pair.reference.inputs if n in self.moved]
        found = (
            as_rewritten(s.pair, self.graphs, given, makes)
            for makes in (*self._taken_back(s, name), self.terms(name))
            for given in (*reads, None)
        )
        return next((change for change in found if change is not None), None)

    def _taken_back(self, s: LayerObservation, name: str) -> Iterator[Terms]:
        """The terms that the weights of products with others of their own take back of a tensor, as they tell it."""
        shape = self.mine[name].shape
        for reader in self.healing.reading(s):
            if reader.exceeds_noise and weighted(reader, self.index):
                for axis in (axes[0] for axes in AXES.get(len(shape), ()) if len(axes) == 1):
                    found = expected(reader.pair, self.graphs, shape, axis)
                    yield from (terms for terms in found if terms.deviation.any())

    def _fits(self, made: Arrays, out: Arrays) -> dict[str, Fit]:
        return {n: fitted(made[n], out[n], self.healing.tolerance(n)) for n in made}
