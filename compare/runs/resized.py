"""A size that was guessed and that a runner refuses: others are tried until everybody takes one, and that is said.

Guessed are dimensions that the model leaves open and nobody gave. What the user gave is never changed.
"""

from __future__ import annotations

import functools
import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ...dataloaders.random_inputs import RandomSamples
from ...graph.errors import RunnerDied
from .. import notices
from ..progress import SILENT, Progress
from .samples import checked, feed_of

if TYPE_CHECKING:
    from ...runners.contract.session import Session
    from ...runners.contract.workload import Workload
    from ..comparison import Comparison
    from ..report.model import Notice
    from ..sides import Side
    from .run import RunLog, RunnerLog

log = logging.getLogger(__name__)

MOST_BUILDS = 4
"""Most sizes that are tried on a runner that builds for each of them."""


def resized(comparison: Comparison, ran: RunLog, progress: Progress = SILENT) -> Comparison | None:
    """The comparison on samples of other sizes, where a runner refused sizes that were guessed.

    Args:
        comparison: What was compared.
        ran: How its run went.
        progress: Told what is going on.

    Returns:
        None where nobody refused a size that was guessed, or no other size is taken by everybody.
    """
    samples = comparison.samples
    if not isinstance(samples, RandomSamples) or not samples.guessed:
        return None
    refusing = [side for side in comparison.sides.all if _refused(side, ran.of(side.name))]
    if not refusing:
        return None
    who = refusing[0].name
    progress.stage(f"{who} failed, perhaps at the sizes that were guessed: trying others")
    willing = [side for side in comparison.sides.all if side not in refusing and ran.of(side.name).error is None]
    with ExitStack() as stack:
        trials = [_Trial(side, stack) for side in (*refusing, *willing)]
        trials.sort(key=lambda trial: trial.builds)
        try:
            for other in samples.resized(comparison.sides.reference.model):
                workload = replace(comparison.workload, samples=functools.partial(checked, other))
                if all(trial.takes(other, workload) for trial in trials):
                    said = notices.size_refused(who, samples.shapes, other.shapes)
                    told = (*comparison.notices, *said)
                    return replace(comparison, samples=other, workload=workload, notices=told)
        except RunnerDied:  # that is not how a runner refuses a size
            log.debug("no other sizes are tried", exc_info=True)
    return None


def unfit(comparison: Comparison, ran: RunLog) -> Notice | None:
    """What to say where a runner may have failed for sizes that were guessed, and no others did.

    Args:
        comparison: What was compared.
        ran: How its run went.
    """
    samples = comparison.samples
    if not isinstance(samples, RandomSamples):
        return None
    refusing = [side.name for side in comparison.sides.all if _refused(side, ran.of(side.name))]
    if not refusing or not samples.guessed:
        return None
    return notices.sizes_unfit(refusing[0], {name: samples.shapes[name] for name in samples.guessed})


def _refused(side: Side, how: RunnerLog) -> bool:
    """Whether a runner failed at the first sample, or at building for it, in a way that may depend on its sizes."""
    can = side.runner.capabilities
    reached = how.open_seconds is not None or can.builds_for_shapes
    return (
        how.error is not None and how.of_sizes and how.samples == 0 and reached and can.computes and not how.in_pieces
    )


class _Trial:
    """A runner that sizes are tried on."""

    def __init__(self, side: Side, stack: ExitStack) -> None:
        self.builds = side.runner.capabilities.builds_for_shapes
        self._side, self._stack = side, stack
        self._session: Session | None = None
        self._built = 0

    def takes(self, samples: RandomSamples, workload: Workload) -> bool:
        """Whether it runs the first of some samples.

        Raises:
            RunnerDied: It took its process with it.
        """
        if self.builds and self._built == MOST_BUILDS:
            return False
        try:
            if self._session is None or self.builds:
                self._built += 1
                self._session = self._side.runner.session(self._side.model, workload=workload)
                self._stack.callback(self._session.close)
            self._session.infer(feed_of(self._session, samples[0]))
        except RunnerDied:
            raise
        except Exception:
            log.debug("%s refuses %s", self._side.name, samples.shapes, exc_info=True)
            return False
        return True
