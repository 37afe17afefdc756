"""What a walk is asked for, and what it saw: plain data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.specs import Arrays
from ..lockstep.plan import LayerPair
from ..statistics.statistics import Statistics
from .collisions import Collision
from .observation import LayerObservation
from .portion import Portion, Squares

if TYPE_CHECKING:
    from ..report.model import Notice


@dataclass(frozen=True)
class Walked:
    """What a walk saw.

    Attributes:
        layers: Every layer, by its number.
        outputs: Cumulative statistics of the model's outputs, as far as they were reached.
        identical: Of each output and sample, whether it was the deployed one bit by bit; None where that is not known.
        collisions: Scatters that write several updates to one place.
        notices: What the user should know.
        errors: The candidate's errors at the outputs, on its own values.
    """

    layers: tuple[LayerObservation, ...]
    outputs: Mapping[str, Statistics]
    identical: Mapping[str, tuple[bool | None, ...]]
    collisions: tuple[Collision, ...]
    notices: tuple[Notice, ...]
    errors: Squares


@dataclass(frozen=True)
class Forced:
    """Layers whose contribution is measured whatever their local error, by a walk that does nothing else.

    Attributes:
        numbers: Which.
        sample: On which sample; None: on none, and the candidate is run on its own values of all of them.
        errors: What an earlier walk gave, see `Walked`; None: the candidate is run on its own values once more.
        portion: The entries of the sample on which it is measured; None: all.
        look_at: Told of each of them, once, with the reference's tensors on this sample.
    """

    numbers: Collection[int]
    sample: int | None = 0
    errors: Squares | None = None
    portion: Portion | None = None
    look_at: Callable[[LayerPair, Arrays], None] = lambda pair, values: None
