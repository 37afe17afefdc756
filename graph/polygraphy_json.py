"""Arrays in Polygraphy's JSON, read and written without Polygraphy.

An array is ``{"array": BASE64, "polygraphy_class": "ndarray"}`` with an ``.npy`` file inside the Base64. Old versions
marked the type with ``"__polygraphy_encoded_ndarray"`` and wrote the bytes as Latin-1 text.
"""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError, first_line
from .numpy_files import read_array

CLASS = "polygraphy_class"
"""The key under which a value's type stands."""
_LEGACY = "__polygraphy_encoded_"


def kind(value: Any) -> str | None:
    """The type that Polygraphy marked a value with; None if it marked none."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get(CLASS), str):
        return str(value[CLASS])
    return next((key.removeprefix(_LEGACY) for key in value if key.startswith(_LEGACY)), None)


def decoded(item: Any, file: Path, name: str) -> np.ndarray:
    """The array that a value of the JSON stands for.

    Args:
        item: The value.
        file, name: The file and the tensor, for messages.

    Raises:
        DataError: It is no array, or a damaged one.
    """
    found = kind(item)
    if found == "Tensor":
        raise DataError(f"{file}: {name!r} is a torch.Tensor; save it as a NumPy array.")
    if found != "ndarray" or not isinstance(item.get("array"), str):
        raise DataError(f"{file}: {name!r} is {found or type(item).__name__}, not an array that Polygraphy saved.")
    try:
        try:
            content = base64.b64decode(item["array"].encode(), validate=True)
        except binascii.Error:
            content = item["array"].encode("latin-1")
        if content.startswith(b"PK"):  # an archive, in old versions
            with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(archive.namelist()[0]) as stream:
                return read_array(stream)
        return read_array(io.BytesIO(content))
    except Exception as error:  # of NumPy, zipfile and zlib, which damaged content meets in any way
        raise DataError(f"{file}: {name!r} cannot be decoded: {first_line(error)}.") from None


def encoded(array: np.ndarray) -> dict[str, str]:
    """An array as Polygraphy writes it. Text is saved as NumPy's text; types that NumPy lacks (bfloat16) as bytes."""
    stream = io.BytesIO()
    np.save(stream, array.astype(str) if array.dtype == object else array, allow_pickle=False)
    return {"array": base64.b64encode(stream.getvalue()).decode(), CLASS: "ndarray"}
