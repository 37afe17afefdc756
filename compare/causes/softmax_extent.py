"""A Softmax that runs over another number of values: over rows in place of a whole picture.

Looks at: the one Softmax that each side has in a layer that they compute with other operators, and the shape of what it
reads. Proves: that the two do not compute the same, whatever stands around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.operators import Kind, facts_of
from ...graph.pairing.changes import OpName
from ...graph.pairing.differences import op_names
from ...graph.pairing.normal_form import normal_form

if TYPE_CHECKING:
    from ...graph.cutting.slices import Slice
    from ...graph.index import GraphIndex
    from ...graph.specs import Arrays
    from .case import LayerCase


@dataclass(frozen=True)
class OtherExtent:
    """Over how many values a Softmax runs on each side.

    Attributes:
        node, candidate_node: Operator and name.
        count, candidate_count: How many values add up to one.
        read, candidate_read: What they read, where these are not one tensor, by its names in the two files; else empty.
    """

    node: OpName
    candidate_node: OpName
    count: int
    candidate_count: int
    read: str = ""
    candidate_read: str = ""

    @property
    def text(self) -> str:
        """See `Fact`."""
        mine, theirs = " ".join(self.node), " ".join(self.candidate_node)
        read, other = (f" of '{name}'" if name else "" for name in (self.read, self.candidate_read))
        return (
            f"{theirs} runs over {self.candidate_count:,} values{other} in the candidate, and {mine} over "
            f"{self.count:,}{read} in the reference"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.read:
            return (
                f"compute the Softmax of '{self.read}' in the second file, as the first one does, in place of "
                f"{' '.join(self.candidate_node)} of '{self.candidate_read}' and of what picks from it"
            )
        return f"let {' '.join(self.candidate_node)} run over {self.count:,} values in the second file"


def find(case: LayerCase) -> OtherExtent | None:
    """The Softmax of a layer, where those of the two sides run over another number of values."""
    index, other = case.graphs
    mine = _extent(index, case.pair.reference, {**case.inner, **case.values})
    theirs = _extent(other, case.pair.candidate, {**case.candidate_inner, **case.made})
    if mine is None or theirs is None or mine[1] == theirs[1]:
        return None
    read = mine[2], theirs[2]
    # of one tensor along another axis, or of two that both sides have: what lies between is not told
    known = read[0] in case.pair.reference.inputs and read[1] in case.origins
    others = read if known and case.origins[read[1]] != read[0] else ("", "")
    return OtherExtent(*mine[:1], *theirs[:1], mine[1], theirs[1], *others)


def _extent(index: GraphIndex, part: Slice, values: Arrays) -> tuple[OpName, int, str] | None:
    """The one Softmax of a layer, over how many values it runs, and what it reads; None where there is another number
    of them."""
    found = [p for p in part.nodes if facts_of(index.nodes[p]).kind is Kind.SOFTMAX]
    if len(found) != 1:
        return None
    made = index.nodes[found[0]].output[0]
    spec = index.specs.get(made)
    shape = values[made].shape if made in values else None if spec is None else spec.shape
    axis = normal_form(index, found[0], lambda name: index.weight(name) is not None).settings.get("axis", -1)
    if shape is None or not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
        return None
    count = shape[axis]
    return (op_names(index, found)[0], count, index.nodes[found[0]].input[0]) if isinstance(count, int) else None
