"""TensorFlow graphs with their weights inside: read, cut to what was asked for, and pruned."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from .tensorflow_packages import first_line

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow.core.framework.graph_pb2 import GraphDef

_NO_RESULT = frozenset(
    {"NoOp", "Assert", "Print", "PrintV2", "Const", "Placeholder", "PlaceholderWithDefault", "SaveV2"}
)
"""Operators of nodes that end a graph without being a result of it."""
_VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})
NOT_TENSORS = ("resource", "variant")
"""Types of what looks like a tensor and holds no numbers."""


@dataclass(frozen=True)
class FrozenGraph:
    """A graph with its weights inside; ``inputs`` and ``outputs`` map ONNX names to TF tensor names. ``signatures`` are
    those of its file that are other programs."""

    graph_def: GraphDef
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    signatures: tuple[str, ...] = ()


def read_frozen_graph(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> FrozenGraph:
    """Reads a ``.pb`` file; see `load_tensorflow`."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    size = path.stat().st_size
    if size >= 1 << 31:
        raise ModelError(f"{path}: a frozen graph cannot hold 2 GiB or more ({size:,} bytes).")
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except (DecodeError, UnicodeDecodeError):
        raise ModelError(f"{path}: not a frozen TensorFlow graph, or cut short ({size:,} bytes).") from None
    if not graph_def.node or not all(node.op and node.name for node in graph_def.node):
        raise ModelError(f"{path}: not a frozen TensorFlow graph, or an empty one ({size:,} bytes).")
    for node in graph_def.node:
        if node.op in _VARIABLES:
            raise ModelError(
                f"{path}: holds variables ({node.name!r}), whose values are in a checkpoint. Freeze it first."
            )
    graph = import_graph(graph_def, path)
    given = {name: _tensor(graph, name, path) for name in outputs} or _sinks(graph)
    if not given:
        raise ModelError(f"{path}: no node ends the graph, so its outputs have to be named.")
    if inputs:
        cut = {name: _tensor(graph, name, path) for name in inputs}
        graph_def = _with_placeholders(graph_def, graph, cut, path)
        return FrozenGraph(graph_def, cut, given)
    _use_defaults(graph_def)
    needed = _ancestors(graph_def, given.values(), stop=())
    found = [node.name for node in graph_def.node if node.op == "Placeholder" and node.name in needed]
    return FrozenGraph(graph_def, _short([f"{name}:0" for name in found]), given if outputs else _short(given.values()))


def import_graph(graph_def: GraphDef, path: Path) -> tf.Graph:
    """A graph definition as a graph. ``path``: for messages."""
    import tensorflow as tf

    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
    except Exception as error:
        raise ModelError(f"{path}: TensorFlow cannot read the graph (cut short?): {first_line(error)}.") from error
    return graph


def _tensor(graph: tf.Graph, name: str, path: Path) -> str:
    """The TF tensor ``x:0`` that ``x`` or ``x:0`` names."""
    full = name if name.rpartition(":")[2].isdigit() and ":" in name else f"{name}:0"
    try:
        return str(graph.get_tensor_by_name(full).name)
    except (KeyError, ValueError):
        known = [t.name.removesuffix(":0") for op in graph.get_operations() for t in op.outputs]
        near = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f" Did you mean {', '.join(near)}?" if near else f" It has {len(known):,} tensors, such as {known[-1]}."
        raise ModelError(f"{path}: no tensor {name!r}.{hint}") from None


def _sinks(graph: tf.Graph) -> dict[str, str]:
    """Tensors of the nodes that nobody reads, in the graph's order."""
    found = {}
    for op in graph.get_operations():
        if op.type in _NO_RESULT or any(t.consumers() for t in op.outputs):
            continue
        results = op.outputs[:1] if op.type.startswith("FusedBatchNorm") else op.outputs
        found.update({t.name: t.name for t in results if t.dtype.name not in NOT_TENSORS})
    return found


def _short(tensors: Iterable[str]) -> dict[str, str]:
    """Names without their ``:0``."""
    return {name.removesuffix(":0"): name for name in tensors}


def _use_defaults(graph_def: GraphDef) -> None:
    """Placeholders that have a default (a dropout rate, a training switch) become that default."""
    for node in graph_def.node:
        if node.op == "PlaceholderWithDefault":
            node.op = "Identity"
            node.attr["T"].type = node.attr["dtype"].type
            del node.attr["dtype"]
            del node.attr["shape"]


def _with_placeholders(graph_def: GraphDef, graph: tf.Graph, inputs: Mapping[str, str], path: Path) -> GraphDef:
    """The graph with the tensors named by the user as its placeholders."""
    wanted = {}
    for name, tensor in inputs.items():
        node, _, port = tensor.rpartition(":")
        if port != "0":
            raise ModelError(f"{path}: {name!r} cannot be an input: it is not the first output of its node.")
        wanted[node] = graph.get_tensor_by_name(tensor)
    changed = type(graph_def)()
    changed.CopyFrom(graph_def)
    for node in changed.node:
        if node.name in wanted and node.op != "Placeholder":
            tensor = wanted[node.name]
            del node.input[:]
            node.attr.clear()
            node.op = "Placeholder"
            node.attr["dtype"].type = tensor.dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tensor.shape.as_proto())
    _use_defaults(changed)
    return changed


def _node_of(name: str) -> str:
    """The node of ``node``, ``node:1`` or ``^node``, as graph definitions write inputs."""
    name = name.removeprefix("^")
    head, _, port = name.rpartition(":")
    return head if head and port.isdigit() else name


def _ancestors(graph_def: GraphDef, tensors: Iterable[str], stop: Collection[str]) -> set[str]:
    """Names of the nodes that ``tensors`` depend on, themselves included, not looking beyond ``stop``."""
    nodes = {node.name: node for node in graph_def.node}
    found: set[str] = set()
    todo = [_node_of(t) for t in tensors]
    while todo:
        name = todo.pop()
        if name in found or name not in nodes:
            continue
        found.add(name)
        if name not in stop:
            todo += [_node_of(i) for i in nodes[name].input]
    return found


def prune(graph_def: GraphDef, inputs: Iterable[str], outputs: Iterable[str], path: Path) -> GraphDef:
    """What the outputs need, without device names. Placeholders that are not among the inputs are refused."""
    starts = {_node_of(t) for t in inputs}
    needed = _ancestors(graph_def, outputs, stop=starts) | starts
    pruned = type(graph_def)()
    pruned.versions.CopyFrom(graph_def.versions)
    pruned.library.CopyFrom(graph_def.library)
    for node in graph_def.node:
        if node.name not in needed:
            continue
        if node.op == "Placeholder" and node.name not in starts:
            raise ModelError(
                f"{path}: the outputs depend on the placeholder {node.name!r}, which is not among the inputs."
            )
        kept = pruned.node.add()
        kept.CopyFrom(node)
        kept.device = ""
    return pruned
