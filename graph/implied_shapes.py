"""What shapes a graph takes: dimensions are tried against ONNX shape inference, which knows what a node refuses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from .errors import DataError
from .index import GraphIndex
from .inference import copy_without_weights
from .nodes import attribute_int
from .operators import WINDOWED, is_standard, operator
from .specs import TensorSpec, dtype_from_onnx, spec_from_value_info

Shape = tuple[int, ...]


class _Trial:
    """The graph without its large weights, on which shapes can be tried quickly."""

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self.slim = onnx.ModelProto()
        copy_without_weights(index.proto, self.slim)
        # Shapes that an exporter wrote down hold for the sizes it traced with.
        del self.slim.graph.value_info[:]
        for output in self.slim.graph.output:
            if output.type.WhichOneof("value") == "tensor_type":
                output.type.tensor_type.ClearField("shape")
        self.inputs = {info.name: info for info in self.slim.graph.input}

    def infer(self, shapes: Mapping[str, Shape], strict: bool) -> onnx.ModelProto:
        """Infers with the inputs of these shapes.

        Raises:
            Exception: ``strict``, and a node refuses the shapes. ONNX has several classes for it.
        """
        for name, shape in shapes.items():
            field = self.inputs[name].type.tensor_type.shape
            field.ClearField("dim")
            field.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=d) for d in shape)
        return onnx.shape_inference.infer_shapes(self.slim, strict_mode=strict, data_prop=True)

    def specs(self, inferred: onnx.ModelProto) -> dict[str, TensorSpec]:
        known = {}
        for info in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
            spec = spec_from_value_info(info)
            if spec is not None:
                known[info.name] = spec
        for name, tensor in self.index.initializers.items():
            known[name] = TensorSpec(name, dtype_from_onnx(tensor.data_type), tuple(tensor.dims))
        return known

    def refusal(self, shapes: Mapping[str, Shape]) -> str | None:
        """Why the graph cannot take inputs of these shapes; None if nothing speaks against them."""
        try:
            inferred = self.infer(shapes, strict=True)
        except Exception as error:
            return _inference_message(error)
        empty = any(0 in shape for shape in shapes.values())
        dims: dict[str, tuple[int | None, ...]] = {}
        for info in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
            if info.type.WhichOneof("value") == "tensor_type" and info.type.tensor_type.HasField("shape"):
                shape = info.type.tensor_type.shape
                dims[info.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in shape.dim)
        for name, tensor in self.index.initializers.items():
            dims[name] = tuple(tensor.dims)
        for position, node in enumerate(self.index.nodes):
            if is_standard(node):
                reason = _contradiction(node, dims, empty)
                if reason:
                    return f"{node.op_type} {self.index.names[position]!r}: {reason}"
        return None


def _inference_message(error: Exception) -> str:
    text = " ".join(str(error).split())
    found = re.search(r"\(op_type:(\w+)(?:, node name: ([^)]*))?\): (?:\[\w+\] )*([^\[]*)", text)
    if not found:
        return text[:200]
    op, name, what = found.groups()
    return f"{op}{f' {name!r}' if name else ''}: {what.strip().rstrip('.')}"


def _contradiction(node: onnx.NodeProto, dims: Mapping[str, tuple[int | None, ...]], empty: bool) -> str | None:
    """What ONNX's shape inference lets pass and every runtime refuses."""
    out = dims.get(node.output[0]) if node.output else None
    if out is None:
        return None
    if operator(node) in WINDOWED and not empty and any(d is not None and d <= 0 for d in out):
        return f"nothing is left of {_times(dims.get(node.input[0], ()))}"
    if node.op_type == "Conv":
        x, w = dims.get(node.input[0]), dims.get(node.input[1])
        groups = attribute_int(node, "group", 1)
        if x and w and len(x) > 1 and len(w) > 1 and x[1] is not None and w[1] is not None and x[1] != w[1] * groups:
            return f"{x[1]} channels, but weights for {w[1] * groups}"
    if node.op_type == "Reshape":
        x = dims.get(node.input[0])
        if x is not None and None not in x and None not in out:
            counts = [math.prod(d or 0 for d in shape) for shape in (x, out)]
            if counts[0] != counts[1]:
                return f"{_times(x)} cannot become {_times(out)}"
    return None


def _times(shape: Sequence[int | str | None]) -> str:
    return "x".join("?" if d is None else str(d) for d in shape) or "scalar"


