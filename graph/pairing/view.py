"""One of the two graphs that are matched, as the matcher sees it: without what says nothing about structure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx

from ..cutting.dataflow import Dataflow, Kind, dataflow
from ..index import GraphIndex
from ..nodes import attribute_ints, attribute_string
from ..operators import LANDMARKS, ONE_SOURCE_CONTRIB, PRODUCTS, QUANTIZERS, RENAMES, RESHAPES, is_standard, operator
from ..quantized.idle import idle_quantizers
from ..quantized.quantizers import kept_within
from ..specs import Dim, is_float
from .constants import constant_value
from .normal_form import NormalForm, composed, normal_form, padded
from .turned import TRANSPOSES

PADDING = ("Conv", "MaxPool", "AveragePool")
"""Operators that may pad themselves in place of a Pad."""
TELLING = 64
"""Fewest elements of weights that tell a node from all others by themselves."""


LIMITS = {"Relu", "Clip"}
"""Operators that a quantizer makes up for whose integers stand for nothing beyond their limits."""


NodeKind = str | tuple[str, int, str]
"""What has to be equal for two nodes to be the same: the family of the operator, and what tells its uses apart."""


class NetNode(NamedTuple):
    """A node of a `Net`. Slots are equal where the order of inputs says nothing."""

    kind: NodeKind
    inputs: list[tuple[str, str]]
    """Slot and tensor of each."""
    outputs: list[str]


class Sketch(NamedTuple):
    """What tells a node's weights from others, without all of them."""

    digest: bytes
    """Of samples rounded to float16, so that it is the same for a network stored in float16."""
    size: int
    """How many elements the weights have."""
    vectors: np.ndarray | None
    """Unit vectors along the channels."""


@dataclass
class Net:
    """A graph reduced to some of its nodes.

    Attributes:
        nodes: The nodes by position.
        consumers: Tensor -> positions and slots of the nodes that read it.
    """

    nodes: dict[int, NetNode] = field(default_factory=dict)
    consumers: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, position: int, kind: NodeKind, inputs: list[tuple[str, str]], outputs: list[str]) -> None:
        """Adds a node with the slots and tensors that it reads."""
        self.nodes[position] = NetNode(kind, inputs, outputs)
        for slot, name in inputs:
            self.consumers.setdefault(name, []).append((position, slot))


@dataclass(frozen=True)
class Told:
    """What a first matching tells of how a graph is to be read.

    Attributes:
        padded: Window operators that are one with the Pad before them: see `paddings.one_sided`.
        scaled: Nodes that multiply by a number, which are looked through: see `scalings.moved`.
    """

    padded: frozenset[int] = frozenset()
    scaled: frozenset[int] = frozenset()


