"""How much of what is allowed an output uses."""

from __future__ import annotations

import math

import numpy as np
from layerdiff.compare.outputs.term_sizes import terms
from layerdiff.compare.outputs.tolerance import Tolerance
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.index import GraphIndex

from .networks import Network
from .running import inner

DROWNED = 3.0
"""A fault that changes an output by less than this many times what a second FP32 run does is none to be found."""

Outputs = list[dict[str, np.ndarray]]


class Behind:
    """The sizes of the terms that the outputs of a network were made of, each found once."""

    def __init__(self, network: Network, index: GraphIndex, reference: Outputs) -> None:
        self._network = network
        self._index = index
        self._reference = reference
        self._values: dict[tuple[str, int], dict[str, np.ndarray]] = {}

    def sizes(self, name: str, sample: int, tolerance: Tolerance) -> np.ndarray | None:
        """Of one output in one sample."""
        found = terms(self._index, name)
        if found is None:
            return None
        if (name, sample) not in self._values:
            self._values[name, sample] = inner(self._network.proto, self._network.feeds[sample], found.tensors)
        return found.sizes(self._reference[sample][name], self._values[name, sample], tolerance.share)


def use(
    reference: Outputs, candidate: Outputs, name: str, tolerance: Tolerance, behind: Behind | None, always: bool = False
) -> float:
    """The greatest share of the tolerance that an element of an output uses.

    Args:
        reference, candidate: All outputs, by sample.
        name: The output.
        tolerance: Its tolerance.
        behind: Gives the sizes of its terms, where its own scale does not suffice; None: that alone.
        always: Use them anyway.
    """
    statistics = Statistics(full=False)
    for sample, (r, c) in enumerate(zip(reference, candidate, strict=True)):
        found = Statistics(full=False).update(r[name], c[name], tolerance.allowed(r[name]), sample)
        asked = behind is not None and (always or (found.use or 0) > 1)
        sizes = behind.sizes(name, sample, tolerance) if behind is not None and asked else None
        if sizes is not None:
            found = Statistics(full=False).update(r[name], c[name], tolerance.allowed(r[name], sizes), sample)
        statistics.merge(found)
    return math.inf if statistics.shape_mismatch or statistics.use is None else statistics.use


def off(reference: Outputs, candidate: Outputs, name: str) -> float:
    """The greatest relative L2 error of an output in a sample."""
    found = [Statistics(full=False).update(r[name], c[name]) for r, c in zip(reference, candidate, strict=True)]
    return max(float(s.metrics()["rel_l2"] or 0) for s in found)