def concrete_specs(index: GraphIndex, shapes: Mapping[str, Shape]) -> dict[str, TensorSpec]:
    """`GraphIndex.specs` for inputs of these shapes: dimensions that were symbols are numbers where inference knows."""
    trial = _Trial(index)
    known = dict(index.specs)
    try:
        inferred = trial.infer({n: s for n, s in shapes.items() if n in trial.inputs}, strict=False)
    except Exception:  # a type it cannot follow: what is known without shapes has to do
        return known
    known.update(trial.specs(inferred))
    return known


@dataclass(frozen=True)
class Shapes:
    """Shapes chosen for the inputs of a graph.

    Attributes:
        shapes: Input -> shape.
        chosen: Inputs of which at least one dimension was neither in the model nor given -> those dimensions, as
            ``batch=2`` or ``axis 1=8``.
        refused: What spoke against the usual sizes, where others had to be found; None where nothing did.
        doubt: What speaks against the shapes as they are; None where nothing is known against them.
    """

    shapes: Mapping[str, Shape]
    chosen: Mapping[str, tuple[str, ...]]
    refused: str | None = None
    doubt: str | None = None


_Variable: TypeAlias = "tuple[str, int] | str"
"""A dimension to choose: a symbol, or a place (input, axis) that has none."""


_Dimensions: TypeAlias = "list[int | _Variable]"
"""The dimensions of one input, those to choose as variables."""

# Sizes to try, after the usual one, for dimensions that the graph is particular about: images, then sequences.
_SIZES = (16, 32, 64, 128, 224, 256, 299, 96, 112, 160, 192, 227, 320, 384, 416, 448, 512, 640, 800, 1024)


def choose_shapes(
    index: GraphIndex,
    given: Mapping[str, Sequence[int | None]] | None = None,
    *,
    first: int = 2,
    others: int = 8,
) -> Shapes:
    """A shape for every input.

    Dimensions of one symbolic name get one size. What the model leaves open and nobody gave is ``first`` on axis 0 and
    ``others`` elsewhere, unless the graph refuses that and takes another size. A dimension without a name takes the
    size that was given for the same axis of another input.

    Args:
        index: The graph.
        given: Shapes by input; None or -1 leaves a dimension open.
        first: Usual size of axis 0.
        others: Usual size of other axes.

    Raises:
        DataError: ``given`` names an input that is not there, has another rank, contradicts a dimension of the model,
            or gives one symbol two sizes.
    """
    given = {name: tuple(shape) for name, shape in (given or {}).items()}
    specs = _input_specs(index)
    unknown = [name for name in given if name not in specs]
    if unknown:
        known = ", ".join(map(repr, specs)) or "no inputs"
        raise DataError(f"A shape is given for {unknown[0]!r}, which is no input. The model has {known}.")
    fixed: dict[_Variable, tuple[int, str]] = {}
    inputs = {name: _dimensions(spec, given.get(name), fixed) for name, spec in specs.items()}
    values = {variable: size for variable, (size, _) in fixed.items()}
    free: dict[_Variable, int] = {}
    for dims in inputs.values():
        for axis, dim in enumerate(dims):
            if not isinstance(dim, int) and dim not in values:
                usual = _same_axis(given, dim, axis, len(dims)) if isinstance(dim, tuple) else None
                free.setdefault(dim, usual if usual is not None else first if axis == 0 else others)
    sizes, refused, doubt = _fitting(index, inputs, values, free, first)
    return Shapes(_resolved(inputs, sizes), _chosen(inputs, free, sizes), refused, doubt)


def _fitting(
    index: GraphIndex,
    inputs: Mapping[str, _Dimensions],
    values: Mapping[_Variable, int],
    free: Mapping[_Variable, int],
    first: int,
) -> tuple[dict[_Variable, int], str | None, str | None]:
    """A size for every variable, what spoke against the usual ones, and what speaks against these."""
    usual = {**values, **free}
    trial = _Trial(index)
    refused = trial.refusal(_resolved(inputs, usual))
    if not refused or not _acceptable_at_all(index):
        return usual, None, None
    if not free:
        return usual, None, refused
    leading = {dim for dims in inputs.values() for axis, dim in enumerate(dims) if axis == 0}
    for tried in _candidates(index, free, leading, first):
        if trial.refusal(_resolved(inputs, {**values, **tried})) is None:
            return {**values, **tried}, refused, None
    return usual, None, refused