class GraphView:
    """One graph, with what says nothing about structure taken away.

    Attributes:
        index: The graph.
        skips: Whether quantizers are looked through, since the other graph has none.
        skip_dropouts: Whether a Dropout is looked through: not where one of the two graphs has one in training mode.
        invented: Tensors that stand in the graph for its structure alone: nothing has them.
        alias: Tensor -> its root: the tensor that it is a copy of (Identity, Cast, two inverse Transposes), or itself.
        classes: Root -> all tensors that are it, but for those that are invented.
        forms: Position of a node that computes something from the data -> its normal form.
        live: These positions, ascending.
        skipped: Positions of the nodes that are looked through.
        fine: All live nodes.
        skeleton: Products, recurrences and joins alone.
        output_roots: Root -> the graph's outputs that are it; `skeleton_outputs` for roots in the skeleton.
        factors: Tensor -> the number by which it is multiplied in nodes that are looked through; none where it is 1.
    """

    def __init__(
        self,
        index: GraphIndex,
        skip_quantizers: bool,
        invented: Collection[str] = frozenset(),
        *,
        skip_dropouts: bool = True,
        beside: GraphIndex | None = None,
        told: Told | None = None,
    ) -> None:
        self.index = index
        self._told = told or Told()
        # of the other graph: Transposes in a row are compared as one where it has not both of them
        self._perms = set() if beside is None else {_perm(n) for n in beside.nodes if n.op_type == "Transpose"}
        self._padding = set() if beside is None else _padding(beside)
        # where one of the two leaves some to its quantizers, those that these make up for are looked through in both
        self._limits = beside is not None and not skip_quantizers and _limiting(index) != _limiting(beside)
        self.invented = invented
        self._idle = idle_quantizers(index)
        self.skip_dropouts = skip_dropouts
        self.skips = skip_quantizers
        self.flow: Dataflow = dataflow(index)
        self.alias: dict[str, str] = {}
        self.classes: dict[str, list[str]] = {}
        self.forms: dict[int, NormalForm] = {}
        self.live: list[int] = []
        self.skipped: list[int] = []
        self.factors: dict[str, float] = {}
        self.fine = Net()
        self.skeleton = Net()
        self._root: dict[str, str] = {}
        self._sketches: dict[int, Sketch | None] = {}
        for name in index.inputs:
            self.alias[name] = self._root[name] = name
            self.classes[name] = [name]
        for position in range(len(index.nodes)):
            self._add(position, skip_quantizers)
        self.output_roots: dict[str, list[str]] = {}
        for name in index.outputs:
            self.output_roots.setdefault(self.alias.get(name, name), []).append(name)
        self.skeleton_outputs: dict[str, list[str]] = {}
        for name in index.outputs:
            self.skeleton_outputs.setdefault(self._root.get(self.alias.get(name, name), name), []).append(name)

    def constant(self, name: str) -> bool:
        """Whether a tensor depends on weights and constants alone."""
        return self.flow.kind.get(name, Kind.DATA) == Kind.CONSTANT

    def _add(self, position: int, skip_quantizers: bool) -> None:
        index = self.index
        node = index.nodes[position]
        outputs = [o for o in node.output if o]
        if all(self.constant(o) for o in outputs):
            return
        root = self._transparent(node, position, skip_quantizers)
        if root:
            self.alias[node.output[0]] = root
            self._multiply(position)
            if operator(node) in LIMITS:  # what it makes is another tensor, which nobody reads as it is
                self.skipped.append(position)
                return
            if self.factor(node.output[0]) != self.factor(root):
                return
            members = self.classes.setdefault(root, [root])
            members.extend(name for name in node.output[:1] if name not in self.invented)
            self.skipped.append(position)
            return
        c = normal_form(index, position, self.constant)
        c = self.forms[position] = self._with_before(position, c)
        self.live.append(position)
        for name in outputs:
            self.alias[name] = name
            self.classes[name] = [] if name in self.invented else [name]
        inputs = [(slot, self.alias.get(name, name)) for slot, name in c.data]
        self._multiply(position)
        # x * sigmoid(x) and 2 * x are different kinds of Mul
        kind = (c.family, len(inputs), str(c.settings.get("perm")) if c.op == "Transpose" else "")
        self.fine.add(position, kind, inputs, outputs)
        roots = [(slot, self._root.get(name, name)) for slot, name in inputs]
        distinct = {root for _, root in roots}
        custom = not is_standard(node) and c.family == operator(node) not in ONE_SOURCE_CONTRIB
        heavy = c.family in LANDMARKS or custom or not roots or (c.family == "Gather" and "data" in c.weights)
        if heavy or len(distinct) > 1:
            self.skeleton.add(position, c.family, roots if heavy else sorted(set(roots)), outputs)
            for name in outputs:
                self._root[name] = name
        else:
            for name in outputs:
                self._root[name] = roots[0][1]

    def factor(self, name: str) -> float:
        """By what a tensor is multiplied in nodes that are looked through."""
        return self.factors.get(name, 1.0)

    def _multiply(self, position: int) -> None:
        """Takes down the factor of what a node makes, where it moves values or multiplies them."""
        node = self.index.nodes[position]
        own = multiplier(self.index, position, self.constant) if position in self._told.scaled else None
        if not self.factors and own is None:
            return
        carried = own is not None or operator(node) in RENAMES or operator(node) in PRODUCTS
        factor = math.prod(self.factor(name) for name in node.input) if carried else 1.0
        factor *= 1.0 if own is None else own
        if factor != 1.0:
            self.factors.update({name: factor for name in node.output if name})

    def _with_before(self, position: int, c: NormalForm) -> NormalForm:
        """A node as one with that before it, where the other graph may have one in place of the two."""
        index, nodes = self.index, self.index.nodes
        before = index.producer.get(self.alias.get(nodes[position].input[0], "")) if nodes[position].input else None
        if before is None or before not in self.forms:
            return c
        names = index.names[before], index.names[position]
        if c.op == "Transpose" and self._one_there(nodes[position], nodes[before]):
            return composed(self.forms[before], c, names)
        if self.forms[before].op == "Pad" and (c.op in self._padding or position in self._told.padded):
            return padded(self.forms[before], c, names)
        return c

    def _one_there(self, node: onnx.NodeProto, before: onnx.NodeProto) -> bool:
        """Whether a Transpose behind another one may be one with it in the other graph, which has not both of them."""
        return before.op_type == "Transpose" and not self._perms.issuperset({_perm(node), _perm(before)})

    def _transparent(self, node: onnx.NodeProto, position: int, skip_quantizers: bool) -> str:
        """The root of which the node's output is a copy, up to rounding; empty if it is something else."""
        if not node.input or not node.input[0] or self.constant(node.input[0]):
            return ""
        root = self.alias.get(node.input[0], node.input[0])
        if position in self._told.scaled:
            return root
        if operator(node) in QUANTIZERS:
            return root if skip_quantizers or position in self._idle else ""
        if operator(node) in LIMITS:
            return root if self._limits and self._limited_behind(position) else ""
        if not is_standard(node):
            return ""
        if node.op_type == "Identity":
            return root
        if node.op_type == "Dropout":
            return root if self.skip_dropouts and len([o for o in node.output if o]) == 1 else ""
        if node.op_type == "Cast":
            before, after = (self.index.specs.get(n) for n in (node.input[0], node.output[0]))
            if before is None or after is None:
                return ""
            same = before.dtype == after.dtype or (is_float(before.dtype) and is_float(after.dtype))
            return root if same else ""
        return self._undone(node, root)

    def limits(self, position: int) -> tuple[float, float] | None:
        """The least and the greatest number that a Relu or a Clip makes; None where that is not known."""
        form = normal_form(self.index, position, self.constant)
        if len(form.data) > 1 or form.weights.keys() - form.settings.keys():
            return None
        least = 0.0 if form.op == "Relu" else -math.inf
        return form.settings.get("min", least), form.settings.get("max", math.inf)

    def _limited_behind(self, position: int) -> bool:
        """Whether whoever reads what a Relu or a Clip makes cuts it off at its limits, or within: a quantizer."""
        limits, made = self.limits(position), self.index.nodes[position].output[0]
        return limits is not None and made not in self.index.outputs and kept_within(self.index, made, *limits)

    def _undone(self, node: onnx.NodeProto, root: str) -> str:
        """What the node moves back to where it was: the second of two inverse Transposes, of two Reshapes."""
        producer = self.index.producer.get(root)
        if producer is None:
            return ""
        before = self.index.nodes[producer]
        if node.op_type == "Transpose" == before.op_type:
            first, second = attribute_ints(before, "perm"), attribute_ints(node, "perm")
            if first and second and len(first) == len(second) and all(first[p] == i for i, p in enumerate(second)):
                return self.alias.get(before.input[0], before.input[0])
        elif operator(node) in RESHAPES and operator(before) in RESHAPES:
            origin = self.alias.get(before.input[0], before.input[0])
            shapes = self.shape(origin), self.shape(node.output[0])
            if shapes[0] is not None and shapes[0] == shapes[1] and None not in shapes[0] and not self.constant(origin):
                return origin
        return ""

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """The shape of a tensor; None where not even the rank is known."""
        spec = self.index.specs.get(name)
        return None if spec is None else spec.shape

    def source(self, name: str) -> str:
        """The output of a node of the skeleton, or the input of the graph, from which alone ``name`` is made."""
        return self._root.get(name, name)

    def first(self, position: int) -> str:
        """The first output of a node."""
        return next(o for o in self.index.nodes[position].output if o)

    def sketch(self, position: int) -> Sketch | None:
        """A sketch of the node's weights; None for a node without any."""
        if position not in self._sketches:
            self._sketches[position] = self._make_sketch(position)
        return self._sketches[position]

    def _make_sketch(self, position: int) -> Sketch | None:
        c = self.forms[position]
        parts: list[bytes] = []
        total = 0
        main: np.ndarray | None = None
        for slot in sorted(c.weights):
            value = constant_value(self.index, c.weights[slot])
            if value is None or value.dtype == object or value.dtype.kind in "SU":
                continue
            if c.family in ("Conv", "ConvTranspose") and slot != "w":
                continue  # a bias comes and goes with folds
            if c.family == "MatMul":
                if slot != "b":
                    continue
                value = value if c.op == "Gemm" and c.settings.get(TRANSPOSES) else np.moveaxis(value, -1, 0)
            total += value.size
            if not value.size:
                continue
            sample = _sample(value)
            with np.errstate(all="ignore"):
                parts.append(repr(value.shape).encode() + sample.astype(np.float16).tobytes())
            if main is None or sample.size > main.size:
                main = sample
        if not parts:
            return None
        vectors = None
        if main is not None and main.size >= 8:
            with np.errstate(all="ignore"):
                rows = main.astype(np.float64)
                norm = np.linalg.norm(rows, axis=1, keepdims=True)
                vectors = rows / np.where(norm > 0, norm, 1)
        return Sketch(b"|".join(parts), total, vectors)


