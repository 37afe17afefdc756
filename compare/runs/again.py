"""The second runs that wait for the walk through the layers, which runs what is deployed once more.

Values of an emulation are rounded where fused groups end, so that it computes the same in pieces: a walk that gives the
outputs of the deployed run, bit for bit, has run them twice. Of two graphs on one runtime, a walk runs twice on the
same values what is the same in both; where each layer then gives the same bits, or is blamed after a second run of its
own, and the outputs are as far off as deployed, nothing comes and goes. Else the whole model is run again after all;
the reference of an emulation, only if something is blamed for a difference.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from ...graph.cutting.dataflow import random_nodes
from ...graph.errors import LayerdiffError
from .opening import open_whole
from .repeatability import Repeat, repeat
from .samples import feed_of, numbered

if TYPE_CHECKING:
    from ..comparison import Comparison
    from ..sides import Side
    from .run import RunLog

log = logging.getLogger(__name__)

Same: TypeAlias = "Mapping[str, Mapping[str, Sequence[bool | None]]]"
"""By side and output, whether a walk gave the deployed output bit by bit, sample by sample."""


def postponed(comparison: Comparison, side: Side) -> bool:
    """Whether a side's second run is left to the walk: of runtimes on the CPU whose candidates emulate a format or are
    all run as the reference is."""
    if comparison.rules.layers is None or random_nodes(side.model.index):
        return False
    reference, others = comparison.reference, comparison.candidates
    narrow = (other.runner.narrows for other in ((side,) if side is not reference else others))
    alike = (_steady(other) and other.runner == reference.runner for other in comparison.sides.all)
    return (_steady(side) and all(map(_steady, others)) and all(narrow)) or all(alike)


def _steady(side: Side) -> bool:
    """Whether a side is a runtime of ours on the CPU, which is cheap to open again."""
    runner, able = side.runner, side.runner.capabilities
    return able.pieces and able.opens_ahead and runner.adds_exactly and not runner.foreign


def run_again(comparison: Comparison, ran: RunLog, walked: Same, *, blamed: bool) -> RunLog:
    """The log with the second runs that were postponed.

    Args:
        comparison: The sides that ran.
        ran: How they ran.
        walked: What a walk showed of them; empty if there was none.
        blamed: Whether anything is blamed for a difference; if not, nobody asks whether the reference repeats itself.
    """
    found: dict[str, Repeat] = {}
    for side in comparison.sides.all:
        runner = ran.of(side.name)
        if runner.postponed is None or runner.repeat is not None or runner.error is not None:
            continue
        if side is comparison.reference and not blamed:
            continue
        outputs, flags = ran.deployed.outputs(side.name, runner.postponed), walked.get(side.name, {})
        same = [tuple(flags.get(name, ()))[runner.postponed :][:1] == (True,) for name in outputs]
        second = Repeat(True) if same and all(same) else _whole(comparison, ran, side, runner.postponed)
        if second is not None:
            found[side.name] = second
    return ran.repeating(found)


def _whole(comparison: Comparison, ran: RunLog, side: Side, number: int) -> Repeat | None:
    """The whole model on a sample once more, and twice if it does not give what was kept of it; None if it fails."""
    runner = side.deployed or side.runner
    if runner.narrows:  # an emulation, which has measured its ranges
        runner = runner.for_pieces(ran.of(side.name).info)
    side = replace(side, runner=runner.untimed())
    ((_, sample),) = numbered(comparison.samples, {number})
    try:
        with open_whole(comparison, side, pieces=False) as session:
            feed = feed_of(session, sample)
            found = session.infer(feed)
            if all(ran.deployed.same(side.name, number, name, value) for name, value in found.items()):
                return Repeat(True)
            return repeat(found, session.infer(feed))
    except LayerdiffError:
        log.debug("%s was not run again", side.name, exc_info=True)
        return None
