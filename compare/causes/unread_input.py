"""An input that the candidate does not read: a mask that was not handed on to a fused attention.

Looks at: the tensors that the reference's layer reads and the candidate's does not, and what the reference makes where
one of them says nothing. Proves: where that is what the candidate makes, that this is all that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import replaced
from .inverted_condition import explains


@dataclass(frozen=True)
class UnreadInput:
    """A tensor that the reference's layer reads, and the candidate's does not.

    Attributes:
        tensor: Its name in the reference.
        neutral: What it would have to hold everywhere to say nothing.
        reader: Operator and name of the node that makes the layer in the candidate.
    """

    tensor: str
    neutral: int
    reader: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.reader} is not given '{self.tensor}': it makes what the first file would if that were "
            f"{self.neutral} everywhere"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"let {self.reader} read what is '{self.tensor}' in the first file"


def find(case: LayerCase) -> Diagnosis | None:
    """The input that the candidate does not read, where that makes the error."""
    index = case.graphs[1]
    if case.graphs[0] is index or case.y.shape != case.c.shape or not replaced(case):
        return None
    for name in _unread(case):
        value = case.values[name]
        for neutral in (0, 1):
            made = case.reweighted({name: np.full_like(value, neutral)})
            if made is not None and made.shape == case.c.shape and explains(case.c, case.y, made):
                node = case.pair.candidate.nodes[-1]
                fact = UnreadInput(name, neutral, f"{index.nodes[node].op_type} {index.names[node]}")
                return Diagnosis(Cause.WRONG_OP, (fact,))
    return None


def _unread(case: LayerCase) -> Iterator[str]:
    """The tensors that the reference's layer alone reads, but for strings."""
    read = {case.origins.get(name, name) for name in case.pair.candidate.inputs}
    for name in case.pair.reference.inputs:
        value = case.values.get(name)
        if name not in read and value is not None and (is_float(value.dtype) or value.dtype.kind in "iub"):
            yield name
