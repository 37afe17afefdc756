"""From an ONNX model to a serialized engine: parse, configure, build."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...graph.errors import BuildError, UsageError
from ..contract.workload import ShapeRange
from .caches import (
    calibrator_of,
    formats_key,
    keep_calibration,
    load_timing,
    quantized_already,
    save_timing,
    timing_key,
)
from .callbacks import make_monitor
from .failures import why_not_built
from .log import log_of, weight_notes
from .network import computing_layers, mark_outputs, network_flags, parse, rename_inputs
from .pins import pin_layers, pinned
from .plan import Plan
from .profiles import Ranges, add_profiles, calibration_profile

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.workload import Feed
    from .runner import TrtRunner
    from .versions import Library


Progress = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """A serialized engine and how it came about.

    Attributes:
        engine: The plan, as TensorRT serialized it.
        parsed: Layers of the parsed network, constants included.
        computing: Layers of the parsed network without constants and shape arithmetic.
        seconds: Time of the build alone.
        profiles: Of each optimization profile, input name -> (min, opt, max) where the shape is dynamic; empty where no
            profile is needed.
        calibration: What TensorRT's calibrator found or was given, as it serializes it.
        notes: What the user should know.
    """

    engine: bytes
    parsed: int
    computing: int
    seconds: float
    profiles: tuple[Ranges, ...] = ()
    calibration: bytes | None = None
    notes: tuple[str, ...] = ()


def build(
    model: Model,
    runner: TrtRunner,
    plan: Plan,
    library: Library,
    *,
    fetch: Sequence[str],
    samples: Callable[[], Iterable[Feed]] | None,
    calibration: Callable[[], Iterable[Feed]] | None,
    shape_sets: Sequence[Mapping[str, ShapeRange]],
    deployed: bool,
    progress: Progress,
) -> Built:
    """Builds an engine for ``model``.

    Args:
        model: The network, already in the types that ``plan`` wants.
        runner: The configuration.
        plan: What it means for this version.
        library: The installed TensorRT.
        fetch: Inner tensors to mark as outputs.
        samples: Samples for profiles.
        calibration: Samples for TensorRT's calibrators.
        shape_sets: Shape ranges of inputs, for one optimization profile each.
        deployed: Whether this is the whole model with its own outputs alone, not something observed.
        progress: Told what is being done.

    Raises:
        BuildError: TensorRT refuses the network; the message names the ONNX node.
        UsageError: A shape range contradicts the model, or shapes are missing.
    """
    trt, log = library.trt, log_of(library.trt)
    log.begin()
    trt.init_libnvinfer_plugins(log, "")
    progress("parsing the network")
    builder = trt.Builder(log)
    network = builder.create_network(network_flags(plan, library))
    parser = trt.OnnxParser(network, log)
    parse(parser, model, library)
    rename_inputs(network, model)
    parsed, computing = network.num_layers, computing_layers(network, trt)
    mark_outputs(network, fetch, library)
    if runner.debug_tensors:
        network.mark_unfused_tensors_as_debug_tensors()

    config = builder.create_builder_config()
    _configure(config, runner, plan, library)
    pins = pinned(runner, plan, formats_key(model, runner), not deployed)
    if pins:
        # What the user keeps is law; what the deployed engine chose need not exist for a piece.
        law = set(pins) <= set(runner.keep_fp32)
        config.set_flag(
            trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS if law else trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS
        )
        pin_layers(network, pins, trt)
    used = add_profiles(builder, network, config, samples, shape_sets)
    key = timing_key(runner, library)
    if key:
        load_timing(config, runner, key)
    elif runner.timing_cache == "off":
        config.set_flag(trt.BuilderFlag.DISABLE_TIMING_CACHE)
    calibrator, notes = None, []
    if plan.calibrator and not quantized_already(model):
        progress("calibrating")
        calibrator, cache_key = calibrator_of(model, runner, plan, library, network, calibration, deployed)
        config.int8_calibrator = calibrator
        if used:
            config.set_calibration_profile(calibration_profile(builder, network, calibration, used[0]))

    progress("building the engine")
    if library.has("progress"):
        config.progress_monitor = make_monitor(trt, progress)
    start = time.perf_counter()
    try:
        plan_bytes = builder.build_serialized_network(network, config)
    finally:
        if calibrator is not None:
            calibrator.close()
    seconds = time.perf_counter() - start
    if calibrator is not None and calibrator.error is not None:
        raise calibrator.error
    if plan_bytes is None:
        raise BuildError(why_not_built(model, library, list(log.errors), network))
    if calibrator is not None:
        notes += keep_calibration(calibrator, runner, cache_key)
    if key:
        save_timing(config, runner, key)
    notes += weight_notes(list(log.warnings))
    calibration_bytes = None if calibrator is None else calibrator.measured or calibrator.cache
    return Built(bytes(plan_bytes), parsed, computing, seconds, tuple(used), calibration_bytes, tuple(notes))


def _configure(config: Any, runner: TrtRunner, plan: Plan, library: Library) -> None:
    trt = library.trt
    if "TF32" not in plan.flags:
        config.clear_flag(trt.BuilderFlag.TF32)
    for flag in plan.flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if runner.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, runner.workspace)
    if runner.optimization_level is not None:
        config.builder_optimization_level = runner.optimization_level
    if runner.tactic_sources is not None:
        sources = 0
        for name in runner.tactics:
            member = getattr(trt.TacticSource, name, None)
            if member is None:
                known = ", ".join(sorted(trt.TacticSource.__members__)).lower()
                raise UsageError(f"--tactic-sources {name.lower()}: {library} has {known}.")
            sources |= 1 << int(member)
        config.set_tactic_sources(sources)
