"""A network behind another interface: its inputs and outputs under other names, its inputs in another layout or type.

Exporters name inputs and outputs as they like, and some turn NHWC into NCHW. What one file calls ``image`` and the
other ``serving_default_image:0`` can be compared once both are called the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx
from onnx import helper

from .errors import UsageError
from .model import ConvertedProgram, Model
from .nodes import subgraphs
from .specs import TensorSpec, dtype_to_onnx
from .writer import Names

if TYPE_CHECKING:
    from collections.abc import Callable

Message = TypeVar("Message", onnx.NodeProto, onnx.TensorShapeProto.Dimension)


@dataclass(frozen=True)
class Interface:
    """What a network is to be called and given.

    Attributes:
        inputs: New name of an input -> its name in the graph. The others keep theirs.
        outputs: New name of an output -> its name in the graph.
        transposed: New name of an input -> axes: the graph's input, transposed by them, is what will be given.
            ``(0, 2, 3, 1)``: the graph takes NCHW, and NHWC is given.
        cast: New name of an input -> the floating type that will be given; the graph's input is cast from it.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    transposed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cast: Mapping[str, np.dtype] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs or self.transposed or self.cast)


def adapted(model: Model, interface: Interface) -> Model:
    """The same network behind another interface: a whole model, of the same source and with the same weights.

    Tensors are renamed everywhere, in bodies too; an inner tensor that has one of the new names gets another one. An
    input in another layout gets a Transpose behind it. A TensorFlow or TFLite program stays as it is, and is known by
    the new names.

    Raises:
        UsageError: There is no such input or output, two would have one name, or the axes do not fit the rank.
    """
    _check(model, interface)
    program = None if model.program is None else _program(model.program, interface)
    proto, names = _rewritten(model, interface)
    if program is not None and model.program is not None:
        program = replace(
            program,
            tensors={
                **{names.get(n, n): t for n, t in model.program.tensors.items()},
                **program.inputs,
                **program.outputs,
            },
            permutations={names.get(n, n): axes for n, axes in model.program.permutations.items()},
        )
    again = None if model.again is None else partial(_adapted_again, model.again, interface)
    return Model(proto, source=model.source, folder=model.folder, program=program, unfolded=model.unfolded, again=again)


def _adapted_again(load: Callable[[], Model], interface: Interface) -> Model:
    return adapted(load(), interface)


def _check(model: Model, interface: Interface) -> None:
    given = _renamed(model.source, "input", interface.inputs, model.inputs)
    made = _renamed(model.source, "output", interface.outputs, model.outputs)
    for name in given.keys() & made.keys():
        if given[name] != made[name] or name in interface.transposed:
            raise UsageError(f"{model.source}: an input and an output of it cannot both be called {name!r}.")
    shapes = {spec.name: spec.shape for spec in model.inputs}
    for name, axes in interface.transposed.items():
        if name not in given:
            raise UsageError(f"{model.source} has no input {name!r}; it has: {', '.join(given)}.")
        shape = shapes[given[name]]
        if shape is not None and len(shape) != len(axes):
            raise UsageError(f"{model.source}: {name!r} has {len(shape)} axes, and {list(axes)} orders {len(axes)}.")


def _renamed(source: str, kind: str, names: Mapping[str, str], specs: Iterable[TensorSpec]) -> dict[str, str]:
    """New name -> name in the graph, of all inputs or outputs."""
    known = [spec.name for spec in specs]
    for old in names.values():
        if old not in known:
            raise UsageError(f"{source} has no {kind} {old!r}; it has: {', '.join(known)}.")
    for new, old in names.items():
        if new in known and new not in names.values():
            raise UsageError(
                f"{source}: {old!r} cannot stand for {new!r}, the name of another {kind} of it: "
                f"say what that one stands for, too."
            )
    return {**{name: name for name in known if name not in names.values()}, **names}


