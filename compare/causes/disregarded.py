"""What a runtime disregards of one file: an optional input of an operator, or an attribute. A parser that knows older
opsets alone may read a later node so.

Looks at: what the reference makes where a node of the layer has not got it. Proves: where that is what the candidate
makes, that the candidate computes as if it were not there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import without_attribute, without_input
from ...graph.operators import CONTROL_FLOW, domain_of, operator
from ...graph.pairing.constants import constant_value
from ...graph.schemas import attribute_until, optional_inputs, settings_made
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .inverted_condition import LEFT, explains

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.model import Model

MOST = 16
"""Most inputs and attributes of a layer that are left out to try."""
SHOWN = 8
"""Most numbers of an input that are told."""


@dataclass(frozen=True)
class Disregarded:
    """An input or an attribute of a node as if without which a runtime computes.

    Attributes:
        op: Operator of the node.
        node: Its name.
        what: What it is called in the operator's schema, and what it holds: ``its input axes ([-1])``.
        name: What it is called there.
        until: The last opset in which an input was an attribute; None where it never was.
    """

    op: str
    node: str
    what: str
    name: str
    until: int | None = None

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the candidate computes {self.told} as if without {self.what}: without it, the reference makes the same"

    @property
    def told(self) -> str:
        """The node."""
        return f"{self.op} {self.node}"

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.until is not None:
            return (
                f"export the model with opset {self.until} or a lower one, in which {self.name} is an attribute, "
                "or run it on a version of the runtime that knows the opset of the file"
            )
        return f"run it on a version of the runtime that reads {self.name} of {self.told}, or write it with other nodes"


def find(case: LayerCase) -> Diagnosis | None:
    """The input or attribute without which the reference makes what the candidate does, of one file on two runtimes."""
    return _first(case) if case.y.shape == case.c.shape else None


def of_shape(case: LayerCase) -> Diagnosis | None:
    """The same where what the candidate makes has another shape."""
    return _first(case) if case.y.shape != case.c.shape else None


def _first(case: LayerCase) -> Diagnosis | None:
    if case.graphs[0] is not case.graphs[1] or case.formats.quantized:
        return None
    for fact, position, alter in itertools.islice(_trials(case), MOST):
        if _same(case, case.reference_altered(alter)):
            return Diagnosis(Cause.WRONG_OP, (fact,), node=position)
    return None


def _same(case: LayerCase, made: np.ndarray | None) -> bool:
    """Whether what the reference makes then is what the candidate does."""
    if case.y.shape == case.c.shape:
        return explains(case.c, case.y, made)
    return made is not None and made.shape == case.c.shape and np.allclose(made, case.c, rtol=LEFT, equal_nan=True)


def _trials(case: LayerCase) -> Iterator[tuple[Disregarded, int, Callable[[Model], Model | None]]]:
    """What can be left out of the nodes of a layer, with the positions of these nodes, and how."""
    index = case.graphs[0]
    for place, position in enumerate(case.pair.reference.nodes):
        node = index.nodes[position]
        if operator(node) in CONTROL_FLOW:  # without a trip count, a loop need not end
            continue
        version = index.opset.get(domain_of(node), 1)
        told = node.op_type, index.names[position]
        for slot, name in optional_inputs(node, version):
            what = f"its input {name} ({_told(index, node.input[slot])})"
            until = attribute_until(node, version, name)
            yield Disregarded(*told, what, name, until), position, partial(without_input, node=place, slot=slot)
        for name, value in settings_made(node, version):
            fact = Disregarded(*told, f"its attribute {name} ({value})", name)
            yield fact, position, partial(without_attribute, node=place, name=name)


def _told(index: GraphIndex, tensor: str) -> str:
    """A tensor, with its numbers where these are few and constant."""
    value = constant_value(index, tensor)
    if value is None or value.size > SHOWN:
        return f"'{tensor}'"
    return str(np.asarray(value).tolist())
