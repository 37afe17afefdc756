"""What a runner must fulfil.

A runner is two things kept apart. The *configuration* is a frozen dataclass: picklable, comparable, with a readable
repr, and no runtime behind it. The *session* is what it opens on a model, or on a piece of one.

A new runtime is one new module in this folder with one subclass of `Runner`; `runners.discover` finds it, and the
``compare`` command makes its options from the fields that are declared with `option`. Runners of other distributions
are found through the entry-point group ``layerdiff.runners``. Heavy packages are imported in `Runner.open`, never when
the module is imported.
"""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from ...graph.errors import MissingPackage, RunnerError, UsageError
from ...graph.foreign import contained
from ...graph.formats import FP32, NumberFormat
from ...graph.options import check
from .building import Building
from .capabilities import Capabilities
from .grammar import Grammar
from .opened import Function, accepted, opened
from .options import as_tuples, hyphenated, options_of
from .workload import Workload

if TYPE_CHECKING:
    import os
    from concurrent.futures import Future

    from ...graph.model import Model
    from ...graph.specs import TensorSpec
    from .session import Session, SessionInfo
    from .workload import Feed, ShapeRange

Watch: TypeAlias = "Callable[[Runner, Sequence[str], Callable[[], Iterable[Feed]]], Iterable[Feed]]"
"""Runs a whole model on samples and gives the tensors that are named, in any portions."""


T = TypeVar("T")


class Isolation(Protocol):
    """Opens sessions somewhere else than in this process, and runs there what may take it along."""

    def open(
        self,
        runner: Runner,
        model: Model,
        fetch: Sequence[str],
        workload: Workload,
        progress: Callable[[str], None],
    ) -> Session:
        """See `Runner.session`."""

    def call(self, runner: Runner, method: str, model: Model) -> Any:
        """What a method of a runner gives for a model.

        Raises:
            RunnerError: The process died meanwhile, or took too long.
        """


class Builders(Protocol):
    """Builds engines somewhere else than in this process, several at a time (`Capabilities.builds_apart`)."""

    begun: dict[str, Any]
    """Engines that were begun before somebody asked for them, by the name of their side."""

    def build(self, runner: Runner, model: Model, workload: Workload, refittable: bool = False) -> Any:
        """See `Building.build`; waits until it is done."""

    def refit(self, runner: Runner, model: Model, made: Any, before: Model) -> Any:
        """See `Building.refit`; waits until it is done."""

    def submit(self, task: Callable[..., T], *arguments: Any) -> Future[T]:
        """Runs a function in a thread of its own, which may wait for `build`."""