def _program(program: ConvertedProgram, interface: Interface) -> ConvertedProgram:
    def renamed(tensors: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
        new = {old: name for name, old in names.items()}
        return {new.get(name, name): tensor for name, tensor in tensors.items()}

    return replace(
        program,
        inputs=renamed(program.inputs, interface.inputs),
        outputs=renamed(program.outputs, interface.outputs),
        transposed=dict(interface.transposed),
    )


def _rewritten(model: Model, interface: Interface) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph behind the interface, and the new names of its tensors."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    names = Names.of(graph, also=(*interface.inputs, *interface.outputs, *interface.transposed))
    given = {spec.name: spec.name for spec in model.inputs} | {old: new for new, old in interface.inputs.items()}
    layouts = {old: axes for old, new in given.items() if (axes := interface.transposed.get(new))}
    # what the nodes read of an input in another layout is made by a Transpose
    casts = {old: dtype for old, new in given.items() if (dtype := interface.cast.get(new)) is not None}
    words = {**dict.fromkeys(casts, "cast"), **dict.fromkeys(layouts, "transposed")}
    mapping = {old: names.fresh(f"{new}_{words[old]}") if old in words else new for old, new in given.items()}
    results = {value.name: value.name for value in graph.output}
    results |= {old: new for new, old in interface.outputs.items()}
    mapping |= {old: new for old, new in results.items() if old not in mapping}
    for name in sorted({*given.values(), *results.values()} - mapping.keys()):
        mapping[name] = names.fresh(f"{name}_inner")  # an inner tensor has the name already
    mapping = {old: new for old, new in mapping.items() if old != new}
    _rename_graph(graph, mapping)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = mapping.get(annotation.tensor_name, annotation.tensor_name)
    _place_inputs(graph, given, mapping, layouts, casts)
    for value, old in zip(graph.output, results, strict=True):
        if value.name != results[old]:  # an input that is an output, too
            graph.node.append(helper.make_node("Identity", [value.name], [results[old]], name=results[old]))
            value.name = results[old]
    return proto, mapping


def _place_inputs(
    graph: onnx.GraphProto,
    given: Mapping[str, str],
    mapping: Mapping[str, str],
    layouts: Mapping[str, tuple[int, ...]],
    casts: Mapping[str, np.dtype],
) -> None:
    """Puts a Transpose behind each input in another layout, and a Cast behind each of another type, in front of all
    other nodes."""
    by_name = {value.name: value for value in graph.input}
    turned = []
    for old, dtype in casts.items():
        value, read = by_name[mapping[old]], mapping[old]
        kind, value.type.tensor_type.elem_type = value.type.tensor_type.elem_type, dtype_to_onnx(dtype)
        if old in layouts:
            read = f"{read}_cast"
        else:
            value.name = given[old]
        turned.append(helper.make_node("Cast", [given[old]], [read], name=read, to=kind))
    for old, axes in layouts.items():
        value, read = by_name[mapping[old]], mapping[old]
        value.name = given[old]
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape"):
            moved = [_copied(dims[axis]) for axis in axes]
            del dims[:]
            dims.extend(moved)
        perm = [int(axis) for axis in np.argsort(axes)]
        source = f"{read}_cast" if old in casts else given[old]
        turned.append(helper.make_node("Transpose", [source], [read], name=read, perm=perm))
    if turned:
        nodes = [*turned, *(_copied(node) for node in graph.node)]
        del graph.node[:]
        graph.node.extend(nodes)


def _copied(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _rename_graph(graph: onnx.GraphProto, mapping: Mapping[str, str]) -> None:
    """Renames tensors in a graph and all bodies in it. No two get one name, so that every name means what it did."""
    weights = (*graph.initializer, *(tensor.values for tensor in graph.sparse_initializer))
    for value in (*graph.input, *graph.output, *graph.value_info, *weights):
        value.name = mapping.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [mapping.get(name, name) for name in node.input]
        node.output[:] = [mapping.get(name, name) for name in node.output]
        for body in subgraphs(node):
            _rename_graph(body, mapping)
