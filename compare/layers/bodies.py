"""Into If, Loop and Scan: a layer that is one from outside is entered, and the node inside it is what gets blamed.

The body is a model of its own, and its iterations are samples. The reference steps through them with the state that it
carries itself; the candidate's body is run on the same state, so that what each iteration does wrong is seen apart
from what it inherits. A few iterations are then localized by the very machinery that the whole model is: the first,
those around where the error begins, the worst, and some in between. The candidate also steps through on its own state,
which shows whether it makes as many iterations, and whether what they do explains the error of the layer as a whole.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx

from ...dataloaders.base import Samples
from ...graph.errors import LayerdiffError
from ...graph.index import attribute, captured
from ...graph.pieces import dataflow, empty_like, enter, random_nodes
from ...graph.slices import Slice, backward, renamed, slice_model
from ...graph.specs import TensorSpec, is_float
from ...runners.base import Workload
from ..progress import SILENT
from ..report.model import Enclosing
from .contribution import cast
from .memory import budget
from .noise import specs_of

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.model import Model
    from ...runners.base import Runner, Session
    from ..context import Context
    from ..parties import Party
    from ..report.model import Culprit, LayerResult
    from .units import Unit

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

CONTROL = frozenset({"If", "Loop", "Scan"})
"""Operators that have bodies."""
ITERATIONS = 8
"""Most iterations of a loop that are looked into."""
STEPS = 10_000
"""Most iterations of a loop that are stepped through to find those."""
ONSET = 0.1
"""Share of the greatest error of an iteration from which on the error is said to have begun."""
EXPLAINED = 0.25
"""Share of the layer's error that its iterations must come to, one by one, for them to explain it."""
_WAYS = ("scan_input_directions", "scan_output_directions", "scan_input_axes", "scan_output_axes")
SWAPPED = 1e-3
"""Share of the error of the branch that is taken which the other one may make to be what was meant."""


@dataclass(frozen=True)
class Entered:
    """What was found inside a layer.

    Attributes:
        culprits, layers: As in the report, with where they are.
        clean: Nothing inside is beyond its expected noise, and what the iterations make explains the layer's error.
        cause, evidence: What is wrong with the layer itself, where that was seen: a branch, the number of iterations.
        remark: Why it was not entered, or what was seen; a clause for the evidence of the layer as a whole.
    """

    culprits: tuple[Culprit, ...] = ()
    layers: tuple[LayerResult, ...] = ()
    clean: bool = False
    cause: str | None = None
    evidence: str = ""
    remark: str = ""


class Found(Protocol):
    """What localizing a body gives."""

    layers: list[LayerResult]
    culprits: list[Culprit]


Localize = Callable[["Context", "Party", Mapping[str, str]], Found]
"""Localizes a candidate in a context. The mapping is from a state that an iteration reads to what the one before it
made it."""


