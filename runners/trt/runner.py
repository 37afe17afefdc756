"""TensorRT, versions 8.5 to 11: built from ONNX, or loaded from an engine beside the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ...graph.errors import RunnerError, UsageError
from ..contract.capabilities import Capabilities
from ..contract.runner import Runner
from ..contract.workload import ShapeRange, Workload
from .config import CALIBRATORS, MODES, QDQ_METHODS, TrtConfig
from .library import installed, load_plugins, require_gpu

if TYPE_CHECKING:
    from ...graph.engine import Engine
    from ...graph.formats import NumberFormat
    from ...graph.model import Model
    from ...graph.specs import TensorSpec
    from ..contract.session import SessionInfo
    from .built import BuiltSession
    from .made import Made
    from .plan import Plan
    from .session import TrtSession
    from .versions import Library

_COARSEST = ("int8", "fp8", "bf16", "fp16", "tf32")


@dataclass(frozen=True)
class TrtRunner(TrtConfig, Runner):
    """TensorRT on an NVIDIA GPU.

    FP32 without TF32 unless a mode is chosen. On TensorRT 8.5 to 10 modes are builder flags: TensorRT picks per layer
    what is fastest among them and FP32. From 11 on, and with ``strongly_typed`` on 10, they are types written into the
    ONNX graph. The fields are those of `TrtConfig`.
    """

    flag: ClassVar[str] = "trt"
    rtx: ClassVar[bool] = False
    """Whether it is TensorRT for RTX, which builds without a GPU."""
    value_form: ClassVar[str] = "fp16,int8,..."
    value_words: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fp32": {"fp32": True},
        **{kind: {"calibrator": kind} for kind in CALIBRATORS},
        **{f"qdq-{method}": {"int8_qdq": method} for method in QDQ_METHODS},
    }
    """``--trt=fp32`` takes no further format, whatever ``--fp16`` says; ``--trt=int8,minmax`` names a calibration."""
    capabilities: ClassVar[Capabilities] = Capabilities(
        inner_tensors=True,
        reads_engines=True,
        builds_for_shapes=True,
        keeps_inputs=True,
        builds_apart=True,
        output_files=("save_engine",),
        caches=("timing_cache",),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.int8_qdq and not self.int8:
            object.__setattr__(self, "int8", True)

    @property
    def name(self) -> str:
        """``trt``, ``trt:fp16``, ``trt:fp16+int8``, ``trt:int8+minmax``."""
        return f"{self.flag}:{self.formats_text}" if self.formats_text else self.flag

    @property
    def trust(self) -> int:
        """40: believed after every CPU runtime."""
        return 40

    @property
    def gpus(self) -> int:
        """One; see `Runner.gpus`."""
        return 0 if self.only_builds else 1

    @property
    def may_crash(self) -> bool:
        """Yes: the parser of 8.6 ends in a segmentation fault on some networks."""
        return True

    @property
    def accumulator(self) -> NumberFormat:
        """FP16 where FP16 kernels may be chosen: TensorRT 8.6 adds in FP16 in most of them (docs/gpu.md)."""
        from ...graph.formats import FP16, FP32

        return FP16 if self.fp16 and not self.strongly_typed else FP32

    @property
    def arithmetic(self) -> NumberFormat:
        """The coarsest allowed format: which layers TensorRT really computes in it is its own choice."""
        from ...graph import formats

        for mode in _COARSEST:
            if getattr(self, mode):
                return formats.E4M3 if mode == "fp8" else formats.FORMATS[mode]
        return formats.FP32

    @classmethod
    def applicable(cls, own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
        """``--trt`` takes the formats that stand as long options; ``--trt=fp16,int8`` exactly those that it names."""
        taken = set(own)
        if taken & {*MODES}:
            taken |= {*MODES} if "int8" in own else {*MODES, "int8_qdq"}
        if taken & {"calibrator", "int8_qdq"}:
            taken |= {"calibrator", "int8_qdq"}
        return {name: value for name, value in defaults.items() if name not in taken}

    @classmethod
    def configured(cls, own: Mapping[str, Any], defaults: Mapping[str, Any]) -> Runner:
        """See `Runner.configured`. INT8 finds its ranges in one way.

        Raises:
            UsageError: Ranges are spoken of without INT8, or in two ways.
        """
        ways = [name for name in ("calibrator", "int8_qdq") if name in own]
        if len(ways) > 1:
            raise UsageError(
                f"--{cls.flag}: INT8 finds its ranges in one way; name each --{cls.flag}=int8,... by itself."
            )
        settings = {name: value for name, value in {**defaults, **own}.items() if name != "fp32"}
        if ways and not settings.get("int8"):
            way = own.get("calibrator") or f"qdq-{own['int8_qdq']}"
            raise UsageError(f"--{cls.flag}={way} is a way to INT8; write --{cls.flag}=int8,{way}.")
        return cls(**settings)

    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> TrtSession | BuiltSession:
        """Builds (or loads) the engine and gives a session on it; see `Runner.open`.

        Raises:
            MissingPackage: TensorRT is not installed.
            ProviderUnavailable: It is, but cannot be loaded, or there is no GPU.
            BuildError: TensorRT refuses the model; names the ONNX node.
            UsageError: This version of TensorRT lacks what was asked for.
        """
        library, plan = self._loaded(self.loads_engine(model))
        from .caches import add_timings
        from .opening import load_engine, make_engine, open_engine

        say = progress or _silent
        work = workload or Workload()
        whole = not model.derived and not fetch
        engine = self._engine(model) if whole or model.opaque else None  # it is read and hashed: not for every piece
        if model.opaque and (engine is None or not whole):
            why = engine.origin[1] if engine is not None else "its network is not known"
            raise RunnerError(f"{model.label} gives its own outputs alone: {why}.")

        def observe(names: Sequence[str], info: SessionInfo) -> TrtSession | BuiltSession:
            deployed = self.deployed if model.derived else info
            again = replace(self, engine=None, save_engine=None, debug_tensors=False, deployed=deployed, made=None)
            return again.with_timings(info.timing_cache).open(model, fetch=names, workload=work)

        if engine is not None and whole:
            return load_engine(engine, model, self, library, observe, say)
        settled = self if model.derived else self.for_model(model)
        made = self.made
        if made is None:
            made = make_engine(model, settled, plan, library, fetch=fetch, work=work, progress=say)
        else:
            add_timings(made.built.timing_cache, self, library)
        return open_engine(made, model, settled, library, observe, whole=whole)

    def _loaded(self, runs: bool) -> tuple[Library, Plan]:
        """The library, ready to build, and what this configuration means for it.

        Args:
            runs: Whether it will have to run something: TensorRT for RTX builds without a GPU.
        """
        library = installed(self.rtx)
        from .plan import resolve

        plan = resolve(self, library)
        if not self.rtx or runs:
            require_gpu(library)
        load_plugins(self.plugins)
        return library, plan

    def build(self, model: Model, workload: Workload, refittable: bool = False) -> Made:
        """See `Building.build`. Kernel timings are taken from the file and not written there: `open` does that."""
        library, plan = self._loaded(False)
        from .caches import kept
        from .opening import make_engine

        lent = (
            self
            if self.timing_cache in (None, "off")
            else replace(self, timing_cache=None, timings=kept(self.timing_cache) or self.timings)
        )
        plan = replace(plan, flags=(*plan.flags, "REFIT")) if refittable else plan
        return make_engine(model, lent, plan, library, fetch=(), work=workload, progress=_silent)

    @property
    def refits(self) -> bool:
        """Where types and scales are TensorRT's own business; see `Building.refits`. Those that are written into the
        graph, and ranges that were calibrated, belong to the layers that an engine was built for."""
        from .plan import resolve

        plan = resolve(self, installed(self.rtx))
        return not (plan.rewrite or plan.quantize or plan.calibrator)

    def refit(self, model: Model, made: Made, before: Model) -> Made:
        """See `Building.refit`."""
        library, plan = self._loaded(False)
        from .refit import refit

        return refit(model, made, before, self, plan, library)

    def opened_on(self, made: Made) -> TrtRunner:
        """See `Building.opened_on`."""
        return replace(self, made=made)

    def _engine(self, model: Model) -> Engine | None:
        """The engine that is run instead of building one."""
        from ...graph.engine import Engine

        return Engine.at(self.engine) if self.engine else model.engine

    def for_model(self, model: Model) -> TrtRunner:
        """The number formats that the engine was built with, where they were kept beside it, and the nodes that the
        patterns of ``keep`` mean; see `Runner.for_model`."""
        engine = self._engine(model)
        if engine is None:
            if not self.keep:
                return self
            from ...graph.rounding.kept import named_nodes

            return self.keeping(named_nodes(model.index, self.keep, self.name, model.source))
        from .engines import as_built

        return as_built(self, engine)

    def keeping(self, nodes: Collection[str]) -> TrtRunner:
        """See `Runner.keeping`."""
        return replace(self, keep=tuple(nodes))

    @property
    def narrows(self) -> bool:
        """Unless it runs an engine that is built already, or FP32 alone; see `Runner.narrows`."""
        return bool(self.modes) and not self.engine

    @property
    def kept(self) -> tuple[str, ...]:
        """See `Runner.kept`."""
        return self.keep

    def loads_engine(self, model: Model) -> bool:
        """``--engine`` was given, or the model is an engine; see `Runner.loads_engine`."""
        return bool(self.engine) or super().loads_engine(model)

    def engine_profiles(self, model: Model) -> tuple[Mapping[str, ShapeRange], ...]:
        """The profiles that are kept beside the engine; see `Runner.engine_profiles`."""
        engine = self._engine(model)
        profiles = () if engine is None else engine.profiles
        return tuple({name: ShapeRange(*shapes) for name, shapes in profile.items()} for profile in profiles)

    def engine_io(self, model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of an engine; see `Runner.engine_io`."""
        engine = self._engine(model)
        if engine is None:
            return super().engine_io(model)
        library = installed(self.rtx)
        require_gpu(library)
        load_plugins(self.plugins)
        from .dtypes import specs_of

        return specs_of(library, engine.content(), str(engine))

    def for_pieces(self, deployed: SessionInfo | None = None) -> TrtRunner:
        """See `Runner.for_pieces`. Engines of pieces are built in the number formats that the deployed engine chose: in
        none of 16 bits that no layer of it runs in, which a piece might take all the same."""
        if deployed is None:
            return self
        from .summary import unused

        idle = unused(deployed.options)
        used = replace(self, fp16=self.fp16 and "fp16" not in idle, bf16=self.bf16 and "bf16" not in idle)
        return replace(used, deployed=deployed).with_timings(deployed.timing_cache)

    def with_timings(self, timing_cache: bytes) -> TrtRunner:
        """See `Runner.with_timings`. Of two kernels that are equally fast, the builder takes the same again."""
        return replace(self, timings=timing_cache)


def _silent(phrase: str) -> None:
    pass