@dataclass(frozen=True)
class Runner(Building, ABC):
    """The configuration of a runtime.

    Attributes:
        model: Path of the model this runner opens when `Comparator` is not given one.
        isolation: What opens its sessions in a process of their own (`opened_by`); None: they are opened here.
    """

    flag: ClassVar[str] = ""
    """``--FLAG`` on the command line; empty: it is named by ``--runner module:Class``."""
    value_field: ClassVar[str] = ""
    """The field that takes VALUE of ``--FLAG=VALUE``; empty where there is none."""
    value_required: ClassVar[bool] = False
    """Whether ``--FLAG`` needs its VALUE; it may then also stand as the next word (``--emulate fp16``)."""
    value_suffixes: ClassVar[tuple[str, ...]] = ()
    """How the name of a file ends that may stand as the next word, too (``--tflite model.tflite``)."""
    value_form: ClassVar[str] = ""
    """How help writes VALUE, where it is more than one of the choices of `value_field`."""
    value_words: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Further words of VALUE, and the settings of fields that each stands for."""
    capabilities: ClassVar[Capabilities] = Capabilities()

    model: str | os.PathLike[str] | None = None
    isolation: Isolation | None = field(default=None, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        as_tuples(self)
        check(self)

    @property
    def name(self) -> str:
        """What reports call it: its flag, or its class's name, and its value where that is not the usual one:
        ``onnxrt``, ``onnxrt:cuda``, ``my-runtime``."""
        kind = self.flag or hyphenated(type(self).__name__)
        if not self.value_field:
            return kind
        value = getattr(self, self.value_field)
        usual = type(self).__dataclass_fields__[self.value_field].default
        return kind if value == usual and not self.value_required else f"{kind}:{value}"

    @property
    def stored_in(self) -> str:
        """What its outputs are read from, where they were computed before; of two that read the same, neither says
        anything of the other."""
        return ""

    @property
    def trust(self) -> int:
        """Rank when a reference is chosen; the lowest is believed. tf 0, onnxrt on the CPU 10, reference-evaluator 20,
        other onnxrt providers 30, tflite 35, trt 40, emulate 50; others 45 unless they know better."""
        return 45

    @property
    def gpus(self) -> int:
        """GPUs that a session takes, for whoever shares machines out."""
        return 0

    @property
    def arithmetic(self) -> NumberFormat:
        """The coarsest number format that this configuration computes FP32 layers in: FP32 unless it says otherwise."""
        return FP32

    @property
    def accumulator(self) -> NumberFormat:
        """The coarsest format in which sums of products may be added up: FP32 unless the runtime says otherwise."""
        return FP32

    @property
    def rounds_every_node(self) -> bool:
        """Whether every node rounds its result to `arithmetic`, not only where a fused group ends."""
        return False

    @property
    def rounds_to_types(self) -> bool:
        """Whether a tensor that the graph types FP16 or BF16 holds what its type holds, also between two nodes."""
        return True

    @property
    def adds_exactly(self) -> bool:
        """Whether sums of products are known to be sums of rounded products in some order, which error bounds assume.
        Winograd's convolutions are not, and tensor cores may truncate."""
        return False

    def open(self, model: Model, *args: Any, **kwargs: Any) -> Session | Function:
        """Builds or loads ``model`` and returns a session on it, or a function from arrays by input name to arrays by
        output name: the one method that a runner needs. It is called by `session`.

        It takes the model, and of the following keyword arguments those that it wants.

        Args:
            model: The model or a piece of one.
            fetch: Inner tensors that `Session.infer` will be asked for besides the outputs.
            workload: What will be run, where the runtime builds for it.
            progress: Called with a short present participle phrase ("building the engine") when a stage begins.

        Raises:
            MissingPackage: The runtime is not installed.
            ProviderUnavailable: The device or provider is not there or not in use.
            BuildError: The runtime refuses the model.
        """
        raise RunnerError(f"{self.name}: {type(self).__name__} has no method `open(self, model)`.")

    def session(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Session:
        """A session on ``model``: what `open` returns, with whatever its author left out.

        Its inputs and outputs are the model's unless it has its own. What `infer` returns is looked at: a session gives
        what it was asked for, or says in the runner's name what it did instead.

        Args:
            model, fetch, workload, progress: See `open`.

        Raises:
            RunnerError: See `open`; or it returned neither a session nor a function.
        """
        told = progress if progress is not None else _silent
        if self.isolation is not None:
            return self.isolation.open(self.opened_by(None), model, fetch, workload or Workload(), told)
        offered = {"fetch": fetch, "workload": workload or Workload(), "progress": told}
        with contained():
            result = self.open(model, **accepted(self.open, offered))

        def reopen(changed: Model) -> Session:
            return self.session(changed, workload=workload)

        can = self.capabilities
        return opened(self.name, result, model, reopen if can.pieces and can.any_model else None, can.inner_tensors)

    def opened_by(self, isolation: Isolation | None) -> Runner:
        """The same, whose sessions are opened by something else, and so those of all that is made of it; None: here."""
        made = copy.copy(self)
        object.__setattr__(made, "isolation", isolation)
        return made

    def there(self, method: str, model: Model) -> Any:
        """What one of its methods gives for a model, run where its sessions are opened.

        Raises:
            LayerdiffError: See the method; or its process died, or took too long.
        """
        if self.isolation is not None:
            return self.isolation.call(self.opened_by(None), method, model)
        with contained():
            return getattr(self, method)(model)

    @property
    def foreign(self) -> bool:
        """Whether its sessions run code that is neither this package's nor a runtime's: it may take the program with
        it, and is run in a process of its own where the user does not say otherwise."""
        return not type(self).__module__.startswith(__package__.removesuffix("contract"))

    @property
    def may_crash(self) -> bool:
        """Whether its runtime may take the program with it, on models that it cannot read: its sessions are opened in a
        process of their own where the user does not say otherwise."""
        return self.foreign

    def for_model(self, model: Model) -> Runner:
        """The configuration as ``model`` settles it: what an engine was built with is no longer a choice.

        Raises:
            UsageError: It was built with something else than what is asked for.
        """
        return self

    def settled(self, model: Model) -> Runner:
        """The configuration as the program that it brings along settles it: that program may have to be loaded, which
        is done where its sessions are opened.

        Args:
            model: The whole model.
        """
        return self

    def keeping(self, nodes: Collection[str]) -> Runner:
        """The same, with these nodes in FP32 and no others.

        Args:
            nodes: Names of nodes (`GraphIndex.names`).

        Raises:
            UsageError: This runtime cannot give single nodes another format.
        """
        raise UsageError(f"{self.name} cannot keep single nodes in FP32: that is for --emulate and --trt.")

    @property
    def narrows(self) -> bool:
        """Whether it computes in a narrower format than FP32 from which single nodes can be kept (`keeping`)."""
        return False

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the nodes that stay FP32 in a narrower network."""
        return ()

    @property
    def in_one_run(self) -> Runner | None:
        """The runner that it is but for how it is fed (`schedule`): in one run. None: it is fed so itself."""
        return None

    @property
    def schedule(self) -> str:
        """How a sample is fed to the model, completing "fed ..."; empty: in one run."""
        return ""

    def tensors_shown(self, model: Model) -> Collection[str] | None:
        """Names of those tensors of the graph that a session gives, where it opens no pieces and does not give all.

        Args:
            model: The whole model.

        Returns:
            Names, or None: every tensor.
        """
        return None

    def own_model(self, model: Model) -> Model | None:
        """The network that this runner runs whatever model it is given, as an ONNX graph.

        Its inputs and outputs have the names of the model's. None where the runner runs the model, or cannot tell.

        Args:
            model: The whole model.
        """
        return None

    def runs(self, model: Model) -> str:
        """The name of what it runs: the model's file, or what the runner was given in its place.

        Args:
            model: The whole model.
        """
        return model.source

    def loads_engine(self, model: Model) -> bool:
        """Whether opening the whole ``model`` loads an engine instead of building from the graph."""
        return self.capabilities.reads_engines and model.engine is not None

    def engine_profiles(self, model: Model) -> tuple[Mapping[str, ShapeRange], ...]:
        """The sets of shape ranges that an engine was built for, where they are known; empty otherwise."""
        return ()

    def engine_io(self, model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of an engine, found out by opening it.

        Raises:
            RunnerError: This runtime reads no engines, or not this one.
        """
        raise RunnerError(f"{self.name} cannot run {model.label}.")

    def calibrated(
        self,
        model: Model,
        workload: Workload,
        progress: Callable[[str], None] | None = None,
        run: Watch | None = None,
    ) -> Runner:
        """This configuration with the ranges that its format needs, measured on the whole ``model``.

        Args:
            model: The whole model.
            workload: Gives the samples.
            progress: Told what is being done.
            run: Runs the model where it does not fit in memory; None: as a whole.

        Returns:
            Itself, if nothing has to be measured before a session is opened.

        Raises:
            UsageError: There are no samples.
        """
        return self

    @property
    def only_builds(self) -> bool:
        """Whether sessions that are built here cannot be run here; `SessionInfo.not_run` says why."""
        return False

    @property
    def activation_ranges(self) -> Mapping[str, float] | None:
        """Largest magnitude of each activation that has a scale, as `calibrated` measured it; None: nothing has."""
        return None

    def kernels(self, model: Model, deployed: SessionInfo) -> tuple[frozenset[int], ...]:
        """Positions of nodes that run as one kernel, as far as the runtime tells; each node in at most one set.

        Args:
            model: The whole model.
            deployed: What the session on it turned out to be.
        """
        return deployed.kernels

    def with_timings(self, timing_cache: bytes) -> Runner:
        """The same, which need not time again the kernels that another session of its kind timed.

        Args:
            timing_cache: `SessionInfo.timing_cache` of that session.
        """
        return self

    def untimed(self) -> Runner:
        """The same where nobody asks how fast it is: its idle threads sleep, if they would else wait for work."""
        return self

    def for_pieces(self, deployed: SessionInfo | None = None) -> Runner:
        """The same arithmetic, set up for many short-lived sessions side by side instead of one that serves.

        Args:
            deployed: What the session on the whole model turned out to be. Pieces are given the same number formats
                and calibration. None: nothing is known of it.
        """
        return self

    @property
    def lacks_for_layers(self) -> MissingPackage | None:
        """What is not installed and shows the tensors inside a network; None where nothing is missing."""
        return None

    def levels(self) -> Mapping[str, Runner]:
        """The same at each level of graph optimization, by the level's name: from none up to its own, which is last.

        Empty where the runtime changes no graph, or has no such levels.
        """
        return {}

    @property
    def unsaturated(self) -> Runner | None:
        """The same with 8-bit kernels that never saturate within their sums; None where it has no others, or none."""
        return None

    optimizers: ClassVar[tuple[str, ...]] = ()
    """Names of the graph optimizations that `without` can leave out."""

    def without(self, optimizers: Collection[str]) -> Runner:
        """The same without some of its graph optimizations.

        Args:
            optimizers: Some of `optimizers`.
        """
        return self

    def for_bodies(self) -> Runner:
        """The same arithmetic for the body of an If, Loop or Scan, of whose tensors nothing was calibrated."""
        return self

    @classmethod
    def grammar(cls, written: str = "") -> Grammar:
        """What may stand behind ``--FLAG=``.

        Args:
            written: What messages call the runner; empty: its flag.
        """
        return Grammar(written or f"--{cls.flag}", options_of(cls, cls.value_field), cls.value_field, cls.value_words)

    @classmethod
    def from_value(cls, value: str | None, **defaults: Any) -> Runner:
        """The configuration that ``--FLAG`` or ``--FLAG=VALUE`` asks for.

        Args:
            value: VALUE; None: there is none.
            defaults: Values of fields that are not in VALUE, as far as `applicable` takes them.

        Raises:
            UsageError: The value is not legal.
        """
        own = {} if value is None else cls.grammar().read(value)
        return cls.configured(own, cls.applicable(own, defaults))

    @classmethod
    def configurable(cls, own: Mapping[str, Any]) -> type[Runner]:
        """The kind of runner whose long options hold for one.

        Args:
            own: What its own VALUE sets.
        """
        return cls

    @classmethod
    def applicable(cls, own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the options for all runners of the kind that hold for one.

        Args:
            own: What its own VALUE sets.
            defaults: Values of fields by long options.
        """
        return {name: value for name, value in defaults.items() if name not in own}

    @classmethod
    def configured(cls, own: Mapping[str, Any], defaults: Mapping[str, Any]) -> Runner:
        """The configuration with these settings.

        Raises:
            UsageError: They do not go together.
        """
        if cls.value_required and cls.value_field not in own:
            grammar = cls.grammar()
            raise UsageError(f"{grammar.written} needs a value: {grammar.options[cls.value_field].form}.")
        return cls(**{**defaults, **own})


def _silent(phrase: str) -> None:
    pass
