"""What ONNX Runtime makes of the networks here: two threads, as a user's run has them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from benchmarks.kit import runtime
from benchmarks.kit.runtime import Feed


def run(proto: onnx.ModelProto, feeds: Sequence[Feed], optimize: bool = False) -> list[Feed]:
    """Every output for every feed."""
    return runtime.run(proto, feeds, optimize, threads=2)


def inner(proto: onnx.ModelProto, feed: Feed, names: Sequence[str]) -> Feed:
    """Inputs and inner tensors for one feed."""
    return runtime.observe(proto, [feed], names, threads=2)[0]
