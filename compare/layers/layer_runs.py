"""Layers run one by one on values of the first sample, each on the same ones once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...graph.cutting.slices import Slice, slice_model
from ...graph.errors import LayerdiffError, ModelError
from ...graph.specs import Arrays, held, specs_of
from ..lockstep.parts import opened_part
from ..runs.memory import budget

if TYPE_CHECKING:
    import numpy as np

    from ..lockstep.plan import LayerPair
    from ..sides import Side
    from .prepare import Prepared

MOST = 3000
"""Most runs of single layers."""


class TooMuch(LayerdiffError):
    """More runs, or more memory, than there are."""


class LayerRuns:
    """Runs layers of both sides.

    Args:
        prepared: Who was walked.

    Attributes:
        graphs: The reference's graph and the candidate's.
        feed: The first sample.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._sides = prepared.comparison.reference, prepared.candidate
        self._plan = prepared.plan
        self._room = budget(prepared.comparison.rules.memory)
        self._known: dict[tuple[int, ...], tuple[Arrays, Arrays]] = {}
        self.graphs = self._sides[0].model.index, self._sides[1].model.index
        self.feed = next(iter(prepared.comparison.samples))

    def reference(self, pair: LayerPair, values: Arrays) -> Arrays:
        """What the reference makes of a layer.

        Raises:
            LayerdiffError: It cannot be run.
        """
        return self._made(0, pair.number, pair.reference, {n: values[n] for n in pair.reference.inputs})

    def candidate(self, pair: LayerPair, values: Arrays) -> Arrays:
        """The same of the candidate, by the reference's names on both ends.

        Raises:
            LayerdiffError: It cannot be run.
        """
        sources = self._plan.sources([pair])
        if not values.keys() >= set(sources.values()):
            raise ModelError(f"{pair.candidate.outputs[0]} is made of what the reference makes later.")
        given = {n: values[source] for n, source in sources.items()}
        made = self._made(1, pair.number, pair.candidate, given)
        return {n: made[other] for n, other in zip(pair.reference.outputs, pair.candidate.outputs, strict=True)}

    def _made(self, which: int, number: int, part: Slice, given: Arrays) -> Arrays:
        key = (which, number, *map(id, given.values()))
        if key not in self._known:
            made = _run(self._sides[which], part, given)
            self._known[key] = given, made  # the values are kept, so that no other ones have their ids
            self._room -= sum(value.nbytes for value in (*given.values(), *made.values()))
            if self._room < 0 or len(self._known) > MOST:
                raise TooMuch("more layers are to be run one by one than there is memory or time for")
        return self._known[key][1]


def _run(side: Side, part: Slice, given: Arrays) -> Mapping[str, np.ndarray]:
    specs = side.model.index.specs
    feed = {n: held(value, specs.get(n)) for n, value in given.items()}
    with opened_part(side, slice_model(side.model, part, specs_of(feed)), feed) as session:
        return session.infer(feed, part.outputs)
