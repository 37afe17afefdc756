"""What a network computes when a target rounds: an ONNX graph rewritten so that FP32 gives the target's values.

ONNX Runtime on the CPU then stands for the accelerator. Rounding is data flow (Cast pairs, or arithmetic that rounds),
put where the target rounds; sums stay FP32, as tensor cores keep them. Two families of formats:

- *storage* formats (FP16, BF16): tensors exist in the format. Rounded are weights, what enters a group from outside,
  and what a fused group leaves.
- *operand* formats (TF32, E4M3, E5M2, INT8): tensors stay FP32 (FP16 in practice) and the operands of matrix products
  are rounded when they are read. INT8 and FP8 are scaled: activations per tensor by their measured range, weights per
  output channel (INT8) or per tensor (FP8), as Q/DQ nodes before a product do it.

What the graph itself types FP16 or BF16 holds what that type holds, whatever the format that is emulated
(`typed_nodes`): the graph's types are law.

``docs/emulation.md`` has the rule for each operator and what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..cutting.fusion import Group, fused_groups, static_tensors
from ..formats import FP16
from ..index import GraphIndex
from ..model import Model
from ..nodes import attribute_int, captured, subgraphs
from ..operators import CASTS, MOVEMENT, RECURRENT, SELECTION, UNTOUCHED, facts_of, is_data, operator
from ..specs import dtype_to_onnx
from ..writer import GraphWriter, Names
from .decomposed import write_decomposed
from .folded_batchnorm import Folded, fold
from .inlined import inlined
from .kept import positions_in_copy
from .recurrent import write_recurrent
from .rewrite import Rewrite
from .round_array import SCALED, resolve
from .scope import Findings, Scope, Target
from .typed_nodes import is_typed, write_typed
from .widening import NARROW, widen_declarations, widen_node

INLINE_LIMIT = 1 << 30
"""Most bytes of rounded weights that are written into the graph; more are rounded by the graph when it runs."""

_OPSET = 17
"""Of a model that names none, for it has operators of other domains alone."""

OLDEST = 7
"""The oldest opset whose Add and Mul ONNX Runtime has. Models of older ones are converted, where that is possible."""


def rewrite(
    model: Model,
    fmt: str,
    *,
    groups: Sequence[Group] | None = None,
    every_node: bool = False,
    decomposed: bool = False,
    ranges: Mapping[str, float] | None = None,
    cast_weights: bool = False,
    keep: Collection[str] = (),
) -> Rewrite:
    """A copy of ``model`` in which values round where a target that computes in ``fmt`` would round them.

    Every tensor keeps its name, and has the value that the target would have in memory; tensors inside a fused group
    are FP32. FP16 and BF16 tensors, inputs and outputs of the model among them, are FP32 tensors of the same values in
    the copy. Nodes are called as `GraphIndex.names` calls them. Inputs of the model are never trusted to be rounded
    already, so a piece that is fed with another runner's values computes what the target would.

    Args:
        model: A model or a piece cut between fused groups.
        fmt: One of `EMULATED`.
        groups: The fused groups; computed where not given.
        every_node: Round what every node gives, as unfused kernels would.
        decomposed: Round after every step inside LayerNormalization and Softmax too, in one node or in pieces.
        ranges: Largest magnitude of activations by tensor (`needed_ranges`), for INT8 and FP8. A product with an
            activation that has no range stays FP32 in INT8; FP8 then casts without a scale.
        cast_weights: Weights overflow to infinity and underflow to zero, instead of TensorRT's rule (`round_array`).
        keep: Names of nodes: groups that hold one of them stay FP32, as a kernel has one format.

    Raises:
        UsageError: ``fmt`` cannot be emulated.
    """
    target = Target(resolve(fmt), every_node, decomposed, ranges or {}, cast_weights)
    return _rewritten(model, target, groups, keep)


def by_types(model: Model, *, wide_range: bool | frozenset[str] = False) -> Model:
    """A copy of ``model`` in which nothing rounds but what the graph types FP16 or BF16: its values are those of a
    device that takes the types as law. Inputs and outputs are as those of `rewrite`.

    Args:
        model: A model.
        wide_range: FP16 tensors, or those of these names, round to the 11 bits of FP16 and have the range of FP32. What
            then differs is what overflows or underflows.
    """
    return _rewritten(model, Target(FP16, wide_range=wide_range), None, None).model


def _rewritten(
    model: Model,
    target: Target,
    groups: Sequence[Group] | None,
    keep: Collection[str] | None,
) -> Rewrite:
    """See `rewrite`. ``keep``: None: all nodes."""
    given = index = model.index
    if groups is None:
        model = inlined(model)
        index = model.index
    if index.opset.get("", OLDEST) < OLDEST:
        model = _newer(model)
        index = model.index
    opset = index.opset.get("", _OPSET)
    proto = onnx.ModelProto()
    _copy_except_graph(index.proto, proto)
    if "" not in index.opset:
        proto.opset_import.append(helper.make_opsetid("", opset))
    proto.ir_version = max(proto.ir_version, 4)  # from 4 on an initializer need not be an input
    inline = _weight_bytes(index) <= INLINE_LIMIT
    target = replace(target, inline=inline)
    findings = Findings()
    writer = GraphWriter(Names.of(index.graph, also=given.names), opset)
    scope = Scope(target, findings, index, static_tensors(index), writer)
    names = {output: given.names[position] for output, position in given.producer.items()}
    groups = fused_groups(index) if groups is None else groups
    _Rewriting(scope, names).run(groups, None if keep is None else positions_in_copy(given, index, keep))
    _fill(proto.graph, index.graph, writer, inline)
    return Rewrite(model.derive(proto), findings.notes(target.number), roundings=findings.rounded)


def _newer(model: Model) -> Model:
    """The same model in the oldest opset whose arithmetic ONNX Runtime has; unchanged where it cannot be converted."""
    try:
        return model.derive(onnx.version_converter.convert_version(model.proto, OLDEST))
    except Exception:  # the converter has no common base of errors; ONNX Runtime will name what it lacks
        return model


def needed_ranges(index: GraphIndex, fmt: str, every_node: bool = False) -> list[str]:
    """Activations whose ranges `rewrite` uses, in graph order; none for formats without a scale."""
    number = resolve(fmt)
    if number.name not in SCALED:
        return []
    static, specs = static_tensors(index), index.specs
    names: dict[str, None] = {}
    for node in index.nodes:
        chosen = [node.input[i] for i in _operands(node)]
        if every_node and operator(node) not in UNTOUCHED:
            chosen = [*node.input, *node.output]
        for name in chosen:
            if name and name not in static and name in specs and specs[name].dtype == np.float32:
                names[name] = None
    return list(names)


def _operands(node: onnx.NodeProto) -> list[int]:
    """Positions of the inputs that a product multiplies; none of other operators."""
    positions = facts_of(node).operands
    return [i for i in range(len(node.input)) if positions is None or i in positions]


def _weight_bytes(index: GraphIndex) -> int:
    floats = (TensorProto.FLOAT, *NARROW)
    return sum(4 * math.prod(t.dims) for t in index.initializers.values() if t.data_type in floats)


def _copy_except_graph(source: onnx.ModelProto, target: onnx.ModelProto) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name == "graph":
            continue
        if isinstance(value, (int, float, str, bytes)):
            setattr(target, descriptor.name, value)
        elif hasattr(value, "MergeFrom"):
            getattr(target, descriptor.name).MergeFrom(value)


def _fill(graph: onnx.GraphProto, source: onnx.GraphProto, writer: GraphWriter, inline: bool) -> None:
    """Fills ``graph`` with what was written, in FP32, without the weights that nothing reads any more."""
    read: set[str] = {o.name for o in source.output}
    for node in writer.nodes:
        read.update(node.input)
        for body in subgraphs(node):
            read.update(captured(body))
    graph.name = source.name
    graph.doc_string = source.doc_string
    weights = {t.name for t in source.initializer}  # as inputs they could be overridden, and would not be folded
    graph.input.extend(i for i in source.input if i.name not in weights)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    graph.initializer.extend(t for t in source.initializer if t.name in read)
    graph.sparse_initializer.extend(source.sparse_initializer)
    graph.node.extend(widen_declarations(graph, inline))
    graph.initializer.extend(writer.initializers)
    graph.node.extend(writer.nodes)


@dataclass(frozen=True)
class _Owner:
    """The group that a node is in: whether it is rounded, and what its nodes make."""

    group: Group
    active: bool
    made: frozenset[str]


class _Rewriting:
    """The walk over one graph, node by node: what each reads and gives is rounded as its kind asks for.

    Args:
        scope: The graph.
        names: What the nodes that make tensors are called.
    """

    def __init__(self, scope: Scope, names: Mapping[str, str]) -> None:
        self.scope = scope
        self.names = names
        self.index = scope.index
        self.target = scope.target
        self.folded: dict[int, Folded] = {}

    def run(self, groups: Iterable[Group], kept: Collection[int] | None) -> None:
        """Rewrites every node, in order. Groups that hold one of those that are ``kept`` stay FP32; None: all do."""
        chosen = None if kept is None else frozenset(kept)
        owner: dict[int, _Owner] = {}
        for group in self._split(groups):
            active = chosen is not None and chosen.isdisjoint(group.nodes)
            made = frozenset(name for n in group.nodes for name in self.index.nodes[n].output)
            owner.update(dict.fromkeys(group.nodes, _Owner(group, active, made)))
        for position, original in enumerate(self.index.nodes):
            group = owner[position].group
            node = onnx.NodeProto()
            node.CopyFrom(original)
            node.name = self._name(node)
            op = operator(node)
            active = owner[position].active
            active &= not all(name in self.scope.static for name in node.output if name)
            if any(True for _ in subgraphs(node)):
                self._bodies(node, original, () if active else None)
                continue
            widen_node(node)
            if is_typed(self.scope, node):
                write_typed(self.scope, node)
            elif not active:
                self._keep(node)
            elif op in RECURRENT and write_recurrent(self.scope, node):
                pass
            elif op in UNTOUCHED:
                self._keep(node)
            elif op in MOVEMENT:
                self._move(node)
            else:
                if position == group.main and group.kind == "product":
                    self.folded.update(fold(self.scope, group))
                self._compute(node, position, group, owner[position].made)

    def _name(self, node: onnx.NodeProto) -> str:
        given = next((self.names[n] for n in node.output if n in self.names), node.name)
        return given or self.scope.writer.names.fresh(node.op_type)

    def _split(self, groups: Iterable[Group]) -> Iterable[Group]:
        for group in groups:
            apart = self.target.every_node
            apart |= self.target.decomposed and group.kind in ("normalization", "softmax")
            apart |= any(is_typed(self.scope, self.index.nodes[position]) for position in group.nodes)
            if apart:
                yield from (Group((position,), position) for position in group.nodes)
            else:
                yield group

    def _keep(self, node: onnx.NodeProto) -> None:
        if node.op_type == "DequantizeLinear":
            self.scope.exact.update(node.output)  # INT8 or FP8 already: rounding again would change the step
        self.scope.writer.nodes.append(node)

    def _move(self, node: onnx.NodeProto) -> None:
        """Data movement: constants are weights, activations pass."""
        scope = self.scope
        before = list(node.input)
        if self.target.stores and not self.target.scaled:
            for i, name in enumerate(before):
                if name in scope.static and self._is_data(node, i, name):
                    node.input[i] = scope.read(name)
        floats = [n for i, n in enumerate(before) if n and self._is_data(node, i, n)]
        if floats and all(n in scope.exact or (n in scope.static and self.target.stores) for n in floats):
            scope.exact.update(name for name in node.output if scope.is_float32(name))
        scope.writer.nodes.append(node)

    def _is_data(self, node: onnx.NodeProto, position: int, name: str) -> bool:
        """Whether a tensor that a node reads in this place holds float32 values that are rounded when they are read."""
        return operator(node) not in CASTS and is_data(node, position) and self.scope.is_float32(name)

    def _compute(self, node: onnx.NodeProto, position: int, group: Group, inside: Collection[str]) -> None:
        scope, stores = self.scope, self.target.stores
        folded = self.folded.get(position, Folded())
        counted = scope.findings.rounded
        before = list(node.input)
        operands = _operands(node)
        for i, name in enumerate(before):
            if not name:
                continue
            if i in folded.inputs:
                node.input[i] = folded.inputs[i]
            elif i in operands:
                node.input[i] = self._operand(node, i, name, folded.gain)
            elif stores and name not in inside and self._is_data(node, i, name):
                if name in scope.static and self._is_parameter(name, group):
                    continue
                node.input[i] = scope.read(name)
        if self.target.number.is_integer and operands and not stores:
            changed = [node.input[i] != before[i] or before[i] in scope.exact for i in operands]
            written = any(node.input[i] != before[i] for i in operands)
            if not all(changed):  # one operand without a range: the product is not quantized
                node.input[:] = before
                written = False
            scope.findings.rounded = counted + written
        if stores and self.target.decomposed and write_decomposed(scope, node):
            return
        if not stores or position != group.nodes[-1]:
            scope.writer.nodes.append(node)
            return
        self._write(node, before)

    def _is_parameter(self, name: str, group: Group) -> bool:
        """A number inside a fused kernel (an epsilon, an exponent, the constants of GELU): part of the program."""
        if group.kind not in ("product", "normalization", "softmax"):
            return False
        spec = self.index.specs.get(name)
        return spec is not None and spec.shape is not None and all(d == 1 for d in spec.shape)

    def _operand(self, node: onnx.NodeProto, i: int, name: str, gain: np.ndarray | None) -> str:
        scope = self.scope
        weight = scope.weight(name) if name in scope.static else None
        if weight is None:
            return scope.read(name)
        axis = None
        if i == 1:
            axis = facts_of(node).channel_axis
            if node.op_type in ("Gemm", "FusedGemm"):
                axis = 0 if attribute_int(node, "transB", 0) else 1
            elif node.op_type == "MatMul" and weight.ndim >= 2:
                axis = weight.ndim - 1
        return scope.read_weight(name, axis, gain)

    def _write(self, node: onnx.NodeProto, before: Sequence[str]) -> None:
        """Adds a node whose float outputs are rounded."""
        scope = self.scope
        exact = (
            not self.target.scaled
            and operator(node) in SELECTION
            and all(
                name in scope.exact or new != name
                for i, (name, new) in enumerate(zip(before, node.input, strict=True))
                if name and self._is_data(node, i, name)
            )
        )
        pending: list[tuple[str, str, str | None]] = []
        for i, name in enumerate(node.output):
            if not name or not scope.is_float32(name):
                if name and name not in self.index.specs:
                    scope.findings.leave("the type is not known, not rounded", name)
                continue
            readers = self.index.consumers.get(name, [])
            fused = readers and name not in self.index.outputs
            if fused and all(self.index.nodes[r].op_type == "QuantizeLinear" for r in readers):
                continue  # the kernel writes INT8 itself
            if not exact:
                scale = scope.range_scale(name) if self.target.scaled else None
                if self.target.number.is_integer and scale is None:
                    scope.findings.leave("no range was measured, not quantized", name)
                    continue
                raw = scope.writer.names.fresh(f"{name}__fp32")
                node.output[i] = raw
                pending.append((raw, name, scale))
            scope.exact.add(name)
        scope.writer.nodes.append(node)
        for raw, name, scale in pending:
            scope.round(raw, name, scale, guard=scope.guarded(name))

    # Bodies

    def _bodies(self, node: onnx.NodeProto, original: onnx.NodeProto, kept: Collection[int] | None) -> None:
        for a, source in zip(node.attribute, original.attribute, strict=True):
            if a.type == onnx.AttributeProto.GRAPH:
                self._body(source.g, a.g, kept)
            elif a.type == onnx.AttributeProto.GRAPHS:
                for inner, graph in zip(source.graphs, a.graphs, strict=True):
                    self._body(inner, graph, kept)
        self.scope.writer.nodes.append(node)

    def _body(self, source: onnx.GraphProto, target: onnx.GraphProto, kept: Collection[int] | None) -> None:
        """Rewrites a body. Types of what it captures come from the graphs around it."""
        outer = self.scope
        wrapped = onnx.ModelProto(ir_version=8)
        wrapped.opset_import.extend(self.index.proto.opset_import)
        wrapped.graph.CopyFrom(source)
        names = captured(source)
        for name in names:
            spec = outer.spec(name)
            if spec is not None and outer.is_float32(name):
                kind = dtype_to_onnx(spec.dtype)
                wrapped.graph.input.append(helper.make_tensor_value_info(name, kind, outer.shape(name)))
        index = GraphIndex(wrapped, self.index.folder)
        outside = frozenset(name for name in names if name in outer.static)
        scope = outer.inside(index, static_tensors(index, outside) | outside)
        scope.exact.update(name for name in names if name in outer.exact)
        _Rewriting(scope, {}).run(fused_groups(index, scope.static), kept)
        target.Clear()
        _fill(target, source, scope.writer, self.target.inline)
