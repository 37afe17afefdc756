"""A graph with operators written as those that they stand for, which the other graph has: sums with a normalization
behind them, products with what they do besides (`epilogues`), and products of matrices that are products of tensors of
more axes. It is read and never run."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from ..blocked import is_blocked, plain_name
from ..index import GraphIndex
from ..nodes import attribute, attribute_int
from ..operators import PRODUCTS, operator
from ..quantized.float_form import FloatForm
from ..specs import Dim, TensorSpec
from ..writer import GraphWriter, Names
from .epilogues import ADDING, Read, Step, last_step
from .normal_form import slots
from .parted import parted
from .unblocked import Unblocked

SKIPPING = {
    "SkipLayerNormalization": "LayerNormalization",
    "SkipSimplifiedLayerNormalization": "SimplifiedLayerNormalization",
}
"""The operators that are a sum and a normalization, with the latter."""
EMBEDDING = "EmbedLayerNormalization"
"""Rows of several tables added up, and a normalization."""
READ_AS = {"scale": "gamma", "b": "beta"}
"""What their weights are called where a LayerNormalization calls them otherwise: slot -> name."""
EPSILON = 1e-12
"""The epsilon of a SkipLayerNormalization that gives none."""
_FUSED = re.compile("^fused |/MatMulAddFusion$|/MatMulScaleFusion/.*$|/MatmulTransposeFusion/$")
"""What ONNX Runtime puts around the name of a product that it makes one with its neighbours."""


class _Flat(NamedTuple):
    """A Gemm between two Reshapes, which multiplies the last axis of a tensor of more axes.

    Attributes:
        before, product, behind: Positions.
        leading: The sizes of the axes that it does not multiply.
    """

    before: int
    product: int
    behind: int
    leading: tuple[Dim, ...]


def unfused(reference: GraphIndex, candidate: GraphIndex) -> list[FloatForm | None]:
    """Both graphs with all these written apart, where the two have not as many of each, or one is of a blocked layout;
    None for a graph that stays as it is."""
    graphs = reference, candidate
    sums, splits = (_count(reference, op) != _count(candidate, op) for op in (ADDING, {"Split"}))
    apart = [_Apart.of(index, sums=sums, splits=splits) for index in graphs]
    blocked = any(is_blocked(node) for index in graphs for node in index.nodes)
    if not blocked and apart[0].counts == apart[1].counts:
        return [None, None]
    return [
        _Writing(index, other, found).run() if any(found.counts) or any(map(is_blocked, index.nodes)) else None
        for index, other, found in zip(graphs, graphs[::-1], apart, strict=True)
    ]


def _count(index: GraphIndex, among: Collection[str]) -> int:
    return sum(operator(node) in among for node in index.nodes)


class _Apart(NamedTuple):
    """The nodes of a graph that are written apart.

    Attributes:
        skips: How many are a sum, of embeddings perhaps, and the normalization behind it.
        steps: Those that do more than one operator: position -> the last of the operators that it stands for.
        flattened: Products that are those of a tensor of more axes.
        parts: What Splits make -> the operator that makes it instead.
    """

    skips: int
    steps: dict[int, Step]
    flattened: list[_Flat]
    parts: dict[str, Step]

    @classmethod
    def of(cls, index: GraphIndex, *, sums: bool, splits: bool) -> _Apart:
        """Those of a graph; with ``sums`` and ``splits``, also Gemms that add what another node makes, and Splits."""
        flattened = _flattened(index)
        flat = {product.product for product in flattened}
        steps = {}
        for position, node in enumerate(index.nodes):
            last = last_step(index, node, sums=sums) if position not in flat else None
            steps.update({} if last is None else {position: last})
        return cls(sum(_skips(index, node) for node in index.nodes), steps, flattened, parted(index) if splits else {})

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """How many there are of each kind."""
        return self.skips, len(self.steps), len(self.flattened), len(self.parts)


def _skips(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether a node is a sum and a normalization, of which nobody reads the statistics."""
    if operator(node) == EMBEDDING:
        positions, ids = _given(node).get("places"), _sizes(index, node.input[0])
        return bool(positions) or (len(ids) == 2 and isinstance(ids[1], int))
    return operator(node) in SKIPPING and not any(node.output[1:3])


def _given(node: onnx.NodeProto) -> dict[str, str]:
    """What a node reads, by the names of its inputs."""
    return dict(zip(slots(node, 1), node.input, strict=True))


def read_as(node: onnx.NodeProto, weight: str) -> str:
    """What a node that is a sum and a normalization calls a weight that it reads; empty of other nodes.

    Args:
        node: A node of the file.
        weight: The weight's name.
    """
    if not weight or operator(node) not in {*SKIPPING, EMBEDDING}:
        return ""
    return next((READ_AS.get(slot, slot) for slot, name in _given(node).items() if name == weight), "")


def _flattened(index: GraphIndex) -> list[_Flat]:
    found = (_flat(index, p) for p, node in enumerate(index.nodes) if operator(node) == "Gemm")
    return [flat for flat in found if flat is not None]


