"""Before a candidate is walked: which tensors correspond, where both graphs are cut, who judges its layers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError, ModelError
from ...graph.formats import FP32
from ...graph.quantized.borders import with_float_borders
from ...graph.quantized.float_form import is_quantized
from ...graph.quantized.quantizers import rounded
from ...graph.rounding.roundings import roundings
from ..causes.examiner import Examiner
from ..causes.expected_noise import Noise
from ..lockstep.engines import EnginesAhead
from ..lockstep.groups import MOST
from ..lockstep.kernels import kernel_groups
from ..lockstep.plan import LockstepPlan, plan
from ..outputs.formats_in_play import quantizes_more, quantizes_otherwise
from ..runs.memory import BUDGET, ENGINES, budget
from ..sides import Sides
from .bodies import BodyLocalizer, LocalizeBody
from .judging import LayerJudge

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex
    from ...graph.pairing.differences import Difference
    from ...graph.pairing.matching import Matching
    from ...runners.contract.session import SessionInfo
    from ..comparison import Comparison
    from ..sides import Side

log = logging.getLogger(__name__)

STREAMS = 11
"""How many times a piece's tensors and weights are held at once: by the reference, the candidate on the same inputs
and on its own, in the sessions of this piece and of the next, in the bytes that these are opened from, and by the probe
of the noise."""


@dataclass(frozen=True)
class Prepared:
    """One candidate, ready to be walked beside the reference.

    Attributes:
        comparison: The comparison.
        candidate: Who is judged, with ranges that are those of the whole model.
        plan: The layers and pieces.
        judge: Who judges the layers.
        same: Whether both sides run one file.
        matched: Tensors of the reference -> tensors of the candidate, as far as both sides know them.
        nodes: Nodes of the reference -> nodes of the candidate, by their positions, where both run two networks.
        own: The networks that sides run of their own, where both are told to run one file.
    """

    comparison: Comparison
    candidate: Side
    plan: LockstepPlan
    judge: LayerJudge
    same: bool
    matched: Mapping[str, str]
    nodes: Mapping[int, int]
    own: OwnNetworks


def prepare(
    comparison: Comparison,
    candidate: Side,
    localize_body: LocalizeBody,
    deployed: SessionInfo | None = None,
    *,
    ends_finite: bool = False,
) -> Prepared:
    """Matches the graphs of both sides, cuts them, and sets up who judges the layers.

    Args:
        comparison: The comparison.
        candidate: Who is judged.
        localize_body: Localizes the candidate in the body of an If, Loop or Scan.
        deployed: What the candidate's session on the whole model turned out to be; None in a body.
        ends_finite: Whether the candidate's outputs are known to be finite.
    """
    reference = comparison.reference
    same = candidate.model.same_network(reference.model)
    if quantizes_more(reference, candidate):
        other = quantizes_otherwise(reference.model, candidate.model)
        raise ModelError(f"{other}; compare each with the network in floating point, which is named first")
    file = reference.model.index
    if not same:
        reference, candidate = (_with_floats(side) for side in (reference, candidate))
        comparison = replace(comparison, sides=Sides(reference, (candidate,)))
    matching = None if same else _match(reference, candidate)
    matched = _matched(reference, candidate, matching)
    laid = _plan(comparison, candidate, matched, deployed if same else None)
    laid = replace(laid, unmatched=tuple(n for n in laid.unmatched if n in file.producer))
    candidate = _calibrated(comparison, candidate)
    fmt = candidate.runner.arithmetic
    steps = {"": 0.0} if fmt.is_integer else None
    usual = roundings(reference.runner.arithmetic, fmt, steps, candidate.runner.accumulator)
    noise = Noise(reference, candidate, usual, matching)
    bodies = BodyLocalizer(comparison, candidate, matched, localize_body, noise.runner)
    own = OwnNetworks(reference, candidate)
    examiner = Examiner(
        reference,
        candidate,
        noise,
        differences=_differences(reference, candidate, matching, own),
        matched=matched,
        observed=laid.tensors,
        # where a runtime runs the group as one kernel in a narrow format, the kernel is the smallest thing to name
        refine=fmt == FP32 and reference.runner.capabilities.computes,
        ends_finite=ends_finite,
    )
    judge = LayerJudge(noise, examiner, bodies, every=comparison.rules.layers == "all")
    nodes = {} if matching is None else matching.nodes
    return Prepared(comparison, candidate, laid, judge, same, matched, nodes, own)


def _with_floats(side: Side) -> Side:
    """A side with a float tensor to look at wherever operators of its file hand each other scaled integers."""
    model = side.model
    return replace(side, model=with_float_borders(model)) if is_quantized(model.index) else side


def begin_engines(comparison: Comparison, candidate: Side, deployed: SessionInfo) -> None:
    """Has the engines built that a walk will ask for, where both sides run one file: its layers follow from the
    kernels of the deployed engine.

    Args:
        comparison, candidate, deployed: See `prepare`.
    """
    builders, reference = comparison.builders, comparison.reference
    if builders is None or not candidate.runner.capabilities.builds_apart:
        return
    if not candidate.model.same_network(reference.model):
        return
    laid = _plan(comparison, candidate, _matched(reference, candidate, None), deployed)
    builders.begun[candidate.name] = EnginesAhead(builders, candidate, laid.steps, comparison.workload)


def _match(reference: Side, candidate: Side) -> Matching:
    from ...graph.pairing.matching import match

    return match(reference.model.index, candidate.model.index)


def _matched(reference: Side, candidate: Side, matching: Matching | None) -> dict[str, str]:
    """Tensors of the reference -> tensors of the candidate, as far as both sides know them."""
    index = reference.model.index
    if matching is None:
        matched = {name: name for name in {*index.producer, *index.inputs}}
    else:
        matched = dict(matching.tensors)
    ours, theirs = map(_known, (reference, candidate))
    if ours is not None:
        matched = {n: other for n, other in matched.items() if n in ours}
    if theirs is not None:  # of integers, a side may know what they stand for and not what was rounded to them
        index = candidate.model.index
        found = {
            n: next((o for o in (other, *rounded(index, other)) if o in theirs), None) for n, other in matched.items()
        }
        matched = {n: other for n, other in found.items() if other is not None}
    return matched


def _known(side: Side) -> set[str] | None:
    """Tensors that a side gives, where it does not give all that are in its graph."""
    shown = None if side.runner.capabilities.pieces else side.runner.tensors_shown(side.model)
    return None if shown is None else {*shown, *side.model.index.inputs, *side.model.index.outputs}


def _plan(
    comparison: Comparison, candidate: Side, matched: Mapping[str, str], deployed: SessionInfo | None
) -> LockstepPlan:
    """The layers and pieces: layers are the deployed kernels, where both sides run one file."""
    index = comparison.reference.model.index
    engines = candidate.runner.capabilities.builds_for_shapes
    kernels = () if deployed is None else candidate.runner.kernels(candidate.model, deployed)
    return plan(
        index,
        candidate.model.index,
        matched,
        every=comparison.rules.layers == "all",
        shapes=_shapes(comparison),
        memory=budget(comparison.rules.memory, ENGINES if engines else BUDGET) // STREAMS,
        groups=kernel_groups(index, kernels) if kernels else None,
        engines=MOST if candidate.runner.refits else 0,
    )


def _shapes(comparison: Comparison) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors for the first sample, where the graph leaves them open."""
    from ...graph.cutting.propagate import propagate

    first = next(iter(comparison.samples), None)
    model = comparison.reference.model
    if first is None or all(s.shape is not None and all(isinstance(d, int) for d in s.shape) for s in model.inputs):
        return {}
    shapes = propagate(model, {name: array.shape for name, array in first.items()})
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _calibrated(comparison: Comparison, candidate: Side) -> Side:
    """The candidate with ranges that are those of the whole model, on the samples."""
    from ..runs.piecewise import calibrated, in_pieces

    memory = comparison.rules.memory
    apart = in_pieces((comparison.reference, candidate), memory)
    return replace(candidate, runner=calibrated(candidate, comparison.workload, memory, apart))


