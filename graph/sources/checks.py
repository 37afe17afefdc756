"""What an ONNX file says is looked at before anybody computes with it: types, sizes, and where weights are.

Nothing is allocated, and no byte of a weight is read. What is refused would otherwise fail later, in another way in
each runtime, or not fail: files outside the model's folder would be read as weights, and their bytes shown in reports.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from ..errors import ModelError
from ..specs import STRING, dtype_from_onnx
from ..weights import place

LARGEST = 1 << 43
"""Bytes of a tensor, 8 TiB, above which nobody means it."""
MOST_NODES = 10_000_000
"""Nodes that the calls of local functions may come to: functions that call each other double with each level."""

_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def check(proto: onnx.ModelProto, path: Path, *, home: Path, allowed: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Makes sure that a model can be read as what it says.

    Args:
        proto: The model.
        path: The file, as the user named it, for messages.
        home: The file that it is, links followed where its weights need that; its folder holds external weights.
        allowed: Further folders that external weights may be in.

    Raises:
        ModelError: An element type is unknown, a size is impossible or not that of the data, weights are not there, are
            cut short, or are outside the folders where they may be; functions call each other without end.
    """
    folders = [os.path.realpath(path.parent), os.path.realpath(home.parent), os.path.dirname(os.path.realpath(path))]
    _check_functions(proto, path)
    _Checks(path, home.parent, [*folders, *(os.path.realpath(f) for f in allowed)]).model(proto)


