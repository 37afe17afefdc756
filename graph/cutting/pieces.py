"""Cuts and pieces: where few bytes are live, and the sub-model between two such places as a model of its own.

What may cross a border is decided by how a tensor came about (`Dataflow`). Constants, shape arithmetic and integer
paths that start at integer inputs never do: each piece computes them anew. Sequences and optionals never do either.
All other tensors may, and a cut costs their bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..errors import ModelError
from ..index import GraphIndex, attribute, captured, infer_shapes, subgraphs
from ..specs import STRING, TensorSpec, dtype_from_onnx, dtype_to_onnx, is_float, spec_from_value_info

if TYPE_CHECKING:
    from ..model import Model
    from .fusion import Group

RANDOM_OPERATORS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
"""Operators of the default domain whose output is drawn anew at every run. Dropout is one of them while training."""

UNKNOWN_FIRST, UNKNOWN_OTHER = 2, 8
"""Lengths that a dimension is thought to have when nothing is known: the first (batch), and the others."""


class Kind(enum.IntEnum):
    """How a tensor came about, which decides whether it can be a border."""

    CONSTANT = 0
    """From weights, constants and shapes alone. Computed anew in each piece."""
    INTEGER = 1
    """An integer, bool or string from integer inputs through integer operators. Computed anew in each piece."""
    DATA = 2
    """Everything else. May be a border."""


@dataclass(frozen=True)
class Piece:
    """The part of a graph between two cuts.

    Attributes:
        index: Place in the order of running, from 0.
        nodes: Positions in ``graph.node``, ascending. Every node of a graph is in exactly one piece of a plan; what a
            piece computes a second time (shape arithmetic, constants) is not listed, `extract` adds it.
        inputs: Tensors that are read from outside, graph inputs among them.
        outputs: Tensors that later pieces read, and graph outputs.
        activations: Bytes of all tensors that the nodes write, each once, plus the inputs.
        weights: Bytes of the weights that are read.
        random: The piece is one random operator: what it drew in the reference is to be fed to the candidate.
        note: What the user should know, e.g. that nothing smaller could be cut. Empty otherwise.
    """

    index: int
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activations: int = 0
    weights: int = 0
    random: bool = False
    note: str = ""


class Dataflow:
    """What each tensor of a graph depends on: the knowledge behind cuts and pieces.

    Args:
        index: The graph.
        specs: Types that ONNX shape inference cannot tell (outputs of custom operators), e.g. as measured.
    """

    def __init__(self, index: GraphIndex, specs: Mapping[str, TensorSpec] | None = None) -> None:
        self.index = index
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
        elif node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx"):
            kind = Kind.CONSTANT
        else:
            kind = max((self.kind.get(name, Kind.DATA) for name in reads), default=Kind.CONSTANT)
            if kind == Kind.INTEGER and any(self._floating(name) for name in outputs):
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

    @property
    def _readers(self) -> dict[str, tuple[int, ...]]:
        if "_reader_table" not in self.__dict__:
            table: dict[str, list[int]] = {}
            for position in range(len(self.index.nodes)):
                for name in self.needs(position):
                    table.setdefault(name, []).append(position)
            self._reader_table = {name: tuple(nodes) for name, nodes in table.items()}
        return self._reader_table

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
    extra = frozenset(specs or ()) - frozenset(index.specs)
    kept = index.__dict__.get("_dataflow")  # on the graph itself: a table of graphs would keep them all alive
    if kept is not None and kept[0] >= extra:
        return kept[1]
    flow = Dataflow(index, {name: specs[name] for name in extra} if specs else None)
    index.__dict__["_dataflow"] = (extra, flow)
    return flow


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    try:
        itemsize = dtype_from_onnx(tensor.data_type).itemsize
    except KeyError:
        itemsize = 4
    return itemsize * int(np.prod(tensor.dims, dtype=np.int64))


def random_nodes(index: GraphIndex) -> tuple[int, ...]:
    """Positions of the nodes that draw random values, in their subgraphs and model-local functions too."""
    functions = {(f.domain, f.name): f for f in index.proto.functions}

    def draws(node: onnx.NodeProto, training: object, depth: int = 0) -> bool:
        if depth > 32:
            return False
        function = functions.get((node.domain, node.op_type))
        if function is not None:
            return any(draws(inner, None, depth + 1) for inner in function.node)
        if any(draws(inner, None, depth + 1) for body in subgraphs(node) for inner in body.node):
            return True
        if node.domain not in ("", "ai.onnx"):
            return False
        return node.op_type in RANDOM_OPERATORS or (node.op_type == "Dropout" and bool(training))

    def training(node: onnx.NodeProto) -> object:
        if node.op_type != "Dropout":
            return None
        if len(node.input) > 2 and node.input[2]:
            value = index.constant(node.input[2])
            return value is None or bool(value.any())
        return index.opset.get("", 1) < 7 and not attribute(node, "is_test", 0)

    return tuple(p for p, node in enumerate(index.nodes) if draws(node, training(node)))


# --------------------------------------------------------------------------------------------------- extraction


def extract(
    model: Model,
    nodes: Iterable[int],
    outputs: Sequence[str],
    *,
    specs: Mapping[str, TensorSpec] | None = None,
) -> Model:
    """A model of its own made of some nodes of another.

    Shape arithmetic, integer and constant paths that the nodes read are taken along. Only the weights that are read
    are; external ones stay references into the same folder, so that nothing is read from disk here.

    Args:
        model: The whole model.
        nodes: Positions of the nodes to take.
        outputs: Tensors that the piece gives, in this order.
        specs: Types of tensors that ONNX shape inference cannot tell.

    Raises:
        ModelError: An output is not made by these nodes, or the type of a tensor at the border is unknown.
    """
    index = model.index
    flow = dataflow(index, specs)
    types: Mapping[str, TensorSpec] = {**flow.specs, **specs} if specs else flow.specs
    taken = set(nodes)
    again, constants, outside = flow.closure(taken, extra=outputs)
    taken |= again
    made = {name for position in taken for name in index.nodes[position].output if name} | constants
    for name in outputs:
        if name not in made:
            raise ModelError(f"{model.source}: a piece of {len(taken)} nodes does not make {name!r}.")
    whole = index.graph
    proto = empty_like(index.proto)
    graph = proto.graph
    for name in sorted(constants, key=lambda n: index.producer[n]):
        value = onnx.numpy_helper.from_array(np.ascontiguousarray(index.constant(name)), name)
        graph.node.append(onnx.helper.make_node("Constant", [], [name], name=f"{name}/constant", value=value))
    graph.node.extend(index.nodes[position] for position in sorted(taken))
    graph.input.extend(_typed(name, types, whole, model.source) for name in outside)
    add_weights(index, graph, {name for position in taken for name in index.reads[position]})
    originals = {o.name: o for o in whole.output}
    for name in outputs:
        if name in originals:
            graph.output.append(originals[name])
        elif name in types:
            graph.output.append(value_info(types[name]))
        else:
            graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    border = {*outside, *outputs}
    graph.value_info.extend(v for v in whole.value_info if v.name in made and v.name not in border)
    graph.quantization_annotation.extend(a for a in whole.quantization_annotation if a.tensor_name in made | border)
    return model.derive(proto)


def empty_like(whole: onnx.ModelProto) -> onnx.ModelProto:
    """A model of the same versions, operator sets and functions, without its graph."""
    proto = onnx.ModelProto(
        ir_version=whole.ir_version, producer_name=whole.producer_name, producer_version=whole.producer_version
    )
    proto.opset_import.extend(whole.opset_import)
    proto.functions.extend(whole.functions)
    proto.metadata_props.extend(whole.metadata_props)
    proto.graph.name = whole.graph.name or "piece"
    return proto


def add_weights(index: GraphIndex, graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Adds those of the weights that are named. External ones stay references."""
    # an initializer that is also listed as an input may be overridden, and before IR 4 all of them are listed
    graph.input.extend(i for i in index.graph.input if i.name in names and i.name in index.initializers)
    graph.initializer.extend(t for t in index.graph.initializer if t.name in names)
    graph.sparse_initializer.extend(t for t in index.graph.sparse_initializer if t.values.name in names)


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """The ONNX type of a tensor."""
    shape = None if spec.shape is None else list(spec.shape)
    return onnx.helper.make_tensor_value_info(spec.name, dtype_to_onnx(spec.dtype), shape)


