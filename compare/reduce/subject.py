"""The culprit of a saved report, found again: its layer in both graphs, and what the layer reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.errors import UsageError
from ...graph.specs import Arrays, cast
from ..assemble import assemble
from ..collect import Collector
from ..progress import SILENT, Progress
from ..report.model import Cause
from ..runs.streaming import execute
from ..stages import localized

if TYPE_CHECKING:
    import numpy as np

    from ..comparison import Comparison
    from ..layers.prepare import Prepared
    from ..lockstep.plan import LayerPair
    from ..report.model import Culprit, Report
    from ..sides import Side

SAMPLES = 8
"""Samples that are tried until one shows the fault."""
NO_LAYER = {
    Cause.SPREAD: "its error is made by all layers together",
    Cause.EXCHANGED_OUTPUTS: "outputs carry each other's names, which no layer does",
    Cause.FEEDING: "it shows between two ways of feeding the whole network alone",
    Cause.NONDETERMINISM: "it gives other bits each time it is run",
}
"""Causes that no part of a network shows alone, and why not."""


@dataclass(frozen=True)
class Subject:
    """A culprit, and its layer in both graphs.

    Attributes:
        culprit: Who is to blame.
        report: The report in which it was found again.
        prepared: The graph that it is in, or the body of an If, Loop or Scan.
        pair: Its layer.
    """

    culprit: Culprit
    report: Report
    prepared: Prepared
    pair: LayerPair

    @property
    def reference(self) -> Side:
        """The side that is believed."""
        return self.prepared.comparison.reference

    @property
    def candidate(self) -> Side:
        """The side that is to blame, with what was calibrated on the whole model."""
        return self.prepared.candidate

    def fed(self) -> Iterator[Arrays]:
        """What the layer reads on each of the first samples, as the reference computes it: by the reference's names.

        Where the reference opens no pieces of a model, the layer's outputs are there too.
        """
        side, producer = self.reference, self.reference.model.index.producer
        read = [*self.pair.reference.inputs, *self.prepared.plan.sources([self.pair]).values()]
        wanted = [n for n in dict.fromkeys(read) if n in producer]
        if not side.runner.capabilities.pieces:
            wanted += self.pair.reference.outputs
        comparison = self.prepared.comparison
        with side.runner.session(side.model, fetch=wanted, workload=comparison.workload) as session:
            own = {spec.name for spec in session.inputs}
            for sample in itertools.islice(comparison.samples, SAMPLES):
                made = session.infer({n: a for n, a in sample.items() if n in own}, wanted) if wanted else {}
                yield {**sample, **made}

    def for_candidate(self, names: Sequence[str], values: Arrays) -> dict[str, np.ndarray]:
        """What the candidate is fed, by its own names, in the types of its graph."""
        plan = self.prepared.plan
        matched = {other: name for name, other in self.prepared.matched.items()}
        back = {**matched, **plan.back, **plan.sources([self.pair])}
        specs = self.candidate.model.index.specs
        return {n: cast(values[back.get(n, n)], specs.get(n)) for n in names}


def subject(comparison: Comparison, report: Report, number: int, progress: Progress = SILENT) -> Subject:
    """Runs the comparison of a report again, and finds one of its culprits in it.

    Args:
        comparison: What was compared, layer by layer.
        report: What was found.
        number: Which culprit, from 1.
        progress: Told what is going on.

    Raises:
        UsageError: There is no such culprit, no single layer is to blame, or the culprit is not found again.
    """
    culprit = named_culprit(report, number)
    walked: list[Prepared] = []
    collector = Collector(comparison)
    log = execute(comparison, collector.begin, progress, remember=True)
    found = assemble(comparison, log, collector.evidence(comparison, log, progress))
    _, found = localized(comparison, log, found, progress, walked.append)
    whole = {prepared.candidate.name: prepared for prepared in reversed(walked)}  # walked before the bodies in it
    for other in found.culprits:
        if (other.candidate, other.path) != (culprit.candidate, culprit.path):
            continue
        for prepared in reversed(walked):
            body = prepared is not whole[prepared.candidate.name]
            if prepared.candidate.name != other.candidate or body != bool(other.inside):
                continue
            for pair in prepared.plan.layers:
                if {*other.tensors} <= {*pair.reference.outputs}:
                    return Subject(other, found, prepared, pair)
    raise UsageError(f"{culprit.path} on {culprit.candidate} is not to blame when the comparison is run again.")


def named_culprit(report: Report, number: int) -> Culprit:
    """One of a report's culprits.

    Raises:
        UsageError: There is none of this number, or it is no single layer.
    """
    if not report.culprits:
        told = "" if report.layers else ": run the comparison with --layers"
        raise UsageError(f"the report names no culprit{told}.")
    if not 1 <= number <= len(report.culprits):
        raise UsageError(f"there is no culprit {number}: the report names {len(report.culprits)}.")
    culprit = report.culprits[number - 1]
    if culprit.cause in NO_LAYER:
        raise UsageError(f"culprit {number} is no single layer ({culprit.cause}): {NO_LAYER[culprit.cause]}.")
    return culprit
