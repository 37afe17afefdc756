"""Layers that are right one by one and wrong together: what a runtime fuses, and what kernels it takes for that, is
another thing in the whole network than in a part of it.

Asked where an output fails and the walk shows next to nothing of its error. Parts of the network are built as the whole
is: first from its inputs to a tensor, by halving, up to the first tensor that is wrong; then from later and later
tensors of the reference to that one. What is left is the smallest part that was found to be wrong.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import backward, slice_model
from ...graph.errors import LayerdiffError
from ...graph.specs import Arrays, held, is_float, specs_of
from ..causes.built_together import BuiltTogether
from ..causes.diagnosis import Diagnosis
from ..lockstep.parts import opened_part
from ..progress import SILENT, Progress
from ..report.model import Cause
from ..runs.samples import numbered
from ..statistics.statistics import Statistics
from .observation import relative_error

if TYPE_CHECKING:
    from ..report.model import Culprit, OutputResult
    from ..sides import Side
    from .observation import LayerObservation
    from .prepare import Prepared
    from .walked import Walked

log = logging.getLogger(__name__)

UNEXPLAINED = 0.1
"""Share of the deployed error up to which a walk explains nothing of it."""
ABOVE_NOISE = 4.0
"""Times the error of a tensor in the walk from which on a part that makes it is wrong."""
MARKS = 3
"""Most tensors that are tried as outputs of the network."""


def unexplained(output: OutputResult, walked: Walked) -> bool:
    """Whether an output fails, and a walk shows next to nothing of its error."""
    seen, metrics = walked.outputs.get(output.tensor), output.metrics
    if output.verdict != "fail" or seen is None or metrics is None or output.worst_sample is None:
        return False
    deployed, observed = metrics.get("rel_l2"), relative_error(seen)
    return math.isfinite(observed) and (deployed is None or observed <= UNEXPLAINED * deployed)


def explains_whole(culprits: Iterable[Culprit]) -> bool:
    """Whether a culprit tells why the network errs where its layers do not."""
    return any(isinstance(fact, BuiltTogether) for culprit in culprits for fact in culprit.facts)


def wrong_together(
    prepared: Prepared,
    walked: Walked,
    outputs: Sequence[OutputResult],
    timings: bytes = b"",
    progress: Progress = SILENT,
) -> LayerObservation | None:
    """The layer at the end of the smallest part of the network that is wrong as it is built whole; None where there is
    nothing to explain, or none was found.

    Args:
        prepared: Who was walked.
        walked: What was seen layer by layer.
        outputs: What the candidate's outputs showed.
        timings: What the deployed engine tells of the times of kernels.
        progress: Told what is going on.
    """
    side, reference = prepared.candidate, prepared.comparison.reference
    drawn = any(s.pair.random or s.comes_and_goes for s in walked.layers)  # which the walk does not show
    output = None if drawn else next((o for o in outputs if unexplained(o, walked)), None)
    able = side.runner.capabilities.pieces and all(s.runner.capabilities.any_model for s in (side, reference))
    if output is None or not able or side.runner.levels() or side.runner.arithmetic.is_integer:
        return None
    progress.stage(f"{side.name}: looking for layers that are wrong only where they are built together")
    whole = (side.deployed or side.runner).with_timings(timings)
    try:
        return _Search(prepared, replace(side, runner=whole), walked, output, progress).found()
    except Exception:  # what the layers show stands
        log.debug("no part of %s was found", side.name, exc_info=True)
        return None


@dataclass(frozen=True)
class _Trial:
    """A part of the network as the candidate builds it, on the reference's values."""

    nodes: tuple[int, ...]
    errors: Mapping[str, float]
    """The relative L2 error of each tensor that it makes, by the reference's names."""


