"""Inputs and outputs of a run on their way into files, from which they can be a side of a later comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.digest import arrays_digest
from ...graph.errors import OutputError, UsageError
from ...graph.numpy_files import write_npz
from ...graph.polygraphy_json import encoded
from ...graph.recordings import OutputsFile
from ...graph.whole_file import replacing
from ..comparison import check_form
from ..report.files import writing
from .samples import checked

if TYPE_CHECKING:
    from ...dataloaders.base import Samples
    from ..comparison import Comparison
    from ..sides import Side, Sides
    from .streaming import Begin, Take


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
