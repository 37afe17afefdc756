"""Engines in files: what is kept beside one that is saved, and what that says when it is loaded again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ... import __version__
from ...graph.engine import Engine, facts_of, facts_path
from ...graph.errors import RunnerError, UsageError
from ...graph.weights import external_files
from ...graph.whole_file import turn
from ..contract.session import Calibration
from .caches import write_file
from .config import TrtConfig

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.session import Session
    from .made import Built
    from .versions import Library

Config = TypeVar("Config", bound=TrtConfig)

CHOICES = ("tf32", "fp16", "bf16", "int8", "fp8", "strongly_typed", "calibrator", "int8_qdq", "keep")
"""Fields of `TrtConfig` that decide what an engine computes: kept beside it."""


def save(path: Path, config: TrtConfig, model: Model, built: Built, session: Session, library: Library) -> None:
    """Writes an engine, and beside it what it was built from and how.

    Raises:
        UsageError: A file cannot be written.
    """
    from . import cuda

    found = session.info.calibration
    calibration: dict[str, Any] | None = None
    if found is not None:
        kept = {"cache": found.cache.decode("latin-1")} if found.cache else {"ranges": dict(found.ranges)}
        calibration = {"method": found.method, **kept}
    facts = facts_of(
        path,
        built.engine,
        Path(model.source),
        external_files(model.proto) if model.tf is None else (),
        session.inputs,
        session.outputs,
        profiles=[{n: [list(s) for s in shapes] for n, shapes in p.items()} for p in built.profiles],
        built_by={"layerdiff": __version__, library.package: str(library.trt.__version__), "gpu": cuda.gpu() or None},
        choices={name: _plain(getattr(config, name)) for name in CHOICES},
        calibration=calibration,
        layers={key: session.info.options.get(key) for key in ("nodes", "layers_parsed", "layers_computing")},
    )
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    with turn(path.absolute().parent):  # else another one's engine may come to stand beside this description
        write_file(path, built.engine, "engine")
        write_file(facts_path(path), text.encode("utf-8"), "description of the engine")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def as_built(config: Config, engine: Engine) -> Config:
    """``config`` with the choices that ``engine`` was built with, where they are known.

    Raises:
        UsageError: It asks for number formats that the engine was not built with.
    """
    kept: Mapping[str, Any] = engine.facts.get("choices", {})
    if not kept:
        return config
    choices: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in kept.items() if name in CHOICES
    }
    result = replace(config, **choices)
    by = (config.calibrator and config.calibrator != result.calibrator) or (
        config.int8_qdq and config.int8_qdq != result.int8_qdq
    )
    if (config.modes and set(config.modes) != set(result.modes)) or by:
        has, wants = (c.formats_text or "fp32" for c in (result, config))
        raise UsageError(f"{engine} was built with {has}, and {wants} was asked for: write --trt alone to run it.")
    return result


def calibration_of(engine: Engine) -> Calibration | None:
    """What a saved engine was calibrated to."""
    kept = engine.facts.get("calibration")
    if not kept:
        return None
    ranges = {name: float(value) for name, value in kept.get("ranges", {}).items()}
    return Calibration(kept["method"], ranges, kept.get("cache", "").encode("latin-1"))


def check_version(engine: Engine, library: Library) -> None:
    """Refuses an engine that another version of TensorRT wrote, before TensorRT reads it.

    Raises:
        RunnerError: Names both versions.
    """
    by, here = engine.facts.get("built_by", {}), str(library.trt.__version__)
    for package, name in (("tensorrt", "TensorRT"), ("tensorrt_rtx", "TensorRT for RTX")):
        wrote = by.get(package)
        if wrote is not None and (package, wrote) != (library.package, here):
            this = here if package == library.package else str(library)
            raise RunnerError(f"{engine} was built by {name} {wrote}, and this is {this}, which cannot load it.")


def made_on(engine: Engine, gpu: str) -> str:
    """The other GPU that an engine was built on, as the end of a sentence; empty if it was this one."""
    built = engine.facts.get("built_by", {}).get("gpu")
    return "" if built in (None, gpu) else f" (it was built on {built}, and this is {gpu})"


def options_of(engine: Engine) -> dict[str, Any]:
    """What is known of a loaded engine, for the report."""
    options: dict[str, Any] = {"engine": str(engine)}
    if engine.facts:
        origin = engine.facts.get("model") or {}
        options["built_from"] = origin.get("path")
        options.update({k: v for k, v in engine.facts.get("layers", {}).items() if v is not None})
        if engine.profiles:
            options["profiles"] = engine.facts["profiles"]
    return options
