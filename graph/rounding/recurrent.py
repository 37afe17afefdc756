"""LSTM, GRU and RNN as a Scan over the operator itself, one step at a time, so that the state rounds at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..cutting.fusion import static_tensors
from ..formats import FP32
from ..nodes import attribute_float, attribute_floats, attribute_int, attribute_string, attribute_strings
from ..operators import RECURRENT, operator
from ..writer import GraphWriter, Names
from .scope import Findings, Scope, Target

if TYPE_CHECKING:
    from ..index import GraphIndex
    from ..model import Model

OLDEST = 9
"""The oldest opset whose Scan the loop is written for."""


def write_recurrent(scope: Scope, node: onnx.NodeProto) -> bool:
    """Writes a recurrent node.

    False where the graph is too old for a Scan, or the size of the state is not known; the node is then handled as any
    other. A format without recurrent kernels (INT8 and FP8: no runtime has such) leaves it as it is.
    """
    target, write = scope.target, scope.writer
    output = node.output[0] or node.output[-1]
    if target.scaled or not scope.is_float32(node.input[0]):
        write.nodes.append(node)
        return True
    if write.opset < OLDEST:
        scope.findings.leave(f"states round at the end alone below opset {OLDEST}", output)
        return False
    hidden = _hidden_size(scope, node)
    if hidden is None:
        scope.findings.leave("the hidden size is not known, states do not round", output)
        return False
    layer = _Layer.of(scope, node, hidden)
    runs = [_scan(scope, node, layer, d) for d in range(layer.directions)]
    _join(scope, node, layer, runs)
    return True


class _Unrounded(Scope):
    """A scope in which nothing is rounded."""

    def read(self, name: str) -> str:
        return name

    def round(
        self, name: str, output: str | None = None, scale: str | None = None, weights: bool = False, guard: bool = False
    ) -> str:
        return self.writer.emit("Identity", [name], output)

    def inside(self, index: GraphIndex, static: frozenset[str]) -> _Unrounded:
        return _Unrounded(self.target, self.findings, index, static, self.writer.inside(), self)


def step_by_step(model: Model) -> Model:
    """The model with its recurrent layers as Scans over single steps, which compute the same.

    Those in bodies, and those whose hidden size is not known, stay as they are.
    """
    index = model.index
    if not any(operator(node) in RECURRENT for node in index.nodes):
        return model
    writer = GraphWriter(Names.of(index.graph, also=index.names), index.opset.get("", OLDEST))
    scope = _Unrounded(Target(FP32), Findings(), index, static_tensors(index), writer)
    for node in index.nodes:
        if operator(node) not in RECURRENT or not write_recurrent(scope, node):
            writer.nodes.append(node)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    writer.into(proto.graph)
    return model.derive(proto)


def _hidden_size(scope: Scope, node: onnx.NodeProto) -> int | None:
    hidden = attribute_int(node, "hidden_size")
    if hidden is None:
        recurrence = scope.index.specs.get(node.input[2])
        last = recurrence.shape[-1] if recurrence is not None and recurrence.shape is not None else None
        return last if isinstance(last, int) else None
    return hidden


@dataclass(frozen=True)
class _Layer:
    """What the directions of a recurrent node share.

    Attributes:
        hidden: Size of the state.
        directions: 1 or 2.
        batch_first: Whether inputs and outputs have the batch before the sequence.
        x: The input, (steps, batch, size).
        shape: The shape of ``x``.
        lengths: Steps of each entry of the batch; empty if all are as long.
        weights: Rounded weights by position: W, R, B and peepholes.
        states: What the state starts with, (directions, batch, hidden); empty for zeros.
        zero: Zeros for one direction, where a state starts so.
    """

    hidden: int
    directions: int
    batch_first: bool
    x: str
    shape: str
    lengths: str
    weights: Mapping[int, str]
    states: Sequence[str]
    zero: str

    @classmethod
    def of(cls, scope: Scope, node: onnx.NodeProto, hidden: int) -> _Layer:
        """Rounds what the node reads."""
        target, write = scope.target, scope.writer
        batch_first = bool(attribute_int(node, "layout", 0))
        inputs = [*node.input, *[""] * (8 - len(node.input))]
        x = scope.read(inputs[0])
        states = [inputs[5]] + ([inputs[6]] if node.op_type == "LSTM" else [])
        states = [scope.read(s) if s and target.stores else s for s in states]
        weights = {1: scope.read(inputs[1]), 2: scope.read(inputs[2])}
        for i in (3, 7):
            if inputs[i] and (i == 3 or node.op_type == "LSTM"):
                weights[i] = scope.read(inputs[i]) if target.stores else inputs[i]
        if batch_first:
            x = write.emit("Transpose", [x], perm=[1, 0, 2])
            states = [write.emit("Transpose", [s], perm=[1, 0, 2]) if s else s for s in states]
        shape, zero = write.emit("Shape", [x]), ""
        if not all(states):
            batch = write.emit("Gather", [shape, write.ints(1)], axis=0)
            size = write.emit("Concat", [write.ints(1), batch, write.ints(hidden)], axis=0)
            zero = write.emit("ConstantOfShape", [size])
        directions = 2 if attribute_string(node, "direction") == "bidirectional" else 1
        return cls(hidden, directions, batch_first, x, shape, inputs[4], weights, states, zero)


def _scan(scope: Scope, node: onnx.NodeProto, layer: _Layer, direction: int) -> list[str]:
    """One direction. Returns the names of Y (steps, 1, batch, hidden), Y_h and an LSTM's Y_c (1, batch, hidden)."""
    write, fresh = scope.writer, scope.writer.names.fresh
    backwards = attribute_string(node, "direction") == "reverse" or direction == 1
    weights, start = layer.weights, [s or layer.zero for s in layer.states]
    if layer.directions == 2:
        which = write.ints(direction)
        weights = {i: write.emit("Gather", [w, which], axis=0) for i, w in layer.weights.items()}
        start = [write.emit("Gather", [s, which], axis=0) if s else layer.zero for s in layer.states]

    body = scope.inside(scope.index, scope.static)
    carried = [fresh(f"layerdiff_state_{i}") for i in range(len(start))]
    step = fresh("layerdiff_step")
    after = _cell(body, node, layer, direction, weights, [step, *carried])
    types, state = [TensorProto.FLOAT] * len(start), [1, None, layer.hidden]
    shapes: list[list[int | None]] = [state] * len(start)
    result = after[0]
    if layer.lengths:
        count, alive = _counter(scope, body, layer, backwards)
        after = [body.writer.emit("Where", [alive, new, old]) for new, old in zip(after, carried, strict=True)]
        result = body.writer.emit("Where", [alive, result, body.writer.scalar(0.0)])
        after.append(body.writer.emit("Sub" if backwards else "Add", [count.inner, body.writer.scalar(1, np.int64)]))
        start.append(count.start)
        carried.append(count.inner)
        types.append(TensorProto.INT64)
        shapes.append([])
    finals = [body.writer.emit("Identity", [name]) for name in [*after, result]]
    info = helper.make_tensor_value_info
    given = [info(*item) for item in zip(carried, types, shapes, strict=True)]
    given.append(info(step, TensorProto.FLOAT, [None, None]))
    made = [info(*item) for item in zip(finals, [*types, TensorProto.FLOAT], [*shapes, state], strict=True)]
    graph = helper.make_graph(body.writer.nodes, fresh("layerdiff_body"), given, made, body.writer.initializers)
    outputs = [fresh(f"layerdiff_final_{i}") for i in range(len(finals))]
    scan = helper.make_node(
        "Scan",
        [*start, layer.x],
        outputs,
        name=fresh("layerdiff_scan"),
        body=graph,
        num_scan_inputs=1,
        scan_input_directions=[int(backwards)],
        scan_output_directions=[int(backwards)],
    )
    write.nodes.append(scan)
    return [outputs[-1], *outputs[: len(layer.states)]]