def _flat(index: GraphIndex, product: int) -> _Flat | None:
    """A Gemm as a product of a tensor of more axes, where it is one."""
    node = index.nodes[product]
    scales = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if attribute_int(node, "transA", 0) or attribute_int(node, "transB", 0) or scales != (1.0, 1.0):
        return None
    before, readers = index.producer.get(node.input[0]), index.consumers.get(node.output[0], [])
    if before is None or len(readers) != 1 or node.output[0] in index.outputs:
        return None
    ends = index.nodes[before], index.nodes[readers[0]]
    if any(operator(end) != "Reshape" for end in ends) or ends[1].input[0] != node.output[0]:
        return None
    read, made, rows, flat = (_sizes(index, name) for name in (ends[0].input[0], ends[1].output[0], *_ends(node)))
    biased = len(node.input) > 2 and node.input[2] != ""
    if not read or not made or not rows or not flat or max(len(read), len(made)) < 3:
        return None
    if biased and _sizes(index, node.input[2]) != flat[-1:]:
        return None
    if read[-1] == rows[-1]:
        return _Flat(before, product, readers[0], read[:-1])
    return _Flat(before, product, readers[0], made[:-1]) if made[-1] == flat[-1] else None


def _ends(node: onnx.NodeProto) -> tuple[str, str]:
    return node.input[0], node.output[0]


def _sizes(index: GraphIndex, name: str) -> tuple[Dim, ...]:
    """The shape of a tensor; empty where it is not known."""
    spec = index.specs.get(name)
    return () if spec is None or spec.shape is None or None in spec.shape else spec.shape


