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
from typing import TYPE_CHECKING

import numpy as np

from ...dataloaders.base import Samples
from ...graph.cutting.dataflow import dataflow, random_nodes
from ...graph.cutting.slices import Slice
from ...graph.errors import LayerdiffError, first_line
from ...graph.formats import BY_DTYPE, FP32
from ...graph.nodes import attribute
from ...graph.operators import CONTROL_FLOW, is_standard
from ...graph.specs import Arrays, cast
from ...runners.contract.workload import Workload
from ..causes import control_flow
from ..causes.diagnosis import Diagnosis
from ..lockstep.programs import Node, Program, computed, programs
from ..lockstep.stepping import BodySession, Sessions, difference, feeds, relative, squares, trace_of
from ..report.model import Enclosing
from ..runs.memory import budget
from ..sides import Side, Sides
from .findings import BodyFindings, Localized

if TYPE_CHECKING:
    from ...graph.formats import NumberFormat
    from ...graph.index import GraphIndex
    from ...runners.contract.runner import Runner
    from ..comparison import Comparison
    from ..lockstep.plan import LayerPair

log = logging.getLogger(__name__)

EXPLAINED = 0.25
"""Share of the layer's error that its iterations must come to, one by one, for them to explain it."""
_WAYS = ("scan_input_directions", "scan_output_directions", "scan_input_axes", "scan_output_axes")
STANDS_IN = 0.01
"""Share of the candidate's error that a stand-in for the reference may make itself."""
EXCHANGED = 1e-3
"""Share of the error of the branch that is taken which the other one may make to be what was meant."""


LocalizeBody = Callable[["Comparison", "Side", Mapping[str, str]], Localized]
"""Localizes a candidate in a comparison. The mapping is from a state that an iteration reads to what the one before it
made it."""


