"""From an ONNX model to a serialized engine: parse, configure, build, and name the node when that fails."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...graph.cutting.slices import SEPARATOR, original_name
from ...graph.errors import BuildError, DataError, RunnerError, UsageError
from ...graph.specs import NAMELESS
from ..contract.workload import Feed, ShapeRange, seen_ranges
from . import cuda
from .calibrate import make_calibrator
from .log import failed_node, log_of, reason, weight_notes
from .plan import Plan
from .recent import Recent

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from ...graph.model import Model
    from .runner import TrtRunner
    from .versions import Library

Progress = Callable[[str], None]

TIMING_CACHES: Recent[str, bytes] = Recent()
"""Serialized timing caches of this process by file name (or version and GPU): what builds and pieces share."""

CALIBRATION_CACHES: Recent[str, bytes] = Recent()
"""Calibration caches by root model, calibrator and version: pieces reuse what was measured on the whole model."""

DEPLOYED_FORMATS: Recent[str, dict[str, tuple[str, str]]] = Recent()
"""Formats of each ONNX node in the engine of a whole model, by `formats_key`; observed engines are built alike."""


DEPLOYED_KERNELS: Recent[str, tuple[frozenset[int], ...]] = Recent()
"""Nodes that run as one kernel in the engine of a whole model, by `formats_key`."""


def formats_key(model: Model, runner: TrtRunner) -> str:
    """By what `DEPLOYED_FORMATS` finds the whole engine that a piece belongs to."""
    return f"{model.root} {runner.name} {runner.int8_qdq} {runner.keep_fp32}"


Ranges = Mapping[str, tuple[tuple[int, ...], ...]]
"""Input name -> (min, opt, max)."""


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
    network = builder.create_network(_network_flags(plan, library))
    parser = trt.OnnxParser(network, log)
    parse(parser, model, library)
    _name_inputs(network, model)
    parsed, computing = network.num_layers, _computing(network, trt)
    _mark(network, fetch, library)
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
        _pin(network, pins, trt)
    used = _add_profiles(builder, network, config, samples, shape_sets)
    key = timing_key(runner, library)
    if key:
        _load_timing(config, runner, key)
    elif runner.timing_cache == "off":
        config.set_flag(trt.BuilderFlag.DISABLE_TIMING_CACHE)
    calibrator, notes = None, []
    if plan.calibrator and not _quantized_already(model):
        progress("calibrating")
        calibrator, cache_key = _calibrator(model, runner, plan, library, network, calibration, deployed)
        config.int8_calibrator = calibrator
        if used:
            config.set_calibration_profile(_calibration_profile(builder, network, calibration, used[0]))

    progress("building the engine")
    if library.has("progress"):
        config.progress_monitor = monitor(trt, progress)
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
        raise BuildError(_why(model, library, list(log.errors), network))
    if calibrator is not None:
        notes += _keep_calibration(calibrator, runner, cache_key)
    if key:
        _save_timing(config, runner, key)
    notes += weight_notes(list(log.warnings))
    calibration_bytes = None if calibrator is None else calibrator.measured or calibrator.cache
    return Built(bytes(plan_bytes), parsed, computing, seconds, tuple(used), calibration_bytes, tuple(notes))


# --- the network ------------------------------------------------------------------------------------------------------


def _network_flags(plan: Plan, library: Library) -> int:
    creation = library.trt.NetworkDefinitionCreationFlag
    flags = 0
    if library.has("explicit-batch"):
        flags |= 1 << int(creation.EXPLICIT_BATCH)
    if plan.strongly_typed:
        flags |= 1 << int(creation.STRONGLY_TYPED)
    return flags


def named(model: Model) -> onnx.ModelProto:
    """The model's graph with a unique name on every node, and none on dimensions of inputs that have none.

    TensorRT takes dimensions of one name for one size, whatever the name. Returns the graph itself if it is like that.
    """
    names = model.index.names
    dims = [d for d in _dimensions(model.proto) if d.dim_param in NAMELESS - {""}]
    if not dims and all(node.name == name for node, name in zip(model.proto.graph.node, names, strict=True)):
        return model.proto
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    for node, name in zip(copy.graph.node, names, strict=True):
        node.name = name
    for dim in _dimensions(copy):
        if dim.dim_param in NAMELESS:
            dim.ClearField("dim_param")
    return copy


def _dimensions(proto: onnx.ModelProto) -> list[Any]:
    return [dim for info in proto.graph.input for dim in info.type.tensor_type.shape.dim]


def specialized(
    model: Model, samples: Callable[[], Iterable[Feed]] | None, shape_sets: Sequence[Mapping[str, ShapeRange]]
) -> Model:
    """A piece of a model with those dimensions written into its inputs that are always the same, except the first.

    A piece comes without shapes, and TensorRT wants to know at least the channels of a convolution. The first dimension
    stays open, as batches are in the whole model: an engine for one fixed batch can be another program.
    """
    given = {name for shapes in shape_sets for name in shapes}
    unknown = [s for s in model.inputs if s.shape is None or _open(s.shape[1:])]
    if not model.derived:
        unknown = [s for s in unknown if s.name not in given]
        if not any(s.shape is None for s in unknown):
            return model
    ranges = seen_ranges(samples(), [s.name for s in unknown]) if samples is not None and unknown else {}
    found = {name: [r, *(shapes[name] for shapes in shape_sets if name in shapes)] for name, r in ranges.items()}
    if not found:
        return model
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for info in proto.graph.input:
        if info.name not in found:
            continue
        old = next(s.shape for s in unknown if s.name == info.name)
        extremes = [shape for r in found[info.name] for shape in (r.min, r.max)]
        shape = info.type.tensor_type.shape
        del shape.dim[:]
        for axis, dims in enumerate(zip(*extremes, strict=True)):
            before = old[axis] if old is not None else None
            dim = shape.dim.add()
            if isinstance(before, int):
                dim.dim_value = before
            elif axis == 0 or len(set(dims)) > 1:
                dim.dim_param = before or f"{info.name}_{axis}"
            else:
                dim.dim_value = dims[0]
        shape.SetInParent()
    del proto.graph.value_info[:]
    return model.derive(proto)


DATA_DEPENDENT = frozenset({"NonZero", "NonMaxSuppression", "Compress", "Unique"})
"""Operators whose output shape depends on the data."""


def loosened(model: Model, library: Library) -> tuple[Model, dict[str, ShapeRange]]:
    """For TensorRT 8: a model whose outputs depend on the data, with an open first dimension on every input.

    TensorRT 8.6.0 builds an engine for such a model with static inputs, and cannot create a context for it; with an
    optimization profile it can. Returns the model and the profile that fixes the dimensions again.
    """
    dependent = any(node.op_type in DATA_DEPENDENT for node in model.index.nodes)
    fixed = all(s.shape and not _open(s.shape) for s in model.inputs)
    if library.version >= (9, 0) or not dependent or not fixed or not model.inputs:
        return model, {}
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    shapes = {}
    for info in proto.graph.input:
        spec = next((s for s in model.inputs if s.name == info.name), None)
        if spec is not None and spec.shape:
            dims = tuple(int(d) for d in spec.shape if isinstance(d, int))
            shapes[spec.name] = ShapeRange(dims, dims, dims)
            info.type.tensor_type.shape.dim[0].dim_param = f"{spec.name}_0"
    return model.derive(proto), shapes


def _open(shape: Sequence[object]) -> bool:
    return any(not isinstance(d, int) for d in shape)


def parse(parser: Any, model: Model, library: Library) -> list[str]:
    """Parses ``model`` into the parser's network and returns the node names TensorRT will speak of.

    Raises:
        BuildError: An operator, an attribute or a type is not supported; names the node.
    """
    proto = named(model)
    if proto is model.proto and model.path is not None:
        good = parser.parse_from_file(os.fspath(model.path.resolve()))
    else:
        # External weights are found relative to the path given here, which need not exist.
        path = (model.folder or Path()).resolve() / "model.onnx"
        good = parser.parse(model.derive(proto).contained().serialized(), os.fspath(path))
    names = model.index.names
    if not good:
        raise BuildError(_parser_failure(parser, model, names, library))
    return names


def _parser_failure(parser: Any, model: Model, names: list[str], library: Library) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    if not errors:
        return f"{library} cannot parse {model.source}: {reason(list(log_of(library.trt).errors))}."
    error = errors[0]
    position = error.node()
    text = str(error.desc()).strip().splitlines()
    where = f"{model.source}"
    if 0 <= position < len(names):
        where = f"node {original_name(names[position])!r} ({model.index.nodes[position].op_type}) of {model.source}"
    return f"{library} cannot parse {where}: {(text[0] if text else 'no reason given')[:400].rstrip('.')}."


def _name_inputs(network: Any, model: Model) -> None:
    """Gives inputs their names back: the parser calls one that Identity or Dropout hands on to an output as it is
    ``__OUTPUT``."""
    found = _inputs(network)
    if len(found) == len(model.inputs):
        for tensor, spec in zip(found, model.inputs, strict=True):
            if tensor.name != spec.name:
                tensor.name = spec.name


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(i) for i in range(network.num_layers)]


def _computing(network: Any, trt: Any) -> int:
    kinds = trt.LayerType
    passive = {kinds.CONSTANT, kinds.SHAPE}
    return sum(layer.type not in passive for layer in _layers(network))


def _mark(network: Any, fetch: Sequence[str], library: Library) -> None:
    outputs = {network.get_output(i).name for i in range(network.num_outputs)}
    wanted = [name for name in fetch if name not in outputs]
    if not wanted:
        return
    tensors = {}
    for layer in _layers(network):
        for i in range(layer.num_outputs):
            tensor = layer.get_output(i)
            tensors[tensor.name] = tensor
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise RunnerError(f"{library} has no tensor {missing[0]!r}: it was folded away when the network was parsed.")
    for name in wanted:
        network.mark_output(tensors[name])


Formats = tuple[str, str]
"""Number formats of a node: what it computes in, and what its output is kept in."""


def pinned(runner: TrtRunner, plan: Plan, key: str, observed: bool) -> dict[str, Formats]:
    """ONNX node -> formats that it must have: what the user keeps in FP32 and, in observed engines (pieces, marked
    outputs), what the deployed engine chose.

    TensorRT picks a layer's format by its speed in that very network: a small piece comes out in FP32 where the whole
    engine runs in FP16, and would show errors that the deployed engine does not make.
    """
    if plan.strongly_typed or not set(plan.flags) & set(_FORMAT_TYPES):
        return {}
    wanted = dict(DEPLOYED_FORMATS.get(key, {})) if observed else {}
    wanted.update(dict.fromkeys(runner.keep_fp32, ("FP32", "FP32")))
    return wanted


_FORMAT_TYPES = {"FP32": "FLOAT", "FP16": "HALF", "BF16": "BF16", "INT8": "INT8"}


def _pin(network: Any, wanted: Mapping[str, Formats], trt: Any) -> None:
    """Gives the layers of ONNX nodes the precision and, for floats, the output type that ``wanted`` says.

    The output type matters at the borders of a piece: an FP16 kernel that may write FP32 does not overflow there.
    Where it is not known (inside Myelin's regions, which may keep sums of a normalization in FP32), only matrix
    products are given a precision.
    """
    from .inspector import onnx_nodes

    floats = {trt.DataType.FLOAT, trt.DataType.HALF}
    kinds = trt.LayerType
    products = {kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY}
    for layer in _layers(network):
        named = onnx_nodes(getattr(layer, "metadata", "") or "") or (layer.name,)
        nodes = [original_name(n) for n in named]  # layers that are run side by side carry a number
        formats = {wanted[n] for n in nodes if n in wanted}
        if len(formats) != 1 or layer.type in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            continue
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        if any(o.dtype not in floats or o.is_shape_tensor for o in outputs):
            continue
        if not next(iter(formats))[1] and layer.type not in products:
            continue
        inside, outside = (getattr(trt.DataType, _FORMAT_TYPES.get(f, ""), None) for f in formats.pop())
        if inside is not None:
            layer.precision = inside
        if outside is not None and outside in floats:
            for i in range(layer.num_outputs):
                layer.set_output_type(i, outside)


# --- the configuration ------------------------------------------------------------------------------------------------


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


def monitor(trt: Any, progress: Progress) -> Any:
    """Tells ``progress`` how far the outermost phase of a build is."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told = -1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            total = self._steps.get(phase_name)
            if total:
                percent = 100 * (step + 1) // total
                if percent >= self._told + 5:
                    self._told = percent
                    progress(f"building the engine ({percent} %)")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


# --- shapes -----------------------------------------------------------------------------------------------------------


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(i) for i in range(network.num_inputs)]


