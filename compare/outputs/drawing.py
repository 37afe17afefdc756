"""A network with random roundings, run: what its outputs are with the roundings drawn once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...graph.cutting.propagate import propagate
from ...graph.errors import RunnerError
from ...graph.rounding.noise_pool import Pools
from ...graph.rounding.random_rounding import RandomRounding, randomized
from ..runs.opening import for_rewritten, open_whole
from .decisions import DECISION_GAIN
from .draws import Drawn, Kind

if TYPE_CHECKING:
    from ...graph.rounding.rounding_sides import Roundoff
    from ...runners.contract.session import Session
    from ...runners.contract.workload import Feed
    from ...runners.onnxrt.runner import OnnxrtRunner
    from ..comparison import Comparison
    from ..sides import Side

Pairs: TypeAlias = "Mapping[str, tuple[np.ndarray, np.ndarray]]"
"""The reference's and the candidate's output, by name."""

MANY = 5_000
"""Nodes of a network from which on ONNX Runtime takes longer to optimize the network of random roundings than to make
all draws of it as it is."""
SIZE = 1 << 22
"""Elements that a tensor is thought to have at most where its shape is not known."""
LARGEST = 1 << 28
"""Elements from which on a pool does not grow: a gigabyte."""


class Drawing:
    """The networks with random roundings of one candidate, one for each kind of draw.

    Args:
        comparison: Who ran.
        side: The model whose roundings are drawn, and its runner.
        roundoff: What is rounded, and how.
        pieces: Whether the network is run in pieces, since the weights of all sides do not fit in memory.
        drawn: What was drawn before, and where to keep what is drawn now.

    Attributes:
        size: Elements of the pools that random numbers are read from; 0 until something is drawn.
    """

    def __init__(
        self, comparison: Comparison, side: Side, roundoff: Roundoff, *, pieces: bool, drawn: Drawn | None
    ) -> None:
        self.side = side
        self.pieces = pieces
        self.size = 0
        self._comparison = comparison
        self._roundoff = roundoff
        self._drawn = drawn
        self._stack = ExitStack()
        self._networks: dict[Kind, tuple[RandomRounding, Session]] = {}
        self._pools: dict[Kind, Pools] = {}

    def close(self) -> None:
        """Closes the sessions."""
        self._stack.close()

    def sized(self, size: int) -> None:
        """Takes over the size of pools that remembered draws were made from; 0: it is found out by the next draw."""
        if size != self.size:
            self.size = size
            self._pools.clear()

    def base(self, feed: Feed, pairs: Pairs, kind: Kind) -> dict[str, np.ndarray]:
        """The outputs without noise: the reference's, if the same runtime draws the same network's roundings."""
        if self.as_it_is:
            return {name: pair[0] for name, pair in pairs.items()}
        network, session = self._network(kind)
        return session.infer(network.feed(feed, self._pool(kind, feed).neutral()), list(pairs))

    @property
    def as_it_is(self) -> bool:
        """Whether what is drawn is the reference, by the runtime that it ran on."""
        reference = self._comparison.reference
        return self.side is reference and type(for_rewritten(reference)) is type(reference.runner)

    def gain(self, kind: Kind) -> float:
        """By how much roundings are enlarged; a network that is drawn from memory is not made for it."""
        known = {} if self._drawn is None else self._drawn.gains
        key = (self.side.model, self._roundoff, kind)
        if key not in known:
            known[key] = self._network(kind)[0].gain
        return known[key]

    def draw(self, sample: int, feed: Feed, names: Sequence[str], number: int, kind: Kind) -> Mapping[str, np.ndarray]:
        """Outputs with the roundings drawn: the draw of a number, made now or before.

        Raises:
            LayerdiffError: The network cannot be rewritten or run.
        """
        if self._drawn is None:
            return self._draw(feed, names, number, kind)
        key = (self.side.model, repr(self.runner), self._roundoff, kind, number)
        known = self._drawn.known(key, sample, names)
        missing = [name for name in names if name not in known]
        if missing:
            made = self._draw(feed, missing, number, kind)
            self._drawn.keep(key, sample, made)
            known.update(made)
        return known

    def draw_once(self, feed: Feed, names: Sequence[str], kind: Kind) -> dict[str, np.ndarray]:
        """Outputs with the roundings drawn, on inputs of another size than those of the samples: kept by nobody.

        Raises:
            LayerdiffError: The network cannot be rewritten or run, or not on inputs of that size.
        """
        before, self.size = self.size, 0
        self._pools.clear()
        try:
            return self._draw(feed, names, 0, kind)
        finally:
            self.size = before
            self._pools.clear()

    def _draw(self, feed: Feed, names: Sequence[str], number: int, kind: Kind) -> dict[str, np.ndarray]:
        network, session = self._network(kind)
        while True:
            pools = self._pool(kind, feed)
            try:
                return session.infer(network.feed(feed, pools.draw(number)), names)
            except RunnerError as error:
                if not _is_larger_than_the_pool(error) or self.size >= LARGEST:
                    raise
                self.sized(self.size * 8)

    @property
    def runner(self) -> OnnxrtRunner:
        """What runs the network of random roundings, which has four times the nodes."""
        runner = for_rewritten(self.side)
        return replace(runner, optimization="disable") if len(self.side.model.index.nodes) > MANY else runner

    def _network(self, kind: Kind) -> tuple[RandomRounding, Session]:
        if kind not in self._networks:
            roundoff = replace(self._roundoff, subnormals=kind.subnormals, by_value=kind.by_value)
            network = randomized(self.side.model, roundoff, DECISION_GAIN if kind.jumping else None)
            side = replace(self.side, runner=self.runner, model=network.model)
            session = open_whole(replace(self._comparison, journal=None), side, self.pieces)
            self._networks[kind] = network, self._stack.enter_context(session)
        return self._networks[kind]

    def _pool(self, kind: Kind, feed: Feed) -> Pools:
        if not self.size:
            shapes = propagate(self.side.model, {name: array.shape for name, array in feed.items()})
            weights = (math.prod(t.dims) for t in self.side.model.index.initializers.values())
            unknown = any(shape is None for shape in shapes.values())
            sizes = [*(math.prod(s) for s in shapes.values() if s is not None), *weights, SIZE if unknown else 1]
            self.size = max(sizes)
        if kind not in self._pools:
            self._pools[kind] = Pools(self._network(kind)[0].scales, self.size)
        return self._pools[kind]


def _is_larger_than_the_pool(error: RunnerError) -> bool:
    """Whether a tensor has more elements than its window of the pool, which is then reshaped to what it does not hold.

    Other Reshapes fail for other reasons: of a tensor without elements, say.
    """
    return "requested shape" in str(error).lower()
