"""What the whole models gave, as they would be deployed: hashes that later runs of them in pieces are held against."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .repeatability import fingerprint


@dataclass(frozen=True)
class Deployed:
    """The outputs of the whole models as they were.

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

    def first_difference(self, side: str, others: Collection[str]) -> int | None:
        """The first sample on which a side and one of some others do not give the same bits."""
        numbers = sorted({number for who, number, _ in self.hashes if who == side})
        return next((n for n in numbers for other in others if self._on(side, n) != self._on(other, n)), None)

    def _on(self, side: str, sample: int) -> dict[str, bytes]:
        return {name: value for (who, number, name), value in self.hashes.items() if (who, number) == (side, sample)}


def fingerprints(side: str, sample: int, outputs: Mapping[str, Any]) -> dict[tuple[str, int, str], bytes]:
    """The hashes of one side's outputs for one sample."""
    return {(side, sample, name): fingerprint(value) for name, value in outputs.items()}
