"""A number format without the accelerator: ONNX Runtime computes, on the CPU or on CUDA, the values that it would give.

What is rounded where is `layerdiff.graph.rounding.emulation`'s; here are the configuration, the ranges that INT8 and
FP8 need, and the session, which is ONNX Runtime's on the rewritten graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..graph.errors import BuildError, RunnerError, UsageError
from ..graph.formats import FORMATS, NumberFormat
from ..graph.options import Choice, Number, Threads, option
from ..graph.printable import counted
from .contract.capabilities import Capabilities
from .contract.runner import Runner, Watch
from .contract.session import Calibration, Session, SessionInfo
from .contract.workload import Feed, Workload
from .onnxrt.runner import OnnxrtRunner

if TYPE_CHECKING:
    import numpy as np

    from ..graph.model import Model
    from ..graph.rounding.rewrite import Note, Rewrite

_SCALED = ("fp8", "e4m3", "e5m2", "int8")
_BINS = 2048
UNFUSED = ("LayerNormFusionL1", "LayerNormFusionL2", "SimplifiedLayerNormFusion")
"""Optimizers of ONNX Runtime that take the casts around a normalization into the fused one, for whose types there may
be no kernel."""


@dataclass(frozen=True)
class EmulateRunner(Runner):
    """Simulate FP16, BF16, TF32, FP8 or INT8: ONNX Runtime computes, and values are rounded between.

    Attributes:
        format: ``fp16``, ``bf16``, ``tf32``, ``fp8`` (the same as ``e4m3``), ``e4m3``, ``e5m2`` or ``int8``.
        every_node: Round what every node gives, not only what fused groups give.
        decomposed: Round at every step inside LayerNormalization and Softmax.
        cast_weights: Weights overflow and underflow as in a plain cast; else they are clamped, as TensorRT does it.
        percentile: The share of an activation's magnitudes, in percent, that its range covers (INT8 and FP8).
        unscaled: FP8 casts values as they are, without ranges.
        fp16_accumulation: FP16 products add in FP16, 16 at a time, as FP16 kernels do; see
            `layerdiff.graph.rounding.fp16_accumulation`.
        provider: Where ONNX Runtime computes: ``cpu`` or ``cuda``.
        keep: Names of nodes, or patterns of them (``*``, ``?``), that stay FP32, with the fused groups they are in.
        custom_ops: Shared libraries of custom operators.
        threads: Threads of one operator; 0 leaves the choice to ONNX Runtime.
        ranges: Largest magnitude of each activation, as `calibrated` measured it.
        low_memory, sleeps: As of `OnnxrtRunner`.
    """

    flag: ClassVar[str] = "emulate"
    capabilities: ClassVar[Capabilities] = Capabilities(inner_tensors=True, opens_ahead=True)
    value_field: ClassVar[str] = "format"
    value_required: ClassVar[bool] = True

    format: str = option("fp16", "", "number format", Choice("fp16", "bf16", "tf32", "fp8", "e4m3", "e5m2", "int8"))
    every_node: bool = option(
        False, "--emulate-every-node", "emulation rounds after every node, not only where fused groups end"
    )
    decomposed: bool = option(
        False, "--emulate-decomposed", "emulation rounds at every step inside LayerNormalization and Softmax"
    )
    cast_weights: bool = option(
        False, "--emulate-cast-weights", "emulated weights overflow to infinity instead of being clamped"
    )
    percentile: float = option(
        100.0,
        "--emulate-percentile",
        "share of magnitudes that an emulated INT8 or FP8 range covers (default: 100, the maximum)",
        Number(50, 100),
        metavar="P",
    )
    unscaled: bool = option(
        False, "--emulate-unscaled", "emulated FP8 casts values without scaling them by their range"
    )
    fp16_accumulation: bool = option(
        False,
        "--emulate-fp16-accumulation",
        "emulated FP16 adds in FP16, as most of TensorRT's FP16 kernels do (slower)",
    )
    provider: str = option(
        "cpu",
        "--emulate-provider",
        "execution provider of ONNX Runtime that computes what is emulated",
        Choice("cpu", "cuda"),
    )
    keep: tuple[str, ...] = option((), "", "node (or pattern, *) that stays FP32; may be repeated", metavar="NODE")
    custom_ops: tuple[str, ...] = option(
        (), "--ort-custom-ops", "library of custom operators for ONNX Runtime; may be repeated", metavar="LIB"
    )
    threads: int = option(
        0, "--ort-threads", "threads of ONNX Runtime (default: its own choice)", Threads(), metavar="N"
    )
    ranges: tuple[tuple[str, float], ...] | None = None
    low_memory: bool = False
    sleeps: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fp16_accumulation and self.format != "fp16":
            raise UsageError(f"{self.name}: fp16_accumulation is for FP16; other kernels add in FP32 or INT32.")
        if isinstance(self.ranges, Mapping):
            object.__setattr__(self, "ranges", tuple(self.ranges.items()))
        OnnxrtRunner(custom_ops=self.custom_ops, threads=self.threads)  # refuses what it cannot be

    @property
    def trust(self) -> int:
        """50: never the reference where anything else runs."""
        return 50

    @property
    def arithmetic(self) -> NumberFormat:
        """The emulated format."""
        return FORMATS["e4m3" if self.format == "fp8" else self.format]

    @property
    def rounds_every_node(self) -> bool:
        """Whether normalizations and Softmax round inside, too."""
        return self.every_node or self.decomposed

    @property
    def adds_exactly(self) -> bool:
        """As ONNX Runtime does on the CPU."""
        return self.provider == "cpu" and not self.fp16_accumulation

    @property
    def gpus(self) -> int:
        """One on CUDA; see `Runner.gpus`."""
        return int(self.provider == "cuda")

    @property
    def accumulator(self) -> NumberFormat:
        """What products add in."""
        return FORMATS["fp16" if self.fp16_accumulation else "fp32"]

    @property
    def foreign(self) -> bool:
        """See `Runner.foreign`."""
        return super().foreign or bool(self.custom_ops)

    def for_model(self, model: Model) -> EmulateRunner:
        """With the nodes that the patterns of ``keep`` mean; see `Runner.for_model`.

        Raises:
            UsageError: The model has no such node.
        """
        if not self.keep:
            return self
        from ..graph.rounding.kept import named_nodes

        return self.keeping(named_nodes(model.index, self.keep, self.name, model.source))

    def keeping(self, nodes: Collection[str]) -> EmulateRunner:
        """See `Runner.keeping`."""
        return replace(self, keep=tuple(nodes))

    @property
    def narrows(self) -> bool:
        """See `Runner.narrows`."""
        return True

    @property
    def kept(self) -> tuple[str, ...]:
        """See `Runner.kept`."""
        return self.keep

    def untimed(self) -> EmulateRunner:
        """See `Runner.untimed`."""
        return replace(self, sleeps=True)

    def for_pieces(self, deployed: SessionInfo | None = None) -> EmulateRunner:
        """See `OnnxrtRunner.for_pieces`. Pieces have the scales of the whole model."""
        found = None if deployed is None else deployed.calibration
        known = self.ranges if found is None or not self.scaled else tuple(found.ranges.items())
        return replace(self, low_memory=True, ranges=known)

    def for_bodies(self) -> EmulateRunner:
        """See `Runner.for_bodies`: in a body, activations are not rounded to INT8 or FP8."""
        return replace(self, ranges=())

    @property
    def activation_ranges(self) -> Mapping[str, float] | None:
        """See `Runner.activation_ranges`."""
        return None if self.ranges is None else dict(self.ranges)

    @property
    def scaled(self) -> bool:
        """Whether activations have scales, for which ranges must be measured."""
        return self.format == "int8" or (self.format in _SCALED and not self.unscaled)

    def calibrated(
        self,
        model: Model,
        workload: Workload | None,
        progress: Callable[[str], None] | None = None,
        run: Watch | None = None,
    ) -> EmulateRunner:
        """This configuration with the ranges of ``model``'s activations, for sessions on pieces of it.

        Args:
            model: The whole model.
            workload: Gives the samples.
            progress: Told what is being done.
            run: Runs the model on samples and gives the tensors that are named, in any portions; None: as a whole.

        Returns:
            Itself, if the format needs no ranges or they are known.

        Raises:
            UsageError: There are no samples.
            MissingPackage: ONNX Runtime is not installed.
        """
        if not self.scaled or self.ranges is not None:
            return self
        samples = None if workload is None else workload.calibrating
        if samples is None:
            raise UsageError(f"{self.name} measures the ranges of activations on samples, and was given none.")
        from ..graph.rounding.emulation import needed_ranges
        from ..graph.rounding.inlined import inlined

        if run is None:
            model = inlined(model)
        names = needed_ranges(model.index, self.format, self.every_node)
        if progress:
            progress(f"measuring ranges of {counted(len(names), 'tensor')}")
        portions = run(_ort(self), names, samples) if run else _whole(_ort(self), model, names, samples)
        measured = _measure(self, names, portions)
        return replace(self, ranges=tuple(measured.items()))

    def rewritten(self, model: Model) -> Rewrite:
        """The graph that a session of a calibrated configuration runs: ``model``, with the format's roundings in it.

        It takes FP32 where the model's inputs are FP16 or BF16 (`graph.rounding.widening.to_fp32`), and gives FP32.
        `Rewrite.nodes` are those that add in FP16.
        """
        from ..graph.rounding.emulation import rewrite

        made = rewrite(
            model,
            self.format,
            every_node=self.every_node,
            decomposed=self.decomposed,
            ranges=dict(self.ranges or ()),
            cast_weights=self.cast_weights,
            keep=self.keep,
        )
        if not self.fp16_accumulation:
            return made
        from ..graph.rounding.fp16_accumulation import accumulate_in_fp16

        looped = accumulate_in_fp16(made.model, self.keep)
        adding = looped.nodes & frozenset(model.index.names)
        return replace(made, model=looped.model, notes=(*made.notes, *looped.notes), nodes=adding)

    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> EmulateSession:
        """A session on ``model``, rewritten. Ranges, where the format needs them and `calibrated` has not measured
        them, are measured on the workload's samples.

        Raises:
            UsageError: The format needs ranges, and there are no samples to measure them on.
            MissingPackage: ONNX Runtime is not installed.
            BuildError: ONNX Runtime refuses the model.
        """
        settled = self if model.derived else self.for_model(model)
        runner = settled.calibrated(model, workload, progress)
        return EmulateSession(runner, model, fetch, progress or (lambda stage: None))


@dataclass(frozen=True)
class _EmulationOrt(OnnxrtRunner):
    """ONNX Runtime under the emulation's name, for its messages."""

    flag: ClassVar[str] = ""
    disabled_optimizers: tuple[str, ...] = UNFUSED
    label: str = "emulate"

    @property
    def name(self) -> str:
        """The emulation's name."""
        return self.label


