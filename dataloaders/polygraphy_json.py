"""Inputs that Polygraphy saved (``polygraphy run --save-inputs FILE.json``), read without Polygraphy.

The format: a list of dicts, or one dict, of arrays by input name; an array is ``{"array": BASE64, "polygraphy_class":
"ndarray"}`` with an ``.npy`` file inside the Base64. Old versions marked the type with
``"__polygraphy_encoded_ndarray"`` and wrote the bytes as Latin-1 text. A folder holds one such file for each iteration.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.errors import DataError
from .base import Samples, Source
from .fitting import specs_of
from .iterable import Spool

if TYPE_CHECKING:
    from ..graph.model import Model

READS = "Polygraphy's inputs (.json, or a folder of them)"

_CLASS = "polygraphy_class"
_LEGACY = "__polygraphy_encoded_"


def opens(path: Path) -> Source | None:
    """A source if ``path`` is a ``.json`` file or a folder that holds some."""
    if path.suffix == ".json" or (path.is_dir() and any(path.glob("*.json"))):
        return PolygraphyInputs(path)
    return None


@dataclass(frozen=True)
class PolygraphyInputs(Source):
    """Samples in Polygraphy's JSON.

    Attributes:
        path: A file, or a folder with one for each iteration.
    """

    path: Path

    def bind(self, model: Model) -> Samples:
        """Decodes the samples into temporary files, one at a time, so that no pass decodes them again.

        Raises:
            DataError: Not Polygraphy's inputs, or they do not fit the model.
        """
        return Spool(specs_of(model), self._samples(), str(self.path))

    def _samples(self) -> Iterator[dict[str, np.ndarray]]:
        path = Path(self.path)
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            try:
                content = json.loads(file.read_bytes())
            except (ValueError, OSError) as error:
                raise DataError(f"{file}: not JSON: {error}.") from None
            if not isinstance(content, list):
                content = [content]
            content.reverse()
            while content:  # each is dropped as soon as it is decoded
                yield _sample(content.pop(), file)


def _sample(value: Any, file: Path) -> dict[str, np.ndarray]:
    kind = _kind(value)
    if kind == "RunResults":
        raise DataError(f"{file}: these are outputs (--save-outputs); inputs are saved with --save-inputs.")
    if kind is not None or not isinstance(value, dict):
        raise DataError(f"{file}: expected dicts of arrays by input name, found {kind or type(value).__name__}.")
    return {name: _array(item, file, name) for name, item in value.items()}


def _kind(value: Any) -> str | None:
    """The type that Polygraphy marked a value with."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get(_CLASS), str):
        return str(value[_CLASS])
    return next((key.removeprefix(_LEGACY) for key in value if key.startswith(_LEGACY)), None)


def _array(item: Any, file: Path, name: str) -> np.ndarray:
    kind = _kind(item)
    if kind == "Tensor":
        raise DataError(f"{file}: {name!r} is a torch.Tensor; save the inputs as NumPy arrays.")
    if kind != "ndarray" or not isinstance(item.get("array"), str):
        raise DataError(f"{file}: {name!r} is {kind or type(item).__name__}, not an array that Polygraphy saved.")
    try:
        try:
            content = base64.b64decode(item["array"].encode(), validate=True)
        except binascii.Error:
            content = item["array"].encode("latin-1")
        array = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(array, np.ndarray):  # an archive, in old versions
            array = array[array.files[0]]
    except (ValueError, OSError, EOFError, IndexError) as error:
        raise DataError(f"{file}: {name!r} cannot be decoded: {error}.") from None
    return array
