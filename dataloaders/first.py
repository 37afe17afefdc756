"""The first samples of a source: ``--samples`` beside ``--data``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Sample, Samples, Source

if TYPE_CHECKING:
    from ..graph.model import Model


@dataclass(frozen=True)
class First(Source):
    """The first samples of another source; all of them, where it has fewer.

    Attributes:
        source: The other source.
        most: How many to take.
    """

    source: Source
    most: int

    def bind(self, model: Model) -> Samples:
        """The samples for ``model``; see `Source.bind`."""
        source = self.source.limited(self.most)
        samples = source.bind(model)
        if source is not self.source and len(samples) == self.most:
            samples.description = f"the first {samples.description}"
        if len(samples) > self.most:
            return _FirstSamples(samples, self.most)
        if len(samples) < self.most:
            samples.notes = (*samples.notes, f"--samples {self.most}: there are no more than {len(samples)}.")
        return samples


class _FirstSamples(Samples):
    """The first samples of others."""

    def __init__(self, samples: Samples, most: int) -> None:
        self._samples = samples
        self.count = most
        self.seed = samples.seed
        self.description = f"the first {f'{most} ' if most > 1 else ''}of {samples.description}"
        self.notes = samples.notes
        self.representative = samples.representative

    def __iter__(self) -> Iterator[Sample]:
        return itertools.islice(iter(self._samples), self.count)
