"""Plans for the emulated faults of ``benchmarks.faults``: one of each kind in each network."""

from __future__ import annotations

from collections.abc import Iterator

from ..faults.case import Case
from ..faults.cases import Dropped, generate
from ..faults.plants import KINDS
from ..kit.networks import NETWORKS
from .beside import Beside, mixed
from .running import Planned, planned

SMALL = 1 / 64
"""The relative error that the verdict passes in FP16, which the other tool is asked for."""


def cases() -> Iterator[Case]:
    """The first fault of each emulated kind in each network."""
    for name in NETWORKS:
        for kind in KINDS.values():
            if kind.emulated:
                yield from list(generate([kind.name], [name], Dropped()))[:1]


def measured(*, beside: bool = True) -> Iterator[tuple[Planned, Beside | None]]:
    """A plan of each fault, and what `auto_mixed_precision` makes of the same network."""
    for case in cases():
        feeds = case.feeds()
        found = planned(case.id, case.reference, feeds, case.emulate or "fp16")
        if found.plan.status == "not needed":
            continue
        yield found, mixed(case.reference, feeds, SMALL) if beside else None
