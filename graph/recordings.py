"""What a runner gave for samples, in files: so that another machine, or another day, can be a side of a comparison.

Two forms. A ``.json`` is Polygraphy's ``RunResults``, of one runner or several, with two keys more that Polygraphy
passes over: the digest of each iteration's inputs, and the number format of each runner. A folder holds one ``.npz``
for each sample, in the order of the numbers in their names, and ``recording.json`` with the same; of several runners,
a folder for each. A single ``.npz`` is one sample.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import DataError, UsageError, first_line
from .numpy_files import in_natural_order, members_of, read_array, read_header, write_npz
from .polygraphy_json import CLASS, decoded, encoded, kind
from .whole_file import is_plain, replacing

INPUTS = "layerdiff_inputs_sha256"
"""In an iteration: the digest of its inputs (`digest.arrays_digest`)."""
FORMATS = "layerdiff_formats"
"""In a file: the number format that each runner computed in, by its name."""
NOTES = "recording.json"
"""In a folder of one runner: its name, its number format, and the digests of the inputs."""


@dataclass(frozen=True)
class Recording:
    """What one runner gave for each of some samples.

    Attributes:
        runner: Its name.
        names: Names of the tensors of each sample.
        read: Gives the tensors of a sample by its number.
        inputs: SHA-256 of the inputs of each sample; empty where that is not known.
        format: Name of the number format that it computed in; empty where that is not known.
    """

    runner: str
    names: tuple[tuple[str, ...], ...]
    read: Callable[[int], dict[str, np.ndarray]]
    inputs: tuple[str, ...] = ()
    format: str = ""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that every sample has."""
        first, *others = map(dict.fromkeys, self.names)
        return tuple(name for name in first if all(name in other for other in others))


def load_recordings(path: str | os.PathLike[str]) -> tuple[Recording, ...]:
    """The recordings in a file or folder, one for each runner.

    Raises:
        DataError: There is no such file, it is no recording, or a damaged one.
    """
    file = Path(path)
    if not file.exists():
        raise DataError(f"{file}: no such file or folder.")
    if not is_plain(file):
        raise DataError(f"{file}: neither a regular file nor a folder, but a device or a pipe; save it first.")
    if file.is_dir():
        return _of_folder(file)
    if file.suffix == ".npz":
        return (_of_archives(file.stem, [file]),)
    return _of_json(file)


def _of_folder(folder: Path) -> tuple[Recording, ...]:
    archives = sorted(folder.glob("[!.]*.npz"), key=in_natural_order)
    if archives:
        return (_of_archives(folder.name, archives, folder / NOTES),)
    inner = [f for f in sorted(folder.iterdir()) if f.is_dir() and any(f.glob("*.npz"))]
    if not inner:
        raise DataError(f"{folder}: holds no .npz, and no folders of them.")
    return tuple(recording for f in inner for recording in _of_folder(f))


def _of_archives(name: str, files: Sequence[Path], notes: Path | None = None) -> Recording:
    known = _json(notes) if notes is not None and notes.exists() else {}
    if not isinstance(known, dict):
        raise DataError(f"{notes}: expected the notes of a recording.")
    names = tuple(tuple(_guarded(file, read_header)) for file in files)
    inputs = tuple(map(str, known.get("inputs", ())))
    if inputs and len(inputs) != len(files):
        raise DataError(f"{notes}: tells the inputs of {len(inputs)} samples, and there are {len(files)}.")
    read = functools.partial(_read, tuple(files))
    return Recording(str(known.get("runner", name)), names, read, inputs, str(known.get("format", "")))


def _read(files: Sequence[Path], number: int) -> dict[str, np.ndarray]:
    return _guarded(files[number], read_array)


def _guarded(file: Path, read: Callable[[IO[bytes]], Any]) -> dict[str, Any]:
    try:
        return members_of(file, read)
    except Exception as error:  # of NumPy, zipfile, zlib and the file system, which a damaged file meets in any way
        raise DataError(f"{file}: cannot be read: {first_line(error)}.") from None


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{file}: not JSON: {first_line(error)}.") from None


def _of_json(file: Path) -> tuple[Recording, ...]:
    content = _json(file)
    runs = content.get("lst") if isinstance(content, dict) else None
    if not isinstance(runs, list) or kind(content) not in ("RunResults", None):
        found = "inputs (--save-inputs)" if isinstance(content, list) else kind(content) or type(content).__name__
        raise DataError(f"{file}: expected the outputs of a run (--save-outputs), found {found}.")
    formats = content.get(FORMATS)
    return tuple(_of_run(run, file, formats if isinstance(formats, dict) else {}) for run in runs)


