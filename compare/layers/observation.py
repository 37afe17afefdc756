"""What a walk sees of one layer: gathered while its samples pass, frozen when the last one has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..causes.judgement import Judgement, worse
from ..causes.refused import NotBuilt, Refused
from ..causes.rewritten_weights import NotTakenBack
from ..report.model import Cause
from ..statistics.portrait import distribution
from ..statistics.statistics import Statistics
from .findings import NOTHING_INSIDE, BodyFindings
from .turning import Turning, scaling, turning

if TYPE_CHECKING:
    import numpy as np

    from ...graph.specs import Arrays
    from ..causes.diagnosis import Diagnosis
    from ..lockstep.plan import LayerPair
    from ..report.model import Fact


ANOTHER = 0.5
"""Relative error from which on a tensor may be another one; two that have nothing to do with each other have 1.4."""
OFF = 0.02
"""Relative error from which on it is asked whether channels have factors of their own."""


@dataclass(frozen=True)
class LayerObservation:
    """What was seen of one layer.

    Attributes:
        pair: The layer.
        piece: Number of the piece that it was run in.
        local, cumulative: By output tensor; empty where the layer could not be run that way.
        judgement: The worst over the samples that were judged, and over its outputs.
        judgements: The worst over the samples of each output that was held against its expected noise.
        diagnosis: Why, for a layer that exceeds its expected noise.
        failure: What the candidate said, if it could not run the layer on the reference's inputs, or not open it.
        full: All statistics of the output that is off the most, from the sample on that gave it away.
        contribution: Share of the candidate's whole error at the outputs.
        inside: What was found in its body, if it is an If, Loop or Scan that was entered.
        fused: What is inside that the candidate's format cannot hold, harmless as long as the layer is one kernel.
        portraits: By output tensor, how its values lie on both sides (`statistics.portrait`), on the first sample.
        unholdable: The output to blame, where a later layer cannot be given what it holds.
        turning: By output tensor that may be another one, how far it is from the reference's turned on the candidate's
            own values, on the first sample that shows it; see `turning`.
        scaling: By output tensor that is well off, the same for factors of channels; see `scaling`.
        ranges: By tensor that the candidate's file rounds to scaled integers in the layer, the least and the greatest
            value that the reference has there on all samples.
    """

    pair: LayerPair
    piece: int
    local: Mapping[str, Statistics] = field(default_factory=dict)
    cumulative: Mapping[str, Statistics] = field(default_factory=dict)
    judgement: Judgement | None = None
    judgements: Mapping[str, Judgement] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    failure: Refused | NotBuilt | None = None
    full: Statistics | None = None
    contribution: float | None = None
    inside: BodyFindings = NOTHING_INSIDE
    fused: Fact | None = None
    portraits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unholdable: str | None = None
    turning: Mapping[str, Turning] = field(default_factory=dict)
    scaling: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The layer's place in the order of the reference's graph."""
        return self.pair.number

    @property
    def refused(self) -> Refused | None:
        """What the candidate said of the reference's values, if it could not run the layer on them."""
        return self.failure if isinstance(self.failure, Refused) else None

    @property
    def not_built(self) -> NotBuilt | None:
        """What the candidate said, if it could not open the layer: it was not compared."""
        return self.failure if isinstance(self.failure, NotBuilt) else None

    @property
    def exceeds_noise(self) -> bool:
        """Whether its local error is more than rounding."""
        return self.refused is not None or (self.judgement is not None and self.judgement.exceeds_noise)

    @property
    def repeated(self) -> bool:
        """Whether both sides make the same of the same values, bit by bit."""
        return bool(self.local) and not any(map(relative_error, self.local.values()))

    @property
    def blamed_outputs(self) -> tuple[str, ...]:
        """The outputs that are to blame: all of them, where nothing tells them apart."""
        names = self.pair.reference.outputs
        exceeding = {name for name, judgement in self.judgements.items() if judgement.exceeds_noise}
        return tuple(n for n in names if n == self.unholdable or n in exceeding) or names

    @property
    def comes_and_goes(self) -> bool:
        """Whether its error is another one each time it is run."""
        return self.pair.drawn or (self.diagnosis is not None and self.diagnosis.cause is Cause.NONDETERMINISM)

    @property
    def unfinished(self) -> bool:
        """Whether it does not take back what others do: it may be off in no value of its own."""
        return self.diagnosis is not None and any(isinstance(fact, NotTakenBack) for fact in self.diagnosis.facts)

    @property
    def undeclared(self) -> bool:
        """Whether it is off for a format that the candidate's runner does not declare."""
        return self.diagnosis is not None and self.diagnosis.cause is Cause.UNDECLARED

    @property
    def local_error(self) -> float:
        """Relative L2 error as it was judged; 0 where it was not."""
        return self.judgement.relative if self.judgement is not None else 0.0

    @property
    def cumulative_error(self) -> float:
        """The greatest relative L2 error of its outputs on the candidate's own values; infinite where not known."""
        return max((relative_error(statistics) for statistics in self.cumulative.values()), default=math.inf)

    @property
    def other_shape(self) -> bool:
        """Whether an output has another shape on the candidate's own values."""
        return any(statistics.shape_mismatch is not None for statistics in self.cumulative.values())


