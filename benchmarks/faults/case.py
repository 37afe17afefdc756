"""One case of the benchmark: two models and who would be right about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx

from benchmarks.kit.networks import network
from benchmarks.kit.runtime import observe

SEED = 7
"""Seed of the samples that cases are run on (the networks were made on others)."""
SAMPLES = 2
REAL = 1e-5
"""Least relative L2 error at the fault's own output; FP32 rounds sums to about 1e-7, the longest to 1e-6."""
REACHED = 1e-6
"""Least relative L2 error at an output of the network."""


@dataclass(frozen=True)
class Case:
    """A fault and who would be right about it, or a pair in which nothing is wrong.

    Attributes:
        kind: A kind of fault or of clean pair.
        reference, candidate: The two models; ``candidate`` is None where the same file runs in ``emulate``.
        runner: Options of the candidate's ONNX Runtime runner, where they are not the reference's.
        node: Where the fault was planted, by the reference's name; None if nothing is wrong.
        nodes: Nodes that name the place rightly: the fault's, and those that run with it as one kernel.
        causes: Honest answers.
        local, final: Relative L2 error at the fault's output and (the largest) at the network's outputs, measured with
            ONNX Runtime when the case was made; None for emulated ones, where ``local`` is the share of elements
            that FP16 cannot hold.
    """

    id: str
    network: str
    kind: str
    reference: onnx.ModelProto = field(repr=False)
    candidate: onnx.ModelProto | None = field(repr=False)
    emulate: str | None = None
    runner: Mapping[str, str] = field(default_factory=dict)
    node: str | None = None
    nodes: frozenset[str] = frozenset()
    causes: frozenset[str] = frozenset()
    what: str = ""
    tensors: tuple[str, str] = ("", "")
    local: float | None = None
    final: float | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.node is None

    def feeds(self) -> list[dict[str, np.ndarray]]:
        """The samples to run it on."""
        return network(self.network).samples(SEED, SAMPLES)

    def write(self, folder: Path) -> tuple[Path, Path | None]:
        """Writes ``reference.onnx`` and ``candidate.onnx``; the second is None where there is one file."""
        folder.mkdir(parents=True, exist_ok=True)
        reference, candidate = folder / "reference.onnx", folder / "candidate.onnx"
        onnx.save(self.reference, reference)
        if self.candidate is None:
            return reference, None
        onnx.save(self.candidate, candidate)
        return reference, candidate


def floats(proto: onnx.ModelProto) -> list[str]:
    """Every tensor that a node of the graph makes, in order."""
    return [name for node in proto.graph.node for name in node.output if name]


@lru_cache(maxsize=4)
def values(name: str) -> dict[str, np.ndarray]:
    """Every tensor of a network on the first sample."""
    net = network(name)
    feeds = net.samples(SEED, 1)
    return {**feeds[0], **observe(net.proto, feeds, floats(net.proto))[0]}


def distance(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Relative L2 error; infinite where the candidate is not finite or has another shape."""
    if reference.shape != candidate.shape or not np.isfinite(candidate).all():
        return np.inf
    norm = np.linalg.norm(reference.astype(np.float64))
    return float(np.linalg.norm(candidate.astype(np.float64) - reference) / (norm or 1.0))
