"""From an ONNX model to a serialized engine: parse, configure, build."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...graph.errors import BuildError, UsageError
from .caches import calibrator_of, keep_calibration, load_timing, quantized_already, save_timing
from .callbacks import make_monitor
from .failures import why_not_built
from .log import log_of, weight_notes
from .made import Built
from .network import computing_layers, mark_outputs, network_flags, parse, rename_inputs
from .pins import pin_layers, pinned
from .profiles import add_profiles, calibration_profile

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.workload import Workload
    from .config import TrtConfig
    from .plan import Plan
    from .versions import Library


def build(
    model: Model,
    config: TrtConfig,
    plan: Plan,
    library: Library,
    *,
    fetch: Sequence[str],
    work: Workload,
    progress: Callable[[str], None],
) -> Built:
    """Builds an engine for ``model``.

    Args:
        model: The network, already in the types that ``plan`` wants.
        config: The configuration.
        plan: What it means for this version.
        library: The installed TensorRT.
        fetch: Inner tensors to mark as outputs.
        work: Samples for profiles and calibrators, and a set of shape ranges for each profile.
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
    parser = trt.OnnxParser(network, log)  # it owns weights, and must outlive the build
    parse(parser, model, library)
    rename_inputs(network, model)
    parsed, computing = network.num_layers, computing_layers(network, trt)
    mark_outputs(network, fetch, library)
    if config.debug_tensors:
        network.mark_unfused_tensors_as_debug_tensors()
    builder_config = _configured(builder, network, config, plan, library)
    profiles = add_profiles(builder, network, builder_config, work.samples, work.shape_sets)
    begun = load_timing(builder_config, config, library)
    calibrator, samples = None, work.calibrating
    if plan.calibrator and not quantized_already(model):
        progress("calibrating")
        calibrator = builder_config.int8_calibrator = calibrator_of(config, plan, library, network, samples)
        if profiles:
            builder_config.set_calibration_profile(calibration_profile(builder, network, samples, profiles[0]))
    progress("building the engine")
    if library.has("progress"):
        builder_config.progress_monitor = make_monitor(trt, progress)
    engine, seconds = _serialized(builder, network, builder_config, calibrator)
    if engine is None:
        raise BuildError(why_not_built(model, library, list(log.errors), network))
    notes, calibration = weight_notes(list(log.warnings)), None
    if calibrator is not None:
        # of a piece, it would be the wrong calibration for every other one
        notes = (*keep_calibration(calibrator, None if model.derived else config.calibration_cache), *notes)
        calibration = calibrator.measured or calibrator.cache
    timing = save_timing(builder_config, config, library, begun)
    return Built(engine, parsed, computing, seconds, tuple(profiles), calibration, timing, notes)


def _serialized(builder: Any, network: Any, builder_config: Any, calibrator: Any) -> tuple[bytes | None, float]:
    """The engine as bytes, None where TensorRT's log says why there is none; and the seconds that it took.

    Raises what the samples raised.
    """
    start = time.perf_counter()
    try:
        engine = builder.build_serialized_network(network, builder_config)
    finally:
        if calibrator is not None:
            calibrator.close()
    if calibrator is not None and calibrator.error is not None:
        raise calibrator.error
    return None if engine is None else bytes(engine), time.perf_counter() - start


def _configured(builder: Any, network: Any, config: TrtConfig, plan: Plan, library: Library) -> Any:
    """TensorRT's builder configuration, and the formats that layers of the network are held to."""
    trt, result = library.trt, builder.create_builder_config()
    if "TF32" not in plan.flags:
        result.clear_flag(trt.BuilderFlag.TF32)
    for flag in plan.flags:
        result.set_flag(getattr(trt.BuilderFlag, flag))
    result.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if config.workspace is not None:
        result.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace)
    if config.optimization_level is not None:
        result.builder_optimization_level = config.optimization_level
    if config.compute_capability:
        _build_for(result, config.compute_capability, library)
    if config.tactic_sources is not None:
        result.set_tactic_sources(_tactic_sources(config, library))
    pins = pinned(config, plan)
    if pins:
        # What the user keeps is law; what the deployed engine chose need not exist for a piece.
        law = set(pins) <= set(config.keep)
        result.set_flag(
            trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS if law else trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS
        )
        pin_layers(network, pins, trt)
    return result


def _build_for(builder_config: Any, wanted: Sequence[str], library: Library) -> None:
    """Names the GPUs to build for.

    Raises:
        UsageError: This version does not know one of them.
    """
    members = library.trt.ComputeCapability.__members__
    known = {_text(name): value for name, value in members.items() if name.startswith("SM")}
    unknown = [text for text in wanted if text not in known]
    if unknown:
        raise UsageError(
            f"--compute-capability {unknown[0]}: {library} builds for {', '.join(sorted(known, key=float))}."
        )
    builder_config.num_compute_capabilities = len(wanted)
    for index, text in enumerate(wanted):
        builder_config.set_compute_capability(known[text], index)


def _text(member: str) -> str:
    """``SM89`` as ``8.9``."""
    return f"{member[2:-1]}.{member[-1]}"


def _tactic_sources(config: TrtConfig, library: Library) -> int:
    """The bits of the tactic sources that were asked for."""
    trt, sources = library.trt, 0
    for name in config.tactics:
        member = getattr(trt.TacticSource, name, None)
        if member is None:
            known = ", ".join(sorted(trt.TacticSource.__members__)).lower()
            raise UsageError(f"--tactic-sources {name.lower()}: {library} has {known}.")
        sources |= 1 << int(member)
    return sources
