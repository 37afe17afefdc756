"""From a culprit's layer to the fewest nodes that fail by the same test."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx

from ...graph.errors import LayerdiffError, UsageError
from ...runners.contract.naming import distinct_names
from ...runners.function import FunctionRunner
from ..causes.judgement import RMS_LIMIT
from ..comparator import Comparator
from ..comparison import Rules
from ..lockstep.plan import inside
from ..progress import SILENT, Progress
from .part import Part, ends, inner_values, whole

if TYPE_CHECKING:
    from ...graph.specs import Arrays
    from ...runners.contract.runner import Runner
    from ..lockstep.plan import LayerPair
    from ..report.model import Report
    from .subject import Subject

NODES = 5
"""Nodes that a part has at most, if there is one that fails."""
AS_MUCH = 0.5
"""Share of the layer's relative error that a part of it must have."""
RMS = min(RMS_LIMIT.values())
"""Times the expected noise from which on a layer is to blame, in the strictest case."""
GAIN = 6.0
"""Standard errors from which on a common gain is no rounding; a layer is blamed from `judgement.GAIN_LIMIT` on."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reduced:
    """A part that fails.

    Attributes:
        part: The part.
        allowed: Relative L2 error up to which the test that it fails would pass.
        test: That test, in words.
    """

    part: Part
    allowed: float
    test: str


def shrink(subject: Subject, progress: Progress = SILENT) -> Reduced:
    """The smallest part of a culprit's layer that was found to fail alone.

    Args:
        subject: The culprit.
        progress: Told what is going on.

    Raises:
        UsageError: Its layer does not differ when it is run alone, on the first samples.
    """
    best: Reduced | None = None
    for place in _places(subject):
        for values in place.fed():
            try:
                layer = whole(place, place.pair, values)
            except LayerdiffError as error:
                raise UsageError(f"{subject.culprit.path} cannot be run alone: {error}") from error
            for part in _parts(place, layer, values) if layer.error else ():
                progress.stage(f"{subject.culprit.node}: {part.nodes} node{'s'[: part.nodes != 1]}")
                reduced = _judged(place, part)
                if reduced is not None and reduced.part.nodes <= NODES:
                    return reduced
                best = best or reduced
    if best is None:
        raise UsageError(f"{subject.culprit.path} does not differ when it is run alone on what the reference feeds it.")
    return best


def _places(subject: Subject) -> Iterator[Subject]:
    """The culprit's layer; where it gives what others cannot hold, these."""
    yield subject
    for pair in subject.prepared.plan.layers:
        if {*subject.culprit.tensors} & {*pair.reference.inputs}:
            yield replace(subject, pair=pair)


def _parts(subject: Subject, layer: Part, values: Arrays) -> Iterator[Part]:
    """The layer, and parts of it that have most of its error: small ones first."""
    enough = layer.error if math.isinf(layer.error) else AS_MUCH * layer.error
    found = [layer]
    for pair in (subject.pair, *_inner_pairs(subject)):
        try:
            read = values if pair is subject.pair else {**values, **inner_values(subject, values)}
            found += (part for part in ends(subject, pair, read, NODES) if part.error >= enough)
        except LayerdiffError:  # a border of unknown type, a node that does not run alone
            log.debug("no part of %s", pair.reference.outputs, exc_info=True)
    yield from sorted(found, key=lambda part: part.nodes)


def _inner_pairs(subject: Subject) -> list[LayerPair]:
    """The single nodes of the layer, as far as both sides have their tensors."""
    prepared = subject.prepared
    graphs = subject.reference.model.index, subject.candidate.model.index
    found = inside(*graphs, subject.pair, prepared.matched, prepared.plan.tensors)
    return found if len(found) > 1 else []


def _judged(subject: Subject, part: Part) -> Reduced | None:
    """A part, if it fails by the test of the whole: held against what rounding explains, or by what it contributes."""
    report = _compared(subject, part)
    if report is None:
        return None
    failed = [o for o in report.outputs if o.verdict not in ("pass", "undecided")]
    if failed:
        explained = [RMS * e["rel_l2"] for o in failed if (e := o.expected or {}).get("rel_l2")]
        below = [allowed for allowed in explained if allowed < part.error]
        allowed = min(below) if below else _share(part.error, max(o.use or math.inf for o in failed))
        return Reduced(part, allowed, "the error that rounding explains here, as it was measured")
    shares = [_beyond(layer.expected) for layer in report.layers if layer.verdict == "culprit"]
    if shares:
        return Reduced(part, _share(part.error, max(shares)), "the noise that rounding is expected to make here")
    outputs = [o.use for o in subject.report.of(subject.culprit.candidate) if o.verdict != "pass"]
    uses = [use for use in outputs if use is not None and use > 1]
    if uses:
        test = "the error here with which the outputs of the network would be within what they are allowed"
        return Reduced(part, _share(part.error, max(uses)), test)
    if outputs:
        return Reduced(part, 0.0, "any: rounding explains the error here, and the outputs it leads to are undecided")
    return None


def _share(error: float, times: float) -> float:
    """What is allowed of an error that is so many times as large."""
    return error / times if math.isfinite(error) and math.isfinite(times) and times > 1 else 0.0


def _beyond(expected: object) -> float:
    """How many times what it may be a layer's error is."""
    found = dict(expected) if isinstance(expected, dict) else {}
    rms, gain, bound = (found.get(name) or 0.0 for name in ("rms_z", "gain_sigma", "bound_use"))
    return max(rms / RMS, gain / GAIN, bound)


def _compared(subject: Subject, part: Part) -> Report | None:
    """A part compared as the whole networks were; None where it cannot be."""
    with TemporaryDirectory(prefix="layerdiff-reduce-") as folder:
        candidate = _saved(part, "candidate", Path(folder))
        runner = replace(_kept(subject.candidate.runner, part), model=candidate)
        reference: Runner = FunctionRunner(model=candidate, function=lambda feed: dict(part.expected))
        if part.reference is not None:
            path = candidate if subject.prepared.same else _saved(part, "reference", Path(folder))
            reference = replace(subject.reference.runner, model=path)
        try:
            rules = Rules(
                reference=distinct_names([reference, runner])[0],
                layers=None if part.reference is None else "guilty",
            )
            return Comparator(None, [reference, runner], data_loader=[dict(part.inputs)], rules=rules).compare()
        except LayerdiffError:
            log.debug("the part cannot be compared", exc_info=True)
            return None


def _saved(part: Part, side: str, folder: Path) -> Path:
    model = getattr(part, side)
    onnx.save(with_inputs(model.proto, part.inputs), folder / f"{side}.onnx")
    return folder / f"{side}.onnx"


def with_inputs(proto: onnx.ModelProto, inputs: Arrays) -> onnx.ModelProto:
    """A model that takes all of some inputs, those too that it does not read."""
    from ...graph.cutting.extract import value_info
    from ...graph.specs import specs_of

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    known = {i.name for i in made.graph.input}
    made.graph.input.extend(value_info(s) for n, s in specs_of(inputs, fixed=True).items() if n not in known)
    return made


def _kept(runner: Runner, part: Part) -> Runner:
    """A runner that keeps those of its nodes in FP32 that the part has."""
    if not runner.kept:
        return runner
    return runner.keeping([n for n in runner.kept if n in part.candidate.index.names])
