"""Why a layer is beyond its expected noise: one cause, and the facts that show it.

Facts are values. Each knows the clause that tells it, in the file of its cause; the report puts the clauses into one
line, and nobody takes that line apart again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..report.model import Cause, Fact


@dataclass(frozen=True)
class Diagnosis:
    """Why a layer is beyond its expected noise.

    Attributes:
        cause: The cause.
        facts: What shows it, the most telling fact first.
        node: The node that is to blame, where that is one of the layer's, or of the layer that makes ``producer``: its
            position in the reference's graph.
        producer: The tensor to blame instead: the candidate's format cannot hold what this layer is given.
        clamped: Whether nothing is wrong but values that the candidate's format does not reach, and that may change
            nothing: a mask's beyond the ends of its range, channels of weights below its smallest number.
        candidate_node: The node that is to blame, where the reference has none there: its position in the candidate's
            graph.
    """

    cause: Cause
    facts: tuple[Fact, ...]
    node: int | None = None
    producer: str | None = None
    clamped: bool = False
    candidate_node: int | None = None

    def adding(self, *facts: Fact) -> Diagnosis:
        """The same with more facts behind those that it has."""
        return replace(self, facts=(*self.facts, *facts))


@dataclass(frozen=True)
class Remark:
    """What is worth saying and nothing follows from.

    Attributes:
        text: The clause.
    """

    text: str
