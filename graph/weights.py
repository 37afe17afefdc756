"""Values of weights, wherever they are stored: inside the model, or in files beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from .errors import ModelError, first_line
from .specs import dtype_from_onnx


def read_tensor(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray:
    """A TensorProto's values. External data are memory-mapped from ``folder``, and copied if they lie askew there."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    dtype = dtype_from_onnx(tensor.data_type)
    if "int4" in dtype.name or "int2" in dtype.name or "float4" in dtype.name or 0 in tensor.dims:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        _read_into(copy, folder)
        return numpy_helper.to_array(copy)
    array = _mapped(tensor, folder, math.prod(tensor.dims) * dtype.itemsize).view(dtype).reshape(tuple(tensor.dims))
    return array if array.flags.aligned else np.array(array)


def _mapped(tensor: onnx.TensorProto, folder: Path | None, size: int) -> np.ndarray:
    """The bytes of external data, of which nothing is read yet.

    Raises:
        ModelError: The file is not there any more, or was cut short since the model was loaded.
    """
    where = place(tensor)
    path = (folder or Path()) / where["location"]
    try:
        return np.memmap(path, np.uint8, "r", int(where.get("offset", 0)), (size,))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: the weights {tensor.name!r} cannot be read: {first_line(error)}.") from None


def stored_bytes(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray | None:
    """A tensor's values as the bytes that are stored, none of which is read yet; None where that cannot be had."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return np.frombuffer(tensor.raw_data, np.uint8) if tensor.raw_data else None
    where = place(tensor)
    if "length" in where:
        length = int(where["length"])
    else:  # to the end of the file
        length = ((folder or Path()) / where["location"]).stat().st_size - int(where.get("offset", 0))
    return _mapped(tensor, folder, length) if length else None


def read_all_into(proto: onnx.ModelProto, folder: Path | None) -> None:
    """Reads external weights into a model. A file with several hard links is one like any other, as links that lead
    out of the folder were refused when the model was loaded; ONNX's own reader refuses it."""
    for tensor in _tensors(proto.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _read_into(tensor, folder)


def _read_into(tensor: onnx.TensorProto, folder: Path | None) -> None:
    stored = stored_bytes(tensor, folder)
    tensor.raw_data = b"" if stored is None else stored.tobytes()
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def place(tensor: onnx.TensorProto) -> Mapping[str, str]:
    """Where external data are: ``location`` (relative to the model's folder), ``offset`` and ``length`` in bytes."""
    return {entry.key: entry.value for entry in tensor.external_data}


def external_files(proto: onnx.ModelProto) -> set[str]:
    """Names of the files that hold a model's weights, relative to its folder."""
    return {
        place(tensor).get("location", "")
        for tensor in proto.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def every_external_file(proto: onnx.ModelProto) -> set[str]:
    """The same of all tensors, those that are attributes and inside bodies among them."""
    external = (tensor for tensor in _tensors(proto.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL)
    return {place(tensor).get("location", "") for tensor in external}


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for body in (attribute.g, *attribute.graphs):
            yield from _tensors(body)


def external_bytes(proto: onnx.ModelProto) -> int:
    """Size of the weights that a model does not hold itself."""
    return sum(tensor_bytes(t) for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's values, wherever they are."""
    return math.prod(tensor.dims) * dtype_from_onnx(tensor.data_type).itemsize
