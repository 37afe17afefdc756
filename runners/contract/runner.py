"""What a runner must fulfil.

A runner is two things kept apart. The *configuration* is a frozen dataclass: picklable, comparable, with a readable
repr, and no runtime behind it. The *session* is what it opens on a model, or on a piece of one.

A new runtime is one new module in this folder with one subclass of `Runner`; `runners.discover` finds it, and the
``compare`` command makes its options from the fields that are declared with `option`. Runners of other distributions
are found through the entry-point group ``layerdiff.runners``. Heavy packages are imported in `Runner.open`, never when
the module is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from ...graph.errors import UsageError

if TYPE_CHECKING:
    import os

    import numpy as np

    from ...graph.formats import NumberFormat
    from ...graph.model import Model
    from ...graph.specs import TensorSpec
    from .device import DeviceArray

Feed = Mapping[str, "np.ndarray"]
"""Arrays by tensor name."""


def option(default: Any, flag: str, help: str, **arguments: Any) -> Any:
    """A configuration field that is also a command-line option.

    Args:
        default: Value of the field when the option is not given.
        flag: The option, e.g. ``"--ort-optimization"``. Runners may share one (``--workspace``).
        help: One line for ``compare --help``.
        arguments: Passed to ``argparse.ArgumentParser.add_argument`` (``choices``, ``metavar``, ``type``, ``action``).
            A ``bool`` field becomes a switch, a ``tuple`` field an option that may be repeated.
    """
    return field(default=default, metadata={"flag": flag, "help": help, "arguments": arguments})


@dataclass(frozen=True)
class ShapeRange:
    """Shapes of one input that a runtime must be ready for."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class Workload:
    """What a session will be asked to do: known before it opens, for those runtimes that build for it.

    Attributes:
        samples: Gives the input samples anew at each call.
        shapes: Shape ranges of inputs; an input that is not named here has the shapes of the samples.
        profiles: Several sets of such ranges, for a runtime that builds for each of them; empty: ``shapes`` is the only
            one.
        calibration: Gives other samples, to calibrate on; None: those that are run.
    """

    samples: Callable[[], Iterable[Feed]] | None = None
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    profiles: tuple[Mapping[str, ShapeRange], ...] = ()
    calibration: Callable[[], Iterable[Feed]] | None = None

    @property
    def calibrating(self) -> Callable[[], Iterable[Feed]] | None:
        """What INT8 and FP8 find their ranges on."""
        return self.calibration or self.samples

    @property
    def shape_sets(self) -> tuple[Mapping[str, ShapeRange], ...]:
        """The sets of shape ranges to build for, one at least."""
        return self.profiles or (self.shapes,)


def seen_ranges(samples: Iterable[Feed], names: Iterable[str]) -> dict[str, ShapeRange]:
    """The shapes that inputs have in samples: least and greatest of each dimension, and those of the first sample.

    An input whose rank changes has no range and is left out.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in names}
    for sample in samples:
        for name, found in shapes.items():
            found.append(tuple(int(d) for d in sample[name].shape))
    return {
        name: ShapeRange(*(tuple(f(column) for column in zip(*found, strict=True)) for f in (min, lambda c: c[0], max)))
        for name, found in shapes.items()
        if len({len(shape) for shape in found}) == 1
    }


@dataclass(frozen=True)
class SessionInfo:
    """What a session turned out to be, for the report.

    Attributes:
        options: The settings in force, defaults included; values that JSON can hold.
        versions: Package or library -> version.
        notes: Sentences that the user should read (nodes that fell back to the CPU, clamped weights).
        narrow_sums: Names of nodes whose products add up in FP16 for certain, as far as the runtime tells.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    narrow_sums: frozenset[str] = frozenset()