def _typed(name: str, types: Mapping[str, TensorSpec], graph: onnx.GraphProto, source: str) -> onnx.ValueInfoProto:
    for info in graph.input:
        if info.name == name:
            return info
    if name not in types:
        raise ModelError(f"{source}: the type of {name!r} is not known, so no piece can begin there.")
    return value_info(types[name])


def enter(model: Model, node: int, specs: Mapping[str, TensorSpec] | None = None) -> dict[str, Model]:
    """The bodies of an If, Loop or Scan node, each as a model of its own.

    What a body captures from outside becomes an input of it, after its own inputs (iteration number, condition,
    carried values, slices); weights and constants that it captures are taken along. A node without a name gets that of
    its operator and its position in the body.

    Args:
        model: The model around it.
        node: Position of the If, Loop or Scan.
        specs: Types of the bodies' inputs and of captured tensors, as measured. They override what the graph says.

    Returns:
        By attribute: ``then_branch`` and ``else_branch``, or ``body``.

    Raises:
        ModelError: The type of a captured tensor is not known.
    """
    index = model.index
    flow = dataflow(index)
    types: Mapping[str, TensorSpec] = {**flow.specs, **specs} if specs else flow.specs
    bodies = {}
    for a in index.nodes[node].attribute:
        if a.type != onnx.AttributeProto.GRAPH:
            continue
        proto = empty_like(index.proto)
        graph = proto.graph
        graph.CopyFrom(a.g)
        outer = captured(a.g)
        again = {p for p in flow.closure((), extra=outer)[0] if all(flow.kind[o] == 0 for o in index.nodes[p].output)}
        again = {p for p in again if not any(flow.leaves(o) for o in index.nodes[p].output)}
        made = {name for position in again for name in index.nodes[position].output}
        for position, inner in enumerate(graph.node):
            inner.name = inner.name or f"{inner.op_type}_{position}"
        body = list(graph.node)
        del graph.node[:]
        graph.node.extend(index.nodes[position] for position in sorted(again))
        graph.node.extend(body)
        for i, info in enumerate(graph.input):
            if specs and info.name in specs:
                graph.input[i].CopyFrom(value_info(specs[info.name]))
        for name in outer:
            if name not in made and name not in index.initializers:
                measured = specs is not None and name in specs
                graph.input.append(
                    value_info(types[name]) if measured else _typed(name, types, index.graph, model.source)
                )
        add_weights(index, graph, {*outer, *(name for position in again for name in index.reads[position])})
        bodies[a.name] = model.derive(proto)
    return bodies