class _Writing:
    """Writes one graph, node by node."""

    def __init__(self, index: GraphIndex, other: GraphIndex, apart: _Apart) -> None:
        self.index = index
        self.steps = apart.steps
        self.parts = apart.parts
        self.unblocked = Unblocked(index, other)
        self.theirs = {node.name: node for node in other.nodes if operator(node) in PRODUCTS and node.name}
        self.writer = GraphWriter(Names.of(index.graph), index.opset.get("", 1))
        self.specs = {**index.specs, **self._in_blocks()}
        self.invented = set(self.unblocked.tensors)
        self.products = {flat.product: flat for flat in apart.flattened}
        self.behind = {flat.behind for flat in apart.flattened}
        befores = {flat.before for flat in apart.flattened}
        self.gone = {p for p in befores if all(r in self.products for r in self._readers(p))}
        self.tensors: dict[int, str] = {}
        """The Reshape behind a product -> what the product of the whole tensor makes."""

    def run(self) -> FloatForm:
        index, origins = self.index, list[int]()
        for position, node in enumerate(index.nodes):
            before = len(self.writer.nodes)
            self._add(position, node)
            origins.extend([position] * (len(self.writer.nodes) - before))
        proto = onnx.ModelProto(ir_version=index.proto.ir_version)
        proto.opset_import.extend(index.proto.opset_import)
        proto.functions.extend(index.proto.functions)
        proto.graph.name = index.graph.name
        proto.graph.input.extend(index.graph.input)
        proto.graph.output.extend(index.graph.output)
        proto.graph.node.extend(self.writer.nodes)
        form = GraphIndex(proto, index.folder, self.specs)
        form.names = [index.names[origin] for origin in origins]  # of what the file does not have, nobody can be told
        # not copied: they may be large
        form.initializers = {**index.initializers, **{t.name: t for t in self.writer.initializers}}
        form.inputs = index.inputs
        return FloatForm(form, tuple(origins), frozenset(self.invented))

    def _readers(self, position: int) -> list[int]:
        name = self.index.nodes[position].output[0]
        return [-1] if name in self.index.outputs else self.index.consumers.get(name, [])

    def _add(self, position: int, node: onnx.NodeProto) -> None:
        if _skips(self.index, node):
            self._embedded(node) if operator(node) == EMBEDDING else self._skip(node)
        elif self.parts and (operator(node) == "Split" or node.output[0] in self.parts):
            for name in (n for n in node.output if n in self.parts):
                self._step(self.parts[name], node, name)
        elif position in self.products:
            self._product(self.products[position], node)
        elif (step := self.unblocked.last_step(node) if is_blocked(node) else self.steps.get(position)) is not None:
            self._step(step, node, node.output[0])
        elif position in self.tensors:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[0] = self.tensors[position]
            self.writer.nodes.append(copy)
        elif position not in self.gone and position not in self.behind:
            self.writer.nodes.append(node)

    def _invent(self, op: str, inputs: list[str], spec: TensorSpec | None, output: str | None = None) -> str:
        """Writes a node whose result, unless it is named, the file does not have."""
        made = self.writer.emit(op, inputs, output)
        if output is None:
            self.invented.add(made)
            self.specs.update({} if spec is None else {made: spec})
        return made

    def _skip(self, node: onnx.NodeProto) -> None:
        given, kept = _given(node), self.specs.get(node.output[0])
        summands = [given["input"], given["skip"]]
        if given.get("bias"):
            summands[1] = self._invent("Add", [summands[1], given["bias"]], kept)
        total = node.output[3] if len(node.output) > 3 and node.output[3] else None
        self._normalized(node, self._invent("Add", summands, kept, total), SKIPPING[operator(node)])

    def _embedded(self, node: onnx.NodeProto) -> None:
        """Rows of tables, added up and normalized; beside them, how many tokens the mask leaves."""
        given, kept = _given(node), self.specs.get(node.output[0])
        places, ids = given.get("places", ""), _sizes(self.index, node.input[0])
        if not places and isinstance(ids[1], int):  # the first ones
            places = self.writer.constant(np.arange(ids[1])[None])
        total = node.output[2] if len(node.output) > 2 and node.output[2] else None
        rows = [self._invent("Gather", [given["word_embedding"], given["input_ids"]], kept)]
        rows.append(self._invent("Gather", [given["position_embedding"], places], None))
        if given.get("segment_embedding") and given.get("segment_ids"):
            rows[:2] = [self._invent("Add", rows, kept)]
            rows.append(self._invent("Gather", [given["segment_embedding"], given["segment_ids"]], kept))
        self._normalized(node, self._invent("Add", rows, kept, total), "LayerNormalization")
        if len(node.output) > 1 and node.output[1]:
            self._invent("ReduceSum", [given["mask"]] if given.get("mask") else rows[:1], None, node.output[1])

    def _normalized(self, node: onnx.NodeProto, summed: str, op: str) -> None:
        """The normalization that a node has behind a sum."""
        given = _given(node)
        read = [summed, *filter(None, (given.get("scale"), given.get("b")))]
        epsilon = attribute(node, "epsilon", EPSILON)
        self.writer.nodes.append(helper.make_node(op, read, node.output[:1], name=node.name, axis=-1, epsilon=epsilon))

    def _in_blocks(self) -> dict[str, TensorSpec]:
        """The specs of tensors in blocks, with the channels that they have."""
        sized = ((name, count, _sizes(self.index, name)) for name, count in self.unblocked.tensors.items())
        return {
            name: replace(self.index.specs[name], shape=(sizes[0], count, *sizes[2:]))
            for name, count, sizes in sized
            if count and len(sizes) > 2
        }

    def _step(self, step: Step, node: onnx.NodeProto, output: str = "") -> str:
        """Writes one of the operators that a node stands for, behind those that it reads."""

        def made(read: Read) -> str:
            if isinstance(read, Step):
                return self._step(read, node)
            if isinstance(read, str):
                return read
            if not isinstance(read, np.ndarray):
                return self.writer.scalar(read)
            name = self.writer.constant(read)
            self.specs[name] = TensorSpec(name, read.dtype, read.shape)
            return name

        inputs = [made(read) for read in step.inputs]
        if not output:
            own = (plain_name(node) or self._namesake(node)) if step.op in PRODUCTS else ""
            output = self.writer.names.fresh(own or f"{node.name or node.output[0]}/{step.op}")
            self.invented.add(output)
            spec = self.specs.get(inputs[0] if step.op == "Transpose" else node.output[0])
            if spec is not None and step.op == "Transpose" and spec.shape is not None:
                spec = replace(spec, shape=tuple(spec.shape[axis] for axis in step.settings["perm"]))
            self.specs.update({} if spec is None else {output: spec})
        name = node.name if step.op in PRODUCTS else f"{node.name}/{step.op}"
        self.writer.nodes.append(helper.make_node(step.op, inputs, [output], name=name, **step.settings))
        return output

    def _namesake(self, node: onnx.NodeProto) -> str:
        """What the node of the other graph makes that this one, which does more, is called after; empty if none."""
        found = self.theirs.get(_FUSED.sub("", node.name))
        return "" if found is None else found.output[0]

    def _product(self, flat: _Flat, node: onnx.NodeProto) -> None:
        first, last = self.index.nodes[flat.before], self.index.nodes[flat.behind]
        read, bias = first.input[0], node.input[2] if len(node.input) > 2 else ""
        depth, width = (_sizes(self.index, name)[-1] for name in _ends(node))
        if _sizes(self.index, read)[-1] != depth:
            sizes = self.writer.ints(*(d if isinstance(d, int) else -1 for d in (*flat.leading, depth)))
            read = self._invent("Reshape", [read, sizes], self._spec(node.input[0], (*flat.leading, depth)))
        wide = self._spec(node.output[0], (*flat.leading, width))
        output = last.output[0] if _sizes(self.index, last.output[0]) == wide.shape else None
        made = self._invent("MatMul", [read, node.input[1]], wide, None if bias else output)
        made = self._invent("Add", [made, bias], wide, output) if bias else made
        if output is None:
            self.tensors[flat.behind] = made

    def _spec(self, like: str, shape: tuple[Dim, ...]) -> TensorSpec:
        return replace(self.specs[like], shape=shape)
