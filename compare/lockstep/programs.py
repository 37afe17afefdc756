"""The bodies of If, Loop and Scan as programs: what they are given, and what they make of it.

A body of the candidate has the names of the reference's where they correspond: its inputs and outputs by their
position, what it captures as the graphs around it do. Both then read the same feed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ...graph.cutting.extract import empty_like, enter, value_info
from ...graph.cutting.slices import Slice, backward, renamed, slice_model
from ...graph.errors import LayerdiffError, ModelError
from ...graph.nodes import attribute_int, attribute_ints, captured
from ...graph.operators import is_standard
from ...graph.specs import Arrays, TensorSpec, is_float, specs_of

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.model import Model
    from ..sides import Side

ALIKE = 0.1
"""Relative difference up to which two tensors may be one, made otherwise or rounded to a narrow format."""


@dataclass(frozen=True)
class Node:
    """An If, Loop or Scan, and what it is given.

    Attributes:
        arguments: Its inputs by position; None where one is left out.
        outer: What its bodies capture, by name in the graph around it. Weights are not among them.
    """

    model: Model
    position: int
    arguments: tuple[np.ndarray | None, ...]
    outer: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, side: Side, part: Slice, position: int, feed: Mapping[str, np.ndarray]) -> Node:
        """Finds out what a node of a layer is given, from the layer's inputs.

        Raises:
            LayerdiffError: That cannot be computed.
        """
        index = side.model.index
        node = index.nodes[position]
        bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        outer = dict.fromkeys(n for body in bodies for n in captured(body) if n not in index.initializers)
        found = computed(side, part, [*(n for n in node.input if n), *outer], feed)
        arguments = tuple(found[n] if n else None for n in node.input)
        return cls(side.model, position, arguments, {n: found[n] for n in outer})

    @property
    def proto(self) -> onnx.NodeProto:
        """The node itself."""
        return self.model.index.nodes[self.position]

    @property
    def op(self) -> str:
        """Its operator."""
        return self.proto.op_type

    @property
    def name(self) -> str:
        """Its name in the report."""
        return self.model.index.names[self.position]


def computed(side: Side, part: Slice, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> Arrays:
    """Tensors inside a layer, from what it reads. Constants, shapes and integers are computed anew inside."""
    index = side.model.index
    found = {n: feed[n] for n in names if n in feed}
    for name in names:
        if name not in found and (weight := index.weight(name)) is not None:
            found[name] = np.asarray(weight)
    missing = list(dict.fromkeys(n for n in names if n not in found))
    if missing:
        inner = backward(index, missing, set(part.inputs))
        given = {n: feed[n] for n in inner.inputs}
        with side.runner.session(slice_model(side.model, inner, specs_of(given))) as session:
            found.update(session.infer(given, missing))
    for name, value in found.items():
        if not isinstance(value, np.ndarray):
            raise ModelError(f"{name!r} is no tensor.")
    return found


@dataclass(frozen=True)
class Program:
    """A body to be run one iteration at a time.

    Attributes:
        node: The node around it.
        model: The body; what it captures is among its inputs.
        formal: Its own inputs, by position.
        results: Its outputs, by position. A name may stand there twice, or be that of an input.
        captured: What it captures, by the names of its inputs.
        extra: Of that, what has no counterpart in the reference.
        given, gives: What the file calls the body's inputs and outputs.
    """

    node: Node
    model: Model
    formal: tuple[str, ...]
    results: tuple[str, ...]
    captured: Mapping[str, np.ndarray]
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()

    @classmethod
    def of(cls, node: Node, body: str, like: Program | None = None, back: Mapping[str, str] | None = None) -> Program:
        """The body of a node.

        Args:
            node: The node.
            body: Name of the attribute.
            like: The reference's body, whose names the inputs and outputs of this one get: they correspond by
                position, and what is captured as the graphs around do.
            back: Tensors of this graph -> tensors of the reference's graph.
        """
        (graph,) = (a.g for a in node.proto.attribute if a.name == body)
        formal = tuple(i.name for i in graph.input)
        results = tuple(o.name for o in graph.output)
        declared = {i.name: i.type.tensor_type.elem_type for i in graph.input if i.type.HasField("tensor_type")}
        specs = specs_of(node.outer)
        for name, value in zip(formal, _first_values(node, len(formal)), strict=True):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(declared[name]) if declared.get(name) else value.dtype
            specs[name] = TensorSpec(name, np.dtype(dtype), (None,) * value.ndim)
        model, copies = _without_copies(_typed(enter(node.model, node.position, specs)[body], node))
        given, gives = formal, results
        results = tuple(copies.get(n, n) for n in results)
        outer = {n: v for n, v in node.outer.items() if n in model.index.inputs}
        if like is None:
            return cls(node, model, formal, results, outer, given=given, gives=gives)
        theirs, inner = set(like.captured), like.names - set(like.captured)
        pairs = [*zip(formal, like.formal, strict=False), *zip(results, like.results, strict=False)]
        pairs += [(n, other) for n in outer if (other := (back or {}).get(n)) is not None and other not in inner]
        mapping: dict[str, str] = {}
        for name, other in pairs:
            if name not in mapping and other not in mapping.values():
                mapping[name] = other
        model, mapping = _renamed(model, mapping)
        known = {mapping.get(n, n): v for n, v in outer.items()}
        return cls(
            node,
            model,
            tuple(mapping.get(n, n) for n in formal),
            tuple(mapping.get(n, n) for n in results),
            known,
            {n: v for n, v in known.items() if n not in theirs},
            given,
            gives,
        )

    def with_inputs(self, others: Mapping[str, np.ndarray]) -> Program:
        """The same with what the other side's body captures as inputs, where this one does not: none of its nodes reads
        them, and that a node of the other one does is seen then."""
        new = {n: v for n, v in others.items() if n not in self.names}
        if not new:
            return self
        proto = empty_like(self.model.index.proto)
        proto.graph.CopyFrom(self.model.index.graph)
        proto.graph.input.extend(map(value_info, specs_of(new).values()))
        return replace(self, model=self.model.derive(proto), captured={**self.captured, **new})

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors of the body."""
        return _names(self.model.index)

    @property
    def made(self) -> list[str]:
        """The results that a node of the body makes, each once."""
        return list(dict.fromkeys(n for n in self.results if n in self.model.index.producer))

    def outputs(self, feed: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The body's outputs by position, also those that are handed through."""
        return [self._value(name, feed, made) for name in self.results]

    def _value(self, name: str, feed: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> np.ndarray:
        for known in (made, feed, self.captured):
            if name in known:
                return known[name]
        weight = self.model.index.weight(name)
        assert weight is not None
        return np.asarray(weight)


def programs(mine: Node, theirs: Node, body: str, back: Mapping[str, str]) -> tuple[Program, Program]:
    """The body of a node of the reference and that of a node of the candidate; see `Program.of`. What one of them alone
    captures is an input of both, where both graphs have it, or where it is none of what the other one captures, made
    otherwise."""
    left = Program.of(mine, body)
    right = Program.of(theirs, body, left, back)
    known = {back[n] for n in theirs.outer if n in back}
    others = list(left.captured.values())
    left = left.with_inputs({n: v for n, v in right.extra.items() if n in known or _another(v, others)})
    right = right.with_inputs(left.captured)
    return left, replace(right, extra={n: v for n, v in right.extra.items() if n not in left.captured})


def _another(value: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Whether a tensor of numbers is none of some others: it has another shape, or other values."""
    if not (is_float(value.dtype) or value.dtype.kind in "biu"):
        return False
    alike = [other for other in others if other.shape == value.shape and other.dtype == value.dtype]
    return not any(
        np.linalg.norm(_flat(value) - _flat(other)) <= ALIKE * np.linalg.norm(_flat(other)) for other in alike
    )


def _flat(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float64).reshape(-1)


def _first_values(node: Node, count: int) -> list[np.ndarray]:
    """What the first iteration is given, for its types."""
    if node.op == "If":
        return []
    if node.op == "Loop":
        states = [np.asarray(a) for a in node.arguments[2:]]
        return [np.asarray(0, np.int64), np.asarray(True), *states][:count]
    slices = sequences(node)
    states = [np.asarray(a) for a in node.arguments[: len(node.arguments) - len(slices)]]
    empty = [np.zeros(tuple(np.delete(s.shape, axis)), s.dtype) for s, axis, _ in slices]
    return [*states, *empty]


def sequences(node: Node) -> list[tuple[np.ndarray, int, bool]]:
    """What a Scan runs over: values, axis, whether backwards.

    Raises:
        LayerdiffError: It is one of opset 8, whose states and sequences have a batch axis.
    """
    if node.model.index.opset.get("", 9) < 9:
        raise LayerdiffError("Scan of opset 8 is not stepped through.")
    count = attribute_int(node.proto, "num_scan_inputs", 1)
    arrays = [np.asarray(a) for a in node.arguments[len(node.arguments) - count :]]
    axes, directions = (
        attribute_ints(node.proto, name) or [0] * count for name in ("scan_input_axes", "scan_input_directions")
    )
    return [(a, axis % a.ndim, bool(d)) for a, axis, d in zip(arrays, axes, directions, strict=True)]


def _typed(model: Model, node: Node) -> Model:
    """A body whose results have types: those of the node's outputs, where neither the file nor inference tells them (an
    If in an If, whose branches give other ranks)."""
    made = [o.name for o in model.index.graph.output][1 if node.op == "Loop" else 0 :]
    known = {name: node.model.index.specs.get(o) for name, o in zip(made, node.proto.output, strict=False)}
    missing = {name: spec for name, spec in known.items() if spec is not None and name not in model.index.specs}
    if not missing:
        return model
    proto = empty_like(model.index.proto)
    proto.graph.CopyFrom(model.index.graph)
    for info in proto.graph.output:
        if info.name in missing:
            info.CopyFrom(value_info(TensorSpec(info.name, missing[info.name].dtype, None)))
    return model.derive(proto)


def _without_copies(model: Model) -> tuple[Model, dict[str, str]]:
    """A body without Identity nodes. Of two results that are one value, each exporter makes the one it likes and copies
    the other; without copies both are the same tensor on both sides.

    Returns:
        The model, and what each copy is of.
    """
    index = model.index
    copies: dict[str, str] = {}
    for node in index.nodes:
        if node.op_type == "Identity" and is_standard(node):
            copies[node.output[0]] = copies.get(node.input[0], node.input[0])
    if not copies:
        return model, {}
    proto = empty_like(index.proto)
    proto.graph.CopyFrom(index.graph)
    graph = proto.graph
    kept = [node for node in index.nodes if node.op_type != "Identity" or node.output[0] not in copies]
    del graph.node[:]
    graph.node.extend(renamed(node, copies, node.name) for node in kept)
    outputs = {copies.get(info.name, info.name): info for info in index.graph.output}
    del graph.output[:]
    for name, info in outputs.items():
        graph.output.add().CopyFrom(info)
        graph.output[-1].name = name
    return model.derive(proto), copies


def _names(index: GraphIndex) -> frozenset[str]:
    return frozenset((*index.inputs, *index.initializers, *index.producer))


def _renamed(model: Model, mapping: Mapping[str, str]) -> tuple[Model, dict[str, str]]:
    """A body under other names. What stands in the way of one gets a new name itself.

    Returns:
        The model, and all names that changed.
    """
    changed = {name: other for name, other in mapping.items() if name != other}
    if not changed:
        return model, {}
    index = model.index
    names = _names(index)
    taken = {*names, *changed.values()}
    for name in sorted(names & set(changed.values()) - set(changed)):
        fresh = f"{name}~"
        while fresh in taken:
            fresh += "~"
        taken.add(fresh)
        changed[name] = fresh
    proto = empty_like(index.proto)
    proto.graph.CopyFrom(index.graph)
    graph = proto.graph
    nodes = [renamed(node, changed, node.name) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for items in (graph.input, graph.output, graph.value_info, graph.initializer):
        for item in items:
            item.name = changed.get(item.name, item.name)
    for tensor in graph.sparse_initializer:
        tensor.values.name = changed.get(tensor.values.name, tensor.values.name)
    return model.derive(proto), changed