class Bodies:
    """Enters the layers of one walk.

    Args:
        context: What is compared.
        candidate: Who is judged.
        matched: Tensors of the reference -> tensors of the candidate.
        localize: See `Localize`.

    Attributes:
        found: What was found, by number of the layer.
    """

    def __init__(self, context: Context, candidate: Party, matched: Mapping[str, str], localize: Localize) -> None:
        self.context = context
        self.reference = context.reference
        self.candidate = candidate
        self.back = {other: name for name, other in matched.items()}
        self.localize = localize
        self.found: dict[int, Entered] = {}

    def enter(self, unit: Unit, values: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> Entered | None:
        """Looks inside a layer, on one sample.

        Args:
            unit: The layer.
            values: The reference's tensors: the layer's inputs and outputs.
            made: The candidate's outputs from the same inputs, by the candidate's names.

        Returns:
            None for a layer without bodies. A culprit that was found on an earlier sample stays the answer.
        """
        mine, theirs = (_control(p.model.index, s) for p, s in self._sides(unit))
        if not mine:
            return None
        before = self.found.get(unit.number)
        if before is not None and before.culprits:
            return before
        try:
            self.found[unit.number] = self._enter(unit, mine, theirs, values, made)
        except LayerdiffError as error:
            log.debug("cannot enter %s: %s", unit.reference.outputs, error)
            self.found[unit.number] = Entered(remark=f"its body was not entered: {error}")
        return self.found[unit.number]

    def _sides(self, unit: Unit) -> tuple[tuple[Party, Slice], tuple[Party, Slice]]:
        return (self.reference, unit.reference), (self.candidate, unit.candidate)

    def _enter(
        self, unit: Unit, mine: list[int], theirs: list[int], values: Mapping[str, np.ndarray], made: Mapping[str, Any]
    ) -> Entered:
        for party in (self.reference, self.candidate):
            if not party.runner.opens_pieces:
                return Entered(remark=f"its body was not entered: {party.name} runs whole models only")
        operators = [
            [p.model.index.nodes[n].op_type for n in nodes]
            for p, nodes in ((self.reference, mine), (self.candidate, theirs))
        ]
        if operators[0] != operators[1]:
            other = ", ".join(operators[1]) or "other operators"
            return Entered(remark=f"its body was not entered: the candidate computes it with {other}")
        # what the unit's own inputs are for the candidate
        index = self.candidate.model.index
        feed = {n: cast(values[self.back.get(n, n)], index.specs.get(n)) for n in unit.candidate.inputs}
        parts = [
            self._inside(unit, p, q, values, feed, made if len(mine) == 1 else None)
            for p, q in zip(mine, theirs, strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        return Entered(
            tuple(c for part in parts for c in part.culprits),
            tuple(layer for part in parts for layer in part.layers),
            all(part.clean for part in parts),
            remark="; ".join(part.remark for part in parts if part.remark),
        )

    # -- one node -----------------------------------------------------------------------------------------------

    def _inside(
        self,
        unit: Unit,
        mine: int,
        theirs: int,
        values: Mapping[str, np.ndarray],
        feed: Mapping[str, np.ndarray],
        made: Mapping[str, np.ndarray] | None,
    ) -> Entered:
        ours = _Node.of(self.reference, unit.reference, mine, values)
        other = _Node.of(self.candidate, unit.candidate, theirs, feed)
        if ours.op == "If":
            return self._branch(ours, other)
        left = _Program.of(ours, "body")
        right = left if self._same else _Program.of(other, "body", left, self.back)
        if random_nodes(left.model.index):
            return Entered(remark="its body was not entered: it draws random values")
        with ExitStack() as stack:
            sessions = _Sessions(stack, self.reference.runner, _plain(self.candidate.runner), left, right)
            trace = _trace(left, dataclasses.replace(right, node=other), sessions)
            if not trace.errors:
                what = f"{trace.theirs:,} of the candidate" if trace.theirs else "none of the candidate either"
                return Entered(remark=f"no iteration of the reference was made, {what}")
            picks = trace.picks()
            samples = [
                {**f, **right.extra} for i, f in _feeds(left, sessions, last=max(picks)) if i in picks
            ]  # a second time: the states of all iterations would not fit in memory
        where = Enclosing(
            node=ours.name, op=ours.op, body="body", iterations=trace.count, looked_at=len(picks), begins=trace.onset
        )
        found = self._localized(left, right, samples, where)
        if found.culprits:
            return found
        if trace.theirs != trace.count:
            counts = f"the candidate makes {trace.theirs:,} iterations, the reference {trace.count:,}"
            differs = self._given(ours, other, left, right)
            if differs:
                return dataclasses.replace(found, remark=f"{counts}: {differs}")
            text = f"from the same inputs {counts}: rounding decides when to stop, no node inside is beyond it"
            return dataclasses.replace(found, cause="unknown", evidence=text)
        whole = None if made is None else _errors_of(unit, values, made)
        explained = whole is None or trace.total >= EXPLAINED * whole
        looked = f"{len(picks):,} of {trace.count:,} iterations were looked into"
        why = self._given(ours, other, left, right)
        if explained and not why and not trace.cut and trace.followed:
            return dataclasses.replace(found, clean=True, remark=looked)
        why = why or "no node inside is beyond rounding"
        return dataclasses.replace(found, remark=f"{why}; {looked}")

    def _given(self, ours: _Node, other: _Node, left: _Program, right: _Program) -> str:
        """What the two loops are given that is not the same, or that they take in another way."""
        u = self.candidate.runner.arithmetic.u
        limit = 4 * (u if math.isfinite(u) else 1e-2)
        for number, (a, b) in enumerate(zip(ours.arguments, other.arguments, strict=False)):
            if (a is None) != (b is None):
                return f"its input {number} is left out on one side"
            if a is not None and b is not None and _relative(*_squares(a, b)) > limit:
                shown = f": {a.reshape(-1)[0]} against {b.reshape(-1)[0]}" if a.size == b.size == 1 else ""
                return f"its input {number} differs{shown}"
        for name in left.captured.keys() & right.captured.keys():
            if _relative(*_squares(left.captured[name], right.captured[name])) > limit:
                return f"what it captures differs: {name!r}"
        for name in _WAYS if ours.op == "Scan" else ():
            one, two = (_numbers(node, name) for node in (ours, other))
            if one != two:
                return f"{name} {one or 'zeros'} against {two or 'zeros'}"
        return ""

    def _branch(self, ours: _Node, other: _Node) -> Entered:
        conditions = [bool(np.asarray(n.arguments[0]).reshape(-1)[0]) for n in (ours, other)]
        names = ["then_branch" if c else "else_branch" for c in conditions]
        if names[0] != names[1]:
            text = f"given the same values the candidate takes its {names[1]}, the reference its {names[0]}"
            return Entered(cause="wrong-op", evidence=text)
        left = _Program.of(ours, names[0])
        right = left if self._same else _Program.of(other, names[0], left, self.back)
        feed = dict(left.captured)
        with ExitStack() as stack:
            sessions = _Sessions(stack, self.reference.runner, _plain(self.candidate.runner), left, right)
            expected = left.outputs(feed, sessions.reference(feed))
            error = _difference(expected, right.outputs(feed, sessions.candidate({**feed, **right.extra})))
        if error and not self._same:
            swapped = self._swapped(ours, other, names[0], expected, error)
            if swapped:
                return Entered(cause="wrong-op", evidence=swapped)
        where = Enclosing(node=ours.name, op=ours.op, body=names[0])
        found = self._localized(left, right, [{**feed, **right.extra}], where)
        return found if found.culprits else dataclasses.replace(found, clean=True)

    def _swapped(self, ours: _Node, other: _Node, name: str, expected: Sequence[np.ndarray], error: float) -> str:
        """Whether the candidate's other branch is what the reference's is."""
        opposite = "else_branch" if name == "then_branch" else "then_branch"
        try:
            program = _Program.of(other, opposite)
            with ExitStack() as stack:
                session = _Lazy(stack, _plain(self.candidate.runner), program)
                found = program.outputs(program.captured, session(program.captured))
        except LayerdiffError as failure:
            log.debug("no %s of %s: %s", opposite, ours.name, failure)
            return ""
        if _difference(expected, found) > SWAPPED * min(error, 1.0):
            return ""
        return f"the candidate's {opposite} gives what the reference's {name} does: its branches are exchanged"

    @property
    def _same(self) -> bool:
        return self.candidate.model is self.reference.model

    def _localized(self, left: _Program, right: _Program, samples: list[Arrays], where: Enclosing) -> Entered:
        if not left.made:
            return Entered(remark="its body computes nothing")
        context = dataclasses.replace(
            self.context,
            reference=dataclasses.replace(self.reference, model=left.model),
            samples=_Iterations(samples),
            workload=Workload(samples=lambda: iter(samples)),
            settings=dataclasses.replace(self.context.settings, memory=budget(self.context.settings.memory) // 4),
            progress=SILENT,
        )
        candidate = dataclasses.replace(self.candidate, runner=_plain(self.candidate.runner), model=right.model)
        context = dataclasses.replace(context, candidates=(candidate,))
        carried = dict(zip(left.formal, left.results, strict=False)) if left.node.op == "Scan" else {}
        if left.node.op == "Loop":
            carried = dict(zip(left.formal[2:], left.results[1:], strict=False))
        found = self.localize(context, candidate, carried)
        return Entered(
            tuple(dataclasses.replace(c, inside=(where, *c.inside)) for c in found.culprits),
            tuple(dataclasses.replace(layer, inside=(where, *layer.inside)) for layer in found.layers),
        )


def _numbers(node: _Node, name: str) -> list[int]:
    """An attribute that is a list; empty where all of it is zero, which is the default."""
    value = attribute(node.proto, name, None)
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    return numbers if any(numbers) else []


def _control(index: GraphIndex, part: Slice) -> list[int]:
    """The nodes with bodies that make values of a layer, in order."""
    flow = dataflow(index)
    return [
        p
        for p in part.nodes
        if index.nodes[p].op_type in CONTROL
        and index.nodes[p].domain in ("", "ai.onnx")
        and any(o and not flow.recomputed(o) for o in index.nodes[p].output)
    ]


def _plain(runner: Runner) -> Runner:
    """A runner for bodies. In a body, emulation has no scales of activations."""
    if hasattr(runner, "ranges") and hasattr(runner, "calibrated"):
        return dataclasses.replace(runner, ranges=())  # type: ignore[call-arg]
    return runner


class _Iterations(Samples):
    """What the picked iterations are given."""

    description = "iterations of a loop"

    def __init__(self, feeds: list[Arrays]) -> None:
        self.count = len(feeds)
        self._feeds = feeds

    def __iter__(self) -> Iterator[Arrays]:
        return iter(self._feeds)


# ---- bodies as programs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Node:
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
    def of(cls, party: Party, part: Slice, position: int, feed: Mapping[str, np.ndarray]) -> _Node:
        """Finds out what a node of a layer is given, from the layer's inputs.

        Raises:
            LayerdiffError: That cannot be computed.
        """
        index = party.model.index
        node = index.nodes[position]
        bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        outer = dict.fromkeys(n for body in bodies for n in captured(body) if n not in index.initializers)
        found = _computed(party, part, [*(n for n in node.input if n), *outer], feed)
        arguments = tuple(found[n] if n else None for n in node.input)
        return cls(party.model, position, arguments, {n: found[n] for n in outer})

    @property
    def proto(self) -> onnx.NodeProto:
        return self.model.index.nodes[self.position]

    @property
    def op(self) -> str:
        return self.proto.op_type

    @property
    def name(self) -> str:
        return self.model.index.names[self.position]


def _computed(party: Party, part: Slice, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> Arrays:
    """Tensors inside a layer, from what it reads. Constants, shapes and integers are computed anew inside."""
    index = party.model.index
    found = {n: feed[n] for n in names if n in feed}
    for name in names:
        if name not in found and (weight := index.weight(name)) is not None:
            found[name] = np.asarray(weight)
    missing = list(dict.fromkeys(n for n in names if n not in found))
    if missing:
        inner = backward(index, missing, set(part.inputs))
        given = {n: feed[n] for n in inner.inputs}
        with party.runner.open(slice_model(party.model, inner, specs_of(given))) as session:
            found.update(session.infer(given, missing))
    return found


@dataclass(frozen=True)
class _Program:
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

    node: _Node
    model: Model
    formal: tuple[str, ...]
    results: tuple[str, ...]
    captured: Mapping[str, np.ndarray]
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls, node: _Node, body: str, like: _Program | None = None, back: Mapping[str, str] | None = None
    ) -> _Program:
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
        model = enter(node.model, node.position, specs)[body]
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


def _first_values(node: _Node, count: int) -> list[np.ndarray]:
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


def _sequences(node: _Node) -> list[tuple[np.ndarray, int, bool]]:
    """What a Scan runs over: values, axis, whether backwards.

    Raises:
        LayerdiffError: It is one of opset 8, whose states and sequences have a batch axis.
    """
    if node.model.index.opset.get("", 9) < 9:
        raise LayerdiffError("Scan of opset 8 is not stepped through.")
    count = int(attribute(node.proto, "num_scan_inputs", 1))  # type: ignore[call-overload]
    arrays = [np.asarray(a) for a in node.arguments[len(node.arguments) - count :]]
    axes, directions = (
        list(attribute(node.proto, name, None) or [0] * count)  # type: ignore[call-overload]
        for name in ("scan_input_axes", "scan_input_directions")
    )
    return [(a, axis % a.ndim, bool(d)) for a, axis, d in zip(arrays, axes, directions, strict=True)]


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

    def __init__(self, program: _Program) -> None:
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


class _Lazy:
    """A session on a body, opened when the types of its inputs are known."""

    def __init__(self, stack: ExitStack, runner: Runner, program: _Program) -> None:
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
            self._session = self._stack.enter_context(self._runner.open(model, workload=workload))
        return self._session.infer(given, self._part.outputs)


class _Sessions:
    """The bodies of both sides."""

    def __init__(self, stack: ExitStack, reference: Runner, candidate: Runner, left: _Program, right: _Program) -> None:
        self.reference = _Lazy(stack, reference, left)
        self.candidate = _Lazy(stack, candidate, right)


def _feeds(program: _Program, sessions: _Sessions, last: int) -> Iterator[tuple[int, Arrays]]:
    """What each iteration of the reference is given, up to ``last``."""
    steps = _Steps(program)
    while (feed := steps.feed()) is not None:
        yield steps.count, feed
        if steps.count == last:
            return
        steps.advance(program.outputs(feed, sessions.reference(feed)))


@dataclass
class _Trace:
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


def _trace(left: _Program, right: _Program, sessions: _Sessions) -> _Trace:
    """Steps through a loop: the reference, the candidate on the reference's state, the candidate on its own."""
    trace = _Trace()
    ours, own = _Steps(left), _Steps(right)
    scans: list[list[float]] = []
    while (feed := ours.feed()) is not None:
        if ours.count == STEPS:
            trace.cut = True
            break
        outputs = left.outputs(feed, sessions.reference(feed))
        theirs = right.outputs(feed, sessions.candidate({**feed, **right.extra}))
        trace.errors.append(_difference(outputs, theirs))
        mine = ours.advance(outputs)
        free = _advance(trace, own, right, sessions)
        for number, (y, c) in enumerate(zip(mine, free, strict=False)):
            if number == len(scans):
                scans.append([0.0, 0.0])
            squared = _squares(y, c)
            scans[number] = [scans[number][0] + squared[0], scans[number][1] + squared[1]]
    trace.count = len(trace.errors)
    for _ in range(max(trace.count, 16)):  # of a loop that goes on and on it is enough to know that it does
        if trace.cut or not trace.followed or own.feed() is None:
            break
        _advance(trace, own, right, sessions)
    trace.theirs = own.count
    pairs = [_squares(y, c) for y, c in zip(ours.states, own.states, strict=False)]
    trace.total = max((_relative(e, p) for e, p in [*pairs, *scans]), default=0.0)
    return trace


def _advance(trace: _Trace, own: _Steps, right: _Program, sessions: _Sessions) -> list[np.ndarray]:
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


def _squares(y: np.ndarray, c: np.ndarray) -> tuple[float, float]:
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


def _relative(error: float, power: float) -> float:
    return math.sqrt(error / power) if power and math.isfinite(error) else (math.inf if error == math.inf else error)


def _difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The greatest relative L2 error of some outputs."""
    return max((_relative(*_squares(y, c)) for y, c in zip(ours, theirs, strict=False)), default=0.0)


def _errors_of(unit: Unit, values: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> float:
    pairs = zip(unit.reference.outputs, unit.candidate.outputs, strict=True)
    return _difference(*zip(*[(values[n], made[o]) for n, o in pairs], strict=True))