# ----------------------------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class _Unit:
    """What is never cut: a fused group with the recomputed nodes that belong to it."""

    nodes: tuple[int, ...]
    random: bool = False


def plan_pieces(
    index: GraphIndex,
    groups: Sequence[Group],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    memory: int,
    specs: Mapping[str, TensorSpec] | None = None,
    most: int | None = None,
) -> list[Piece]:
    """Packs whole fused groups into pieces, cut where few bytes are live.

    Of all ways to cut between groups, takes the one with the fewest bytes at its borders plus a sixteenth of the budget
    for every piece, among those whose pieces fit the budget (dynamic programming over the order of the groups). A piece
    that does not fit is as small as can be, a single group where its borders are tensors, and says so in its note.

    Args:
        index: The graph.
        groups: Every node in exactly one group.
        shapes: Shapes of tensors where the graph leaves them open.
        memory: Budget in bytes for the weights of a piece and all the tensors it reads and writes, each once.
        specs: Types of tensors that ONNX shape inference cannot tell.
        most: Most groups that a piece may hold; None for no limit.

    Returns:
        Pieces in the order of running. Together they hold every node once.
    """
    flow = dataflow(index, specs)
    units = _units(flow, [g.nodes for g in groups])
    pieces = [_piece(flow, u, shapes) for u in _pack(flow, units, shapes, memory, most)]
    return [_noted(replace(piece, index=i), index, memory) for i, piece in enumerate(pieces)]


