"""Engines of layers that are built before a walk asks for them, in processes beside it.

A process that is started while the deployed engine is built is ready when that is, and builds the engines of the layers
while the command measures and runs the reference.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.cutting.propagate import propagate
from ...graph.cutting.slices import explode
from ...graph.errors import BuildError
from ...graph.specs import is_float, specs_of
from ..runs.memory import ENGINES, weight_bytes
from .shapes import fits, profiles_of, sets_for, workload_of

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...graph.specs import Arrays
    from ...runners.contract.runner import Builders
    from ...runners.contract.workload import ShapeRange, Workload
    from ..sides import Side
    from .plan import LayerPair, PiecePair

log = logging.getLogger(__name__)

MOST = 20
"""Most layers of one engine. Those of a transformer's 121 layers took two processes 23 s in groups of 20, 36 s in
groups of 12 or of 22, and one of 29 layers takes 11 to 14 s by itself (H200, TensorRT 8.6, which refuses 41)."""


@dataclass(frozen=True)
class Engine:
    """An engine that was built ahead.

    Attributes:
        model: The layers that it runs, each fed from outside.
        shapes: The sets of shape ranges that it was built for.
        made: What `Runner.build` gave.
    """

    model: Model
    shapes: list[dict[str, ShapeRange]]
    made: Any


class EnginesAhead:
    """Engines of groups of layers, on the shapes that follow from the first sample; all are begun at once.

    Args:
        builders: The processes that build them.
        side: The candidate, set up for pieces.
        steps: The pieces.
        workload: What the whole model is run on.
    """

    def __init__(self, builders: Builders, side: Side, steps: Sequence[PiecePair], workload: Workload) -> None:
        self.layers = _layers(steps)
        self._builders, self._side, self._workload = builders, side, workload
        self._profiles = profiles_of(side, workload)
        self._futures: dict[tuple[int, ...], Future[Engine]] = {}
        self._hollow: dict[tuple[int, ...], Arrays] = {}
        if weight_bytes((side,)) <= ENGINES:  # they are held here until they are sent
            for pairs in self.layers:
                for group in together(pairs):
                    self._submit(group)

    @classmethod
    def of(cls, builders: Builders, side: Side, steps: Sequence[PiecePair], workload: Workload) -> EnginesAhead:
        """Those of a candidate that were begun with the same layers; else they are begun now."""
        begun = builders.begun.pop(side.name, None)
        return begun if begun is not None and begun.layers == _layers(steps) else cls(builders, side, steps, workload)

    def taken(self, pairs: Sequence[LayerPair], feed: Arrays) -> Engine | None:
        """The engine of a group of layers, once it is built; None where there is none for what they are fed.

        Raises:
            BuildError: The runtime refuses the group, which is more than one layer.
        """
        key = key_of(pairs)
        future, hollow = self._futures.get(key), self._hollow.get(key)
        if future is None or hollow is None or any(hollow[n].dtype != a.dtype for n, a in feed.items()):
            return None
        try:
            engine = future.result()
        except Exception as error:  # whatever it is, it is told where the engine is built once more
            if isinstance(error, BuildError) and len(pairs) > 1:
                raise
            log.debug("no engine was built ahead", exc_info=True)
            return None
        return engine if any(fits(one, feed) for one in engine.shapes) else None

    def _submit(self, pairs: Sequence[LayerPair]) -> None:
        hollow = self._feed(pairs)
        if hollow is not None:
            self._hollow[key_of(pairs)] = hollow
            self._futures[key_of(pairs)] = self._builders.submit(self._built, pairs, hollow)

    def _built(self, pairs: Sequence[LayerPair], feed: Arrays) -> Engine:
        """Builds the engine of a group, and has those of its halves built where it is refused."""
        try:
            try:
                return self._attempt(pairs, feed, fixed=False)
            except BuildError:
                return self._attempt(pairs, feed, fixed=True)
        except BuildError:
            if len(pairs) > 1:
                middle = len(pairs) // 2
                self._submit(pairs[:middle])
                self._submit(pairs[middle:])
            raise

    def _attempt(self, pairs: Sequence[LayerPair], feed: Arrays, *, fixed: bool) -> Engine:
        model = explode(self._side.model, [(p.number, p.candidate) for p in pairs], specs_of(feed, fixed=fixed))
        shapes = sets_for(feed, () if fixed else self._profiles, ())
        return Engine(model, shapes, self._builders.build(self._side.runner, model, workload_of(None, shapes)))

    def _feed(self, pairs: Sequence[LayerPair]) -> Arrays | None:
        """Arrays like those that layers will be fed, without values; None where they do not follow from the graph, or
        where values may matter to a build: of integers, which may be shapes."""
        specs = self._side.model.index.specs
        found: dict[str, np.ndarray] = {}
        for name in dict.fromkeys(n for pair in pairs for n in pair.candidate.inputs):
            spec, shape = specs.get(name), self._shapes.get(name)
            if spec is None or shape is None or not (is_float(spec.dtype) or len(shape) > 1):
                return None
            found[name] = np.broadcast_to(np.zeros((), spec.dtype), shape)
        return found

    @cached_property
    def _shapes(self) -> Mapping[str, tuple[int, ...] | None]:
        samples = self._workload.samples
        first = next(iter(samples()), None) if samples is not None else None
        model = self._side.model
        inputs = {spec.name for spec in model.inputs}
        return propagate(model, {n: a.shape for n, a in (first or {}).items() if n in inputs})


def together(
    pairs: Sequence[LayerPair], refused: Collection[tuple[int, ...]] = (), most: int = MOST
) -> list[Sequence[LayerPair]]:
    """Layers in groups that run together: as few of one size as there can be.

    Args:
        pairs: The layers.
        refused: Groups that do not run together, by the layers' numbers: they run in two halves, and so on, so that one
            layer that cannot run hides no other.
        most: Layers of the largest group.
    """
    count = max(math.ceil(len(pairs) / most), 1)
    parts = [pairs[i * len(pairs) // count : (i + 1) * len(pairs) // count] for i in range(count)]
    return [group for part in parts for group in _halves(part, refused)]


def _halves(pairs: Sequence[LayerPair], refused: Collection[tuple[int, ...]]) -> Iterator[Sequence[LayerPair]]:
    if len(pairs) < 2 or key_of(pairs) not in refused:
        if pairs:
            yield pairs
        return
    middle = len(pairs) // 2
    yield from _halves(pairs[:middle], refused)
    yield from _halves(pairs[middle:], refused)


def _layers(steps: Sequence[PiecePair]) -> list[list[LayerPair]]:
    return [[pair for pair in step.layers if not pair.random] for step in steps]


def key_of(pairs: Sequence[LayerPair]) -> tuple[int, ...]:
    """The numbers of some layers."""
    return tuple(pair.number for pair in pairs)
