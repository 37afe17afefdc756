"""What a result depends on, as a key: whatever is not the same has another one.

Contents count, not names: of models and data their digests, of files that a runner's settings name what is in them.
What runs code of the user's has no key, since nothing tells what the code reads.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...graph.digest import arrays_digest, combined, file_digest
from .codec import encoded

if TYPE_CHECKING:
    import numpy as np

    from ...runners.contract.runner import Runner

RUNTIMES = (
    *("layerdiff", "numpy", "ml_dtypes", "scipy", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorflow"),
    *("tf2onnx", "keras", "torch", "cupy"),
)
"""Packages whose versions every result depends on."""


def key_of(*parts: Any) -> str:
    """A key: the digest of values that `codec.encoded` takes.

    Raises:
        TypeError: It does not take one of them.
    """
    return hashlib.sha256(encoded(parts)).hexdigest()


@functools.cache
def made_by() -> str:
    """A digest of this machine and of the versions of all that computes here, this package's own code included."""
    versions = {}
    for name in RUNTIMES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    code = hashlib.sha256()
    root = Path(__file__).parents[2]
    for path in sorted(p for top in ("graph", "runners", "dataloaders", "compare") for p in (root / top).rglob("*.py")):
        code.update(path.read_bytes())
    return key_of(sys.version, list(_processors()), versions, code.hexdigest())


def _processors() -> Iterator[str]:
    """What computes: the kinds of CPU and GPU, as the system tells them, and how many cores are ours."""
    yield platform.system()
    yield platform.machine()
    yield str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    for place, wanted in (("/proc/cpuinfo", "model name"), ("/proc/driver/nvidia/version", "NVRM")):
        with suppress(OSError):
            yield from sorted({line for line in Path(place).read_text().splitlines() if line.startswith(wanted)})
    with suppress(OSError):
        for gpu in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
            yield from (line for line in gpu.read_text().splitlines() if line.startswith("Model"))


def runner_key(runner: Runner) -> str | None:
    """A key of a configuration and of what is in the files that it names; None where its results cannot be kept."""
    if runner.foreign or not runner.capabilities.computes:
        return None
    can = runner.capabilities
    by_name = {"model", "isolation", *can.output_files, *can.caches}
    fields = {f.name: getattr(runner, f.name) for f in dataclasses.fields(runner) if f.compare}
    read = {name: value for name, value in fields.items() if name not in by_name}
    try:
        kind = f"{type(runner).__module__}.{type(runner).__qualname__}"
        return key_of(kind, read, {path: file_digest(Path(path)) for path in sorted(set(_files(read.values())))})
    except (TypeError, OSError):
        return None


def _files(values: Iterable[Any]) -> Iterator[str]:
    """The texts among settings that name a file or a folder."""
    for value in values:
        if isinstance(value, str | os.PathLike):
            if os.fspath(value) and os.path.exists(value):
                yield os.fspath(value)
        elif isinstance(value, Mapping):
            yield from _files(value.values())
        elif isinstance(value, Iterable) and not isinstance(value, bytes):
            yield from _files(value)


class Digests:
    """Digests of arrays by name, each array of which is hashed once where nobody can change it."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[np.ndarray], str]] = {}

    def of(self, arrays: Mapping[str, np.ndarray]) -> str:
        """One digest of all of them."""
        return combined(f"{self._one(arrays[name])} {name!r}" for name in sorted(arrays))

    def _one(self, array: np.ndarray) -> str:
        known = self._known.get(id(array))
        if known is not None:
            return known[1]
        digest = arrays_digest({"": array})
        if not array.flags.writeable:
            mine = id(array)
            self._known[mine] = weakref.ref(array, lambda _: self._known.pop(mine, None) and None), digest
        return digest
