"""TensorRT, versions 8.5 to 11: built from ONNX, or loaded from an engine beside the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ...graph.errors import RunnerError, UsageError
from ...graph.options import option
from ..contract.runner import Runner
from ..contract.session import SessionInfo
from ..contract.workload import ShapeRange, Workload
from .library import installed, load_plugins, require_gpu, versions_of

if TYPE_CHECKING:
    from ...graph.engine import Engine
    from ...graph.formats import NumberFormat
    from ...graph.model import Model
    from ...graph.specs import TensorSpec
    from .build import Built
    from .plan import Plan
    from .session import TrtSession
    from .versions import Library

MODES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
"""Number formats that may be mixed in ``--trt=fp16,int8``; fp32 is always there."""

INT8_BY = ("entropy2", "entropy", "minmax", "qdq-max", "qdq-percentile", "qdq-entropy")
"""How INT8 finds its ranges, beside it in ``--trt=int8,minmax``: one of TensorRT's calibrators, or Q/DQ nodes."""

_COARSEST = ("int8", "fp8", "bf16", "fp16", "tf32")
_SUFFIXES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def size(text: str) -> int:
    """Bytes from ``512M``, ``4G`` or a plain number.

    Raises:
        ValueError: It is none of these.
    """
    number = text.lower().removesuffix("b").removesuffix("i")
    suffix = number[-1:] if number[-1:].isalpha() else ""
    if suffix not in _SUFFIXES:
        raise ValueError(text)
    return int(float(number.removesuffix(suffix)) * _SUFFIXES[suffix])


