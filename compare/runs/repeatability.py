"""Does a runner give the same bits twice?

Before a layer is blamed, the same inputs are run twice: what a runtime does not repeat is chance.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..statistics.statistics import Statistics

if TYPE_CHECKING:
    from ..report.model import Report

CHANCE = 0.5
"""Share of a candidate's error from which on what it does not repeat may be all there is."""


def fingerprint(value: Any) -> bytes:
    """A hash of an array's dtype, shape and bits."""
    array = np.ascontiguousarray(value)
    digest = hashlib.blake2b(f"{array.dtype.str} {array.dtype.name} {np.shape(value)}".encode(), digest_size=16)
    if array.dtype == object:  # strings
        digest.update(repr(array.tolist()).encode())
    elif array.size:
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()


@dataclass(frozen=True)
class Repeat:
    """The same inputs run twice.

    Attributes:
        identical: Whether all outputs are the same, bit by bit.
        tensor: The output that differs most; empty if none does.
        max_abs, rel_l2: By how much; infinite where a shape changed or something is finite once only.
    """

    identical: bool
    tensor: str = ""
    max_abs: float = 0.0
    rel_l2: float = 0.0

    def json(self) -> dict[str, Any]:
        """As the report holds it."""
        return {
            "bit_identical": self.identical,
            "tensor": self.tensor or None,
            "max_abs": self.max_abs,
            "rel_l2": self.rel_l2,
        }


def repeat(first: Mapping[str, Any], second: Mapping[str, Any]) -> Repeat:
    """Compares two runs of the same inputs."""
    worst = Repeat(True)
    for name, value in first.items():
        if name not in second:
            return Repeat(False, name, math.inf, math.inf)
        if fingerprint(value) == fingerprint(second[name]):
            continue
        one, other = np.asarray(value), np.asarray(second[name])
        statistics = Statistics(full=False)
        statistics.update(one, other, sample=0)
        metrics = statistics.metrics()
        if statistics.shape_mismatch is not None or statistics.broken:
            size = relative = math.inf
        else:
            size, relative = (math.inf if v is None else float(v) for v in (metrics["max_abs"], metrics["rel_l2"]))
        if worst.identical or relative > worst.rel_l2:
            worst = Repeat(False, name, size, relative)
    return worst


def chance(report: Report) -> list[str]:
    """What to say of runners that gave other outputs for the same inputs."""
    found = []
    for runner in report.runners:
        seen = runner.repeat
        if seen is None or seen["bit_identical"]:
            continue
        by = f"{seen['tensor']!r} differs by {seen['max_abs']:.2g} (relative L2 {seen['rel_l2']:.2g})"
        text = f"{runner.name} is not deterministic: run twice on the same inputs, {by}"
        errors = [(o.metrics or {}).get("rel_l2") for o in report.of(runner.name) if o.tensor == seen["tensor"]]
        if runner.name == report.reference:
            text += "; it is the reference, so this much of every error may be its own"
        elif errors and errors[0]:
            share = seen["rel_l2"] / errors[0]
            text += f", {share:.0%} of its error" if math.isfinite(share) else ""
            if share >= CHANCE:
                text += "; what is blamed for it may be chance"
        found.append(f"{text}.")
    return found
