"""What a build takes over from earlier ones: kernel timings and calibrations, from files or from the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...graph.errors import DataError, UsageError
from ...graph.whole_file import replacing
from . import cuda
from .calibrate import make_calibrator
from .dtypes import dtype_of
from .log import log_of
from .network import inputs_of

if TYPE_CHECKING:
    from ...graph.model import Model
    from .config import TrtConfig
    from .plan import Plan
    from .versions import Library


def load_timing(builder_config: Any, config: TrtConfig, library: Library) -> bytes:
    """Gives a build the timings that are in the file, or those that an earlier build made; returns them. To TensorRT
    for RTX a timing cache is nothing."""
    if library.rtx:
        return b""
    if config.timing_cache == "off":
        builder_config.set_flag(library.trt.BuilderFlag.DISABLE_TIMING_CACHE)
        return b""
    known = kept(config.timing_cache) or config.timings
    cache = builder_config.create_timing_cache(known)
    # A cache of another version or GPU is refused here (no mismatch is ignored): begin with an empty one then.
    if cache is None or not builder_config.set_timing_cache(cache, False):
        builder_config.set_timing_cache(builder_config.create_timing_cache(b""), False)
        return b""
    return known


def save_timing(builder_config: Any, config: TrtConfig, library: Library, begun: bytes) -> bytes:
    """The timings after a build, with those that it has ``begun`` with: TensorRT drops what it did not use. They go to
    the file as well, if one is named and there is something new."""
    cache = None if library.rtx or config.timing_cache == "off" else builder_config.get_timing_cache()
    if cache is None:
        return b""
    data = _combined(builder_config, begun, cache)
    if config.timing_cache and data != kept(config.timing_cache):
        write_file(Path(config.timing_cache), data, "timing cache")
    return data


def add_timings(timings: bytes, config: TrtConfig, library: Library) -> None:
    """Puts the timings of a build in another process into the file, if one is named."""
    if not timings or library.rtx or config.timing_cache in (None, "off"):
        return
    builder = library.trt.Builder(log_of(library.trt))
    builder_config = builder.create_builder_config()
    known = kept(config.timing_cache)
    data = _combined(builder_config, known, builder_config.create_timing_cache(timings))
    if data != known:
        write_file(Path(str(config.timing_cache)), data, "timing cache")


def _combined(builder_config: Any, begun: bytes, cache: Any) -> bytes:
    """A timing cache with the entries that there were before."""
    data = bytes(cache.serialize())
    every = builder_config.create_timing_cache(begun) if begun and begun != data else None
    if every is not None and every.combine(cache, False):
        data = bytes(every.serialize())
    return data


def kept(path: str | None) -> bytes:
    """What a cache file holds; nothing where there is none yet."""
    return Path(path).read_bytes() if path and Path(path).is_file() else b""


def write_file(path: Path, data: bytes, what: str) -> None:
    """Writes a file whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        with replacing(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path}: the {what} cannot be written: {error.strerror}.") from error


def quantized_already(model: Model) -> bool:
    """Whether the graph holds Q/DQ nodes, so that nothing is left to calibrate."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.index.nodes)


def calibrator_of(config: TrtConfig, plan: Plan, library: Library, network: Any, samples: Any) -> Any:
    """The calibrator that a build asks for ranges: it measures them, or has them from the file or the whole engine.

    Raises:
        UsageError: There are neither samples nor a cache.
        DataError: The samples lack an input of the network.
    """
    assert plan.calibrator is not None
    cache = kept(config.calibration_cache)
    whole = None if config.deployed is None else config.deployed.calibration
    if not cache and whole is not None and whole.method == plan.calibrator:
        cache = whole.cache
    dtypes = {t.name: dtype_of(t.dtype) for t in inputs_of(network)}
    if not cache and samples is None:
        raise UsageError("--int8 needs samples to calibrate on, or a calibration cache (--calibration-cache FILE).")
    if not cache:
        first = next(iter(samples()), None)
        if first is None or any(name not in first for name in dtypes):
            raise DataError("--int8: the samples lack an input of this network; it cannot be calibrated on them.")
    return make_calibrator(library, plan.calibrator, samples, dtypes, cuda.runtime(), cache or None)


def keep_calibration(calibrator: Any, path: str | None) -> tuple[str, ...]:
    """Writes what a calibrator measured to a file, if there is one, and returns what the user should know of it."""
    if calibrator.measured is None:
        return ()
    if path:
        write_file(Path(path), calibrator.measured, "calibration cache")
    if not calibrator.skipped:
        return ()
    return (f"TensorRT calibrates at one shape: {calibrator.skipped} samples of another shape were left out.",)
