"""Engines that are built and not loaded: plain data, which another process may have made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..contract.session import SessionInfo


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
        calibration: What TensorRT's calibrator found or was given, as it serializes it; None: there was none.
        timing_cache: The timings that it was built with, as TensorRT serializes them.
        notes: What the user should know.
    """

    engine: bytes
    parsed: int
    computing: int
    seconds: float
    profiles: tuple[Mapping[str, tuple[tuple[int, ...], ...]], ...] = ()
    calibration: bytes | None = None
    timing_cache: bytes = b""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """An engine and what the report says of it.

    Attributes:
        built: The engine, and how it came about.
        info: For the report.
    """

    built: Built
    info: SessionInfo
