"""The sessions of a piece: the reference, the candidate, and the candidate's layers cut off from each other.

Building a session keeps one core busy, running it keeps all of them. While one piece runs, the sessions of the next are
opened in the background, where the runtime can open a model before it knows the shapes of its inputs and the weights of
all pieces fit in the budget; those of the piece before it are closed there. Engines that are built beside the walk are
opened there too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from ...graph.cutting.slices import Slice, explode, exploded_name, original_name, slice_model
from ...graph.errors import BuildError, LayerdiffError
from ...graph.operators import QUANTIZERS, operator
from ...graph.pairing.one_program import one_program
from ...graph.specs import Arrays, TensorSpec, specs_of
from ...runners.contract.workload import ShapeRange, Workload
from ..runs.memory import weight_bytes
from .engines import EnginesAhead, called
from .groups import MOST, key_of, together
from .parts import PartSession
from .plan import LayerPair, PiecePair
from .renamed import RenamedSession
from .shapes import Ranges, fits, profiles_of, sets_for, workload_of

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...runners.contract.runner import Builders
    from ...runners.contract.session import Session
    from ..sides import Side
    from .engines import Engine


FREE = -1
"""The number of the slice that is the whole piece, on the candidate's own values, beside layers on the reference's."""


class Alike(NamedTuple):
    """What two sides have in common.

    Attributes:
        tensors: Tensors of the reference -> the candidate's names of the same.
        divided: Whether the candidate has made other values than the reference so far.
    """

    tensors: Mapping[str, str]
    divided: Callable[[], bool]


class StepSessions:
    """The sessions of one step: opened ahead, or when the first sample shows the types of their inputs.

    Attributes:
        step: The piece.
        only: Numbers of the layers that the candidate runs, each fed from outside; None: all, and the piece itself.
        refused: Groups of layers that did not open or run together, by the layers' numbers.
        joins: Whether the candidate's layers and the piece itself are run by one session, `together`.
        one: Whether both sides run one program, which one session then runs: the same operators with the same weights,
            under the same names at the border, on the same runtime.
        chains: Whether its own values come from its layers, one after the other: an engine of the piece takes
            as long to build as that of its layers, which runs in milliseconds.
    """

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        step: PiecePair,
        whole: Callable[[], Session],
        profiles: tuple[Sequence[Ranges], Sequence[Ranges]] = ((), ()),
        only: Collection[int] | None = None,
        engines: EnginesAhead | None = None,
        alike: Alike | None = None,
    ) -> None:
        self._engines = engines
        self.one = alike is not None and _one_program(reference, candidate, step, alike.tensors)
        self._divided = alike.divided if alike is not None else lambda: True
        self.step = step
        self.only = only
        self.refused: set[tuple[int, ...]] = set()
        self._sides = (reference, candidate)
        self._stack = ExitStack()
        self._reference: Session | None = None
        self._candidate: Session | None = None
        self._exploded: dict[tuple[int, ...], Session] = {}
        self._begun: dict[tuple[int, ...], Future[Session | None]] = {}
        self._opening, self._closed = Lock(), False
        self.joins = only is None and _joins(candidate, step.candidate)
        self.chains = only is None and candidate.runner.capabilities.keeps_inputs
        self._whole = whole
        self._profiles = profiles
        self._ready: dict[int, list[dict[str, ShapeRange]]] = {}

    def open_ahead(self) -> None:
        """Opens what can be opened on the types that the graphs declare. What cannot is left for later."""
        reference, candidate = self._sides
        step = self.step
        try:
            if reference.runner.capabilities.opens_ahead and (
                specs := _declared(reference.model, step.reference.inputs)
            ):
                self._reference = self._open(reference, slice_model(reference.model, step.reference, specs), None)
            if not candidate.runner.capabilities.opens_ahead:
                return
            if self.one and not self._divided():  # layers need not be run apart as long as no value differs
                return
            pairs = [p for p in step.layers if not p.random and (self.only is None or p.number in self.only)]
            inputs = dict.fromkeys(n for p in pairs for n in p.candidate.inputs)
            own = [exploded_name(n, FREE) for n in step.candidate.inputs]
            if pairs and self.joins:
                if specs := _declared(candidate.model, (*inputs, *own)):
                    self._exploded[(*key_of(pairs), FREE)] = self._open(candidate, self._joined(pairs, specs), None)
                return
            if pairs and (specs := _declared(candidate.model, tuple(inputs))):
                model = explode(candidate.model, [(p.number, p.candidate) for p in pairs], specs)
                self._exploded[key_of(pairs)] = self._open(candidate, model, None)
            wanted = self.only is None and step.candidate.outputs and not self.one
            if wanted and (specs := _declared(candidate.model, step.candidate.inputs)):
                self._candidate = self._open(candidate, slice_model(candidate.model, step.candidate, specs), None)
        except LayerdiffError:
            return  # whoever needs the session opens it again, and hears why it cannot be

    def open_engines(self, background: Executor) -> None:
        """Opens the engines that are built beside the walk in the background, each when it is built."""
        pairs = [pair for pair in self.step.layers if not pair.random]
        self._begun = {key_of(group): background.submit(self._opened, group) for group in self.groups(pairs)}

    def _opened(self, pairs: Sequence[LayerPair]) -> Session | None:
        engine = self._engines.built(pairs) if self._engines is not None else None
        with self._opening:
            return None if engine is None or self._closed else self._on_engine(engine)

    def reference(self, values: Arrays) -> Session:
        """The reference on this piece."""
        part = self.step.reference
        feed = {n: values[n] for n in part.inputs}
        if self._reference is None or not self._fits(self._reference, feed):
            self._reference = self._on_slice(self._sides[0], part, feed, self._reference)
        return self._reference

    def candidate(self, own: Arrays) -> Session:
        """The candidate on this piece."""
        if self.one:
            return self.reference(own)
        if self._candidate is None or not self._fits(self._candidate, own):
            self._candidate = self._on_slice(self._sides[1], self.step.candidate, own, self._candidate)
        return self._candidate

    def exploded(self, pairs: Sequence[LayerPair], feed: Arrays) -> Session:
        """The candidate on layers of this piece, each fed from outside."""
        key = key_of(pairs)
        before = self._exploded.get(key)
        engine = self._engines.built(pairs) if self._engines is not None and before is None else None
        if engine is not None and engine.takes(feed):
            begun = self._begun.pop(key, None)
            self._exploded[key] = (begun and begun.result()) or self._on_engine(engine)
        elif before is None or not self._fits(before, feed):
            side = self._sides[1]
            parts = [(p.number, p.candidate) for p in pairs]
            self._exploded[key] = self._on(side, lambda specs: explode(side.model, parts, specs), feed, before)
        return self._exploded[key]

    def together(self, pairs: Sequence[LayerPair], feed: Arrays) -> Session:
        """The candidate on layers of this piece, each fed from outside, and on the piece itself: the slice `FREE`."""
        key = (*key_of(pairs), FREE)
        before = self._exploded.get(key)
        if before is None or not self._fits(before, feed):
            self._exploded[key] = self._on(self._sides[1], lambda specs: self._joined(pairs, specs), feed, before)
        return self._exploded[key]

    def _joined(self, pairs: Sequence[LayerPair], specs: Mapping[str, TensorSpec]) -> Model:
        parts = [*((p.number, p.candidate) for p in pairs), (FREE, self.step.candidate)]
        return explode(self._sides[1].model, parts, specs, apart=(FREE,))

    def _on_slice(self, side: Side, part: Slice, feed: Arrays, before: Session | None) -> Session:
        return self._on(side, lambda specs: slice_model(side.model, part, specs), feed, before)

    def _on(
        self, side: Side, make: Callable[[Mapping[str, TensorSpec]], Model], feed: Arrays, before: Session | None
    ) -> Session:
        """A session on what ``make`` makes of the inputs' types: with open shapes, or fixed ones where it has to be."""
        try:
            return self._open(side, make(specs_of(feed)), feed, before)
        except BuildError as refused:
            try:
                session = self._open(side, make(specs_of(feed, fixed=True)), feed)
            except LayerdiffError:
                raise refused from None
            self._ready.setdefault(id(session), sets_for(feed, (), ()))
            return session

    def _on_engine(self, engine: Engine) -> Session:
        """A session on an engine of the candidate's that is built."""
        sets = [called(ranges, engine.names) for ranges in engine.shapes]
        workload = workload_of(called(engine.feed, engine.names), sets)
        runner = self._sides[1].runner.opened_on(engine.made)
        session = self._stack.enter_context(runner.session(engine.model, workload=workload))
        if engine.names:
            session = RenamedSession(session, engine.names)
        self._ready[id(session)] = engine.shapes
        return session

    def _fits(self, session: Session, feed: Arrays) -> bool:
        """Whether a session was opened for the shapes of these arrays."""
        ready = self._ready.get(id(session))
        return ready is None or any(fits(ranges, feed) for ranges in ready)

    def _open(self, side: Side, model: Model, feed: Arrays | None, before: Session | None = None) -> Session:
        """Opens a session; in place of one that was not opened for these shapes, if there is one."""
        if not side.runner.capabilities.pieces:
            return PartSession(self._whole(), model)
        if feed is None:
            return self._stack.enter_context(side.runner.session(model))
        if not side.runner.capabilities.builds_for_shapes:
            return self._stack.enter_context(
                side.runner.session(model, workload=Workload(samples=lambda: iter([feed])))
            )
        candidate = side is self._sides[1]
        ready = sets_for(feed, self._profiles[candidate], self._ready.pop(id(before), ()))
        if before is not None:
            before.close()
        workload = workload_of(feed, ready)
        session = self._stack.enter_context(side.runner.session(model, workload=workload))
        self._ready[id(session)] = ready
        if candidate and session.info.timing_cache:
            self._sides = self._sides[0], replace(side, runner=side.runner.with_timings(session.info.timing_cache))
        return session

    def groups(self, pairs: Sequence[LayerPair]) -> list[Sequence[LayerPair]]:
        """Layers in groups that run together, as far as is known: those that were refused in two halves, and so on, so
        that one layer that cannot run hides no other."""
        if self._engines is not None:
            return self._engines.groups(pairs, self.refused)
        builds = self._sides[1].runner.capabilities.builds_for_shapes
        return together(pairs, self.refused, MOST if builds else max(len(pairs), 1))

    def refuse(self, pairs: Sequence[LayerPair]) -> None:
        """Notes that layers do not run together."""
        self.refused.add(key_of(pairs))

    @property
    def timed(self) -> Side:
        """The candidate with what its engines here tell of the times of kernels, for those that are built next."""
        return self._sides[1]

    def begin(self, candidate: Side) -> None:
        """Takes the candidate as the step before has left it, where nothing is opened ahead."""
        if not candidate.runner.capabilities.opens_ahead:
            self._sides = self._sides[0], candidate

    def close(self) -> None:
        """Closes them all."""
        with self._opening:
            self._closed = True
        self._stack.close()
        self._reference = self._candidate = None
        self._exploded.clear()