def _cell(
    body: Scope,
    node: onnx.NodeProto,
    layer: _Layer,
    direction: int,
    weights: Mapping[int, str],
    given: Sequence[str],
) -> list[str]:
    """One step: the operator on a sequence of one. ``given``: its input, then the states. Returns the new states."""
    target, write = body.target, body.writer
    step, *states = given
    fed = list(states)
    if not target.stores:
        fed[0] = body.round(states[0])  # the operand of the recurrent product
    outputs = ["", *(write.names.fresh(f"layerdiff_next_{i}") for i in range(len(states)))]
    inputs = [write.unsqueeze(step, [0]), weights[1], weights[2], weights.get(3, ""), "", *fed]
    if 7 in weights:
        inputs.append(weights[7])
    while not inputs[-1]:
        inputs.pop()
    attributes = _attributes_of_direction(node, direction, layer.directions)
    cell = helper.make_node(node.op_type, inputs, outputs, hidden_size=layer.hidden, **attributes)
    cell.name = write.names.fresh("layerdiff_cell")
    write.nodes.append(cell)
    return [body.round(name) if target.stores else name for name in outputs[1:]]


def _attributes_of_direction(node: onnx.NodeProto, direction: int, directions: int) -> dict[str, object]:
    kept: dict[str, object] = {}
    lists = {
        "activations": attribute_strings(node, "activations"),
        "activation_alpha": attribute_floats(node, "activation_alpha"),
        "activation_beta": attribute_floats(node, "activation_beta"),
    }
    for name, values in lists.items():
        if values:
            share = len(values) // directions
            kept[name] = values[direction * share : (direction + 1) * share]
    numbers = {
        "clip": attribute_float(node, "clip"),
        "input_forget": attribute_int(node, "input_forget"),
        "linear_before_reset": attribute_int(node, "linear_before_reset"),
    }
    return {**kept, **{name: value for name, value in numbers.items() if value is not None}}


