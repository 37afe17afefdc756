"""The parsed network: what TensorRT's parser is given, and what is done to the network that it gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...graph.cutting.slices import original_name
from ...graph.errors import BuildError, RunnerError
from ...graph.operators import OPEN_SHAPES, operator
from ...graph.specs import NAMELESS
from ..contract.workload import ShapeRange, seen_ranges
from .dtypes import PARSED
from .log import log_of, reason
from .plan import Plan

if TYPE_CHECKING:
    import onnx

    from ...graph.model import Model
    from ..contract.workload import Feed
    from .versions import Library


def network_flags(plan: Plan, library: Library) -> int:
    """The flags to create a network with."""
    creation = library.trt.NetworkDefinitionCreationFlag
    flags = 0
    if library.has("explicit-batch"):
        flags |= 1 << int(creation.EXPLICIT_BATCH)
    if plan.strongly_typed:
        flags |= 1 << int(creation.STRONGLY_TYPED)
    return flags


def named(model: Model) -> onnx.ModelProto:
    """The model's graph with a unique name on every node, and none on dimensions of inputs that have none.

    TensorRT takes dimensions of one name for one size, whatever the name. Returns the graph itself if it is like that.
    """
    names = model.index.names
    dims = [d for d in _dimensions(model.proto) if d.dim_param in NAMELESS - {""}]
    if not dims and all(node.name == name for node, name in zip(model.proto.graph.node, names, strict=True)):
        return model.proto
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    for node, name in zip(copy.graph.node, names, strict=True):
        node.name = name
    for dim in _dimensions(copy):
        if dim.dim_param in NAMELESS:
            dim.ClearField("dim_param")
    return copy


def _dimensions(proto: onnx.ModelProto) -> list[Any]:
    return [dim for info in proto.graph.input for dim in info.type.tensor_type.shape.dim]


def specialized(
    model: Model, samples: Callable[[], Iterable[Feed]] | None, shape_sets: Sequence[Mapping[str, ShapeRange]]
) -> Model:
    """A piece of a model with those dimensions written into its inputs that are always the same, except the first.

    A piece comes without shapes, and TensorRT wants to know at least the channels of a convolution. The first dimension
    stays open, as batches are in the whole model: an engine for one fixed batch can be another program.
    """
    given = {name for shapes in shape_sets for name in shapes}
    unknown = [s for s in model.inputs if s.shape is None or _open(s.shape[1:])]
    if not model.derived:
        unknown = [s for s in unknown if s.name not in given]
        if not any(s.shape is None for s in unknown):
            return model
    names = [s.name for s in unknown]
    ranges = seen_ranges(samples(), names) if samples is not None and unknown else {}
    found = {name: [shapes[name] for shapes in shape_sets if name in shapes] for name in names}
    for name, seen in ranges.items():
        found[name].append(seen)
    found = {name: all_ranges for name, all_ranges in found.items() if all_ranges}
    if not found:
        return model
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for info in proto.graph.input:
        if info.name not in found:
            continue
        old = next(s.shape for s in unknown if s.name == info.name)
        extremes = [shape for r in found[info.name] for shape in (r.min, r.max)]
        shape = info.type.tensor_type.shape
        del shape.dim[:]
        for axis, dims in enumerate(zip(*extremes, strict=True)):
            before = old[axis] if old is not None else None
            dim = shape.dim.add()
            if isinstance(before, int):
                dim.dim_value = before
            elif axis == 0 or len(set(dims)) > 1:
                dim.dim_param = before or f"{info.name}_{axis}"
            else:
                dim.dim_value = dims[0]
        shape.SetInParent()
    del proto.graph.value_info[:]
    return model.derive(proto)


def loosened(model: Model, library: Library) -> tuple[Model, dict[str, ShapeRange]]:
    """For TensorRT 8: a model whose outputs depend on the data, with an open first dimension on every input.

    TensorRT 8.6.0 builds an engine for such a model with static inputs, and cannot create a context for it; with an
    optimization profile it can. Returns the model and the profile that fixes the dimensions again.
    """
    dependent = any(operator(node) in OPEN_SHAPES for node in model.index.nodes)
    fixed = all(s.shape and not _open(s.shape) for s in model.inputs)
    if library.version >= (9, 0) or not dependent or not fixed or not model.inputs:
        return model, {}
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    shapes = {}
    for info in proto.graph.input:
        spec = next((s for s in model.inputs if s.name == info.name), None)
        if spec is not None and spec.shape:
            dims = tuple(int(d) for d in spec.shape if isinstance(d, int))
            shapes[spec.name] = ShapeRange(dims, dims, dims)
            info.type.tensor_type.shape.dim[0].dim_param = f"{spec.name}_0"
    return model.derive(proto), shapes


def _open(shape: Sequence[object]) -> bool:
    return any(not isinstance(d, int) for d in shape)


def parse(parser: Any, model: Model, library: Library) -> list[str]:
    """Parses ``model`` into the parser's network and returns the node names TensorRT will speak of.

    Raises:
        BuildError: An operator, an attribute or a type is not supported; names the node.
    """
    proto = named(model)
    if proto is model.proto and model.path is not None:
        good = parser.parse_from_file(os.fspath(model.path.resolve()))
    else:
        # External weights are found relative to the path given here, which need not exist.
        path = (model.folder or Path()).resolve() / "model.onnx"
        good = parser.parse(model.derive(proto).contained().serialized(), os.fspath(path))
    names = model.index.names
    if not good:
        raise BuildError(_parser_failure(parser, model, names, library))
    return names


def _parser_failure(parser: Any, model: Model, names: list[str], library: Library) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    if not errors:
        return f"{library} cannot parse {model.source}: {reason(list(log_of(library.trt).errors))}."
    error = next((e for e in errors if 0 <= e.node() < len(names)), errors[0])
    position = error.node()
    parsing = log_of(library.trt).parsing
    if position < 0 and parsing in names:  # some errors of an importer do not know their node
        position = names.index(parsing)
    text = (str(error.desc()).strip().splitlines() or ["no reason given"])[0]
    if text == "false":  # the check of an operator that has no importer
        text = "the operator is not supported"
    where = f"{model.source}"
    if 0 <= position < len(names):
        where = f"node {original_name(names[position])!r} ({model.index.nodes[position].op_type}) of {model.source}"
    elif odd := [spec for spec in model.inputs if spec.dtype.name not in PARSED]:
        where = f"input {odd[0].name!r} ({odd[0].dtype.name}) of {model.source}"
    return f"{library} cannot parse {where}: {text[:400].rstrip('.')}."


def rename_inputs(network: Any, model: Model) -> None:
    """Gives inputs their names back: the parser calls one that Identity or Dropout hands on to an output as it is
    ``__OUTPUT``."""
    found = inputs_of(network)
    if len(found) == len(model.inputs):
        for tensor, spec in zip(found, model.inputs, strict=True):
            if tensor.name != spec.name:
                tensor.name = spec.name


def inputs_of(network: Any) -> list[Any]:
    """The network's inputs, in order."""
    return [network.get_input(i) for i in range(network.num_inputs)]


