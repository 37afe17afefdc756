"""An input that one side alone reads: a mask that was not handed on to a fused attention.

Looks at: the tensors that one side's layer reads and the other's does not, and what that side makes where one of them
says nothing. Proves: where that is what the other side makes, that this is all that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...graph.cutting.dataflow import Kind, dataflow
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


@dataclass(frozen=True)
class ReadBesides:
    """A tensor that the candidate's layer reads, and the reference's does not.

    Attributes:
        tensor: Its name in the candidate.
        neutral: What it would have to hold everywhere to say nothing.
        reader: Operator and name of the candidate's node that puts it, or what is made of it, together with the rest.
    """

    tensor: str
    neutral: int
    reader: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.reader} takes '{self.tensor}' into account, which the first file does not read there: if that were "
            f"{self.neutral} everywhere, it would make what the first file does"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"take '{self.tensor}' out of what {self.reader} computes in the second file"


def find(case: LayerCase) -> Diagnosis | None:
    """The input that one side alone reads, where that makes the error."""
    index = case.graphs[1]
    if case.graphs[0] is index or case.y.shape != case.c.shape or not replaced(case):
        return None
    for name, value in _besides(case):
        for neutral in (0, 1):
            if case.right_with(lambda part: part, {name: np.full_like(value, neutral)}):
                node = _joining(case, name)
                beside = ReadBesides(name, neutral, f"{index.nodes[node].op_type} {index.names[node]}")
                return Diagnosis(Cause.WRONG_OP, (beside,))
    for name in _unread(case):
        value = case.values[name]
        for neutral in (0, 1):
            if explains(case.c, case.y, case.reweighted({name: np.full_like(value, neutral)})):
                node = case.pair.candidate.nodes[-1]
                fact = UnreadInput(name, neutral, f"{index.nodes[node].op_type} {index.names[node]}")
                return Diagnosis(Cause.WRONG_OP, (fact,))
    return None


def _besides(case: LayerCase) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors that the candidate's layer alone reads, but for strings, with the reference's values."""
    for name in case.pair.candidate.inputs:
        origin = case.origins.get(name, name)
        value = case.values.get(origin)
        if origin not in case.pair.reference.inputs and value is not None and _neutral(value):
            yield name, value


def _joining(case: LayerCase, name: str) -> int:
    """The first of the candidate's nodes that reads something made of a tensor, and something that is not."""
    index, made = case.graphs[1], {name}
    kind = dataflow(index).kind
    for position in case.pair.candidate.nodes:
        read = {n for n in index.reads[position] if n in made or kind.get(n) is Kind.DATA}
        if read & made:
            if read - made:
                return position
            made.update(index.nodes[position].output)
    return case.pair.candidate.nodes[-1]


def _neutral(value: np.ndarray) -> bool:
    """Whether a tensor can hold a number that says nothing."""
    return is_float(value.dtype) or value.dtype.kind in "iub"


def _unread(case: LayerCase) -> Iterator[str]:
    """The tensors that the reference's layer alone reads, but for strings."""
    read = {case.origins.get(name, name) for name in case.pair.candidate.inputs}
    for name in case.pair.reference.inputs:
        value = case.values.get(name)
        if name not in read and value is not None and _neutral(value):
            yield name
