"""Inputs and outputs of a run on their way into files, from which they can be a side of a later comparison."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.digest import arrays_digest
from ...graph.errors import OutputError, UsageError
from ...graph.numpy_files import write_npz
from ...graph.polygraphy_json import encoded
from ...graph.printable import counted
from ...graph.recordings import OutputsFile, folder_of
from ...graph.whole_file import replacing
from ..comparison import check_form
from ..report.files import writing
from .samples import checked

if TYPE_CHECKING:
    from ...dataloaders.base import Samples
    from ..comparison import Comparison
    from ..sides import Side, Sides
    from .streaming import Begin, Take


def check_left_over(path: str, flag: str, samples: int, runners: Sequence[str] = ()) -> None:
    """Makes sure that a folder holds no samples but those that will be replaced: they would be read with them.

    Args:
        path: What ``flag`` was given; a file is replaced as a whole.
        flag: The option.
        samples: How many samples will be written.
        runners: For each of which they will be written, in a folder of its own; none: in the folder itself.

    Raises:
        UsageError: It holds others.
    """
    folder = Path(path)
    if folder.suffix or not folder.is_dir():
        return
    written = {Path(f"sample{number}.npz") for number in range(samples)}
    if runners:
        written = {Path(folder_of(runner)) / name for runner in runners for name in written}
    there = {file.relative_to(folder) for form in ("[!.]*.npz", "*/[!.]*.npz") for file in folder.glob(form)}
    others = sorted(map(os.fspath, there - written))
    if others:
        more = f" and {counted(len(others) - 1, 'more file')}" if len(others) > 1 else ""
        raise UsageError(
            f"{flag} {path}: it holds {others[0]}{more} of an earlier run, which would be read as if of this one; "
            "empty it, or name another folder."
        )


def save_inputs(samples: Samples, path: str) -> None:
    """Writes all samples: a ``.json`` as Polygraphy reads it, one sample as ``.npz``, or a folder of these.

    Raises:
        UsageError: The path says none of these, or cannot be written.
    """
    check_form(path, len(samples))
    target = Path(path)
    with writing("--save-inputs", path):
        if target.suffix == ".json":
            with replacing(target) as partial, partial.open("w", encoding="utf-8") as stream:
                for number, sample in enumerate(checked(samples)):
                    stream.write("[" if not number else ",\n")
                    json.dump({name: encoded(array) for name, array in sample.items()}, stream)
                stream.write("]")
            return
        if not target.suffix:
            target.mkdir(parents=True, exist_ok=True)
        for number, sample in enumerate(checked(samples)):
            write_npz(target if target.suffix else target / f"sample{number}.npz", sample)


@dataclass
class Saving:
    """Outputs that are taken and also written.

    Attributes:
        begin: Gives what takes the outputs of a run.
        error: Why they are not written, or no longer, once that is so.
    """

    begin: Begin
    error: OutputError | None = field(default=None, init=False)


@contextmanager
def saving_outputs(comparison: Comparison, begin: Begin, path: str | None) -> Iterator[Saving]:
    """Gives what takes the outputs of a run and also writes them to ``path``, if there is one.

    What was written so far is there when a runner fails; when the run is interrupted, a ``.json`` is not written.
    When they can no longer be written, the run goes on without.

    Raises:
        UsageError: The path says no form of a recording.
    """
    saved = Saving(begin)
    if path is None:
        yield saved
        return
    try:
        file = OutputsFile(path)
    except UsageError as error:
        raise UsageError(f"--save-outputs {error}") from None
    inputs = [arrays_digest(sample) for sample in checked(comparison.samples)]

    def attempt(write: Callable[[], None]) -> None:
        if saved.error is not None:  # a recording with gaps is none
            return
        try:
            with writing("--save-outputs", path):
                write()
        except OutputError as error:
            saved.error = error

    def saving(sides: Sides) -> Take:
        take = begin(sides)

        def both(side: Side, sample: int, outputs: dict[str, Any]) -> None:
            take(side, sample, outputs)
            arrays = {name: np.asarray(value) for name, value in outputs.items()}
            attempt(lambda: file.add(side.name, arrays, inputs[sample]))

        return both

    try:
        saved.begin = saving
        yield saved
        attempt(lambda: file.finish({side.name: side.runner.arithmetic.name for side in comparison.sides.all}))
    finally:
        with suppress(OSError):
            file.discard()
