"""What may be kept in FP32: the fused groups in which a narrow format does something, and what keeping each costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...graph.cutting.fusion import Group, fused_groups, static_tensors
from ...graph.nodes import subgraphs
from ...graph.operators import CASTS, MOVEMENT, PRODUCTS, RECURRENT, UNTOUCHED, facts_of, is_data, operator
from ...graph.rounding.kept import with_movement
from ...graph.rounding.round_array import STORAGE
from ...graph.rounding.term_count import term_count
from ...graph.specs import is_float

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...runners.contract.latency import KernelTime

MACS_PER_BYTE = 64
"""Multiplications that take an accelerator as long in FP32, beyond their time in FP16, as moving a byte: an A10 does 31
TFLOPS in FP32 and 125 in FP16 on tensor cores, and moves 600 GB/s."""
EXTRA_BYTES = 2
"""What an element of FP32 takes beyond one of FP16."""
CAST_BYTES = 1
"""What a border between the two costs for each element, beyond its FP32 half, which is counted with the layer: kernels
mostly cast what they read or write, so a border costs less than a layer, and runs of layers are preferred."""

LEAST = 0.02
"""The share of its time in FP32 that keeping a layer costs at least: where it is not slower, fewer are still better."""


@dataclass(frozen=True)
class Layer:
    """A fused group that a narrow format changes.

    Attributes:
        number: Its place among all such layers, in the order of the graph.
        nodes: Names of its nodes.
        node, op: The node that does its arithmetic.
        inputs, outputs: Tensors at its borders that depend on the model's inputs.
        operations: Multiplications, or elements computed.
        cost: What keeping it in FP32 costs, in bytes moved, or in time as bytes would take it (`timed`).
    """

    number: int
    nodes: tuple[str, ...]
    node: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operations: float
    cost: float


@dataclass(frozen=True)
class Border:
    """A tensor between layers: where one side is kept and the other is not, it is cast.

    Attributes:
        maker: The layer that makes it, through data movement; -1 for an input of the model.
        readers: The layers that read it.
        cost: What a cast of it costs, in bytes moved.
    """

    maker: int
    readers: tuple[int, ...]
    cost: float


@dataclass(frozen=True)
class Layers:
    """All layers of a network that may be kept.

    Attributes:
        index: The graph.
        all: The layers.
        borders: What lies between them.
    """

    index: GraphIndex
    all: tuple[Layer, ...]
    borders: tuple[Border, ...]

    def names(self, kept: Iterable[int]) -> tuple[str, ...]:
        """The nodes that stay FP32 where some layers do, data movement included, in the order of the graph."""
        chosen = with_movement(self.index, [name for number in kept for name in self.all[number].nodes])
        return tuple(name for name in self.index.names if name in chosen)

    def holding(self, nodes: Iterable[str]) -> tuple[int, ...]:
        """Numbers of the layers that hold any of some nodes."""
        wanted = frozenset(nodes)
        return tuple(layer.number for layer in self.all if not wanted.isdisjoint(layer.nodes))

    def arithmetic(self, kept: Iterable[int]) -> float:
        """The share of the network's arithmetic that some layers do."""
        whole = sum(layer.operations for layer in self.all)
        return sum(self.all[number].operations for number in kept) / whole if whole else 0.0

    def cost(self, kept: Iterable[int]) -> float:
        """What keeping some layers costs in all, casts at borders included, in bytes moved."""
        chosen = frozenset(kept)
        casts = (b.cost for b in self.borders if any((r in chosen) != (b.maker in chosen) for r in b.readers))
        return sum(self.all[number].cost for number in chosen) + sum(casts)


def layers_of(
    index: GraphIndex,
    fmt: str,
    shapes: Callable[[str], Sequence[int] | None],
    *,
    every_node: bool = False,
    without: Collection[str] = (),
) -> Layers:
    """The layers of a graph that a format changes.

    Args:
        index: The graph.
        fmt: Name of the format. One that stores tensors (FP16, BF16) changes whatever computes; others change what
            multiplies.
        shapes: Shapes of tensors for the samples, where they are known.
        every_node: Whether the runtime rounds after every node, so that each is a layer.
        without: Names of nodes that are FP32 already.
    """
    static = static_tensors(index)
    groups = [Group((p,), p) for p in range(len(index.nodes))] if every_node else fused_groups(index, static)
    stores = every_node or fmt in STORAGE
    chosen = [
        group
        for group in groups
        if any(_changes(index, p, static, stores) for p in group.nodes)
        and not any(index.names[p] in without for p in group.nodes)
    ]
    found = tuple(_layer(index, number, group, static, shapes) for number, group in enumerate(chosen))
    return Layers(index, found, tuple(_borders(index, found, static, shapes)))


def timed(layers: Layers, narrow: Sequence[KernelTime], wide: Sequence[KernelTime]) -> Layers | None:
    """The same layers, whose costs are the time that they take longer in FP32, as it was measured.

    What has no time of its own, casts at borders among it, stays in bytes; times are told in bytes, too, at the rate
    that they show over all layers.

    Args:
        layers: The layers, with costs in bytes.
        narrow: What kernels take where no layer is kept.
        wide: What they take where all are.

    Returns:
        None where kernels tell of less than half of what all layers cost, or FP32 takes no longer.
    """
    fast, slow = _times(layers, narrow), _times(layers, wide)
    both = [layer for layer in layers.all if layer.number in fast and layer.number in slow]
    cost = sum(layer.cost for layer in both)
    extra = sum(max(slow[layer.number] - fast[layer.number], 0.0) for layer in both)
    if not extra or cost < sum(layer.cost for layer in layers.all) / 2:
        return None
    rate = cost / extra
    known = {
        layer.number: rate * max(slow[layer.number] - fast[layer.number], LEAST * slow[layer.number]) for layer in both
    }
    return replace(layers, all=tuple(replace(o, cost=known.get(o.number, o.cost)) for o in layers.all))