def _dims(tensor: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in tensor.shape)


def _shape_text(shape: Sequence[int]) -> str:
    return "x".join("?" if d < 0 else str(d) for d in shape) or "scalar"


def _add_profiles(
    builder: Any,
    network: Any,
    config: Any,
    samples: Callable[[], Iterable[Feed]] | None,
    shape_sets: Sequence[Mapping[str, ShapeRange]],
) -> list[Ranges]:
    """The optimization profiles that inputs with dynamic shapes, or with values that are shapes, need."""
    dynamic = [t for t in _inputs(network) if min(_dims(t), default=0) < 0]
    values = [t for t in _inputs(network) if t.is_shape_tensor]
    for tensor in _inputs(network):
        for shapes in shape_sets:
            if tensor.name in shapes:
                _check_range(tensor.name, _dims(tensor), shapes[tensor.name])
    if not dynamic and not values:
        return []
    unknown = [t.name for t in dynamic if any(t.name not in shapes for shapes in shape_sets)]
    if samples is None and (unknown or values):
        name = unknown[0] if unknown else values[0].name
        raise UsageError(f"{name} has a dynamic shape: give the shapes to build for with --shape.")
    seen = seen_ranges(samples(), unknown) if samples is not None and unknown else {}
    inside: dict[str, list[np.ndarray]] = {t.name: [] for t in values}
    for sample in samples() if samples is not None and values else ():
        for name, found in inside.items():
            found.append(sample[name].reshape(-1))
    result: list[Ranges] = []
    for shapes in shape_sets:
        profile = builder.create_optimization_profile()
        ranges = {t.name: shapes.get(t.name) or seen[t.name] for t in dynamic}
        used = {name: (r.min, r.opt, r.max) for name, r in ranges.items()}
        for name, triple in used.items():
            profile.set_shape(name, *triple)
        for name, found in inside.items():
            low, high = ([int(f(v[i] for v in found)) for i in range(len(found[0]))] for f in (min, max))
            profile.set_shape_input(name, low, [int(v) for v in found[0]], high)
        config.add_optimization_profile(profile)
        result.append(used)
    return result