@dataclass(frozen=True)
class TrtRunner(Runner):
    """TensorRT on an NVIDIA GPU.

    FP32 without TF32 unless a mode is chosen. On TensorRT 8.5 to 10 modes are builder flags: TensorRT picks per layer
    what is fastest among them and FP32. From 11 on, and with ``strongly_typed`` on 10, they are types written into the
    ONNX graph.

    Attributes:
        fp16, bf16, tf32, int8, fp8: Number formats allowed beside FP32.
        engine: A serialized engine to run instead of building one; pieces of the model are still built.
        save_engine: Where to write the engine of the whole model; what it was built from goes beside it, in a file of
            its name and ``.json``.
        workspace: Bytes of scratch memory that tactics may take.
        timing_cache: File that keeps kernel timings between builds, or ``off``. Without one they are kept for the life
            of the process.
        tactic_sources: Comma-separated names of the tactic sources to use instead of TensorRT's default.
        plugins: Plugin libraries to load first.
        optimization_level: The builder's, 0 to 5.
        strongly_typed: Take the types in the ONNX graph as law (10 and later; always from 11 on).
        calibrator: TensorRT's INT8 calibrator: entropy2 (its default), entropy or minmax. None: entropy2.
        calibration_cache: File that keeps its result.
        int8_qdq: Write Q/DQ nodes into the graph instead, from ranges found by max, percentile or entropy.
        keep_fp32: Names of ONNX nodes that stay FP32 in a mixed engine.
        debug_tensors: Mark unfused tensors for the debug listener (10.12 and later), see ``TrtSession.unfused``.
    """

    flag: ClassVar[str] = "trt"
    value_field: ClassVar[str] = "modes"
    reads_engines: ClassVar[bool] = True
    writes: ClassVar[tuple[str, ...]] = ("save_engine",)
    builds_for_shapes: ClassVar[bool] = True

    fp16: bool = option(False, "--fp16", "let TensorRT use FP16")
    bf16: bool = option(False, "--bf16", "let TensorRT use BF16 (9 and later)")
    tf32: bool = option(False, "--tf32", "let TensorRT multiply FP32 in TF32")
    int8: bool = option(False, "--int8", "let TensorRT use INT8, calibrated on the input data")
    fp8: bool = option(False, "--fp8", "let TensorRT use FP8 (9 and later), scaled by the input data")
    engine: str | None = option(None, "--engine", "run this serialized TensorRT engine of the model", metavar="FILE")
    save_engine: str | None = option(
        None, "--save-engine", "write the TensorRT engine, and beside it what it was built from", metavar="FILE"
    )
    workspace: int | None = option(
        None, "--workspace", "scratch memory for TensorRT's kernels, e.g. 4G", metavar="BYTES", type=size
    )
    timing_cache: str | None = option(
        None, "--timing-cache", "keep TensorRT's kernel timings in this file ('off': none at all)", metavar="FILE"
    )
    tactic_sources: str | None = option(
        None, "--tactic-sources", "use these tactic sources only, e.g. jit_convolutions", metavar="NAMES"
    )
    plugins: tuple[str, ...] = option((), "--trt-plugin", "load this TensorRT plugin library", metavar="LIB")
    optimization_level: int | None = option(
        None, "--trt-optimization-level", "how hard TensorRT looks for fast kernels, 0 to 5", type=int, choices=range(6)
    )
    strongly_typed: bool = option(False, "--strongly-typed", "TensorRT 10: the types in the ONNX graph are law")
    calibrator: str | None = option(
        None,
        "--calibrator",
        "TensorRT's INT8 calibrator (default: entropy2)",
        choices=("entropy2", "entropy", "minmax"),
    )
    calibration_cache: str | None = option(
        None, "--calibration-cache", "keep the INT8 calibration here", metavar="FILE"
    )
    int8_qdq: str | None = option(
        None,
        "--int8-qdq",
        "INT8 by Q/DQ nodes in the graph, with ranges found so, instead of TensorRT's calibrator",
        choices=("max", "percentile", "entropy"),
    )
    keep_fp32: tuple[str, ...] = ()
    debug_tensors: bool = False

    def __post_init__(self) -> None:
        if self.int8_qdq and not self.int8:
            object.__setattr__(self, "int8", True)

    @property
    def modes(self) -> tuple[str, ...]:
        """The number formats allowed beside FP32, in the order of `MODES`."""
        return tuple(mode for mode in MODES[1:] if getattr(self, mode))

    @property
    def tactics(self) -> tuple[str, ...]:
        """Members of ``tensorrt.TacticSource`` that were asked for."""
        return tuple(t.strip().upper() for t in (self.tactic_sources or "").split(",") if t.strip())

    @property
    def name(self) -> str:
        """``trt``, ``trt:fp16``, ``trt:fp16+int8``, ``trt:int8+minmax``."""
        return ":".join(filter(None, ("trt", "+".join((*self.modes, *self._int8_by)))))

    @property
    def _int8_by(self) -> tuple[str, ...]:
        """The member of `INT8_BY` that was asked for, if any."""
        if not self.int8:
            return ()
        if self.int8_qdq:
            return (f"qdq-{self.int8_qdq}",)
        return (self.calibrator,) if self.calibrator else ()

    @property
    def trust(self) -> int:
        """40: believed after every CPU runtime."""
        return 40

    @property
    def accumulator(self) -> NumberFormat:
        """FP16 where FP16 kernels may be chosen: TensorRT 8.6 adds in FP16 in most of them (docs/gpu.md)."""
        from ...graph.formats import FP16, FP32

        return FP16 if self.fp16 and not self.strongly_typed else FP32

    def alike(self) -> tuple[Runner, Runner] | None:
        """Emulated FP16, if that is all that is allowed beside FP32; see `Runner.alike`."""
        from ..emulate import EmulateRunner

        narrow = self.arithmetic.name == "fp16" and self.accumulator.name == "fp16"
        return (EmulateRunner(narrow_sums=True), EmulateRunner()) if narrow else None

    @property
    def arithmetic(self) -> NumberFormat:
        """The coarsest allowed format: which layers TensorRT really computes in it is its own choice."""
        from ...graph import formats

        for mode in _COARSEST:
            if getattr(self, mode):
                return formats.E4M3 if mode == "fp8" else formats.FORMATS[mode]
        return formats.FP32

    @classmethod
    def from_value(cls, value: str | None, **options: Any) -> Runner:
        """``--trt`` takes the modes that stand as options; ``--trt=fp16,int8`` exactly those it names.

        A value may also say how INT8 finds its ranges, ``--trt=int8,minmax``, so that one command can hold several.

        Raises:
            UsageError: A mode is unknown, or ranges are spoken of without INT8 or in two ways.
        """
        if value is None:
            return cls(**options)
        words = [word for word in value.lower().replace("+", ",").split(",") if word]
        by = [word for word in words if word in INT8_BY]
        asked = [word for word in words if word not in by]
        unknown = [mode for mode in asked if mode not in MODES]
        if unknown or not words:
            raise UsageError(f"--trt={value}: not among {', '.join(MODES)} (or several, with commas between them).")
        if by and "int8" not in asked:
            raise UsageError(f"--trt={value}: {by[0]} is a way to INT8; write --trt=int8,{by[0]}.")
        if len(by) > 1:
            raise UsageError(f"--trt={value}: INT8 finds its ranges in one way; name each --trt=int8,... by itself.")
        if by:
            qdq = by[0].removeprefix("qdq-") if by[0].startswith("qdq-") else None
            options = {**options, "int8_qdq": qdq, "calibrator": None if qdq else by[0]}
        elif "int8" not in asked:
            options = {**options, "int8_qdq": None}
        return cls(**{**options, **{mode: mode in asked for mode in MODES[1:]}})

    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> TrtSession:
        """Builds (or loads) the engine and gives a session on it; see `Runner.open`.

        Raises:
            MissingPackage: TensorRT is not installed.
            ProviderUnavailable: It is, but cannot be loaded, or there is no GPU.
            BuildError: TensorRT refuses the model; names the ONNX node.
            UsageError: This version of TensorRT lacks what was asked for.
        """
        library = installed()
        from .plan import resolve

        plan = resolve(self, library)
        require_gpu(library)
        load_plugins(self.plugins)
        say = progress or _silent
        work = workload or Workload()
        whole = not model.derived and not fetch
        engine = self._engine(model) if whole or model.opaque else None  # it is read and hashed: not for every piece
        if model.opaque and (engine is None or not whole):
            why = engine.origin[1] if engine is not None else "its network is not known"
            raise RunnerError(f"{model.label} gives its own outputs alone: {why}.")
        if engine is not None and whole:
            return self._load(engine, model, plan, library, work, say)
        return self._build(model, plan, library, fetch, work, say)

    def _engine(self, model: Model) -> Engine | None:
        """The engine that is run instead of building one."""
        from ...graph.engine import Engine

        return Engine.at(self.engine) if self.engine else model.engine

    def for_model(self, model: Model) -> TrtRunner:
        """The number formats that the engine was built with, where they were kept beside it; see `Runner.for_model`."""
        engine = self._engine(model)
        if engine is None:
            return self
        from .engines import as_built

        return as_built(self, engine)

    def loads(self, model: Model) -> bool:
        """``--engine`` was given, or the model is an engine; see `Runner.loads`."""
        return bool(self.engine) or super().loads(model)

    def built_for(self, model: Model) -> tuple[Mapping[str, ShapeRange], ...]:
        """The profiles that are kept beside the engine; see `Runner.built_for`."""
        engine = self._engine(model)
        profiles = () if engine is None else engine.profiles
        return tuple({name: ShapeRange(*shapes) for name, shapes in profile.items()} for profile in profiles)

    def describe(self, model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of an engine; see `Runner.describe`."""
        engine = self._engine(model)
        if engine is None:
            return super().describe(model)
        library = installed()
        require_gpu(library)
        load_plugins(self.plugins)
        from .dtypes import specs_of

        return specs_of(library, engine.path.read_bytes(), str(engine))

    def _load(
        self,
        engine: Engine,
        model: Model,
        plan: Plan,
        library: Library,
        work: Workload,
        progress: Callable[[str], None],
    ) -> TrtSession:
        from . import cuda
        from .engines import check_version, made_on, options_of, remember
        from .session import TrtSession

        check_version(engine, library)
        progress("loading the engine")
        notes = []
        if not engine.facts:
            notes.append("The engine was loaded, not built: its number formats and types are those it was built with.")
        other = "" if model.opaque else engine.built_from(model.source)
        if other:
            notes.append(f"{other}: what differs may come from there.")
        elif model.opaque and (why := engine.origin[1]):
            notes.append(f"Outputs alone are compared: {why}.")
        info = SessionInfo(
            options={"modes": list(self.modes) or ["fp32"], "nodes": _nodes(model), **options_of(engine)},
            versions=versions_of(library),
            notes=tuple(notes),
        )
        session = TrtSession(
            library,
            engine.path.read_bytes(),
            model,
            info=info,
            observe=None if model.opaque else self._observer(model, work),
            name=str(engine),
            where=made_on(engine, cuda.gpu()),
            loaded=True,
        )
        if not model.opaque:
            if not other:
                remember(engine, model, plan, library)
            self._keep(model, session)
        return session

    def _keep(self, model: Model, session: TrtSession) -> None:
        """Remembers what the engine of the whole model is made of, for those that observe it."""
        from .caches import DEPLOYED_FORMATS, DEPLOYED_KERNELS, formats_key
        from .inspector import groups, node_formats

        key, layers = formats_key(model, self), session.layers()
        DEPLOYED_FORMATS[key] = node_formats(layers)
        # A region of Myelin's is many kernels, of which the inspector does not tell.
        told = [layer for layer in layers if "myelin" not in layer.kind.lower() and not layer.passive]
        DEPLOYED_KERNELS[key] = tuple(groups(told, model))

    def kernels(self, model: Model) -> tuple[frozenset[int], ...]:
        """What the engine's inspector told, Myelin's regions left out; see `Runner.kernels`."""
        from .caches import DEPLOYED_KERNELS, formats_key

        return DEPLOYED_KERNELS.get(formats_key(model, self), ())

    def _observer(self, model: Model, work: Workload) -> Callable[[Sequence[str]], TrtSession]:
        """Opens engines that give inner tensors too."""
        again = replace(self, engine=None, save_engine=None, debug_tensors=False)
        return lambda names: again.open(model, fetch=names, workload=work)

    def _build(
        self,
        model: Model,
        plan: Plan,
        library: Library,
        fetch: Sequence[str],
        work: Workload,
        progress: Callable[[str], None],
    ) -> TrtSession:
        from pathlib import Path

        from .build import build
        from .engines import save
        from .network import loosened, specialized
        from .session import TrtSession

        debug = self.debug_tensors
        if debug:
            library.require("debug-tensors")
        prepared, notes = _prepare(model, self, plan, work, progress)
        prepared, fixed = loosened(specialized(prepared, work.samples, work.shape_sets), library)
        built = build(
            prepared,
            self,
            plan,
            library,
            fetch=fetch,
            samples=work.samples,
            calibration=work.calibrating,
            shape_sets=[{**fixed, **shapes} for shapes in work.shape_sets],
            deployed=not model.derived and not fetch,
            progress=progress,
        )
        info = SessionInfo(
            options={"nodes": _nodes(model), **self._options(plan, built)},
            versions=versions_of(library),
            notes=(*notes, *built.notes),
        )
        observe = self._observer(model, work)
        session = TrtSession(library, built.engine, model, info=info, observe=observe, debug_tensors=debug)
        if not model.derived and not fetch:
            self._keep(model, session)
            if self.save_engine:
                save(Path(self.save_engine), self, plan, model, built, session, library)
        return session

    def _options(self, plan: Plan, built: Built) -> dict[str, Any]:
        options: dict[str, Any] = {
            "modes": list(self.modes) or ["fp32"],
            "tf32": self.tf32,
            "strongly_typed": plan.strongly_typed,
            "workspace": self.workspace,
            "optimization_level": self.optimization_level,
            "tactic_sources": [t.lower() for t in self.tactics] or "default",
            "timing_cache": self.timing_cache or "in memory",
            "layers_parsed": built.parsed,
            "layers_computing": built.computing,
            "build_seconds": round(built.seconds, 3),
        }
        if plan.calibrator:
            options["calibrator"] = plan.calibrator
        if plan.quantize:
            options["qdq"] = f"{plan.quantize} {plan.method}"
        if built.profiles:
            options["profiles"] = [
                {n: [list(s) for s in shapes] for n, shapes in profile.items()} for profile in built.profiles
            ]
        if self.keep_fp32:
            options["keep_fp32"] = list(self.keep_fp32)
        return options


def _nodes(model: Model) -> int:
    return 0 if model.opaque else len(model.proto.graph.node)


def _silent(phrase: str) -> None:
    pass


def _prepare(
    model: Model,
    runner: TrtRunner,
    plan: Plan,
    work: Workload,
    progress: Callable[[str], None],
) -> tuple[Model, tuple[str, ...]]:
    """The model with the types and the Q/DQ nodes that ``plan`` wants written into it."""
    notes: tuple[str, ...] = ()
    keep = frozenset(runner.keep_fp32)
    if plan.quantize:
        from ...graph.rounding.qdq import quantize
        from .ranges import find_ranges

        ranges = find_ranges(model, plan.method, work.calibrating, progress)
        model, notes = quantize(model, plan.quantize, ranges, keep, opset=19 if plan.rewrite else 0)
    if plan.rewrite:
        from ...graph.rounding.typed import typed

        progress(f"writing {plan.rewrite.upper()} types into the graph")
        model = typed(model, plan.rewrite, keep)
    return model, notes