@dataclass
class _Checks:
    path: Path
    folder: Path
    allowed: list[str]
    sizes: dict[str, int] = field(default_factory=dict)

    def model(self, proto: onnx.ModelProto) -> None:
        """Looks at a model and everything inside."""
        graphs = [proto.graph]
        nodes = [function.node for function in proto.functions]
        while graphs or nodes:
            if graphs:
                graph = graphs.pop()
                for tensor in graph.initializer:
                    self.tensor(tensor)
                for sparse in graph.sparse_initializer:
                    self.sparse(sparse)
                for info in (*graph.input, *graph.output, *graph.value_info):
                    self.info(info)
                nodes.append(graph.node)
                continue
            for node in nodes.pop():
                self.texts(node.op_type, node.domain, node.name, *node.input, *node.output)
                for attribute in node.attribute:
                    graphs.extend(self.attribute(attribute))

    def texts(self, *texts: object) -> None:
        """Looks at names: protobuf gives bytes where they are no UTF-8."""
        for text in texts:
            if not isinstance(text, str):
                raise ModelError(f"{self.path}: the name {text!r} is no UTF-8 text.")

    def attribute(self, attribute: AttributeProto) -> Iterator[onnx.GraphProto]:
        """Looks at the tensors of an attribute, and gives its graphs."""
        self.texts(attribute.name)
        if attribute.type == AttributeProto.TENSOR:
            self.tensor(attribute.t)
        elif attribute.type == AttributeProto.TENSORS:
            for tensor in attribute.tensors:
                self.tensor(tensor)
        elif attribute.type == AttributeProto.SPARSE_TENSOR:
            self.sparse(attribute.sparse_tensor)
        elif attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs

    def sparse(self, sparse: onnx.SparseTensorProto) -> None:
        """Looks at the two tensors of a sparse one."""
        self.tensor(sparse.values)
        self.tensor(sparse.indices)

    def info(self, info: onnx.ValueInfoProto) -> None:
        """Looks at the type of an input, an output or an inner tensor."""
        self.texts(info.name)
        kind = info.type.WhichOneof("value")
        if kind == "tensor_type" and info.type.tensor_type.elem_type:
            self._dtype(info.type.tensor_type.elem_type, info.name)

    def tensor(self, tensor: TensorProto) -> None:
        """Looks at a tensor with values."""
        self.texts(tensor.name)
        if not tensor.data_type and not tensor.dims and not tensor.name:
            return  # an attribute that says what type it has, and has no value
        dtype = self._dtype(tensor.data_type, tensor.name)
        if any(d < 0 for d in tensor.dims):
            raise self._wrong(tensor, f"has a negative dimension: {list(tensor.dims)}")
        count = math.prod(tensor.dims)
        size = math.ceil(count * _bits(dtype.name, dtype.itemsize) / 8)
        if size > LARGEST:
            raise self._wrong(tensor, f"has {count:,} elements: {list(tensor.dims)}")
        if tensor.data_location == TensorProto.EXTERNAL:
            self._external(tensor, size)
        elif tensor.HasField("raw_data"):
            if dtype == STRING:
                raise self._wrong(tensor, "holds strings as raw bytes")
            if len(tensor.raw_data) != size:
                raise self._wrong(tensor, f"holds {len(tensor.raw_data):,} bytes, and {size:,} follow from its shape")
        else:
            self._typed(tensor, dtype.name, count)

    def _typed(self, tensor: TensorProto, name: str, count: int) -> None:
        found = sum(len(getattr(tensor, kind)) for kind in _FIELDS)
        expected = 2 * count if name.startswith("complex") else math.ceil(count * _packed(name))
        if found != expected:
            raise self._wrong(tensor, f"holds {found:,} values, and {expected:,} follow from its shape")

    def _external(self, tensor: TensorProto, size: int) -> None:
        where = place(tensor)
        location = where.get("location", "")
        file = self.folder / location
        if not location or "\0" in location or not file.is_file():
            raise ModelError(f"{self.path}: weights of {tensor.name!r} are in {location!r}, which is not beside it.")
        if location not in self.sizes:
            real = os.path.realpath(file)
            if not any(os.path.commonpath([real, folder]) == folder for folder in self.allowed):
                raise ModelError(
                    f"{self.path}: weights of {tensor.name!r} are in {location!r}, outside the model's folder.\n"
                    f"If that is meant: --allow-external {os.path.dirname(real)}"
                )
            self.sizes[location] = file.stat().st_size
        numbers = [self._number(tensor, key, where.get(key, "0")) for key in ("offset", "length")]
        offset, length = numbers[0], numbers[1] if "length" in where else size
        if length != size:
            raise self._wrong(tensor, f"has {length:,} bytes in {location!r}, and {size:,} follow from its shape")
        if offset + length > self.sizes[location]:
            raise ModelError(
                f"{self.path}: {location!r} is cut short: {tensor.name!r} ends at byte {offset + length:,} of "
                f"{self.sizes[location]:,}."
            )

    def _number(self, tensor: TensorProto, key: str, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self._wrong(tensor, f"has the {key} {text[:40]!r}")
        return int(text)

    def _dtype(self, elem_type: int, name: str) -> np.dtype:
        try:
            return dtype_from_onnx(elem_type)
        except KeyError:
            raise ModelError(f"{self.path}: {name!r} has the element type {elem_type}, which is not known.") from None

    def _wrong(self, tensor: TensorProto, what: str) -> ModelError:
        return ModelError(f"{self.path}: the weights {tensor.name!r}: the tensor {what}.")


def _bits(name: str, itemsize: int) -> int:
    """Bits of an element in a file: the small types are packed there."""
    if "int4" in name or "float4" in name:
        return 4
    return 2 if "int2" in name else 8 * itemsize


def _packed(name: str) -> float:
    """Values in a typed field for one element."""
    return _bits(name, 1) / 8 if _bits(name, 1) < 8 else 1.0


def _check_functions(proto: onnx.ModelProto, path: Path) -> None:
    """Refuses functions whose calls come to more nodes than anybody means, or that call themselves."""
    functions = {(f.domain, f.name): f for f in proto.functions}
    counts: dict[tuple[str, str], int] = {}
    for start in functions:
        stack = [start]
        open_: dict[tuple[str, str], None] = {}
        while stack:
            key = stack[-1]
            if key in counts:
                stack.pop()
                continue
            open_[key] = None
            called = [(n.domain, n.op_type) for n in _all_nodes(functions[key].node)]
            missing = [c for c in called if c in functions and c not in counts]
            if any(c in open_ for c in missing):
                raise ModelError(f"{path}: the function {key[1]!r} calls itself.")
            if missing:
                stack.extend(dict.fromkeys(missing))
                continue
            counts[key] = sum(counts.get(c, 1) for c in called)
            del open_[key]
            stack.pop()
    total = sum(counts.get((n.domain, n.op_type), 1) for n in _all_nodes(proto.graph.node)) if functions else 0
    if total > MOST_NODES:
        raise ModelError(f"{path}: calls of functions come to {total:,} nodes; at most {MOST_NODES:,} are run.")


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of the bodies inside."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            stack.extend(attribute.g.node)
            for graph in attribute.graphs:
                stack.extend(graph.node)