def _check_range(name: str, dims: tuple[int, ...], asked: ShapeRange) -> None:
    for shape in (asked.min, asked.opt, asked.max):
        if len(shape) != len(dims) or any(d >= 0 and d != s for d, s in zip(dims, shape, strict=True)):
            raise UsageError(
                f"--shape {name}:{_shape_text(shape)} contradicts the model: {name} is {_shape_text(dims)}."
            )
    if not all(a <= b <= c for a, b, c in zip(asked.min, asked.opt, asked.max, strict=True)):
        raise UsageError(f"--shape {name}: min <= opt <= max does not hold in every dimension.")


def _calibration_profile(builder: Any, network: Any, samples: Any, used: Ranges) -> Any:
    """TensorRT calibrates at one shape: that of the first sample, else of each input's optimum."""
    first: Feed = next(iter(samples()), {}) if samples is not None else {}
    profile = builder.create_optimization_profile()
    for tensor in _inputs(network):
        if tensor.name in used:
            shape = tuple(first[tensor.name].shape) if tensor.name in first else used[tensor.name][1]
            profile.set_shape(tensor.name, shape, shape, shape)
    return profile


# --- caches -----------------------------------------------------------------------------------------------------------


def timing_key(runner: TrtRunner, library: Library) -> str:
    """Where this runner's timing cache is kept in `TIMING_CACHES`; empty when it is off."""
    if runner.timing_cache == "off":
        return ""
    if runner.timing_cache:
        return os.path.abspath(runner.timing_cache)
    return f"{library.trt.__version__} {cuda.gpu()}"