class BodyLocalizer:
    """Enters the layers of one walk.

    Args:
        comparison: What is compared.
        candidate: Who is judged.
        matched: Tensors of the reference -> tensors of the candidate.
        localize: See `LocalizeBody`.
        stand_in: Runs the reference's graph where the reference itself runs whole models only: for the layers that it
            gives the reference's values for.
    """

    def __init__(
        self,
        comparison: Comparison,
        candidate: Side,
        matched: Mapping[str, str],
        localize: LocalizeBody,
        stand_in: Runner,
    ) -> None:
        self.comparison = comparison
        self.deployed = comparison.reference.runner
        self.reference = dataclasses.replace(comparison.reference, runner=stand_in)
        self.candidate = candidate
        self.back = {other: name for name, other in matched.items()}
        self.localize = localize
        self.found: dict[int, BodyFindings] = {}

    def entered(self, pair: LayerPair) -> bool:
        """Whether a layer was entered before."""
        return pair.number in self.found

    def enter(self, pair: LayerPair, values: Arrays, made: Arrays) -> BodyFindings | None:
        """Looks inside a layer, on one sample.

        Args:
            pair: The layer.
            values: The reference's tensors: the layer's inputs and outputs.
            made: The candidate's outputs from the same inputs, by the candidate's names.

        Returns:
            None for a layer without bodies. A culprit that was found on an earlier sample stays the answer.
        """
        mine, theirs = (_control(p.model.index, s) for p, s in self._sides(pair))
        if not mine:
            return None
        before = self.found.get(pair.number)
        if before is not None and before.culprits:
            return before
        try:
            self.found[pair.number] = self._enter(pair, mine, theirs, values, made)
        except Exception as error:  # looking inside is an extra: without it the layer stands as it is
            log.debug("cannot enter %s", pair.reference.outputs, exc_info=True)
            self.found[pair.number] = BodyFindings(remark=f"its body was not entered: {first_line(error)}")
        return self.found[pair.number]

    def _sides(self, pair: LayerPair) -> tuple[tuple[Side, Slice], tuple[Side, Slice]]:
        return (self.reference, pair.reference), (self.candidate, pair.candidate)

    def _enter(
        self,
        pair: LayerPair,
        mine: list[int],
        theirs: list[int],
        values: Arrays,
        made: Arrays,
    ) -> BodyFindings:
        if not self.deployed.capabilities.pieces and not self._stands_in(pair, values, made):
            return BodyFindings(
                remark=f"its body was not entered: {self.reference.name} runs whole models only, and its graph gives "
                f"other values elsewhere"
            )
        if not self.candidate.runner.capabilities.pieces:
            return BodyFindings(remark=f"its body was not entered: {self.candidate.name} runs its own network alone")
        operators = [
            [p.model.index.nodes[n].op_type for n in nodes]
            for p, nodes in ((self.reference, mine), (self.candidate, theirs))
        ]
        if operators[0] != operators[1]:
            other = ", ".join(operators[1]) or "other operators"
            return BodyFindings(remark=f"its body was not entered: the candidate computes it with {other}")
        # what the layer's inputs are for the candidate
        index = self.candidate.model.index
        feed = {n: cast(values[self.back.get(n, n)], index.specs.get(n)) for n in pair.candidate.inputs}
        parts = [
            self._inside(pair, p, q, values, feed, made if len(mine) == 1 else None)
            for p, q in zip(mine, theirs, strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        return BodyFindings(
            tuple(c for part in parts for c in part.culprits),
            tuple(layer for part in parts for layer in part.layers),
            all(part.clean for part in parts),
            remark="; ".join(part.remark for part in parts if part.remark),
        )

    def _stands_in(self, pair: LayerPair, values: Arrays, made: Arrays) -> bool:
        """Whether the stand-in gives the reference's values for a layer, so that its own are off by next to nothing."""
        found = computed(self.reference, pair.reference, pair.reference.outputs, _inputs(pair, values))
        expected = [values[n] for n in pair.reference.outputs]
        error = difference(expected, [found[n] for n in pair.reference.outputs])
        return error <= STANDS_IN * _errors_of(pair, values, made)

    # -- one node -----------------------------------------------------------------------------------------------

    def _inside(
        self,
        pair: LayerPair,
        mine: int,
        theirs: int,
        values: Arrays,
        feed: Arrays,
        made: Arrays | None,
    ) -> BodyFindings:
        ours = Node.of(self.reference, pair.reference, mine, values)
        other = Node.of(self.candidate, pair.candidate, theirs, feed)
        if ours.op == "If":
            return self._branch(ours, other, None if made is None else _errors_of(pair, values, made))
        left, right = self._programs(ours, other, "body")
        if random_nodes(left.model.index):
            return BodyFindings(remark="its body was not entered: it draws random values")
        with ExitStack() as stack:
            sessions = Sessions(stack, self.reference.runner, self.candidate.runner.for_bodies(), left, right)
            trace = trace_of(left, dataclasses.replace(right, node=other), sessions)
            if not trace.errors:
                what = f"{trace.theirs:,} of the candidate" if trace.theirs else "none of the candidate either"
                return BodyFindings(remark=f"no iteration of the reference was made, {what}")
            told = None if self._same else control_flow.other_result(left, right, trace.results, self._allowed())
            if told is not None:
                return BodyFindings(diagnosis=told)
            picks = trace.picks()
            samples = [
                {**f, **right.extra} for i, f in feeds(left, sessions, last=max(picks)) if i in picks
            ]  # a second time: the states of all iterations would not fit in memory
        where = Enclosing(
            node=ours.name, op=ours.op, body="body", iterations=trace.count, looked_at=len(picks), begins=trace.onset
        )
        found = self._localized(left, right, samples, where)
        if found.culprits:
            return found
        found = dataclasses.replace(found, agrees=max(trace.results, default=0.0) <= self._allowed())
        if trace.theirs != trace.count:
            iterations = control_flow.Iterations(trace.count, trace.theirs)
            differs = self._given(ours, other, left, right)
            if differs:
                return dataclasses.replace(found, remark=f"{iterations.counts}: {differs}")
            return dataclasses.replace(found, diagnosis=control_flow.stops_elsewhere(iterations))
        whole = None if made is None else _errors_of(pair, values, made)
        explained = whole is None or trace.total >= EXPLAINED * whole
        looked = f"{len(picks):,} of {trace.count:,} iterations were looked into"
        why = self._given(ours, other, left, right)
        ways = any(_numbers(ours, name) != _numbers(other, name) for name in _WAYS)
        if explained and not (why or ways) and not trace.cut and trace.followed:
            return dataclasses.replace(found, clean=True, remark=looked)
        why = why or "no node inside is beyond rounding"
        return dataclasses.replace(found, remark=f"{why}; {looked}")

    def _given(self, ours: Node, other: Node, left: Program, right: Program) -> str:
        """What the two loops are given that is not the same."""
        for number, (a, b) in enumerate(zip(ours.arguments, other.arguments, strict=False)):
            if (a is None) != (b is None):
                return f"its input {number} is left out on one side"
            if a is not None and b is not None and self._apart(a, b):
                if ours.op == "Loop" and not number:
                    return "its trip count differs"
                shown = f": {a.reshape(-1)[0]} against {b.reshape(-1)[0]}" if a.size == b.size == 1 else ""
                return f"its input {number} differs{shown}"
        for name in left.captured.keys() & right.captured.keys():
            if self._apart(left.captured[name], right.captured[name]):
                return f"what it captures differs: {name!r}"
        return ""

    def _apart(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Whether two values differ by more than rounding to the coarsest format in play."""
        return relative(*squares(a, b)) > self._allowed(*(BY_DTYPE.get(x.dtype.name, FP32) for x in (a, b)))

    def _allowed(self, *formats: NumberFormat) -> float:
        """The relative error that rounding to the coarsest of some formats, and the candidate's, may make."""
        return 4 * max(f.u if math.isfinite(f.u) else 1e-2 for f in (self.candidate.runner.arithmetic, *formats))

    def _branch(self, ours: Node, other: Node, whole: float | None) -> BodyFindings:
        conditions = [bool(np.asarray(n.arguments[0]).reshape(-1)[0]) for n in (ours, other)]
        names = ["then_branch" if c else "else_branch" for c in conditions]
        if names[0] != names[1]:
            return BodyFindings(diagnosis=control_flow.other_branch(*names))
        left, right = self._programs(ours, other, names[0])
        feed = dict(left.captured)
        with ExitStack() as stack:
            sessions = Sessions(stack, self.reference.runner, self.candidate.runner.for_bodies(), left, right)
            expected = left.outputs(feed, sessions.reference(feed))
            error = difference(expected, right.outputs(feed, sessions.candidate({**feed, **right.extra})))
        if error and not self._same:
            exchanged = self._exchanged(other, names[0], expected, error)
            if exchanged is not None:
                return BodyFindings(diagnosis=exchanged)
        where = Enclosing(node=ours.name, op=ours.op, body=names[0])
        found = self._localized(left, right, [{**feed, **right.extra}], where)
        explained = whole is None or error >= EXPLAINED * whole
        return dataclasses.replace(found, clean=explained and not found.culprits)

    def _exchanged(self, other: Node, name: str, expected: Sequence[np.ndarray], error: float) -> Diagnosis | None:
        """Whether the candidate's other branch is what the reference's is."""
        opposite = "else_branch" if name == "then_branch" else "then_branch"
        try:
            program = Program.of(other, opposite)
            with ExitStack() as stack:
                session = BodySession(stack, self.candidate.runner.for_bodies(), program)
                found = program.outputs(program.captured, session(program.captured))
        except LayerdiffError as failure:
            log.debug("no %s of %s: %s", opposite, other.name, failure)
            return None
        if difference(expected, found) > EXCHANGED * min(error, 1.0):
            return None
        return control_flow.exchanged(name, opposite)

    def _programs(self, ours: Node, other: Node, body: str) -> tuple[Program, Program]:
        if not self._same:
            return programs(ours, other, body, self.back)
        program = Program.of(ours, body)
        return program, program

    @property
    def _same(self) -> bool:
        return self.candidate.model.same_network(self.reference.model)

    def _localized(self, left: Program, right: Program, samples: Sequence[Arrays], where: Enclosing) -> BodyFindings:
        if not left.made:
            return BodyFindings(remark="its body computes nothing")
        candidate = dataclasses.replace(self.candidate, runner=self.candidate.runner.for_bodies(), model=right.model)
        comparison = dataclasses.replace(
            self.comparison,
            sides=Sides(dataclasses.replace(self.reference, model=left.model), (candidate,)),
            samples=_Iterations(samples),
            workload=Workload(samples=lambda: iter(samples)),
            rules=dataclasses.replace(self.comparison.rules, memory=budget(self.comparison.rules.memory) // 4),
        )
        carried = dict(zip(left.formal, left.results, strict=False)) if left.node.op == "Scan" else {}
        if left.node.op == "Loop":
            carried = dict(zip(left.formal[2:], left.results[1:], strict=False))
        found = self.localize(comparison, candidate, carried)
        return BodyFindings(
            tuple(dataclasses.replace(c, inside=(where, *c.inside)) for c in found.culprits),
            tuple(dataclasses.replace(layer, inside=(where, *layer.inside)) for layer in found.layers),
        )


def _numbers(node: Node, name: str) -> list[int]:
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
        if index.nodes[p].op_type in CONTROL_FLOW
        and is_standard(index.nodes[p])
        and any(o and not flow.recomputed(o) for o in index.nodes[p].output)
    ]


class _Iterations(Samples):
    """What the picked iterations are given."""

    description = "iterations of a loop"

    def __init__(self, feeds: Sequence[Arrays]) -> None:
        self.count = len(feeds)
        self._feeds = feeds

    def __iter__(self) -> Iterator[Arrays]:
        return iter(self._feeds)


def _inputs(pair: LayerPair, values: Arrays) -> Arrays:
    return {n: values[n] for n in pair.reference.inputs}


def _errors_of(pair: LayerPair, values: Arrays, made: Arrays) -> float:
    pairs = zip(pair.reference.outputs, pair.candidate.outputs, strict=True)
    return difference(*zip(*[(values[n], made[o]) for n, o in pairs], strict=True))