def dims_of(tensor: Any) -> tuple[int, ...]:
    """A tensor's dimensions; -1 is an open one."""
    return tuple(int(d) for d in tensor.shape)


def layers_of(network: Any) -> list[Any]:
    """The network's layers, in order."""
    return [network.get_layer(i) for i in range(network.num_layers)]


def computing_layers(network: Any, trt: Any) -> int:
    """Number of layers without constants and shape queries."""
    kinds = trt.LayerType
    passive = {kinds.CONSTANT, kinds.SHAPE}
    return sum(layer.type not in passive for layer in layers_of(network))


def mark_outputs(network: Any, fetch: Sequence[str], library: Library) -> None:
    """Makes inner tensors outputs.

    Raises:
        RunnerError: The parsed network has no tensor of that name.
    """
    outputs = {network.get_output(i).name for i in range(network.num_outputs)}
    wanted = [name for name in fetch if name not in outputs]
    if not wanted:
        return
    tensors = {}
    for layer in layers_of(network):
        for i in range(layer.num_outputs):
            tensor = layer.get_output(i)
            tensors[tensor.name] = tensor
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise RunnerError(f"{library} has no tensor {missing[0]!r}: it was folded away when the network was parsed.")
    for name in wanted:
        network.mark_output(tensors[name])