@dataclass(frozen=True)
class _Counter:
    """The number of a step: its name in the body, and what it starts with."""

    inner: str
    start: str


def _counter(scope: Scope, body: Scope, layer: _Layer, backwards: bool) -> tuple[_Counter, str]:
    """Counts steps, for sequences of different lengths. Returns also whether an entry of the batch has a step left."""
    write, inner = scope.writer, body.writer
    name = write.names.fresh("layerdiff_time")
    steps = write.emit("Gather", [layer.shape, write.scalar(0, np.int64)], axis=0)
    one = write.scalar(1, np.int64)
    start = write.emit("Sub", [steps, one]) if backwards else write.emit("Identity", [write.scalar(0, np.int64)])
    alive = inner.emit("Less", [name, inner.cast(layer.lengths, TensorProto.INT64)])
    return _Counter(name, start), inner.unsqueeze(alive, [0, 2])


def _join(scope: Scope, node: onnx.NodeProto, layer: _Layer, runs: Sequence[Sequence[str]]) -> None:
    """Puts the directions together, and gives the node's outputs their names."""
    write = scope.writer
    wanted = [*node.output, "", "", ""]
    for i, axis in enumerate((1, 0, 0)[: 1 + len(layer.states)]):
        if not wanted[i]:
            continue
        parts = [run[i] for run in runs]
        joined = parts[0] if len(parts) == 1 else write.emit("Concat", parts, axis=axis)
        if layer.batch_first:
            write.emit("Transpose", [joined], wanted[i], perm=[2, 0, 1, 3] if i == 0 else [1, 0, 2])
        else:
            write.emit("Identity", [joined], wanted[i])
        if scope.target.stores:
            scope.exact.add(wanted[i])