class SessionsAhead:
    """The sessions of all steps, in order, those of the next step being opened while one is in use.

    Args:
        reference, candidate: Who is walked.
        steps: The pieces.
        budget: Bytes that the weights of both models may take for sessions to be opened ahead.
        workload: What the whole models are run on.
        only: See `StepSessions`.
        builders: Processes that build the candidate's engines, all of them from the start; None: there are none.
        alike: What pieces of both sides have in common; None: they are not held against each other.
    """

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        steps: Sequence[PiecePair],
        budget: int,
        workload: Workload | None = None,
        only: Collection[int] | None = None,
        builders: Builders | None = None,
        alike: Alike | None = None,
    ) -> None:
        self.only = only
        self._alike = alike
        self.reference = reference
        self.candidate = candidate
        self.steps = steps
        work = workload or Workload()
        self._profiles = profiles_of(reference, work), profiles_of(candidate, work)
        ahead = builders is not None and only is None and candidate.runner.capabilities.builds_apart
        self._engines = EnginesAhead.of(builders, candidate, steps, work) if builders is not None and ahead else None
        self._background = ThreadPoolExecutor(1) if self._engines is not None else None
        able = reference.runner.capabilities.opens_ahead or candidate.runner.capabilities.opens_ahead
        small = weight_bytes((reference, candidate)) <= budget
        self._pool = ThreadPoolExecutor(1) if able and len(steps) > 1 and small else None
        self._closes = reference.runner.capabilities.opens_ahead and candidate.runner.capabilities.opens_ahead
        self._ahead: tuple[StepSessions, Future[None]] | None = None
        self._closing: Future[None] | None = None
        self._stack = ExitStack()
        self._whole: Session | None = None
        self._now: StepSessions | None = None

    def __iter__(self) -> Iterator[tuple[PiecePair, StepSessions]]:
        for position, step in enumerate(self.steps):
            self._now = self._taken(step)
            self._now.begin(self.candidate)
            if self._pool is not None and position + 1 < len(self.steps):
                later = self._of(self.steps[position + 1])
                self._ahead = (later, self._pool.submit(later.open_ahead))
            yield step, self._now
            self._done(self._now)
            self._now = None

    def _done(self, sessions: StepSessions) -> None:
        self.candidate = sessions.timed
        if self._closing is not None:
            self._closing.result()
        if self._pool is not None and self._closes:
            self._closing = self._pool.submit(sessions.close)
        else:
            sessions.close()

    def _taken(self, step: PiecePair) -> StepSessions:
        if self._ahead is None:
            return self._of(step)
        sessions, future = self._ahead
        self._ahead = None
        future.result()
        return sessions

    def _of(self, step: PiecePair) -> StepSessions:
        sessions = StepSessions(
            self.reference,
            self.candidate,
            step,
            self._opened_whole,
            self._profiles,
            self.only,
            self._engines,
            self._alike,
        )
        if self._background is not None:
            sessions.open_engines(self._background)
        return sessions

    def _opened_whole(self) -> Session:
        """The candidate on its whole network, where it opens no pieces."""
        if self._whole is None:
            self._whole = self._stack.enter_context(self.candidate.runner.session(self.candidate.model))
        return self._whole

    def __enter__(self) -> SessionsAhead:
        # what the background thread reads has to be there before it starts
        for side in (self.reference, self.candidate):
            _ = side.model.index.specs, side.model.index.names
        return self

    def __exit__(self, *exc: object) -> None:
        if self._background is not None:
            self._background.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if self._ahead is not None:
            self._ahead[0].close()
        if self._now is not None:
            self._now.close()
        if self._closing is not None:
            self._closing.result()
        self._stack.close()


