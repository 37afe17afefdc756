"""Sessions on an engine: one that is built from a model, or one that is loaded from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.session import Calibration, Session, SessionInfo
from . import cuda
from .build import build
from .built import BuiltSession, why_not_run
from .engines import calibration_of, check_version, made_on, options_of, save
from .in_fp32 import in_fp32, note_of
from .inspector import deployed_info
from .library import versions_of
from .made import Made
from .network import loosened, specialized
from .ranges import find_ranges, method_name
from .session import EngineFile, TrtSession

if TYPE_CHECKING:
    from ...graph.engine import Engine
    from ...graph.model import Model
    from ..contract.workload import Workload
    from .config import TrtConfig
    from .made import Built
    from .plan import Plan
    from .versions import Library

Observe = Callable[[Sequence[str], SessionInfo], Session]
"""Opens an engine that gives inner tensors too, by the facts of the one that does not."""


def load_engine(
    engine: Engine, model: Model, config: TrtConfig, library: Library, observe: Observe, progress: Callable[[str], None]
) -> TrtSession:
    """A session on an engine in a file.

    Args:
        engine: The file.
        model: The network that it belongs to, or one that stands for it.
        config: The number formats that it was built with.
        library: The installed TensorRT.
        observe: Opens engines that give inner tensors too.
        progress: Told what is being done.

    Raises:
        RunnerError: Another version of TensorRT wrote it, or it cannot be loaded.
    """
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
        options={"modes": list(config.modes) or ["fp32"], "nodes": _nodes(model), **options_of(engine)},
        versions=versions_of(library),
        notes=tuple(notes),
        calibration=None if other else calibration_of(engine),
    )
    session = TrtSession(
        library,
        engine.content(),
        model,
        info=info,
        observe=None if model.opaque else observe,
        file=EngineFile(str(engine), made_on(engine, cuda.gpu())),
    )
    if not model.opaque:
        session.info = deployed_info(session.info, session.layers(), model)
    return session


def make_engine(
    model: Model,
    config: TrtConfig,
    plan: Plan,
    library: Library,
    *,
    fetch: Sequence[str],
    work: Workload,
    progress: Callable[[str], None],
) -> Made:
    """Builds an engine for ``model``.

    Args:
        model: The whole model, or a piece of one.
        config: The configuration.
        plan: What it means for this version.
        library: The installed TensorRT.
        fetch: Inner tensors that the engine shall give too.
        work: What will be run.
        progress: Told what is being done.

    Raises:
        BuildError: TensorRT refuses the model; names the ONNX node.
        UsageError: This version of TensorRT lacks what was asked for; shapes or samples are missing.
    """
    if config.debug_tensors:
        library.require("debug-tensors")
    if not model.derived and not fetch:
        config = replace(config, deployed=None)
    prepared, notes, calibration = _prepare(model, config, plan, work, progress)
    prepared, fixed = loosened(specialized(prepared, work.samples, work.shape_sets), library)
    ready = replace(work, profiles=tuple({**fixed, **shapes} for shapes in work.shape_sets))
    built = build(prepared, config, plan, library, fetch=fetch, work=ready, progress=progress)
    if plan.calibrator is not None and built.calibration is not None:
        calibration = Calibration(plan.calibrator, cache=built.calibration)
    info = SessionInfo(
        options={"nodes": _nodes(model), **_options(config, plan, built)},
        versions=versions_of(library),
        notes=(*notes, *built.notes),
        calibration=calibration,
        timing_cache=built.timing_cache,
    )
    return Made(built, info)


def open_engine(
    made: Made, model: Model, config: TrtConfig, library: Library, observe: Observe, *, whole: bool
) -> TrtSession | BuiltSession:
    """A session on an engine that was built for ``model``; one that runs nothing, where there is no GPU.

    Args:
        made: The engine.
        model: The whole model, or a piece of one.
        config: What it was built from.
        library: The installed TensorRT.
        observe: Opens engines that give inner tensors too.
        whole: Whether it is the engine that would be deployed, which is saved where that is asked for.

    Raises:
        RunnerError: The engine cannot be loaded.
    """
    built, info = made.built, made.info
    session: TrtSession | BuiltSession
    if cuda.gpu():
        debug = config.debug_tensors
        session = TrtSession(library, built.engine, model, info=info, observe=observe, debug_tensors=debug)
        if whole:
            session.info = deployed_info(session.info, session.layers(), model)
    else:
        session = BuiltSession(model, replace(info, not_run=why_not_run(config.compute_capability)))
    if whole and config.save_engine:
        save(Path(config.save_engine), config, model, built, session, library)
    return session


def _prepare(
    model: Model, config: TrtConfig, plan: Plan, work: Workload, progress: Callable[[str], None]
) -> tuple[Model, tuple[str, ...], Calibration | None]:
    """The model with the types and the Q/DQ nodes that ``plan`` wants written into it, and the ranges of the latter."""
    notes: tuple[str, ...] = ()
    calibration = None
    keep = frozenset(config.keep)
    if plan.quantize:
        from ...graph.rounding.qdq import quantizable, quantize

        known = None if config.deployed is None else config.deployed.calibration
        calibration = Calibration(
            method_name(plan.method), find_ranges(model, plan.method, known, work.calibrating, progress)
        )
        if known is None or quantizable(model.index, calibration.ranges, keep):  # a piece may hold no product
            quantized = quantize(model, plan.quantize, calibration.ranges, keep, opset=19 if plan.rewrite else 0)
            model, notes = quantized.model, tuple(note.text for note in quantized.notes)
    if plan.rewrite:
        from ...graph.rounding.typed import typed

        progress(f"writing {plan.rewrite.upper()} types into the graph")
        refused = {name: op for name, op in in_fp32(model.index, plan.rewrite).items() if name not in keep}
        notes += (note_of(refused, plan.rewrite),) if refused else ()
        model = typed(model, plan.rewrite, keep.union(refused)).model
    return model, notes, calibration


def _nodes(model: Model) -> int:
    return 0 if model.opaque else len(model.proto.graph.node)


def _options(config: TrtConfig, plan: Plan, built: Built) -> dict[str, Any]:
    """What is known of a built engine, for the report."""
    options: dict[str, Any] = {
        "modes": list(config.modes) or ["fp32"],
        "tf32": config.tf32,
        "strongly_typed": plan.strongly_typed,
        "workspace": config.workspace,
        "optimization_level": config.optimization_level,
        "tactic_sources": [t.lower() for t in config.tactics] or "default",
        "timing_cache": config.timing_cache or "in memory",
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
    if config.compute_capability:
        options["compute_capability"] = list(config.compute_capability)
    if config.keep:
        options["keep"] = list(config.keep)
    return options
