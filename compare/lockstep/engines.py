"""Engines of layers that are built before a walk asks for them, in processes beside it.

A process that is started while the deployed engine is built is ready when that is, and builds the engines of the layers
while the command measures and runs the reference.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...graph.cutting.alike import kind_of, numbered
from ...graph.cutting.propagate import propagate
from ...graph.cutting.repeats import blocks
from ...graph.cutting.slices import explode
from ...graph.errors import BuildError, LayerdiffError
from ...graph.specs import is_float, specs_of
from ..runs.memory import ENGINES, weight_bytes
from .groups import MOST, key_of, together
from .shapes import fits, profiles_of, sets_for, workload_of

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...graph.specs import Arrays
    from ...runners.contract.runner import Builders
    from ...runners.contract.workload import ShapeRange, Workload
    from ..sides import Side
    from .plan import LayerPair, PiecePair

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """An engine that was built ahead.

    Attributes:
        model: The layers that it runs, each fed from outside.
        feed: Arrays like those that it was built to be fed, without values.
        shapes: The sets of shape ranges that it was built for.
        made: What `Building.build` or `Building.refit` gave.
        names: What its tensors are called in ``model``, by their names in an exploded model; empty: so.
    """

    model: Model
    feed: Arrays
    shapes: list[dict[str, ShapeRange]]
    made: Any
    names: Mapping[str, str] = field(default_factory=dict)

    def takes(self, feed: Arrays) -> bool:
        """Whether it was built for arrays of these types and shapes."""
        typed = all(self.feed[name].dtype == array.dtype for name, array in feed.items())
        return typed and any(fits(one, feed) for one in self.shapes)


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
        self._behind: dict[tuple[int, ...], Future[Engine]] = {}
        self._refitting = Lock()  # two processes that load kernels at once wait for each other
        if weight_bytes((side,)) <= ENGINES:  # they are held here until they are sent
            for first, *others in self._alike():
                self._submit(first, others=others)

    @classmethod
    def of(cls, builders: Builders, side: Side, steps: Sequence[PiecePair], workload: Workload) -> EnginesAhead:
        """Those of a candidate that were begun with the same layers; else they are begun now."""
        begun = builders.begun.pop(side.name, None)
        return begun if begun is not None and begun.layers == _layers(steps) else cls(builders, side, steps, workload)

    def built(self, pairs: Sequence[LayerPair]) -> Engine | None:
        """The engine of a group of layers, once it is built; None where there is none.

        Raises:
            BuildError: The runtime refuses the group, which is more than one layer.
        """
        key = key_of(pairs)
        if key in self._behind:
            wait([self._behind[key]])  # by then, it is begun
        future = self._futures.get(key)
        if future is None:
            return None
        try:
            return future.result()
        except Exception as error:  # whatever it is, it is told where the engine is built once more
            if isinstance(error, BuildError) and len(pairs) > 1:
                raise
            log.debug("no engine was built ahead", exc_info=True)
            return None

    def groups(self, pairs: Sequence[LayerPair], refused: Collection[tuple[int, ...]]) -> list[Sequence[LayerPair]]:
        """Layers of a piece in groups that run together; see `together`."""
        return together(pairs, refused, borders=self._borders)

    @cached_property
    def _borders(self) -> frozenset[int]:
        """Numbers of layers at which blocks that repeat begin and end; none where engines are of no use to others."""
        if not self._refits:
            return frozenset()
        pairs = [pair for piece in self.layers for pair in piece]
        found = blocks([kind_of(self._side.model.index, pair.candidate.nodes) for pair in pairs], MOST)
        return frozenset(pairs[i].number for block in found for i in block if i < len(pairs))

    @cached_property
    def _refits(self) -> bool:
        return self._side.runner.refits and not self._side.model.proto.graph.sparse_initializer

    def _alike(self) -> list[list[Sequence[LayerPair]]]:
        """All groups; those in one list compute the same with other weights."""
        found: dict[Hashable, list[Sequence[LayerPair]]] = {}
        for group in (group for pairs in self.layers for group in self.groups(pairs, ())):
            feed = self._feed(group) if self._refits else None
            positions = [position for pair in group for position in pair.candidate.nodes]
            kind = key_of(group) if feed is None else (kind_of(self._side.model.index, positions), _types(feed))
            found.setdefault(kind, []).append(group)
        return list(found.values())

    def _submit(
        self, pairs: Sequence[LayerPair], like: Engine | None = None, others: Sequence[Sequence[LayerPair]] = ()
    ) -> None:
        """Has the engine of a group built.

        Args:
            pairs: The group.
            like: The engine of one that computes the same with other weights.
            others: Groups that compute the same as this one with other weights.
        """
        feed = self._feed(pairs)
        if feed is not None:
            future = self._builders.submit(self._built, pairs, feed, like, others)
            self._futures[key_of(pairs)] = future
            self._behind.update((key_of(other), future) for other in others)

    def _built(
        self, pairs: Sequence[LayerPair], feed: Arrays, like: Engine | None, others: Sequence[Sequence[LayerPair]]
    ) -> Engine:
        """Builds the engine of a group, has those of its halves built where it is refused, and those of other groups
        of its kind."""
        engine = None
        try:
            engine = self._refitted(pairs, feed, like) if like is not None else None
            engine = engine or self._attempted(pairs, feed, bool(others))
        finally:
            for other in others:
                self._submit(other, engine)
        return engine

    def _attempted(self, pairs: Sequence[LayerPair], feed: Arrays, refittable: bool) -> Engine:
        try:
            try:
                return self._attempt(pairs, feed, refittable)
            except BuildError:
                return self._attempt(pairs, feed, refittable, fixed=True)
        except BuildError:
            if len(pairs) > 1:
                middle = len(pairs) // 2
                self._submit(pairs[:middle])
                self._submit(pairs[middle:])
            raise

    def _attempt(self, pairs: Sequence[LayerPair], feed: Arrays, refittable: bool, *, fixed: bool = False) -> Engine:
        model, shapes = self._exploded(pairs, feed, fixed)
        model, names = numbered(model) if refittable else (model, {})
        workload = workload_of(None, [called(ranges, names) for ranges in shapes])
        made = self._builders.build(self._side.runner, model, workload, refittable)
        return Engine(model, feed, shapes, made, names)

    def _refitted(self, pairs: Sequence[LayerPair], feed: Arrays, like: Engine) -> Engine | None:
        """The engine of other layers with the weights of these; None where these need one of their own."""
        fixed = all(isinstance(d, int) for spec in like.model.inputs for d in spec.shape or ())
        model, shapes = self._exploded(pairs, feed, fixed)
        model, names = numbered(model)
        if [called(one, names) for one in shapes] != [called(one, like.names) for one in like.shapes]:
            return None
        try:
            with self._refitting:
                made = self._builders.refit(self._side.runner, model, like.made, like.model)
        except LayerdiffError:
            log.debug("an engine is built, since that of equal layers cannot be refitted", exc_info=True)
            return None
        return Engine(model, feed, shapes, made, names)

    def _exploded(
        self, pairs: Sequence[LayerPair], feed: Arrays, fixed: bool
    ) -> tuple[Model, list[dict[str, ShapeRange]]]:
        """Layers side by side in one model, and the sets of shape ranges to build it for."""
        model = explode(self._side.model, [(p.number, p.candidate) for p in pairs], specs_of(feed, fixed=fixed))
        return model, sets_for(feed, () if fixed else self._profiles, ())

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


def called(values: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    """Values of tensors under other names, as far as these are known."""
    return {names.get(name, name): value for name, value in values.items()}


def _types(feed: Arrays) -> Hashable:
    return tuple((array.dtype.str, array.shape) for array in feed.values())


def _layers(steps: Sequence[PiecePair]) -> list[list[LayerPair]]:
    return [[pair for pair in step.layers if not pair.random] for step in steps]
