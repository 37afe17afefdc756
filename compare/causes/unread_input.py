"""An input that one side alone reads: a mask that was not handed on to a fused attention, or its biases.

Looks at: the tensors that one side's layer reads and the other's does not, the biases of the reference's, and what that
side makes where one of them says nothing. Proves: where that is what the other side makes, that this is all that is
wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.contrib_ops import settings
from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.operators import domain_of, operator
from ...graph.pairing.constants import constant_value
from ...graph.pairing.normal_form import slots
from ...graph.printable import listed
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import replaced
from .inverted_condition import explains

if TYPE_CHECKING:
    from ...graph.index import GraphIndex


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


@dataclass(frozen=True)
class WithoutBiases:
    """Biases of the reference's layer that the candidate's does not add.

    Attributes:
        biases: Their names in the reference.
        reader: Operator and name of the node that makes the layer in the candidate.
    """

    biases: tuple[str, ...]
    reader: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        one = len(self.biases) == 1
        return (
            f"{self.reader} does not add {self._told} of the first file: it makes what the first file would if "
            f"{'that were' if one else 'those were'} zero"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"give {self.reader} the bias{'' if len(self.biases) == 1 else 'es'} {self._told} of the first file"

    @property
    def _told(self) -> str:
        return listed([f"'{name}'" for name in self.biases], len(self.biases))


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
                node = case.graphs[1].producer[case.twin]
                fact = UnreadInput(name, neutral, f"{index.nodes[node].op_type} {index.names[node]}")
                return Diagnosis(Cause.WRONG_OP, (fact,))
    return _without_biases(case)


def _without_biases(case: LayerCase) -> Diagnosis | None:
    """The biases that a fused attention is not given, where that makes the error: all of them, or one."""
    reader = _unbiased(case.graphs[1], case.pair.candidate.nodes)
    biases = _biases(case) if reader else {}
    for names in ([*biases], *([name] for name in biases)):
        zeros = {name: np.zeros_like(biases[name][1]) for name in names}
        if names and explains(case.c, case.y, case.reweighted(zeros)):
            return Diagnosis(Cause.WRONG_OP, (WithoutBiases(tuple(names), reader),), biases[names[0]][0])
    return None


def _unbiased(index: GraphIndex, nodes: Sequence[int]) -> str:
    """Operator and name of the attention among some nodes that is given no bias; empty where there is none."""
    for position in nodes:
        node = index.nodes[position]
        if settings(node, 1).get("num_heads", 0):
            version = index.opset.get(domain_of(node), 1)
            given = [slot for slot, name in zip(slots(node, version), node.input, strict=True) if name]
            if "bias" not in given:
                return f"{node.op_type} {index.names[position]}"
    return ""


def _biases(case: LayerCase) -> dict[str, tuple[int, np.ndarray]]:
    """The vectors that nodes of the reference's layer add, by name: the node and its values."""
    index, found = case.graphs[0], dict[str, tuple[int, np.ndarray]]()
    for position in case.pair.reference.nodes:
        if operator(index.nodes[position]) == "Add":
            for name in index.nodes[position].input:
                value = constant_value(index, name)
                if value is not None and is_float(value.dtype) and value.ndim == 1 and value.size > 1 and value.any():
                    found[name] = position, value
    return found


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
    return case.graphs[1].producer[case.twin]


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