class Session(ABC):
    """A model, or a piece of one, ready to run. A context manager: leaving it frees what it holds."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    info: SessionInfo = SessionInfo()
    device: str = ""
    """Where `infer_on_device` leaves what it can (``"cuda:0"``); empty where that is host memory."""

    @abstractmethod
    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once.

        Args:
            feed: One array for every input. The arrays are read-only and stay the caller's.
            fetch: Tensors to return; None means the model's outputs. Tensors that `Runner.open` was not told of cost a
                second session at their first use, where the runtime can give them at all.

        Returns:
            The fetched tensors by name, in the order of ``fetch``. The arrays are the caller's.

        Raises:
            RunnerError: The runtime failed, or cannot give a tensor that was asked for.
        """

    def infer_on_device(
        self, feed: Mapping[str, np.ndarray | DeviceArray], fetch: Sequence[str] | None = None
    ) -> dict[str, np.ndarray | DeviceArray]:
        """Runs once, as `infer` does, and downloads only what cannot stay on `device`.

        Args:
            feed: One array for every input, in host memory or on `device`.
            fetch: See `infer`.

        Returns:
            The fetched tensors. Arrays on the device may be read until this session runs again or closes; later, they
            refuse to be.

        Raises:
            RunnerError: See `infer`.
        """
        import numpy as np

        return dict(self.infer({name: np.asarray(array) for name, array in feed.items()}, fetch))

    def close(self) -> None:  # noqa: B027 - most sessions have nothing to free
        """Frees what the session holds. May be called twice."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class Runner(ABC):
    """The configuration of a runtime.

    Attributes:
        model: Path of the model this runner opens when `Comparator` is not given one.
    """

    flag: ClassVar[str] = ""
    """``--FLAG`` on the command line and the first part of `name`."""
    value_field: ClassVar[str] = ""
    """The field that takes VALUE of ``--FLAG=VALUE``; empty where there is none."""
    value_required: ClassVar[bool] = False
    """Whether ``--FLAG`` needs its VALUE; it may then also stand as the next word (``--emulate fp16``)."""
    values: ClassVar[tuple[str, ...]] = ()
    """The legal values of `value_field`, for help and messages; empty if open-ended."""
    opens_pieces: ClassVar[bool] = True
    """Whether sessions can be opened on a piece of an ONNX graph."""
    fetches_any: ClassVar[bool] = True
    """Whether sessions return inner tensors of the graph."""
    opens_ahead: ClassVar[bool] = False
    """Whether a session can be opened before the shapes of its inputs are known, and in a thread of its own."""
    feeds_any: ClassVar[bool] = False
    """Whether sessions take inner tensors in ``feed``."""
    reads_engines: ClassVar[bool] = False
    """Whether it runs serialized engines (`Model.engine`); others run the model that the engine was built from."""
    writes: ClassVar[tuple[str, ...]] = ()
    """Fields that name a file to write: one for each runner."""
    builds_for_shapes: ClassVar[bool] = False
    """Whether a session runs those shapes alone that its workload named when it was opened."""

    model: str | os.PathLike[str] | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call it: ``onnxrt``, ``onnxrt:cuda``, ``trt:fp16``."""

    @property
    @abstractmethod
    def trust(self) -> int:
        """Rank when a reference is chosen; the lowest is believed. tf 0, onnxrt on the CPU 10, reference-evaluator 20,
        other onnxrt providers 30, trt 40, emulate 50; third parties 45 unless they know better."""

    @property
    @abstractmethod
    def arithmetic(self) -> NumberFormat:
        """The coarsest number format that this configuration computes FP32 layers in."""

    @property
    def repeatable(self) -> bool:
        """Whether the same inputs give the same bits for certain, where a model draws no random values.

        What is not certain is run twice before a layer is blamed.
        """
        return False

    @property
    def accumulator(self) -> NumberFormat:
        """The coarsest format in which sums of products may be added up: FP32 unless the runtime says otherwise."""
        from ...graph.formats import FP32

        return FP32

    @property
    def adds_exactly(self) -> bool:
        """Whether sums of products are known to be sums of rounded products in some order, which error bounds assume.
        Winograd's convolutions are not, and tensor cores may truncate."""
        return False

    @abstractmethod
    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Session:
        """Builds or loads ``model`` and returns a session on it.

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

    def for_model(self, model: Model) -> Runner:
        """The configuration as ``model`` settles it: what an engine was built with is no longer a choice.

        Raises:
            UsageError: It was built with something else than what is asked for.
        """
        return self

    def loads(self, model: Model) -> bool:
        """Whether opening the whole ``model`` loads an engine instead of building from the graph."""
        return self.reads_engines and model.engine is not None

    def built_for(self, model: Model) -> tuple[Mapping[str, ShapeRange], ...]:
        """The sets of shape ranges that an engine was built for, where they are known; empty otherwise."""
        return ()

    def kernels(self, model: Model) -> tuple[frozenset[int], ...]:
        """Positions of nodes that run as one kernel in the session last opened on the whole ``model``, as far as the
        runtime tells; each node in at most one of them."""
        return ()

    def describe(self, model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of an engine, found out by opening it.

        Raises:
            RunnerError: This runtime reads no engines, or not this one.
        """
        from ...graph.errors import RunnerError

        raise RunnerError(f"{self.name} cannot run {model.label}.")

    def alike(self) -> tuple[Runner, Runner] | None:
        """Two runners on the CPU that round as this one does where it adds in FP16: with such sums, and with sums in
        FP32; None where nobody does."""
        return None

    def for_pieces(self) -> Runner:
        """The same arithmetic, set up for many short-lived sessions side by side instead of one that serves."""
        return self

    @classmethod
    def from_value(cls, value: str | None, **options: Any) -> Runner:
        """The configuration that ``--FLAG`` or ``--FLAG=VALUE`` asks for.

        Raises:
            UsageError: The value is not legal.
        """
        if value is None:
            if cls.value_required:
                raise UsageError(f"--{cls.flag} needs a value: {', '.join(cls.values)}.")
            return cls(**options)
        if not cls.value_field:
            raise UsageError(f"--{cls.flag} takes no value; got {value!r}.")
        if cls.values and value not in cls.values:
            raise UsageError(f"--{cls.flag}={value}: not one of {', '.join(cls.values)}.")
        return cls(**{**options, cls.value_field: value})

    @classmethod
    def cli_fields(cls) -> list[Any]:
        """The dataclass fields that are command-line options."""
        return [f for f in fields(cls) if "flag" in f.metadata]