def _resolved(inputs: Mapping[str, _Dimensions], sizes: Mapping[_Variable, int]) -> dict[str, Shape]:
    return {n: tuple(d if isinstance(d, int) else sizes[d] for d in dims) for n, dims in inputs.items()}


def _chosen(
    inputs: Mapping[str, _Dimensions], free: Mapping[_Variable, int], sizes: Mapping[_Variable, int]
) -> dict[str, tuple[str, ...]]:
    """The dimensions of each input that nobody gave, as `Shapes.chosen` has them."""
    texts = {
        name: tuple(
            f"{dim if isinstance(dim, str) else f'axis {axis}'}={sizes[dim]}"
            for axis, dim in enumerate(dims)
            if not isinstance(dim, int) and dim in free
        )
        for name, dims in inputs.items()
    }
    return {name: found for name, found in texts.items() if found}


def _input_specs(index: GraphIndex) -> dict[str, TensorSpec]:
    infos = {info.name: info for info in index.graph.input}
    specs = {}
    for name in index.inputs:
        spec = spec_from_value_info(infos[name])
        if spec is not None:
            specs[name] = spec
    return specs


def _dimensions(
    spec: TensorSpec, given: Sequence[int | None] | None, fixed: dict[_Variable, tuple[int, str]]
) -> _Dimensions:
    """The dimensions of one input as numbers and variables; what was given for a variable is added to ``fixed``."""
    name = spec.name
    if spec.shape is None:
        sizes: Sequence[int | None] = (None, None) if given is None else given
        return [(name, axis) if d is None or d < 0 else d for axis, d in enumerate(sizes)]
    if given is None:
        given = [None] * len(spec.shape)
    if len(given) != len(spec.shape):
        raise DataError(
            f"The shape {_times(given)} of {name!r} has {len(given)} dimensions; the model's input is {spec}."
        )
    result: _Dimensions = []
    for axis, (dim, size) in enumerate(zip(spec.shape, given, strict=True)):
        size = None if size is not None and size < 0 else size
        variable: _Variable = dim if isinstance(dim, str) else (name, axis)
        if isinstance(dim, int):
            if size is not None and size != dim:
                raise DataError(f"The shape {_times(given)} of {name!r}: axis {axis} is {dim} in the model ({spec}).")
            result.append(dim)
        elif size is None:
            result.append(variable)
        else:
            before = fixed.setdefault(variable, (size, name))
            if before[0] != size:
                raise DataError(f"Shapes give {dim!r} two sizes: {before[0]} in {before[1]!r}, {size} in {name!r}.")
            result.append(variable)
    return result


def _same_axis(given: Mapping[str, Sequence[int | None]], dim: tuple[str, int], axis: int, rank: int) -> int | None:
    """The size that was given for this axis of other inputs (of the same rank, unless it is the first axis)."""
    for shape in given.values():
        if axis < len(shape) and (axis == 0 or len(shape) == rank):
            size = shape[axis]
            if size is not None and size >= 0:
                return size
    return None


def _acceptable_at_all(index: GraphIndex) -> bool:
    """Whether strict inference can follow the graph with its own dimensions: only then its refusals mean anything."""
    try:
        _Trial(index).infer({}, strict=True)
    except Exception:
        return False
    return True


def _candidates(
    index: GraphIndex, free: Mapping[_Variable, int], leading: set[int | _Variable], first: int
) -> Iterator[dict[_Variable, int]]:
    """Other sizes, the likeliest first: all inner dimensions together, then one at a time; batch as it is, then 1."""
    from_weights = sorted({d for t in index.initializers.values() for d in t.dims if 1 < d <= 2048})
    sizes = list(dict.fromkeys((*_SIZES, *from_weights[:64], *range(1, 65))))
    sizes = sizes[: max(24, min(len(sizes), 40_000 // max(1, len(index.nodes))))]
    inner = [v for v in free if v not in leading]
    outer = [v for v in free if v in leading]
    batches = [{v: free[v] for v in outer}]
    if outer and first != 1:
        batches.append(dict.fromkeys(outer, 1))
        yield {**free, **batches[1]}
    for batch in batches:
        for size in sizes:
            if inner:
                yield {**batch, **dict.fromkeys(inner, size)}
    if len(inner) > 1:
        for variable in inner:
            for size in sizes:
                yield {**free, variable: size}
    for size in sizes:
        if outer:
            yield {**free, **dict.fromkeys(outer, size)}
