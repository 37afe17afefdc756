"""Who runs in a process of its own: whatever may take the program with it, or whatever the user says."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ....graph.errors import UsageError, first_line
from .worker import Worker

if TYPE_CHECKING:
    from ....runners.contract.runner import Runner
    from ...comparison import Comparison, Rules
    from ...sides import Side


_OF_MAIN = b"\x8c\x08__main__"
"""How pickle's default protocols name the module that was started, which another process has not."""


@contextmanager
def isolated(comparison: Comparison) -> Iterator[Comparison]:
    """The comparison with those sides in processes of their own that the rules want there, until the block ends, and
    with every runner as the program that it brings along settles it.

    Raises:
        UsageError: A runner cannot be sent to another process, and the rules want it there.
    """
    with ExitStack() as stack:
        on_gpu = comparison.sides.reference.runner.gpus > 0

        def apart(side: Side) -> Side:
            if not wanted(side.runner, comparison.rules, on_gpu):
                return replace(side, runner=side.runner.settled(side.model))
            echo = logging.getLogger("layerdiff").isEnabledFor(logging.DEBUG)
            worker = Worker(comparison.rules.timeout, echo)
            stack.callback(worker.close)
            return replace(side, runner=side.runner.opened_by(worker).settled(side.model))

        sides = comparison.sides
        yield replace(
            comparison,
            sides=replace(
                sides, reference=apart(sides.reference), candidates=tuple(apart(side) for side in sides.candidates)
            ),
        )


def portable(comparison: Comparison) -> Comparison:
    """The comparison for a process elsewhere, where `isolated` puts the sides apart again: nothing is kept there, and
    no further work is shared out."""

    def here(side: Side) -> Side:
        return replace(side, runner=side.runner.opened_by(None))

    sides = comparison.sides
    everybody = replace(sides, reference=here(sides.reference), candidates=tuple(map(here, sides.candidates)))
    return replace(comparison, sides=everybody, rules=replace(comparison.rules, ray=None), journal=None, builders=None)


def wanted(runner: Runner, rules: Rules, on_gpu: bool = False) -> bool:
    """Whether the sessions of a runner are opened in a process of their own.

    Args:
        runner: The runner.
        rules: What the user says of it.
        on_gpu: Whether the reference computes on a GPU: outputs of a runtime that does so too stay there and are
            compared there, which takes one process.

    Raises:
        UsageError: They cannot be, and the rules leave no choice.
    """
    must = rules.isolate == "on" or rules.timeout is not None
    risky = runner.foreign or (runner.may_crash and not (on_gpu and runner.gpus))
    if not must and (rules.isolate == "off" or not risky):
        return False
    if os.name != "posix":
        why = "processes of their own are for Linux and macOS"
    else:
        try:
            if _OF_MAIN not in pickle.dumps(runner):
                return True
            why = "it is defined in the script or notebook itself; another process can import it from a module alone"
        except Exception as error:  # whatever the classes of its fields say
            why = f"it cannot be pickled: {first_line(error)}"
    if must:
        raise UsageError(f"{runner.name} cannot run in a process of its own: {why}. Leave out --isolate and --timeout.")
    return False
