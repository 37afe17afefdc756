"""What is found of one candidate: its layers, who is to blame, and what the user should know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..causes.diagnosis import Diagnosis
    from ..report.model import Culprit, Fidelity, LayerResult, Notice
    from ..runs.repeatability import Repeat


@dataclass(frozen=True)
class Localized:
    """What localizing one candidate adds to the report; see there.

    Attributes:
        repeats: Second runs, by the runner's name.
        settled: Runners whose second run the layers stand for.
    """

    layers: tuple[LayerResult, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    fidelity: tuple[Fidelity, ...] = ()
    notices: tuple[Notice, ...] = ()
    repeats: Mapping[str, Repeat] = field(default_factory=dict)
    settled: tuple[str, ...] = ()


@dataclass(frozen=True)
class BodyFindings:
    """What was found inside a layer.

    Attributes:
        culprits, layers: As in the report, with where they are.
        clean: Nothing inside exceeds its expected noise, and what the iterations make explains the layer's error.
        agrees: Each iteration makes of the same what it makes in the reference, to within rounding.
        diagnosis: What is wrong with the layer itself, where that was seen: a branch, the number of iterations.
        remark: Why it was not entered, or what was seen; a clause for the evidence of the layer as a whole.
    """

    culprits: tuple[Culprit, ...] = ()
    layers: tuple[LayerResult, ...] = ()
    clean: bool = False
    agrees: bool = False
    diagnosis: Diagnosis | None = None
    remark: str = ""


NOTHING_INSIDE = BodyFindings()