def _ort(runner: EmulateRunner) -> _EmulationOrt:
    return _EmulationOrt(
        provider=runner.provider,
        custom_ops=runner.custom_ops,
        threads=runner.threads,
        low_memory=runner.low_memory,
        sleeps=runner.sleeps,
        label=runner.name,
    )


class EmulateSession(Session):
    """ONNX Runtime's session on the rewritten graph, in which every tensor kept its name."""

    def __init__(
        self, runner: EmulateRunner, model: Model, fetch: Sequence[str], progress: Callable[[str], None]
    ) -> None:
        from ..graph.rounding.widening import is_narrow

        wide = _double(runner, model)
        progress(f"rewriting the graph for {runner.arithmetic}")
        rewritten = runner.rewritten(model)
        self._session = _ort(runner).open(rewritten.model, fetch=fetch, progress=progress)
        self.inputs = model.inputs
        self.outputs = model.outputs
        self._name = runner.name
        self._narrow = {n: spec for n, spec in model.index.specs.items() if is_narrow(spec.dtype)}
        info = self._session.info
        options: dict[str, Any] = {
            "format": runner.format,
            "rounding": "every node" if runner.every_node else "borders of fused groups",
            "decomposed": runner.decomposed,
            "weights": "cast" if runner.cast_weights else "clamped",
            "sums": "FP16, 16 products at a time" if runner.fp16_accumulation else "FP32",
        }
        if runner.keep:
            options["keep"] = list(runner.keep)
        if runner.format in _SCALED:
            options["ranges"] = "none" if not runner.scaled else f"percentile {runner.percentile:g}"
            if runner.scaled and runner.percentile == 100:
                options["ranges"] = "maximum"
        self.info = SessionInfo(
            {**options, **info.options},
            info.versions,
            (*info.notes, *(_said(note) for note in rewritten.notes), *wide, *_without_effect(runner)),
            fp16_accumulation=rewritten.nodes if runner.fp16_accumulation else frozenset(),
            idle="" if rewritten.roundings else f"nothing of this network was rounded to {runner.arithmetic}",
            calibration=Calibration(options["ranges"], dict(runner.ranges or ())) if runner.scaled else None,
        )

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once; see `Session.infer`. A tensor inside a fused group is FP32."""
        from ..graph.specs import cast

        found = self._session.infer(self._widened(feed), fetch)
        return {name: cast(array, self._narrow.get(name)) for name, array in found.items()}

    def _widened(self, feed: Feed) -> Feed:
        """What the rewritten graph takes: FP32 where the model's inputs are FP16 or BF16."""
        from ..graph.rounding.widening import to_fp32

        for name, array in feed.items():
            if name in self._narrow and array.dtype != self._narrow[name].dtype:
                raise RunnerError(
                    f"{self._name}: input {name!r} is {self._narrow[name].dtype}, the value given {array.dtype}."
                )
        return to_fp32(feed)

    def close(self) -> None:
        """Frees ONNX Runtime's session."""
        self._session.close()