def multiplier(index: GraphIndex, position: int, constant: Callable[[str], bool]) -> float | None:
    """The number by which a node multiplies its first input, where that is all that it does.

    Args:
        index: The graph.
        position: The node.
        constant: Whether a tensor is independent of the data.
    """
    node = index.nodes[position]
    if operator(node) not in ("Mul", "Div") or constant(node.input[0]) or not constant(node.input[1]):
        return None
    value = constant_value(index, node.input[1])
    if value is None or value.size != 1 or value.dtype.kind != "f" or not value.item():
        return None
    return float(value.item()) if operator(node) == "Mul" else 1.0 / float(value.item())


def _limiting(index: GraphIndex) -> int:
    return sum(operator(node) in LIMITS for node in index.nodes)


def _padding(index: GraphIndex) -> set[str]:
    """Operators that pad themselves in a graph, in place of a Pad: none where it has a Pad."""
    if any(node.op_type == "Pad" for node in index.nodes):
        return set()
    padded = (n.op_type for n in index.nodes if any(attribute_ints(n, "pads") or ()) or _same(n))
    return set(padded) & set(PADDING)


def _same(node: onnx.NodeProto) -> bool:
    return attribute_string(node, "auto_pad", "NOTSET").startswith("SAME")


def _perm(node: onnx.NodeProto) -> tuple[int, ...]:
    return tuple(attribute_ints(node, "perm") or ())


