"""What flows between the nodes of a graph, and what of it may cross a border."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property

import numpy as np
import onnx

from ..index import GraphIndex
from ..nodes import attribute_int, subgraphs
from ..operators import INTEGER_ARITHMETIC, RANDOM, SHAPES, operator
from ..specs import STRING, TensorSpec, dtype_from_onnx, is_float

UNKNOWN_FIRST, UNKNOWN_OTHER = 2, 8
"""Lengths that a dimension is thought to have when nothing is known: the first (batch), and the others."""


class Kind(enum.IntEnum):
    """How a tensor came about, which decides whether it can be a border."""

    CONSTANT = 0
    """From weights, constants and shapes alone. Computed anew in each piece."""
    INTEGER = 1
    """An integer, bool or string from integer inputs, moved, compared or shifted. Computed anew in each piece."""
    DATA = 2
    """Everything else, integers that are multiplied, divided or summed too. May be a border."""


class Dataflow:
    """What each tensor of a graph depends on: the knowledge behind cuts and pieces.

    Args:
        index: The graph.
        specs: Types that ONNX shape inference cannot tell (outputs of custom operators), e.g. as measured.
    """

    def __init__(self, index: GraphIndex, specs: Mapping[str, TensorSpec] | None = None) -> None:
        self.index = index
        self.measured = frozenset(specs or ())
        self.specs: Mapping[str, TensorSpec] = {**index.specs, **specs} if specs else index.specs
        self.random = frozenset(random_nodes(index))
        self.kind: dict[str, Kind] = dict.fromkeys(index.initializers, Kind.CONSTANT)
        self._leaves: dict[str, tuple[str, ...]] = dict.fromkeys(index.initializers, ())
        self._static: dict[str, bool] = {}
        for name in index.inputs:
            self.kind[name] = Kind.DATA if self._floating(name) else Kind.INTEGER
            self._leaves[name] = (name,)
        for position in range(len(index.nodes)):
            self._classify(position)

    def _floating(self, name: str) -> bool:
        spec = self.specs.get(name)
        return spec is None or is_float(spec.dtype)

    def _classify(self, position: int) -> None:
        node, index = self.index.nodes[position], self.index
        outputs = [name for name in node.output if name]
        reads = index.reads[position]
        if position in self.random:
            kind = Kind.DATA
        elif operator(node) in SHAPES:
            kind = Kind.CONSTANT
        else:
            kind = max((self.kind.get(name, Kind.DATA) for name in reads), default=Kind.CONSTANT)
            computes = operator(node) in INTEGER_ARITHMETIC or any(self._floating(name) for name in outputs)
            if kind == Kind.INTEGER and computes:
                kind = Kind.DATA
        for name in outputs:
            self.kind[name] = kind
            if kind == Kind.DATA:
                self._leaves[name] = (name,)
            elif self.static(name):
                self._leaves[name] = ()
            else:
                self._leaves[name] = tuple(dict.fromkeys(leaf for r in reads for leaf in self._leaves.get(r, (r,))))

    def static(self, name: str) -> bool:
        """Whether a piece can hold ``name`` as a small integer constant instead of computing it anew."""
        if name not in self._static:
            self._static[name] = False
            spec = self.specs.get(name)
            if spec is not None and not is_float(spec.dtype) and spec.dtype != STRING and name in self.index.producer:
                shape = spec.shape
                small = shape is not None and all(isinstance(d, int) and d <= 1024 for d in shape)
                if small and self.index.nodes[self.index.producer[name]].op_type != "Constant":
                    self._static[name] = self.index.constant(name) is not None
        return self._static[name]

    def recomputed(self, name: str) -> bool:
        """Whether each piece that reads ``name`` computes it anew. False for weights and graph inputs."""
        return name in self.index.producer and self.kind[name] != Kind.DATA

    def leaves(self, name: str) -> tuple[str, ...]:
        """The tensors that a piece which reads ``name`` needs from outside, if it does not make them itself."""
        return self._leaves.get(name, (name,))

    def needs(self, position: int) -> tuple[str, ...]:
        """The tensors that a piece of this node alone reads from outside."""
        return tuple(dict.fromkeys(leaf for name in self.index.reads[position] for leaf in self.leaves(name)))

    def readers(self, name: str) -> tuple[int, ...]:
        """The nodes that need ``name``, read directly or through what they compute anew."""
        return self._readers.get(name, ())

    @cached_property
    def _readers(self) -> dict[str, tuple[int, ...]]:
        table: dict[str, list[int]] = {}
        for position in range(len(self.index.nodes)):
            for name in self.needs(position):
                table.setdefault(name, []).append(position)
        return {name: tuple(nodes) for name, nodes in table.items()}

    def closure(self, nodes: Collection[int], extra: Iterable[str] = ()) -> tuple[set[int], set[str], list[str]]:
        """What a piece of these nodes holds besides them.

        Args:
            nodes: Positions of nodes.
            extra: Tensors that it must give besides what the nodes read.

        Returns:
            The nodes computed anew; the tensors held as small constants; the tensors read from outside, in order of
            first use.
        """
        index = self.index
        inside = {name for position in nodes for name in index.nodes[position].output if name}
        again: set[int] = set()
        constants: set[str] = set()
        outside: dict[str, None] = {}
        seen: set[str] = set()
        # depth first through what is computed anew
        stack = [*(name for position in sorted(nodes) for name in index.reads[position]), *extra][::-1]
        while stack:
            name = stack.pop()
            if name in seen or name in inside or name in index.initializers:
                continue
            seen.add(name)
            if not self.recomputed(name):
                outside[name] = None
            elif self.static(name):
                constants.add(name)
            elif index.producer[name] not in again:
                again.add(index.producer[name])
                stack.extend(reversed(index.reads[index.producer[name]]))
        made = {name for position in again for name in index.nodes[position].output}
        return again, constants - made, list(outside)

    def crossable(self, name: str) -> bool:
        """Whether ``name`` can be a border: a tensor whose type is known."""
        return name in self.specs

    def nbytes(self, name: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> int:
        """Bytes of a tensor. Dimensions that neither ``shapes`` nor the graph gives are guessed."""
        spec = self.specs.get(name)
        itemsize = 4 if spec is None or spec.dtype == STRING else spec.dtype.itemsize
        if shapes is not None and name in shapes:
            return itemsize * int(np.prod(shapes[name], dtype=np.int64))
        if spec is None or spec.shape is None:
            position = self.index.producer.get(name)
            if position is None:
                return itemsize
            reads = (r for r in self.index.nodes[position].input if r and r not in self.index.initializers)
            known = [s for r in reads if (s := self.specs.get(r)) is not None and s.shape is not None]
            return max((self.nbytes(s.name, shapes) for s in known), default=itemsize)
        guess = (UNKNOWN_FIRST if i == 0 else UNKNOWN_OTHER for i in range(len(spec.shape)))
        return itemsize * int(
            np.prod([d if isinstance(d, int) else g for d, g in zip(spec.shape, guess, strict=True)], dtype=np.int64)
        )

    def weights(self, nodes: Iterable[int]) -> dict[str, int]:
        """Bytes of every weight that these nodes read, through what they compute anew too."""
        again, _, _ = self.closure(nodes := set(nodes))
        result: dict[str, int] = {}
        for position in nodes | again:
            for name in self.index.reads[position]:
                tensor = self.index.initializers.get(name)
                if tensor is not None:
                    result[name] = _tensor_bytes(tensor)
            if self.index.nodes[position].op_type == "Constant":
                result[self.index.nodes[position].output[0]] = self.index.nodes[position].ByteSize()
        return result


def dataflow(index: GraphIndex, specs: Mapping[str, TensorSpec] | None = None) -> Dataflow:
    """The `Dataflow` of a graph, kept as long as the graph is."""
    extra = frozenset(specs).difference(index.specs) if specs else frozenset()
    kept = index.kept.get(Dataflow)
    if not isinstance(kept, Dataflow) or not kept.measured >= extra:
        kept = index.kept[Dataflow] = Dataflow(index, {name: specs[name] for name in extra} if specs else None)
    return kept


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    try:
        itemsize = dtype_from_onnx(tensor.data_type).itemsize
    except KeyError:
        itemsize = 4
    return itemsize * int(np.prod(tensor.dims, dtype=np.int64))


def random_nodes(index: GraphIndex) -> tuple[int, ...]:
    """Positions of the nodes that draw random values, in their subgraphs and model-local functions too."""
    functions = {(f.domain, f.name): f for f in index.proto.functions}

    def draws(node: onnx.NodeProto, training: bool, depth: int = 0) -> bool:
        if depth > 32:
            return False
        function = functions.get((node.domain, node.op_type))
        if function is not None:
            return any(draws(inner, False, depth + 1) for inner in function.node)
        if any(draws(inner, False, depth + 1) for body in subgraphs(node) for inner in body.node):
            return True
        return operator(node) in RANDOM or (operator(node) == "Dropout" and training)

    return tuple(
        p for p, node in enumerate(index.nodes) if draws(node, node.op_type == "Dropout" and _drops(index, node))
    )


def trains(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether a Dropout is in training mode, or may be."""
    if len(node.input) > 2 and node.input[2]:
        value = index.constant(node.input[2])
        return value is None or bool(value.any())
    return index.opset.get("", 1) < 7 and not attribute_int(node, "is_test", 0)


def _drops(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether a Dropout may set values to zero: in training mode, unless its ratio is zero."""
    ratio = index.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    return trains(index, node) and (ratio is None or bool(ratio.any()))


def unseeded(index: GraphIndex) -> dict[str, str]:
    """Tensors that are made of random values for which the graph gives no seed, and the clause that says who draws.

    A Dropout in training mode draws a mask by its definition, but ONNX Runtime's optimizations remove most of them."""
    drawn = {p for p in random_nodes(index) if all(a.name != "seed" for a in index.nodes[p].attribute)}
    found: dict[str, str] = {}
    for position, node in enumerate(index.nodes):
        read = next((found[name] for name in index.reads[position] if name in found), "")
        who = f"{node.op_type} {index.names[position]}"
        clause = f"{who} draws random values without a seed" if position in drawn else read
        if position in drawn and operator(node) == "Dropout":
            clause += " in training mode, unless the runtime removes it (export in evaluation mode: model.eval())"
        if clause and operator(node) not in SHAPES:
            found.update((name, clause) for name in node.output if name)
    return found
