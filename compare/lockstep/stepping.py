"""The bodies of If, Loop and Scan as programs: what they are given, and how a loop is run one iteration at a time.

A body of the candidate has the names of the reference's where they correspond: its inputs and outputs by their
position, what it captures as the graphs around it do. Both then read the same feed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ...graph.cutting.extract import empty_like, enter
from ...graph.cutting.slices import Slice, backward, renamed, slice_model
from ...graph.errors import LayerdiffError, ModelError
from ...graph.nodes import attribute_int, attribute_ints, captured
from ...graph.operators import is_standard
from ...graph.specs import TensorSpec, cast, is_float, specs_of
from ...runners.contract.workload import Workload

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...runners.contract.runner import Runner
    from ...runners.contract.session import Session
    from ..sides import Side

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

ITERATIONS = 8
"""Most iterations of a loop that are looked into."""
STEPS = 10_000
"""Most iterations of a loop that are stepped through to find those."""
ONSET = 0.1
"""Share of the greatest error of an iteration from which on the error is said to have begun."""


@dataclass(frozen=True)
class Node:
    """An If, Loop or Scan, and what it is given.

    Attributes:
        arguments: Its inputs by position; None where one is left out.
        outer: What its bodies capture, by name in the graph around it. Weights are not among them.
    """

    model: Model
    position: int
    arguments: tuple[np.ndarray | None, ...]
    outer: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, side: Side, part: Slice, position: int, feed: Mapping[str, np.ndarray]) -> Node:
        """Finds out what a node of a layer is given, from the layer's inputs.

        Raises:
            LayerdiffError: That cannot be computed.
        """
        index = side.model.index
        node = index.nodes[position]
        bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        outer = dict.fromkeys(n for body in bodies for n in captured(body) if n not in index.initializers)
        found = computed(side, part, [*(n for n in node.input if n), *outer], feed)
        arguments = tuple(found[n] if n else None for n in node.input)
        return cls(side.model, position, arguments, {n: found[n] for n in outer})

    @property
    def proto(self) -> onnx.NodeProto:
        """The node itself."""
        return self.model.index.nodes[self.position]

    @property
    def op(self) -> str:
        """Its operator."""
        return self.proto.op_type

    @property
    def name(self) -> str:
        """Its name in the report."""
        return self.model.index.names[self.position]


def computed(side: Side, part: Slice, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> Arrays:
    """Tensors inside a layer, from what it reads. Constants, shapes and integers are computed anew inside."""
    index = side.model.index
    found = {n: feed[n] for n in names if n in feed}
    for name in names:
        if name not in found and (weight := index.weight(name)) is not None:
            found[name] = np.asarray(weight)
    missing = list(dict.fromkeys(n for n in names if n not in found))
    if missing:
        inner = backward(index, missing, set(part.inputs))
        given = {n: feed[n] for n in inner.inputs}
        with side.runner.session(slice_model(side.model, inner, specs_of(given))) as session:
            found.update(session.infer(given, missing))
    for name, value in found.items():
        if not isinstance(value, np.ndarray):
            raise ModelError(f"{name!r} is no tensor.")
    return found


@dataclass(frozen=True)
class Program:
    """A body to be run one iteration at a time.

    Attributes:
        node: The node around it.
        model: The body; what it captures is among its inputs.
        formal: Its own inputs, by position.
        results: Its outputs, by position. A name may stand there twice, or be that of an input.
        captured: What it captures, by the names of its inputs.
        extra: Of that, what has no counterpart in the reference.
        made: The part of the body that makes the results.
    """

    node: Node
    model: Model
    formal: tuple[str, ...]
    results: tuple[str, ...]
    captured: Mapping[str, np.ndarray]
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node, body: str, like: Program | None = None, back: Mapping[str, str] | None = None) -> Program:
        """The body of a node.

        Args:
            node: The node.
            body: Name of the attribute.
            like: The reference's body, whose names the inputs and outputs of this one get: they correspond by
                position, and what is captured as the graphs around do.
            back: Tensors of this graph -> tensors of the reference's graph.
        """
        (graph,) = (a.g for a in node.proto.attribute if a.name == body)
        formal = tuple(i.name for i in graph.input)
        results = tuple(o.name for o in graph.output)
        declared = {i.name: i.type.tensor_type.elem_type for i in graph.input if i.type.HasField("tensor_type")}
        specs = specs_of(node.outer)
        for name, value in zip(formal, _first_values(node, len(formal)), strict=True):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(declared[name]) if declared.get(name) else value.dtype
            specs[name] = TensorSpec(name, np.dtype(dtype), (None,) * value.ndim)
        model, copies = _without_copies(enter(node.model, node.position, specs)[body])
        results = tuple(copies.get(n, n) for n in results)
        outer = {n: v for n, v in node.outer.items() if n in model.index.inputs}
        if like is None:
            return cls(node, model, formal, results, outer)
        theirs = set(like.captured)
        pairs = [*zip(formal, like.formal, strict=False), *zip(results, like.results, strict=False)]
        pairs += [(n, (back or {})[n]) for n in outer if (back or {}).get(n) in theirs]
        mapping: dict[str, str] = {}
        for name, other in pairs:
            if name not in mapping and other not in mapping.values():
                mapping[name] = other
        model, mapping = _renamed(model, mapping)
        known = {mapping.get(n, n): v for n, v in outer.items()}
        return cls(
            node,
            model,
            tuple(mapping.get(n, n) for n in formal),
            tuple(mapping.get(n, n) for n in results),
            known,
            {n: v for n, v in known.items() if n not in theirs},
        )

    @property
    def made(self) -> list[str]:
        """The results that a node of the body makes, each once."""
        return list(dict.fromkeys(n for n in self.results if n in self.model.index.producer))

    def outputs(self, feed: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The body's outputs by position, also those that are handed through."""
        return [self._value(name, feed, made) for name in self.results]

    def _value(self, name: str, feed: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> np.ndarray:
        for known in (made, feed, self.captured):
            if name in known:
                return known[name]
        weight = self.model.index.weight(name)
        assert weight is not None
        return np.asarray(weight)


def _first_values(node: Node, count: int) -> list[np.ndarray]:
    """What the first iteration is given, for its types."""
    if node.op == "If":
        return []
    if node.op == "Loop":
        states = [np.asarray(a) for a in node.arguments[2:]]
        return [np.asarray(0, np.int64), np.asarray(True), *states][:count]
    slices = _sequences(node)
    states = [np.asarray(a) for a in node.arguments[: len(node.arguments) - len(slices)]]
    empty = [np.zeros(tuple(np.delete(s.shape, axis)), s.dtype) for s, axis, _ in slices]
    return [*states, *empty]


def _sequences(node: Node) -> list[tuple[np.ndarray, int, bool]]:
    """What a Scan runs over: values, axis, whether backwards.

    Raises:
        LayerdiffError: It is one of opset 8, whose states and sequences have a batch axis.
    """
    if node.model.index.opset.get("", 9) < 9:
        raise LayerdiffError("Scan of opset 8 is not stepped through.")
    count = attribute_int(node.proto, "num_scan_inputs", 1)
    arrays = [np.asarray(a) for a in node.arguments[len(node.arguments) - count :]]
    axes, directions = (
        attribute_ints(node.proto, name) or [0] * count for name in ("scan_input_axes", "scan_input_directions")
    )
    return [(a, axis % a.ndim, bool(d)) for a, axis, d in zip(arrays, axes, directions, strict=True)]


def _without_copies(model: Model) -> tuple[Model, dict[str, str]]:
    """A body without Identity nodes. Of two results that are one value, each exporter makes the one it likes and copies
    the other; without copies both are the same tensor on both sides.

    Returns:
        The model, and what each copy is of.
    """
    index = model.index
    copies: dict[str, str] = {}
    for node in index.nodes:
        if node.op_type == "Identity" and is_standard(node):
            copies[node.output[0]] = copies.get(node.input[0], node.input[0])
    if not copies:
        return model, {}
    proto = empty_like(index.proto)
    proto.graph.CopyFrom(index.graph)
    graph = proto.graph
    kept = [node for node in index.nodes if node.op_type != "Identity" or node.output[0] not in copies]
    del graph.node[:]
    graph.node.extend(renamed(node, copies, node.name) for node in kept)
    outputs = {copies.get(info.name, info.name): info for info in index.graph.output}
    del graph.output[:]
    for name, info in outputs.items():
        graph.output.add().CopyFrom(info)
        graph.output[-1].name = name
    return model.derive(proto), copies


def _renamed(model: Model, mapping: Mapping[str, str]) -> tuple[Model, dict[str, str]]:
    """A body under other names. What stands in the way of one gets a new name itself.

    Returns:
        The model, and all names that changed.
    """
    changed = {name: other for name, other in mapping.items() if name != other}
    if not changed:
        return model, {}
    index = model.index
    names = {*index.inputs, *index.initializers, *index.producer}
    taken = names | set(changed.values())
    for name in sorted(names & set(changed.values()) - set(changed)):
        fresh = f"{name}~"
        while fresh in taken:
            fresh += "~"
        taken.add(fresh)
        changed[name] = fresh
    proto = empty_like(index.proto)
    proto.graph.CopyFrom(index.graph)
    graph = proto.graph
    nodes = [renamed(node, changed, node.name) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for items in (graph.input, graph.output, graph.value_info, graph.initializer):
        for item in items:
            item.name = changed.get(item.name, item.name)
    for tensor in graph.sparse_initializer:
        tensor.values.name = changed.get(tensor.values.name, tensor.values.name)
    return model.derive(proto), changed


# ---- running them ---------------------------------------------------------------------------------------------------


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
            self.sequences = _sequences(node)
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
        count: Iterations of the reference.
        theirs: Iterations of the candidate on its own state; as far as it came.
        total: Relative L2 error of what the loop returns, when the candidate runs on its own state.
        cut: The loop is longer than what was stepped through.
        followed: The candidate could be run to the end on its own state.
    """

    errors: list[float] = field(default_factory=list)
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
        trace.errors.append(difference(outputs, theirs))
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
    return max((relative(*squares(y, c)) for y, c in zip(ours, theirs, strict=False)), default=0.0)
