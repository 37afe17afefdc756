"""The sample on which a candidate is worst, saved so that it can be run again alone."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...graph.numpy_files import write_npz
from ..report.files import writing

if TYPE_CHECKING:
    from ...dataloaders.base import Samples
    from ..report.model import Report


def worst_samples(report: Report) -> dict[str, int]:
    """Candidate -> number of its worst sample: that of the output that uses most of what it is allowed.

    Candidates that do not differ from the reference anywhere have none.
    """
    found: dict[str, int] = {}
    for candidate in dict.fromkeys(output.candidate for output in report.outputs):
        rows = [o for o in report.of(candidate) if o.worst_sample is not None]
        if rows:
            worst = max(rows, key=lambda o: (o.verdict != "pass", o.use if o.use is not None else 0.0))
            assert worst.worst_sample is not None
            found[candidate] = worst.worst_sample
    return found


def save_worst(report: Report, samples: Samples, folder: str | os.PathLike[str]) -> Report:
    """Writes the inputs of each candidate's worst sample to ``folder`` and returns the report that says so.

    Raises:
        OutputError: The folder cannot be written to.
    """
    wanted = worst_samples(report)
    saved = []
    with writing("--save-worst", folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        if wanted:
            last = max(wanted.values())
            for number, sample in enumerate(samples):
                for candidate, worst in wanted.items():
                    if worst == number:
                        safe = re.sub(r"[^\w.@#-]+", "_", candidate)
                        path = Path(folder) / f"worst-{safe}-sample{number}.npz"
                        write_npz(path, sample)
                        saved.append(str(path))
                if number == last:
                    break
    return replace(report, saved=tuple(saved))