def _one_program(reference: Side, candidate: Side, step: PiecePair, tensors: Mapping[str, str]) -> bool:
    """Whether both sides run one program on a piece, under the same names at its border. Of one model they are one
    session already, or differ in what runs it."""
    mine, theirs = step.reference, step.candidate
    if reference.runner != candidate.runner or not reference.runner.capabilities.opens_ahead:
        return False
    if {*mine.inputs} != {*theirs.inputs} or {*mine.outputs} != {*theirs.outputs}:
        return False
    named = all(tensors.get(name, name) == name for name in (*mine.inputs, *mine.outputs))
    return named and one_program(reference.model.index, mine.nodes, candidate.model.index, theirs.nodes, tensors)


def _joins(side: Side, part: Slice) -> bool:
    """Whether a piece and its layers are run by one session, which rounds and holds weights once: of an emulation.

    Quantized weights that two nodes read are no longer fused with either, which would be another program.
    """
    runner, index = side.runner, side.model.index
    quantized = any(operator(index.nodes[p]) in QUANTIZERS for p in part.nodes)
    return runner.narrows and runner.capabilities.opens_ahead and bool(part.outputs) and not quantized


def _declared(model: Model, names: Sequence[str]) -> dict[str, TensorSpec] | None:
    """The types that a graph declares or implies for tensors, shapes left open; None if one of them has none."""
    known = {n: model.index.specs.get(original_name(n)) for n in names}
    if not all(known.values()):
        return None
    return {n: TensorSpec(n, s.dtype, s.shape and (None,) * len(s.shape)) for n, s in known.items() if s is not None}
