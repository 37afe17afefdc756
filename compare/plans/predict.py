"""The error that layers leave at the outputs, measured for single layers or for blocks of them, and its sum.

Each probe is one run of the candidate in which one block of layers is narrow and all others are FP32. Blocks that
matter are halved, down to single layers; those that do not are left as they are. Errors of blocks are independent
roundings, so their squares add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..report.plan import OutputTrial, Predicted

MOST = 32
"""Most probes; networks of as many layers have each of them probed."""
CHUNKS = 8
"""Blocks that larger networks begin with, besides the layers that are suspected."""
SMALL = 0.1
"""Share of what is allowed below which a block is not halved: a hundredth of the variance."""
HUGE = 1e6
"""Stands for errors that are not finite."""

Probe: TypeAlias = Callable[[frozenset[int]], tuple[OutputTrial, ...]]
"""Runs the candidate with these layers narrow and all others FP32."""
Ahead: TypeAlias = Callable[[Iterable[frozenset[int]]], None]
"""Told which probes will be asked for next."""


@dataclass(frozen=True)
class Block:
    """Layers whose error was measured together.

    Attributes:
        layers: Their numbers.
        shares, errors: At each output: share of what is allowed, and relative error.
    """

    layers: tuple[int, ...]
    shares: Mapping[str, float]
    errors: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest share of an output."""
        return max(self.shares.values(), default=0.0)

    def part(self, layers: tuple[int, ...]) -> Block:
        """Some of its layers, which are taken to err in proportion."""
        root = math.sqrt(len(layers) / len(self.layers))
        shares = {name: root * share for name, share in self.shares.items()}
        return Block(layers, shares, {name: root * error for name, error in self.errors.items()})

    def raised(self, shares: Mapping[str, float]) -> Block:
        """The same, with at least these shares, and errors that are as much larger."""
        found = {name: max(own, shares.get(name, 0.0)) for name, own in self.shares.items()}
        grown = {name: found[name] / own if own else 1.0 for name, own in self.shares.items()}
        errors = {name: min(error * grown[name], HUGE) for name, error in self.errors.items()}
        return Block(self.layers, found, errors)


@dataclass(frozen=True)
class Prediction:
    """What every set of kept layers is expected to leave at the outputs."""

    blocks: tuple[Block, ...]

    def of(self, kept: Collection[int]) -> Predicted:
        """The expected error where these layers are kept. Of a block kept in part, the rest is taken to err in
        proportion."""
        shares: dict[str, float] = {}
        errors: dict[str, float] = {}
        for block in self.blocks:
            left = sum(number not in kept for number in block.layers) / len(block.layers)
            for name, share in block.shares.items():
                shares[name] = shares.get(name, 0.0) + left * share**2
                errors[name] = errors.get(name, 0.0) + left * block.errors[name] ** 2
        worst = max(shares, key=lambda name: shares[name], default=None)
        if worst is None:
            return Predicted(0.0, 0.0)
        share, error = math.sqrt(shares[worst]), math.sqrt(errors[worst])
        return Predicted(share if share < HUGE else None, error if error < HUGE else None)

    def at_least(self, number: int, shares: Mapping[str, float]) -> Prediction:
        """The same, where a layer was seen to err more than was expected of it.

        Args:
            number: The layer. If it was measured with others, they are a block without it from now on.
            shares: The share of what is allowed that it takes at outputs.
        """
        (block,) = (b for b in self.blocks if number in b.layers)
        others = tuple(n for n in block.layers if n != number)
        if not any(share > block.shares.get(name, 0.0) for name, share in shares.items()):
            return self
        parts = [block.part((number,)).raised(shares), *([block.part(others)] if others else ())]
        found = (*(b for b in self.blocks if b is not block), *parts)
        return Prediction(tuple(sorted(found, key=lambda b: b.layers)))

    def alone(self, number: int) -> float | None:
        """The share of what is allowed that a layer takes by itself; None where it was not probed by itself or is not
        finite."""
        found = next((b.worst for b in self.blocks if b.layers == (number,)), HUGE)
        return found if found < HUGE else None


def predict(
    count: int,
    suspects: Sequence[int],
    probe: Probe,
    *,
    scale: float = 1.0,
    most: int = MOST,
    ahead: Ahead = lambda sets: None,
) -> Prediction:
    """Measures blocks of layers.

    Args:
        count: How many layers there are.
        suspects: Those that are named already: each is a block of its own.
        probe: Runs the candidate.
        scale: What the shares of probes are multiplied by, to be shares of what the verdict allows.
        most: Most probes.
        ahead: Told what will be asked for.
    """
    probes = 0

    def block(layers: Sequence[int]) -> Block:
        nonlocal probes
        probes += 1
        outputs = probe(frozenset(layers))
        shares = {o.tensor: _held(o.share, scale) for o in outputs}
        return Block(tuple(layers), shares, {o.tensor: _held(o.error) for o in outputs})

    def blocks(every: Sequence[Sequence[int]]) -> list[Block]:
        ahead(map(frozenset, every))
        return [block(layers) for layers in every]

    if count <= most:
        return Prediction(tuple(blocks([[number] for number in range(count)])))
    alone = list(dict.fromkeys(suspects))[: most // 4]
    rest = [number for number in range(count) if number not in alone]
    size = -(-len(rest) // CHUNKS)
    found = blocks([*([number] for number in alone), *(rest[i : i + size] for i in range(0, len(rest), size))])
    while probes + 2 <= most:
        large = [b for b in found if len(b.layers) > 1 and b.worst > SMALL]
        if not large:
            break
        large.sort(key=lambda b: (b.worst, len(b.layers)), reverse=True)
        ahead([frozenset(half) for b in large for half in _halves(b)][: most - probes])
        found.remove(large[0])
        found += map(block, _halves(large[0]))
    return Prediction(tuple(sorted(found, key=lambda b: b.layers)))


def _halves(block: Block) -> tuple[tuple[int, ...], tuple[int, ...]]:
    half = len(block.layers) // 2
    return block.layers[:half], block.layers[half:]


def _held(value: float | None, scale: float = 1.0) -> float:
    return HUGE if value is None else min(value * scale, HUGE)
