"""Is the program that was observed the one that is deployed?

Looking at a layer can change the program: pieces are smaller, and a marked tensor cannot be fused away. So the whole
model is run first, as it would be deployed, and its outputs are remembered by their hashes; what is observed later is
held against them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..report.model import Fidelity
from ..runs.repeatability import fingerprint

LITTLE = 0.5
"""Share of the deployed error below which an observed run explains it in part only."""
MUCH = 2.0
"""Share above which it makes errors that the deployed run does not make."""


class Deployed:
    """The outputs of the whole models as they were, by their hashes."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int, str], bytes] = {}

    def take(self, side: str, sample: int, outputs: Mapping[str, Any]) -> None:
        """Remembers the outputs of one side for one sample."""
        for name, value in outputs.items():
            self._seen[side, sample, name] = fingerprint(value)

    def same(self, side: str, sample: int, output: str, value: Any) -> bool | None:
        """Whether ``value`` is that output bit by bit; None if it was never there."""
        before = self._seen.get((side, sample, output))
        return None if before is None else before == fingerprint(value)


def fidelity(
    candidate: str, tensor: str, deployed: float | None, observed: float, identical: Iterable[bool | None]
) -> Fidelity:
    """How much of the deployed error at one output an observed run shows.

    Args:
        candidate, tensor: Whose output.
        deployed, observed: Relative L2 errors against the reference; None or infinite where they are not finite.
        identical: For each sample, whether the output is the deployed one bit by bit.
    """
    flags = list(identical)
    bits = None if not flags or None in flags else all(flags)
    share: float | None = None
    if deployed is not None and math.isfinite(deployed) and math.isfinite(observed):
        share = observed / deployed if deployed else (1.0 if not observed else None)
    if bits:
        share = 1.0
    return Fidelity(candidate, tensor, deployed, observed if math.isfinite(observed) else None, share, bits)


def doubt(found: Fidelity) -> str:
    """What to warn of; empty if the observed run shows the deployed one."""
    where = f"{found.candidate}: run in pieces, the error at {found.tensor!r}"
    if found.bit_identical:
        return ""
    if found.share is None:
        if found.deployed_error != 0 or not found.observed_error:
            return ""
        return f"{where} is {found.observed_error:.2g}, and the deployed one has none: this is another program."
    if found.share < LITTLE:
        return f"{where} is {found.share:.0%} of the deployed one: the layers below explain it in part only."
    if found.share > MUCH:
        return f"{where} is {found.share:.0%} of the deployed one: the layers below show errors that it does not make."
    return ""