@dataclass
class Gathering:
    """The same while samples pass; see `LayerObservation`. ``equal_nan``: whether NaN equals NaN, as in outputs."""

    pair: LayerPair
    piece: int
    equal_nan: bool = False
    local: dict[str, Statistics] = field(default_factory=dict)
    cumulative: dict[str, Statistics] = field(default_factory=dict)
    judgement: Judgement | None = None
    judgements: dict[str, Judgement] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    failure: Refused | NotBuilt | None = None
    full: Statistics | None = None
    inside: BodyFindings = NOTHING_INSIDE
    fused: Fact | None = None
    portraits: dict[str, dict[str, Any]] = field(default_factory=dict)
    looked_into: bool = False
    turning: dict[str, Turning] = field(default_factory=dict)
    scaling: dict[str, float] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def tensor(self) -> str:
        """The output that is off the most."""
        judged = self.judgement.tensor if self.judgement is not None else ""
        return judged or self.pair.reference.outputs[0]

    def statistics(self, full: bool = False) -> Statistics:
        """Empty statistics of an output. ``full``: see `Statistics`."""
        return Statistics(full, equal_nan=self.equal_nan)

    def compared(self, values: Arrays, made: Arrays, sample: int) -> float:
        """Takes in what both sides make of the reference's values. Returns the greatest relative L2 error."""
        relative = 0.0
        for name, other in zip(self.pair.reference.outputs, self.pair.candidate.outputs, strict=True):
            now = self.statistics().update(values[name], made[other], sample=sample)
            self.local.setdefault(name, self.statistics()).merge(now)
            relative = max(relative, relative_error(now))
            if name not in self.portraits:
                equal = not relative_error(now) and values[name].dtype == made[other].dtype
                self.portraits[name] = distribution(values[name], values[name] if equal else made[other]) or {}
            if self.full is not None and name == self.tensor:
                self.full.update(values[name], made[other], sample=sample)
        return relative

    def went(self, name: str, reference: np.ndarray, candidate: np.ndarray, sample: int) -> None:
        """Takes in what both sides make of an output, each of its own values."""
        seen = self.cumulative.setdefault(name, self.statistics()).update(reference, candidate, sample=sample)
        error = relative_error(seen)
        if name not in self.scaling and OFF < error < math.inf:  # of no other one it is asked
            self.scaling[name] = scaling(reference, candidate)
        if name not in self.turning and ANOTHER < error < math.inf:
            self.turning[name] = turning(reference, candidate)

    def took(self, name: str, values: np.ndarray) -> None:
        """Takes in what the reference has in a tensor."""
        if values.size:
            low, high = self.ranges.get(name, (math.inf, -math.inf))
            self.ranges[name] = min(low, float(values.min())), max(high, float(values.max()))

    def note(self, found: Mapping[str, Judgement]) -> Judgement | None:
        """Keeps the judgements of outputs that are worse than those before. Returns the worst."""
        for name, now in found.items():
            self.judgements[name] = worse(self.judgements.get(name), now)
            self.judgement = worse(self.judgement, now)
        return self.judgement

    def state(self) -> dict[str, Any]:
        """What was gathered so far, by attribute."""
        return {name: value for name, value in vars(self).items() if name != "pair"}

    def observed(self, contribution: float | None) -> LayerObservation:
        """All that was seen."""
        return LayerObservation(
            self.pair,
            self.piece,
            self.local,
            self.cumulative,
            self.judgement,
            self.judgements,
            self.diagnosis,
            self.failure,
            self.full,
            contribution,
            self.inside,
            self.fused,
            self.portraits,
            turning=self.turning,
            scaling=self.scaling,
            ranges=self.ranges,
        )


def relative_error(statistics: Statistics) -> float:
    """Relative L2 error; infinite where something is not finite on one side or an integer differs from zero."""
    metrics = statistics.metrics()
    if statistics.shape_mismatch is not None or statistics.broken:
        return math.inf
    value = metrics["rel_l2"]
    if value is None:
        return math.inf if metrics["max_abs"] else 0.0
    return float(value)
