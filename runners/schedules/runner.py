"""Runners that feed a network otherwise: token by token behind a cache, or one entry of a batch alone.

What a network gives must not depend on that. Each schedule is a runner, so that it is a side like any other: its
outputs are put together from the runs, and so are the tensors inside, as far as their axes tell how.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ...graph.errors import LayerdiffError, UsageError
from ...graph.formats import NumberFormat
from ...graph.options import option
from ..contract.capabilities import Capabilities
from ..contract.runner import Runner

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.workload import Feed, Workload
    from .joints import Joints
    from .session import DecodingSession, UnbatchedSession


@dataclass(frozen=True)
class Scheduled(Runner):
    """A runner that is fed otherwise.

    Attributes:
        runner: The runner: its flag, with its value behind a colon (``onnxrt``, ``onnxrt:cuda``, ``emulate:fp16``).
        settings: Fields of it that long options set (``fp16``, True), which its value does not say.
    """

    value_field: ClassVar[str] = "runner"
    value_form: ClassVar[str] = "RUNNER"
    capabilities: ClassVar[Capabilities] = Capabilities(pieces=False, inner_tensors=True)

    runner: str = option("onnxrt", "", "the runner that is fed so: onnxrt, onnxrt:cuda, trt:fp16", metavar="RUNNER")
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def in_one_run(self) -> Runner:
        """The runner that is fed so; see `Runner.in_one_run`.

        Raises:
            UsageError: There is none of this name, or it does not take the value.
        """
        kind, own = self._fed(self.runner)
        return kind.configured(own, dict(self.settings))

    @classmethod
    def _fed(cls, runner: str) -> tuple[type[Runner], dict[str, Any]]:
        """The kind of the runner that is fed so, and what its value sets."""
        from .. import discover

        flag, colon, value = runner.partition(":")
        known = {name: kind for name, kind in discover().items() if not issubclass(kind, Scheduled)}
        if flag not in known:
            names = ", ".join(sorted(known))
            raise UsageError(f"--{cls.flag}={runner}: there is no runner {flag!r}; there are: {names}.")
        kind = known[flag]
        return kind, kind.grammar(f"--{cls.flag}={flag}").read(value) if colon else {}

    @classmethod
    def configurable(cls, own: Mapping[str, Any]) -> type[Runner]:
        """That of the runner that is fed so; see `Runner.configurable`."""
        return cls._fed(own.get("runner", cls.runner))[0]

    @classmethod
    def applicable(cls, own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the runner that is fed so, but for files to write, which are for one that runs whole samples."""
        kind, value = cls._fed(own.get("runner", cls.runner))
        taken = kind.applicable(value, defaults)
        return {name: given for name, given in taken.items() if name not in kind.capabilities.output_files}

    @classmethod
    def configured(cls, own: Mapping[str, Any], defaults: Mapping[str, Any]) -> Runner:
        """See `Runner.configured`.

        Raises:
            UsageError: The settings of the runner that is fed so do not go together.
        """
        made = cls(**own, settings=tuple(sorted(defaults.items())))
        _ = made.in_one_run
        return made

    @property
    def name(self) -> str:
        """``decode:onnxrt``; with long options, what these make of the runner's name (``decode:trt:fp16``)."""
        return f"{self.flag}:{self.in_one_run.name if self.settings else self.runner}"

    @property
    def gpus(self) -> int:
        """See `Runner.gpus`."""
        return self.in_one_run.gpus

    @property
    def trust(self) -> int:
        """A little less than the runner itself."""
        return self.in_one_run.trust + 1

    @property
    def arithmetic(self) -> NumberFormat:
        """See `Runner.arithmetic`."""
        return self.in_one_run.arithmetic

    @property
    def accumulator(self) -> NumberFormat:
        """See `Runner.accumulator`."""
        return self.in_one_run.accumulator

    @property
    def rounds_every_node(self) -> bool:
        """See `Runner.rounds_every_node`."""
        return self.in_one_run.rounds_every_node

    @property
    def rounds_to_types(self) -> bool:
        """See `Runner.rounds_to_types`."""
        return self.in_one_run.rounds_to_types

    @property
    def foreign(self) -> bool:
        """See `Runner.foreign`."""
        return self.in_one_run.foreign

    @property
    def may_crash(self) -> bool:
        """See `Runner.may_crash`."""
        return self.in_one_run.may_crash

    def fed_with(self, workload: Workload, samples: Callable[[], Iterable[Feed]] | None) -> Workload:
        """What the runner will be fed; it is calibrated on whole samples all the same."""
        return replace(workload, samples=samples, shapes={}, profiles=(), calibration=workload.calibrating)

    def tensors_shown(self, model: Model) -> frozenset[str]:
        """Those that can be put together; see `Runner.tensors_shown`."""
        try:
            return frozenset(self.joints(model))
        except LayerdiffError:
            return frozenset()

    @abstractmethod
    def joints(self, model: Model) -> Joints:
        """Tensors that can be put together, and along which axis; None: the last run gives all of it.

        Raises:
            RunnerError: The model cannot be fed so.
        """


@dataclass(frozen=True)
class DecodeRunner(Scheduled):
    """A decoder fed one token at a time, its cache given back to it: does decoding give what prefill gives?

    Attributes:
        runner, settings: See `Scheduled`.
    """

    flag: ClassVar[str] = "decode"

    @property
    def schedule(self) -> str:
        """See `Runner.schedule`."""
        return "one token at a time behind its cache"

    def joints(self, model: Model) -> Joints:
        """See `joints.of_tokens`."""
        from .joints import of_tokens

        return of_tokens(self.name, model)

    def open(  # type: ignore[override]
        self, model: Model, *, fetch: Sequence[str] = (), workload: Workload
    ) -> DecodingSession:
        """See `Runner.open`.

        Raises:
            RunnerError: The model is no decoder whose cache can be given back.
        """
        from .joints import cached
        from .session import DecodingSession, in_steps

        known = cached(self.name, model)
        joints = self.joints(model) if fetch else {}
        steps = self.fed_with(workload, in_steps(known, workload.samples))
        inner = self.in_one_run.session(model, fetch=[n for n in fetch if n in joints], workload=steps)
        return DecodingSession(self.name, inner, lambda: self.joints(model), known)


@dataclass(frozen=True)
class UnbatchedRunner(Scheduled):
    """A model fed one entry of a batch at a time: do its results depend on what else is in the batch?

    Attributes:
        runner, settings: See `Scheduled`.
    """

    flag: ClassVar[str] = "unbatched"

    @property
    def schedule(self) -> str:
        """See `Runner.schedule`."""
        return "one entry of the batch at a time"

    def joints(self, model: Model) -> Joints:
        """See `joints.of_entries`."""
        from .joints import of_entries

        return of_entries(self.name, model)

    def open(  # type: ignore[override]
        self, model: Model, *, fetch: Sequence[str] = (), workload: Workload
    ) -> UnbatchedSession:
        """See `Runner.open`.

        Raises:
            RunnerError: The model takes no batches.
        """
        from .joints import batched
        from .session import UnbatchedSession, in_entries

        names = batched(self.name, model)
        joints = self.joints(model)
        alone = self.fed_with(workload, in_entries(self.name, names, workload.samples))
        inner = self.in_one_run.session(model, fetch=[n for n in fetch if n in joints], workload=alone)
        return UnbatchedSession(self.name, inner, lambda: joints, names)
