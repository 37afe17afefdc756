"""What a run is and what it leaves: who ran, on what, and how it went."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ...runners.contract.session import Session, SessionInfo
from ...runners.contract.workload import Workload
from ..report.model import RunnerResult
from ..sides import Side, Sides
from .piecewise import PiecedSession, in_pieces
from .repeatability import Repeat

if TYPE_CHECKING:
    import numpy as np

    from ...dataloaders.base import Samples
    from ...runners.contract.device import DeviceArray

Outputs: TypeAlias = "Mapping[str, np.ndarray | DeviceArray]"
Fetch: TypeAlias = "Callable[[Sequence[str]], Outputs]"
"""Gives inner tensors of the reference for the present sample; raises RunnerError where it cannot."""


@dataclass
class Run:
    """Who ran, on what, and how it went: what `Comparator.run` finds beside the outputs.

    Attributes:
        sides: The reference and the candidates that were left when those that failed to open had gone.
        asked: Everybody that was asked for.
        sessions: What each session turned out to be, by name.
        seconds: Time of opening and of all inferences, by name.
        errors: Why a runner failed, by name.
        samples_run: Samples that each runner finished, by name.
        latency: What timing each runner found, by name.
        repeats: What a second run on the same inputs gave, by name.
        memory: Bytes that sessions on whole models may take, and pieces where they do not fit; None: from the machine.
        calibration: What INT8 and FP8 were calibrated on, if not on the samples.
    """

    sides: Sides
    asked: Sides
    samples: Samples
    workload: Workload
    sessions: dict[str, SessionInfo] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    samples_run: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    latency: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    repeats: dict[str, Repeat] = field(default_factory=dict)
    memory: int | None = None
    calibration: Samples | None = None

    def open(self, side: Side, fetch: Sequence[str] = (), progress: Callable[[str], None] | None = None) -> Session:
        """A session on a side's whole model, in pieces where the weights of all sides do not fit in memory."""
        if self.in_pieces(side):
            return PiecedSession(side, self.workload, self.memory)
        return side.runner.open(side.model, fetch=fetch, workload=self.workload, progress=progress)

    def in_pieces(self, side: Side) -> bool:
        """Whether a side's model is run in pieces, since not all weights fit in memory."""
        able = side.runner.capabilities.pieces and side.model.tf is None and not side.runner.loads_engine(side.model)
        return self._in_pieces and able

    @functools.cached_property
    def _in_pieces(self) -> bool:
        return in_pieces(self.asked.all, self.memory)

    def results(self) -> tuple[RunnerResult, ...]:
        """One result for each runner that was asked for, the reference first."""
        reference = self.sides.reference
        others = [p for p in (self.asked.reference, *self.asked.candidates) if p.name != reference.name]
        return tuple(self._result(side) for side in (reference, *others))

    def _result(self, side: Side) -> RunnerResult:
        info = self.sessions.get(side.name, SessionInfo())
        seconds = self.seconds.get(side.name, [])
        return RunnerResult(
            name=side.name,
            options=info.options,
            versions=info.versions,
            open_seconds=seconds[0] if seconds else None,
            infer_seconds=seconds[1] if len(seconds) > 1 else None,
            notes=tuple(info.notes),
            error=self.errors.get(side.name),
            latency=self.latency.get(side.name),
            repeat=self.repeats[side.name].json() if side.name in self.repeats else None,
        )
