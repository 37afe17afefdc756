"""Loops and Scans, one iteration at a time: the reference, the candidate on its state, the candidate on its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.cutting.slices import backward, slice_model
from ...graph.errors import LayerdiffError
from ...graph.specs import Arrays, cast, is_float, specs_of
from ...runners.contract.workload import Workload
from .programs import Program, sequences

if TYPE_CHECKING:
    from ...runners.contract.runner import Runner
    from ...runners.contract.session import Session

log = logging.getLogger(__name__)

ITERATIONS = 8
"""Most iterations of a loop that are looked into."""
STEPS = 10_000
"""Most iterations of a loop that are stepped through to find those."""
ONSET = 0.1
"""Share of the greatest error of an iteration from which on the error is said to have begun."""


class _Steps:
    """A Loop or Scan that is run one iteration at a time."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.count = 0
        node = program.node
        self.trip: int | None = None
        self.go = True
        self.sequences: list[tuple[np.ndarray, int, bool]] = []
        if node.op == "Loop":
            first = [*node.arguments[:2], None, None]
            self.trip = None if first[0] is None else int(np.asarray(first[0]).reshape(-1)[0])
            self.go = first[1] is None or bool(np.asarray(first[1]).reshape(-1)[0])
            states = node.arguments[2:]
        else:
            self.sequences = sequences(node)
            self.trip = self.sequences[0][0].shape[self.sequences[0][1]]
            states = node.arguments[: len(node.arguments) - len(self.sequences)]
        specs = program.model.index.specs
        names = program.formal[2:] if node.op == "Loop" else program.formal
        self.states = [cast(np.asarray(a), specs.get(n)) for n, a in zip(names, states, strict=False)]

    def feed(self) -> Arrays | None:
        """What the next iteration is given; None where there is none."""
        if not self.go or (self.trip is not None and self.count >= self.trip):
            return None
        formal = self.program.formal
        if self.program.node.op == "Loop":
            own = [self._counter(formal[0], self.count, np.int64), self._counter(formal[1], True, np.bool_)]
            own += self.states
        else:
            own = list(self.states)
            for array, axis, backwards in self.sequences:
                at = array.shape[axis] - 1 - self.count if backwards else self.count
                own.append(np.take(array, at, axis))
        return {**self.program.captured, **dict(zip(formal, own, strict=True))}

    def _counter(self, name: str, value: Any, dtype: Any) -> np.ndarray:
        """The number of the iteration or the condition: a scalar, or a vector of one where the body says so."""
        spec = self.program.model.index.specs.get(name)
        return np.full(() if spec is None or not spec.shape else (1,), value, dtype)

    def advance(self, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Takes what an iteration made. Returns what it adds to scan outputs."""
        self.count += 1
        if self.program.node.op == "Loop":
            self.go = bool(np.asarray(outputs[0]).reshape(-1)[0])
            outputs = outputs[1:]
        number = len(self.states)
        self.states = list(outputs[:number])
        return list(outputs[number:])


class BodySession:
    """A session on a body, opened when the types of its inputs are known."""

    def __init__(self, stack: ExitStack, runner: Runner, program: Program) -> None:
        self._stack, self._runner, self._program = stack, runner, program
        self._session: Session | None = None
        self._part = backward(program.model.index, program.made, ()) if program.made else None

    def __call__(self, feed: Mapping[str, np.ndarray]) -> Arrays:
        """The results that nodes make, from what one iteration is given."""
        if self._part is None:
            return {}
        specs = self._program.model.index.specs
        given = {n: cast(feed[n], specs.get(n)) for n in self._part.inputs}
        if self._session is None:
            model = slice_model(self._program.model, self._part, specs_of(given))
            workload = Workload(samples=lambda: iter([given]))
            self._session = self._stack.enter_context(self._runner.session(model, workload=workload))
        return self._session.infer(given, self._part.outputs)


class Sessions:
    """The bodies of both sides."""

    def __init__(self, stack: ExitStack, reference: Runner, candidate: Runner, left: Program, right: Program) -> None:
        self.reference = BodySession(stack, reference, left)
        self.candidate = BodySession(stack, candidate, right)


def feeds(program: Program, sessions: Sessions, last: int) -> Iterator[tuple[int, Arrays]]:
    """What each iteration of the reference is given, up to ``last``."""
    steps = _Steps(program)
    while (feed := steps.feed()) is not None:
        yield steps.count, feed
        if steps.count == last:
            return
        steps.advance(program.outputs(feed, sessions.reference(feed)))


@dataclass
class Trace:
    """How a loop went.

    Attributes:
        errors: What each iteration did wrong that was given the reference's state: relative L2 error of its outputs, or
            infinity where they are finite on one side only or differ in shape.
        results: The greatest error of each output of the body among all iterations, by position.
        count: Iterations of the reference.
        theirs: Iterations of the candidate on its own state; as far as it came.
        total: Relative L2 error of what the loop returns, when the candidate runs on its own state.
        cut: The loop is longer than what was stepped through.
        followed: The candidate could be run to the end on its own state.
    """

    errors: list[float] = field(default_factory=list)
    results: list[float] = field(default_factory=list)
    count: int = 0
    theirs: int = 0
    total: float = 0.0
    cut: bool = False
    followed: bool = True

    @property
    def onset(self) -> int | None:
        """The first iteration that is off."""
        worst = max(self.errors, default=0.0)
        return next((i for i, e in enumerate(self.errors) if e >= ONSET * worst), None) if worst else None

    def picks(self) -> list[int]:
        """The iterations to be looked into: none behind one that breaks the state, since those inherit it."""
        broken = next((i for i, e in enumerate(self.errors) if math.isinf(e)), None)
        end = len(self.errors) if broken is None else broken + 1
        onset = self.onset
        chosen = {0, end - 1, int(np.argmax(self.errors[:end]))}
        if onset is not None and onset < end:
            chosen |= {onset, max(onset - 1, 0)}
        for i in np.linspace(0, end - 1, ITERATIONS).round().astype(int).tolist():
            if len(chosen) < ITERATIONS:
                chosen.add(i)
        return sorted(chosen)


def trace_of(left: Program, right: Program, sessions: Sessions) -> Trace:
    """Steps through a loop: the reference, the candidate on the reference's state, the candidate on its own."""
    trace = Trace()
    ours, own = _Steps(left), _Steps(right)
    scans: list[list[float]] = []
    while (feed := ours.feed()) is not None:
        if ours.count == STEPS:
            trace.cut = True
            break
        outputs = left.outputs(feed, sessions.reference(feed))
        theirs = right.outputs(feed, sessions.candidate({**feed, **right.extra}))
        each = differences(outputs, theirs)
        trace.errors.append(max(each, default=0.0))
        trace.results = [*map(max, trace.results or each, each)]
        mine = ours.advance(outputs)
        free = _advance(trace, own, right, sessions)
        for number, (y, c) in enumerate(zip(mine, free, strict=False)):
            if number == len(scans):
                scans.append([0.0, 0.0])
            squared = squares(y, c)
            scans[number] = [scans[number][0] + squared[0], scans[number][1] + squared[1]]
    trace.count = len(trace.errors)
    for _ in range(max(trace.count, 16)):  # of a loop that goes on and on it is enough to know that it does
        if trace.cut or not trace.followed or own.feed() is None:
            break
        _advance(trace, own, right, sessions)
    trace.theirs = own.count
    pairs = [squares(y, c) for y, c in zip(ours.states, own.states, strict=False)]
    trace.total = max((relative(e, p) for e, p in [*pairs, *scans]), default=0.0)
    return trace


def _advance(trace: Trace, own: _Steps, right: Program, sessions: Sessions) -> list[np.ndarray]:
    """One iteration of the candidate on its own state."""
    feed = own.feed() if trace.followed else None
    if feed is None:
        return []
    try:
        return own.advance(right.outputs(feed, sessions.candidate(feed)))
    except LayerdiffError as error:
        log.debug("the candidate stopped in iteration %d: %s", own.count, error)
        trace.followed = False
        return []


def squares(y: np.ndarray, c: np.ndarray) -> tuple[float, float]:
    """Squared error and power. What is no number is compared element by element."""
    y, c = np.asarray(y), np.asarray(c)
    if y.shape != c.shape or not (_numeric(y) and _numeric(c)):
        return (0.0 if y.shape == c.shape and np.array_equal(y, c) else math.inf), 0.0
    a, b = y.astype(np.float64).reshape(-1), c.astype(np.float64).reshape(-1)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf, 0.0
    a, b = a[finite], b[finite]
    return float((b - a) @ (b - a)), float(a @ a)


def _numeric(x: np.ndarray) -> bool:
    return is_float(x.dtype) or x.dtype.kind in "iub"


def relative(error: float, power: float) -> float:
    """The root of their ratio; of the error alone where there is no power."""
    if not math.isfinite(error):
        return math.inf
    return math.sqrt(error / power) if power else math.sqrt(error)


def difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The greatest relative L2 error of some outputs."""
    return max(differences(ours, theirs), default=0.0)


def differences(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> list[float]:
    """The relative L2 error of each of some outputs."""
    return [relative(*squares(y, c)) for y, c in zip(ours, theirs, strict=False)]
