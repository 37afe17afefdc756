"""A walk that was killed goes on behind the last piece whose state was kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..journal.journal import MISSING, SECONDS
from ..journal.keys import key_of, runner_key
from ..journal.sessions import SHARE
from ..runs.memory import budget

if TYPE_CHECKING:
    from ..comparison import Comparison
    from ..journal.sessions import RunJournal
    from ..lockstep.plan import LockstepPlan
    from ..runs.deployed import Deployed


def walked(journal: RunJournal, comparison: Comparison) -> tuple[Any, ...] | None:
    """All that a walk depends on besides what the whole models gave; None where nothing tells."""
    sides = comparison.sides.all
    runners = [runner_key(side.runner) for side in sides]
    if None in runners:
        return None
    rules = comparison.rules
    models = [side.model.digest for side in sides]
    return runners, models, rules.layers, rules.memory, budget(rules.memory), journal.data(comparison.samples)


class Checkpoint:
    """The state of one walk behind one of its pieces.

    It is kept each time that a piece ends and enough time has passed for this to cost next to nothing.

    Args:
        journal: Where it is kept.
        key: Its key.
    """

    def __init__(self, journal: RunJournal, key: str) -> None:
        self._entries = journal.entries
        self._key = key
        self._kept = time.monotonic()
        self._pause = SECONDS

    @classmethod
    def of(cls, comparison: Comparison, plan: LockstepPlan, deployed: Deployed | None) -> Checkpoint | None:
        """That of a walk; None where it cannot be told from others, or nothing is kept.

        Args:
            comparison: What is walked.
            plan: The pieces and layers.
            deployed: What the whole models gave.
        """
        journal = comparison.journal
        known = None if journal is None or deployed is None else walked(journal, comparison)
        if journal is None or known is None:
            return None
        try:
            return cls(journal, key_of("walk", known, plan.steps, plan.tensors, deployed))
        except TypeError:  # something that has no key
            return None

    def found(self) -> Any:
        """The state that an earlier run kept; None where there is none."""
        state = self._entries.recall(self._key)
        return None if state is MISSING else state

    def offer(self, state: Callable[[], Any], *, last: bool = False) -> None:
        """Keeps the state if that is worth its time.

        Args:
            state: Gives it.
            last: Whether the walk is over.
        """
        begun = time.monotonic()
        if begun - self._kept < (SECONDS if last else self._pause):
            return
        self._entries.keep(self._key, state(), alone=True)
        self._kept = time.monotonic()
        self._pause = max(SECONDS, (self._kept - begun) / SHARE)
