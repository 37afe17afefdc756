"""TensorRT's data types as NumPy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.errors import RunnerError
from .log import log_of, why_unloadable

if TYPE_CHECKING:
    from ...graph.specs import TensorSpec
    from .versions import Library


_NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
PARSED = frozenset((*_NUMPY.values(), "float64"))
"""Names of the dtypes that the parser takes inputs in; FP64 becomes FP32."""


def dtype_of(data_type: Any) -> np.dtype:
    """The NumPy (or ml_dtypes) dtype of a TensorRT data type.

    Raises:
        RunnerError: Its values have no whole bytes (INT4, FP4).
    """
    name = _NUMPY.get(data_type.name)
    if name is None:
        raise RunnerError(f"TensorRT's {data_type.name} tensors cannot be fed or fetched.")
    if hasattr(np, name) or name == "bool":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))


def convert(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """``array`` in C order as ``dtype``.

    Raises:
        RunnerError: An integer does not fit: TensorRT before 10 computes INT64 in 32 bits.
    """
    if array.dtype.kind in "iu" and dtype.kind in "iu" and array.dtype != dtype and array.size:
        limits = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            worst = low if low < limits.min else high
            raise RunnerError(f"{name}: {worst} does not fit {dtype.name}, in which TensorRT takes this input.")
    return np.ascontiguousarray(array, dtype=dtype)


def spec_of(engine: Any, name: str) -> TensorSpec:
    """An input or output of an engine; -1 in its shape is an open dimension."""
    from ...graph.specs import TensorSpec

    shape = tuple(int(d) if d >= 0 else None for d in engine.get_tensor_shape(name))
    return TensorSpec(name, dtype_of(engine.get_tensor_dtype(name)), shape)


def specs_of(library: Library, engine: bytes, name: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a serialized engine.

    Raises:
        RunnerError: It cannot be loaded.
    """
    trt, log = library.trt, log_of(library.trt)
    log.begin()
    runtime = trt.Runtime(log)
    opened = runtime.deserialize_cuda_engine(engine)
    if opened is None:
        raise RunnerError(f"{library} cannot load {name}: {why_unloadable(list(log.errors))}.")
    names = [opened.get_tensor_name(i) for i in range(opened.num_io_tensors)]
    inputs = [n for n in names if opened.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    found = {n: spec_of(opened, n) for n in names}
    del opened, runtime  # in this order
    return tuple(found[n] for n in inputs), tuple(found[n] for n in names if n not in inputs)