def _of_run(run: Any, file: Path, formats: Mapping[str, Any]) -> Recording:
    if not isinstance(run, list) or len(run) != 2 or not isinstance(run[1], list):
        raise DataError(f"{file}: expected a runner's name and its iterations, found {type(run).__name__}.")
    name, iterations = str(run[0]), run[1]
    if not all(isinstance(i, dict) and isinstance(i.get("outputs"), dict) for i in iterations):
        raise DataError(f"{file}: an iteration of {name} has no outputs.")
    names = tuple(tuple(iteration["outputs"]) for iteration in iterations)
    inputs = tuple(str(iteration.get(INPUTS, "")) for iteration in iterations)
    read = functools.partial(_decoded, iterations, file)
    return Recording(name, names, read, inputs if all(inputs) else (), str(formats.get(name, "")))


def _decoded(iterations: Sequence[Mapping[str, Any]], file: Path, number: int) -> dict[str, np.ndarray]:
    found = {}
    for name, item in iterations[number]["outputs"].items():
        lazy = kind(item) in ("LazyArray", "LazyNumpyArray")
        found[name] = decoded(item.get("values") if lazy else item, file, name)
    return found


class OutputsFile:
    """Outputs on their way into a file or folder, sample by sample; `finish` makes them what it is called.

    Args:
        path: A ``.json``, or a folder that is made.

    Raises:
        UsageError: The path says neither.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".json", ""):
            raise UsageError(f"{path}: outputs are saved as .json, or in a folder of .npz: name one without a suffix.")
        self._partial: dict[str, Path] = {}
        self._inputs: dict[str, list[str]] = {}

    def add(self, runner: str, outputs: Mapping[str, np.ndarray], inputs: str) -> None:
        """Writes the outputs of the next sample of a runner.

        Args:
            runner: Its name.
            outputs: Arrays by name.
            inputs: Digest of the sample's inputs.
        """
        digests = self._inputs.setdefault(runner, [])
        if self.path.suffix:
            self._add_json(runner, outputs, inputs)
        else:
            folder = self.path / folder_of(runner)
            folder.mkdir(parents=True, exist_ok=True)
            write_npz(folder / f"sample{len(digests)}.npz", outputs)
        digests.append(inputs)

    def _add_json(self, runner: str, outputs: Mapping[str, np.ndarray], inputs: str) -> None:
        lazy = {name: {"values": encoded(array), CLASS: "LazyArray"} for name, array in outputs.items()}
        told = {"outputs": lazy, "runtime": None, "runner_name": runner, INPUTS: inputs, CLASS: "IterationResult"}
        first = runner not in self._partial
        name = f"{self.path.name}.{os.getpid()}.{len(self._partial)}.partial"
        partial = self._partial.setdefault(runner, self.path.with_name(name))
        with partial.open("w" if first else "a", encoding="utf-8") as stream:
            stream.write(("" if first else ",\n") + json.dumps(told))

    def finish(self, formats: Mapping[str, str]) -> None:
        """Writes what is left to be written.

        Args:
            formats: Names of the number formats that the runners computed in, by the runners' names.
        """
        if not self.path.suffix:
            for runner in formats:
                self._clear(runner)
            for runner, inputs in self._inputs.items():
                notes = {"runner": runner, "format": formats.get(runner, ""), "inputs": inputs}
                with replacing(self.path / folder_of(runner) / NOTES) as partial:
                    partial.write_text(json.dumps(notes, indent=1), "utf-8")
            return
        with replacing(self.path) as whole, whole.open("w", encoding="utf-8") as stream:
            stream.write('{"lst": [')
            for position, runner in enumerate(self._inputs):
                stream.write(f"{',' if position else ''}\n[{json.dumps(runner)}, [\n")
                with self._partial[runner].open(encoding="utf-8") as part:
                    for line in part:
                        stream.write(line)
                stream.write("]]")
            stream.write(f'],\n"{FORMATS}": {json.dumps(dict(formats))}, "{CLASS}": "RunResults"}}')
        self.discard()

    def _clear(self, runner: str) -> None:
        """Removes samples of an earlier run that would have been replaced, had the runner not failed before."""
        folder, number = self.path / folder_of(runner), len(self._inputs.get(runner, ()))
        while (left := folder / f"sample{number}.npz").is_file():
            left.unlink()
            number += 1

    def discard(self) -> None:
        """Removes what is not finished."""
        for partial in self._partial.values():
            partial.unlink(missing_ok=True)
        self._partial.clear()


def folder_of(runner: str) -> str:
    """A runner's name as that of a folder."""
    return re.sub(r"[^\w.@#=,-]+", "_", runner)
