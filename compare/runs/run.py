"""What a run leaves beside the outputs: plain data, which can be pickled, kept and added to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...runners.contract.latency import KernelTime
from ...runners.contract.session import SessionInfo
from ..report.model import Notice
from .deployed import Deployed
from .repeatability import Repeat


@dataclass(frozen=True)
class RunnerLog:
    """How one runner fared.

    Attributes:
        name: What the report calls it.
        info: What its session on the whole model turned out to be.
        in_pieces: Whether its model was run in pieces, since the weights of all sides do not fit in memory.
        open_seconds: Time to load or build the model; None if it did not get so far.
        infer_seconds: Time of all inferences together.
        samples: Samples that it finished.
        error: Why it failed, in one or two lines; None if it did not.
        refused: Whether its runtime refused a sample, of a model that it opened and can run in parts: layers show why.
        of_sizes: Whether it may be that it would not have failed on inputs of other sizes.
        latency: What timing it found; None if it was not timed.
        kernels: What single kernels take, where timing told.
        repeat: What a second run gave on the first sample on which something differs; None if there was none.
        postponed: That sample, where its second run is left to the walk through the layers or made behind it (`again`).
    """

    name: str
    info: SessionInfo = field(default_factory=SessionInfo)
    in_pieces: bool = False
    open_seconds: float | None = None
    infer_seconds: float | None = None
    samples: int = 0
    error: str | None = None
    refused: bool = False
    of_sizes: bool = True
    latency: Mapping[str, Any] | None = None
    kernels: tuple[KernelTime, ...] = ()
    repeat: Repeat | None = None
    postponed: int | None = None


class Stopped(KeyboardInterrupt):
    """Ctrl-C while samples were run.

    Attributes:
        log: How far the run went.
    """

    def __init__(self, log: RunLog) -> None:
        super().__init__()
        self.log = log


@dataclass(frozen=True)
class RunLog:
    """What is known after all samples were run.

    Attributes:
        reference: Name of the runner that was believed.
        candidates: Names of those whose outputs were compared with its outputs; empty where no pair could be opened.
        runners: Every runner that was asked for, in the order of the comparison's sides.
        deployed: Outputs as the whole models gave them, where somebody will look at layers.
        notices: What the user should know.
        masks: Inputs of which a notice says that they are not finite, and that hold what a mask may hold: see
            `NotFinite.masks`.
        blank: Whether all that was fed are zeros or NaN: see `OneValue.blank`.
        varied: Whether rows of an input differ.
        nan_given: Inputs that hold NaN.
    """

    reference: str
    candidates: tuple[str, ...] = ()
    runners: tuple[RunnerLog, ...] = ()
    deployed: Deployed = field(default_factory=Deployed)
    notices: tuple[Notice, ...] = ()
    masks: frozenset[str] = frozenset()
    blank: bool = False
    varied: bool = False
    nan_given: tuple[str, ...] = ()

    def of(self, name: str) -> RunnerLog:
        """How one runner fared; nothing is known of a runner that was never opened."""
        return next((runner for runner in self.runners if runner.name == name), RunnerLog(name))

    def repeating(self, found: Mapping[str, Repeat]) -> RunLog:
        """The log with what second runs gave, by the runner's name."""
        runners = (replace(r, repeat=found[r.name]) if r.name in found else r for r in self.runners)
        return replace(self, runners=tuple(runners))

    def settled(self, names: Iterable[str]) -> RunLog:
        """The log without second runs that runners need not make."""
        without = set(names)
        return replace(
            self, runners=tuple(replace(r, postponed=None) if r.name in without else r for r in self.runners)
        )

    @property
    def samples(self) -> int:
        """Samples that the reference finished."""
        return self.of(self.reference).samples

    @property
    def finished(self) -> dict[str, int]:
        """Samples that each runner finished, by name."""
        return {runner.name: runner.samples for runner in self.runners}
