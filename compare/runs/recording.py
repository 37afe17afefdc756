"""Inputs and outputs of a run on their way into files, from which they can be a side of a later comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.digest import arrays_digest
from ...graph.errors import UsageError
from ...graph.numpy_files import write_npz
from ...graph.polygraphy_json import encoded
from ...graph.recordings import OutputsFile
from ...graph.whole_file import replacing
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
    target = Path(path)
    if target.suffix not in (".json", ".npz", "") or (target.suffix == ".npz" and len(samples) > 1):
        raise UsageError(
            f"--save-inputs {path}: {len(samples)} samples are saved as .json, or in a folder of .npz: "
            f"name one without a suffix."
        )
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


@contextmanager
def saving_outputs(comparison: Comparison, begin: Begin, path: str | None) -> Iterator[Begin]:
    """Gives what takes the outputs of a run and also writes them to ``path``, if there is one.

    What was written so far is there when a runner fails; when the run is interrupted, a ``.json`` is not written.

    Raises:
        UsageError: The path says no form of a recording, or cannot be written.
    """
    if path is None:
        yield begin
        return
    try:
        file = OutputsFile(path)
    except UsageError as error:
        raise UsageError(f"--save-outputs {error}") from None
    inputs = [arrays_digest(sample) for sample in checked(comparison.samples)]

    def saving(sides: Sides) -> Take:
        take = begin(sides)

        def both(side: Side, sample: int, outputs: dict[str, Any]) -> None:
            take(side, sample, outputs)
            file.add(side.name, {name: np.asarray(value) for name, value in outputs.items()}, inputs[sample])

        return both

    try:
        with writing("--save-outputs", path):
            yield saving
            file.finish({side.name: side.runner.arithmetic.name for side in comparison.sides.all})
    finally:
        file.discard()
