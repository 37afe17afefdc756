"""Does a sample fit a model? The one place where names, dtypes and shapes of stored data are checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.errors import DataError
from ..graph.specs import STRING, TensorSpec
from .base import Sample

if TYPE_CHECKING:
    from ..graph.model import Model


def check_header(specs: Mapping[str, TensorSpec], found: Mapping[str, tuple[tuple[int, ...], Any]], where: str) -> None:
    """Checks names, dtypes and shapes without any data.

    Args:
        specs: The model's inputs by name.
        found: (shape, dtype) by name.
        where: What to call the data in messages.

    Raises:
        DataError: An input is missing, a name is unknown, a dtype or a shape contradicts the model.
    """
    missing = [name for name in specs if name not in found]
    extra = [name for name in found if name not in specs]
    if missing:
        near = [n for name in missing for n in difflib.get_close_matches(name, extra, 1)]
        hint = f" (is it {near[0]!r}?)" if near else f"; it has {_list(found) or 'nothing'}"
        raise DataError(f"{where} lacks the input {_list(missing)}{hint}.")
    if extra:
        raise DataError(f"{where} has {_list(extra)}, which the model does not take; its inputs are {_list(specs)}.")
    symbols: dict[str, tuple[int, str]] = {}
    for name, (shape, dtype) in found.items():
        spec = specs[name]
        if not _same_type(dtype, spec.dtype):
            expected = "string" if spec.dtype == STRING else spec.dtype.name
            if dtype.kind == "O":
                remedy = (
                    f"Stack its arrays into one of numbers before it is saved: np.stack(arrays).astype({expected!r})."
                )
                raise DataError(f"{where}: {name!r} holds Python objects, the model takes {expected}. {remedy}")
            raise DataError(
                f"{where}: {name!r} is {_name(dtype)}, the model takes {expected}."
                + ("" if spec.dtype == STRING else f" Convert it with astype({expected!r}).")
            )
        _check_shape(spec, shape, where, symbols)


def _check_shape(spec: TensorSpec, shape: tuple[int, ...], where: str, symbols: dict[str, tuple[int, str]]) -> None:
    if spec.shape is None:
        return
    given = "x".join(map(str, shape)) or "scalar"
    if len(shape) != len(spec.shape):
        raise DataError(f"{where}: {spec.name!r} is {given}, of rank {len(shape)}; the model's input is {spec}.")
    for axis, (dim, size) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(dim, int) and dim != size:
            raise DataError(
                f"{where}: {spec.name!r} is {given}; the model's input is {spec}: axis {axis} must be {dim}."
            )
        if isinstance(dim, str):
            before, first = symbols.setdefault(dim, (size, spec.name))
            if before != size:
                raise DataError(
                    f"{where}: {dim!r} is {before} in {first!r} and {size} in {spec.name!r}; it is one size."
                )


def fit(specs: Mapping[str, TensorSpec], sample: Any, where: str) -> Sample:
    """A sample as runners take it: read-only arrays of the model's dtypes, in the model's order.

    Values that are no arrays (lists, numbers) take the dtype of the input; arrays must have it already. An array of raw
    bytes is what NumPy makes of a dtype it does not know (bfloat16, float8) when it saves one: it is read as that.

    Raises:
        DataError: The sample is not a mapping or does not fit the model.
    """
    if not isinstance(sample, Mapping):
        raise DataError(f"{where} is {type(sample).__name__}; expected a dict of arrays by input name.")
    arrays: dict[str, np.ndarray] = {}
    for name, value in sample.items():
        spec = specs.get(name)
        if spec is None or hasattr(value, "dtype") or hasattr(value, "__array__"):
            arrays[name] = np.asarray(value)
            continue
        try:
            arrays[name] = np.asarray(value, spec.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{where}: {name!r} cannot be read as {spec.dtype.name}: {error}.") from None
    check_header(specs, {name: (array.shape, array.dtype) for name, array in arrays.items()}, where)
    return {name: _frozen(arrays[name], spec.dtype, f"{where}: {name!r}") for name, spec in specs.items()}


def _frozen(array: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    if dtype == STRING and array.dtype.kind != "O":
        array = np.char.decode(array, "utf-8").astype(object) if array.dtype.kind == "S" else array.astype(object)
    elif dtype == STRING:
        if not all(isinstance(item, str) for item in array.reshape(-1)):
            raise DataError(f"{what} holds objects that are no strings.")
    elif array.dtype != dtype and array.dtype.kind == "V":
        array = array.view(dtype)
    elif array.dtype != dtype:
        array = array.astype(dtype)  # of another byte order
    else:
        array = array.view()
    array.flags.writeable = False
    return array


def _same_type(dtype: np.dtype, expected: np.dtype) -> bool:
    if expected == STRING:
        return dtype.kind in "OSUT"
    if dtype == expected or dtype.newbyteorder("=") == expected:
        return True
    # Raw bytes: `np.save` writes the dtypes of ml_dtypes so.
    raw = dtype.kind == "V" and dtype.names is None and dtype.name.startswith("void")
    return raw and dtype.itemsize == expected.itemsize and expected.isbuiltin != 1


def _name(dtype: np.dtype) -> str:
    return {"O": "object", "U": "string", "S": "bytes"}.get(dtype.kind, dtype.name)


def _list(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more


def specs_of(model: Model) -> dict[str, TensorSpec]:
    """The inputs of a model by name."""
    return {spec.name: spec for spec in model.inputs}
