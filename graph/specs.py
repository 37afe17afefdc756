"""What is known about a tensor before anything runs: name, dtype, shape."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx

Arrays = Mapping[str, np.ndarray]
"""Values of tensors, by name."""

Dim = int | str | None
"""A dimension: a number, a symbolic name, or unknown."""

STRING = np.dtype(object)
"""The dtype under which string tensors travel (as NumPy and ONNX Runtime hold them)."""

# ONNX keeps 4-bit and 8-bit formats under their own element types; ml_dtypes has a NumPy dtype for each.
_EXTENSION = {
    "BFLOAT16": "bfloat16",
    "FLOAT8E4M3FN": "float8_e4m3fn",
    "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz",
    "FLOAT8E8M0": "float8_e8m0fnu",
    "INT4": "int4",
    "UINT4": "uint4",
    "INT2": "int2",
    "UINT2": "uint2",
    "FLOAT4E2M1": "float4_e2m1fn",
}
_NATIVE = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "FLOAT16": "float16",
    "BOOL": "bool",
    "COMPLEX64": "complex64",
    "COMPLEX128": "complex128",
    **{f"{sign.upper()}{bits}": f"{sign}{bits}" for sign in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def _table() -> dict[int, np.dtype]:
    enum = onnx.TensorProto.DataType
    table = {enum.Value(name): np.dtype(dtype) for name, dtype in _NATIVE.items()}
    table[onnx.TensorProto.STRING] = STRING
    names = set(enum.keys())
    for name, attribute in _EXTENSION.items():
        if name in names and hasattr(ml_dtypes, attribute):
            table[enum.Value(name)] = np.dtype(getattr(ml_dtypes, attribute))
    return table


_FROM_ONNX = _table()
_TO_ONNX = {dtype: elem_type for elem_type, dtype in _FROM_ONNX.items()}


def dtype_from_onnx(elem_type: int) -> np.dtype:
    """The NumPy (or ml_dtypes) dtype of an ONNX element type.

    Raises:
        KeyError: ``elem_type`` is undefined or has no dtype in the installed ml_dtypes.
    """
    return _FROM_ONNX[elem_type]


def dtype_to_onnx(dtype: np.dtype) -> int:
    """The ONNX element type of a NumPy (or ml_dtypes) dtype. Fixed-width strings count as strings.

    Raises:
        KeyError: ONNX has no such type.
    """
    dtype = np.dtype(dtype)
    return onnx.TensorProto.STRING if dtype.kind in "SU" else _TO_ONNX[dtype]


def has_onnx_type(dtype: np.dtype) -> bool:
    """Whether ONNX has tensors of these values, in any byte order."""
    return dtype.kind in "OSUT" or dtype.newbyteorder("=") in _TO_ONNX


def is_text(value: object) -> bool:
    """Whether an element of an array of objects is a string."""
    return isinstance(value, (str, bytes))


@functools.cache
def dtype_name(dtype: np.dtype) -> str:
    """What NumPy calls a dtype, which it makes anew whenever it is asked for."""
    return dtype.name


def is_float(dtype: np.dtype) -> bool:
    """Whether values of this dtype are rounded: IEEE floats, bfloat16, the 8-bit and 4-bit floats, complex."""
    dtype = np.dtype(dtype)
    return dtype.kind in "fc" or (dtype.kind == "V" and "float" in dtype_name(dtype))


NAMELESS = frozenset({"", "?", "*", "-1", "None"})
"""What exporters write in the place of a dimension's name where they have none (Paddle: ``?``): two of them need not be
one size."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a tensor. ``shape`` is None where not even the rank is known."""

    name: str
    dtype: np.dtype
    shape: tuple[Dim, ...] | None

    def __str__(self) -> str:
        shape = "?" if self.shape is None else "x".join("?" if d is None else str(d) for d in self.shape) or "scalar"
        return f"{self.name} ({'string' if self.dtype == STRING else self.dtype.name}, {shape})"


def spec_from_value_info(info: onnx.ValueInfoProto) -> TensorSpec | None:
    """The spec of a graph input, output or value; None for sequences, optionals and untyped values."""
    if info.type.WhichOneof("value") != "tensor_type" or not info.type.tensor_type.elem_type:
        return None
    tensor = info.type.tensor_type
    shape: tuple[Dim, ...] | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            d.dim_value
            if d.HasField("dim_value") and d.dim_value >= 0
            else (None if d.dim_param in NAMELESS else d.dim_param)
            for d in tensor.shape.dim
        )
    return TensorSpec(info.name, dtype_from_onnx(tensor.elem_type), shape)


def specs_of(feed: Arrays, fixed: bool = False) -> dict[str, TensorSpec]:
    """Types of arrays; their shapes are left open unless ``fixed``."""
    return {n: TensorSpec(n, a.dtype, a.shape if fixed else (None,) * a.ndim) for n, a in feed.items()}


def held(array: np.ndarray, spec: TensorSpec | None) -> np.ndarray:
    """An array as a tensor of a spec's floating type holds it: finite values beyond its range become its greatest.

    So do converters to FP16 with constants (a mask of -3.4e38), and a layer of a typed graph is never given another
    number.
    """
    made = cast(array, spec)
    if made is array or made.dtype.itemsize >= array.dtype.itemsize:
        return made
    beyond = np.isinf(made) & np.isfinite(array)
    if not beyond.any():
        return made
    import ml_dtypes

    return np.where(beyond, np.copysign(ml_dtypes.finfo(made.dtype).max, made), made).astype(made.dtype)


def cast(array: np.ndarray, spec: TensorSpec | None) -> np.ndarray:
    """An array in the floating type that a spec asks for; others are returned as they are, and complex numbers where
    real ones are asked for."""
    if spec is None or spec.dtype == array.dtype or not (is_float(spec.dtype) and is_float(array.dtype)):
        return array
    if array.dtype.kind == "c" != spec.dtype.kind:
        return array
    with np.errstate(all="ignore"):
        return array.astype(spec.dtype)
