"""Inputs that Polygraphy saved (``polygraphy run --save-inputs FILE.json``), read without Polygraphy.

The format: a list of dicts, or one dict, of arrays by input name (`graph.polygraphy_json`). A folder holds one such
file for each iteration.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.errors import DataError, first_line
from ..graph.polygraphy_json import decoded, kind
from .base import Samples, Source, left_over
from .fitting import specs_of
from .iterable import Spool

if TYPE_CHECKING:
    from ..graph.model import Model

READS = "Polygraphy's inputs (.json, or a folder of them)"


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
        samples = Spool(specs_of(model), self._samples(), str(self.path))
        samples.notes = left_over(Path(self.path), self._files())
        return samples

    def _files(self) -> list[Path]:
        path = Path(self.path)
        return sorted(path.glob("*.json")) if path.is_dir() else [path]

    def _samples(self) -> Iterator[dict[str, np.ndarray]]:
        for file in self._files():
            try:
                content = json.loads(file.read_bytes())
            except (ValueError, OSError, RecursionError) as error:
                raise DataError(f"{file}: not JSON: {first_line(error)}.") from None
            if not isinstance(content, list):
                content = [content]
            content.reverse()
            while content:  # each is dropped as soon as it is decoded
                yield _sample(content.pop(), file)


def _sample(value: Any, file: Path) -> dict[str, np.ndarray]:
    found = kind(value)
    if found == "RunResults":
        raise DataError(f"{file}: these are outputs (--save-outputs); inputs are saved with --save-inputs.")
    if found is not None or not isinstance(value, dict):
        raise DataError(f"{file}: expected dicts of arrays by input name, found {found or type(value).__name__}.")
    return {name: decoded(item, file, name) for name, item in value.items()}
