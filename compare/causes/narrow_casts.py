"""Casts there and back: the candidate's file casts a tensor to FP16 or BF16 and back, and the reference's does not.

Looks at: the Casts in the candidate's graph of tensors that both files have. Proves: of a layer within its expected
noise, which allows for what they round, that they are what rounds in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.formats import NumberFormat
from ..report.model import Cause
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...graph.index import GraphIndex
    from ...graph.pairing.cast_pairs import CastPair


@dataclass(frozen=True)
class CastThereAndBack:
    """A tensor that the candidate's file alone casts to a narrow format and back.

    Attributes:
        maker: Who makes it.
        format: The format.
        cast: Name of the first Cast.
    """

    maker: str
    format: NumberFormat
    cast: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"{self.maker} is cast to {self.format} and back in the candidate's file (Cast {self.cast})"


def of_layer(index: GraphIndex, pairs: Sequence[CastPair]) -> Diagnosis | None:
    """What the Casts of a layer come to; None where it has none.

    Args:
        index: The candidate's graph.
        pairs: The tensors of the layer that are cast there and back.
    """
    if not pairs:
        return None
    facts = tuple(CastThereAndBack(pair.maker, pair.format, pair.cast) for pair in pairs)
    return Diagnosis(Cause.WRONG_OP, facts, candidate_node=index.producer[pairs[0].narrow])