def _said(note: Note) -> str:
    """A note of the rewriting, with the option that would make it otherwise."""
    if not note.setting:
        return note.text
    flag = next(f.metadata["flag"] for f in fields(EmulateRunner) if f.name == note.setting)
    return f"{note.text} {flag} turns this off."


def _without_effect(runner: EmulateRunner) -> tuple[str, ...]:
    """What to say of options that change nothing in this format."""
    given = {
        f"percentile={runner.percentile:g}": runner.percentile != 100 and not runner.scaled,
        "unscaled": runner.unscaled and (runner.format == "int8" or runner.format not in _SCALED),
    }
    return tuple(f"{name} changes nothing in {runner.format}." for name, idle in given.items() if idle)


def _double(runner: EmulateRunner, model: Model) -> tuple[str, ...]:
    """What to say of float64, which emulation leaves as it is.

    Raises:
        BuildError: The model computes in nothing else, so that nothing would be rounded.
    """
    floats = {spec.dtype.name for spec in model.index.specs.values() if spec.dtype.kind == "f"}
    if "float64" not in floats:
        return ()
    if floats == {"float64"} and not model.derived:
        raise BuildError(
            f"{runner.name}: {model.source} computes in float64, of which emulation rounds nothing. "
            "Convert it to float32 first."
        )
    return ("Tensors in float64 are left as they are: emulation rounds float32.",)


