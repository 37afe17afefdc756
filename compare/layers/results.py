"""Layers and culprits as the report has them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...graph.operators import PRODUCTS
from ...graph.pairing.changes import OperatorChange
from ...graph.torch_traces import trace_of
from ..causes.diagnosis import Diagnosis, Remark
from ..causes.differences import GraphsDiffer
from ..causes.refused import cannot_run
from ..report.model import Cause, Culprit, Fact, LayerResult

if TYPE_CHECKING:
    import onnx

    from ..causes.judgement import Judgement
    from ..lockstep.plan import LayerPair
    from .observation import LayerObservation
    from .prepare import Prepared
    from .verdicts import Verdicts

NOT_DEPLOYED = Remark(
    "the outputs as deployed do not show it: there the runtime does not compute it alone, or not so narrow"
)


@dataclass(frozen=True)
class Names:
    """The names that the report gives to layers and nodes.

    Args:
        prepared: Who was walked.
    """

    prepared: Prepared

    @property
    def candidate(self) -> str:
        """The candidate's name."""
        return self.prepared.candidate.name

    def node(self, position: int) -> str:
        """A node of the reference's graph."""
        return self.prepared.comparison.reference.model.index.names[position]

    def op(self, position: int) -> str:
        """Its operator."""
        return self.prepared.comparison.reference.model.index.nodes[position].op_type

    def maker(self, position: int) -> int:
        """Who makes what an Identity hands on: of two names for one value, each graph makes the one it likes."""
        index = self.prepared.comparison.reference.model.index
        while index.nodes[position].op_type == "Identity":
            maker = index.producer.get(index.nodes[position].input[0])
            if maker is None:
                break
            position = maker
        return position

    def origin(self, position: int) -> str | None:
        """Where in the program a node comes from, as far as an exporter tells: module path and line."""
        return origin(self.prepared.comparison.reference.model.index.nodes[position])

    def origin_in_program(self, position: int) -> str | None:
        """The same, from what the program that a side runs is exported as today, where the file tells no line."""
        trace = trace_of(self.prepared.comparison.reference.model.index.nodes[position])
        if self.prepared.same and (trace is None or not trace.line):
            twin = self.prepared.own.twin(position)
            found = None if twin is None else trace_of(twin)
            if found is not None:
                return str(found if trace is None else replace(trace, line=found.line)) or None
        return self.origin(position)

    def quantized(self, pair: LayerPair) -> tuple[str, ...]:
        """The nodes of a layer that the candidate computes on scaled integers, by its file or by its arithmetic."""
        roundings = self.prepared.judge.noise.roundings
        if roundings.usual.steps:
            return tuple(self.node(p) for p in pair.reference.nodes if self.op(p) in PRODUCTS)
        found = roundings.grids.in_file(pair)
        scaled = {*found.operands, *found.weights}
        index = self.prepared.comparison.reference.model.index
        return tuple(self.node(p) for p in pair.reference.nodes if not scaled.isdisjoint(index.reads[p]))

    def tensor(self, name: str, other: str) -> str | None:
        """What the candidate's file calls a tensor of its graph that is ``name`` in the reference's, if otherwise."""
        file = self.prepared.candidate.model.tflite
        own = other if file is None else file.tensors.get(other, other)
        return own if own != name else None

    def counterpart(self, pair: LayerPair, position: int, facts: Sequence[Fact] = ()) -> str | None:
        """The candidate's name of a node of a layer, if it is another one. ``facts``: what is told of the layer."""
        if self.prepared.same or not pair.candidate.nodes:
            return None
        other = self.prepared.candidate.model.index
        told = (f.difference for f in facts if isinstance(f, GraphsDiffer) and not f.node)
        named = (d.candidate_node for d in told if d.node == position and not isinstance(d.change, OperatorChange))
        op, found = self.op(position), next(named, self.prepared.nodes.get(position))
        if found not in pair.candidate.nodes:
            found = next((p for p in reversed(pair.candidate.nodes) if other.nodes[p].op_type == op), None)
        name = other.names[pair.candidate.nodes[-1] if found is None else found]
        return name if name != self.node(position) else None


def origin(node: onnx.NodeProto) -> str | None:
    """Where in a PyTorch program a node comes from: ``encoder.fc1, net.py:18 in forward``; None where nobody tells."""
    trace = trace_of(node)
    return str(trace) or None if trace is not None else None


def ranked(layers: Sequence[LayerObservation], in_pieces_only: Collection[int]) -> list[LayerObservation]:
    """Layers, most guilty first: where a rewriting is not finished, then by contribution, by excess over the noise, and
    in the order of the graph.

    What comes and goes stands before all else: it puts the others in doubt.

    Args:
        layers: Those that are to blame.
        in_pieces_only: Numbers of those of which the outputs as deployed show nothing; they come last.
    """

    def key(s: LayerObservation) -> tuple[bool, bool, bool, float, float, int]:
        excess = s.judgement.excess if s.judgement is not None else math.inf
        share = -round(min(s.contribution or 0.0, 1.0), 1)
        return not s.comes_and_goes, s.number in in_pieces_only, not s.unfinished, share, -excess, s.number

    return sorted(layers, key=key)