def _differences(
    reference: Side, candidate: Side, matching: Matching | None, own: OwnNetworks
) -> Callable[[int], Sequence[Difference]]:
    """Static differences by position in the reference's graph: between two files, or between the one file and the
    network that a side runs instead of it."""

    @functools.cache
    def by_node() -> dict[int, list[Difference]]:
        found: dict[int, list[Difference]] = {}
        for difference in matching.differences if matching is not None else own.differences():
            found.setdefault(difference.node, []).append(difference)
        return found

    return lambda position: by_node().get(position, ())


class OwnNetworks:
    """The networks that sides run of their own, beside the one file.

    Args:
        reference, candidate: The sides.
    """

    def __init__(self, reference: Side, candidate: Side) -> None:
        self._sides, self._file = (reference, candidate), candidate.model

    @functools.cached_property
    def _matched(self) -> list[tuple[bool, GraphIndex, Matching]]:
        """Whether it is the reference's, the network, and what corresponds in both, the believed one first."""
        from ...graph.pairing.matching import match

        found = []
        for believed, side in zip((True, False), self._sides, strict=True):
            try:
                own = None if side.runner.capabilities.any_model else side.runner.own_model(self._file)
            except LayerdiffError as error:
                log.debug("the network of %s cannot be compared with the file: %s", side.name, error)
                continue
            if own is not None:
                pair = (own.index, self._file.index) if believed else (self._file.index, own.index)
                found.append((believed, own.index, match(*pair)))
        return found

    def differences(self) -> Iterator[Difference]:
        """How they differ from the file, at the positions of the file's nodes."""
        for believed, _, matching in self._matched:
            if believed:
                yield from (replace(d, node=d.candidate_node, origin=None) for d in matching.differences)
            else:
                yield from (replace(d, candidate_origin=None) for d in matching.differences)

    def twin(self, position: int) -> onnx.NodeProto | None:
        """The node of such a network that a node of the file is; None where there is none."""
        for believed, own, matching in self._matched:
            nodes = {m: n for n, m in matching.nodes.items()} if believed else matching.nodes
            if position in nodes:
                return own.nodes[nodes[position]]
        return None
