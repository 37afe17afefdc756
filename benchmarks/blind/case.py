"""Cases: a fault at a drawn place of a network, and who would be right about it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from benchmarks.faults.case import distance
from benchmarks.kit.runtime import Feed, run

from .graph import Graph
from .plants import KINDS

REAL = 1e-5
"""Least relative L2 error at an output of the network, and..."""
NOISES = 30
"""...so many times the error there that ONNX Runtime's optimizations make: less is no fault."""
PLACES = 6
"""Places that are drawn for one fault until one is found where it changes enough."""


@dataclass(frozen=True)
class Network:
    """A network, its inputs, and what ONNX Runtime makes of them.

    Attributes:
        proto: Each node has a name of its own.
        plain, deployed: Its outputs without and with optimizations.
    """

    name: str
    proto: onnx.ModelProto = field(repr=False)
    feeds: Sequence[Feed] = field(repr=False)
    plain: list[Feed] = field(repr=False)
    deployed: list[Feed] = field(repr=False)


def network(name: str, proto: onnx.ModelProto, feeds: Sequence[Feed]) -> Network:
    """A network that faults are planted in."""
    return Network(name, proto, feeds, run(proto, feeds), run(proto, feeds, optimize=True))


@dataclass(frozen=True)
class Case:
    """A planted fault.

    Attributes:
        nodes, tensors: Names of the nodes that name the place rightly, and of what they make.
        causes: Honest answers.
        effect: The greatest relative L2 error at an output, measured with ONNX Runtime without optimizations.
        excused: Whether the deployed runtime computes the same outputs bit by bit all the same.
    """

    network: str
    kind: str
    seed: int
    candidate: onnx.ModelProto = field(repr=False)
    what: str
    nodes: frozenset[str]
    tensors: frozenset[str]
    causes: frozenset[str]
    effect: float
    excused: bool

    @property
    def id(self) -> str:
        """``network/kind/seed``."""
        return f"{self.network}/{self.kind}/{self.seed}"


def errors(reference: Sequence[Feed], candidate: Sequence[Feed]) -> dict[str, float]:
    """The greatest relative L2 error of each output over the samples; infinite where shapes differ or not finite."""
    return {
        name: max(distance(r[name], c[name]) for r, c in zip(reference, candidate, strict=True))
        for name in reference[0]
    }


def plant(net: Network, kind: str, seed: int) -> Case | None:
    """Plants a fault of a kind; None if the network has no place for it where it changes enough."""
    chance = random.Random(f"{net.name}{kind}{seed}")
    noise = errors(net.plain, net.deployed)
    for _ in range(PLACES):
        proto = onnx.ModelProto()
        proto.CopyFrom(net.proto)
        try:
            planted = KINDS[kind](Graph(proto), chance)
            outputs = run(proto, net.feeds)
        except Exception:  # no such place, or ONNX Runtime refuses the graph with the fault in it
            continue
        effect = errors(net.plain, outputs)
        if not any(error > max(NOISES * noise[name], REAL) for name, error in effect.items()):
            continue
        deployed = run(proto, net.feeds, optimize=True)
        return Case(
            net.name,
            kind,
            seed,
            proto,
            planted.what,
            frozenset(node.name for node in planted.nodes),
            frozenset(output for node in planted.nodes for output in node.output if output),
            planted.causes,
            max(effect.values()),
            all(np.array_equal(r[n], c[n]) for r, c in zip(net.deployed, deployed, strict=True) for n in r),
        )
    return None