def culprits(layers: Sequence[LayerObservation], in_pieces_only: Collection[int], names: Names) -> tuple[Culprit, ...]:
    """The culprits of layers that are to blame: each layer, or instead of it the nodes inside.

    Args:
        layers: The layers, as `ranked`.
        in_pieces_only: See `ranked`.
        names: What everything is called.
    """
    found: list[Culprit] = []
    for s in layers:
        inside = s.inside.culprits
        share = s.contribution if len(inside) == 1 else None  # one alone explains what the layer does
        mine = [replace(c, contribution=share) for c in inside] or [_culprit(s, names)]
        if s.number in in_pieces_only:
            mine = [replace(c, deployed=False, facts=(*c.facts, NOT_DEPLOYED)) for c in mine]
        for culprit in mine:
            same = next((i for i, c in enumerate(found) if (c.node, c.cause) == (culprit.node, culprit.cause)), None)
            if same is None:
                found.append(culprit)
            else:  # one node that several layers are made of: one fault
                tensors = dict.fromkeys((*found[same].tensors, *culprit.tensors))
                found[same] = replace(found[same], tensors=tuple(tensors))
    return tuple(found)


def _culprit(s: LayerObservation, names: Names) -> Culprit:
    diagnosis = s.diagnosis
    if diagnosis is None:
        graphs = names.prepared.comparison.reference.model.index, names.prepared.candidate.model.index
        diagnosis = Diagnosis(Cause.UNKNOWN, ()) if s.refused is None else cannot_run(graphs, s.pair, s.refused)
    main = names.maker(s.pair.main if diagnosis.node is None else diagnosis.node)
    node, op = names.node(main), names.op(main)
    where = names.origin_in_program(main)
    if diagnosis.candidate_node is not None:
        index = names.prepared.candidate.model.index
        node, op = index.names[diagnosis.candidate_node], index.nodes[diagnosis.candidate_node].op_type
        where = origin(index.nodes[diagnosis.candidate_node])
    name = s.blamed_outputs[0]
    local = s.full if s.full is not None else s.local.get(name)
    return Culprit(
        candidate=names.candidate,
        node=node,
        op=op,
        tensors=s.blamed_outputs,
        cause=diagnosis.cause,
        local=None if local is None else local.metrics(),
        contribution=s.contribution,
        facts=diagnosis.facts,
        candidate_node=None
        if diagnosis.candidate_node is not None
        else names.counterpart(s.pair, main, diagnosis.facts),
        origin=where,
    )


def layer_results(given: Verdicts, unmatched: Sequence[str], names: Names) -> tuple[LayerResult, ...]:
    """Every layer of the report, and the tensors without counterpart.

    Args:
        given: The verdicts.
        unmatched: Tensors of the reference at the borders of layers that have no counterpart.
        names: What everything is called.
    """
    result: list[LayerResult] = []
    for s in given.layers:
        verdict = given.by_layer[s.number]
        if s.inside.culprits:  # one fault, one culprit: the node inside
            verdict = "inherited"
        guilty = verdict in ("culprit", "healed")
        for name, other in zip(s.pair.reference.outputs, s.pair.candidate.outputs, strict=True):
            mine = given.beside[s.number] if guilty and name not in s.blamed_outputs else verdict
            result.append(
                LayerResult(
                    candidate=names.candidate,
                    tensor=name,
                    node=names.node(s.pair.main),
                    nodes=tuple(map(names.node, s.pair.reference.nodes)),
                    op=names.op(s.pair.main),
                    index=s.number,
                    piece=s.piece,
                    local=s.local[name].metrics() if name in s.local else None,
                    cumulative=s.cumulative[name].metrics() if name in s.cumulative else None,
                    expected=_expected(s.judgements.get(name, s.judgement)),
                    contribution=s.contribution,
                    verdict=mine,
                    cause=s.diagnosis.cause if s.diagnosis is not None and mine == "culprit" else None,
                    candidate_node=names.counterpart(s.pair, s.pair.main),
                    quantized=names.quantized(s.pair),
                    inputs=s.pair.reference.inputs,
                    origin=names.origin(s.pair.main),
                    portrait=s.portraits.get(name) or None,
                    candidate_tensor=names.tensor(name, other),
                )
            )
        result.extend(s.inside.layers)
    producer = names.prepared.comparison.reference.model.index.producer
    result.extend(_unmatched(name, producer[name], names) for name in unmatched)
    return tuple(result)


def _unmatched(name: str, position: int, names: Names) -> LayerResult:
    node = names.node(position)
    return LayerResult(
        candidate=names.candidate,
        tensor=name,
        node=node,
        nodes=(node,),
        op=names.op(position),
        index=position,
        piece=-1,
        verdict="unmatched",
    )


def _expected(j: Judgement | None) -> Mapping[str, float | None] | None:
    """A judgement as the report has it; None where nothing was held against the expected noise."""
    if j is None or j.rms_z is None:
        return None
    return {"rms_z": _finite(j.rms_z), "gain_sigma": _finite(j.gain_sigma), "bound_use": _finite(j.bound_use)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
