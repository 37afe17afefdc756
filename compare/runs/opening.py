"""Sessions on whole models: opened as they are, or in pieces where the weights of all sides do not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .piecewise import PiecedSession, in_pieces

if TYPE_CHECKING:
    from ...runners.contract.session import Session
    from ...runners.onnxrt.runner import OnnxrtRunner
    from ..comparison import Comparison
    from ..sides import Side


def run_in_pieces(comparison: Comparison) -> frozenset[str]:
    """Names of the sides whose models are run in pieces. The answer depends on the memory that is free now."""
    if not in_pieces(comparison.sides.all, comparison.rules.memory):
        return frozenset()
    return frozenset(
        side.name
        for side in comparison.sides.all
        if side.runner.capabilities.pieces
        and side.model.tf is None
        and not side.runner.loads_engine(side.model)
        and not side.runner.only_builds
    )


def for_rewritten(side: Side) -> OnnxrtRunner:
    """What runs a side's network once it is rewritten: ONNX Runtime, set up as the side's runner where it is one."""
    from ...runners.onnxrt.runner import OnnxrtRunner

    own = side.runner
    return (replace(own, model=None) if type(own) is OnnxrtRunner else OnnxrtRunner()).untimed()


def open_whole(
    comparison: Comparison,
    side: Side,
    pieces: bool,
    fetch: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Session:
    """A session on a side's whole model, which runs nothing that the comparison's journal holds.

    Args:
        comparison: What is compared.
        side: One of its sides.
        pieces: Whether it is run in pieces.
        fetch: Inner tensors that will be asked for.
        progress: See `Runner.open`.
    """
    if pieces:
        return PiecedSession(side, comparison.workload, comparison.rules.memory, comparison.journal)
    if comparison.journal is None:
        return side.runner.session(side.model, fetch=fetch, workload=comparison.workload, progress=progress)
    return comparison.journal.session(
        side.runner, side.model, fetch=fetch, workload=comparison.workload, progress=progress
    )
