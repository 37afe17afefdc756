"""NumPy files: ``.npz`` (one sample each), ``.npy`` (one input each), and folders of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..graph.errors import DataError, first_line
from ..graph.numpy_files import Header, in_natural_order, members_of, read_array, read_header
from ..graph.specs import TensorSpec
from .base import Sample, Samples, Source, left_over
from .fitting import check_header, fit, specs_of

if TYPE_CHECKING:
    from ..graph.model import Model

READS = "an .npz, an .npy, a folder of .npz (one a sample), of INPUT.npy, or of folders of INPUT.npy"


def opens(path: Path) -> Source | None:
    """A source if ``path`` is a NumPy file or a folder that holds some."""
    if path.is_file():
        return ArrayFiles(path) if path.suffix in (".npz", ".npy") else None
    return ArrayFiles(path) if _files(path) else None


def _files(folder: Path) -> list[Path]:
    """What is one sample each: ``.npz`` files, else folders with ``.npy`` files, else the folder itself."""
    archives = sorted(folder.glob("[!.]*.npz"), key=in_natural_order)
    if archives:
        return archives
    if any(folder.glob("*.npy")):
        return [folder]
    return sorted((f for f in folder.iterdir() if f.is_dir() and any(f.rglob("*.npy"))), key=in_natural_order)


@dataclass(frozen=True)
class ArrayFiles(Source):
    """Samples in NumPy files.

    Attributes:
        path: A file or a folder.
    """

    path: Path

    def bind(self, model: Model) -> StoredSamples:
        """Checks the headers of every sample against ``model``; the data are read when they are asked for.

        Raises:
            DataError: A file cannot be read, or does not fit the model.
        """
        specs = specs_of(model)
        path = Path(self.path)
        if path.is_file():
            return StoredSamples(specs, [path], str(path))
        files = _files(path)
        if files and files != [path] and files[0].is_dir():
            # One folder with inputs named a/b, or one folder for each sample: the names decide.
            with contextlib.suppress(DataError):
                return StoredSamples(specs, [path], str(path))
        samples = StoredSamples(specs, files, str(path))
        if files != [path]:
            samples.notes = left_over(path, files)
        return samples


class StoredSamples(Samples):
    """One file or folder for each sample; one sample in memory at a time."""

    def __init__(self, specs: Mapping[str, TensorSpec], files: list[Path], name: str) -> None:
        if not files:
            raise DataError(f"--data {name}: holds no .npz or .npy file.")
        self._specs = specs
        self._files = files
        self.count = len(files)
        self.description = f"{self.count} sample{'' if self.count == 1 else 's'} of {name}"
        for file in files:
            headers = {name: (header.shape, header.dtype) for name, header in self._headers(file).items()}
            check_header(specs, headers, str(file))

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(self.count))

    def __getitem__(self, number: int) -> Sample:
        """Sample ``number`` alone.

        Raises:
            IndexError: There is none of this number.
        """
        if not 0 <= number < self.count:
            raise IndexError(number)
        file = self._files[number]
        return fit(self._specs, self._arrays(file), str(file))

    def _headers(self, file: Path) -> dict[str, Header]:
        try:
            if file.suffix == ".npz" and file.is_file():
                return members_of(file, read_header)
            headers = {}
            for name, path in self._members(file).items():
                with path.open("rb") as stream:
                    headers[name] = read_header(stream)
            return headers
        except DataError:
            raise
        except Exception as error:  # of NumPy, zipfile, zlib and the file system, which a damaged file meets in any way
            raise DataError(f"{file}: cannot be read: {first_line(error)}.") from None

    def _arrays(self, file: Path) -> dict[str, np.ndarray]:
        try:
            if file.suffix == ".npz" and file.is_file():
                return members_of(file, read_array)
            return {name: _read(path) for name, path in self._members(file).items()}
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{file}: cannot be read: {first_line(error)}.") from None

    def _members(self, file: Path) -> dict[str, Path]:
        """Input -> ``.npy`` file."""
        if file.is_file():
            if len(self._specs) != 1:
                names = ", ".join(f"{name}.npy" for name in self._specs)
                raise DataError(f"{file}: the model has {len(self._specs)} inputs; give a folder with {names}.")
            return {next(iter(self._specs)): file}
        found = {path.relative_to(file).as_posix().removesuffix(".npy"): path for path in sorted(file.rglob("*.npy"))}
        # Names that cannot be file names may have their odd characters replaced.
        for name in self._specs:
            safe = re.sub(r"[^\w.-]", "_", name)
            if name not in found and safe in found:
                found[name] = found.pop(safe)
        return found


def _read(path: Path) -> np.ndarray:
    """A file's array. Not mapped: where another program cuts a mapped file short, the system ends who reads it."""
    with path.open("rb") as stream:
        return read_array(stream)
