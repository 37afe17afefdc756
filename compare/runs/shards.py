"""Outputs of a share of the samples on their way into its report, and out of several reports again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.digest import arrays_digest, combined
from ...graph.polygraphy_json import decoded, encoded
from ..report.shard import Shard, ShardRunner

if TYPE_CHECKING:
    from ..comparison import Comparison
    from ..sides import Side, Sides
    from .run import RunLog
    from .streaming import Begin, Take


class ShardRecorder:
    """Keeps what every runner gives, besides handing it on.

    Args:
        begin: Gets the outputs, too.
    """

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._outputs: dict[str, list[dict[str, dict[str, str]]]] = {}

    def begin(self, sides: Sides) -> Take:
        """See `streaming.Begin`."""
        take = self._begin(sides)

        def both(side: Side, sample: int, outputs: dict[str, Any]) -> None:
            take(side, sample, outputs)
            packed = {name: _packed(np.asarray(value)) for name, value in outputs.items()}
            self._outputs.setdefault(side.name, []).append(packed)

        return both

    def shard(self, comparison: Comparison, log: RunLog) -> Shard:
        """What the report is to hold."""
        share = comparison.rules.shard
        assert share is not None
        runners = tuple(
            ShardRunner(
                runner.name,
                runner.samples,
                runner.in_pieces,
                tuple(sorted(runner.info.fp16_accumulation)),
                runner.info.idle,
                runner.info.not_run,
                tuple(self._outputs.get(runner.name, ())),
            )
            for runner in log.runners
        )
        told = tuple(dataclasses.asdict(notice) for notice in log.notices)
        total = len(comparison.samples)
        return Shard(*share, total, log.candidates, runners, told, networks(comparison), calibration(comparison))


def networks(comparison: Comparison) -> tuple[str, ...]:
    """See `Shard.networks`."""
    return tuple(side.model.digest for side in comparison.sides.all)


def calibration(comparison: Comparison) -> str | None:
    """See `Shard.calibration`."""
    samples = comparison.workload.calibration
    return None if samples is None else combined(map(arrays_digest, samples()))


def _packed(array: np.ndarray) -> dict[str, str]:
    return {"array": encoded(array)["array"], "dtype": array.dtype.name}


def unpacked(items: Mapping[str, Mapping[str, str]], file: str) -> dict[str, np.ndarray]:
    """The arrays of one sample.

    Args:
        items: What `ShardRunner.outputs` holds of it.
        file: The report, for messages.

    Raises:
        DataError: One cannot be decoded.
    """
    import ml_dtypes

    found = {}
    for name, item in items.items():
        array = decoded({**item, "polygraphy_class": "ndarray"}, Path(file), name)
        kind = item["dtype"]
        if kind == "object":
            array = array.astype(object)
        elif array.dtype.name != kind and hasattr(ml_dtypes, kind):
            array = array.view(getattr(ml_dtypes, kind))
        found[name] = array
    return found
