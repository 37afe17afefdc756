"""What was compared: the models and the samples, each told by a digest that is computed when somebody asks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

Digest = TypeVar("Digest", bound=str | None)


@dataclass(frozen=True)
class ModelInfo:
    """A model that was run.

    Attributes:
        source: The file, as the user named it.
        nodes: Number of nodes of its ONNX graph; None where it has none.
        digest: Computes `sha256`, which reads the whole file and is therefore asked for only when it is shown.
    """

    source: str
    nodes: int | None
    digest: Callable[[], str] = field(repr=False, compare=False)

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the source file, in hexadecimal."""
        return self.digest()


def no_digest() -> None:
    """The digest of data that nobody can read any more."""


@dataclass(frozen=True)
class DataInfo:
    """The samples that the verdict rests on.

    Attributes:
        samples: Number of samples that were run.
        seed: Seed of random samples, None for stored ones.
        description: Completes "on ...".
        representative: False for random samples, which prove little about deployment.
        notes: What was chosen for the user: dimensions, ranges.
        digest: Computes `sha256`, which reads all samples and is therefore asked for only when it is written.
    """

    samples: int
    seed: int | None
    description: str
    representative: bool
    notes: tuple[str, ...] = ()
    digest: Callable[[], str | None] = field(default=no_digest, repr=False, compare=False)

    @functools.cached_property
    def sha256(self) -> str | None:
        """Hash of the samples' names, dtypes, shapes and bytes, in hexadecimal; None where they are gone."""
        return self.digest()

    def __reduce__(self) -> tuple[Any, ...]:
        """With the digest instead of what computes it: a report is sent to other processes, its samples are not."""
        kept = functools.partial(known, self.sha256)
        return DataInfo, (self.samples, self.seed, self.description, self.representative, self.notes, kept)


def known(digest: Digest) -> Digest:
    """A digest that was computed before, for `functools.partial`."""
    return digest
