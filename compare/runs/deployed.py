"""What the whole models gave, as they would be deployed: hashes that later runs of them in pieces are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .repeatability import fingerprint


@dataclass(frozen=True)
class Deployed:
    """The outputs of the whole models as they were: the candidates', and of a reference whose second run waits
    (`again`) those up to the sample that it will be of.

    Attributes:
        hashes: `fingerprint` by side, number of the sample, and output.
    """

    hashes: Mapping[tuple[str, int, str], bytes] = field(default_factory=dict)

    def same(self, side: str, sample: int, output: str, value: Any) -> bool | None:
        """Whether ``value`` is that output bit by bit; None if it was never there."""
        before = self.hashes.get((side, sample, output))
        return None if before is None else before == fingerprint(value)

    def outputs(self, side: str, sample: int) -> list[str]:
        """The outputs of a side on a sample."""
        return [name for who, number, name in self.hashes if (who, number) == (side, sample)]


def fingerprints(side: str, sample: int, outputs: Mapping[str, Any]) -> dict[tuple[str, int, str], bytes]:
    """The hashes of one side's outputs for one sample."""
    return {(side, sample, name): fingerprint(value) for name, value in outputs.items()}