def _sample(value: np.ndarray) -> np.ndarray:
    """A grid of at most 32 x 64 elements, channels first. Of a mapped file, only the pages that hold them are read."""
    value = value[None] if value.ndim < 2 else value
    if value.ndim < 2:
        return np.asarray(value)[None]
    wide = 2048 if value.shape[0] == 1 else 64
    rows = np.linspace(0, value.shape[0] - 1, min(value.shape[0], 32)).astype(np.int64)
    rest = int(np.prod(value.shape[1:], dtype=np.int64))
    columns = np.unravel_index(np.linspace(0, rest - 1, min(rest, wide)).astype(np.int64), value.shape[1:])
    grid = (rows[:, None], *(c[None, :] for c in columns))
    return np.asarray(value[grid])


def similar(a: Sketch | None, b: Sketch | None) -> float:
    """1 for equal weights, also where each channel was scaled (a folded normalization); near 0 for unrelated ones."""
    if a is None or b is None:
        return 0.0
    if a.digest == b.digest:
        return 1.0
    if a.vectors is None or b.vectors is None or a.vectors.shape != b.vectors.shape:
        return 0.0
    cosines = np.abs(np.sum(a.vectors * b.vectors, axis=1))
    return 0.99 * float(np.nan_to_num(cosines).mean())