class _Search:
    """Looks for the smallest part that is wrong, on the sample on which an output differs most."""

    def __init__(
        self, prepared: Prepared, side: Side, walked: Walked, output: OutputResult, progress: Progress = SILENT
    ) -> None:
        assert output.worst_sample is not None
        self._progress, self._tried = progress, 0
        self._reference, self._side = prepared.comparison.reference, side
        self._tensors, self._back = prepared.plan.tensors, prepared.plan.back
        ((_, self._sample),) = numbered(prepared.comparison.samples, {output.worst_sample})
        self._output = output.tensor
        deployed = (output.metrics or {}).get("rel_l2")
        observed = relative_error(walked.outputs[output.tensor])
        self._limit = UNEXPLAINED if deployed is None else max(UNEXPLAINED * deployed, math.sqrt(observed * deployed))
        self._layers = self._on_the_way(walked.layers)
        self._most = 1 + 2 * max(len(self._layers), 2).bit_length()
        self._fixed = all(isinstance(d, int) for spec in side.model.inputs for d in spec.shape or (None,))

    def found(self) -> LayerObservation | None:
        """The layer at the end of the smallest part that is wrong."""
        if not self._layers or not self._wrong(-1, len(self._layers) - 1):
            return None
        start, end = self._window(-1, len(self._layers) - 1)
        trial = self._built([self._made(end)], start)
        names, index = self._side.model.index.names, self._side.model.index
        computing = tuple(names[p] for p in trial.nodes if any(self._floats(o) for o in index.nodes[p].output))
        error, last = trial.errors[self._made(end)], self._layers[end]
        twin = self._tensors.get(self._made(end), self._made(end))
        fact = BuiltTogether(twin, computing or (names[trial.nodes[-1]],), error, last.cumulative_error)
        return replace(last, diagnosis=Diagnosis(Cause.WRONG_OP, (self._marked(fact, start, end),)))

    def _window(self, start: int, end: int) -> tuple[int, int]:
        """The ends of a small part that is wrong, inside of one that is: a half of it, as long as one of both halves is
        wrong, which costs no more than to build the whole twice; then each end by itself."""
        while end - start > 1:
            middle = (start + end) // 2
            if self._wrong(start, middle):
                end = middle
            elif self._wrong(middle, end):
                start = middle
            else:
                return self._ends(start, middle, end)
        return start, end

    def _ends(self, start: int, middle: int, end: int) -> tuple[int, int]:
        """The same of a part that is wrong across its middle: from there, each end by itself."""
        end = first_wrong(lambda place: self._wrong(start, place), middle, end)
        return last_wrong(lambda place: self._wrong(place, end), start, middle), end

    def _on_the_way(self, layers: Sequence[LayerObservation]) -> list[LayerObservation]:
        """The layers that the output depends on and that make floats on both sides, the output's own last."""
        index = self._reference.model.index
        needed = set(backward(index, [self._output], ()).nodes)
        found = [s for s in layers if needed.issuperset(s.pair.reference.nodes) and not s.pair.random]
        found = [s for s in found if self._floats(s.pair.reference.outputs[0], reference=True)]
        return [
            *(s for s in found if self._output not in s.pair.reference.outputs),
            *(s for s in found if self._output in s.pair.reference.outputs),
        ]

    def _made(self, place: int) -> str:
        """What a layer makes, by the reference's name."""
        made = self._layers[place].pair.reference.outputs
        return self._output if self._output in made else made[0]

    def _floats(self, tensor: str, reference: bool = False) -> bool:
        spec = (self._reference if reference else self._side).model.index.specs.get(tensor)
        return spec is not None and is_float(spec.dtype)

    def _wrong(self, start: int, end: int) -> bool:
        """Whether the part from behind one layer to another is wrong; not, where it cannot be built."""
        tensor = self._made(end)
        self._tried += 1
        self._progress.advance(self._tried, self._most, "parts")
        try:
            error = self._built([tensor], start).errors[tensor]
        except LayerdiffError:
            log.debug("the part up to %s cannot be built", tensor, exc_info=True)
            return False
        apart = self._layers[end].cumulative_error
        return error > max(self._limit, ABOVE_NOISE * apart if math.isfinite(apart) else 0.0)

    def _built(self, tensors: Sequence[str], start: int) -> _Trial:
        """Builds what makes tensors from the network's inputs and what layers up to one make, and runs it."""
        outputs = [self._tensors.get(tensor, tensor) for tensor in tensors]
        stops = {o for s in self._layers[: start + 1] for o in s.pair.reference.outputs if self._floats(o, True)}
        part = backward(self._side.model.index, outputs, {self._tensors[o] for o in stops if o in self._tensors})
        sources = {name: self._back.get(name, name) for name in part.inputs}
        known = self._values(list(dict.fromkeys([*sources.values(), *tensors])))
        specs = self._side.model.index.specs
        feed = {name: held(known[source], specs.get(name)) for name, source in sources.items()}
        model = slice_model(self._side.model, part, specs_of(feed, self._fixed))
        with opened_part(self._side, model, feed) as session:
            made = session.infer(feed)
        each = zip(tensors, outputs, strict=True)
        return _Trial(part.nodes, {tensor: _error(known[tensor], made[name]) for tensor, name in each})

    def _values(self, names: Sequence[str]) -> Arrays:
        """Tensors as the reference computes them."""
        model = self._reference.model
        wanted = [name for name in names if name in model.index.producer]
        given = {name: self._sample[name] for name in names if name in self._sample}
        if not wanted:
            return given
        part = backward(model.index, wanted, ())
        feed = {name: self._sample[name] for name in part.inputs}
        with opened_part(self._reference, slice_model(model, part, specs_of(feed)), feed) as session:
            return {**given, **session.infer(feed)}

    def _marked(self, fact: BuiltTogether, start: int, end: int) -> BuiltTogether:
        """The fact with a tensor inside, with which among the outputs the network agrees: the middle ones first."""
        inside = sorted(range(start + 1, end), key=lambda place: abs(2 * place - start - end))
        for place in inside[:MARKS]:
            tensor = self._made(place)
            try:
                left = self._built([tensor, self._output], -1).errors[self._output]
            except LayerdiffError:
                continue
            if left <= self._limit:
                return replace(fact, marked=self._tensors.get(tensor, tensor), left=left)
        return fact


def first_wrong(wrong: Callable[[int], bool], right: int, known: int) -> int:
    """The first place that is wrong, by halving, where ``known`` is and ``right`` is not."""
    while known - right > 1:
        middle = (right + known) // 2
        right, known = (right, middle) if wrong(middle) else (middle, known)
    return known


def last_wrong(wrong: Callable[[int], bool], known: int, right: int) -> int:
    """The last place that is wrong, by halving, where ``known`` is and ``right`` is not."""
    while right - known > 1:
        middle = (known + right) // 2
        known, right = (middle, right) if wrong(middle) else (known, middle)
    return known


def _error(reference: np.ndarray, other: np.ndarray) -> float:
    return relative_error(Statistics(full=False, equal_nan=True).update(reference, other))
