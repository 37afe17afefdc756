"""Is the program that was observed the one that is deployed?

Looking at a layer can change the program: pieces are smaller, and a marked tensor cannot be fused away. So the whole
model is run first, as it would be deployed, and its outputs are remembered by their hashes; what is observed later is
held against them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .. import notices
from ..report.model import Fidelity, Notice

LITTLE = 0.5
"""Share of the deployed error below which an observed run explains it in part only."""
MUCH = 2.0
"""Share above which it makes errors that the deployed run does not make."""


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


def doubt(found: Fidelity) -> Notice | None:
    """What to say of an observed run; None if it shows the deployed one."""
    if found.bit_identical:
        return None
    if found.share is None:
        return notices.other_program(found) if found.deployed_error == 0 and found.observed_error else None
    if LITTLE <= found.share <= MUCH:
        return None
    return notices.unlike_deployed(found, found.share, found.share > MUCH)
