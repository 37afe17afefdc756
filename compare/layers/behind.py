"""What lies behind a fault is judged without it.

That a rewriting is healthy (heads in another order, a scale moved from one layer to the next) shows where both sides
come to the same values again, and behind a fault they never do. So the candidate is run again, given what the reference
makes of the first faults, and so on from the front to the back.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError
from ..progress import SILENT, Progress
from ..runs.memory import budget
from .healing import Healing
from .walk import Walk
from .walked import Forced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..report.model import LayerVerdict
    from .observation import LayerObservation
    from .prepare import Prepared

log = logging.getLogger(__name__)

ROUNDS = 8
"""How many times a candidate is run again at most: a chain of so many faults, one behind the other."""


def decided(
    prepared: Prepared,
    layers: Sequence[LayerObservation],
    healing: Healing,
    again: Callable[[Sequence[LayerObservation]], Healing],
    progress: Progress = SILENT,
) -> dict[int, LayerVerdict]:
    """Which of the layers that exceed their noise are culprits and which have healed, without the faults before each.

    Args:
        prepared: Who was walked.
        layers: What was seen of them, in the order of the graph.
        healing: Tells what has healed in the candidate's own run.
        again: Makes the same of another run.
        progress: Told what is going on.

    Returns:
        By number; nothing where the candidate's own run has to do: of one file, where a name is always the same value,
        and of runtimes that take long to build a network.
    """
    can = prepared.candidate.runner.capabilities
    found: dict[int, LayerVerdict] = {}
    pending = [s for s in layers if healing.verdict(s) is not None]
    if prepared.same or not can.pieces or can.builds_for_shapes:
        return found
    for _ in range(ROUNDS):
        off = [s for s in pending if healing.verdict(s) == "culprit"]
        faults = _first(off, healing)
        later = healing.behind(faults) - faults
        settled = (s.number for s in pending if s.number not in later)
        found.update((number, "culprit" if number in faults else "healed") for number in settled)
        pending = [s for s in pending if s.number in later]
        if not any(healing.verdict(s) == "culprit" for s in pending):
            break
        given = {number for number, verdict in found.items() if verdict == "culprit"}
        try:
            healing = again(_without(prepared, layers, given, progress))
        except LayerdiffError:
            log.debug("the candidate was not run without its first faults", exc_info=True)
            break
    return found


def _first(off: Sequence[LayerObservation], healing: Healing) -> set[int]:
    """Of some layers, those that are behind none of the others."""
    found: set[int] = set()
    behind: set[int] = set()
    for s in off:
        if s.number not in behind:
            found.add(s.number)
            behind |= healing.behind((s.number,))
    return found


def _without(
    prepared: Prepared, layers: Sequence[LayerObservation], faults: set[int], progress: Progress
) -> list[LayerObservation]:
    """What is seen of all layers where the candidate is given what the reference makes of some."""
    progress.stage(f"{prepared.candidate.name}: without {len(faults)} of its layers")
    plan = prepared.plan.giving(faults, prepared.candidate.model.index)
    memory = budget(prepared.comparison.rules.memory)
    forced = Forced((), None)
    walk = Walk(prepared.comparison, prepared.candidate, plan, forced=forced, budget=memory, progress=progress)
    seen = {s.number: s.cumulative for s in walk.run().layers}
    return [replace(s, cumulative=seen[s.number]) for s in layers]