def _load_timing(config: Any, runner: TrtRunner, key: str) -> None:
    data = TIMING_CACHES.get(key, b"")
    if not data and runner.timing_cache:
        file = Path(runner.timing_cache)
        data = file.read_bytes() if file.is_file() else b""
    cache = config.create_timing_cache(data)
    # A cache of another version or GPU is refused here (no mismatch is ignored): begin with an empty one then.
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_timing(config: Any, runner: TrtRunner, key: str) -> None:
    cache = config.get_timing_cache()
    if cache is None:
        return
    data = bytes(cache.serialize())
    if data == TIMING_CACHES.get(key):
        return
    TIMING_CACHES[key] = data
    if runner.timing_cache:
        write_file(Path(runner.timing_cache), data, "timing cache")


def write_file(path: Path, data: bytes, what: str) -> None:
    """Writes a file whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: the {what} cannot be written: {error.strerror}.") from error


def _quantized_already(model: Model) -> bool:
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.index.nodes)


def calibration_key(model: Model, calibrator: str, library: Library) -> str:
    """Where `CALIBRATION_CACHES` keeps what a calibrator found for a whole model."""
    return f"{model.root} {calibrator} {library.trt.__version__}"


def _calibrator(
    model: Model, runner: TrtRunner, plan: Plan, library: Library, network: Any, samples: Any, deployed: bool
) -> tuple[Any, str]:
    from .session import dtype_of

    assert plan.calibrator is not None
    key = calibration_key(model, plan.calibrator, library)
    cache = None
    if runner.calibration_cache:
        file = Path(runner.calibration_cache)
        cache = file.read_bytes() if file.is_file() else None
        key += f" {file.resolve()}"
    if cache is None and not deployed:
        cache = CALIBRATION_CACHES.get(key)
    dtypes = {t.name: dtype_of(t.dtype) for t in _inputs(network)}
    if cache is None and samples is None:
        raise UsageError("--int8 needs samples to calibrate on, or a calibration cache (--calibration-cache FILE).")
    if cache is None:
        assert samples is not None
        first = next(iter(samples()), None)
        if first is None or any(name not in first for name in dtypes):
            raise DataError("--int8: the samples lack an input of this network; it cannot be calibrated on them.")
    return make_calibrator(library, plan.calibrator, samples, dtypes, cuda.runtime(), cache), key


def _keep_calibration(calibrator: Any, runner: TrtRunner, key: str) -> list[str]:
    if calibrator.measured is None:
        return []
    CALIBRATION_CACHES[key] = calibrator.measured
    if runner.calibration_cache:
        write_file(Path(runner.calibration_cache), calibrator.measured, "calibration cache")
    notes = []
    if calibrator.skipped:
        notes.append(f"TensorRT calibrates at one shape: {calibrator.skipped} samples of another shape were left out.")
    return notes


# --- failures ---------------------------------------------------------------------------------------------------------


_REGION = re.compile(r"\{ForeignNode\[(.+?)\.\.\.(.+)\]\}")
"""What TensorRT calls a region that Myelin compiles: its first and its last node."""


_UNNAMED = re.compile(r"\(Unnamed Layer\* (\d+)\) \[\w+\]")
"""What TensorRT calls a layer to which the parser gave no name: its number in the parsed network."""


def _why(model: Model, library: Library, errors: list[str], network: Any) -> str:
    node, names = failed_node(errors), model.index.names
    what = f"{library} cannot build {model.source}"
    region = _REGION.fullmatch(node)
    if region:
        ends = [_node_of(label, model, network) for label in region.groups()]
        places = list(dict.fromkeys(original_name(names[p]) for p in ends if p is not None))
        if None not in ends:
            nodes = " to ".join(repr(p) for p in places)
            what = f"{library} cannot build node{'s' if places[1:] else ''} {nodes} of {model.source}"
        elif places:
            what = f"{library} cannot build nodes around {places[0]!r} of {model.source}"
        else:
            what += f", in a region whose nodes cannot be told ({node})"
    elif node:
        found = _node_of(node, model, network)
        fused = [n for n in names if n and n in node] if found is None else []
        if found is not None:
            what = f"{library} cannot build node {original_name(names[found])!r} of {model.source}"
        elif fused:  # name what it is made of
            what = f"{library} cannot build node {node.replace(SEPARATOR, '#')!r} of {model.source}"
        else:
            what += f", at a layer whose node cannot be told ({node})"
    return f"{what}: {reason(errors)}."


def _node_of(label: str, model: Model, network: Any) -> int | None:
    """The ONNX node that a layer belongs to, by what TensorRT's log calls the layer.

    The parser adds layers node by node, and gives the last of them the names of the node's outputs. A constant has the
    name of a weight: the first node that reads it is meant.
    """
    index = model.index
    if label in index.names:
        return index.names.index(label)
    layers = _layers(network)
    number = next((i for i, layer in enumerate(layers) if layer.name == label), None)
    unnamed = _UNNAMED.fullmatch(label)
    if number is None and unnamed and int(unnamed.group(1)) < len(layers):
        number = int(unnamed.group(1))
    if label in index.initializers:
        return min(index.consumers.get(label, ()), default=None)
    for layer in layers[number:] if number is not None else ():
        made = [index.producer.get(layer.get_output(i).name) for i in range(layer.num_outputs)]
        if any(p is not None for p in made):
            return next(p for p in made if p is not None)
    inside = [n for n in index.names if n and n in label]  # fused: the one that is in no other's name
    inside = [n for n in inside if not any(n != other and n in other for other in inside)]
    if inside or " + " not in label:
        return index.names.index(inside[0]) if len(inside) == 1 else None
    return next((p for part in label.split(" + ") if (p := _node_of(part, model, network)) is not None), None)
