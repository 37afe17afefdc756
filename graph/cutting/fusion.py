"""Which nodes an accelerator runs as one kernel: the groups between whose borders tensors exist in memory.

The rules are those that TensorRT documents ("Layer Fusion" in its developer guide) and that ONNX Runtime's optimizers
share, reduced to what does not depend on the hardware:

- a product (Conv, ConvTranspose, Gemm, MatMul) takes what follows it: scale, bias, BatchNormalization or its Mul and
  Add, one activation (also in pieces: ``x * Sigmoid(x)``, GELU through Erf or Tanh), one residual Add, one activation;
- the product of two activations (attention's scores) leaves its scale to the next group: TensorRT 8.6 kept such scores
  in FP16 before they were scaled, where they overflowed (docs/gpu.md);
- LayerNormalization and Softmax that an exporter wrote in pieces are one group each;
- elementwise nodes that follow each other are one group.

A tensor is swallowed only where every reader of it is in the group and it is no output of the graph, so a group has one
output that is read outside. All nodes of a group are ancestors of that output: contracting groups leaves no cycle, and
the order of their last nodes is a topological one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..index import GraphIndex
from ..nodes import attribute_int
from ..operators import (
    ACTIVATIONS,
    AFFINE_STEPS,
    FUSING_PRODUCTS,
    NORMALIZING_REDUCTIONS,
    POINTWISE,
    RANDOM,
    SHAPES,
    Kind,
    facts_of,
    operator,
)
from ..specs import is_float

LARGEST_NORMALIZATION = 16
"""Most nodes of a LayerNormalization or Softmax in pieces (the longest form in the wild has 12)."""


@dataclass(frozen=True)
class Group:
    """Nodes that run as one kernel.

    Attributes:
        nodes: Positions in ``graph.node``, ascending. The last one makes the output that is read outside.
        main: Position of the node that does the arithmetic: the product, or the last node of a normalization.
        kind: ``product``, ``normalization``, ``softmax``, ``pointwise`` (two elementwise nodes or more) or ``single``.
    """

    nodes: tuple[int, ...]
    main: int
    kind: str = "single"


def static_tensors(index: GraphIndex, also: Collection[str] = ()) -> frozenset[str]:
    """Tensors that no input's *values* can change: weights, and what is computed from weights and shapes alone.

    Runtimes compute them once, or on the host, in full precision. ``also``: names that are so from outside (for the
    body of an If, Loop or Scan: what it captures).
    """
    known = index.kept.get(static_tensors)
    if isinstance(known, frozenset) and not also:
        return known
    static = {*index.initializers, *also}
    for node, reads in zip(index.nodes, index.reads, strict=True):
        if operator(node) in RANDOM:
            continue
        if operator(node) in SHAPES or all(name in static for name in reads):
            static.update(name for name in node.output if name)
    found = frozenset(static)
    if not also:
        index.kept[static_tensors] = found
    return found


def fused_groups(index: GraphIndex, static: frozenset[str] | None = None) -> list[Group]:
    """Every top-level node in exactly one group, in the order of the groups' last nodes (a topological order).

    Args:
        index: The graph.
        static: `static_tensors` of it, where already known.
    """
    static = static_tensors(index) if static is None else static
    known = index.kept.get(fused_groups)
    if not isinstance(known, dict) or static not in known:
        known = index.kept[fused_groups] = {static: tuple(_Fusion(index, static).run())}
    return list(known[static])


class _Draft:
    """A group while it grows.

    Attributes:
        stage: How far along its epilogue a product is.
        outside: Of a chain: the tensors that it reads and does not make.
        scalars: Of a chain: whether the constants that it reads have one element.
    """

    AFFINE, ACTIVATED, ADDED, CLOSED = range(4)

    def __init__(self, nodes: Iterable[int], main: int, kind: str, output: str) -> None:
        self.nodes = list(nodes)
        self.main = main
        self.kind = kind
        self.output = output
        self.stage = self.AFFINE
        self.open_activation = False  # the last thing taken was an activation in pieces: a constant factor may follow
        self.outside: set[str] = set()
        self.scalars = True

    def finished(self) -> Group:
        kind = "single" if self.kind == "pointwise" and len(self.nodes) == 1 else self.kind
        return Group(tuple(sorted(self.nodes)), self.main, kind)


class _Fusion:
    def __init__(self, index: GraphIndex, static: frozenset[str]) -> None:
        self.index = index
        self.static = static
        self.outputs = frozenset(index.outputs)
        self.owner: dict[int, _Draft] = {}

    def run(self) -> list[Group]:
        for position, node in enumerate(self.index.nodes):
            if operator(node) in NORMALIZING_REDUCTIONS and position not in self.owner:
                self._normalization(position)
        for position, node in enumerate(self.index.nodes):
            if position in self.owner:
                continue
            if self._plain(position) and operator(node) in FUSING_PRODUCTS:
                self._start(position, "product")
            elif self._passes(position) or self._is_elementwise(position):
                self._place(position)
            else:
                self._start(position, "single")
        drafts = {id(draft): draft for draft in self.owner.values()}
        return sorted((draft.finished() for draft in drafts.values()), key=lambda group: group.nodes[-1])

    # What a node is

    def _plain(self, position: int) -> bool:
        """One output, and something to compute at run time."""
        node = self.index.nodes[position]
        outputs = [name for name in node.output if name]
        return len(outputs) == 1 and outputs[0] not in self.static

    def _is_elementwise(self, position: int) -> bool:
        node = self.index.nodes[position]
        if operator(node) not in POINTWISE or not self._plain(position):
            return False
        spec = self.index.specs.get(node.output[0])
        if spec is None or not is_float(spec.dtype):
            return False
        if node.op_type == "BatchNormalization":
            return not attribute_int(node, "training_mode", 0) and all(name in self.static for name in node.input[1:])
        return True

    def _passes(self, position: int) -> bool:
        """Identity, and Dropout as inference leaves it: nothing is computed."""
        node = self.index.nodes[position]
        return facts_of(node).kind is Kind.COPY and self._plain(position)

    def _dynamic(self, position: int) -> list[str]:
        return [name for name in self.index.reads[position] if name not in self.static]

    def _closed(self, tensor: str, nodes: Iterable[int]) -> bool:
        """Whether ``tensor`` is read by ``nodes`` alone."""
        inside = set(nodes)
        return tensor not in self.outputs and all(reader in inside for reader in self.index.consumers.get(tensor, ()))

    # Growing

    def _start(self, position: int, kind: str) -> _Draft:
        outputs = [name for name in self.index.nodes[position].output if name]
        draft = _Draft([position], position, kind, outputs[0] if outputs else "")
        self.owner[position] = draft
        return draft

    def _take(self, draft: _Draft, position: int) -> None:
        draft.nodes.append(position)
        draft.output = self.index.nodes[position].output[0]
        self.owner[position] = draft

    def _feeders(self, position: int) -> list[_Draft]:
        """The groups whose output this node alone reads, latest main node first."""
        found: dict[int, _Draft] = {}
        for name in self._dynamic(position):
            draft = self.owner.get(self.index.producer.get(name, -1))
            if draft is not None and draft.output == name and self._closed(name, [position]):
                found[id(draft)] = draft
        return sorted(found.values(), key=lambda draft: -draft.main)

    def _place(self, position: int) -> None:
        """An elementwise node joins the latest group that accepts it, or starts one of its own."""
        feeders = self._feeders(position)
        for draft in feeders:
            if draft.kind == "product" and self._epilogue(draft, position):
                return
        if self._passes(position):
            for draft in feeders:
                if draft.kind == "pointwise":
                    self._take(draft, position)
                    return
            self._start(position, "single")
            return
        chains = [draft for draft in feeders if draft.kind == "pointwise"]
        if chains:
            home = max(chains, key=lambda chain: len(chain.nodes))  # the shorter ones move
            home.main = chains[0].main
            for other in chains:
                if other is not home:
                    self._merge(home, other)
            self._take(home, position)
        else:
            home = self._start(position, "pointwise")
        home.outside.update(n for n in self._dynamic(position) if not self._made_by(home, n))
        home.scalars &= self._scalar(self.index.nodes[position].input)
        self._close_activation(home)

    def _merge(self, home: _Draft, other: _Draft) -> None:
        home.nodes += other.nodes
        home.scalars &= other.scalars
        for moved in other.nodes:
            self.owner[moved] = home
        home.outside = {n for n in home.outside | other.outside if not self._made_by(home, n)}

    def _made_by(self, draft: _Draft, tensor: str) -> bool:
        return self.owner.get(self.index.producer.get(tensor, -1)) is draft

    def _epilogue(self, draft: _Draft, position: int) -> bool:
        """Whether a product takes this node, the only reader of its output, and does so."""
        node = self.index.nodes[position]
        dynamic = self._dynamic(position)
        if self._passes(position):
            self._take(draft, position)
            return True
        if operator(node) in ACTIVATIONS and dynamic == [draft.output]:
            if draft.stage in (_Draft.AFFINE, _Draft.ADDED):
                draft.stage = _Draft.ACTIVATED if draft.stage == _Draft.AFFINE else _Draft.CLOSED
                draft.open_activation = False
                self._take(draft, position)
                return True
            return False
        if dynamic == [draft.output] and len(node.input) > 1 and node.input[0] != node.input[1]:
            affine = operator(node) in AFFINE_STEPS | {"Sum"}
            affine &= node.op_type not in ("Sub", "Div") or node.input[0] == draft.output
            if node.op_type in ("Mul", "Div") and len(self._dynamic(draft.main)) > 1:
                return False
            if affine and (draft.stage == _Draft.AFFINE or (draft.open_activation and self._scalar(node.input))):
                self._take(draft, position)
                return True
            return False
        if (
            node.op_type in ("Add", "Sum")
            and len(node.input) == len(dynamic) == 2
            and draft.stage in (_Draft.AFFINE, _Draft.ACTIVATED)
        ):
            draft.stage = _Draft.ADDED
            draft.open_activation = False
            self._take(draft, position)
            return True
        return False

    def _scalar(self, names: Iterable[str]) -> bool:
        """Whether the constants among ``names`` have one element."""
        specs = (self.index.specs.get(name) for name in names if name in self.static)
        return all(s is not None and s.shape is not None and all(d == 1 for d in s.shape) for s in specs)

    def _close_activation(self, chain: _Draft) -> None:
        """Hands a chain to the product before it, once it is an activation in pieces: all it reads is the product's
        output, scalars aside, and it is all that reads it."""
        if not chain.scalars or len(chain.outside) != 1:
            return
        (tensor,) = chain.outside
        product = self.owner.get(self.index.producer.get(tensor, -1))
        if product is None or product.kind != "product" or product.output != tensor:
            return
        readers = self.index.consumers[tensor]
        if len(readers) < 2 or tensor in self.outputs or any(self.owner.get(r) is not chain for r in readers):
            return
        if product.stage not in (_Draft.AFFINE, _Draft.ADDED):
            return
        product.stage = _Draft.ACTIVATED if product.stage == _Draft.AFFINE else _Draft.CLOSED
        product.open_activation = True
        for position in sorted(chain.nodes):
            self._take(product, position)

    # Normalizations in pieces

    def _normalization(self, reduction: int) -> None:
        """Finds LayerNormalization, RMS normalization or Softmax around a reduction, and makes it a group."""
        if not self._plain(reduction) or not self.index.nodes[reduction].input:
            return
        start = self.index.nodes[reduction].input[0]
        starts = [start]
        before = self.index.producer.get(start)
        if before is not None and before not in self.owner and self._is_elementwise(before):
            starts += self._dynamic(before)[:1]
        found = [best for tensor in starts if (best := self._converge(tensor, reduction))]
        if not found:
            return
        nodes, last = max(found, key=lambda item: len(item[0]))
        self._extend(nodes, last)

    def _converge(self, start: str, reduction: int) -> tuple[set[int], int] | None:
        """The smallest set of nodes, fed by ``start`` and constants alone, that ends in one node, takes in most
        reductions (at most two), and leaves no tensor of its own to others."""
        made: dict[str, set[int]] = {start: set()}
        region: list[int] = []
        frontier = sorted(self.index.consumers.get(start, ()))
        seen: set[int] = set()
        while frontier and len(region) < LARGEST_NORMALIZATION:
            position = frontier.pop(0)
            if position in seen:
                continue
            seen.add(position)
            node = self.index.nodes[position]
            if position in self.owner or not self._plain(position):
                continue
            if operator(node) not in NORMALIZING_REDUCTIONS and not self._is_elementwise(position):
                continue
            dynamic = self._dynamic(position)
            if not all(name in made for name in dynamic):
                seen.discard(position)  # another of its inputs may come yet
                continue
            region.append(position)
            made[node.output[0]] = set().union(*(made[name] for name in dynamic)) | {position}
            frontier = sorted({*frontier, *self.index.consumers.get(node.output[0], ())})
        best: tuple[int, int, set[int], int] | None = None
        for last in region:
            node = self.index.nodes[last]
            nodes = made[node.output[0]]
            reductions = sum(operator(self.index.nodes[n]) in NORMALIZING_REDUCTIONS for n in nodes)
            if reduction not in nodes or reductions > 2 or len(self._dynamic(last)) < 2 or len(nodes) < 3:
                continue
            inner = [self.index.nodes[n].output[0] for n in nodes if n != last]
            if all(self._closed(name, nodes) for name in inner):
                rank = (-reductions, len(nodes))
                if best is None or rank < best[:2]:
                    best = (*rank, nodes, last)
        return None if best is None else (best[2], best[3])

    def _extend(self, nodes: set[int], last: int) -> None:
        """Adds the scale and the bias after a normalization."""
        main = last
        softmax = any(self.index.nodes[n].op_type == "Exp" for n in nodes)
        for op_type in () if softmax else ("Mul", "Add"):
            output = self.index.nodes[last].output[0]
            readers = self.index.consumers.get(output, [])
            if len(readers) != 1 or output in self.outputs or readers[0] in self.owner:
                break
            node = self.index.nodes[readers[0]]
            if node.op_type != op_type or self._dynamic(readers[0]) != [output] or not self._is_elementwise(readers[0]):
                break
            last = readers[0]
            nodes = nodes | {last}
        draft = _Draft(sorted(nodes), main, "softmax" if softmax else "normalization", self.index.nodes[last].output[0])
        for position in nodes:
            self.owner[position] = draft
