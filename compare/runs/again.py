"""The second runs that wait for the walk through the layers, which runs an emulation once more as it is.

Values are rounded where fused groups end, so that an emulation computes the same in pieces: a walk that gives the
outputs of the deployed run, bit for bit, has run them twice. Where it does not, the whole model is run again after all;
the reference, of which pieces are another program, only if something is blamed for a difference.
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
    """Whether a side's second run is left to the walk: of candidates that emulate a format on the CPU, and of a
    reference on the CPU that nothing but such candidates is held against."""
    if comparison.rules.layers is None or random_nodes(side.model.index):
        return False
    others = (side,) if side is not comparison.reference else comparison.candidates
    return _steady(side) and all(_steady(other) and other.runner.narrows for other in others)


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