def _whole(
    engine: OnnxrtRunner, model: Model, names: Sequence[str], samples: Callable[[], Iterable[Feed]]
) -> Iterator[Feed]:
    """Tensors of the whole model, sample by sample."""
    with engine.open(model, fetch=names) as session:
        for feed in samples():
            yield session.infer(feed, names)


def _measure(runner: EmulateRunner, names: Sequence[str], portions: Iterable[Feed]) -> dict[str, float]:
    """Largest magnitude of each tensor over all samples, or the one that covers ``runner.percentile`` of them."""
    import numpy as np

    largest = dict.fromkeys(names, 0.0)
    histograms: dict[str, _Magnitudes] = {}
    count = 0
    for portion in portions:
        count += 1
        for name, value in portion.items():
            sizes = np.abs(np.asarray(value, np.float32))
            finite = sizes[np.isfinite(sizes)]
            if not finite.size:
                continue
            largest[name] = max(largest[name], float(finite.max()))
            if runner.percentile < 100:
                histograms.setdefault(name, _Magnitudes()).add(finite)
    if not count:
        raise UsageError(f"{runner.name} measures the ranges of activations on samples, and was given none.")
    if runner.percentile < 100:
        largest.update({name: h.percentile(runner.percentile) for name, h in histograms.items()})
    return largest


class _Magnitudes:
    """A histogram of magnitudes that grows: when a value is beyond its end, the end doubles and bins merge."""

    def __init__(self) -> None:
        self._counts: np.ndarray | None = None
        self._end = 0.0

    def add(self, values: np.ndarray) -> None:
        """Adds finite magnitudes."""
        import numpy as np

        top = float(values.max())
        if self._counts is None:
            self._counts = np.zeros(_BINS, np.int64)
        if self._end == 0 and top > 0:
            self._end = 2.0 ** math.ceil(math.log2(top))
        while top > self._end > 0:
            self._counts = np.concatenate([self._counts.reshape(-1, 2).sum(1), np.zeros(_BINS // 2, np.int64)])
            self._end *= 2
        if self._end == 0:
            self._counts[0] += values.size
            return
        self._counts += np.histogram(values, _BINS, (0.0, self._end))[0]

    def percentile(self, percent: float) -> float:
        """The upper end of the bin at which ``percent`` of the values are reached."""
        import numpy as np

        assert self._counts is not None
        reached = np.searchsorted(np.cumsum(self._counts), percent / 100 * self._counts.sum())
        return float((min(int(reached), _BINS - 1) + 1) * self._end / _BINS)
