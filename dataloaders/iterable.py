"""Samples from Python: any iterable of dicts of arrays, or a function that returns one.

What can be iterated once only (a generator) is written to temporary files as it passes by, so that it can be read
again; nothing is kept in memory.
"""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.errors import DataError, LayerdiffError, UsageError, no_room, said
from ..graph.foreign import contained
from ..graph.numpy_files import map_array
from ..graph.specs import STRING, TensorSpec
from .base import Sample, Samples, Source
from .fitting import fit, specs_of

if TYPE_CHECKING:
    from ..graph.model import Model


EXPECTED = "it has to give dicts of arrays by input name, as a list or one by one (yield)"
OURS = tuple(str(Path(__file__).parents[1] / name) for name in ("compare", "dataloaders", "graph", "runners"))


class Iterated(Source):
    """Samples from an iterable of dicts, a function that returns one, or one dict.

    Args:
        data: The iterable. One that has no second pass is stored in temporary files.
        name: What to call it in messages and in the report.
        most: How many samples to ask for; None: all.

    Raises:
        DataError: ``data`` is nothing that can be iterated.
    """

    def __init__(self, data: Any, name: str = "the caller's data", most: int | None = None) -> None:
        if isinstance(data, Mapping):
            data = [data]
        if not callable(data) and not isinstance(data, Iterable):
            raise DataError(f"{name}: {type(data).__name__} is no iterable of dicts of arrays by input name.")
        self.data = data
        self.name = name
        self.most = most

    def limited(self, most: int) -> Iterated:
        """See `Source.limited`."""
        return Iterated(self.data, self.name, most)

    def __repr__(self) -> str:
        return f"Iterated({type(self.data).__name__}, name={self.name!r})"

    def bind(self, model: Model) -> Samples:
        """Checks every sample against ``model`` in one pass."""
        specs = specs_of(model)
        iterator = self._begin()
        if iterator is self.data:
            if getattr(iterator, "gi_frame", iterator) is None:  # a generator that has ended
                again = "as by an earlier comparison: give a list, or the function that makes the generator"
                raise DataError(f"{self.name}: this generator was used up before, {again}.")
            return Spool(specs, itertools.islice(iterator, self.most), self.name)
        return _Again(specs, self._again, itertools.islice(iterator, self.most), self.name)

    def _again(self) -> Iterator[Any]:
        return itertools.islice(self._begin(), self.most)

    @property
    def _called(self) -> str:
        """What the caller's function is called."""
        return f"{getattr(self.data, '__name__', type(self.data).__name__)}()"

    def _begin(self) -> Iterator[Any]:
        try:
            with contained():
                data = self.data() if callable(self.data) else self.data
                if not isinstance(data, Iterable) or isinstance(data, str):
                    raise DataError(f"{self.name}: {self._called} returned {data!r:.60}: {EXPECTED}.")
                return iter([data] if isinstance(data, Mapping) else data)
        except LayerdiffError:
            raise
        except Exception as error:
            raise DataError(f"{self.name}: {describe(error)}") from error


def _checked(specs: Mapping[str, TensorSpec], samples: Iterator[Any], name: str) -> Iterator[Sample]:
    """Samples that fit, one at a time; what the caller's code raises becomes a `DataError`."""
    number = 0
    while True:
        try:
            with contained():
                sample = next(samples)
        except StopIteration:
            return
        except LayerdiffError:
            raise
        except Exception as error:
            raise DataError(f"{name}: sample {number}: {describe(error)}") from error
        yield fit(specs, sample, f"{name}: sample {number}")
        del sample  # not kept while the next one is made
        number += 1


def describe(error: BaseException) -> str:
    """An exception of the caller's code in one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(OURS)]  # a line of ours says nothing to them
    place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {' '.join(said(error).split())}{place}"


class _Again(Samples):
    """Samples that are asked for anew at every pass. A pass that gives other bytes than the first is an error."""

    def __init__(
        self, specs: Mapping[str, TensorSpec], begin: Callable[[], Iterator[Any]], first: Iterator[Any], name: str
    ) -> None:
        self._specs, self._begin, self._name = specs, begin, name
        self._sums = [_checksum(sample) for sample in _checked(specs, first, name)]
        self.count = len(self._sums)
        self.description = _count(self.count, name)
        if not self.count:
            raise DataError(f"{name} holds no sample.")

    def __iter__(self) -> Iterator[Sample]:
        number = -1
        for number, sample in enumerate(_checked(self._specs, self._begin(), self._name)):
            if number >= self.count or _checksum(sample) != self._sums[number]:
                raise DataError(
                    f"{self._name}: sample {number} is not what it was at the first pass. "
                    f"Every runtime must get the same: fix the random seed, or give a list."
                )
            yield sample
            del sample
        if number + 1 < self.count:
            raise DataError(f"{self._name}: {number + 1} samples at this pass, {self.count} at the first.")


def _checksum(sample: Sample) -> int:
    value = 0
    for array in sample.values():
        if array.dtype == STRING:
            value = zlib.crc32(repr(array.tolist()).encode(), value)
        else:
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            value = zlib.crc32(raw, value)  # type: ignore[arg-type]
    return value


class Spool(Samples):
    """Samples that were written to temporary files, which go when this does."""

    def __init__(self, specs: Mapping[str, TensorSpec], samples: Iterator[Any], name: str) -> None:
        self._specs = specs
        self._folder = tempfile.TemporaryDirectory(prefix="layerdiff-data-")
        self.count = 0
        for sample in _checked(specs, samples, name):
            for position, array in enumerate(sample.values()):
                stored = array.astype(str) if array.dtype == STRING else array
                if array.dtype != STRING and array.dtype.isbuiltin != 1:  # NumPy cannot read back all of ml_dtypes
                    stored = stored.view(f"V{stored.dtype.itemsize}")
                self._write(self._path(self.count, position), stored)
            self.count += 1
            del sample
        self.description = _count(self.count, name)
        if not self.count:
            raise DataError(f"{name} holds no sample.")

    def _write(self, path: Path, stored: np.ndarray) -> None:
        """Writes an array, and looks whether it is all there: NumPy may write less and say nothing."""
        try:
            np.save(path, stored, allow_pickle=False)
            if path.stat().st_size < stored.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise UsageError(no_room(self._folder.name, error)) from error

    def _path(self, number: int, position: int) -> Path:
        return Path(self._folder.name) / f"{number}-{position}.npy"

    def __iter__(self) -> Iterator[Sample]:
        for number in range(self.count):
            yield fit(
                self._specs,
                {name: map_array(self._path(number, position)) for position, name in enumerate(self._specs)},
                f"sample {number}",
            )


def _count(count: int, name: str) -> str:
    return f"{count} sample{'' if count == 1 else 's'} of {name}"