def split(
    index: GraphIndex,
    piece: Piece,
    groups: Sequence[Group],
    *,
    parts: int = 2,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    specs: Mapping[str, TensorSpec] | None = None,
) -> list[Piece]:
    """Smaller pieces that together are ``piece``: its groups in ``parts`` of about equal size, cut where few bytes are
    live; the nodes one by one where it is a single group; itself where it is a single node.

    The new pieces are numbered from 0, and their inputs and outputs are those of the whole graph.
    """
    flow = dataflow(index, specs)
    inside = set(piece.nodes)
    units = _units(flow, [g.nodes for g in groups if inside.issuperset(g.nodes)], inside)
    if len(units) == 1:
        units = _units(flow, [(p,) for p in piece.nodes], inside)
    if len(units) == 1:
        return [replace(piece, index=0)]
    limit = -(-len(units) // max(parts, 2))
    # Balanced, with a quarter of slack so that a cheap border near the middle wins over a dear one in the middle.
    limit = limit if limit == 1 else min(len(units) - 1, limit + max(1, limit // 4))
    packed = _pack(flow, units, shapes, memory=1 << 62, most=limit)
    return [replace(_piece(flow, u, shapes), index=i) for i, u in enumerate(packed)]


def _units(flow: Dataflow, groups: Iterable[Sequence[int]], inside: set[int] | None = None) -> list[_Unit]:
    """The groups in an order in which they can run, recomputed nodes assigned to one of them each."""
    index = flow.index
    cores: list[tuple[int, ...]] = []
    loose: list[int] = []
    for group in groups:
        data = [p for p in group if any(flow.kind[n] == Kind.DATA for n in index.nodes[p].output if n)]
        if flow.random.intersection(group):
            cores.extend((p,) for p in data)
            loose.extend(p for p in group if p not in data)
        elif data:
            cores.append(tuple(sorted(group)))
        else:
            loose.extend(group)
    if inside is not None:
        covered = {p for core in cores for p in core} | set(loose)
        for position in sorted(inside - covered):
            is_data = any(flow.kind[n] == Kind.DATA for n in index.nodes[position].output if n)
            if is_data:
                cores.append((position,))
            else:
                loose.append(position)
    cores = _topological(index, flow, cores)
    if not cores:
        return [_Unit(tuple(sorted(loose)))]
    owner = {p: u for u, core in enumerate(cores) for p in core}
    extra: list[list[int]] = [[] for _ in cores]
    pending = []
    for position in sorted(loose):
        made = [index.producer[n] for n in index.reads[position] if n in index.producer]
        early = max((owner[p] for p in made if p in owner), default=-1)
        if early >= 0:  # as early as what it needs is there, so that nothing is kept for it
            owner[position] = early
            extra[early].append(position)
        else:
            pending.append(position)
    for position in reversed(pending):  # from inputs and constants alone: where it is read first
        readers = [p for n in index.nodes[position].output for p in index.consumers.get(n, ())]
        unit = min((owner[p] for p in readers if p in owner), default=len(cores) - 1)
        owner[position] = unit
        extra[unit].append(position)
    return [
        _Unit(tuple(sorted((*core, *more))), bool(flow.random.intersection(core)))
        for core, more in zip(cores, extra, strict=True)
    ]


def _topological(index: GraphIndex, flow: Dataflow, cores: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Groups in an order in which they can run, as near to the file's as possible.

    A group that waits for itself through another one cannot run as one, and is taken apart.
    """
    import heapq

    # Random operators that read no data come first: nothing else is then live around them.
    def rank(core: tuple[int, ...]) -> tuple[int, int]:
        first = len(core) == 1 and core[0] in flow.random and not flow.needs(core[0])
        return (0 if first else 1, core[-1])

    while True:
        owner = {p: u for u, core in enumerate(cores) for p in core}
        waits: list[set[int]] = []
        unlocks: dict[int, list[int]] = {}
        for u, core in enumerate(cores):
            before = {owner[index.producer[n]] for p in core for n in flow.needs(p) if index.producer.get(n) in owner}
            waits.append(before - {u})
            for b in waits[-1]:
                unlocks.setdefault(b, []).append(u)
        ready = [(rank(core), u) for u, core in enumerate(cores) if not waits[u]]
        heapq.heapify(ready)
        order = []
        while ready:
            _, u = heapq.heappop(ready)
            order.append(u)
            for v in unlocks.get(u, ()):
                waits[v].discard(u)
                if not waits[v]:
                    heapq.heappush(ready, (rank(cores[v]), v))
        if len(order) == len(cores):
            return [cores[u] for u in order]
        stuck = set(range(len(cores))) - set(order)
        cores = [c for u, core in enumerate(cores) for c in ([(p,) for p in core] if u in stuck else [core])]


def _pack(
    flow: Dataflow, units: list[_Unit], shapes: Mapping[str, tuple[int, ...]] | None, memory: int, most: int | None
) -> list[list[_Unit]]:
    n = len(units)
    owner = {p: u for u, unit in enumerate(units) for p in unit.nodes}
    border, forbidden = _borders(flow, units, owner, shapes)
    forced = {p for u, unit in enumerate(units) if unit.random for p in (u, u + 1)}
    made = [{o: flow.nbytes(o, shapes) for p in unit.nodes for o in flow.index.nodes[p].output if o} for unit in units]
    read = [{r: flow.nbytes(r, shapes) for p in unit.nodes for r in flow.needs(p)} for unit in units]
    weights = [flow.weights(unit.nodes) for unit in units]
    overhead = memory // 16 if memory < 1 << 60 else 1 << 16
    most = most or n
    infinite = float("inf")
    best: list[float] = [0.0] + [infinite] * n
    back = [0] * (n + 1)
    legal = [p in (0, n) or p in forced or p not in forbidden for p in range(n + 1)]
    for end in range(1, n + 1):
        if not legal[end]:
            continue
        over, seen, outside = -memory, set[str](), dict[str, int]()
        smallest = True
        for start in range(end - 1, -1, -1):
            for name, size in made[start].items():
                over += size - outside.pop(name, 0)
            for name, size in weights[start].items():
                if name not in seen:
                    seen.add(name)
                    over += size
            for name, size in read[start].items():
                if name not in outside and name not in made[start]:
                    outside[name] = size
                    over += size
            if not legal[start]:
                continue
            # what follows only grows: over the budget, a piece is as small as it can be, so that no other is as large
            if over > 0 and not smallest:
                break
            if best[start] < infinite:
                crowd = max(0, end - start - most)
                cost = best[start] + border[start] + overhead + (1e15 * crowd)
                if cost < best[end]:
                    best[end], back[end] = cost, start
            smallest = False
            if start in forced or end - start > most:
                break
    result = []
    end = n
    while end > 0:
        result.append(units[back[end] : end])
        end = back[end]
    return result[::-1]


def _borders(
    flow: Dataflow, units: list[_Unit], owner: Mapping[int, int], shapes: Mapping[str, tuple[int, ...]] | None
) -> tuple[list[int], set[int]]:
    """Live bytes between unit p - 1 and unit p, for every p; and the p where something live cannot be a border."""
    n = len(units)
    steps = [0] * (n + 2)
    forbidden: set[int] = set()
    for u, unit in enumerate(units):
        for name in (o for p in unit.nodes for o in flow.index.nodes[p].output if o):
            if flow.recomputed(name):
                continue
            last = max((owner[r] for r in flow.readers(name) if r in owner), default=u)
            if last <= u:
                continue
            if flow.crossable(name):
                size = flow.nbytes(name, shapes)
                steps[u + 1] += size
                steps[last + 1] -= size
            else:
                forbidden.update(range(u + 1, last + 1))
    live = 0
    border = []
    for step in steps[: n + 1]:
        live += step
        border.append(live)
    return border, forbidden


def _piece(flow: Dataflow, units: Sequence[_Unit], shapes: Mapping[str, tuple[int, ...]] | None) -> Piece:
    index = flow.index
    nodes = tuple(sorted(p for unit in units for p in unit.nodes))
    inside = set(nodes)
    _, _, outside = flow.closure(inside)
    made = [name for p in nodes for name in index.nodes[p].output if name]
    outputs = set(index.outputs)
    given = tuple(
        name
        for name in made
        if name in outputs or (not flow.recomputed(name) and any(reader not in inside for reader in flow.readers(name)))
    )
    return Piece(
        0,
        nodes,
        tuple(outside),
        given,
        activations=sum(flow.nbytes(name, shapes) for name in (*outside, *made)),
        weights=sum(flow.weights(nodes).values()),
        random=any(unit.random for unit in units),
    )


def _noted(piece: Piece, index: GraphIndex, memory: int) -> Piece:
    needed = piece.activations + piece.weights
    if needed <= memory:
        return piece
    names = index.names
    where = f"{names[piece.nodes[0]]} to {names[piece.nodes[-1]]}" if len(piece.nodes) > 1 else names[piece.nodes[0]]
    note = (
        f"Piece {piece.index} ({where}) needs {readable(needed)}, more than {readable(memory)}: "
        "nothing smaller can be cut there."
    )
    return replace(piece, note=note)


def readable(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"


# --------------------------------------------------------------------------------------------------- dimensions


def propagate(model: Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...] | None]:
    """The shape of every tensor for given shapes of the inputs, as far as it follows without running.

    ONNX shape inference, repeated: integer tensors that became constants (a Reshape's target from a Shape) are folded
    between the rounds.

    Args:
        model: The model or a piece of one.
        shapes: Concrete shapes of its inputs; those not named keep what the graph says.

    Returns:
        Tensor -> shape, for inputs, outputs and everything between; None where it depends on the data or on an operator
        that inference does not know.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for info in proto.graph.input:
        if info.name in shapes:
            tensor = info.type.tensor_type
            tensor.ClearField("shape")
            tensor.shape.SetInParent()
            for d in shapes[info.name]:
                tensor.shape.dim.add().dim_value = int(d)
    # what the file says of inner tensors may hold for other shapes of the inputs only
    custom = {o for node in proto.graph.node if node.domain not in ("", "ai.onnx") for o in node.output}
    kept = [v for v in proto.graph.value_info if v.name in custom]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    for info in proto.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    known: dict[str, tuple[int, ...] | None] = {}
    for _ in range(8):
        index = GraphIndex(proto, model.folder)
        inferred = infer_shapes(proto)
        infos = [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]
        for info in infos:
            spec = spec_from_value_info(info)
            if spec is not None and spec.shape is not None and all(isinstance(d, int) for d in spec.shape):
                known[info.name] = tuple(d for d in spec.shape if isinstance(d, int))
        index.__dict__["specs"] = {s.name: s for i in infos if (s := spec_from_value_info(i)) is not None}
        folded = 0
        for position, node in enumerate(index.nodes):
            if node.op_type == "Constant" or len(node.output) != 1 or not node.input:
                continue
            spec = index.specs.get(node.output[0])
            if spec is not None and (is_float(spec.dtype) or spec.dtype == STRING):
                continue
            value = index.constant(node.output[0])
            if value is None or value.size > 1024 or is_float(value.dtype):
                continue
            tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), node.output[0])
            proto.graph.node[position].CopyFrom(
                onnx.helper.make_node("Constant", [], [node.output[0]], name=node.name, value=tensor)
            )
            known[node.output[0]] = value.shape
            folded += 1
        if not folded:
            break
    names = [*model.index.inputs, *model.index.producer]
    return {name: known.get(name) for name in names}