def _times(layers: Layers, kernels: Sequence[KernelTime]) -> dict[int, float]:
    """Milliseconds of layers. A kernel that computes several is shared out by their costs in bytes."""
    found: dict[int, float] = {}
    for kernel in kernels:
        mine = [layers.all[number] for number in layers.holding(kernel.nodes)]
        whole = sum(layer.cost for layer in mine)
        for layer in mine:
            share = layer.cost / whole if whole else 1 / len(mine)
            found[layer.number] = found.get(layer.number, 0.0) + share * kernel.milliseconds
    return found


def _changes(index: GraphIndex, position: int, static: frozenset[str], stores: bool) -> bool:
    """Whether a narrow format changes what a node gives."""
    node = index.nodes[position]
    if all(name in static for name in node.output if name):
        return False
    if any(True for _ in subgraphs(node)):
        return True
    kind = operator(node)
    floats = [n for n in node.output if n and n in index.specs and is_float(index.specs[n].dtype)]
    if kind in CASTS:  # of a float, it rounds as whoever made that; large integers are rounded here
        return stores and bool(floats) and _is_integer(index, node.input[0])
    if not floats or kind in UNTOUCHED:
        return False
    if not stores:
        return facts_of(node).operands != () or kind in RECURRENT
    if kind in MOVEMENT:  # a table that is read, a constant that is put in
        return any(n in static and _is_float(index, n) and is_data(node, i) for i, n in enumerate(node.input) if n)
    return True


def _is_float(index: GraphIndex, name: str) -> bool:
    return name in index.specs and is_float(index.specs[name].dtype)


def _is_integer(index: GraphIndex, name: str) -> bool:
    return name in index.specs and index.specs[name].dtype.kind in "iu"


def _layer(
    index: GraphIndex,
    number: int,
    group: Group,
    static: frozenset[str],
    shapes: Callable[[str], Sequence[int] | None],
) -> Layer:
    made = {n for p in group.nodes for n in index.nodes[p].output if n}
    reads = dict.fromkeys(n for p in group.nodes for n in index.reads[p] if n not in made)
    read_elsewhere = {r for n in made for r in index.consumers.get(n, ()) if r not in group.nodes}
    gives = [n for n in made if n in index.outputs or any(r in read_elsewhere for r in index.consumers.get(n, ()))]
    size = _sizes(index, shapes)
    operations = 0.0
    products = 0.0
    for p in group.nodes:
        node = index.nodes[p]
        elements = sum(size(n) for n in node.output if n)
        terms = term_count(node, lambda name: _shape(shapes, name)) if operator(node) in PRODUCTS | RECURRENT else 1.0
        operations += elements * terms
        products += elements * terms if terms > 1 else 0.0
    moved = sum(size(n) for n in (*reads, *gives) if _is_float(index, n))
    return Layer(
        number,
        tuple(index.names[p] for p in group.nodes),
        index.names[group.main],
        index.nodes[group.main].op_type,
        tuple(n for n in reads if n not in static),
        tuple(sorted(gives)),
        operations,
        EXTRA_BYTES * moved + products / MACS_PER_BYTE,
    )


def _borders(
    index: GraphIndex,
    layers: Sequence[Layer],
    static: frozenset[str],
    shapes: Callable[[str], Sequence[int] | None],
) -> Iterable[Border]:
    """Tensors between layers. What data movement hands on belongs to the layer that made it."""
    size = _sizes(index, shapes)
    owner = {name: layer.number for layer in layers for name in layer.nodes}
    origin: dict[str, int] = {}
    for position, node in enumerate(index.nodes):
        mine = owner.get(index.names[position])
        if mine is None:
            handed = [origin.get(n, -1) for n in index.reads[position] if n not in static]
            mine = max(handed, default=-1)
        origin.update((n, mine) for n in node.output if n)
    readers: dict[tuple[int, str], set[int]] = {}
    for layer in layers:
        for name in layer.inputs:
            if _is_float(index, name):
                readers.setdefault((origin.get(name, -1), name), set()).add(layer.number)
    for (maker, name), found in readers.items():
        yield Border(maker, tuple(sorted(found)), CAST_BYTES * size(name))


def _shape(shapes: Callable[[str], Sequence[int] | None], name: str) -> tuple[int, ...] | None:
    found = shapes(name)
    return None if found is None else tuple(int(d) for d in found)


def _sizes(index: GraphIndex, shapes: Callable[[str], Sequence[int] | None]) -> Callable[[str], float]:
    def size(name: str) -> float:
        shape = _shape(shapes, name)
        if shape is None:
            spec = index.specs.get(name)
            shape = tuple(d if isinstance(d, int) else 1 for d in (spec.shape if spec and spec.shape else ()))
        return float(math.prod(shape))

    return size
