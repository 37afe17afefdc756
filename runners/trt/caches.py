"""What builds keep for later ones: kernel timings and calibrations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...graph.errors import DataError, UsageError
from . import cuda
from .calibrate import make_calibrator
from .network import inputs_of
from .plan import Plan
from .recent import Recent

if TYPE_CHECKING:
    from ...graph.model import Model
    from .runner import TrtRunner
    from .versions import Library


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


def timing_key(runner: TrtRunner, library: Library) -> str:
    """Where this runner's timing cache is kept in `TIMING_CACHES`; empty when it is off."""
    if runner.timing_cache == "off":
        return ""
    if runner.timing_cache:
        return os.path.abspath(runner.timing_cache)
    return f"{library.trt.__version__} {cuda.gpu()}"


def load_timing(config: Any, runner: TrtRunner, key: str) -> None:
    """Gives a build the timings that were kept."""
    data = TIMING_CACHES.get(key, b"")
    if not data and runner.timing_cache:
        file = Path(runner.timing_cache)
        data = file.read_bytes() if file.is_file() else b""
    cache = config.create_timing_cache(data)
    # A cache of another version or GPU is refused here (no mismatch is ignored): begin with an empty one then.
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def save_timing(config: Any, runner: TrtRunner, key: str) -> None:
    """Keeps the timings that a build made."""
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


def quantized_already(model: Model) -> bool:
    """Whether the graph holds Q/DQ nodes, so that nothing is left to calibrate."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.index.nodes)


def calibration_key(model: Model, calibrator: str, library: Library) -> str:
    """Where `CALIBRATION_CACHES` keeps what a calibrator found for a whole model."""
    return f"{model.root} {calibrator} {library.trt.__version__}"


def calibrator_of(
    model: Model, runner: TrtRunner, plan: Plan, library: Library, network: Any, samples: Any, deployed: bool
) -> tuple[Any, str]:
    """The calibrator that a build asks for ranges, and where `CALIBRATION_CACHES` keeps what it finds.

    Raises:
        UsageError: There are neither samples nor a cache.
        DataError: The samples lack an input of the network.
    """
    from .dtypes import dtype_of

    assert plan.calibrator is not None
    key = calibration_key(model, plan.calibrator, library)
    cache = None
    if runner.calibration_cache:
        file = Path(runner.calibration_cache)
        cache = file.read_bytes() if file.is_file() else None
        key += f" {file.resolve()}"
    if cache is None and not deployed:
        cache = CALIBRATION_CACHES.get(key)
    dtypes = {t.name: dtype_of(t.dtype) for t in inputs_of(network)}
    if cache is None and samples is None:
        raise UsageError("--int8 needs samples to calibrate on, or a calibration cache (--calibration-cache FILE).")
    if cache is None:
        assert samples is not None
        first = next(iter(samples()), None)
        if first is None or any(name not in first for name in dtypes):
            raise DataError("--int8: the samples lack an input of this network; it cannot be calibrated on them.")
    return make_calibrator(library, plan.calibrator, samples, dtypes, cuda.runtime(), cache), key


def keep_calibration(calibrator: Any, runner: TrtRunner, key: str) -> list[str]:
    """Keeps what a calibrator found, and returns what the user should know of it."""
    if calibrator.measured is None:
        return []
    CALIBRATION_CACHES[key] = calibrator.measured
    if runner.calibration_cache:
        write_file(Path(runner.calibration_cache), calibrator.measured, "calibration cache")
    notes = []
    if calibrator.skipped:
        notes.append(f"TensorRT calibrates at one shape: {calibrator.skipped} samples of another shape were left out.")
    return notes
