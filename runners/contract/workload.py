"""What a session is asked to run: samples, and the shapes of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Feed = Mapping[str, "np.ndarray"]
"""Arrays by tensor name."""


@dataclass(frozen=True)
class ShapeRange:
    """Shapes of one input that a runtime must be ready for."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class Workload:
    """What a session will be asked to do: known before it opens, for those runtimes that build for it.

    Attributes:
        samples: Gives the input samples anew at each call.
        shapes: Shape ranges of inputs; an input that is not named here has the shapes of the samples.
        profiles: Several sets of such ranges, for a runtime that builds for each of them; empty: ``shapes`` is the only
            one.
        calibration: Gives other samples, to calibrate on; None: those that are run.
    """

    samples: Callable[[], Iterable[Feed]] | None = None
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    profiles: tuple[Mapping[str, ShapeRange], ...] = ()
    calibration: Callable[[], Iterable[Feed]] | None = None

    @property
    def calibrating(self) -> Callable[[], Iterable[Feed]] | None:
        """What INT8 and FP8 find their ranges on."""
        return self.calibration or self.samples

    @property
    def shape_sets(self) -> tuple[Mapping[str, ShapeRange], ...]:
        """The sets of shape ranges to build for, one at least."""
        return self.profiles or (self.shapes,)


def seen_ranges(samples: Iterable[Feed], names: Iterable[str]) -> dict[str, ShapeRange]:
    """The shapes that inputs have in samples: least and greatest of each dimension, and those of the first sample.

    An input whose rank changes has no range and is left out.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in names}
    for sample in samples:
        for name, found in shapes.items():
            found.append(tuple(int(d) for d in sample[name].shape))
    return {
        name: ShapeRange(*(tuple(f(column) for column in zip(*found, strict=True)) for f in (min, lambda c: c[0], max)))
        for name, found in shapes.items()
        if len({len(shape) for shape in found}) == 1
    }
